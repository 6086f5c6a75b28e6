//! The pods of Mirrors are asked how they do, and their Mirror tells it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use wharf::operator::mirror::reports::{ask_once, run};

use crate::apiserver::Server;
use crate::mirrors::add_mirror;
use crate::world::{Process, cluster};

/// A pod's operations endpoint, on this machine: its port, and what it says.
async fn endpoint() -> (i32, Arc<Mutex<String>>) {
    let said = Arc::new(Mutex::new(String::new()));
    let answer = said.clone();
    let router = Router::new().route("/mirrors", get(async move || answer.lock().unwrap().clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(axum::serve(listener, router).into_future());
    (port.into(), said)
}

fn add_pod(server: &Server, name: &str, mirror: &str, status: &Value) {
    let labels = json!({"app.kubernetes.io/name": "mirror", "app.kubernetes.io/instance": mirror});
    server.add(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "wharf-system", "labels": labels},
        "spec": {"containers": [{"name": "mirror", "image": "wharf"}]}, "status": status,
    }));
}

fn report(state: &str, bytes: u64) -> String {
    let upstreams = json!([{"host": "docker.io", "state": state, "servingStale": false, "problem": null}]);
    let cache = json!({"bytes": bytes, "size": 45_u64 << 30, "inUseExceeds": false, "pinsExceed": false});
    let pins = json!([{"image": "docker.io/library/a:1", "complete": false, "problem": "no such tag"}]);
    json!({"upstreams": upstreams, "cache": cache, "pins": pins}).to_string()
}

#[tokio::test]
async fn what_pods_tell_is_in_the_status_and_at_rest_nothing_is_written() {
    let server = cluster(&json!({}));
    let process = Process::start(server.client());
    let pin = json!({"pin": ["docker.io/library/a:1"]});
    add_mirror(&server, "m", &json!({"upstreams": [{"host": "docker.io"}], "cache": pin}));
    process.until_quiet(&server).await;
    let (port, said) = endpoint().await;
    add_pod(&server, "mirror-m-0", "m", &json!({"phase": "Running", "podIP": "127.0.0.1"}));
    add_pod(&server, "mirror-other-0", "other", &json!({"phase": "Running", "podIP": "127.0.0.1"}));
    let ask = async || {
        let keys = ask_once(&process.fresh_context().await, port).await;
        keys.into_iter().map(|key| key.name).collect::<Vec<_>>()
    };
    *said.lock().unwrap() = report("Failing", 12 << 30);
    assert_eq!(ask().await, ["m"]);
    process.until_quiet(&server).await;
    let status = server.get("Mirror", "", "m").unwrap()["status"].clone();
    assert_eq!(status["upstreams"][0]["state"], "Failing", "{status:#}");
    assert_eq!(status["cache"]["summary"], "12Gi/45Gi");
    assert_eq!(status["pins"], json!([{"image": "docker.io/library/a:1", "message": "no such tag"}]));
    // At rest: the same, or nearly.
    let writes = server.writes();
    *said.lock().unwrap() = report("Failing", (12 << 30) + 1_000_000);
    assert_eq!(ask().await, [""; 0]);
    process.until_quiet(&server).await;
    assert_eq!(server.writes(), writes);
    // An answer that makes no sense is no answer, and a pod that misses one is taken at its last word.
    *said.lock().unwrap() = "<html>".to_owned();
    assert_eq!(ask().await, [""; 0]);
    *said.lock().unwrap() = report("Ok", 12 << 30);
    assert_eq!(ask().await, ["m"]);
    process.until_quiet(&server).await;
    assert_eq!(server.get("Mirror", "", "m").unwrap()["status"]["upstreams"][0]["state"], "Ok");
}

#[tokio::test]
async fn pods_that_do_not_run_are_not_asked_and_a_cluster_that_cannot_be_asked_changes_nothing() {
    let server = cluster(&json!({}));
    let process = Process::start(server.client());
    add_mirror(&server, "m", &json!({"upstreams": [{"host": "docker.io"}]}));
    process.until_quiet(&server).await;
    add_pod(&server, "mirror-m-0", "m", &json!({"phase": "Pending"}));
    let (port, _) = endpoint().await;
    assert_eq!(ask_once(&process.fresh_context().await, port).await.len(), 1);
    let uid = server.get("Mirror", "", "m").unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    let known = process.mirror_reports.of(&uid).unwrap();
    assert_eq!(known.len(), 1);
    assert_eq!(known[0].report, Err("it does not run".to_owned()));
    let context = process.fresh_context().await;
    server.on_request(|request| {
        let fault = || crate::apiserver::Fault::Status { code: 500, reason: "InternalError", retry_after: None };
        (request.resource == "pods").then(fault)
    });
    assert_eq!(ask_once(&context, port).await, []);
    assert_eq!(process.mirror_reports.of(&uid), Some(known));
}

#[tokio::test(start_paused = true)]
async fn pods_are_asked_every_half_minute_and_those_of_new_mirrors_sooner() {
    let server = cluster(&json!({}));
    let process = Process::start(server.client());
    let lists = async |seconds| {
        let context = process.fresh_context().await;
        let count = || server.requests().iter().filter(|request| request.resource == "pods").count();
        let before = count();
        let _ = tokio::time::timeout(Duration::from_secs(seconds), run(&context, |_| {})).await;
        count() - before
    };
    assert_eq!(lists(300).await, 0, "without a Mirror there is nobody to ask");
    add_mirror(&server, "m", &json!({"upstreams": [{"host": "docker.io"}]}));
    process.round().await;
    let seldom = lists(300).await;
    assert!((8..=13).contains(&seldom), "{seldom}");
    // A pod answers, as Kubernetes sees it, and has not told anything yet.
    process.until_quiet(&server).await;
    let often = lists(300).await;
    assert!((48..=76).contains(&often), "{often}");
}
