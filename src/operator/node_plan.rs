//! Writes the node plan: for each Registry whose Service has an address, an entry for each of its names, and for each Mirror
//! whose replicas have addresses, one for each of its hosts.
//! It must never write a plan before the caches have been filled: an empty plan takes every entry off every node. Nor does
//! it take an entry out because of what a cache no longer shows: the owner is asked for first.

mod wanted;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ObjectMeta};
use kube::{Client, ResourceExt};
use tokio::sync::watch;

use super::apply::{Applier, Child, Desired, Inventory};
use super::authority::Authority;
use super::call::{CallError, Target, read};
use super::limits::Limits;
use super::metrics::Metrics;
use super::view::{View, cached};
use crate::api::{Mirror, Registry, labels};
use crate::plan::{self, Entry, INDEX_KEY, INDEX_NAME, Index, Owner, OwnerKind, Plan, SHARD_KEY, Shard, Wanted};
use wanted::{Asked, Sources};

/// Marks the plan's config maps among all that Wharf made.
const NAME_LABEL: &str = "node-plan";

/// Writes the plan and tells the others of it.
pub struct Planner {
    /// The client.
    pub client: Client,
    /// The caches.
    pub view: View,
    /// The engine that writes the plan's config maps.
    pub applier: Applier,
    /// The metrics.
    pub metrics: Metrics,
    /// The namespace of the plan.
    pub namespace: String,
    /// The operator's own namespace, in which Mirrors are.
    pub own_namespace: String,
    /// What Registries may have.
    pub limits: Limits,
    /// The authority, as last read.
    pub authority: watch::Receiver<Arc<Authority>>,
    /// Where the plan is told.
    pub plan: watch::Sender<Arc<Plan>>,
}

impl Planner {
    /// Brings the plan in the cluster to what Registries and Mirrors ask for. Returns whether all of it stands.
    ///
    /// # Errors
    /// The first request that failed.
    pub async fn pass(&self, now: Timestamp) -> Result<(), CallError> {
        let known = self.plan.borrow().clone();
        let previous = if known.revision > 0 { known } else { Arc::new(self.stored().await?) };
        let wanted = self.keep_living(&previous, self.asked()).await?;
        let bundle = self.authority.borrow().bundle();
        let next = plan::next(&previous, &bundle, wanted, now.as_second());
        let (index, shards) = plan::render(&next);
        let desired = self.desired(&index, &shards).await?;
        let report = self.applier.apply(&desired).await;
        for contest in &report.contests {
            tracing::warn!("{contest}");
        }
        if let Some(failure) = report.failures.into_iter().next() {
            return Err(failure);
        }
        self.metrics.set_plan(next.revision, next.hosts.len());
        if *self.plan.borrow().as_ref() != next {
            tracing::info!(revision = next.revision, hosts = next.hosts.len(), "node plan written");
            self.plan.send_replace(Arc::new(next));
        }
        let stale = self.stale(&desired);
        let deletion = self.applier.delete_all(stale.0).await;
        deletion.failures.into_iter().next().map_or(Ok(()), Err)
    }

    fn asked(&self) -> Asked {
        let live = self.view.live();
        let registries: Vec<&Registry> = live.iter().collect();
        Asked::of(Sources {
            registries: &registries,
            mirrors: &self.view.live_mirrors(),
            services: &|namespace, name| cached(&self.view.services, namespace, name),
            limits: &self.limits,
            namespace: &self.own_namespace,
        })
    }

    /// What is asked for, and the entries whose owners the caches do not show, or not as they should be, and that are there
    /// all the same.
    async fn keep_living(&self, previous: &Plan, asked: Asked) -> Result<BTreeMap<String, Wanted>, CallError> {
        let mirrors = self.view.live_mirrors();
        let is_shown = |uid: &str| mirrors.iter().any(|mirror| mirror.metadata.uid.as_deref() == Some(uid));
        let mut kept = BTreeMap::new();
        for (host, entry) in &previous.hosts {
            if asked.may_stay(host, entry, is_shown) && self.is_alive(&entry.owner).await? {
                let Entry { backends, owner, nodes, .. } = entry.clone();
                kept.insert(host.clone(), Wanted { backends, owner, nodes });
            }
        }
        kept.extend(asked.entries);
        Ok(kept)
    }

