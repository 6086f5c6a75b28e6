//! What becomes of a host beyond the cluster when several want it, of the ways in when they are no longer wanted, and of what
//! controllers of Gateways say.

use serde_json::{Value, json};

use crate::apiserver::Server;
use crate::world::{add_named_registry, cluster, run_until_quiet};

const HOST: &str = "images.example.com";

fn exposing() -> Value {
    json!({"expose": {"ingress": {"host": HOST}, "service": {"type": "NodePort"}}})
}

async fn converge(server: &Server) {
    run_until_quiet(server, &server.connect()).await;
}

fn exposed(server: &Server, registry: &str) -> String {
    let registry = server.get("Registry", "platform", registry).unwrap();
    let conditions = registry["status"]["conditions"].as_array().unwrap();
    let found = conditions.iter().find(|condition| condition["type"] == "Exposed").expect("there is a condition");
    format!("{}/{} {}", found["status"].as_str().unwrap(), found["reason"].as_str().unwrap(), found["message"])
}

fn has_ingress(server: &Server, registry: &str) -> bool {
    server.get("Ingress", "platform", &format!("{registry}-registry")).is_some()
}

fn theirs(server: &Server) {
    server.add(&json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "web", "namespace": "wharf-nodes"},
        "spec": {"rules": [{"host": HOST}]},
    }));
}

#[tokio::test]
async fn a_host_that_an_ingress_of_somebody_else_has_is_left_to_it_until_it_is_free() {
    let server = cluster(&exposing());
    theirs(&server);
    let before = server.get("Ingress", "wharf-nodes", "web");
    converge(&server).await;
    let found = exposed(&server, "team");
    assert!(found.starts_with("False/HostTaken") && found.contains("Ingress wharf-nodes/web"), "{found}");
    assert!(!has_ingress(&server, "team"));
    // The other way in is not concerned, and nothing of theirs is touched.
    assert!(server.get("Service", "platform", "team-external").is_some());
    assert_eq!(server.get("Ingress", "wharf-nodes", "web"), before);
    server.remove("Ingress", "wharf-nodes", "web");
    converge(&server).await;
    assert!(has_ingress(&server, "team"));
    assert!(!exposed(&server, "team").contains("HostTaken"));
}

#[tokio::test]
async fn of_two_registries_with_one_host_the_first_has_it_and_then_the_second() {
    let server = cluster(&exposing());
    add_named_registry(&server, "zeta", &exposing());
    converge(&server).await;
    assert!(has_ingress(&server, "team") && !has_ingress(&server, "zeta"));
    let found = exposed(&server, "zeta");
    assert!(found.starts_with("False/HostTaken") && found.contains("Registry platform/team"), "{found}");
    server.set("Registry", "platform", "team", |registry| registry["spec"]["expose"] = Value::Null);
    converge(&server).await;
    assert!(!has_ingress(&server, "team") && has_ingress(&server, "zeta"));
    assert!(!exposed(&server, "zeta").contains("HostTaken"));
}

#[tokio::test]
async fn what_is_no_longer_exposed_goes_and_what_is_named_like_it_stays() {
    let server = cluster(&exposing());
    converge(&server).await;
    let ways = [("Ingress", "team-registry"), ("Service", "team-external"), ("Secret", "team-front-ca")];
    assert!(ways.iter().all(|(kind, name)| server.get(kind, "platform", name).is_some()));
    server.set("Registry", "platform", "team", |registry| registry["spec"]["expose"] = Value::Null);
    converge(&server).await;
    assert!(ways.iter().all(|(kind, name)| server.get(kind, "platform", name).is_none()));
    let registry = server.get("Registry", "platform", "team").unwrap();
    assert!(registry["status"]["conditions"].as_array().unwrap().iter().all(|found| found["type"] != "Exposed"));

    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "team-external", "namespace": "platform"},
        "spec": {"ports": [{"port": 80}]},
    });
    server.add(&service);
    let before = server.get("Service", "platform", "team-external");
    server.set("Registry", "platform", "team", |registry| registry["spec"] = exposing());
    converge(&server).await;
    // The cluster has no ingress class either; what stands in both ways is told.
    let found = exposed(&server, "team");
    assert!(found.contains("no default IngressClass") && found.contains("Service team-external exists"), "{found}");
    assert_eq!(server.get("Service", "platform", "team-external"), before);
}

