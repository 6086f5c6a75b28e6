//! Reads what a pass over a Registry needs, from the caches where it can, from the API server where it must.
//! It must never write, and never decide what a fact means.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope as OpenApiNamespaced;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, ListParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::Store;
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::names::Names;
use crate::api::{NodeRuntimeStatus, Registry, labels};
use crate::operator::apply::Inventory;
use crate::operator::call::{Action, CallError, Target, call, read};
use crate::operator::metrics::Metrics;
use crate::operator::view::{View, cached};
use crate::plan::Plan;

/// An object of one of our names.
#[derive(Clone, Debug, PartialEq)]
pub enum Found<K> {
    /// There is none.
    Absent,
    /// This Registry's.
    Ours(K),
    /// Somebody else's; a few words on whose.
    Foreign(String),
}

impl<K> Found<K> {
    /// The object, if it is ours.
    pub fn ours(&self) -> Option<&K> {
        match self {
            Self::Ours(object) => Some(object),
            Self::Absent | Self::Foreign(_) => None,
        }
    }
}

/// The claim, which has no owner reference.
#[derive(Clone, Debug, PartialEq)]
pub enum FoundClaim {
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
}

impl FoundClaim {
    /// The claim, if this Registry uses it or may take it over.
    #[must_use]
    pub fn usable(&self) -> Option<&PersistentVolumeClaim> {
        match self {
            Self::Ours(claim) | Self::Left { claim, .. } => Some(claim),
            Self::Absent | Self::Foreign(_) => None,
        }
    }
}

/// What the cluster offers for a claim that is not bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageClassFact {
    /// Not looked at: the claim is bound, or exists with a class.
    NotNeeded,
    /// The named class exists, or none is named and there is a default.
    Available,
    /// There is no class of that name; these exist.
    Missing(Vec<String>),
    /// None is named and none is the default; these exist.
    NoDefault(Vec<String>),
}

/// Everything that a pass needs to know.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The Service.
    pub service: Found<Service>,
    /// The Deployment.
    pub deployment: Found<Deployment>,
    /// The claim.
    pub claim: FoundClaim,
    /// The storage class.
    pub storage_class: StorageClassFact,
    /// The engine's configuration.
    pub configuration: Found<ConfigMap>,
    /// The authority's certificate.
    pub authority: Found<ConfigMap>,
    /// User, password and file of users.
    pub credentials: Found<Secret>,
    /// The server certificate.
    pub certificate: Found<Secret>,
    /// The pull secret.
    pub pull_secret: Found<Secret>,
    /// The pod's service account.
    pub service_account: Found<ServiceAccount>,
    /// The registry's pods, read only while the Deployment is not available.
    pub pods: Vec<Pod>,
    /// What the agents report, by node.
    pub nodes: Vec<(String, NodeRuntimeStatus)>,
    /// The registry's host in the node plan.
    pub host: String,
    /// The revision of the node plan in which this Registry's entry last changed; `None` while it has none.
    pub planned_since: Option<i64>,
    /// All that this Registry owns.
    pub inventory: Inventory,
}

/// Reads for one Registry.
pub struct Observer<'a> {
    /// The client for fresh reads.
    pub client: &'a Client,
    /// The caches.
    pub view: &'a View,
    /// The node plan last written.
    pub plan: &'a Plan,
    /// The metrics.
    pub metrics: &'a Metrics,
}

