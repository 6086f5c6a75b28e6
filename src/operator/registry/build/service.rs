//! The Service whose name is the registry's address.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Inputs;
use crate::operator::registry::names::{ENGINE_PORT, SERVICE_PORT};

pub(super) fn service(inputs: &Inputs<'_>) -> Service {
    let names = inputs.names;
    Service {
        metadata: inputs.owned(names.service()),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: Some(super::workload::selector(names.registry())),
            ports: Some(vec![ServicePort {
                name: Some("registry".to_owned()),
                port: SERVICE_PORT,
                protocol: Some("TCP".to_owned()),
                target_port: Some(IntOrString::Int(ENGINE_PORT)),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}
