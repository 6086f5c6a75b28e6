//! C1: the operator's process ends before or after each of its writes; another one starts with no memory of it.

use serde_json::{Value, json};

use crate::apiserver::{Fault, RecordedRequest, Server};
use crate::world::{cluster, moments, run_until_quiet, state};

/// The writes of a process, in the order in which they reached the server.
fn mutations(server: &Server) -> Vec<RecordedRequest> {
    server.mutations()
}

/// What a request does, with names made from content left out.
fn brief(request: &RecordedRequest) -> String {
    format!("{} {}{} {}/{}", request.verb, request.resource, request.subresource, request.namespace, request.name)
}

async fn undisturbed(spec: &Value) -> Server {
    let server = cluster(spec);
    run_until_quiet(&server, &server.connect()).await;
    server
}

/// A run whose `ordinal`-th write is the process's last, and a second process after it.
async fn disturbed(spec: &Value, ordinal: usize, fault: Fault) -> Server {
    let server = cluster(spec);
    let seen = std::sync::atomic::AtomicUsize::new(0);
    server.on_request(move |request| {
        let hit = request.is_mutation() && seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == ordinal;
        hit.then(|| fault.clone())
    });
    run_until_quiet(&server, &server.connect()).await;
    server.heal();
    run_until_quiet(&server, &server.connect()).await;
    server
}

async fn check(spec: Value) {
    let clean = undisturbed(&spec).await;
    let expected = state(&clean);
    assert_eq!(
        expected["Registry platform/team"]["status"]["conditions"][0]["status"], "True",
        "the undisturbed run does not end ready: {:#}",
        expected["Registry platform/team"]
    );
    let writes = mutations(&clean).len();
    assert!(writes > 10, "only {writes} writes");
    let faults = [Fault::CrashBefore, Fault::CrashAfter, Fault::ApplyThenLose, Fault::Reset];
    let all: Vec<_> =
        (0..writes).flat_map(|ordinal| faults.clone().into_iter().map(move |fault| (ordinal, fault))).collect();
    let mut runs = 0;
    // Five and four have no divisor in common, so that each fault is tried.
    for moment in moments(all.len(), 5) {
        let (ordinal, fault) = all[moment].clone();
        runs += 1;
        let what = format!("{fault:?} at write {ordinal} ({})", brief(&mutations(&clean)[ordinal]));
        let server = disturbed(&spec, ordinal, fault).await;
        let found = state(&server);
        for (name, object) in &expected {
            assert_eq!(found.get(name), Some(object), "{what}: {name}");
        }
        assert_eq!(found.len(), expected.len(), "{what}: {:?}", found.keys());
        let deleted: Vec<String> = server
            .requests()
            .iter()
            .filter(|request| request.verb == "delete" && !request.name.starts_with("wharf-node-plan-"))
            .map(brief)
            .collect();
        assert!(deleted.is_empty(), "{what}: deleted {deleted:?}");
    }
    println!("{writes} writes, {runs} disturbed runs");
}

#[tokio::test]
async fn c1_the_shortest_registry() {
    check(json!({})).await;
}

#[tokio::test]
async fn c1_with_the_delete_policy() {
    check(json!({"storage": {"deletionPolicy": "Delete"}, "pullSecrets": {"serviceAccounts": ["default"]}})).await;
}

#[tokio::test]
async fn c1_with_every_way_in() {
    let parents = json!([{"name": "front", "namespace": "infra", "sectionName": "https"}]);
    check(json!({"expose": {
        "ingress": {"host": "images.example.com"},
        "gateway": {"host": "images.example.com", "parentRefs": parents},
        "service": {"type": "NodePort"},
    }}))
    .await;
}

#[tokio::test]
async fn c1_with_further_names_and_certificates_for_namespaces() {
    check(json!({"hosts": ["images.example.com"], "caBundle": {"namespaceSelector": {}}})).await;
}