impl Observer<'_> {
    /// Gathers everything for a pass.
    ///
    /// # Errors
    /// When the API server cannot be asked for what the caches do not hold.
    pub async fn observe(&self, registry: &Registry, names: &Names) -> Result<Observed, CallError> {
        let view = self.view;
        let service = self.owned(&view.services, registry, names.service()).await?;
        let deployment = self.owned(&view.deployments, registry, &names.deployment()).await?;
        let claim = self.claim(registry, names, &deployment).await?;
        let storage_class = self.storage_class(registry, &claim);
        let pods = self.pods_unless_available(&deployment, names).await?;
        Ok(Observed {
            configuration: self.owned(&view.config_maps, registry, &names.configuration()).await?,
            authority: self.owned(&view.config_maps, registry, &names.authority()).await?,
            credentials: self.owned(&view.secrets, registry, &names.credentials()).await?,
            certificate: self.owned(&view.secrets, registry, &names.certificate()).await?,
            pull_secret: self.owned(&view.secrets, registry, &names.pull_secret()).await?,
            service_account: self.owned(&view.service_accounts, registry, &names.service_account()).await?,
            nodes: view.node_reports(),
            host: names.address(),
            planned_since: self.plan.hosts.get(&names.address()).map(|entry| entry.since),
            inventory: self.inventory(registry),
            service,
            deployment,
            claim,
            storage_class,
            pods,
        })
    }

    /// An object that should carry our owner reference. The caches hold only objects with our label, so one that is
    /// missing there may still exist as somebody else's: before it is taken for absent, the API server is asked.
    async fn owned<K>(&self, store: &Store<K>, registry: &Registry, name: &str) -> Result<Found<K>, CallError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + k8s_openapi::Resource<Scope = OpenApiNamespaced>
            + Clone
            + Debug
            + DeserializeOwned
            + 'static,
    {
        let namespace = registry.namespace().unwrap_or_default();
        let object = match cached(store, &namespace, name) {
            Some(object) => Some((*object).clone()),
            None => {
                let api = Api::<K>::namespaced(self.client.clone(), &namespace);
                read(self.metrics, Target::new(K::KIND, namespace, name), api.get(name)).await?
            }
        };
        Ok(match object {
            None => Found::Absent,
            Some(object) if is_owned_by(&object, registry) => Found::Ours(object),
            Some(object) => Found::Foreign(whose(&object)),
        })
    }

    async fn claim(
        &self,
        registry: &Registry,
        names: &Names,
        deployment: &Found<Deployment>,
    ) -> Result<FoundClaim, CallError> {
        let name = names.claim();
        let claim = match cached(&self.view.claims, names.namespace(), &name) {
            Some(claim) => Some((*claim).clone()),
            None => {
                let api = Api::<PersistentVolumeClaim>::namespaced(self.client.clone(), names.namespace());
                let target = Target::new("PersistentVolumeClaim", names.namespace(), &name);
                read(self.metrics, target, api.get(&name)).await?
            }
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

    async fn pods_that_mount(&self, namespace: &str, claim: &str) -> Result<Vec<String>, CallError> {
        let pods = self.pods(namespace, &ListParams::default()).await?;
        Ok(pods.iter().filter(|pod| !is_finished(pod) && mounts(pod, claim)).map(ResourceExt::name_any).collect())
    }

    async fn pods_unless_available(
        &self,
        deployment: &Found<Deployment>,
        names: &Names,
    ) -> Result<Vec<Pod>, CallError> {
        let Some(deployment) = deployment.ours() else {
            return Ok(Vec::new());
        };
        let available = deployment.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0) > 0;
        let suspended = deployment.spec.as_ref().and_then(|spec| spec.replicas) == Some(0);
        if available || suspended {
            return Ok(Vec::new());
        }
        let selector = format!("{}=registry,{}={}", labels::NAME, labels::INSTANCE, names.registry());
        self.pods(names.namespace(), &ListParams::default().labels(&selector)).await
    }

    async fn pods(&self, namespace: &str, parameters: &ListParams) -> Result<Vec<Pod>, CallError> {
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
        let target = Target::new("pods", namespace, "");
        Ok(call(self.metrics, Action::List, target, api.list(parameters)).await?.items)
    }

    fn storage_class(&self, registry: &Registry, claim: &FoundClaim) -> StorageClassFact {
        let phase = claim.usable().and_then(|claim| claim.status.as_ref()).and_then(|status| status.phase.as_deref());
        if phase.is_some_and(|phase| phase != "Pending") {
            return StorageClassFact::NotNeeded;
        }
        let classes = self.view.storage_classes.state();
        let names = || classes.iter().map(|class| class.name_any()).collect();
        let wanted = claim
            .usable()
            .and_then(|claim| claim.spec.as_ref())
            .and_then(|spec| spec.storage_class_name.as_ref())
            .or(registry.spec.storage.claim.storage_class_name.as_ref());
        match wanted {
            Some(name) if classes.iter().any(|class| class.name_any() == *name) => StorageClassFact::Available,
            Some(_) => StorageClassFact::Missing(names()),
            None if classes.iter().any(|class| is_default(class)) => StorageClassFact::Available,
            None => StorageClassFact::NoDefault(names()),
        }
    }

    fn inventory(&self, registry: &Registry) -> Inventory {
        let mut inventory = Inventory::default();
        let view = self.view;
        add_owned(&mut inventory, &view.services, registry);
        add_owned(&mut inventory, &view.deployments, registry);
        add_owned(&mut inventory, &view.config_maps, registry);
        add_owned(&mut inventory, &view.secrets, registry);
        add_owned(&mut inventory, &view.service_accounts, registry);
        inventory
    }
}

fn add_owned<K>(inventory: &mut Inventory, store: &Store<K>, registry: &Registry)
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    for object in store.state() {
        if object.meta().namespace == registry.metadata.namespace && is_owned_by(object.as_ref(), registry) {
            inventory.add(object.as_ref());
        }
    }
}

fn is_owned_by<K: Resource>(object: &K, registry: &Registry) -> bool {
    object.owner_references().iter().any(|owner| Some(&owner.uid) == registry.metadata.uid.as_ref())
}

/// A few words on whose an object is that is not ours.
fn whose<K: Resource>(object: &K) -> String {
    if let Some(owner) = object.owner_references().first() {
        return format!("owned by {} {}", owner.kind, owner.name);
    }
    match object.labels().get(labels::MANAGED_BY) {
        Some(manager) => format!("managed by {manager}"),
        None => "without an owner".to_owned(),
    }
}

fn mounts(pod: &Pod, claim: &str) -> bool {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    volumes
        .into_iter()
        .flatten()
        .any(|volume| volume.persistent_volume_claim.as_ref().is_some_and(|source| source.claim_name == claim))
}

fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn is_default(class: &StorageClass) -> bool {
    class.annotations().get("storageclass.kubernetes.io/is-default-class").is_some_and(|value| value == "true")
}
