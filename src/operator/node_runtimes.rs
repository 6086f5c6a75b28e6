//! Makes a `NodeRuntime` for each Linux node, for the node's agent to report in.
//! It must never write a status, and never delete: a `NodeRuntime` is owned by its Node and goes with it.

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::api::{ObjectMeta, PartialObjectMeta};
use kube::runtime::reflector::ObjectRef;

use super::apply::{Applier, Child, Desired, Report};
use super::view::View;
use crate::api::labels;
use crate::api::node_runtime::{NodeRuntime, NodeRuntimeSpec};

/// The label by which Kubernetes tells a node's operating system.
const OPERATING_SYSTEM: &str = "kubernetes.io/os";

/// Brings the `NodeRuntime`s to the nodes.
pub async fn pass(view: &View, applier: &Applier) -> Report {
    let children = view.nodes.state().iter().filter_map(|node| wanted(node, view)).collect();
    applier.apply(&Desired { stages: vec![children] }).await
}

fn wanted(node: &PartialObjectMeta<Node>, view: &View) -> Option<Child> {
    if node.labels().get(OPERATING_SYSTEM).is_some_and(|system| system != "linux") {
        return None;
    }
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.name_any(),
        uid: node.uid()?,
        ..OwnerReference::default()
    };
    let runtime = NodeRuntime {
        metadata: ObjectMeta {
            name: Some(node.name_any()),
            owner_references: Some(vec![owner]),
            labels: Some([(labels::MANAGED_BY.to_owned(), labels::MANAGED_BY_WHARF.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: NodeRuntimeSpec {},
        status: None,
    };
    let live = view.node_runtimes.get(&ObjectRef::new(&node.name_any()));
    Some(Child::new(&runtime, live.as_deref()))
}
