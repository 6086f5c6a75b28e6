//! C4: each request of a pass, one at a time, is refused, never answered, cut off, or carried out without an answer. The
//! pass ends, says that it failed, and the rounds after it end where an undisturbed run ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::apiserver::{Fault, RecordedRequest, Server};
use crate::world::{Process, cluster, is_long, moments, run_until_quiet, state};

/// A round in which one request is never answered: its time limit, and room for the others.
const LONGEST_ROUND: Duration = Duration::from_secs(15);

/// What can go wrong with a request. A read that fails is a read that fails, so the short version tries two ways.
fn faults(request: &RecordedRequest) -> Vec<Fault> {
    let status = |code, reason, retry_after| Fault::Status { code, reason, retry_after };
    let mut faults = vec![status(500, "InternalError", None), Fault::Hang];
    if is_long() || request.is_mutation() {
        faults.extend([status(429, "TooManyRequests", Some(1)), status(503, "ServiceUnavailable", None), Fault::Reset]);
    }
    if request.is_mutation() {
        faults.extend([status(409, "Conflict", None), status(422, "Invalid", None), Fault::ApplyThenLose]);
    }
    faults
}

/// The lists by which the harness fills the caches stand for watches, whose faults are another suite's.
fn fills_a_cache(request: &RecordedRequest) -> bool {
    request.verb == "list" && request.namespace.is_empty() && !request.resource.starts_with("csidrivers")
}

/// Whether nobody has to hear of a failure: an event is only news; a deletion that comes too late is due to a change, which
/// is what the next pass begins with; an apply that is invalid is followed by a patch that sets the object right.
fn may_fail_in_silence(request: &RecordedRequest, fault: &Fault) -> bool {
    match (request.verb, fault) {
        _ if request.resource.starts_with("events") => true,
        ("delete", Fault::Status { code: 409, .. }) => true,
        ("patch", Fault::Status { code: 422, .. }) => request.subresource.is_empty() && request.body.is_object(),
        _ => false,
    }
}

async fn check(before: &Server) {
    let clean = before.snapshot();
    run_until_quiet(&clean, &clean.connect()).await;
    let expected = state(&clean);
    let requests: Vec<RecordedRequest> =
        clean.requests().into_iter().filter(|request| !fills_a_cache(request)).collect();
    let all = requests.iter().enumerate();
    let all: Vec<_> = all.flat_map(|at| faults(at.1).into_iter().map(move |fault| (at, fault))).collect();
    let mut runs = 0;
    for moment in moments(all.len(), 3) {
        let ((ordinal, request), fault) = &all[moment];
        let what = format!(
            "{fault:?} at request {ordinal} ({} {}{} {}/{})",
            request.verb, request.resource, request.subresource, request.namespace, request.name
        );
        disturb(before.snapshot(), *ordinal, fault, &expected, &what).await;
        runs += 1;
    }
    println!("{} requests, {runs} disturbed runs", requests.len());
}

async fn disturb(
    server: Server,
    ordinal: usize,
    fault: &Fault,
    expected: &std::collections::BTreeMap<String, Value>,
    what: &str,
) {
    let (seen, hit, silent) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (injected, struck, quietly) = (fault.clone(), hit.clone(), silent.clone());
    server.on_request(move |request| {
        if fills_a_cache(request) || seen.fetch_add(1, Ordering::SeqCst) != ordinal {
            return None;
        }
        struck.store(true, Ordering::SeqCst);
        quietly.store(may_fail_in_silence(request, &injected), Ordering::SeqCst);
        Some(injected.clone())
    });
    let process = Process::start(server.client());
    for _round in 0..40 {
        let began = Instant::now();
        let failures = process.round().await;
        assert!(began.elapsed() < LONGEST_ROUND, "{what}: the round took {:?}", began.elapsed());
        if hit.load(Ordering::SeqCst) {
            assert!(!failures.is_empty() || silent.load(Ordering::SeqCst), "{what}: no pass says that it failed");
            break;
        }
        crate::world::everybody_else(&server);
    }
    assert!(hit.load(Ordering::SeqCst), "{what}: the request was not made again");
    process.until_quiet(&server).await;
    let found = state(&server);
    for (name, object) in expected {
        assert_eq!(found.get(name), Some(object), "{what}: {name}");
    }
    assert_eq!(found.len(), expected.len(), "{what}: {:?}", found.keys());
}

#[tokio::test(start_paused = true)]
async fn c4_of_a_new_registry() {
    check(&cluster(&json!({"storage": {"deletionPolicy": "Delete"}}))).await;
}

#[tokio::test(start_paused = true)]
async fn c4_of_a_new_way_in() {
    let server = cluster(&json!({}));
    run_until_quiet(&server, &server.connect()).await;
    server.set("Registry", "platform", "team", |registry| {
        registry["spec"]["expose"] =
            json!({"gateway": {"host": "images.example.com", "parentRefs": [{"name": "front"}]}});
    });
    check(&server).await;
}

/// A run with every kind of write that is no first apply: children that nobody wants any more, a pull secret to take off, a
/// finalizer to take off, a volume to grow, a child to put right, a node that is new.
#[tokio::test(start_paused = true)]
async fn c4_of_a_change() {
    let exposed = json!({"gateway": {"host": "images.example.com", "parentRefs": [{"name": "front"}]}});
    let server = cluster(&json!({"storage": {"deletionPolicy": "Delete"}, "expose": exposed}));
    run_until_quiet(&server, &server.connect()).await;
    let registry = server.set("Registry", "platform", "team", |registry| {
        registry["spec"] = json!({
            "pullSecrets": {"serviceAccounts": []},
            "storage": {"deletionPolicy": "Retain", "claim": {"size": "30Gi"}},
        });
        registry["metadata"]["generation"] = json!(2);
    });
    server.add(&json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "team-of-an-older-version",
            "namespace": "platform",
            "labels": {"app.kubernetes.io/managed-by": "wharf", "app.kubernetes.io/instance": "team"},
            "ownerReferences": [{"apiVersion": "wharf.dev/v1alpha1", "kind": "Registry", "name": "team", "uid": registry["metadata"]["uid"]}],
        },
    }));
    server.set("Service", "platform", "team", |service| service["spec"]["ports"][0]["port"] = json!(444));
    server.add(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "c", "labels": {"kubernetes.io/os": "linux"}}}));
    check(&server).await;
    let clean = server.snapshot();
    run_until_quiet(&clean, &clean.connect()).await;
    assert!(clean.get("ConfigMap", "platform", "team-of-an-older-version").is_none());
    assert!(server.get("HTTPRoute", "platform", "team-registry").is_some());
    assert!(clean.get("HTTPRoute", "platform", "team-registry").is_none());
}

#[tokio::test(start_paused = true)]
async fn c4_of_a_deletion_with_its_images() {
    let server = cluster(&json!({"storage": {"deletionPolicy": "Delete"}}));
    run_until_quiet(&server, &server.connect()).await;
    server.remove("Registry", "platform", "team");
    check(&server).await;
    let clean = server.snapshot();
    run_until_quiet(&clean, &clean.connect()).await;
    assert!(clean.get("PersistentVolumeClaim", "platform", "team-registry").is_none());
}
