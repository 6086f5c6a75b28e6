//! The operator's view of the cluster: caches fed by watches, and the keys of Registries that a change concerns.
//! It must never be trusted for anything destructive: what it shows may be old, and such acts read afresh first.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Node, PersistentVolumeClaim, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, PartialObjectMeta};
use kube::core::{DeserializeGuard, NamespaceResourceScope};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::api::{NodeRuntime, Registry, labels};

/// How many changes may wait for a controller before the watches are held back.
const QUEUE: usize = 1024;

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
    /// Secrets that Wharf made.
    pub secrets: Store<Secret>,
    /// Disruption budgets that Wharf made.
    pub disruption_budgets: Store<PodDisruptionBudget>,
    /// Service accounts that Wharf made.
    pub service_accounts: Store<ServiceAccount>,
    /// Service accounts to which Wharf attached a pull secret.
    pub attached_accounts: Store<ServiceAccount>,
    /// What the agents report.
    pub node_runtimes: Store<NodeRuntime>,
    /// The cluster's nodes.
    pub nodes: Store<PartialObjectMeta<Node>>,
}

/// Something changed that a controller may have to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A Registry or one of its children.
    Registry(ObjectRef<DeserializeGuard<Registry>>),
    /// A service account with pull secrets of ours, or whose Registry changed: its namespace.
    PullSecrets(String),
    /// Something the node plan is made from, or a part of the plan itself.
    Plan,
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
    /// See [`View::secrets`].
    pub secrets: reflector::store::Writer<Secret>,
    /// See [`View::disruption_budgets`].
    pub disruption_budgets: reflector::store::Writer<PodDisruptionBudget>,
    /// See [`View::service_accounts`].
    pub service_accounts: reflector::store::Writer<ServiceAccount>,
    /// See [`View::attached_accounts`].
    pub attached_accounts: reflector::store::Writer<ServiceAccount>,
    /// See [`View::node_runtimes`].
    pub node_runtimes: reflector::store::Writer<NodeRuntime>,
    /// See [`View::nodes`].
    pub nodes: reflector::store::Writer<PartialObjectMeta<Node>>,
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
        let (secrets, secrets_writer) = reflector::store();
        let (disruption_budgets, disruption_budgets_writer) = reflector::store();
        let (service_accounts, service_accounts_writer) = reflector::store();
        let (attached_accounts, attached_accounts_writer) = reflector::store();
        let (node_runtimes, node_runtimes_writer) = reflector::store();
        let (nodes, nodes_writer) = reflector::store();
        (
            Self {
                registries,
                deployments,
                services,
                claims,
                config_maps,
                secrets,
                disruption_budgets,
                service_accounts,
                attached_accounts,
                node_runtimes,
                nodes,
            },
            Writers {
                registries: registries_writer,
                deployments: deployments_writer,
                services: services_writer,
                claims: claims_writer,
                config_maps: config_maps_writer,
                secrets: secrets_writer,
                disruption_budgets: disruption_budgets_writer,
                service_accounts: service_accounts_writer,
                attached_accounts: attached_accounts_writer,
                node_runtimes: node_runtimes_writer,
                nodes: nodes_writer,
            },
        )
    }

    /// Starts the watches. The returned future runs them and must be polled for as long as the view is used; the
    /// receiver gets every change.
    pub fn watch(client: &Client) -> (Self, impl Future<Output = ()> + Send + 'static, mpsc::Receiver<Change>) {
        let (view, writers) = Self::empty();
        let (sender, receiver) = mpsc::channel(QUEUE);
        let managed = watcher::Config::default().labels(labels::MANAGED_SELECTOR);
        let attached = watcher::Config::default().labels(labels::HAS_PULL_SECRETS);
        let everything = watcher::Config::default();
        let all = futures::future::join_all([
            feed(client, writers.registries, everything.clone(), sender.clone(), registry_changes),
            feed(client, writers.deployments, managed.clone(), sender.clone(), child_changes),
            feed(client, writers.services, managed.clone(), sender.clone(), service_changes),
            feed(client, writers.claims, managed.clone(), sender.clone(), child_changes),
            feed(client, writers.config_maps, managed.clone(), sender.clone(), config_map_changes),
            feed(client, writers.secrets, managed.clone(), sender.clone(), child_changes),
            feed(client, writers.disruption_budgets, managed.clone(), sender.clone(), child_changes),
            feed(client, writers.service_accounts, managed, sender.clone(), child_changes),
            feed(client, writers.attached_accounts, attached, sender.clone(), account_changes),
            feed(client, writers.node_runtimes, everything.clone(), sender.clone(), |_| vec![Change::Node]),
            feed(client, writers.nodes, everything, sender, |_| vec![Change::Node]),
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
        self.secrets.wait_until_ready().await?;
        self.disruption_budgets.wait_until_ready().await?;
        self.service_accounts.wait_until_ready().await?;
        self.attached_accounts.wait_until_ready().await?;
        self.node_runtimes.wait_until_ready().await?;
        self.nodes.wait_until_ready().await
    }

    /// The Registries that can be read and are not being deleted.
    #[must_use]
    pub fn live_registries(&self) -> Vec<Registry> {
        self.registries
            .state()
            .iter()
            .filter_map(|guarded| guarded.0.as_ref().ok())
            .filter(|registry| registry.metadata.deletion_timestamp.is_none())
            .cloned()
            .collect()
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
    sender: mpsc::Sender<Change>,
    changes: fn(&K) -> Vec<Change>,
) -> futures::future::BoxFuture<'static, ()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone + Default,
{
    let stream = watcher(Api::<K>::all(client.clone()), config).default_backoff().reflect(writer).touched_objects();
    Box::pin(tell(stream, sender, changes))
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
    vec![Change::Registry(ObjectRef::from_obj(registry)), Change::PullSecrets(namespace), Change::Plan]
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
