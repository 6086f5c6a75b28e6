//! The network policy of a Mirror's pods. It must never close the port that serves: a policy cannot name the nodes, whose agents
//! ask there, and who asks has to prove it. What the pods tell of themselves is for the operator only.

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicySpec,
};

use super::Inputs;
use super::workload::selector;
use crate::api::registry::NetworkPolicyMode;
use crate::operator::mirror::names::{OPERATIONS_PORT, PORT};
use crate::operator::registry::build::network::{operator_of, port, selects};

/// `None` where Wharf is to make none.
pub(super) fn policy(inputs: &Inputs<'_>) -> Option<NetworkPolicy> {
    let rule = |number: i32| NetworkPolicyIngressRule { from: None, ports: Some(vec![port("TCP", number)]) };
    let operator = operator_of(&inputs.settings.namespace);
    (inputs.mirror.spec.network_policy.mode == NetworkPolicyMode::Ports).then(|| NetworkPolicy {
        metadata: inputs.metadata(inputs.names.object()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selects(selector(inputs.names.mirror()))),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(vec![
                rule(PORT),
                NetworkPolicyIngressRule { from: Some(vec![operator]), ..rule(OPERATIONS_PORT) },
            ]),
            // Registries are anywhere, and so are the places to which they redirect. Said aloud, because another policy of
            // the namespace may close what none opens.
            egress: Some(vec![NetworkPolicyEgressRule::default()]),
        }),
    })
}
