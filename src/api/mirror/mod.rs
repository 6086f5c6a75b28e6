//! The `Mirror` resource: other registries, cached in the cluster for all its nodes.
//! It must never refuse by code what the schema can refuse at `kubectl apply`.

#![allow(clippy::duplicated_attributes, reason = "each printed column has a type, and types repeat")]

mod status;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::status::{MirrorCacheStatus, MirrorNodeCounts, MirrorStatus, PinStatus, UpstreamState, UpstreamStatus};
use super::registry::{NameReference, NetworkPolicy, PodTemplate};
use super::schema::{HOST_AND_PORT, REPOSITORIES};

/// Other registries, cached in the cluster: every node pulls their images through it, and nothing changes in the images' names.
///
/// The shortest useful one names a registry: `spec: {upstreams: [{host: docker.io}]}`.
#[derive(CustomResource, KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[kube(
    group = "wharf.dev",
    version = "v1alpha1",
    kind = "Mirror",
    plural = "mirrors",
    shortname = "mir",
    category = "wharf",
    status = "MirrorStatus",
    doc = "Other registries, cached in the cluster: every node pulls their images through it.",
    derive = "PartialEq",
    validation = ("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 45", "metadata.name must be at most 45 lower-case letters, digits or '-', because it becomes a part of the names of pods"),
    validation = ("!self.metadata.name.matches('-[0-9]+$') && !self.metadata.name.endsWith('-in-use')", "metadata.name must not end in '-' and a number, nor in '-in-use': objects of another Mirror could have the same names"),
    validation = ("quantity(self.spec.cache.size).compareTo(quantity(oldSelf.spec.cache.size)) >= 0", "spec.cache.size cannot shrink: a volume can only grow. Delete the Mirror and make it again, which begins with an empty cache"),
    validation = ("has(self.spec.cache.storageClassName) == has(oldSelf.spec.cache.storageClassName) && (!has(self.spec.cache.storageClassName) || self.spec.cache.storageClassName == oldSelf.spec.cache.storageClassName)", "spec.cache.storageClassName cannot change: Kubernetes fixes a claim's class when it is made. Delete the Mirror and make it again, which begins with an empty cache"),
    validation = ("!has(self.spec.cache.pin) || self.spec.cache.pin.all(pin, self.spec.upstreams.exists(upstream, pin.startsWith(upstream.host + '/')))", "each image of spec.cache.pin must begin with a host of spec.upstreams, as in docker.io/library/postgres:17"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Hosts", type_ = "string", json_path = ".status.hosts"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.nodes.summary"),
    printcolumn(
        name = "Upstreams",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"UpstreamsReachable\")].reason"
    ),
    printcolumn(name = "Cached", type_ = "string", json_path = ".status.cache.summary"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
pub struct MirrorSpec {
    /// The registries that are cached, each by its name in images' references.
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["host"]))]
    pub upstreams: Vec<MirrorUpstream>,

    /// What is kept, and for how long it is good.
    #[serde(default)]
    pub cache: MirrorCache,

    /// Who may have images that a registry does not give to everybody. An upstream may say otherwise for itself.
    #[serde(default)]
    pub private_images: PrivateImages,

    /// Who may ask this Mirror.
    #[serde(default)]
    pub clients: MirrorClients,

    /// Which nodes pull through this Mirror.
    #[serde(default)]
    pub nodes: MirrorNodes,

    /// How many pods cache, each with a volume of its own. What is asked for often is in one of them; when it is away, in another.
    #[serde(default = "MirrorSpec::default_replicas")]
    #[schemars(range(min = 1, max = 16))]
    pub replicas: i32,

    /// What a network policy lets through to the pods.
    #[serde(default)]
    pub network_policy: NetworkPolicy,

    /// How the pods are placed and sized.
    #[serde(default)]
    pub pod_template: PodTemplate,
}

impl MirrorSpec {
    fn default_replicas() -> i32 {
        1
    }
}

