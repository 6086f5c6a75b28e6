//! What Wharf reports of a Mirror.
//! It must never hold what changes by itself from moment to moment: a status is silent at rest, and counters live in metrics.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What Wharf last saw of a Mirror.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MirrorStatus {
    /// The `metadata.generation` that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,

    /// The registries that nodes pull through this Mirror, for the printed column: the first, and how many more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<String>,

    /// How each registry is doing, as the pods tell it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["host"]))]
    pub upstreams: Vec<UpstreamStatus>,

    /// What is kept. Absent while no pod tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<MirrorCacheStatus>,

    /// The images of `spec.cache.pin` that are not yet there in whole, or could not be fetched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["image"]))]
    pub pins: Vec<PinStatus>,

    /// The nodes that pull through this Mirror.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<MirrorNodeCounts>,

    /// `Ready`, `Available`, `UpstreamsReachable`, `CacheHealthy` and `NodesConfigured`; `Reconciling` and `Stalled` while they
    /// hold. Each has a documented reason.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// How a registry is doing.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamStatus {
    /// The registry.
    pub host: String,
    /// How it is doing.
    pub state: UpstreamState,
    /// Since when, as far as the operator saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Whether tags are served as they were, because the registry cannot be asked.
    #[serde(default)]
    pub serving_stale: bool,
    /// What it last answered, where that was a problem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// How a registry is doing.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum UpstreamState {
    /// It answered when it was last asked, or has not been asked.
    #[default]
    Ok,
    /// It refuses further requests for a while.
    RateLimited,
    /// It does not answer, or with errors of its own.
    Failing,
    /// It refuses the configured credential. Public images go on.
    CredentialsRejected,
}

/// What a Mirror keeps.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MirrorCacheStatus {
    /// Bytes of all pods together, rounded down to two digits.
    #[schemars(range(min = 0))]
    pub bytes: i64,
    /// How many bytes all pods together may keep.
    #[schemars(range(min = 0))]
    pub capacity: i64,
    /// Both for the printed column, such as `12Gi/45Gi`.
    pub summary: String,
}

/// An image that is to be fetched ahead.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PinStatus {
    /// As in `spec.cache.pin`.
    pub image: String,
    /// What is missing, or why it cannot be had.
    pub message: String,
}

/// How many nodes pull through a Mirror.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub struct MirrorNodeCounts {
    /// Nodes whose runtime is configured for every host of this Mirror, and reaches it.
    #[schemars(range(min = 0))]
    pub able: i32,
    /// Nodes that the selector chooses and that run Wharf's agent.
    #[schemars(range(min = 0))]
    pub total: i32,
    /// Nodes whose runtime has pulled something through it since it was configured.
    #[schemars(range(min = 0))]
    pub used: i32,
    /// Nodes on which a pod started with an image of a host of this Mirror, although the runtime has never asked for any.
    #[schemars(range(min = 0))]
    pub bypassed: i32,
    /// The first two as `able/total`, for the printed column.
    pub summary: String,
}
