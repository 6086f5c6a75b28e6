//! Reads what a pass over a Mirror needs, from the caches where it can, from the API server where it must.
//! It must never write, never decide what a fact means, and never keep what a user's Secret holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::IpAddr;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, ListParams};
use kube::core::{NamespaceResourceScope, Selector, SelectorExt};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::names::{IN_USE_KEY, Names};
use super::precedence::{Hosts, hosts_of, registry_hosts};
use super::reports::{MirrorReports, PodReport};
use crate::api::registry::NetworkPolicyMode;
use crate::api::{Mirror, NodeRuntimeStatus, labels};
use crate::operator::apply::Inventory;
use crate::operator::call::{Action, CallError, Target, call, read};
use crate::operator::found::{Finder, Found, add_owned};
use crate::operator::images::{Images, platforms};
use crate::operator::metrics::Metrics;
use crate::operator::registry::observe::{ClassTraits, StorageClassFact, chosen_class, lost_nodes};
use crate::operator::settings::Settings;
use crate::operator::view::{View, cached};
use crate::plan::{OwnerKind, Plan};

/// Everything that a pass needs to know.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The Service before all pods.
    pub service: Found<Service>,
    /// The Service of each replica that the spec asks for, by ordinal.
    pub replicas: Vec<Found<Service>>,
    /// The pods' controller.
    pub stateful_set: Found<StatefulSet>,
    /// The server's configuration.
    pub configuration: Found<ConfigMap>,
    /// The server certificate.
    pub certificate: Found<Secret>,
    /// What keeps voluntary disruptions from stopping every pod at once.
    pub disruption_budget: Found<PodDisruptionBudget>,
    /// What may reach the pods.
    pub network_policy: Found<NetworkPolicy>,
    /// Whether there is a list of digests that pods run.
    pub lists_in_use: bool,
    /// The claims of the pods, by name.
    pub claims: Vec<PersistentVolumeClaim>,
    /// The storage class of claims.
    pub storage_class: StorageClassFact,
    /// The pods, read only while none is available.
    pub pods: Vec<Pod>,
    /// Nodes of those pods that do not answer.
    pub lost_nodes: Vec<String>,
    /// What became of the hosts that the spec asks for.
    pub hosts: Hosts,
    /// What is known of the Secrets that the spec names, by name; those that exist.
    pub secrets: BTreeMap<String, SecretFact>,
    /// The addresses of all Services of Mirrors.
    pub mirror_addresses: BTreeSet<IpAddr>,
    /// Hosts that the node plan has for this Mirror.
    pub planned: BTreeSet<String>,
    /// What the agents of the selected nodes report, by node.
    pub nodes: Vec<(String, NodeRuntimeStatus)>,
    /// Selected nodes whose runtime passes this Mirror by; `None` while that is not known.
    pub bypassed: Option<Vec<String>>,
    /// The platforms of the cluster's nodes.
    pub platforms: Vec<String>,
    /// What the pods told last.
    pub reports: Option<Vec<PodReport>>,
    /// All that this Mirror owns, but for what other parts of the operator write for it.
    pub inventory: Inventory,
}

/// What may be known of a Secret that a user made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretFact {
    /// Its type.
    pub kind: String,
    /// The names of what it holds.
    pub keys: BTreeSet<String>,
    /// The endpoints to which it says that its credential may go.
    pub endpoints: Vec<String>,
}

impl SecretFact {
    fn of(secret: &Secret) -> Self {
        let named = secret.annotations().get(labels::ENDPOINTS).map_or("", String::as_str);
        Self {
            kind: secret.type_.clone().unwrap_or_default(),
            keys: secret.data.iter().flat_map(BTreeMap::keys).cloned().collect(),
            endpoints: named.split(',').map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned).collect(),
        }
    }

    /// In what way it is no credential, to follow its name; `None` when it is one.
    #[must_use]
    pub fn lacks_a_credential(&self) -> Option<String> {
        let needed: &[&str] = match self.kind.as_str() {
            "kubernetes.io/basic-auth" => &["username", "password"],
            "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
            other => return Some(format!("is of type {other}")),
        };
        let missing: Vec<&str> = needed.iter().copied().filter(|key| !self.keys.contains(*key)).collect();
        (!missing.is_empty()).then(|| format!("has no {}", missing.join(" and no ")))
    }
}

/// Reads for one Mirror.
pub struct Observer<'a> {
    /// The client for fresh reads.
    pub client: &'a Client,
    /// The caches.
    pub view: &'a View,
    /// The administrator's settings.
    pub settings: &'a Settings,
    /// The node plan last written.
    pub plan: &'a Plan,
    /// What pods tell.
    pub reports: &'a MirrorReports,
    /// What images pods run.
    pub images: &'a Images,
    /// The metrics.
    pub metrics: &'a Metrics,
}

