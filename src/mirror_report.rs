//! What a Mirror's pod tells of itself, as its operations endpoint answers it and the operator reads it: data only.
//! It must never hold a credential, nor what a client named.

use serde::{Deserialize, Serialize};

/// The path of the operations endpoint that answers with [`MirrorReport`] as JSON.
pub const PATH: &str = "/mirrors";

/// What one pod tells.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MirrorReport {
    /// The registries that are configured, by name.
    pub upstreams: Vec<UpstreamReport>,
    /// What is kept.
    pub cache: CacheReport,
    /// The images that are to be fetched ahead, in the configuration's order.
    #[serde(default)]
    pub pins: Vec<PinReport>,
}

/// How a registry is doing.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamReport {
    /// The registry.
    pub host: String,
    /// How it is doing.
    pub state: State,
    /// Whether a tag was served as it was, because the registry could not be asked, since the registry last answered.
    pub serving_stale: bool,
    /// What it last answered, where that was a problem. Without anything that is secret or changes with each attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// How a registry is doing.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It answered when it was last asked, or has not been asked.
    #[default]
    Ok,
    /// It refuses further requests for a while.
    RateLimited,
    /// It refuses the configured credential.
    CredentialsRejected,
    /// It does not answer, or with errors of its own.
    Failing,
}

/// What is kept.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CacheReport {
    /// Bytes that are kept.
    pub bytes: u64,
    /// Bytes that may be kept.
    pub size: u64,
    /// Images that pods run were evicted or cannot all be kept, because they are more than there is room for.
    pub in_use_exceeds: bool,
    /// Pinned images are more than four fifths of the size: the last of them are not kept.
    pub pins_exceed: bool,
    /// The length of the largest blob that was passed on without being kept, because it is larger than the size, lately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub too_large: Option<u64>,
    /// Why nothing is kept for now: the disk is full or refuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// An image that is to be fetched ahead.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PinReport {
    /// As it is configured.
    pub image: String,
    /// All of it is here, for every configured platform.
    pub complete: bool,
    /// What is missing, or why it cannot be had, where it is not complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}
