//! The kinds of the Gateway API, as far as Wharf writes and reads them. Values only.
//! It must never have a field that Wharf has no opinion on: what is not here is left to others.

mod words;

use std::fmt;

use kube::CustomResource;
use serde::{Deserialize, Serialize};

use crate::api::registry::ParentReference;

pub use words::{accepted, objections_to_policy, objections_to_route};

/// The API group.
pub const GROUP: &str = "gateway.networking.k8s.io";
/// The version that has all kinds needed here, since 1.4 of the Gateway API.
pub const VERSION: &str = "v1";
/// How requests to a host find their Service.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "HTTPRoute",
    root = "HttpRoute",
    namespaced,
    status = "HttpRouteStatus",
    schema = "disabled",
    derive = "PartialEq",
    doc = "How requests to a host find their Service."
)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRouteSpec {
    /// The hosts.
    pub hostnames: Vec<String>,
    /// The Gateways that are to know of it.
    pub parent_refs: Vec<Parent>,
    /// Which requests go where.
    pub rules: Vec<HttpRouteRule>,
}

/// Requests that go to one Service.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRouteRule {
    /// Which requests.
    pub matches: Vec<HttpRouteMatch>,
    /// Where they go.
    pub backend_refs: Vec<Backend>,
}

/// Which requests a rule is about.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct HttpRouteMatch {
    /// Their paths.
    pub path: PathMatch,
}

/// Which paths a rule is about.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct PathMatch {
    /// How they are compared.
    #[serde(rename = "type")]
    pub kind: String,
    /// With what.
    pub value: String,
}

/// A Service to which requests go.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct Backend {
    /// The API group of the object, empty for a Service.
    pub group: String,
    /// The kind of the object.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its port.
    pub port: i32,
    /// Its share of the requests.
    pub weight: i32,
}

/// A Gateway, or a listener of one.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Parent {
    /// The API group of the object.
    pub group: String,
    /// The kind of the object.
    pub kind: String,
    /// Its namespace; that of the route without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// The listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
}

impl From<&ParentReference> for Parent {
    fn from(reference: &ParentReference) -> Self {
        Self {
            group: GROUP.to_owned(),
            kind: "Gateway".to_owned(),
            namespace: reference.namespace.clone(),
            name: reference.name.clone(),
            section_name: reference.section_name.clone(),
        }
    }
}

impl fmt::Display for Parent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ", self.kind)?;
        self.namespace.iter().try_for_each(|namespace| write!(formatter, "{namespace}/"))?;
        formatter.write_str(&self.name)?;
        self.section_name.iter().try_for_each(|section| write!(formatter, " (listener {section})"))
    }
}

/// What controllers say of a route.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct HttpRouteStatus {
    /// One for each Gateway and controller.
    pub parents: Vec<ParentStatus>,
}

/// What one controller says of a route at one Gateway.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ParentStatus {
    /// The Gateway.
    pub parent_ref: Parent,
    /// The controller.
    pub controller_name: String,
    /// What it says.
    pub conditions: Vec<Word>,
}

/// A condition. Unlike the type of Kubernetes it can always be read, so that no controller can spoil a cache.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Word {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, in one word.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
    /// The generation that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// How Gateways speak with a Service.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "BackendTLSPolicy",
    root = "BackendTlsPolicy",
    plural = "backendtlspolicies",
    namespaced,
    status = "BackendTlsPolicyStatus",
    schema = "disabled",
    derive = "PartialEq",
    doc = "How Gateways speak with a Service."
)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendTlsPolicySpec {
    /// The Services.
    pub target_refs: Vec<PolicyTarget>,
    /// How their certificate is verified.
    pub validation: BackendValidation,
}

/// A Service that a policy is for.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct PolicyTarget {
    /// The API group of the object, empty for a Service.
    pub group: String,
    /// The kind of the object.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// How a certificate is verified.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendValidation {
    /// Who may have signed it.
    pub ca_certificate_refs: Vec<AuthorityReference>,
    /// The name that it must have.
    pub hostname: String,
}

/// An object with certificates of authorities.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct AuthorityReference {
    /// The API group of the object, empty for a config map.
    pub group: String,
    /// The kind of the object.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// What controllers say of a policy.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct BackendTlsPolicyStatus {
    /// One for each Gateway and controller.
    pub ancestors: Vec<AncestorStatus>,
}

/// What one controller says of a policy at one Gateway.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct AncestorStatus {
    /// The Gateway.
    pub ancestor_ref: Parent,
    /// The controller.
    pub controller_name: String,
    /// What it says.
    pub conditions: Vec<Word>,
}

/// A Gateway: where it listens, and at which addresses.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "Gateway",
    namespaced,
    status = "GatewayStatus",
    schema = "disabled",
    derive = "PartialEq",
    doc = "A Gateway: where it listens, and at which addresses."
)]
#[serde(default)]
pub struct GatewaySpec {
    /// Where it listens.
    pub listeners: Vec<Listener>,
}

/// A place where a Gateway listens.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// The host that it serves, perhaps with a wildcard for the first label; all hosts without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The port.
    pub port: u16,
    /// What is spoken there.
    pub protocol: String,
}

/// Where a Gateway is.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct GatewayStatus {
    /// At which addresses.
    pub addresses: Vec<GatewayAddress>,
}

/// An address.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct GatewayAddress {
    /// An IP address or a name.
    pub value: String,
}

impl Gateway {
    /// The addresses.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.status.iter().flat_map(|status| &status.addresses).map(|address| address.value.clone()).collect()
    }

    /// The port at which clients that speak TLS call a host; `parent` may name the listener.
    #[must_use]
    pub fn port(&self, parent: &Parent, host: &str) -> Option<u16> {
        let serves = |listener: &&Listener| {
            listener.protocol == "HTTPS"
                && parent.section_name.as_ref().is_none_or(|section| *section == listener.name)
                && listener.hostname.as_ref().is_none_or(|pattern| matches(pattern, host))
        };
        self.spec.listeners.iter().find(serves).map(|listener| listener.port)
    }
}

/// A wildcard stands for one or more labels.
fn matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => pattern == host,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_port_is_that_of_the_listener_for_the_host() {
        let gateway: Gateway = serde_json::from_value(json!({
            "metadata": {"name": "a"},
            "spec": {"gatewayClassName": "one", "listeners": [
                {"name": "http", "port": 80, "protocol": "HTTP"},
                {"name": "other", "port": 1443, "protocol": "HTTPS", "hostname": "other.example.com"},
                {"name": "wild", "port": 8443, "protocol": "HTTPS", "hostname": "*.example.com", "tls": {}},
                {"name": "rest", "port": 9443, "protocol": "HTTPS"},
            ]},
            "status": {"addresses": [{"type": "IPAddress", "value": "192.0.2.1"}, {"value": "lb.example.com"}]},
        }))
        .unwrap();
        let port = |host: &str, section: Option<&str>| {
            gateway.port(&Parent { section_name: section.map(str::to_owned), ..Parent::default() }, host)
        };
        assert_eq!(port("images.example.com", None), Some(8443));
        assert_eq!(port("example.com", None), Some(9443), "the wildcard stands for a label at least");
        assert_eq!(port("images.example.com", Some("rest")), Some(9443));
        assert_eq!(port("images.example.com", Some("http")), None);
        assert_eq!(gateway.addresses(), ["192.0.2.1", "lb.example.com"]);
    }
}