impl Observer<'_> {
    /// Gathers everything for a pass.
    ///
    /// # Errors
    /// When the API server cannot be asked for what the caches do not hold.
    pub async fn observe(&self, mirror: &Mirror, names: &Names) -> Result<Observed, CallError> {
        let view = self.view;
        let object = names.object();
        let stateful_set = self.owned(&view.stateful_sets, mirror, &object).await?;
        let mut replicas = Vec::new();
        for ordinal in 0..mirror.spec.replicas {
            replicas.push(self.owned(&view.services, mirror, &names.replica(ordinal)).await?);
        }
        let has_budget = mirror.spec.replicas > 1;
        let has_policy = mirror.spec.network_policy.mode == NetworkPolicyMode::Ports;
        let pods = self.pods_unless_available(&stateful_set, names).await?;
        let hosts = self.hosts(mirror);
        let nodes = selected(mirror, view);
        let bypassed = self.images.bypassed(&hosts.granted, &nodes);
        let in_use = cached(&view.config_maps, names.namespace(), &names.in_use());
        Ok(Observed {
            service: self.owned(&view.services, mirror, &object).await?,
            replicas,
            stateful_set,
            configuration: self.owned(&view.config_maps, mirror, &object).await?,
            certificate: self.owned(&view.secrets, mirror, &names.certificate()).await?,
            disruption_budget: self.owned_if(has_budget, &view.disruption_budgets, mirror, &object).await?,
            network_policy: self.owned_if(has_policy, &view.network_policies, mirror, &object).await?,
            lists_in_use: in_use.is_some_and(|found| found.data.iter().any(|data| data.contains_key(IN_USE_KEY))),
            claims: claims(view, names),
            storage_class: storage_class(view, mirror.spec.cache.storage_class_name.as_ref()),
            lost_nodes: lost_nodes(self.client, self.metrics, &pods).await?,
            pods,
            planned: planned(mirror, self.plan),
            bypassed,
            nodes,
            secrets: self.secrets(mirror, names).await?,
            mirror_addresses: mirror_addresses(view, names),
            platforms: platforms(view),
            reports: self.reports.of(&mirror.uid().unwrap_or_default()),
            inventory: inventory(mirror, view, names),
            hosts,
        })
    }

    fn hosts(&self, mirror: &Mirror) -> Hosts {
        hosts(mirror, self.view, self.settings)
    }

    async fn owned<K>(&self, store: &Store<K>, mirror: &Mirror, name: &str) -> Result<Found<K>, CallError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + 'static,
    {
        let finder = Finder { client: self.client, metrics: self.metrics };
        finder.find(store, mirror, &self.settings.namespace, name).await
    }

    /// An object that is not always wanted: unless it is, a cache without it is answer enough.
    async fn owned_if<K>(
        &self,
        wanted: bool,
        store: &Store<K>,
        mirror: &Mirror,
        name: &str,
    ) -> Result<Found<K>, CallError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + 'static,
    {
        if wanted { self.owned(store, mirror, name).await } else { Ok(Found::Absent) }
    }

    /// The Secrets that the spec names are in no cache: they are read in each pass, and what they hold is dropped at once.
    async fn secrets(&self, mirror: &Mirror, names: &Names) -> Result<BTreeMap<String, SecretFact>, CallError> {
        let upstreams = mirror.spec.upstreams.iter();
        let references = upstreams.flat_map(|upstream| [&upstream.credentials_secret_ref, &upstream.ca_secret_ref]);
        let secrets: BTreeSet<&str> = references.flatten().map(|reference| reference.name.as_str()).collect();
        let api = Api::<Secret>::namespaced(self.client.clone(), names.namespace());
        let mut facts = BTreeMap::new();
        for name in secrets {
            let target = Target::new("Secret", names.namespace(), name);
            if let Some(secret) = read(self.metrics, target, api.get(name)).await? {
                facts.insert(name.to_owned(), SecretFact::of(&secret));
            }
        }
        Ok(facts)
    }

    async fn pods_unless_available(
        &self,
        stateful_set: &Found<StatefulSet>,
        names: &Names,
    ) -> Result<Vec<Pod>, CallError> {
        let status = stateful_set.ours().and_then(|found| found.status.as_ref());
        if stateful_set.ours().is_none() || status.is_some_and(|status| status.available_replicas.unwrap_or(0) > 0) {
            return Ok(Vec::new());
        }
        let selector = format!("{}={},{}={}", labels::NAME, labels::MIRROR, labels::INSTANCE, names.mirror());
        let api = Api::<Pod>::namespaced(self.client.clone(), names.namespace());
        let target = Target::new("pods", names.namespace(), "");
        let parameters = ListParams::default().labels(&selector);
        Ok(call(self.metrics, Action::List, target, api.list(&parameters)).await?.items)
    }
}

