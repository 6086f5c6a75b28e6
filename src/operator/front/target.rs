//! Where the fronts of a Registry are, from its spec and what controllers reported. Pure.
//! It must never name a front that Wharf does not want any more: its verdict would be about somebody else's.

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::networking::v1::Ingress;
use kube::ResourceExt;

use crate::api::registry::ServiceType;
use crate::api::{Registry, labels};
use crate::operator::call::Target;
use crate::operator::gateway_api::{self, HttpRoute};
use crate::operator::registry::names::{Names, SERVICE_PORT};
use crate::operator::view::{View, cached};

/// A way into a registry from beyond the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// Through an ingress controller.
    Ingress,
    /// Through a Gateway.
    Gateway,
    /// Straight to the pods, by a Service.
    Service,
}

impl Way {
    /// The way as it stands in messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "Ingress",
            Self::Gateway => "Gateway",
            Self::Service => "Service",
        }
    }

    /// The way that a child of a Registry belongs to; `None` for what the registry itself consists of.
    #[must_use]
    pub fn of_child(names: &Names, child: &Target) -> Option<Self> {
        match child.kind.as_str() {
            "Ingress" => Some(Self::Ingress),
            "Secret" if child.name == names.front_authority() => Some(Self::Ingress),
            "HTTPRoute" | "BackendTLSPolicy" => Some(Self::Gateway),
            "Service" if child.name == names.external_service() => Some(Self::Service),
            _ => None,
        }
    }
}

/// Where a way into a registry begins. A verdict holds as long as all of this stays the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Front {
    /// The way.
    pub way: Way,
    /// The name that clients call, and that the certificate must have.
    pub host: String,
    /// The port that clients call.
    pub port: u16,
    /// Addresses or names at which it answers; `host` is resolved when there are none.
    pub addresses: Vec<String>,
    /// What else it is made from: a new one may behave in another way.
    pub content: String,
}

impl Front {
    /// The name, with the port where it is not the usual one.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.port == 443 { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }
}

/// The fronts of a Registry that can be called.
#[must_use]
pub fn fronts(registry: &Registry, names: &Names, view: &View) -> Vec<Front> {
    let Some(expose) = &registry.spec.expose else {
        return Vec::new();
    };
    let ingress = expose.ingress.as_ref().and_then(|wanted| {
        let ingress = cached(&view.ingresses, names.namespace(), &names.front())?;
        of_ingress(&wanted.host, &ingress)
    });
    let gateway = expose.gateway.as_ref().and_then(|wanted| {
        let route = cached(&view.http_routes, names.namespace(), &names.front())?;
        of_route(&wanted.host, &route)
    });
    let service = expose.service.as_ref().and_then(|wanted| {
        let service = cached(&view.services, names.namespace(), &names.external_service())?;
        of_service(&names.address(), wanted.service_type, &service)
    });
    [ingress, gateway, service].into_iter().flatten().collect()
}

/// Where the Gateways are is read when the front is called; which of them took the route decides who is called.
fn of_route(host: &str, route: &HttpRoute) -> Option<Front> {
    route.spec.hostnames.iter().find(|found| *found == host)?;
    let intent = route.annotations().get(labels::INTENT).cloned().unwrap_or_default();
    let takers = gateway_api::accepted(route).into_iter().map(ToString::to_string);
    let content = std::iter::once(intent).chain(takers).collect::<Vec<_>>().join(" ");
    Some(Front { way: Way::Gateway, host: host.to_owned(), port: 443, addresses: Vec::new(), content })
}

/// An Ingress that still has another host is about to be written.
fn of_ingress(host: &str, ingress: &Ingress) -> Option<Front> {
    let spec = ingress.spec.as_ref()?;
    spec.rules.iter().flatten().find(|rule| rule.host.as_deref() == Some(host))?;
    let status = ingress.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let entries = status.and_then(|status| status.ingress.as_ref()).into_iter().flatten();
    let addresses = entries.filter_map(|entry| entry.ip.clone().or_else(|| entry.hostname.clone())).collect();
    let content = ingress.annotations().get(labels::INTENT).cloned().unwrap_or_default();
    Some(Front { way: Way::Ingress, host: host.to_owned(), port: 443, addresses, content })
}

/// The registry's own certificate answers there, which has its name inside the cluster.
fn of_service(host: &str, wanted: ServiceType, service: &Service) -> Option<Front> {
    let spec = service.spec.as_ref()?;
    let (port, addresses) = match wanted {
        ServiceType::LoadBalancer => (u16::try_from(SERVICE_PORT).ok()?, balanced(service)),
        ServiceType::NodePort => (u16::try_from(node_port(service)?).ok()?, Vec::new()),
    };
    if spec.type_.as_deref() != Some(wanted.as_str()) || (wanted == ServiceType::LoadBalancer && addresses.is_empty()) {
        return None;
    }
    Some(Front { way: Way::Service, host: host.to_owned(), port, addresses, content: String::new() })
}

