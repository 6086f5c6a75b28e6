//! What the administrator decides for the whole operator. Values only; nothing here reads the environment.

use std::time::Duration;

use ipnet::IpNet;

use super::limits::Limits;

/// The operator's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The operator's own namespace. The authority's key lives here.
    pub namespace: String,
    /// The namespace of the node plan.
    pub plan_namespace: String,
    /// The cluster's DNS domain, such as `cluster.local`.
    pub cluster_domain: String,
    /// The image of Wharf itself.
    pub wharf_image: String,
    /// How often each Registry's pod is asked how full its volume is.
    pub volume_interval: Duration,
    /// The image of the engine `Distribution`.
    pub distribution_image: String,
    /// How long, at least, clients that read the certificates seldom are given before and after an authority is replaced.
    pub certificate_overlap: Duration,
    /// What Registries may have.
    pub limits: Limits,
    /// The service account, in the operator's namespace, of the pods of Mirrors.
    pub mirror_service_account: String,
    /// The service account, in the operator's namespace, of the agents.
    pub agent_service_account: String,
    /// Ranges of addresses that no registry may redirect a Mirror to, besides those that are private everywhere.
    pub closed_ranges: Vec<IpNet>,
}
