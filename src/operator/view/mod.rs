//! The operator's view of the cluster: caches fed by watches, and the keys of Registries that a change concerns.
//! It must never be trusted for anything destructive: what it shows may be old, and such acts read afresh first.

mod change;
mod feed;
mod trim;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, PersistentVolumeClaim, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::PartialObjectMeta;
use kube::core::{DeserializeGuard, NamespaceResourceScope};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Client, Resource, ResourceExt};
use tokio::sync::{mpsc, watch};

pub use self::change::Change;
use self::change::{
    account_changes, child_changes, config_map_changes, mirror_changes, registry_changes, service_changes,
};
use self::feed::{Served, feed, feed_while_served};
use self::trim::{trim, trim_bundle, trim_claim, trim_ingress, trim_namespace};
use super::apis::Apis;
use super::ca_bundle;
use super::gateway_api::{BackendTlsPolicy, HttpRoute};
use crate::api::{Mirror, NodeRuntime, NodeRuntimeStatus, Registry, labels};

/// How many changes may wait for a controller before the watches are held back.
const QUEUE: usize = 1024;
/// How many objects a cache asks for at once while it is filled. A page is in memory three times, as bytes, as JSON and as
/// objects, and the allocator keeps what that took.
const PAGE: u32 = 50;

/// Declares each cache once: the end that is read, the end that is written, and that the view is ready when each is filled.
macro_rules! caches {
    ($($(#[$meaning:meta])* $cache:ident: $kind:ty,)*) => {
        /// The caches.
        #[derive(Clone)]
        pub struct View {
            $($(#[$meaning])* pub $cache: Store<$kind>,)*
        }

        /// The writing ends of the caches, also for tests that fill a view by hand.
        pub struct Writers {
            $($(#[$meaning])* pub $cache: reflector::store::Writer<$kind>,)*
        }

        impl View {
            /// An empty view and its writing ends.
            #[must_use]
            pub fn empty() -> (Self, Writers) {
                $(let $cache = reflector::store();)*
                (Self { $($cache: $cache.0,)* }, Writers { $($cache: $cache.1,)* })
            }

            /// Waits until every cache has been filled once.
            ///
            /// # Errors
            /// When a watch ended before.
            pub async fn wait_until_ready(&self) -> Result<(), reflector::store::WriterDropped> {
                $(self.$cache.wait_until_ready().await?;)*
                Ok(())
            }
        }
    };
}

caches! {
    /// All Registries, also those that cannot be read.
    registries: DeserializeGuard<Registry>,
    /// All Mirrors, also those that cannot be read.
    mirrors: DeserializeGuard<Mirror>,
    /// Deployments that Wharf made.
    deployments: Deployment,
    /// Stateful sets that Wharf made.
    stateful_sets: StatefulSet,
    /// Services that Wharf made.
    services: Service,
    /// Claims that Wharf made.
    claims: PersistentVolumeClaim,
    /// Config maps that Wharf made, those of the node plan among them.
    config_maps: ConfigMap,
    /// Config maps named as those with the certificates that clients must trust, whoever made them; of others' without content.
    ca_bundles: ConfigMap,
    /// Secrets that Wharf made.
    secrets: Secret,
    /// Disruption budgets that Wharf made.
    disruption_budgets: PodDisruptionBudget,
    /// All Ingresses; of those that Wharf did not make, only whose they are and their hosts.
    ingresses: Ingress,
    /// The cluster's ingress classes.
    ingress_classes: IngressClass,
    /// HTTP routes that Wharf made; none while the cluster does not serve them.
    http_routes: HttpRoute,
    /// Policies for TLS with backends that Wharf made; none while the cluster does not serve them.
    backend_tls_policies: BackendTlsPolicy,
    /// Network policies that Wharf made.
    network_policies: NetworkPolicy,
    /// Service accounts that Wharf made.
    service_accounts: ServiceAccount,
    /// Service accounts to which Wharf attached a pull secret.
    attached_accounts: ServiceAccount,
    /// What the agents report.
    node_runtimes: NodeRuntime,
    /// The cluster's nodes.
    nodes: PartialObjectMeta<Node>,
    /// The cluster's namespaces.
    namespaces: PartialObjectMeta<Namespace>,
    /// The cluster's storage classes.
    storage_classes: StorageClass,
}

impl View {
    /// Starts the watches. The returned future runs them and must be polled for as long as the view is used; the
    /// receiver gets every change. Kinds that the cluster may lack are watched while `apis` says that they are there.
    pub fn watch(
        client: &Client,
        apis: &watch::Receiver<Apis>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static, mpsc::Receiver<Change>) {
        let (view, writers) = Self::empty();
        let (sender, receiver) = mpsc::channel(QUEUE);
        let everything = watcher::Config::default().page_size(PAGE);
        let managed = everything.clone().labels(labels::MANAGED_SELECTOR);
        let config_maps = everything.clone().labels(labels::MANAGED_CONFIG_MAPS_SELECTOR);
        let ca_bundles = everything.clone().fields(&format!("metadata.name={}", ca_bundle::NAME));
        let attached = everything.clone().labels(labels::HAS_PULL_SECRETS);
        let routes = Served { apis: apis.clone(), is_served: |apis| apis.http_routes };
        let policies = Served { apis: apis.clone(), is_served: |apis| apis.backend_tls_policies };
        let all = futures::future::join_all([
            feed(client, writers.registries, everything.clone(), trim, sender.clone(), registry_changes),
            feed(client, writers.mirrors, everything.clone(), trim, sender.clone(), mirror_changes),
            feed(client, writers.deployments, managed.clone(), trim, sender.clone(), child_changes),
            feed(client, writers.stateful_sets, managed.clone(), trim, sender.clone(), child_changes),
            feed(client, writers.services, managed.clone(), trim, sender.clone(), service_changes),
            feed(client, writers.claims, managed.clone(), trim_claim, sender.clone(), child_changes),
            feed(client, writers.config_maps, config_maps, trim, sender.clone(), config_map_changes),
            feed(client, writers.ca_bundles, ca_bundles, trim_bundle, sender.clone(), |_| vec![Change::CaBundles]),
            feed(client, writers.secrets, managed.clone(), trim, sender.clone(), child_changes),
            feed(client, writers.disruption_budgets, managed.clone(), trim, sender.clone(), child_changes),
            feed(client, writers.ingresses, everything.clone(), trim_ingress, sender.clone(), child_changes),
            // A Registry that is not exposed yet looks again by itself.
            feed(client, writers.ingress_classes, everything.clone(), trim, sender.clone(), |_| Vec::new()),
            feed_while_served(client, writers.http_routes, managed.clone(), routes, sender.clone()),
            feed_while_served(client, writers.backend_tls_policies, managed.clone(), policies, sender.clone()),
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

    /// The Mirrors that can be read and are not being deleted.
    #[must_use]
    pub fn live_mirrors(&self) -> Vec<Mirror> {
        let mirrors = self.mirrors.state();
        let readable = mirrors.iter().filter_map(|guarded| guarded.0.as_ref().ok());
        readable.filter(|mirror| mirror.metadata.deletion_timestamp.is_none()).cloned().collect()
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
