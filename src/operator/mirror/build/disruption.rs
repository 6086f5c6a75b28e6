//! The budget that keeps a drain of nodes from stopping every pod of a Mirror at once.
//! A Mirror with one pod gets none: a budget could only block the drain.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Inputs;

pub(super) fn budget(inputs: &Inputs<'_>) -> Option<PodDisruptionBudget> {
    (inputs.mirror.spec.replicas > 1).then(|| PodDisruptionBudget {
        metadata: inputs.metadata(inputs.names.object()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector {
                match_labels: Some(super::workload::selector(inputs.names.mirror())),
                ..LabelSelector::default()
            }),
            // A pod that does not answer is no reason to keep a node.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    })
}
