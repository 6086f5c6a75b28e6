//! The operator's view of the cluster: caches fed by watches, and the keys of Registries that a change concerns.
//! It must never be trusted for anything destructive: what it shows may be old, and such acts read afresh first.
//! A cache begins with what the API server has at that moment, follows its watch, and is filled anew twice an hour, so that an
//! event that was lost does not stay lost.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, PersistentVolumeClaim, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass, IngressRule, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, PartialObjectMeta};
use kube::core::{DeserializeGuard, NamespaceResourceScope};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::apply::MANAGER;
use super::ca_bundle;
use super::rivals::Stake;
use crate::api::{NodeRuntime, NodeRuntimeStatus, Registry, labels};

/// How many changes may wait for a controller before the watches are held back.
const QUEUE: usize = 1024;
/// How many objects a cache asks for at once while it is filled. A page is in memory three times, as bytes, as JSON and as
/// objects, and the allocator keeps what that took.
const PAGE: u32 = 50;
/// How long a cache follows its watch before it is filled anew, before jitter.
const REFILL: Duration = Duration::from_secs(1800);
/// Where `kubectl apply` keeps a copy of what it sent.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The caches.
#[derive(Clone)]
pub struct View {
    /// All Registries, also those that cannot be read.
    pub registries: Store<DeserializeGuard<Registry>>,
    /// Deployments that Wharf made.
    pub deployments: Store<Deployment>,
    /// Services that Wharf made.
    pub services: Store<Service>,
    /// Claims that Wharf made.
    pub claims: Store<PersistentVolumeClaim>,
    /// Config maps that Wharf made, those of the node plan among them.
    pub config_maps: Store<ConfigMap>,
    /// Config maps named as those with the certificates that clients must trust, whoever made them; of others' without content.
    pub ca_bundles: Store<ConfigMap>,
    /// Secrets that Wharf made.
    pub secrets: Store<Secret>,
    /// Disruption budgets that Wharf made.
    pub disruption_budgets: Store<PodDisruptionBudget>,
    /// All Ingresses; of those that Wharf did not make, only whose they are and their hosts.
    pub ingresses: Store<Ingress>,
    /// The cluster's ingress classes.
    pub ingress_classes: Store<IngressClass>,
    /// Network policies that Wharf made.
    pub network_policies: Store<NetworkPolicy>,
    /// Service accounts that Wharf made.
    pub service_accounts: Store<ServiceAccount>,
    /// Service accounts to which Wharf attached a pull secret.
    pub attached_accounts: Store<ServiceAccount>,
    /// What the agents report.
    pub node_runtimes: Store<NodeRuntime>,
    /// The cluster's nodes.
    pub nodes: Store<PartialObjectMeta<Node>>,
    /// The cluster's namespaces.
    pub namespaces: Store<PartialObjectMeta<Namespace>>,
    /// The cluster's storage classes.
    pub storage_classes: Store<StorageClass>,
}

/// Something changed that a controller may have to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A Registry or one of its children.
    Registry(ObjectRef<DeserializeGuard<Registry>>),
    /// A Registry itself: what it keeps from others, or kept until it went.
    Stake(ObjectRef<DeserializeGuard<Registry>>, Option<Stake>),
    /// A service account with pull secrets of ours, or whose Registry changed: its namespace.
    PullSecrets(String),
    /// Something the node plan is made from, or a part of the plan itself.
    Plan,
    /// A namespace, a config map with the certificates in one, or a Registry, which may select them.
    CaBundles,
    /// A node, or what its agent reports.
    Node,
}

