//! Whom a change concerns: from an object that a watch tells of to what a controller may have to act on. Values in, values
//! out; what a pass does, it must never derive from here.

use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};

use crate::api::{Mirror, Registry, labels};
use crate::operator::rivals::Stake;

/// Something changed that a controller may have to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A Registry or one of its children.
    Registry(ObjectRef<DeserializeGuard<Registry>>),
    /// A Mirror or one of its children.
    Mirror(ObjectRef<DeserializeGuard<Mirror>>),
    /// A Mirror came, changed or went, so that others may have what it had, or lose it.
    MirrorHosts,
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

pub(super) fn registry_changes(registry: &DeserializeGuard<Registry>) -> Vec<Change> {
    let namespace = registry.namespace().unwrap_or_default();
    let key = ObjectRef::from_obj(registry);
    let stake = Change::Stake(key.clone(), Stake::of(registry));
    vec![Change::Registry(key), stake, Change::PullSecrets(namespace), Change::Plan, Change::CaBundles]
}

/// A Mirror's hosts are asked for by others too, and nodes are told of them.
pub(super) fn mirror_changes(mirror: &DeserializeGuard<Mirror>) -> Vec<Change> {
    vec![Change::Mirror(ObjectRef::from_obj(mirror)), Change::MirrorHosts, Change::Plan]
}

/// The Registry or Mirror that an object belongs to, by label: claims carry no owner reference.
pub(super) fn child_changes<K: Resource<DynamicType = ()>>(object: &K) -> Vec<Change> {
    let (Some(namespace), Some(instance)) = (object.namespace(), object.labels().get(labels::INSTANCE)) else {
        return Vec::new();
    };
    if object.labels().get(labels::NAME).is_some_and(|name| name == labels::MIRROR) {
        return vec![Change::Mirror(ObjectRef::new(instance))];
    }
    vec![Change::Registry(ObjectRef::new(instance).within(&namespace))]
}

pub(super) fn service_changes(service: &Service) -> Vec<Change> {
    let mut changes = child_changes(service);
    changes.push(Change::Plan);
    changes
}

pub(super) fn config_map_changes(config_map: &ConfigMap) -> Vec<Change> {
    let changes = child_changes(config_map);
    if changes.is_empty() { vec![Change::Plan] } else { changes }
}

pub(super) fn account_changes(account: &ServiceAccount) -> Vec<Change> {
    account.namespace().map(Change::PullSecrets).into_iter().collect()
}
