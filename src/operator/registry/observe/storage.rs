//! Reads where a Registry's images are, or would be: its claim, and the storage class that makes the volume.
//! It must never decide whether a claim may be used; it only tells whose it is and who mounts it.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::{CSIDriver, StorageClass};
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use kube::core::DeserializeGuard;

use super::{Found, Observer, is_finished, mounts, whose};
use crate::api::{Registry, labels};
use crate::operator::call::{Action, CallError, Target, call, read};
use crate::operator::registry::names::Names;
use crate::operator::registry::place;
use crate::operator::view::cached;
use crate::quantity;

/// The claim, which has no owner reference.
#[derive(Clone, Debug, PartialEq)]
pub enum FoundClaim {
    /// The images are in an object store.
    NotUsed,
    /// There is none.
    Absent,
    /// This Registry uses it already.
    Ours(PersistentVolumeClaim),
    /// An earlier Registry of this name left it; these pods still mount it.
    Left {
        /// The claim.
        claim: PersistentVolumeClaim,
        /// Names of pods that mount it.
        mounted_by: Vec<String>,
    },
    /// Somebody else's.
    Foreign(String),
    /// The user's own, named in the spec; before this Registry uses it, these pods mount it.
    Given {
        /// The claim.
        claim: PersistentVolumeClaim,
        /// Names of pods that mount it.
        mounted_by: Vec<String>,
    },
    /// The spec names a claim that does not exist.
    GivenMissing,
}

impl FoundClaim {
    /// The claim that Wharf made, if this Registry uses it or may take it over.
    #[must_use]
    pub fn usable(&self) -> Option<&PersistentVolumeClaim> {
        match self {
            Self::Ours(claim) | Self::Left { claim, .. } => Some(claim),
            Self::NotUsed | Self::Absent | Self::Foreign(_) | Self::Given { .. } | Self::GivenMissing => None,
        }
    }

    /// The claim that the pod mounts, whoever made it.
    #[must_use]
    pub fn in_use(&self) -> Option<&PersistentVolumeClaim> {
        match self {
            Self::Ours(claim) | Self::Given { claim, .. } => Some(claim),
            Self::NotUsed | Self::Absent | Self::Left { .. } | Self::Foreign(_) | Self::GivenMissing => None,
        }
    }
}

/// What the cluster offers for a claim that is to be made, bound or grown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageClassFact {
    /// Not looked at: the claim is bound, and as large as it should be.
    NotNeeded,
    /// The named class exists, or none is named and there is a default.
    Available(ClassTraits),
    /// There is no class of that name; these exist.
    Missing(Vec<String>),
    /// None is named and none is the default; these exist.
    NoDefault(Vec<String>),
}

/// What a storage class can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassTraits {
    /// A CSI driver makes its volumes, so that a claim can be bound to one pod.
    pub by_csi_driver: bool,
    /// Its volumes can grow.
    pub expandable: bool,
}

