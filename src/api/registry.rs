//! The `Registry` resource: a container image registry inside the cluster.
//! It must never refuse by code what the schema can refuse at `kubectl apply`.

#![allow(clippy::duplicated_attributes, reason = "each printed column has a type, and types repeat")]

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, LocalObjectReference, ResourceRequirements, Toleration, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A container image registry inside the cluster, reachable as `<name>.<namespace>.svc`.
///
/// The shortest useful one has an empty spec: one replica, a 20 Gi volume of the default storage class, TLS, a pull
/// secret that the `default` service account of its namespace uses, and every node able to pull from it.
#[derive(CustomResource, KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[kube(
    group = "wharf.dev",
    version = "v1alpha1",
    kind = "Registry",
    plural = "registries",
    shortname = "reg",
    category = "wharf",
    namespaced,
    status = "RegistryStatus",
    doc = "A container image registry inside the cluster, reachable as `<name>.<namespace>.svc`.",
    derive = "PartialEq",
    validation = ("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 63", "metadata.name must be a DNS label (RFC 1035): at most 63 lower-case letters, digits or '-', beginning with a letter, because it becomes the name of a Service"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Address", type_ = "string", json_path = ".status.address"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.nodes.summary"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Engine", type_ = "string", json_path = ".spec.engine", priority = 1),
    printcolumn(name = "Size", type_ = "string", json_path = ".spec.storage.claim.size", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct RegistrySpec {
    /// The program that serves the images.
    #[serde(default)]
    pub engine: Engine,

    /// Where the images are kept, and what becomes of them when this Registry is deleted.
    #[serde(default)]
    pub storage: Storage,

    /// The service accounts of this namespace whose pods may pull without naming a secret.
    #[serde(default)]
    pub pull_secrets: PullSecrets,

    /// Stops the registry's pod while true. Images, credentials and the node configuration stay as they are.
    #[serde(default)]
    pub suspend: bool,

    /// How the registry's pod is placed and sized.
    #[serde(default)]
    pub pod_template: PodTemplate,
}

/// The program that serves a Registry's images.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum Engine {
    /// CNCF distribution, version 3.
    #[default]
    Distribution,
}

/// Where a Registry keeps its images.
#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// The persistent volume claim that Wharf makes for this Registry.
    #[serde(default)]
    pub claim: Claim,

    /// What becomes of the claim, and of the images in it, when this Registry is deleted. `Retain` does not outlive the
    /// namespace: deleting a namespace deletes its claims.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// The persistent volume claim of a Registry.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)", "storageClassName cannot change: Kubernetes fixes a claim's class when it is made. Make another Registry and copy the images"))]
#[x_kube(validation = ("self.accessModes == oldSelf.accessModes", "accessModes cannot change: Kubernetes fixes a claim's access modes when it is made"))]
#[x_kube(validation = ("quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0", "size cannot shrink: a volume can only grow"))]
pub struct Claim {
    /// The size to ask for, as a Kubernetes quantity of bytes (`20Gi`). It can grow later, never shrink.
    #[serde(default = "Claim::default_size")]
    #[schemars(schema_with = "super::schema::positive_quantity")]
    pub size: Quantity,

    /// The storage class. Without it, the cluster's default class is used. It cannot change afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,

    /// The claim's access modes. They cannot change afterwards.
    #[serde(default = "Claim::default_access_modes")]
    #[schemars(length(min = 1, max = 2), extend("x-kubernetes-list-type" = "atomic"))]
    pub access_modes: Vec<AccessMode>,
}

impl Claim {
    fn default_size() -> Quantity {
        Quantity("20Gi".to_owned())
    }

    fn default_access_modes() -> Vec<AccessMode> {
        vec![AccessMode::ReadWriteOnce]
    }
}

impl Default for Claim {
    fn default() -> Self {
        Self { size: Self::default_size(), storage_class_name: None, access_modes: Self::default_access_modes() }
    }
}

/// How a volume may be mounted. `ReadOnlyMany` is missing because a registry writes.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum AccessMode {
    /// By the pods of one node.
    ReadWriteOnce,
    /// By one pod.
    ReadWriteOncePod,
    /// By pods on any node.
    ReadWriteMany,
}

impl AccessMode {
    /// The mode as Kubernetes writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadWriteOnce => "ReadWriteOnce",
            Self::ReadWriteOncePod => "ReadWriteOncePod",
            Self::ReadWriteMany => "ReadWriteMany",
        }
    }
}

/// What becomes of a Registry's claim when the Registry is deleted.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// The claim and its images stay; a new Registry of the same name and namespace takes them over.
    #[default]
    Retain,
    /// The claim and its images are deleted with the Registry.
    Delete,
}

/// Who may pull from a Registry without naming a secret.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PullSecrets {
    /// Names of service accounts in this Registry's namespace. An empty list attaches the secret to none.
    #[serde(default = "PullSecrets::default_service_accounts")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 253)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub service_accounts: Vec<String>,
}

impl PullSecrets {
    fn default_service_accounts() -> Vec<String> {
        vec!["default".to_owned()]
    }
}

impl Default for PullSecrets {
    fn default() -> Self {
        Self { service_accounts: Self::default_service_accounts() }
    }
}

/// How a Registry's pod is placed and sized: the fields of a pod that an administrator may set, with Kubernetes' meaning.
#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!has(self.labels) || self.labels.all(key, !key.startsWith('wharf.dev/') && !key.startsWith('app.kubernetes.io/'))", "labels under wharf.dev/ and app.kubernetes.io/ are set by Wharf"))]
#[x_kube(validation = ("!has(self.annotations) || self.annotations.all(key, !key.startsWith('wharf.dev/'))", "annotations under wharf.dev/ are set by Wharf"))]
pub struct PodTemplate {
    /// Processor and memory of the registry's container. Without it: 50m and 64Mi requested, 512Mi of memory at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// Labels that a node must have to run the pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub node_selector: BTreeMap<String, String>,

    /// Taints that the pod tolerates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub tolerations: Vec<Toleration>,

    /// Affinity of the pod to nodes and other pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,

    /// How pods are spread over the topology.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,

    /// The pod's priority class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,

    /// Secrets of this namespace for pulling the registry's own image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<LocalObjectReference>,

    /// Further annotations of the pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,

    /// Further labels of the pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub labels: BTreeMap<String, String>,
}

/// What Wharf last saw of a Registry.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RegistryStatus {
    /// The `metadata.generation` that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The name of this registry in image references: `<address>/<repository>:<tag>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,

    /// The config map in this namespace whose key `ca.crt` holds the authority that signs this registry's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<ConfigMapReference>,

    /// The nodes whose container runtime is configured to pull from this registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeCounts>,

    /// `Ready`, `Reconciling`, `Stalled`, `StorageReady`, `Available`, `PullSecretsReady` and `NodesConfigured`, each with a
    /// documented reason.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
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
