//! How a Mirror goes: nodes first, and not for ever.

use std::time::Duration;

use serde_json::{Value, json};

use crate::apiserver::Server;
use crate::world::{Process, cluster, now, set_now};

const FINALIZER: &str = "wharf.dev/restore-nodes";

/// A cluster with a Mirror that the operator has looked at, and the process that did.
async fn with_mirror() -> (Server, Process) {
    let server = cluster(&json!({}));
    for name in ["wharf-system", "kube-node-lease"] {
        if server.get("Namespace", "", name).is_none() {
            server.add(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
        }
    }
    server.set_time(&now().to_string());
    let spec = json!({"upstreams": [{"host": "docker.io"}]});
    server.add(&json!({"apiVersion": "wharf.dev/v1alpha1", "kind": "Mirror", "metadata": {"name": "m"}, "spec": spec}));
    let process = Process::start(server.client());
    process.round().await;
    let mirror = mirror(&server).unwrap();
    assert_eq!(mirror["metadata"]["finalizers"], json!([FINALIZER]), "{mirror:#}");
    (server, process)
}

fn mirror(server: &Server) -> Option<Value> {
    server.get("Mirror", "", "m")
}

fn revision(server: &Server) -> i64 {
    let index = server.get("ConfigMap", "wharf-nodes", "wharf-node-plan").unwrap();
    let index: Value = serde_json::from_str(index["data"]["index.json"].as_str().unwrap()).unwrap();
    index["revision"].as_i64().unwrap()
}

/// What the agent of a node reports.
fn report(server: &Server, node: &str, revision: i64, mirrored: &[&str]) {
    let mirrors: Vec<Value> = mirrored.iter().map(|host| json!({"host": host, "reachable": true})).collect();
    server.set("NodeRuntime", "", node, |object| {
        object["status"] = json!({"planRevision": revision, "mirrors": mirrors, "conditions": []});
    });
}

/// The kubelet of a node renewed its lease so many seconds ago.
fn lease(server: &Server, node: &str, seconds: u64) {
    let renewed = now() - Duration::from_secs(seconds);
    server.add(&json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": node, "namespace": "kube-node-lease"},
        "spec": {"holderIdentity": node, "renewTime": format!("{renewed:.6}")},
    }));
}

