//! Which APIs of other projects the cluster serves. They may be missing, and come and go while the operator runs, so nothing is
//! asked of one before discovery has told of it. It must never take an API server that does not answer for one without the API.

use std::time::Duration;

use kube::Client;

use super::call::{Action, CallError, Target, call};
use super::gateway_api;
use super::metrics::Metrics;

/// How often to look.
pub const INTERVAL: Duration = Duration::from_secs(30);
/// The group of cert-manager, which also issuers of others work for.
const CERT_MANAGER: &str = "cert-manager.io";

/// What the cluster serves besides Kubernetes itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Apis {
    /// `HTTPRoute` of the Gateway API.
    pub http_routes: bool,
    /// `BackendTLSPolicy` of the Gateway API, in the version that is no experiment any more.
    pub backend_tls_policies: bool,
    /// cert-manager.
    pub cert_manager: bool,
}

impl Apis {
    /// Whether all is there by which a Gateway can lead to a registry, which speaks TLS only.
    #[must_use]
    pub fn has_gateway_api(&self) -> bool {
        self.http_routes && self.backend_tls_policies
    }
}

/// Asks the API server what it serves: which groups there are, which it always can say, and only of those that it named more.
///
/// # Errors
/// When it cannot be asked.
pub async fn look(client: &Client, metrics: &Metrics) -> Result<Apis, CallError> {
    let groups = call(metrics, Action::List, Target::new("API groups", "", ""), client.list_api_groups()).await?;
    let serves = |wanted: &str| groups.groups.iter().any(|group| group.name == wanted);
    let version = format!("{}/{}", gateway_api::GROUP, gateway_api::VERSION);
    let has_version =
        groups.groups.iter().flat_map(|group| &group.versions).any(|found| found.group_version == version);
    let plurals = if has_version { resources(client, metrics, &version).await? } else { Vec::new() };
    let has = |plural: &str| plurals.iter().any(|found| found == plural);
    Ok(Apis {
        http_routes: has("httproutes"),
        backend_tls_policies: has("backendtlspolicies"),
        cert_manager: serves(CERT_MANAGER),
    })
}

/// The plurals of a group's version; none if it went since it was named.
async fn resources(client: &Client, metrics: &Metrics, version: &str) -> Result<Vec<String>, CallError> {
    let target = Target::new(format!("resources of {version}"), "", "");
    match call(metrics, Action::List, target, client.list_api_group_resources(version)).await {
        Ok(list) => Ok(list.resources.into_iter().map(|resource| resource.name).collect()),
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