/// A registry that is cached.
#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MirrorUpstream {
    /// The registry as it stands in images' references: `docker.io`, or `registry.example.com:5000`. Matched exactly.
    #[schemars(schema_with = "super::schema::mirrored_host")]
    pub host: String,

    /// Where it is asked, in this order, such as `https://registry-1.docker.io`. Without them, the host says it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::schema::endpoints")]
    pub endpoints: Vec<String>,

    /// A Secret in the operator's namespace as which the registry is asked: of type `kubernetes.io/basic-auth` or
    /// `kubernetes.io/dockerconfigjson`. Endpoints at another place than the host's own need the Secret's own word: its
    /// annotation `wharf.dev/endpoints` lists them, separated by commas. The pods mount it; a changed one is taken up by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<NameReference>,

    /// A Secret in the operator's namespace whose key `ca.crt` holds PEM certificates that are believed besides the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<NameReference>,

    /// The proxy through which it is asked: `http://proxy.example.com:3128`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::schema::proxy")]
    pub proxy: Option<String>,

    /// Hosts that may be asked for tokens with a credential, besides the endpoints and the known partners of large registries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253), regex(pattern = HOST_AND_PORT)), extend("x-kubernetes-list-type" = "set"))]
    pub token_realms: Vec<String>,

    /// Hosts that it may redirect to although their addresses are private.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253), regex(pattern = HOST_AND_PORT)), extend("x-kubernetes-list-type" = "set"))]
    pub redirect_hosts: Vec<String>,

    /// Which of its repositories are cached; nodes ask the registry itself for the others. Without it, all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repositories: Option<RepositoryFilter>,

    /// Who may have its images that it does not give to everybody; without it, `spec.privateImages` says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_images: Option<PrivateImages>,
}

/// Which repositories of a registry are meant: those that a pattern of `include` matches, or all where there is none, without
/// those that one of `exclude` matches. A pattern is a name, or the beginning of names with `*` at its end.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryFilter {
    /// Patterns of repositories that are cached, such as `library/*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 255), regex(pattern = REPOSITORIES)), extend("x-kubernetes-list-type" = "set"))]
    pub include: Vec<String>,
    /// Patterns of repositories that are not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 255), regex(pattern = REPOSITORIES)), extend("x-kubernetes-list-type" = "set"))]
    pub exclude: Vec<String>,
}

/// Who may have images that a registry does not give to everybody.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum PrivateImages {
    /// Those to whom the registry gives them, asked with the pod's own pull secret.
    #[default]
    VerifyWithUpstream,
    /// All who may ask the Mirror; they are fetched with `credentialsSecretRef`.
    Shared,
    /// Nobody: they come from the registry itself.
    Deny,
}

/// What is kept, and for how long it is good.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MirrorCache {
    /// The size of each pod's volume. Nine tenths of it are used at most; what was used longest ago goes first.
    #[serde(default = "MirrorCache::default_size")]
    #[schemars(schema_with = "super::schema::positive_quantity")]
    pub size: String,
    /// The volumes' storage class; without it, the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = super::schema::OBJECT_NAME))]
    pub storage_class_name: Option<String>,
    /// How old a tag's answer may be without the registry being asked: `60s`. `0s`: it is asked each time.
    #[serde(default = "MirrorCache::default_tag_max_age")]
    #[schemars(schema_with = "super::schema::duration")]
    pub tag_max_age: String,
    /// How long a tag that was good is served while its registry cannot be asked: `168h`.
    #[serde(default = "MirrorCache::default_stale_if_error")]
    #[schemars(schema_with = "super::schema::duration")]
    pub stale_if_error: String,
    /// Images that are fetched ahead, for every platform of the cluster's nodes, and never evicted: `docker.io/library/postgres:17`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::schema::pins")]
    pub pin: Vec<String>,
}

impl MirrorCache {
    fn default_size() -> String {
        "50Gi".to_owned()
    }
    fn default_tag_max_age() -> String {
        "60s".to_owned()
    }
    fn default_stale_if_error() -> String {
        "168h".to_owned()
    }
}

impl Default for MirrorCache {
    fn default() -> Self {
        Self {
            size: Self::default_size(),
            storage_class_name: None,
            tag_max_age: Self::default_tag_max_age(),
            stale_if_error: Self::default_stale_if_error(),
            pin: Vec::new(),
        }
    }
}

/// Who may ask a Mirror.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum MirrorClients {
    /// The agents of the nodes, on behalf of the container runtimes.
    #[default]
    Agents,
    /// Whoever reaches the Service in the cluster, pods too.
    Cluster,
}

/// Which nodes pull through a Mirror.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MirrorNodes {
    /// The nodes, by their labels; without it, all that run Wharf's agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::schema::label_selector")]
    pub selector: Option<LabelSelector>,
}

#[cfg(test)]
mod tests;