impl Observer<'_> {
    pub(super) async fn claim(
        &self,
        registry: &Registry,
        names: &Names,
        deployment: &Found<Deployment>,
    ) -> Result<FoundClaim, CallError> {
        let storage = &registry.spec.storage;
        if storage.s3.is_some() {
            return Ok(FoundClaim::NotUsed);
        }
        if let Some(name) = &storage.existing_claim_name {
            return self.given_claim(name, names, deployment).await;
        }
        let name = names.claim();
        let claim = match cached(&self.view.claims, names.namespace(), &name) {
            Some(claim) => Some((*claim).clone()),
            None => self.read_claim(names.namespace(), &name).await?,
        };
        let Some(claim) = claim else {
            return Ok(FoundClaim::Absent);
        };
        let made_for_us = claim.owner_references().is_empty()
            && claim.labels().get(labels::MANAGED_BY).is_some_and(|value| value == labels::MANAGED_BY_WHARF)
            && claim.labels().get(labels::INSTANCE).is_some_and(|value| value == names.registry());
        if !made_for_us {
            return Ok(FoundClaim::Foreign(whose(&claim)));
        }
        // A Deployment of this Registry uses the claim already, whatever became of the annotation.
        if claim.annotations().get(labels::REGISTRY_UID) == registry.metadata.uid.as_ref()
            || deployment.ours().is_some()
        {
            return Ok(FoundClaim::Ours(claim));
        }
        let mounted_by = self.pods_that_mount(names.namespace(), &name).await?;
        Ok(FoundClaim::Left { claim, mounted_by })
    }

    /// A claim of the user's is in no cache, because it has no label of ours: it is read in each pass.
    async fn given_claim(
        &self,
        name: &str,
        names: &Names,
        deployment: &Found<Deployment>,
    ) -> Result<FoundClaim, CallError> {
        let Some(claim) = self.read_claim(names.namespace(), name).await? else {
            return Ok(FoundClaim::GivenMissing);
        };
        let mounted_by = match deployment.ours() {
            Some(_) => Vec::new(),
            None => self.pods_that_mount(names.namespace(), name).await?,
        };
        Ok(FoundClaim::Given { claim, mounted_by })
    }

    async fn read_claim(&self, namespace: &str, name: &str) -> Result<Option<PersistentVolumeClaim>, CallError> {
        let api = Api::<PersistentVolumeClaim>::namespaced(self.client.clone(), namespace);
        read(self.metrics, Target::new("PersistentVolumeClaim", namespace, name), api.get(name)).await
    }

    async fn pods_that_mount(&self, namespace: &str, claim: &str) -> Result<Vec<String>, CallError> {
        let pods = self.pods(namespace, &ListParams::default()).await?;
        Ok(pods.iter().filter(|pod| !is_finished(pod) && mounts(pod, claim)).map(ResourceExt::name_any).collect())
    }

    /// Which older Registry keeps its images in the same place. Before an engine is started over a bucket, the Registries are
    /// read afresh: no volume keeps a second one away there, and a cache may not show the older one yet.
    pub(super) async fn rival(
        &self,
        registry: &Registry,
        deployment: &Found<Deployment>,
    ) -> Result<Option<String>, CallError> {
        let name = |older: &Registry| format!("{}/{}", older.namespace().unwrap_or_default(), older.name_any());
        let live = self.view.live();
        let known = place::older_with_same(registry, live.iter()).map(name);
        if known.is_some() || registry.spec.storage.s3.is_none() || deployment.ours().is_some() {
            return Ok(known);
        }
        let api = Api::<DeserializeGuard<Registry>>::all(self.client.clone());
        let target = Target::new("Registries", "", "");
        let all = call(self.metrics, Action::List, target, api.list(&ListParams::default())).await?;
        let readable = all.items.iter().filter_map(|guarded| guarded.0.as_ref().ok());
        let staying = readable.filter(|registry| registry.metadata.deletion_timestamp.is_none());
        Ok(place::older_with_same(registry, staying).map(name))
    }

    pub(super) async fn storage_class(
        &self,
        registry: &Registry,
        claim: &FoundClaim,
    ) -> Result<StorageClassFact, CallError> {
        if !asks_for_class(registry, claim) {
            return Ok(StorageClassFact::NotNeeded);
        }
        let classes = self.view.storage_classes.state();
        let names = || classes.iter().map(|class| class.name_any()).collect();
        let wanted = claim
            .usable()
            .and_then(|claim| claim.spec.as_ref())
            .and_then(|spec| spec.storage_class_name.as_ref())
            .or(registry.spec.storage.claim.storage_class_name.as_ref());
        let class = chosen_class(&classes, wanted);
        Ok(match (class, wanted) {
            (Some(class), _) => StorageClassFact::Available(ClassTraits {
                by_csi_driver: *claim == FoundClaim::Absent && self.is_csi_driver(&class.provisioner).await?,
                expandable: class.allow_volume_expansion.unwrap_or(false),
            }),
            (None, Some(_)) => StorageClassFact::Missing(names()),
            (None, None) => StorageClassFact::NoDefault(names()),
        })
    }

    /// Every CSI driver announces itself by an object of its name. All are listed, because the name of another kind of
    /// provisioner need not be one that an object can have.
    async fn is_csi_driver(&self, name: &str) -> Result<bool, CallError> {
        let api = Api::<CSIDriver>::all(self.client.clone());
        let target = Target::new("CSI drivers", "", "");
        let drivers = call(self.metrics, Action::List, target, api.list_metadata(&ListParams::default())).await?;
        Ok(drivers.items.iter().any(|driver| driver.name_any() == name))
    }
}

/// Whether the class decides anything: the claim is not made or not bound, or it is to grow.
fn asks_for_class(registry: &Registry, claim: &FoundClaim) -> bool {
    match claim {
        FoundClaim::Absent => true,
        FoundClaim::Ours(claim) | FoundClaim::Left { claim, .. } => {
            let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
            let wanted = quantity::milli(&registry.spec.storage.claim.size.0);
            phase.is_none_or(|phase| phase == "Pending")
                || requested(claim).is_some_and(|size| quantity::milli(size) < wanted)
        }
        FoundClaim::NotUsed | FoundClaim::Foreign(_) | FoundClaim::Given { .. } | FoundClaim::GivenMissing => false,
    }
}

/// The size that a claim asks for.
#[must_use]
pub fn requested(claim: &PersistentVolumeClaim) -> Option<&str> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    requests.get("storage").map(|size| size.0.as_str())
}

/// The size that a claim's volume has.
#[must_use]
pub fn capacity(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.status.as_ref()?.capacity.as_ref()?.get("storage").map(|size| size.0.as_str())
}

/// The class that is asked for by name, or the default one where none is.
#[must_use]
pub fn chosen_class<'a>(classes: &'a [Arc<StorageClass>], wanted: Option<&String>) -> Option<&'a Arc<StorageClass>> {
    match wanted {
        Some(name) => classes.iter().find(|class| class.name_any() == *name),
        None => default_class(classes),
    }
}

/// The default class: of several, Kubernetes takes the newest.
fn default_class(classes: &[Arc<StorageClass>]) -> Option<&Arc<StorageClass>> {
    classes
        .iter()
        .filter(|class| {
            class.annotations().get("storageclass.kubernetes.io/is-default-class").is_some_and(|value| value == "true")
        })
        .max_by_key(|class| class.creation_timestamp())
}