/// The writing ends of the caches, for tests that fill a view by hand.
pub struct Writers {
    /// See [`View::registries`].
    pub registries: reflector::store::Writer<DeserializeGuard<Registry>>,
    /// See [`View::deployments`].
    pub deployments: reflector::store::Writer<Deployment>,
    /// See [`View::services`].
    pub services: reflector::store::Writer<Service>,
    /// See [`View::claims`].
    pub claims: reflector::store::Writer<PersistentVolumeClaim>,
    /// See [`View::config_maps`].
    pub config_maps: reflector::store::Writer<ConfigMap>,
    /// See [`View::ca_bundles`].
    pub ca_bundles: reflector::store::Writer<ConfigMap>,
    /// See [`View::secrets`].
    pub secrets: reflector::store::Writer<Secret>,
    /// See [`View::disruption_budgets`].
    pub disruption_budgets: reflector::store::Writer<PodDisruptionBudget>,
    /// See [`View::ingresses`].
    pub ingresses: reflector::store::Writer<Ingress>,
    /// See [`View::ingress_classes`].
    pub ingress_classes: reflector::store::Writer<IngressClass>,
    /// See [`View::network_policies`].
    pub network_policies: reflector::store::Writer<NetworkPolicy>,
    /// See [`View::service_accounts`].
    pub service_accounts: reflector::store::Writer<ServiceAccount>,
    /// See [`View::attached_accounts`].
    pub attached_accounts: reflector::store::Writer<ServiceAccount>,
    /// See [`View::node_runtimes`].
    pub node_runtimes: reflector::store::Writer<NodeRuntime>,
    /// See [`View::nodes`].
    pub nodes: reflector::store::Writer<PartialObjectMeta<Node>>,
    /// See [`View::namespaces`].
    pub namespaces: reflector::store::Writer<PartialObjectMeta<Namespace>>,
    /// See [`View::storage_classes`].
    pub storage_classes: reflector::store::Writer<StorageClass>,
}

impl View {
    /// An empty view and its writing ends.
    #[must_use]
    pub fn empty() -> (Self, Writers) {
        let (registries, registries_writer) = reflector::store();
        let (deployments, deployments_writer) = reflector::store();
        let (services, services_writer) = reflector::store();
        let (claims, claims_writer) = reflector::store();
        let (config_maps, config_maps_writer) = reflector::store();
        let (ca_bundles, ca_bundles_writer) = reflector::store();
        let (secrets, secrets_writer) = reflector::store();
        let (disruption_budgets, disruption_budgets_writer) = reflector::store();
        let (ingresses, ingresses_writer) = reflector::store();
        let (ingress_classes, ingress_classes_writer) = reflector::store();
        let (network_policies, network_policies_writer) = reflector::store();
        let (service_accounts, service_accounts_writer) = reflector::store();
        let (attached_accounts, attached_accounts_writer) = reflector::store();
        let (node_runtimes, node_runtimes_writer) = reflector::store();
        let (nodes, nodes_writer) = reflector::store();
        let (namespaces, namespaces_writer) = reflector::store();
        let (storage_classes, storage_classes_writer) = reflector::store();
        (
            Self {
                registries,
                deployments,
                services,
                claims,
                config_maps,
                ca_bundles,
                secrets,
                disruption_budgets,
                ingresses,
                ingress_classes,
                network_policies,
                service_accounts,
                attached_accounts,
                node_runtimes,
                nodes,
                namespaces,
                storage_classes,
            },
            Writers {
                registries: registries_writer,
                deployments: deployments_writer,
                services: services_writer,
                claims: claims_writer,
                config_maps: config_maps_writer,
                ca_bundles: ca_bundles_writer,
                secrets: secrets_writer,
                disruption_budgets: disruption_budgets_writer,
                ingresses: ingresses_writer,
                ingress_classes: ingress_classes_writer,
                network_policies: network_policies_writer,
                service_accounts: service_accounts_writer,
                attached_accounts: attached_accounts_writer,
                node_runtimes: node_runtimes_writer,
                nodes: nodes_writer,
                namespaces: namespaces_writer,
                storage_classes: storage_classes_writer,
            },
        )
    }

