//! The Service whose name is the registry's address.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Inputs;
use crate::operator::registry::names::{ENGINE_PORT, SERVICE_PORT, VOLUME_PORT};

pub(super) fn service(inputs: &Inputs<'_>) -> Service {
    let names = inputs.names;
    Service {
        metadata: inputs.owned(names.service()),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: Some(super::workload::selector(names.registry())),
            ports: Some(ports(inputs)),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn ports(inputs: &Inputs<'_>) -> Vec<ServicePort> {
    let port = |name: &str, port, target| ServicePort {
        name: Some(name.to_owned()),
        port,
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::Int(target)),
        ..ServicePort::default()
    };
    let mut ports = vec![port("registry", SERVICE_PORT, ENGINE_PORT)];
    if inputs.registry.spec.storage.s3.is_none() {
        ports.push(port("volume", VOLUME_PORT, VOLUME_PORT));
    }
    ports
}
