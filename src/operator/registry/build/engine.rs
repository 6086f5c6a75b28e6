//! The container that serves the images: Wharf's own server or CNCF distribution, with nothing but files for its settings.
//! No secret may stand in its arguments or environment.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, HTTPGetAction, Lifecycle, LifecycleHandler, PodSecurityContext,
    Probe, ResourceRequirements, SeccompProfile, SecurityContext, SleepAction, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Inputs;
use super::configuration::CONFIGURATION_KEY;
use super::volumes::{self, CONFIGURATION_FOLDER, STORE_AUTHORITY_FOLDER, STORE_CREDENTIALS_FOLDER};
use crate::api::registry::Engine;
use crate::operator::registry::names::{ENGINE_PORT, VOLUME_PORT};

/// The file in which AWS' tools, and so the engine, look for credentials.
pub(super) const STORE_CREDENTIALS_KEY: &str = "credentials";

/// How long a pod that is replaced goes on answering; longer than nodes need to hear of its end.
const LEAVING_SECONDS: i64 = 5;

pub(super) fn container(inputs: &Inputs<'_>) -> Container {
    match inputs.registry.spec.engine {
        Engine::Wharf => wharf(inputs),
        Engine::Distribution => distribution(inputs),
    }
}

/// It tells by itself how it is, and how full the volume is.
fn wharf(inputs: &Inputs<'_>) -> Container {
    Container {
        image: Some(inputs.settings.wharf_image.clone()),
        args: Some(vec![
            "serve".to_owned(),
            format!("--config={CONFIGURATION_FOLDER}/{CONFIGURATION_KEY}"),
            "--log-format=json".to_owned(),
        ]),
        ports: Some(vec![port("registry", ENGINE_PORT), port("volume", VOLUME_PORT)]),
        ..probed(inputs, "32Mi", &tells("/readyz"), tells("/healthz"))
    }
}

fn distribution(inputs: &Inputs<'_>) -> Container {
    let lives = Probe {
        tcp_socket: Some(TCPSocketAction { port: IntOrString::Int(ENGINE_PORT), host: None }),
        timeout_seconds: Some(5),
        ..Probe::default()
    };
    Container {
        image: Some(inputs.settings.distribution_image.clone()),
        // Named by program, not by the image's entry point, which differs between builds of distribution.
        command: Some(vec!["registry".to_owned()]),
        args: Some(vec!["serve".to_owned(), format!("{CONFIGURATION_FOLDER}/{CONFIGURATION_KEY}")]),
        env: Some(environment(inputs)),
        ports: Some(vec![port("registry", ENGINE_PORT)]),
        lifecycle: inputs.registry.spec.storage.s3.as_ref().map(|_| leaves_slowly()),
        ..probed(inputs, "64Mi", &answers_over_tls(), lives)
    }
}

/// What does not depend on the engine, with the memory that it needs at rest, and its ways to ask whether it answers, and
/// whether it lives.
fn probed(inputs: &Inputs<'_>, memory: &str, answers: &Probe, lives: Probe) -> Container {
    Container {
        name: "registry".to_owned(),
        resources: Some(resources(inputs, memory)),
        startup_probe: Some(Probe { period_seconds: Some(1), failure_threshold: Some(120), ..answers.clone() }),
        readiness_probe: Some(Probe { period_seconds: Some(5), failure_threshold: Some(3), ..answers.clone() }),
        // Only whether the program lives: a volume that fails for a while is no reason to restart it.
        liveness_probe: Some(Probe { period_seconds: Some(10), failure_threshold: Some(6), ..lives }),
        security_context: Some(restricted()),
        volume_mounts: Some(volumes::mounts(inputs)),
        ..Container::default()
    }
}

pub(in crate::operator) fn port(name: &str, number: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn environment(inputs: &Inputs<'_>) -> Vec<EnvVar> {
    let variable = |name: &str, value: String| EnvVar { name: name.to_owned(), value: Some(value), value_from: None };
    // Without it, the engine sends traces to an address where nobody listens, and logs each failure.
    let mut variables = vec![variable("OTEL_TRACES_EXPORTER", "none".to_owned())];
    if let Some(store) = &inputs.registry.spec.storage.s3 {
        if store.credentials_secret_ref.is_some() {
            let file = format!("{STORE_CREDENTIALS_FOLDER}/{STORE_CREDENTIALS_KEY}");
            variables.push(variable("AWS_SHARED_CREDENTIALS_FILE", file));
        }
        if store.ca_config_map_ref.is_some() {
            // The engine, as every Go program, reads these folders besides the image's own list of authorities.
            variables.push(variable("SSL_CERT_DIR", STORE_AUTHORITY_FOLDER.to_owned()));
        }
    }
    variables
}

/// A pod that is replaced goes on answering until every node has heard that another one does. Where there is no other
/// one, it would only make the gap longer.
fn leaves_slowly() -> Lifecycle {
    Lifecycle {
        pre_stop: Some(LifecycleHandler {
            sleep: Some(SleepAction { seconds: LEAVING_SECONDS }),
            ..LifecycleHandler::default()
        }),
        ..Lifecycle::default()
    }
}

/// A list, where there is something in it.
pub(in crate::operator) fn filled<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

/// A user and group without rights; the volume is made writable for the group.
pub(in crate::operator) fn unprivileged() -> PodSecurityContext {
    const NOBODY: i64 = 65532;
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(NOBODY),
        run_as_group: Some(NOBODY),
        fs_group: Some(NOBODY),
        // A large volume is not walked at every start.
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..PodSecurityContext::default()
    }
}

/// What Pod Security's level `restricted` asks for, and a file system that cannot be written.
pub(in crate::operator) fn restricted() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        ..SecurityContext::default()
    }
}

/// What the server says of itself, where only the node and the operator ask.
pub(in crate::operator) fn tells(path: &str) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(VOLUME_PORT),
            ..HTTPGetAction::default()
        }),
        timeout_seconds: Some(5),
        ..Probe::default()
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

/// What the engine may use: as the Registry says, or with this much memory at rest.
pub(super) fn resources(inputs: &Inputs<'_>, memory: &str) -> ResourceRequirements {
    inputs.registry.spec.pod_template.resources.clone().unwrap_or_else(|| default_resources(memory))
}

pub(in crate::operator) fn default_resources(memory: &str) -> ResourceRequirements {
    let amount = |text: &str| Quantity(text.to_owned());
    ResourceRequirements {
        requests: Some(BTreeMap::from([("cpu".to_owned(), amount("50m")), ("memory".to_owned(), amount(memory))])),
        limits: Some(BTreeMap::from([("memory".to_owned(), amount("512Mi"))])),
        ..ResourceRequirements::default()
    }
}
