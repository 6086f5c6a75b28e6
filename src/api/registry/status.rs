//! What Wharf reports of a Registry.
//! It must never hold what changes by itself from moment to moment: a status is silent at rest.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What Wharf last saw of a Registry.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RegistryStatus {
    /// The `metadata.generation` that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,

    /// The name of this registry in image references: `<address>/<repository>:<tag>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,

    /// The config map in this namespace whose key `ca.crt` holds the authority that signs this registry's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<ConfigMapReference>,

    /// Where the images are, and how much room there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageStatus>,

    /// What the images take. Absent while it is not known, and with `engine: Distribution`, which does not tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsageStatus>,

    /// Addresses by which clients beyond the cluster reach this registry, as far as they are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub external_addresses: Vec<String>,

    /// The nodes whose container runtime is configured to pull from this registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeCounts>,

    /// `Ready`, `StorageReady`, `Available`, `PullSecretsReady` and `NodesConfigured`; `Reconciling` and `Stalled` while they hold;
    /// `HostsReady`, `Exposed` and `CaBundlesReady` where `spec.hosts`, `spec.expose` and `spec.caBundle` are given. Each has a
    /// documented reason.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The volume of a Registry.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct StorageStatus {
    /// The size that the volume has, as a Kubernetes quantity of bytes. `spec.storage.claim.size` may go back to it after an
    /// expansion that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::super::schema::capacity")]
    pub capacity: Option<String>,

    /// How full the volume is, in percent, told in steps of five so that it is silent at rest. Absent while it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub used_percent: Option<i32>,
}

/// What the images of a Registry take. Numbers are rounded down to two digits, and told anew after some minutes at the
/// earliest, so that they are silent at rest.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub struct UsageStatus {
    /// Bytes of blobs and manifests, each counted once, however many repositories have it.
    #[schemars(range(min = 0))]
    pub bytes: i64,
    /// Repositories that something was pushed to.
    #[schemars(range(min = 0))]
    pub repositories: i64,
}

/// A config map of the same namespace.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
pub struct ConfigMapReference {
    /// The config map's name.
    pub name: String,
}

/// How many nodes can pull.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
pub struct NodeCounts {
    /// Nodes whose runtime is configured for this registry.
    #[schemars(range(min = 0))]
    pub able: i32,
    /// Nodes that run Wharf's agent.
    #[schemars(range(min = 0))]
    pub total: i32,
    /// Both numbers as `able/total`, for the printed column.
    pub summary: String,
}