    /// Starts the watches. The returned future runs them and must be polled for as long as the view is used; the
    /// receiver gets every change.
    pub fn watch(client: &Client) -> (Self, impl Future<Output = ()> + Send + 'static, mpsc::Receiver<Change>) {
        let (view, writers) = Self::empty();
        let (sender, receiver) = mpsc::channel(QUEUE);
        let everything = watcher::Config::default().page_size(PAGE);
        let managed = everything.clone().labels(labels::MANAGED_SELECTOR);
        let config_maps = everything.clone().labels(labels::MANAGED_CONFIG_MAPS_SELECTOR);
        let ca_bundles = everything.clone().fields(&format!("metadata.name={}", ca_bundle::NAME));
        let attached = everything.clone().labels(labels::HAS_PULL_SECRETS);
        let all = futures::future::join_all([
            feed(client, writers.registries, everything.clone(), trim, sender.clone(), registry_changes),
            feed(client, writers.deployments, managed.clone(), trim, sender.clone(), child_changes),
            feed(client, writers.services, managed.clone(), trim, sender.clone(), service_changes),
            feed(client, writers.claims, managed.clone(), trim_claim, sender.clone(), child_changes),
            feed(client, writers.config_maps, config_maps, trim, sender.clone(), config_map_changes),
            feed(client, writers.ca_bundles, ca_bundles, trim_bundle, sender.clone(), |_| vec![Change::CaBundles]),
            feed(client, writers.secrets, managed.clone(), trim, sender.clone(), child_changes),
            feed(client, writers.disruption_budgets, managed.clone(), trim, sender.clone(), child_changes),
            feed(client, writers.ingresses, everything.clone(), trim_ingress, sender.clone(), child_changes),
            // A Registry that is not exposed yet looks again by itself.
            feed(client, writers.ingress_classes, everything.clone(), trim, sender.clone(), |_| Vec::new()),
            feed(client, writers.network_policies, managed.clone(), trim, sender.clone(), child_changes),
            feed(client, writers.service_accounts, managed, trim, sender.clone(), child_changes),
            feed(client, writers.attached_accounts, attached, trim, sender.clone(), account_changes),
            feed(client, writers.node_runtimes, everything.clone(), trim, sender.clone(), |_| vec![Change::Node]),
            feed(client, writers.nodes, everything.clone(), trim, sender.clone(), |_| vec![Change::Node]),
            feed(client, writers.namespaces, everything.clone(), trim_namespace, sender.clone(), |_| {
                vec![Change::CaBundles]
            }),
            // A Registry without its class looks again by itself.
            feed(client, writers.storage_classes, everything, trim, sender, |_| Vec::new()),
        ]);
        (
            view,
            async move {
                all.await;
            },
            receiver,
        )
    }

    /// Waits until every cache has been filled once.
    ///
    /// # Errors
    /// When a watch ended before.
    pub async fn wait_until_ready(&self) -> Result<(), reflector::store::WriterDropped> {
        self.registries.wait_until_ready().await?;
        self.deployments.wait_until_ready().await?;
        self.services.wait_until_ready().await?;
        self.claims.wait_until_ready().await?;
        self.config_maps.wait_until_ready().await?;
        self.ca_bundles.wait_until_ready().await?;
        self.secrets.wait_until_ready().await?;
        self.disruption_budgets.wait_until_ready().await?;
        self.ingresses.wait_until_ready().await?;
        self.ingress_classes.wait_until_ready().await?;
        self.network_policies.wait_until_ready().await?;
        self.service_accounts.wait_until_ready().await?;
        self.attached_accounts.wait_until_ready().await?;
        self.node_runtimes.wait_until_ready().await?;
        self.nodes.wait_until_ready().await?;
        self.namespaces.wait_until_ready().await?;
        self.storage_classes.wait_until_ready().await
    }

    /// The Registries that can be read and are not being deleted.
    #[must_use]
    pub fn live_registries(&self) -> Vec<Registry> {
        self.live_registries_that(|_| true)
    }

    /// Those of one namespace.
    #[must_use]
    pub fn live_registries_in(&self, namespace: &str) -> Vec<Registry> {
        self.live_registries_that(|registry| registry.metadata.namespace.as_deref() == Some(namespace))
    }

    /// What each node's agent reports, by node.
    #[must_use]
    pub fn node_reports(&self) -> Vec<(String, NodeRuntimeStatus)> {
        let runtimes = self.node_runtimes.state();
        runtimes.iter().map(|runtime| (runtime.name_any(), runtime.status.clone().unwrap_or_default())).collect()
    }

