//! Reads what a pass needs to know of the ways in from beyond the cluster. For a Registry that asks for none, no request is
//! made.

use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};

use super::{Found, Observer};
use crate::api::Registry;
use crate::operator::apis::Apis;
use crate::operator::call::CallError;
use crate::operator::front::{self, Verdict, Way};
use crate::operator::gateway_api::{BackendTlsPolicy, HttpRoute};
use crate::operator::registry::hosts;
use crate::operator::registry::names::Names;

/// Marks the ingress class of Ingresses that name none.
const IS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";

/// What is known of the ways in from beyond the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedExposure {
    /// The Ingress.
    pub ingress: Found<Ingress>,
    /// The Service that is reachable from beyond the cluster.
    pub service: Found<Service>,
    /// The Secret with the certificates that a front must trust.
    pub authority: Found<Secret>,
    /// The ingress class.
    pub class: IngressClassFact,
    /// Who else has the host of the Ingress.
    pub host_taken_by: Option<String>,
    /// Which APIs of other projects there are.
    pub apis: Apis,
    /// The HTTP route.
    pub route: Found<HttpRoute>,
    /// The policy by which Gateways speak TLS with the registry.
    pub backend_policy: Found<BackendTlsPolicy>,
    /// Who else has the host of the HTTP route.
    pub route_host_taken_by: Option<String>,
    /// What became of the last proofs.
    pub verdicts: Vec<(Way, Verdict)>,
}

impl ObservedExposure {
    /// The last verdict on a way in.
    #[must_use]
    pub fn verdict(&self, way: Way) -> Option<&Verdict> {
        self.verdicts.iter().find(|(of, _)| *of == way).map(|(_, verdict)| verdict)
    }
}

/// What is known of the class of the Ingress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IngressClassFact {
    /// No Ingress is wanted.
    NotNeeded,
    /// Its controller, as the class names it.
    Controller(String),
    /// The class that is asked for does not exist; these do.
    Missing(Vec<String>),
    /// None is asked for, and none is the default; these exist.
    NoDefault(Vec<String>),
}

impl Observer<'_> {
    /// Gathers what concerns the ways in.
    pub(super) async fn exposure(&self, registry: &Registry, names: &Names) -> Result<ObservedExposure, CallError> {
        let view = self.view;
        let expose = registry.spec.expose.as_ref();
        let wanted = expose.and_then(|expose| expose.ingress.as_ref());
        let ingress = self.owned_if(wanted.is_some(), &view.ingresses, registry, &names.front()).await?;
        let by_service = expose.is_some_and(|expose| expose.service.is_some());
        let by_gateway = expose.and_then(|expose| expose.gateway.as_ref());
        let asked = by_gateway.is_some() && self.apis.has_gateway_api();
        let route = self.owned_if(asked, &view.http_routes, registry, &names.front()).await?;
        let taken_by = |host: &str, ours: Option<&ObjectMeta>| {
            let older = hosts::older_with(registry, host, &view.live_registries());
            older.or_else(|| hosts::ingress_with(registry, host, ours, &view.ingresses.state()))
        };
        Ok(ObservedExposure {
            host_taken_by: wanted.and_then(|wanted| {
                let ours = ingress.ours().filter(|ours| hosts::has(ours, &wanted.host));
                taken_by(&wanted.host, ours.map(Resource::meta))
            }),
            route_host_taken_by: by_gateway.and_then(|wanted| {
                let ours = route.ours().filter(|ours| ours.spec.hostnames.contains(&wanted.host));
                taken_by(&wanted.host, ours.map(Resource::meta))
            }),
            apis: self.apis,
            backend_policy: self.owned_if(asked, &view.backend_tls_policies, registry, &names.front()).await?,
            service: self.owned_if(by_service, &view.services, registry, &names.external_service()).await?,
            authority: self.owned_if(wanted.is_some(), &view.secrets, registry, &names.front_authority()).await?,
            class: wanted.map_or(IngressClassFact::NotNeeded, |wanted| {
                class_of(wanted.class_name.as_deref(), view.ingress_classes.state().iter().map(AsRef::as_ref))
            }),
            verdicts: front::fronts(registry, names, view)
                .iter()
                .filter_map(|front| Some((front.way, self.fronts.verdict(registry, front)?)))
                .collect(),
            ingress,
            route,
        })
    }
}

fn class_of<'a>(wanted: Option<&str>, classes: impl Iterator<Item = &'a IngressClass>) -> IngressClassFact {
    let mut names = Vec::new();
    for class in classes {
        let name = class.name_any();
        let chosen = match wanted {
            Some(wanted) => name == wanted,
            None => class.annotations().get(IS_DEFAULT).is_some_and(|text| text == "true"),
        };
        if chosen {
            let controller = class.spec.as_ref().and_then(|spec| spec.controller.clone());
            return IngressClassFact::Controller(controller.unwrap_or_default());
        }
        names.push(name);
    }
    names.sort();
    if wanted.is_some() { IngressClassFact::Missing(names) } else { IngressClassFact::NoDefault(names) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_class_is_the_one_asked_for_or_the_default_one() {
        let class = |name: &str, controller: &str, default: &str| -> IngressClass {
            serde_json::from_value(json!({
                "metadata": {"name": name, "annotations": {IS_DEFAULT: default}},
                "spec": {"controller": controller},
            }))
            .unwrap()
        };
        let classes =
            [class("nginx", "k8s.io/ingress-nginx", "false"), class("edge", "traefik.io/ingress-controller", "true")];
        let of = |wanted: Option<&str>| class_of(wanted, classes.iter());
        assert_eq!(of(Some("nginx")), IngressClassFact::Controller("k8s.io/ingress-nginx".into()));
        assert_eq!(of(None), IngressClassFact::Controller("traefik.io/ingress-controller".into()));
        assert_eq!(of(Some("other")), IngressClassFact::Missing(vec!["edge".into(), "nginx".into()]));
        assert_eq!(class_of(None, classes[..1].iter()), IngressClassFact::NoDefault(vec!["nginx".into()]));
    }
}