    async fn is_alive(&self, owner: &Owner) -> Result<bool, CallError> {
        let metadata = match owner.kind {
            OwnerKind::Registry => {
                let api = Api::<Registry>::namespaced(self.client.clone(), &owner.namespace);
                let target = Target::new("Registry", &owner.namespace, &owner.name);
                let found = read(&self.metrics, target, api.get_metadata(&owner.name)).await?;
                found.map(|found| found.metadata)
            }
            OwnerKind::Mirror => {
                let api = Api::<Mirror>::all(self.client.clone());
                let found =
                    read(&self.metrics, Target::new("Mirror", "", &owner.name), api.get_metadata(&owner.name)).await?;
                found.map(|found| found.metadata)
            }
        };
        Ok(metadata.is_some_and(|found| found.uid.as_ref() == Some(&owner.uid) && found.deletion_timestamp.is_none()))
    }

    /// The plan as it stands in the cluster. What cannot be read counts as changed, so it is written anew.
    async fn stored(&self) -> Result<Plan, CallError> {
        let Some(index) = self.document(INDEX_NAME, INDEX_KEY).await? else {
            return Ok(Plan::default());
        };
        let Ok(index) = serde_json::from_str::<Index>(&index) else {
            return Ok(Plan::default());
        };
        let mut hosts = BTreeMap::new();
        for reference in &index.shards {
            let document = self.document(&reference.name, SHARD_KEY).await?;
            let shard = document.and_then(|document| serde_json::from_str::<Shard>(&document).ok());
            hosts.extend(shard.unwrap_or_default().hosts);
        }
        Ok(Plan { revision: index.revision, authority: index.authority, authority_since: index.authority_since, hosts })
    }

    async fn document(&self, name: &str, key: &str) -> Result<Option<String>, CallError> {
        Ok(self.config_map(name).await?.and_then(|config_map| config_map.data?.remove(key)))
    }

    async fn config_map(&self, name: &str) -> Result<Option<ConfigMap>, CallError> {
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), &self.namespace);
        read(&self.metrics, Target::new("ConfigMap", &self.namespace, name), api.get(name)).await
    }

    async fn desired(&self, index: &Index, shards: &BTreeMap<String, String>) -> Result<Desired, CallError> {
        let mut first = Vec::new();
        for (name, document) in shards {
            first.push(self.child(name, SHARD_KEY, document.clone()).await?);
        }
        let document = serde_json::to_string(index).unwrap_or_default();
        Ok(Desired { stages: vec![first, vec![self.child(INDEX_NAME, INDEX_KEY, document).await?]] })
    }

    /// The plan's namespace is Wharf's own, so whatever has one of these names there is the plan's.
    async fn child(&self, name: &str, key: &str, document: String) -> Result<Child, CallError> {
        let live = match cached(&self.view.config_maps, &self.namespace, name) {
            Some(live) => Some((*live).clone()),
            None => self.config_map(name).await?,
        };
        let labels = [(labels::NAME, NAME_LABEL), (labels::MANAGED_BY, labels::MANAGED_BY_WHARF)];
        let config_map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(self.namespace.clone()),
                labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(key.to_owned(), document)])),
            ..ConfigMap::default()
        };
        Ok(Child::new(&config_map, live.as_ref()))
    }

    /// Shards that the index no longer names.
    fn stale(&self, desired: &Desired) -> Inventory {
        let wanted: Vec<&str> = desired.children().map(|child| child.target().name.as_str()).collect();
        let mut stale = Inventory::default();
        for config_map in self.view.config_maps.state() {
            if config_map.namespace().as_deref() == Some(&self.namespace)
                && config_map.labels().get(labels::NAME).is_some_and(|name| name == NAME_LABEL)
                && !wanted.contains(&config_map.name_any().as_str())
            {
                stale.add(config_map.as_ref());
            }
        }
        stale
    }
}