    fn live_registries_that(&self, wanted: impl Fn(&Registry) -> bool) -> Vec<Registry> {
        self.live().iter().filter(|registry| wanted(registry)).cloned().collect()
    }

    /// The Registries that can be read and are not being deleted, as they are in the cache now.
    #[must_use]
    pub fn live(&self) -> Live {
        Live(self.registries.state())
    }
}

/// Registries at one moment.
pub struct Live(Vec<Arc<DeserializeGuard<Registry>>>);

impl Live {
    /// The Registries.
    pub fn iter(&self) -> impl Iterator<Item = &Registry> {
        let readable = self.0.iter().filter_map(|guarded| guarded.0.as_ref().ok());
        readable.filter(|registry| registry.metadata.deletion_timestamp.is_none())
    }
}

/// The cached object of that name.
#[must_use]
pub fn cached<K>(store: &Store<K>, namespace: &str, name: &str) -> Option<Arc<K>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + 'static,
{
    store.get(&ObjectRef::new(name).within(namespace))
}

/// Runs one watch: fills the cache, then tells of the change.
fn feed<K>(
    client: &Client,
    writer: reflector::store::Writer<K>,
    config: watcher::Config,
    trim: fn(&mut K),
    sender: mpsc::Sender<Change>,
    changes: fn(&K) -> Vec<Change>,
) -> futures::future::BoxFuture<'static, ()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone + Default,
{
    let api = Api::<K>::all(client.clone());
    let watch = futures::stream::repeat_with(move || {
        let refill = Box::pin(sleep(REFILL.mul_f64(rand::random_range(0.8..1.2))));
        Box::pin(watcher(api.clone(), config.clone()).default_backoff().take_until(refill))
    });
    Box::pin(tell(watch.flatten().modify(trim).reflect(writer).touched_objects(), sender, changes))
}

/// Takes out of an object what no pass looks at: who wrote which field is most of its size.
fn trim<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
    trim_annotations(object);
}

/// The same for an Ingress, of which those of others matter only by their hosts. Without labels, none of theirs wakes a
/// Registry of the same name.
fn trim_ingress(ingress: &mut Ingress) {
    trim(ingress);
    if is_managed(ingress) {
        return;
    }
    ingress.metadata.labels = None;
    ingress.metadata.annotations = None;
    ingress.status = None;
    if let Some(spec) = ingress.spec.as_mut() {
        (spec.default_backend, spec.tls) = (None, None);
        for rule in spec.rules.iter_mut().flatten() {
            *rule = IngressRule { host: rule.host.take(), http: None };
        }
    }
}

fn is_managed<K: Resource>(object: &K) -> bool {
    object.labels().get(labels::MANAGED_BY).is_some_and(|manager| manager == labels::MANAGED_BY_WHARF)
}

/// An object without annotations stays one without: a patch that adds the first has to know.
fn trim_annotations<K: Resource>(object: &mut K) {
    if let Some(annotations) = object.meta_mut().annotations.as_mut() {
        annotations.remove(LAST_APPLIED);
    }
}

/// The same for a claim, of which it matters which fields Wharf once sent.
fn trim_claim(claim: &mut PersistentVolumeClaim) {
    if let Some(entries) = claim.metadata.managed_fields.as_mut() {
        entries.retain(|entry| entry.manager.as_deref() == Some(MANAGER));
    }
    trim_annotations(claim);
}

/// Of a config map that is somebody else's, it matters only that it is there.
fn trim_bundle(config_map: &mut ConfigMap) {
    trim(config_map);
    if !ca_bundle::is_ours(config_map) {
        config_map.data = None;
        config_map.binary_data = None;
    }
}

/// Of a namespace, it matters what it is called and labelled, and whether it ends.
fn trim_namespace(namespace: &mut PartialObjectMeta<Namespace>) {
    namespace.metadata.managed_fields = None;
    namespace.metadata.annotations = None;
}

