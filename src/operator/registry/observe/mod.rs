//! Reads what a pass over a Registry needs, from the caches where it can, from the API server where it must.
//! It must never write, and never decide what a fact means.

mod exposure;
mod storage;

use std::fmt::Debug;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, ListParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::Store;
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::names::Names;
use super::precedence::{Hosts, PlannedHost, Precedence, planned};
use crate::api::registry::NetworkPolicyMode;
use crate::api::{NodeRuntimeStatus, Registry, labels};
use crate::operator::apis::Apis;
use crate::operator::apply::Inventory;
use crate::operator::authority::Authority;
use crate::operator::ca_bundle::{self, Refusals, Standing};
use crate::operator::call::{Action, CallError, Target, call, read};
use crate::operator::found::{Finder, add_owned, whose};
use crate::operator::front::Fronts;
use crate::operator::metrics::Metrics;
use crate::operator::view::{View, cached};
use crate::operator::volume::{VolumeUse, Volumes};
use crate::plan::Plan;
use crate::volume::Images;

pub use self::exposure::{IngressClassFact, ObservedExposure};
pub use self::storage::{ClassTraits, FoundClaim, StorageClassFact, capacity, chosen_class, requested};
pub use crate::operator::found::{Found, is_owned_by};

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
    /// An older Registry that keeps its images in the same place, as `namespace/name`.
    pub rival: Option<String>,
    /// What keeps voluntary disruptions from stopping every pod at once.
    pub disruption_budget: Found<PodDisruptionBudget>,
    /// What may reach the registry's pods.
    pub network_policy: Found<NetworkPolicy>,
    /// The engine's configuration.
    pub configuration: Found<Secret>,
    /// The certificates that clients must trust.
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
    /// Nodes of those pods that do not answer.
    pub lost_nodes: Vec<String>,
    /// How full the volume is, as its pod last told.
    pub volume: Option<VolumeUse>,
    /// What the images take, as its pod told some minutes ago at most, rounded.
    pub images: Option<Images>,
    /// What the agents report, by node.
    pub nodes: Vec<(String, NodeRuntimeStatus)>,
    /// Its further names.
    pub hosts: Hosts,
    /// The names by which nodes pull from it.
    pub planned: Vec<PlannedHost>,
    /// How it stands with the certificates in the namespaces that it selects; `None` where it selects none.
    pub ca_bundles: Option<Standing>,
    /// The ways in from beyond the cluster.
    pub exposure: ObservedExposure,
    /// All that this Registry owns.
    pub inventory: Inventory,
}

