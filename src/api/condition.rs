//! Conditions: their types, and how one is set without moving its transition time needlessly.
//! Reasons live in `reason`. Nothing here reads a clock; the time is an argument.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The resource does what its spec asks for.
pub const READY: &str = "Ready";
/// Present and `True` while Wharf works towards the spec.
pub const RECONCILING: &str = "Reconciling";
/// Present and `True` when only the user can mend what is wrong.
pub const STALLED: &str = "Stalled";
/// The claim is there and belongs to this Registry.
pub const STORAGE_READY: &str = "StorageReady";
/// The registry's pod answers.
pub const AVAILABLE: &str = "Available";
/// The pull secret exists and the named service accounts use it.
pub const PULL_SECRETS_READY: &str = "PullSecretsReady";
/// The Registry or Mirror has the names that it asks for. Present where it asks for any.
pub const HOSTS_READY: &str = "HostsReady";
/// Every namespace that `spec.caBundle` selects has the certificates. It does not count for [`READY`].
pub const CA_BUNDLES_READY: &str = "CaBundlesReady";
/// Each registry of a Mirror can be asked as its spec says. It does not count for [`READY`] where it is the registry's trouble.
pub const UPSTREAMS_REACHABLE: &str = "UpstreamsReachable";
/// A Mirror keeps what it fetches, and all that it is asked to keep. It counts for [`READY`] as far as its volumes do.
pub const CACHE_HEALTHY: &str = "CacheHealthy";
/// Every node's container runtime is configured for this registry.
pub const NODES_CONFIGURED: &str = "NodesConfigured";

/// On a `NodeRuntime`: the node's own endpoint serves.
pub const ENDPOINT_READY: &str = "EndpointReady";

/// Present where `spec.expose` is given: an image can be pushed from beyond the cluster.
pub const EXPOSED: &str = "Exposed";

/// The reason of the condition that the schema gives to a resource nobody has looked at yet.
pub const PENDING: &str = "Pending";

/// A condition's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The condition holds.
    True,
    /// The condition does not hold.
    False,
    /// It is not known whether the condition holds.
    Unknown,
}

impl Status {
    /// The status as Kubernetes writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// A condition as a controller derives it: everything but times and generations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The condition's type.
    pub kind: &'static str,
    /// Its status.
    pub status: Status,
    /// Its documented reason.
    pub reason: &'static str,
    /// A sentence for the reader who must act.
    pub message: String,
}

impl Finding {
    /// A finding of the given type.
    pub fn new(kind: &'static str, status: Status, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, status, reason, message: message.into() }
    }
}

/// Turns findings into conditions. A condition keeps its transition time while its status stays the same, as
/// `meta.SetStatusCondition` of apimachinery does.
#[must_use]
pub fn conditions(
    old: &[Condition],
    findings: Vec<Finding>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    findings
        .into_iter()
        .map(|finding| {
            let status = finding.status.as_str();
            let since = old
                .iter()
                .find(|condition| condition.type_ == finding.kind && condition.status == status)
                // The schema's default has no time of its own.
                .filter(|condition| condition.last_transition_time.0 != Timestamp::UNIX_EPOCH)
                .map_or(Time(now), |condition| condition.last_transition_time.clone());
            Condition {
                type_: finding.kind.to_owned(),
                status: status.to_owned(),
                reason: finding.reason.to_owned(),
                message: finding.message,
                observed_generation: generation,
                last_transition_time: since,
            }
        })
        .collect()
}

/// The condition of the given type.
#[must_use]
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}
