//! What is told of the way in through a Gateway, and of a certificate that nobody makes.

use serde_json::json;

use super::*;
use crate::operator::apis::Apis;
use crate::operator::gateway_api::HttpRoute;

/// A Registry that a Gateway leads to, whose controller took the route, and an upload through it.
fn routed(case: &mut Case) {
    let expose = "{gateway: {host: images.example.com, parentRefs: [{name: front, namespace: infra}]}}";
    case.registry.spec.expose = Some(serde_saphyr::from_str(expose).unwrap());
    case.observed.exposure.route = Found::Ours(route("Accepted", "True"));
    case.observed.exposure.backend_policy =
        Found::Ours(serde_json::from_value(json!({"metadata": {"name": "team-registry"}, "spec": {}})).unwrap());
    case.observed.exposure.verdicts = vec![(Way::Gateway, Verdict::proven())];
}

fn route(kind: &str, status: &str) -> HttpRoute {
    let parent =
        json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "infra", "name": "front"});
    let word = json!({"type": kind, "status": status, "reason": "BackendNotFound", "message": "no such Service"});
    serde_json::from_value(json!({
        "metadata": {"name": "team-registry", "namespace": "platform", "generation": 1},
        "spec": {"hostnames": ["images.example.com"], "parentRefs": [parent]},
        "status": {"parents": [{"parentRef": parent, "controllerName": "example.com/controller", "conditions": [word]}]},
    }))
    .unwrap()
}

#[test]
fn a_gateway_is_told_of_by_what_its_controller_says_and_by_the_proof() {
    type Spoil = Box<dyn FnOnce(&mut Case)>;
    let status = after(routed);
    assert_eq!(exposed_finding(&status), "True/Proven: images.example.com (Gateway): an upload of 2 MiB went through");
    assert_eq!(status.external_addresses, ["images.example.com"]);
    let judge = |reason: &'static str, accepted: bool| -> Spoil {
        Box::new(move |case: &mut Case| {
            case.observed.exposure.verdicts[0].1 = verdict(reason);
            if !accepted {
                case.observed.exposure.route = Found::Ours(route("Accepted", "Unknown"));
            }
        })
    };
    let cases: Vec<(Spoil, &str, &str)> = vec![
        (
            Box::new(|case| case.observed.exposure.apis = Apis::default()),
            "False/GatewayApiMissing",
            "does not serve HTTPRoute and BackendTLSPolicy of gateway.networking.k8s.io/v1",
        ),
        (
            Box::new(|case| case.observed.exposure.apis.backend_tls_policies = false),
            "False/GatewayApiMissing",
            "does not serve BackendTLSPolicy of",
        ),
        (Box::new(|case| case.observed.exposure.route = Found::Foreign("x".into())), "False/NameTaken", "HTTPRoute"),
        (
            Box::new(|case| case.observed.exposure.route_host_taken_by = Some("Registry a/b".into())),
            "False/HostTaken",
            "spec.expose.gateway is had by Registry a/b",
        ),
        (
            Box::new(|case| case.failures = vec![api_failure("HTTPRoute", "team-registry", 422)]),
            "False/Refused",
            "the reason the API server gave",
        ),
        (
            Box::new(|case| case.observed.exposure.route = Found::Ours(route("ResolvedRefs", "False"))),
            "False/RouteNotAccepted",
            "example.com/controller says of HTTPRoute team-registry at Gateway infra/front: ResolvedRefs is False, \
             BackendNotFound: no such Service",
        ),
        (judge(reason::ADDRESS_PENDING, true), "False/AddressPending", "what came back"),
        (judge(reason::ADDRESS_PENDING, false), "False/RouteNotAccepted", "whether Gateway infra/front exists"),
        (judge(reason::CERTIFICATE_NOT_TRUSTED, false), "False/CertificateNotTrusted", "what came back"),
        (judge(reason::BACKEND_UNREACHABLE, true), "False/BackendUnreachable", "knows this kind"),
        (Box::new(|case| case.observed.exposure.route = Found::Absent), "Unknown/Progressing", "being made"),
        (
            Box::new(|case| {
                case.observed.exposure.route = Found::Ours(route("Accepted", "Unknown"));
                case.observed.exposure.verdicts.clear();
            }),
            "Unknown/Progressing",
            "about to be tried",
        ),
    ];
    for (spoil, expected, words) in cases {
        let status = after(|case| {
            routed(case);
            spoil(case);
        });
        let found = exposed_finding(&status);
        assert!(found.starts_with(expected) && found.contains(words), "{expected}: {found}");
        assert!(brief(&status).starts_with("Ready=True"), "{expected}: {}", brief(&status));
    }
}

#[test]
fn an_issuer_without_cert_manager_is_told_unless_there_is_a_certificate_all_the_same() {
    let with_issuer = |reason: Option<&'static str>| {
        let status = after(|case| {
            exposed(case);
            let expose = case.registry.spec.expose.as_mut().unwrap();
            expose.tls = Some(serde_saphyr::from_str("{issuerRef: {name: letters}}").unwrap());
            case.observed.exposure.apis.cert_manager = false;
            if let Some(reason) = reason {
                case.observed.exposure.verdicts[0].1 = verdict(reason);
            }
        });
        exposed_finding(&status)
    };
    assert!(with_issuer(None).starts_with("True/Proven"));
    let told = with_issuer(Some(reason::CERTIFICATE_NOT_TRUSTED));
    assert!(told.starts_with("False/CertManagerMissing") && told.contains("names Issuer letters"), "{told}");
    assert!(with_issuer(Some(reason::BACKEND_UNREACHABLE)).starts_with("False/BackendUnreachable"));
}