fn notes(server: &Server) -> Vec<String> {
    let requests = server.requests().into_iter().filter(|request| request.body["reason"] == "NodesNotConfirmed");
    requests.map(|request| request.body["note"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_mirror_goes_when_every_node_that_answers_has_confirmed() {
    let (server, process) = with_mirror().await;
    for node in ["a", "b"] {
        lease(&server, node, 5);
        report(&server, node, revision(&server), &["docker.io"]);
    }
    server.remove("Mirror", "", "m");
    // The Registry counts its nodes.
    process.round().await;
    process.round().await;
    let writes = server.writes();
    process.round().await;
    assert!(mirror(&server).is_some(), "it went before any node confirmed");
    assert_eq!(server.writes(), writes, "to wait is to write nothing");
    report(&server, "a", revision(&server), &[]);
    process.round().await;
    assert!(mirror(&server).is_some(), "it went before all nodes confirmed");
    report(&server, "b", revision(&server), &[]);
    process.round().await;
    assert!(mirror(&server).is_none(), "{:#?}", mirror(&server));
    assert_eq!(notes(&server), [""; 0]);
}

#[tokio::test]
async fn a_node_that_still_has_an_older_plan_is_waited_for() {
    let (server, process) = with_mirror().await;
    lease(&server, "a", 5);
    report(&server, "a", revision(&server) - 1, &[]);
    server.remove("Mirror", "", "m");
    process.round().await;
    assert!(mirror(&server).is_some());
    report(&server, "a", revision(&server), &[]);
    process.round().await;
    assert!(mirror(&server).is_none());
}

#[tokio::test]
async fn a_node_whose_kubelet_is_silent_is_not_waited_for_and_named() {
    let (server, process) = with_mirror().await;
    lease(&server, "a", 5);
    lease(&server, "b", 41);
    report(&server, "a", revision(&server), &["docker.io"]);
    report(&server, "b", revision(&server), &["docker.io"]);
    server.remove("Mirror", "", "m");
    process.round().await;
    assert!(mirror(&server).is_some());
    report(&server, "a", revision(&server), &[]);
    process.round().await;
    assert!(mirror(&server).is_none());
    let notes = notes(&server);
    assert!(notes.len() == 1 && notes[0].contains("pull through it: b."), "{notes:?}");
}

#[tokio::test]
async fn after_a_minute_a_mirror_goes_whatever_nodes_say() {
    let (server, process) = with_mirror().await;
    report(&server, "a", revision(&server), &["docker.io"]);
    server.remove("Mirror", "", "m");
    // Who answers cannot be known.
    server.on_request(|request| {
        let refused = || crate::apiserver::Fault::Status { code: 500, reason: "InternalError", retry_after: None };
        (request.resource == "leases.coordination.k8s.io").then(refused)
    });
    process.round().await;
    assert!(mirror(&server).is_some());
    set_now(now() + Duration::from_secs(59));
    process.round().await;
    assert!(mirror(&server).is_some());
    set_now(now() + Duration::from_secs(1));
    process.round().await;
    assert!(mirror(&server).is_none());
    assert!(notes(&server)[0].contains("pull through it: a."));
}

#[tokio::test]
async fn the_finalizers_of_others_stay() {
    let (server, process) = with_mirror().await;
    server.set("Mirror", "", "m", |mirror| {
        mirror["metadata"]["finalizers"] = json!(["example.com/theirs", FINALIZER]);
    });
    server.remove("Mirror", "", "m");
    process.round().await;
    assert_eq!(mirror(&server).unwrap()["metadata"]["finalizers"], json!(["example.com/theirs"]));
    process.round().await;
    let writes = server.writes();
    process.round().await;
    assert_eq!(server.writes(), writes);
}

#[tokio::test]
async fn a_mirror_that_cannot_be_read_goes_too() {
    let (server, process) = with_mirror().await;
    server.set("Mirror", "", "m", |mirror| mirror["spec"] = json!({"upstreams": "none"}));
    server.remove("Mirror", "", "m");
    process.round().await;
    // This server takes no change of such an object; Kubernetes does.
    let is_attempt = |request: &crate::apiserver::RecordedRequest| {
        let lets_go = json!({"op": "remove", "path": "/metadata/finalizers"});
        request.verb == "patch" && request.resource == "mirrors.wharf.dev" && request.body[1] == lets_go
    };
    assert!(server.requests().iter().any(is_attempt), "{:#?}", server.mutations());
}

#[tokio::test]
async fn a_namesake_that_was_made_meanwhile_keeps_its_finalizer() {
    let (server, process) = with_mirror().await;
    server.remove("Mirror", "", "m");
    let rival = server.clone();
    server.on_request(move |request| {
        if request.verb == "get" && request.resource == "mirrors.wharf.dev" {
            rival.heal();
            rival.set("Mirror", "", "m", |mirror| mirror["metadata"]["finalizers"] = json!([]));
            let spec = json!({"upstreams": [{"host": "quay.io"}]});
            let metadata = json!({"name": "m", "finalizers": [FINALIZER]});
            rival.add(
                &json!({"apiVersion": "wharf.dev/v1alpha1", "kind": "Mirror", "metadata": metadata, "spec": spec}),
            );
        }
        None
    });
    process.round().await;
    let namesake = mirror(&server).unwrap();
    assert_eq!(namesake["spec"]["upstreams"][0]["host"], "quay.io");
    assert_eq!(namesake["metadata"]["finalizers"], json!([FINALIZER]));
}
