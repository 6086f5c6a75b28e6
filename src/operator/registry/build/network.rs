//! The network policy of a registry's pods: what may reach them, and what they may reach.
//! It must never close the registry's port: a policy cannot name the nodes, which pull through it, and whoever connects still
//! needs a credential.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Inputs;
use crate::api::labels;
use crate::api::registry::{NetworkPolicyMode, ObjectStore};
use crate::operator::registry::names::{ENGINE_PORT, VOLUME_PORT};

/// The label that Kubernetes itself puts on every namespace.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// Where DNS servers listen: policies are applied behind a Service, and `OpenShift`'s pods listen on the second one.
const DNS_PORTS: [i32; 2] = [53, 5353];
/// Where clouds give a pod the credentials of its identity, on port 80: the metadata server, and EKS' agent.
const IDENTITY_SERVERS: [&str; 4] =
    ["169.254.169.254/32", "169.254.170.23/32", "fd00:ec2::254/128", "fd00:ec2::23/128"];

/// `None` where Wharf is to make none.
pub(super) fn policy(inputs: &Inputs<'_>) -> Option<NetworkPolicy> {
    let spec = &inputs.registry.spec;
    (spec.network_policy.mode == NetworkPolicyMode::Ports).then(|| NetworkPolicy {
        metadata: inputs.owned(inputs.names.network_policy()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selects(super::workload::selector(inputs.names.registry()))),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(ingress(inputs)),
            egress: Some(egress(spec.storage.s3.as_ref())),
        }),
    })
}

fn ingress(inputs: &Inputs<'_>) -> Vec<NetworkPolicyIngressRule> {
    let mut rules = vec![NetworkPolicyIngressRule { from: None, ports: Some(vec![port("TCP", ENGINE_PORT)]) }];
    if inputs.registry.spec.storage.s3.is_none() {
        // Nobody but the operator asks how full the volume is.
        let operator = operator_of(&inputs.settings.namespace);
        rules
            .push(NetworkPolicyIngressRule { from: Some(vec![operator]), ports: Some(vec![port("TCP", VOLUME_PORT)]) });
    }
    rules
}

/// The operator's own pods, in its namespace.
pub(in crate::operator) fn operator_of(own: &str) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        namespace_selector: Some(namespace(own)),
        pod_selector: Some(selects(BTreeMap::from([
            (labels::NAME.to_owned(), "wharf".to_owned()),
            (labels::COMPONENT.to_owned(), "operator".to_owned()),
        ]))),
        ip_block: None,
    }
}

fn egress(store: Option<&ObjectStore>) -> Vec<NetworkPolicyEgressRule> {
    let names = DNS_PORTS.iter().flat_map(|number| [port("UDP", *number), port("TCP", *number)]).collect();
    let mut rules = vec![NetworkPolicyEgressRule { ports: Some(names), to: None }];
    let Some(store) = store else {
        return rules;
    };
    let endpoint = store.endpoint.as_deref().unwrap_or("https://");
    // A policy cannot name a host outside the cluster.
    rules.push(NetworkPolicyEgressRule { ports: Some(vec![port("TCP", port_of(endpoint))]), to: None });
    if let Some(name) = namespace_of(endpoint) {
        // The pods behind a Service may listen on another port than it does, and policies are applied behind it.
        let peer = NetworkPolicyPeer { namespace_selector: Some(namespace(name)), ..NetworkPolicyPeer::default() };
        rules.push(NetworkPolicyEgressRule { ports: None, to: Some(vec![peer]) });
    }
    if store.credentials_secret_ref.is_none() {
        let server = |cidr: &&str| NetworkPolicyPeer {
            ip_block: Some(IPBlock { cidr: (*cidr).to_owned(), except: None }),
            ..NetworkPolicyPeer::default()
        };
        rules.push(NetworkPolicyEgressRule {
            ports: Some(vec![port("TCP", 80)]),
            to: Some(IDENTITY_SERVERS.iter().map(server).collect()),
        });
        // The cloud's own token service, when the object store is another one.
        if port_of(endpoint) != 443 {
            rules.push(NetworkPolicyEgressRule { ports: Some(vec![port("TCP", 443)]), to: None });
        }
    }
    rules
}

/// The port of an endpoint such as `https://minio.storage.svc:9000`.
fn port_of(endpoint: &str) -> i32 {
    let (scheme, authority) = endpoint.split_once("://").unwrap_or(("https", endpoint));
    let default = if scheme == "http" { 80 } else { 443 };
    // Of an IPv6 address, the last part ends with a bracket.
    authority.rsplit_once(':').and_then(|(_, number)| number.parse().ok()).unwrap_or(default)
}

/// The namespace of the Service that an endpoint names; `None` for a host outside the cluster.
fn namespace_of(endpoint: &str) -> Option<&str> {
    let (_, authority) = endpoint.split_once("://")?;
    let host = authority.split_once(':').map_or(authority, |(host, _)| host);
    let mut labels = host.split('.');
    let (_service, namespace, kind) = (labels.next()?, labels.next()?, labels.next()?);
    (kind == "svc").then_some(namespace)
}

pub(in crate::operator) fn port(protocol: &str, number: i32) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(number)),
        protocol: Some(protocol.to_owned()),
        ..NetworkPolicyPort::default()
    }
}

fn namespace(name: &str) -> LabelSelector {
    selects(BTreeMap::from([(NAMESPACE_NAME.to_owned(), name.to_owned())]))
}

pub(in crate::operator) fn selects(match_labels: BTreeMap<String, String>) -> LabelSelector {
    LabelSelector { match_labels: Some(match_labels), ..LabelSelector::default() }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_object_store_is_reached_by_its_port() {
        for (endpoint, port, namespace) in [
            ("https://", 443, None),
            ("https://s3.example.com", 443, None),
            ("http://s3.example.com", 80, None),
            ("https://s3.example.com:8443", 8443, None),
            ("http://[fd00::1]", 80, None),
            ("http://[fd00::1]:9000", 9000, None),
            ("https://minio.storage.svc:9000", 9000, Some("storage")),
            ("http://minio.storage.svc.cluster.local", 80, Some("storage")),
            ("http://minio.storage", 80, None),
        ] {
            assert_eq!((port_of(endpoint), namespace_of(endpoint)), (port, namespace), "{endpoint}");
        }
    }

    #[test]
    fn only_an_identity_of_the_cloud_opens_the_way_to_its_servers() {
        let destinations = |store: Value| {
            let rules = egress(Some(&serde_json::from_value(store).unwrap()));
            let servers = rules.iter().flat_map(|rule| rule.to.iter().flatten()).filter(|peer| peer.ip_block.is_some());
            let to_all: Vec<IntOrString> = rules
                .iter()
                .filter(|rule| rule.to.is_none())
                .skip(1)
                .flat_map(|rule| rule.ports.iter().flatten().filter_map(|port| port.port.clone()))
                .collect();
            (servers.count(), to_all)
        };
        let ports = |numbers: &[i32]| numbers.iter().copied().map(IntOrString::Int).collect::<Vec<_>>();
        let secret = json!({"bucket": "images", "credentialsSecretRef": {"name": "s3"}});
        assert_eq!(destinations(secret), (0, ports(&[443])));
        assert_eq!(destinations(json!({"bucket": "images"})), (4, ports(&[443])));
        let own = json!({"bucket": "images", "endpoint": "http://store.example.com:9000"});
        assert_eq!(destinations(own), (4, ports(&[9000, 443])));
    }
}
