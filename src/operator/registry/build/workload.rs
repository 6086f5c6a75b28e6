//! The Deployment that runs the engine. With a volume its strategy is `Recreate`, because one volume must not have two
//! writers during a rollout; with an object store pods are replaced one by one, and somebody always answers.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ObjectMeta;

use super::{Inputs, configuration, engine, gauge, referrers, volumes};
use crate::api::labels;
use crate::api::registry::{Engine, RegistrySpec};
use crate::operator::certificate::KeyedCertificate;
use crate::operator::registry::mint::service_addresses;
use crate::plan::digest_of;

/// Longer than the engine takes to leave and to drain.
const GRACE_SECONDS: i64 = 45;

/// The labels by which the Service and the Deployment find the pod.
pub(super) fn selector(registry: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (labels::NAME.to_owned(), "registry".to_owned()),
        (labels::INSTANCE.to_owned(), registry.to_owned()),
    ])
}

pub(super) fn deployment(inputs: &Inputs<'_>, leaf: &KeyedCertificate) -> Deployment {
    let (names, spec) = (inputs.names, &inputs.registry.spec);
    Deployment {
        metadata: inputs.owned(names.deployment()),
        spec: Some(DeploymentSpec {
            replicas: Some(if spec.suspend { 0 } else { spec.replicas }),
            revision_history_limit: Some(2),
            selector: LabelSelector { match_labels: Some(selector(names.registry())), ..LabelSelector::default() },
            strategy: Some(strategy(spec)),
            template: PodTemplateSpec { metadata: Some(pod_metadata(inputs, leaf)), spec: Some(pod_spec(inputs)) },
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

fn strategy(spec: &RegistrySpec) -> DeploymentStrategy {
    if spec.storage.s3.is_none() {
        return DeploymentStrategy { type_: Some("Recreate".to_owned()), rolling_update: None };
    }
    DeploymentStrategy {
        type_: Some("RollingUpdate".to_owned()),
        rolling_update: Some(RollingUpdateDeployment {
            max_surge: Some(IntOrString::Int(1)),
            max_unavailable: Some(IntOrString::Int(0)),
        }),
    }
}

fn pod_metadata(inputs: &Inputs<'_>, leaf: &KeyedCertificate) -> ObjectMeta {
    let template = &inputs.registry.spec.pod_template;
    let mut all_labels = template.labels.clone();
    all_labels.extend(labels::of_registry(inputs.names.registry()));
    let mut annotations = template.annotations.clone();
    annotations.insert(labels::CONTENT.to_owned(), digest_of(&needs_a_new_pod(inputs, leaf)));
    ObjectMeta { labels: Some(all_labels), annotations: Some(annotations), ..ObjectMeta::default() }
}

/// What has to make a new pod when it changes.
fn needs_a_new_pod(inputs: &Inputs<'_>, leaf: &KeyedCertificate) -> String {
    let configuration = configuration::content(inputs);
    let users = inputs.minted.credential.htpasswd.clone();
    let certificate = match inputs.registry.spec.engine {
        // A renewed certificate is taken up from its file, some time after the node has changed that. One for other
        // addresses is needed at once. So is another credential: the old one must not be good any longer.
        Engine::Wharf => service_addresses(&inputs.observed.service).join(","),
        // It reads its files at its start only.
        Engine::Distribution => leaf.certificate.clone(),
    };
    [configuration, certificate, users].join("\n")
}

fn pod_spec(inputs: &Inputs<'_>) -> PodSpec {
    let template = &inputs.registry.spec.pod_template;
    let mut containers = vec![engine::container(inputs)];
    containers.extend(gauge::container(inputs));
    PodSpec {
        service_account_name: Some(inputs.names.service_account()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        security_context: Some(engine::unprivileged()),
        init_containers: referrers::container(inputs).map(|container| vec![container]),
        containers,
        volumes: Some(volumes::volumes(inputs)),
        node_selector: (!template.node_selector.is_empty()).then(|| template.node_selector.clone()),
        tolerations: engine::filled(&template.tolerations),
        affinity: template.affinity.clone(),
        topology_spread_constraints: engine::filled(&template.topology_spread_constraints).or_else(|| spread(inputs)),
        priority_class_name: template.priority_class_name.clone(),
        image_pull_secrets: engine::filled(&template.image_pull_secrets),
        ..PodSpec::default()
    }
}

/// Several pods stand on several nodes where there are so many; who wants it otherwise says so in the pod template.
fn spread(inputs: &Inputs<'_>) -> Option<Vec<TopologySpreadConstraint>> {
    (inputs.registry.spec.replicas > 1).then(|| {
        vec![TopologySpreadConstraint {
            max_skew: 1,
            topology_key: "kubernetes.io/hostname".to_owned(),
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            label_selector: Some(LabelSelector {
                match_labels: Some(selector(inputs.names.registry())),
                ..LabelSelector::default()
            }),
            ..TopologySpreadConstraint::default()
        }]
    })
}
