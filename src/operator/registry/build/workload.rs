//! The Deployment that runs the engine. `Recreate`, because one volume must not have two writers during a rollout.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EnvVar, HTTPGetAction, KeyToPath,
    PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements,
    SeccompProfile, SecretVolumeSource, SecurityContext, TCPSocketAction, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ObjectMeta;

use super::Inputs;
use super::configuration::CONFIGURATION_KEY;
use crate::api::labels;
use crate::operator::certificate::KeyedCertificate;
use crate::operator::registry::mint::HTPASSWD_KEY;
use crate::operator::registry::names::ENGINE_PORT;
use crate::plan::digest_of;

/// Where the images lie in the pod.
pub(super) const DATA_FOLDER: &str = "/var/lib/registry";
/// Where the server certificate lies in the pod.
pub(super) const CERTIFICATE_FOLDER: &str = "/etc/wharf/certificate";
/// Where the file of users lies in the pod.
pub(super) const USERS_FOLDER: &str = "/etc/wharf/users";
const CONFIGURATION_FOLDER: &str = "/etc/wharf/configuration";

/// A user and group without rights; the volume is made writable for the group.
const NOBODY: i64 = 65532;
/// Longer than the engine's drain timeout.
const GRACE_SECONDS: i64 = 40;
/// Readable by the owner and the pod's group only.
const SECRET_MODE: i32 = 0o440;

/// The labels by which the Service and the Deployment find the pod.
pub(super) fn selector(registry: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (labels::NAME.to_owned(), "registry".to_owned()),
        (labels::INSTANCE.to_owned(), registry.to_owned()),
    ])
}

