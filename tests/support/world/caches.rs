//! Caches filled by hand, in place of the operator's watches.

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, PersistentVolumeClaim, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, ListParams, PartialObjectMeta};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::Event;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use wharf::api::{Mirror, NodeRuntime, Registry, labels};
use wharf::operator::apis::Apis;
use wharf::operator::ca_bundle;
use wharf::operator::gateway_api::{BackendTlsPolicy, HttpRoute};
use wharf::operator::view::View;

/// The caches as a process would have them that has read everything just now; `None` when it cannot read.
pub async fn view(client: &Client, apis: Apis) -> Option<View> {
    let (view, writers) = View::empty();
    let managed = ListParams::default().labels(labels::MANAGED_SELECTOR);
    let everything = ListParams::default();
    fill::<DeserializeGuard<Registry>>(client, writers.registries, &everything).await?;
    fill::<DeserializeGuard<Mirror>>(client, writers.mirrors, &everything).await?;
    fill::<StatefulSet>(client, writers.stateful_sets, &managed).await?;
    fill::<Deployment>(client, writers.deployments, &managed).await?;
    fill::<Service>(client, writers.services, &managed).await?;
    fill::<PersistentVolumeClaim>(client, writers.claims, &managed).await?;
    let config_maps = ListParams::default().labels(labels::MANAGED_CONFIG_MAPS_SELECTOR);
    fill::<ConfigMap>(client, writers.config_maps, &config_maps).await?;
    let bundles = ListParams::default().fields(&format!("metadata.name={}", ca_bundle::NAME));
    fill::<ConfigMap>(client, writers.ca_bundles, &bundles).await?;
    fill::<Secret>(client, writers.secrets, &managed).await?;
    fill::<PodDisruptionBudget>(client, writers.disruption_budgets, &managed).await?;
    fill::<Ingress>(client, writers.ingresses, &everything).await?;
    fill::<IngressClass>(client, writers.ingress_classes, &everything).await?;
    if apis.http_routes {
        fill::<HttpRoute>(client, writers.http_routes, &managed).await?;
    }
    if apis.backend_tls_policies {
        fill::<BackendTlsPolicy>(client, writers.backend_tls_policies, &managed).await?;
    }
    fill::<NetworkPolicy>(client, writers.network_policies, &managed).await?;
    fill::<ServiceAccount>(client, writers.service_accounts, &managed).await?;
    fill::<ServiceAccount>(client, writers.attached_accounts, &ListParams::default().labels(labels::HAS_PULL_SECRETS))
        .await?;
    fill::<NodeRuntime>(client, writers.node_runtimes, &everything).await?;
    fill::<StorageClass>(client, writers.storage_classes, &everything).await?;
    let mut nodes = writers.nodes;
    let list = Api::<Node>::all(client.clone()).list_metadata(&everything).await.ok()?;
    put::<PartialObjectMeta<Node>>(&mut nodes, list.items);
    let mut namespaces = writers.namespaces;
    let list = Api::<Namespace>::all(client.clone()).list_metadata(&everything).await.ok()?;
    put::<PartialObjectMeta<Namespace>>(&mut namespaces, list.items);
    Some(view)
}

async fn fill<K>(client: &Client, mut writer: Writer<K>, parameters: &ListParams) -> Option<()>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + 'static,
{
    let list = Api::<K>::all(client.clone()).list(parameters).await.ok()?;
    put(&mut writer, list.items);
    Some(())
}

fn put<K: Resource<DynamicType = ()> + Clone + 'static>(writer: &mut Writer<K>, items: Vec<K>) {
    writer.apply_watcher_event(&Event::Init);
    for item in items {
        writer.apply_watcher_event(&Event::InitApply(item));
    }
    writer.apply_watcher_event(&Event::InitDone);
}
