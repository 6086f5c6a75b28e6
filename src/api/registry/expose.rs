//! How clients beyond the cluster reach a Registry.
//! It must never name an object of another namespace but the Gateways that a route may attach to.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::storage::NameReference;
use crate::api::schema::OBJECT_NAME;

/// How clients beyond the cluster reach a Registry. Several ways may be used at once.
#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.ingress) || has(self.gateway) || has(self.service)", "at least one of ingress, gateway and service must be given"))]
#[x_kube(validation = ("!has(self.tls) || has(self.ingress)", "tls is the certificate of the ingress: a Gateway has its own on its listener, and a Service ends at the registry, whose certificate is Wharf's"))]
pub struct Expose {
    /// The certificate that the ingress shows. Without it, the ingress controller's default one is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ExposeTls>,

    /// By an Ingress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<IngressExposure>,

    /// By an `HTTPRoute` of the Gateway API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayExposure>,

    /// By a Service of its own, which leads straight to the registry's pods and their certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceExposure>,
}

/// Where the certificate for external names comes from.
#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.secretRef) != has(self.issuerRef)", "exactly one of secretRef and issuerRef must be given"))]
pub struct ExposeTls {
    /// A Secret of this namespace with `tls.crt` and `tls.key`. The ingress controller reads it, Wharf does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<NameReference>,

    /// An issuer of cert-manager, which then makes and renews the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_ref: Option<IssuerReference>,
}

/// An issuer of cert-manager.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub struct IssuerReference {
    /// The issuer's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// `Issuer`, `ClusterIssuer`, or a kind of an external issuer.
    #[serde(default = "IssuerReference::default_kind")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// The API group of the issuer.
    #[serde(default = "IssuerReference::default_group")]
    #[schemars(length(min = 1, max = 253))]
    pub group: String,
}

impl IssuerReference {
    fn default_kind() -> String {
        "Issuer".to_owned()
    }

    fn default_group() -> String {
        "cert-manager.io".to_owned()
    }
}

/// An Ingress.
#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!has(self.annotations) || self.annotations.all(key, !key.startsWith('wharf.dev/'))", "annotations under wharf.dev/ are set by Wharf"))]
pub struct IngressExposure {
    /// The name by which clients call, such as `images.example.com`.
    #[schemars(schema_with = "super::super::schema::host_name")]
    pub host: String,

    /// The ingress class. Without it, the cluster's default class is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    pub class_name: Option<String>,

    /// Further annotations of the Ingress. They win over those of the preset.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,

    /// Which controller's annotations are set: TLS to the registry, no limit on the size of a layer, no buffering. Without it,
    /// they follow from the controller that the ingress class names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<IngressPreset>,
}

/// The annotations that an Ingress gets.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum IngressPreset {
    /// For ingress-nginx.
    Nginx,
    /// For Traefik.
    Traefik,
    /// For the `HAProxy` Kubernetes ingress controller.
    Haproxy,
    /// None: you give what your controller needs.
    None,
}

/// An `HTTPRoute`, and a `BackendTLSPolicy` by which the Gateway speaks TLS with the registry. Both need the Gateway API, version
/// 1.4 or later. The certificate for the host is the Gateway's own, on its listener.
#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.parentRefs.all(a, self.parentRefs.exists_one(b, a.name == b.name && (has(a.__namespace__) ? a.__namespace__ : '') == (has(b.__namespace__) ? b.__namespace__ : '') && (!has(a.sectionName) || !has(b.sectionName) || a.sectionName == b.sectionName)))", "each of parentRefs must be another Gateway, or another listener: of one Gateway either all listeners, once, or several by sectionName"))]
pub struct GatewayExposure {
    /// The name by which clients call, such as `images.example.com`.
    #[schemars(schema_with = "super::super::schema::host_name")]
    pub host: String,

    /// The Gateways, or listeners of them, that the route attaches to.
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub parent_refs: Vec<ParentReference>,
}

/// A Gateway.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ParentReference {
    /// The Gateway's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The Gateway's namespace; this Registry's without it. Whether routes of this Registry's namespace are taken, the Gateway
    /// decides (`allowedRoutes` of its listener).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: Option<String>,
    /// One listener of the Gateway, best the one that speaks HTTPS; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub section_name: Option<String>,
}

/// A Service that is reachable from outside the cluster.
#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!has(self.annotations) || self.annotations.all(key, !key.startsWith('wharf.dev/'))", "annotations under wharf.dev/ are set by Wharf"))]
pub struct ServiceExposure {
    /// How the Service is reachable.
    #[serde(default, rename = "type")]
    pub service_type: ServiceType,

    /// Annotations of the Service, by which load balancers are configured.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
}

/// How a Service is reachable from outside the cluster.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum ServiceType {
    /// By an address that the cloud or a load balancer controller gives.
    #[default]
    LoadBalancer,
    /// By a port of every node.
    NodePort,
}

impl ServiceType {
    /// The type as Kubernetes writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LoadBalancer => "LoadBalancer",
            Self::NodePort => "NodePort",
        }
    }
}