async fn tell<K: Resource<DynamicType = ()>>(
    stream: impl Stream<Item = Result<K, watcher::Error>>,
    sender: mpsc::Sender<Change>,
    changes: fn(&K) -> Vec<Change>,
) {
    let mut stream = std::pin::pin!(stream.into_stream());
    while let Some(item) = stream.next().await {
        match item {
            Ok(object) => {
                for change in changes(&object) {
                    if sender.send(change).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => tracing::warn!(kind = %K::kind(&()), %error, "watch interrupted; it is tried again"),
        }
    }
}

fn registry_changes(registry: &DeserializeGuard<Registry>) -> Vec<Change> {
    let namespace = registry.namespace().unwrap_or_default();
    let key = ObjectRef::from_obj(registry);
    let stake = Change::Stake(key.clone(), Stake::of(registry));
    vec![Change::Registry(key), stake, Change::PullSecrets(namespace), Change::Plan, Change::CaBundles]
}

/// The Registry that an object belongs to, by label: claims carry no owner reference.
fn child_changes<K: Resource<DynamicType = ()>>(object: &K) -> Vec<Change> {
    let (Some(namespace), Some(instance)) = (object.namespace(), object.labels().get(labels::INSTANCE)) else {
        return Vec::new();
    };
    vec![Change::Registry(ObjectRef::new(instance).within(&namespace))]
}

fn service_changes(service: &Service) -> Vec<Change> {
    let mut changes = child_changes(service);
    changes.push(Change::Plan);
    changes
}

fn config_map_changes(config_map: &ConfigMap) -> Vec<Change> {
    let changes = child_changes(config_map);
    if changes.is_empty() { vec![Change::Plan] } else { changes }
}

fn account_changes(account: &ServiceAccount) -> Vec<Change> {
    account.namespace().map(Change::PullSecrets).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim(metadata: &Value) -> PersistentVolumeClaim {
        serde_json::from_value(json!({ "metadata": metadata })).unwrap()
    }

    #[test]
    fn a_cached_object_is_without_what_no_pass_looks_at() {
        let entries = json!([{"manager": MANAGER, "fieldsV1": {"f:spec": {}}}, {"manager": "kubelet"}]);
        let annotations = json!({LAST_APPLIED: "{}", "other": "stays"});
        let full = claim(&json!({"name": "a", "managedFields": entries, "annotations": annotations}));
        let mut trimmed = full.clone();
        trim(&mut trimmed);
        assert_eq!(trimmed, claim(&json!({"name": "a", "annotations": {"other": "stays"}})));
        // Of a claim it matters what Wharf itself once sent.
        let mut trimmed = full;
        trim_claim(&mut trimmed);
        let managers: Vec<_> = trimmed.managed_fields().iter().map(|entry| entry.manager.clone().unwrap()).collect();
        assert_eq!(managers, [MANAGER]);
        assert!(trimmed.managed_fields()[0].fields_v1.is_some());
    }

    #[test]
    fn of_the_ingress_of_somebody_else_only_its_hosts_are_kept() {
        let ingress = |labels: Value| -> Ingress {
            serde_json::from_value(json!({
                "metadata": {"name": "a", "uid": "1", "labels": labels},
                "spec": {
                    "tls": [{"hosts": ["a.example.com"], "secretName": "tls"}],
                    "rules": [{"host": "a.example.com", "http": {"paths": [{"pathType": "Prefix", "path": "/", "backend": {}}]}}],
                },
            }))
            .unwrap()
        };
        let ours = ingress(json!({labels::MANAGED_BY: "wharf", labels::INSTANCE: "team"}));
        let mut trimmed = ours.clone();
        trim_ingress(&mut trimmed);
        assert_eq!(trimmed, ours);
        let mut trimmed = ingress(json!({labels::MANAGED_BY: "Helm", labels::INSTANCE: "team"}));
        trim_ingress(&mut trimmed);
        let expected = json!({"metadata": {"name": "a", "uid": "1"}, "spec": {"rules": [{"host": "a.example.com"}]}});
        assert_eq!(trimmed, serde_json::from_value(expected).unwrap());
        assert_eq!(child_changes(&trimmed), []);
    }

    #[test]
    fn an_object_without_annotations_stays_one_without() {
        let mut bare = claim(&json!({"name": "a"}));
        trim_claim(&mut bare);
        trim(&mut bare);
        assert_eq!(bare, claim(&json!({"name": "a"})));
    }
}
