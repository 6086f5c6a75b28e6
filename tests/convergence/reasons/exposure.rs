//! What can be said of the ways in from beyond the cluster without calling them.

use serde_json::{Value, json};

use super::{Case, case};

pub fn cases() -> Vec<Case> {
    let exposed = ("Exposed", "False");
    let expose = |ways: Value| json!({ "expose": ways });
    let gateway = || json!({"gateway": {"host": "images.example.com", "parentRefs": [{"name": "front"}]}});
    vec![
        Case {
            spec: expose(gateway()),
            heal: |server, _| server.serve_all(),
            ..case("GatewayApiMissing", exposed, |server, _| {
                for kind in ["HTTPRoute", "BackendTLSPolicy", "Gateway"] {
                    server.withdraw(kind);
                }
            })
        },
        Case {
            spec: expose(gateway()),
            heal: |server, _| {
                server.set("HTTPRoute", "platform", "team-registry", |route| route["status"] = json!({}));
            },
            ..case("RouteNotAccepted", exposed, |server, _| {
                let word =
                    json!({"type": "Accepted", "status": "False", "reason": "NotAllowedByListeners", "message": "no"});
                let parent = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "front"});
                let said =
                    json!({"parentRef": parent, "controllerName": "example.com/controller", "conditions": [word]});
                server.set("HTTPRoute", "platform", "team-registry", |route| {
                    route["status"] = json!({"parents": [said]});
                });
            })
        },
        Case {
            spec: expose(json!({"ingress": {"host": "images.example.com"}, "tls": {"issuerRef": {"name": "letters"}}})),
            from_the_start: true,
            heal: |server, _| server.serve_all(),
            ..case("CertManagerMissing", exposed, |server, _| {
                server.add(&json!({
                    "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "spec": {"controller": "example.com/controller"},
                    "metadata": {"name": "a", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
                }));
                server.withdraw("Certificate");
            })
        },
    ]
}
