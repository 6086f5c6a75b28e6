//! The `Registry` resource: a container image registry inside the cluster.
//! It must never refuse by code what the schema can refuse at `kubectl apply`.

#![allow(clippy::duplicated_attributes, reason = "each printed column has a type, and types repeat")]

mod expose;
mod pod_template;
mod status;
mod storage;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::expose::{
    Expose, ExposeTls, GatewayExposure, IngressExposure, IngressPreset, IssuerReference, ParentReference,
    ServiceExposure, ServiceType,
};
pub use self::pod_template::PodTemplate;
pub use self::status::{ConfigMapReference, NodeCounts, RegistryStatus, StorageStatus, UsageStatus};
pub use self::storage::{AccessMode, Claim, DeletionPolicy, NameReference, ObjectStore, Storage};

use crate::api::schema::OBJECT_NAME;

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
    validation = ("!has(self.spec.storage.s3) || self.spec.engine == 'Distribution'", "spec.storage.s3 needs spec.engine: Distribution: the engine Wharf keeps images on a volume only"),
    validation = ("self.spec.replicas <= 1 || has(self.spec.storage.s3)", "spec.replicas above 1 needs spec.storage.s3: a volume has one writer"),
    validation = ("quantity(self.spec.storage.claim.size).compareTo(quantity(oldSelf.spec.storage.claim.size)) >= 0 || (has(self.status) && has(self.status.storage) && has(self.status.storage.capacity) && quantity(self.spec.storage.claim.size).compareTo(quantity(self.status.storage.capacity)) >= 0)", "spec.storage.claim.size cannot shrink: a volume can only grow. After an expansion that failed it may go back to status.storage.capacity"),
    validation = ("!has(self.spec.expose) || !has(self.spec.expose.service) || size(self.metadata.name) <= 54", "spec.expose.service makes a Service named metadata.name and '-external', so metadata.name may have at most 54 characters"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Address", type_ = "string", json_path = ".status.address"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.nodes.summary"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Engine", type_ = "string", json_path = ".spec.engine", priority = 1),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.storage.capacity", priority = 1),
    printcolumn(name = "Used %", type_ = "integer", json_path = ".status.storage.usedPercent", priority = 1),
    printcolumn(name = "Repositories", type_ = "integer", json_path = ".status.usage.repositories", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct RegistrySpec {
    /// The program that serves the images. Both keep them in the same way, so a change keeps every image; the pod is replaced.
    #[serde(default)]
    pub engine: Engine,

    /// How many pods serve the images. More than one needs `storage.s3`, because a volume has one writer.
    #[serde(default = "RegistrySpec::default_replicas")]
    #[schemars(range(min = 1, max = 16))]
    pub replicas: i32,

    /// Where the images are kept, and what becomes of them when this Registry is deleted.
    #[serde(default)]
    pub storage: Storage,

    /// Further names of this registry, for clients inside and outside the cluster, such as `images.example.com`. Each must be
    /// allowed by the operator's setting `allowedHosts`. The certificate carries them and every node is told of them; making
    /// them resolve is up to you.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::schema::host_names")]
    pub hosts: Vec<String>,

    /// How clients beyond the cluster reach this registry. Without it, they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expose: Option<Expose>,

    /// The service accounts of this namespace whose pods may pull without naming a secret.
    #[serde(default)]
    pub pull_secrets: PullSecrets,

    /// Which namespaces are given the authority that signs this registry's certificate, for clients that run in pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<CaBundle>,

    /// What a network policy lets through to the registry's pods.
    #[serde(default)]
    pub network_policy: NetworkPolicy,

    /// Stops the registry's pod while true. Images, credentials and the node configuration stay as they are.
    #[serde(default)]
    pub suspend: bool,

    /// The service account of the registry's pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<PodIdentity>,

    /// How the registry's pod is placed and sized.
    #[serde(default)]
    pub pod_template: PodTemplate,
}

impl RegistrySpec {
    fn default_replicas() -> i32 {
        1
    }
}

/// The program that serves a Registry's images.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum Engine {
    /// Wharf's own registry server, on a volume.
    #[default]
    Wharf,
    /// CNCF distribution, version 3, on a volume or an object store.
    Distribution,
}

/// Who may pull from a Registry without naming a secret.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PullSecrets {
    /// Names of service accounts in this Registry's namespace. An empty list attaches the secret to none.
    #[serde(default = "PullSecrets::default_service_accounts")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 253), regex(pattern = OBJECT_NAME)),
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

/// Which namespaces are given the authority's certificate.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CaBundle {
    /// Namespaces by their labels; `{}` selects all. Each gets a config map `wharf-ca.crt` with key `ca.crt`, as long as a
    /// Registry selects it.
    #[schemars(schema_with = "super::schema::label_selector")]
    pub namespace_selector: LabelSelector,
}

/// What may reach the registry's pods.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Whether Wharf makes a network policy.
    #[serde(default)]
    pub mode: NetworkPolicyMode,
}

/// Whether Wharf makes a network policy.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum NetworkPolicyMode {
    /// Everybody may reach the port that serves, where the credential decides; every other port is closed. The pods of a
    /// Registry may reach DNS, and an object store if there is one; those of a Mirror, everything.
    #[default]
    Ports,
    /// Wharf makes no network policy. (Not `Off`: YAML takes that word for a boolean.)
    None,
}

/// The service account of a registry's pods.
#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!has(self.annotations) || self.annotations.all(key, !key.startsWith('wharf.dev/'))", "annotations under wharf.dev/ are set by Wharf"))]
pub struct PodIdentity {
    /// Annotations of the service account, by which clouds give its pods rights on an object store (workload identity),
    /// such as `eks.amazonaws.com/role-arn`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub annotations: BTreeMap<String, String>,
}