/// What became of the hosts that a Mirror asks for, as the caches show it.
#[must_use]
pub fn hosts(mirror: &Mirror, view: &View, settings: &Settings) -> Hosts {
    let live = view.live();
    hosts_of(mirror, &view.live_mirrors(), &registry_hosts(live.iter(), &settings.limits))
}

/// What the agents of the nodes report that a Mirror is for, by node. One without labels to judge by is left out.
#[must_use]
pub fn selected(mirror: &Mirror, view: &View) -> Vec<(String, NodeRuntimeStatus)> {
    let selector = mirror.spec.nodes.selector.clone().unwrap_or_default();
    let selector = Selector::try_from(selector).unwrap_or_default();
    let mut reports = view.node_reports();
    reports
        .retain(|(name, _)| view.nodes.get(&ObjectRef::new(name)).is_some_and(|node| selector.matches(node.labels())));
    reports.sort_by(|one, other| one.0.cmp(&other.0));
    reports
}

/// The hosts that the node plan has for a Mirror.
#[must_use]
pub fn planned(mirror: &Mirror, plan: &Plan) -> BTreeSet<String> {
    let uid = mirror.metadata.uid.as_deref().unwrap_or_default();
    let is_ours = |owner: &crate::plan::Owner| owner.kind == OwnerKind::Mirror && owner.uid == uid;
    plan.hosts.iter().filter(|(_, entry)| is_ours(&entry.owner)).map(|(host, _)| host.clone()).collect()
}

fn claims(view: &View, names: &Names) -> Vec<PersistentVolumeClaim> {
    let is = |claim: &PersistentVolumeClaim, key: &str, value: &str| {
        claim.labels().get(key).is_some_and(|found| found == value)
    };
    let mut claims: Vec<PersistentVolumeClaim> = view
        .claims
        .state()
        .iter()
        .filter(|claim| claim.metadata.namespace.as_deref() == Some(names.namespace()))
        .filter(|claim| is(claim, labels::NAME, labels::MIRROR) && is(claim, labels::INSTANCE, names.mirror()))
        .map(|claim| PersistentVolumeClaim::clone(claim))
        .collect();
    claims.sort_by_key(ResourceExt::name_any);
    claims
}

fn storage_class(view: &View, wanted: Option<&String>) -> StorageClassFact {
    let classes = view.storage_classes.state();
    let names = || classes.iter().map(|class| class.name_any()).collect();
    match (chosen_class(&classes, wanted), wanted) {
        (Some(class), _) => StorageClassFact::Available(ClassTraits {
            by_csi_driver: false,
            expandable: class.allow_volume_expansion.unwrap_or(false),
        }),
        (None, Some(_)) => StorageClassFact::Missing(names()),
        (None, None) => StorageClassFact::NoDefault(names()),
    }
}

fn mirror_addresses(view: &View, names: &Names) -> BTreeSet<IpAddr> {
    let services = view.services.state();
    let of_mirrors = services.iter().filter(|service| {
        service.metadata.namespace.as_deref() == Some(names.namespace())
            && service.labels().get(labels::NAME).is_some_and(|name| name == labels::MIRROR)
    });
    let specs = of_mirrors.filter_map(|service| service.spec.as_ref());
    specs
        .flat_map(|spec| spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip))
        .filter_map(|text| text.parse().ok())
        .collect()
}

fn inventory(mirror: &Mirror, view: &View, names: &Names) -> Inventory {
    let mut inventory = Inventory::default();
    let namespace = Some(names.namespace());
    add_owned(&mut inventory, &view.services, mirror, namespace);
    add_owned(&mut inventory, &view.stateful_sets, mirror, namespace);
    add_owned(&mut inventory, &view.config_maps, mirror, namespace);
    add_owned(&mut inventory, &view.secrets, mirror, namespace);
    add_owned(&mut inventory, &view.disruption_budgets, mirror, namespace);
    add_owned(&mut inventory, &view.network_policies, mirror, namespace);
    // What images are in use is written by whoever lists them.
    inventory.0.retain(|remnant| remnant.target().name != names.in_use());
    inventory
}