fn by_gateway() -> Value {
    json!({"expose": {"gateway": {"host": HOST, "parentRefs": [{"name": "front", "namespace": "infra"}]}}})
}

const OF_GATEWAY: [&str; 2] = ["HTTPRoute", "BackendTLSPolicy"];

fn has_route(server: &Server, registry: &str) -> bool {
    let has = OF_GATEWAY.map(|kind| server.get(kind, "platform", &format!("{registry}-registry")).is_some());
    assert_eq!(has[0], has[1], "both or none");
    has[0]
}

#[tokio::test]
async fn a_host_is_one_registrys_whichever_way_in_it_is_for() {
    let server = cluster(&exposing());
    add_named_registry(&server, "zeta", &by_gateway());
    converge(&server).await;
    assert!(has_ingress(&server, "team") && !has_route(&server, "zeta"));
    let found = exposed(&server, "zeta");
    assert!(found.starts_with("False/HostTaken") && found.contains("Registry platform/team"), "{found}");
    server.set("Registry", "platform", "team", |registry| registry["spec"]["expose"] = Value::Null);
    converge(&server).await;
    assert!(has_route(&server, "zeta"));
    // The older one wants it back.
    server.set("Registry", "platform", "team", |registry| registry["spec"] = by_gateway());
    converge(&server).await;
    assert!(has_route(&server, "team") && !has_route(&server, "zeta"));
    // One Registry may lead in by both.
    server.set("Registry", "platform", "team", |registry| {
        registry["spec"]["expose"]["ingress"] = json!({"host": HOST});
    });
    converge(&server).await;
    assert!(has_route(&server, "team") && has_ingress(&server, "team"));
}

#[tokio::test]
async fn a_host_that_an_ingress_of_somebody_else_has_is_not_routed_either() {
    let server = cluster(&by_gateway());
    theirs(&server);
    converge(&server).await;
    let found = exposed(&server, "team");
    assert!(found.starts_with("False/HostTaken") && found.contains("Ingress wharf-nodes/web"), "{found}");
    assert!(!has_route(&server, "team"));
    server.remove("Ingress", "wharf-nodes", "web");
    converge(&server).await;
    assert!(has_route(&server, "team"));
    // Ours was there first.
    server.set_time("2031-01-01T00:00:00Z");
    theirs(&server);
    converge(&server).await;
    assert!(has_route(&server, "team"));
}

#[tokio::test]
async fn what_is_no_longer_routed_goes_and_what_is_named_like_it_stays() {
    for kind in OF_GATEWAY {
        let server = cluster(&by_gateway());
        converge(&server).await;
        assert!(has_route(&server, "team"));
        server.set("Registry", "platform", "team", |registry| registry["spec"]["expose"] = Value::Null);
        converge(&server).await;
        assert!(!has_route(&server, "team"));
        server.add(&json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind,
            "metadata": {"name": "team-registry", "namespace": "platform"}, "spec": {},
        }));
        let before = server.get(kind, "platform", "team-registry");
        server.set("Registry", "platform", "team", |registry| registry["spec"] = by_gateway());
        converge(&server).await;
        let found = exposed(&server, "team");
        assert!(found.starts_with(&format!("False/NameTaken \"{kind} team-registry exists")), "{found}");
        assert_eq!(server.get(kind, "platform", "team-registry"), before);
        let made = OF_GATEWAY.iter().filter(|kind| server.get(kind, "platform", "team-registry").is_some()).count();
        assert_eq!(made, 1, "without the policy a Gateway would speak plain HTTP, and without the route not at all");
    }
}
