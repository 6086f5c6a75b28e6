//! The ways in from beyond the cluster: the Ingress with what its controller has to be told, the Service that leads to the
//! pods, and the certificates that a front must trust. The registry itself speaks TLS only, so every front does so too; the
//! objects for a Gateway are built beside.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend, IngressSpec,
    IngressTLS, ServiceBackendPort,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ObjectMeta;

use super::{Inputs, gateway};
use crate::api::registry::{ExposeTls, IngressExposure, IngressPreset, IssuerReference, ServiceExposure};
use crate::operator::apply::Child;
use crate::operator::registry::names::{AUTHORITY_KEY, ENGINE_PORT, SERVICE_PORT};
use crate::operator::registry::observe::{Found, IngressClassFact, ObservedExposure};

/// How long a front may wait for the registry, or for a slow client, in seconds.
const FRONT_TIMEOUT: &str = "900";

/// What is wanted and may be written. A way in that cannot be had stops nothing else, so it is left out here, and the status
/// says why.
pub(super) fn children(inputs: &Inputs<'_>) -> Vec<Child> {
    let Some(expose) = &inputs.registry.spec.expose else {
        return Vec::new();
    };
    let observed = &inputs.observed.exposure;
    let mut children = Vec::new();
    if let Some(wanted) = &expose.ingress
        && observed.host_taken_by.is_none()
        && !is_foreign(&observed.ingress)
        && !is_foreign(&observed.authority)
    {
        children.push(Child::new(&authority(inputs), observed.authority.ours()));
        children.push(Child::new(&ingress(inputs, wanted, expose.tls.as_ref()), observed.ingress.ours()));
    }
    if let Some(wanted) = &expose.gateway
        && observed.apis.has_gateway_api()
        && observed.route_host_taken_by.is_none()
        && !is_foreign(&observed.route)
        && !is_foreign(&observed.backend_policy)
    {
        // The policy first: without it a Gateway would speak plain HTTP with the registry.
        children.push(Child::new(&gateway::backend_policy(inputs), observed.backend_policy.ours()));
        children.push(Child::new(&gateway::route(inputs, wanted), observed.route.ours()));
    }
    if let Some(wanted) = &expose.service
        && !is_foreign(&observed.service)
    {
        children.push(Child::new(&external_service(inputs, wanted), observed.service.ours()));
    }
    children
}

fn is_foreign<K>(found: &Found<K>) -> bool {
    matches!(found, Found::Foreign(_))
}

/// The same certificates under the two keys by which controllers look for them; no key of ours is beside them.
fn authority(inputs: &Inputs<'_>) -> Secret {
    let bundle = || ByteString(inputs.bundle.as_bytes().to_vec());
    Secret {
        metadata: inputs.owned(inputs.names.front_authority()),
        type_: Some("Opaque".to_owned()),
        data: Some(BTreeMap::from([(AUTHORITY_KEY.to_owned(), bundle()), ("tls.crt".to_owned(), bundle())])),
        ..Secret::default()
    }
}

fn ingress(inputs: &Inputs<'_>, wanted: &IngressExposure, tls: Option<&ExposeTls>) -> Ingress {
    let mut annotations = preset_annotations(inputs, preset(wanted, &inputs.observed.exposure));
    if let Some(issuer) = tls.and_then(|tls| tls.issuer_ref.as_ref()) {
        annotations.extend(issuer_annotations(issuer));
    }
    annotations.extend(wanted.annotations.clone());
    Ingress {
        metadata: ObjectMeta {
            annotations: (!annotations.is_empty()).then_some(annotations),
            ..inputs.owned(inputs.names.front())
        },
        spec: Some(IngressSpec {
            ingress_class_name: wanted.class_name.clone(),
            // Without a Secret the controller shows its own certificate, but it does listen with TLS.
            tls: Some(vec![IngressTLS {
                hosts: Some(vec![wanted.host.clone()]),
                secret_name: tls.map(|tls| certificate_secret(inputs, tls)),
            }]),
            rules: Some(vec![rule(inputs, &wanted.host)]),
            ..IngressSpec::default()
        }),
        ..Ingress::default()
    }
}