pub(super) fn deployment(inputs: &Inputs<'_>, leaf: &KeyedCertificate) -> Deployment {
    let names = inputs.names;
    Deployment {
        metadata: inputs.owned(names.deployment()),
        spec: Some(DeploymentSpec {
            replicas: Some(i32::from(!inputs.registry.spec.suspend)),
            revision_history_limit: Some(2),
            selector: LabelSelector { match_labels: Some(selector(names.registry())), ..LabelSelector::default() },
            strategy: Some(DeploymentStrategy { type_: Some("Recreate".to_owned()), ..DeploymentStrategy::default() }),
            template: PodTemplateSpec { metadata: Some(pod_metadata(inputs, leaf)), spec: Some(pod_spec(inputs)) },
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

fn pod_metadata(inputs: &Inputs<'_>, leaf: &KeyedCertificate) -> ObjectMeta {
    let template = &inputs.registry.spec.pod_template;
    let mut all_labels = template.labels.clone();
    all_labels.extend(labels::of_registry(inputs.names.registry()));
    let mut annotations = template.annotations.clone();
    // The engine reads these at its start, so a change of any has to make a new pod.
    let content =
        [super::configuration::distribution(), leaf.certificate.clone(), inputs.minted.credential.htpasswd.clone()];
    annotations.insert(labels::CONTENT.to_owned(), digest_of(&content.join("\n")));
    ObjectMeta { labels: Some(all_labels), annotations: Some(annotations), ..ObjectMeta::default() }
}

fn pod_spec(inputs: &Inputs<'_>) -> PodSpec {
    let template = &inputs.registry.spec.pod_template;
    let filled = |list: &Vec<_>| (!list.is_empty()).then(|| list.clone());
    PodSpec {
        service_account_name: Some(inputs.names.service_account()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(NOBODY),
            run_as_group: Some(NOBODY),
            fs_group: Some(NOBODY),
            // A large volume is not walked at every start.
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(inputs)],
        volumes: Some(volumes(inputs)),
        node_selector: (!template.node_selector.is_empty()).then(|| template.node_selector.clone()),
        tolerations: (!template.tolerations.is_empty()).then(|| template.tolerations.clone()),
        affinity: template.affinity.clone(),
        topology_spread_constraints: (!template.topology_spread_constraints.is_empty())
            .then(|| template.topology_spread_constraints.clone()),
        priority_class_name: template.priority_class_name.clone(),
        image_pull_secrets: filled(&template.image_pull_secrets),
        ..PodSpec::default()
    }
}

fn container(inputs: &Inputs<'_>) -> Container {
    Container {
        name: "registry".to_owned(),
        image: Some(inputs.settings.distribution_image.clone()),
        // Named by program, not by the image's entry point, which differs between builds of distribution.
        command: Some(vec!["registry".to_owned()]),
        args: Some(vec!["serve".to_owned(), format!("{CONFIGURATION_FOLDER}/{CONFIGURATION_KEY}")]),
        // Without it, the engine sends traces to an address where nobody listens, and logs each failure.
        env: Some(vec![EnvVar {
            name: "OTEL_TRACES_EXPORTER".to_owned(),
            value: Some("none".to_owned()),
            value_from: None,
        }]),
        ports: Some(vec![ContainerPort {
            name: Some("registry".to_owned()),
            container_port: ENGINE_PORT,
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        resources: Some(inputs.registry.spec.pod_template.resources.clone().unwrap_or_else(default_resources)),
        startup_probe: Some(Probe { period_seconds: Some(1), failure_threshold: Some(120), ..answers_over_tls() }),
        readiness_probe: Some(Probe { period_seconds: Some(5), failure_threshold: Some(3), ..answers_over_tls() }),
        // Only whether the program lives: a volume that fails for a while is no reason to restart it.
        liveness_probe: Some(Probe {
            tcp_socket: Some(TCPSocketAction { port: IntOrString::Int(ENGINE_PORT), host: None }),
            period_seconds: Some(10),
            timeout_seconds: Some(5),
            failure_threshold: Some(6),
            ..Probe::default()
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![
            mount("data", DATA_FOLDER, false),
            mount("configuration", CONFIGURATION_FOLDER, true),
            mount("certificate", CERTIFICATE_FOLDER, true),
            mount("users", USERS_FOLDER, true),
        ]),
        ..Container::default()
    }
}

/// `/` answers 200 without a credential, and 503 while the engine's own check of its storage fails.
fn answers_over_tls() -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some("/".to_owned()),
            port: IntOrString::Int(ENGINE_PORT),
            scheme: Some("HTTPS".to_owned()),
            ..HTTPGetAction::default()
        }),
        timeout_seconds: Some(5),
        ..Probe::default()
    }
}

fn default_resources() -> ResourceRequirements {
    let amount = |text: &str| Quantity(text.to_owned());
    ResourceRequirements {
        requests: Some(BTreeMap::from([("cpu".to_owned(), amount("50m")), ("memory".to_owned(), amount("64Mi"))])),
        limits: Some(BTreeMap::from([("memory".to_owned(), amount("512Mi"))])),
        ..ResourceRequirements::default()
    }
}

fn volumes(inputs: &Inputs<'_>) -> Vec<Volume> {
    let names = inputs.names;
    vec![
        Volume {
            name: "data".to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: names.claim(),
                read_only: None,
            }),
            ..Volume::default()
        },
        Volume {
            name: "configuration".to_owned(),
            config_map: Some(ConfigMapVolumeSource { name: names.configuration(), ..ConfigMapVolumeSource::default() }),
            ..Volume::default()
        },
        secret_volume("certificate", names.certificate(), &["tls.crt", "tls.key"]),
        // The password itself stays out of the pod; the engine needs the hash only.
        secret_volume("users", names.credentials(), &[HTPASSWD_KEY]),
    ]
}

fn secret_volume(name: &str, secret: String, keys: &[&str]) -> Volume {
    let items =
        keys.iter().map(|key| KeyToPath { key: (*key).to_owned(), path: (*key).to_owned(), mode: None }).collect();
    Volume {
        name: name.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret),
            items: Some(items),
            default_mode: Some(SECRET_MODE),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}
