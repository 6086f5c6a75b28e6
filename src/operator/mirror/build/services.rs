//! The Services: one before all pods, for clients in pods, and one before each, which outlives its pod. Agents are told of the
//! latter and choose by themselves.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Inputs;
use super::workload::selector;
use crate::operator::mirror::names::{OPERATIONS_PORT, PORT, SERVICE_PORT};

/// The label that Kubernetes itself puts on each pod of a `StatefulSet`.
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";

pub(super) fn of_all(inputs: &Inputs<'_>) -> Service {
    let name = inputs.names.object();
    service(inputs, name, selector(inputs.names.mirror()), vec![port("registry", SERVICE_PORT, PORT)])
}

pub(super) fn of_replica(inputs: &Inputs<'_>, ordinal: i32) -> Service {
    let name = inputs.names.replica(ordinal);
    let mut pods = selector(inputs.names.mirror());
    pods.insert(POD_NAME.to_owned(), name.clone());
    let ports = vec![port("registry", SERVICE_PORT, PORT), port("operations", OPERATIONS_PORT, OPERATIONS_PORT)];
    service(inputs, name, pods, ports)
}

fn service(inputs: &Inputs<'_>, name: String, pods: BTreeMap<String, String>, ports: Vec<ServicePort>) -> Service {
    Service {
        metadata: inputs.metadata(name),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: Some(pods),
            ports: Some(ports),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn port(name: &str, port: i32, target: i32) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port,
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::Int(target)),
        ..ServicePort::default()
    }
}