fn rule(inputs: &Inputs<'_>, host: &str) -> IngressRule {
    let path = HTTPIngressPath {
        path: Some("/".to_owned()),
        path_type: "Prefix".to_owned(),
        backend: IngressBackend {
            service: Some(IngressServiceBackend {
                name: inputs.names.service().to_owned(),
                // By number, by which Traefik tells that the port speaks TLS.
                port: Some(ServiceBackendPort { number: Some(SERVICE_PORT), name: None }),
            }),
            resource: None,
        },
    };
    IngressRule { host: Some(host.to_owned()), http: Some(HTTPIngressRuleValue { paths: vec![path] }) }
}

/// cert-manager makes the Secret that the Ingress names.
fn certificate_secret(inputs: &Inputs<'_>, tls: &ExposeTls) -> String {
    tls.secret_ref.as_ref().map_or_else(|| inputs.names.ingress_certificate(), |reference| reference.name.clone())
}

/// The preset that is asked for, or that follows from the controller of the class.
pub(in crate::operator::registry) fn preset(wanted: &IngressExposure, observed: &ObservedExposure) -> IngressPreset {
    let IngressClassFact::Controller(controller) = &observed.class else {
        return wanted.preset.unwrap_or(IngressPreset::None);
    };
    wanted.preset.unwrap_or(match controller.as_str() {
        "k8s.io/ingress-nginx" => IngressPreset::Nginx,
        "traefik.io/ingress-controller" => IngressPreset::Traefik,
        // A class of its own is named by a path below it.
        name if name.starts_with("haproxy.org/ingress-controller") => IngressPreset::Haproxy,
        _ => IngressPreset::None,
    })
}

/// TLS to the registry, verified where the controller can; no limit on the size of a layer; nothing buffered on its disk.
fn preset_annotations(inputs: &Inputs<'_>, preset: IngressPreset) -> BTreeMap<String, String> {
    let names = inputs.names;
    let (address, authority) = (names.address(), format!("{}/{}", names.namespace(), names.front_authority()));
    let pairs: &[(&str, &str)] = match preset {
        IngressPreset::Nginx => &[
            ("nginx.ingress.kubernetes.io/backend-protocol", "HTTPS"),
            ("nginx.ingress.kubernetes.io/proxy-ssl-secret", &authority),
            ("nginx.ingress.kubernetes.io/proxy-ssl-verify", "on"),
            ("nginx.ingress.kubernetes.io/proxy-ssl-name", &address),
            ("nginx.ingress.kubernetes.io/proxy-ssl-server-name", "on"),
            ("nginx.ingress.kubernetes.io/proxy-body-size", "0"),
            ("nginx.ingress.kubernetes.io/proxy-request-buffering", "off"),
            ("nginx.ingress.kubernetes.io/proxy-buffering", "off"),
            ("nginx.ingress.kubernetes.io/proxy-read-timeout", FRONT_TIMEOUT),
            ("nginx.ingress.kubernetes.io/proxy-send-timeout", FRONT_TIMEOUT),
        ],
        IngressPreset::Traefik => &[("traefik.ingress.kubernetes.io/router.tls", "true")],
        IngressPreset::Haproxy => &[
            ("haproxy.org/server-ssl", "true"),
            ("haproxy.org/server-ca", &authority),
            ("haproxy.org/timeout-server", "900s"),
        ],
        IngressPreset::None => &[],
    };
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// By these cert-manager is asked for the certificate.
fn issuer_annotations(issuer: &IssuerReference) -> BTreeMap<String, String> {
    let pairs: Vec<(&str, &str)> = match (issuer.group.as_str(), issuer.kind.as_str()) {
        ("cert-manager.io", "Issuer") => vec![("cert-manager.io/issuer", &issuer.name)],
        ("cert-manager.io", "ClusterIssuer") => vec![("cert-manager.io/cluster-issuer", &issuer.name)],
        (group, kind) => vec![
            ("cert-manager.io/issuer", &issuer.name),
            ("cert-manager.io/issuer-kind", kind),
            ("cert-manager.io/issuer-group", group),
        ],
    };
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Only the registry's port: how full the volume is, is nobody's business out there.
fn external_service(inputs: &Inputs<'_>, wanted: &ServiceExposure) -> Service {
    let annotations = (!wanted.annotations.is_empty()).then(|| wanted.annotations.clone());
    Service {
        metadata: ObjectMeta { annotations, ..inputs.owned(inputs.names.external_service()) },
        spec: Some(ServiceSpec {
            type_: Some(wanted.service_type.as_str().to_owned()),
            selector: Some(super::workload::selector(inputs.names.registry())),
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