/// The addresses that a load balancer was given.
#[must_use]
pub fn balanced(service: &Service) -> Vec<String> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let entries = status.and_then(|status| status.ingress.as_ref()).into_iter().flatten();
    entries.filter_map(|entry| entry.ip.clone().or_else(|| entry.hostname.clone())).collect()
}

/// The port that every node forwards.
#[must_use]
pub fn node_port(service: &Service) -> Option<i32> {
    let ports = service.spec.as_ref()?.ports.as_ref()?;
    ports.iter().find(|port| port.port == SERVICE_PORT)?.node_port.filter(|port| *port > 0)
}

/// The inner addresses of the nodes that are ready; two are enough to try.
pub(super) fn addresses_of(nodes: &[Node]) -> Vec<String> {
    let ready = |node: &&Node| {
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    let address = |node: &Node| {
        let addresses = node.status.as_ref()?.addresses.as_ref()?;
        addresses.iter().find(|address| address.type_ == "InternalIP").map(|address| address.address.clone())
    };
    nodes.iter().filter(ready).filter_map(address).take(2).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn ingress(host: &str, status: &Value) -> Ingress {
        serde_json::from_value(json!({
            "metadata": {"name": "team-registry", "annotations": {labels::INTENT: "1"}},
            "spec": {"rules": [{"host": host}]},
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn an_ingress_is_called_at_its_address_or_by_its_name() {
        let of = |status: Value| of_ingress("a.example.com", &ingress("a.example.com", &status)).unwrap();
        assert_eq!(of(json!({})).addresses, Vec::<String>::new());
        let entries = json!([{"ip": "10.0.0.1"}, {"hostname": "lb.example.com"}]);
        assert_eq!(of(json!({"loadBalancer": {"ingress": entries}})).addresses, ["10.0.0.1", "lb.example.com"]);
        assert_eq!(of_ingress("b.example.com", &ingress("a.example.com", &json!({}))), None);
    }

    #[test]
    fn a_route_is_called_by_its_host_and_anew_when_a_gateway_took_it() {
        let of = |host: &str, status: Value| {
            let route = json!({
                "metadata": {"name": "team-registry", "annotations": {labels::INTENT: "1"}},
                "spec": {"hostnames": ["a.example.com"], "parentRefs": [{"kind": "Gateway", "name": "a"}]},
                "status": status,
            });
            of_route(host, &serde_json::from_value(route).unwrap())
        };
        assert_eq!(of("b.example.com", json!({})), None, "it still has the host of before");
        let word = json!({"type": "Accepted", "status": "True"});
        let parents = json!([{"parentRef": {"kind": "Gateway", "name": "a"}, "conditions": [word]}]);
        let (before, after) = (of("a.example.com", json!({})), of("a.example.com", json!({"parents": parents})));
        assert!(before.is_some() && after.is_some() && before != after);
    }

    #[test]
    fn a_service_is_called_when_it_has_an_address_or_a_port() {
        let of = |wanted: ServiceType, spec: Value, status: Value| {
            let service: Service = serde_json::from_value(json!({"spec": spec, "status": status})).unwrap();
            of_service("team.platform.svc", wanted, &service).map(|front| (front.authority(), front.addresses))
        };
        let ports = json!([{"port": 443, "nodePort": 30443}]);
        let by_node = json!({"type": "NodePort", "ports": ports});
        let balanced = json!({"type": "LoadBalancer", "ports": ports});
        let address = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
        let called = of(ServiceType::NodePort, by_node.clone(), json!({}));
        assert_eq!(called, Some(("team.platform.svc:30443".into(), vec![])));
        assert_eq!(of(ServiceType::LoadBalancer, balanced.clone(), json!({})), None);
        let called = of(ServiceType::LoadBalancer, balanced, address.clone());
        assert_eq!(called, Some(("team.platform.svc".into(), vec!["192.0.2.1".into()])));
        // The Service still has the type of before.
        assert_eq!(of(ServiceType::LoadBalancer, by_node, address), None);
    }

    #[test]
    fn only_nodes_that_are_ready_are_called() {
        let node = |ready: &str, address: &str| -> Node {
            serde_json::from_value(json!({"status": {
                "conditions": [{"type": "Ready", "status": ready}],
                "addresses": [{"type": "Hostname", "address": "x"}, {"type": "InternalIP", "address": address}],
            }}))
            .unwrap()
        };
        assert_eq!(addresses_of(&[node("False", "10.0.0.1"), node("True", "10.0.0.2")]), ["10.0.0.2"]);
    }
}
