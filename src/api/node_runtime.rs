//! The `NodeRuntime` resource: what Wharf's agent found and did on one node.
//! Nobody writes it by hand; the operator makes one for each node, the agent writes its status.

#![allow(clippy::duplicated_attributes, reason = "each printed column has a type, and types repeat")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The container runtime of one node, and how far it follows Wharf's node plan. It has the name of its node.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[kube(
    group = "wharf.dev",
    version = "v1alpha1",
    kind = "NodeRuntime",
    plural = "noderuntimes",
    shortname = "nrt",
    category = "wharf",
    status = "NodeRuntimeStatus",
    doc = "The container runtime of one node, and how far it follows Wharf's node plan.",
    derive = "PartialEq",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Runtime", type_ = "string", json_path = ".status.runtime"),
    printcolumn(name = "Hosts", type_ = "integer", json_path = ".status.counts.written"),
    printcolumn(name = "Mirrors", type_ = "string", json_path = ".status.counts.mirrors"),
    printcolumn(name = "Exceptions", type_ = "integer", json_path = ".status.counts.exceptions"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
pub struct NodeRuntimeSpec {}

/// What the agent of a node last reported. It holds no timestamp but the conditions' own, so that it is silent at rest.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodeRuntimeStatus {
    /// The revision of the node plan that this node has carried out, but for the exceptions below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub plan_revision: Option<i64>,

    /// The container runtime and its version, as the kubelet reports it: `containerd://2.3.4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,

    /// The folder on the node into which the agent writes one folder a registry host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_path: Option<String>,

    /// How many hosts of the plan are in order, and how many are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<HostCounts>,

    /// The first twenty hosts, by name, that are not in order on this node, with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub exceptions: Vec<HostException>,

    /// The hosts of Mirrors that this node pulls through the cluster's caches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["host"]))]
    pub mirrors: Vec<MirroredHost>,

    /// `Ready` and `EndpointReady`, each with a documented reason.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Counts over the hosts of the node plan.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
pub struct HostCounts {
    /// Hosts whose files stand on the node as planned.
    #[schemars(range(min = 0))]
    pub written: i32,
    /// Hosts that are not in order, or cannot be reached.
    #[schemars(range(min = 0))]
    pub exceptions: i32,
    /// Of the hosts of Mirrors: how many the container runtime has used, of how many are written, such as `1/2`. Absent where
    /// the plan has none for this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirrors: Option<String>,
}

/// A host of a Mirror on a node: three separate facts.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MirroredHost {
    /// The host, as in image references.
    pub host: String,
    /// Its files stand as planned, and the runtime's configuration leads to them. Since when, as the agent saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<Time>,
    /// The agent fetched the Mirror's probe through its own endpoint when it last tried.
    #[serde(default)]
    pub reachable: bool,
    /// The container runtime has asked the endpoint for something of this host since the files were written.
    #[serde(default)]
    pub used: bool,
}

/// A host of the plan that is not in order on a node.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
pub struct HostException {
    /// The host, as in image references.
    pub host: String,
    /// One word for what is wrong; documented.
    pub reason: String,
    /// What was found and what to do.
    pub message: String,
}

/// How many hosts of Mirrors a status lists at most.
pub const MAX_MIRRORS: usize = 64;
/// How many exceptions a status lists at most.
pub const MAX_EXCEPTIONS: usize = 20;