/// Reads for one Registry.
pub struct Observer<'a> {
    /// The client for fresh reads.
    pub client: &'a Client,
    /// The caches.
    pub view: &'a View,
    /// Who has what several Registries want.
    pub precedence: &'a Precedence<'a>,
    /// The node plan last written.
    pub plan: &'a Plan,
    /// What pods tell of their volumes.
    pub volumes: &'a Volumes,
    /// What became of the proofs of fronts.
    pub fronts: &'a Fronts,
    /// Which APIs of other projects there are.
    pub apis: Apis,
    /// The authority.
    pub authority: &'a Authority,
    /// Where config maps with the certificates were refused.
    pub ca_refusals: &'a Refusals,
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
        let storage_class = self.storage_class(registry, &claim).await?;
        let pods = self.pods_unless_available(&deployment, names).await?;
        let hosts = self.precedence.hosts(registry);
        Ok(Observed {
            rival: self.rival(registry, &deployment).await?,
            disruption_budget: self.disruption_budget(registry, names).await?,
            network_policy: self.network_policy(registry, names).await?,
            configuration: self.owned(&view.secrets, registry, &names.configuration()).await?,
            authority: self.owned(&view.config_maps, registry, &names.authority()).await?,
            credentials: self.owned(&view.secrets, registry, &names.credentials()).await?,
            certificate: self.owned(&view.secrets, registry, &names.certificate()).await?,
            pull_secret: self.owned(&view.secrets, registry, &names.pull_secret()).await?,
            service_account: self.owned(&view.service_accounts, registry, &names.service_account()).await?,
            nodes: view.node_reports(),
            planned: planned(registry, &hosts.granted, self.plan, self.authority.older_suffices()),
            hosts,
            ca_bundles: ca_bundle::standing(registry, view, &self.authority.bundle(), self.ca_refusals),
            exposure: self.exposure(registry, names).await?,
            inventory: self.inventory(registry),
            service,
            deployment,
            claim,
            storage_class,
            lost_nodes: lost_nodes(self.client, self.metrics, &pods).await?,
            volume: self.volumes.of(registry),
            images: self.volumes.images(registry),
            pods,
        })
    }

    /// An object that should carry our owner reference.
    async fn owned<K>(&self, store: &Store<K>, registry: &Registry, name: &str) -> Result<Found<K>, CallError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + 'static,
    {
        let finder = Finder { client: self.client, metrics: self.metrics };
        finder.find(store, registry, &registry.namespace().unwrap_or_default(), name).await
    }

    /// An object that most Registries do not have: unless it is wanted, a cache without it is answer enough.
    async fn owned_if<K>(
        &self,
        wanted: bool,
        store: &Store<K>,
        registry: &Registry,
        name: &str,
    ) -> Result<Found<K>, CallError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + 'static,
    {
        if wanted { self.owned(store, registry, name).await } else { Ok(Found::Absent) }
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

    /// A budget is made for several pods only, so for one pod a cache without it is answer enough.
    async fn disruption_budget(
        &self,
        registry: &Registry,
        names: &Names,
    ) -> Result<Found<PodDisruptionBudget>, CallError> {
        let store = &self.view.disruption_budgets;
        if registry.spec.replicas > 1 || cached(store, names.namespace(), &names.deployment()).is_some() {
            return self.owned(store, registry, &names.deployment()).await;
        }
        Ok(Found::Absent)
    }

    /// Where none is to be made, a cache without one is answer enough.
    async fn network_policy(&self, registry: &Registry, names: &Names) -> Result<Found<NetworkPolicy>, CallError> {
        let (store, name) = (&self.view.network_policies, names.network_policy());
        let wanted = registry.spec.network_policy.mode == NetworkPolicyMode::Ports;
        if wanted || cached(store, names.namespace(), &name).is_some() {
            return self.owned(store, registry, &name).await;
        }
        Ok(Found::Absent)
    }

    async fn pods(&self, namespace: &str, parameters: &ListParams) -> Result<Vec<Pod>, CallError> {
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
        let target = Target::new("pods", namespace, "");
        Ok(call(self.metrics, Action::List, target, api.list(parameters)).await?.items)
    }

    fn inventory(&self, registry: &Registry) -> Inventory {
        let mut inventory = Inventory::default();
        let (view, namespace) = (self.view, registry.metadata.namespace.as_deref());
        add_owned(&mut inventory, &view.services, registry, namespace);
        add_owned(&mut inventory, &view.deployments, registry, namespace);
        add_owned(&mut inventory, &view.config_maps, registry, namespace);
        add_owned(&mut inventory, &view.secrets, registry, namespace);
        add_owned(&mut inventory, &view.service_accounts, registry, namespace);
        add_owned(&mut inventory, &view.disruption_budgets, registry, namespace);
        add_owned(&mut inventory, &view.ingresses, registry, namespace);
        add_owned(&mut inventory, &view.network_policies, registry, namespace);
        // While a part of the Gateway API is missing nothing of it is built. What is wanted is not taken away for that.
        let wanted = registry.spec.expose.as_ref().is_some_and(|expose| expose.gateway.is_some());
        if self.apis.has_gateway_api() || !wanted {
            add_owned(&mut inventory, &view.http_routes, registry, namespace);
            add_owned(&mut inventory, &view.backend_tls_policies, registry, namespace);
        }
        inventory
    }
}

/// Whether Wharf has begun to make this Registry: the credential is the first of its children that stays.
#[must_use]
pub fn is_begun(registry: &Registry, names: &Names, view: &View) -> bool {
    let owned = |secret: std::sync::Arc<Secret>| is_owned_by(secret.as_ref(), registry);
    cached(&view.secrets, names.namespace(), &names.credentials()).is_some_and(owned)
}

/// The nodes of these pods that are gone or not ready. Read only while none of them answers.
///
/// # Errors
/// When the API server cannot be asked.
pub async fn lost_nodes(client: &Client, metrics: &Metrics, pods: &[Pod]) -> Result<Vec<String>, CallError> {
    let mut names: Vec<&str> =
        pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.as_deref()).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    names.dedup();
    let api = Api::<Node>::all(client.clone());
    let mut lost = Vec::new();
    for name in names {
        let node = read(metrics, Target::new("Node", "", name), api.get(name)).await?;
        if !node.is_some_and(|node| is_ready(&node)) {
            lost.push(name.to_owned());
        }
    }
    Ok(lost)
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
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
