use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use serde_json::{Value, json};

use super::*;
use crate::api::NodeRuntimeStatus;
use crate::api::mirror::UpstreamState;
use crate::mirror_report::MirrorReport;
use crate::operator::call::{Action, Cause, Target};
use crate::operator::found::Found;
use crate::operator::mirror::fixture;
use crate::operator::mirror::reports::PodReport;

const SPEC: &str = "{upstreams: [{host: docker.io}, {host: ghcr.io}], cache: {pin: ['ghcr.io/a/b:1']}, replicas: 2}";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn running(available: i32) -> Found<StatefulSet> {
    let object = json!({
        "metadata": {"generation": 2},
        "spec": {"replicas": 2, "selector": {}, "template": {}},
        "status": {"observedGeneration": 2, "availableReplicas": available, "replicas": 2},
    });
    Found::Ours(serde_json::from_value(object).unwrap())
}

/// A cluster in which all is well, but for what nobody tells.
fn well(mirror: &Mirror) -> Observed {
    let mut observed = fixture::nothing(mirror);
    observed.stateful_set = running(2);
    observed.planned = observed.hosts.granted.iter().cloned().collect();
    observed.nodes = vec![("a".into(), node(&["docker.io", "ghcr.io"], true))];
    observed
}

fn node(written: &[&str], reachable: bool) -> NodeRuntimeStatus {
    let entries: Vec<Value> = written
        .iter()
        .map(|host| json!({"host": host, "written": "2026-01-01T00:00:00Z", "reachable": reachable, "used": false}))
        .collect();
    serde_json::from_value(json!({"planRevision": 7, "mirrors": entries})).unwrap()
}

fn report(pod: &str, report: &Value) -> PodReport {
    let mut whole = json!({
        "upstreams": [],
        "cache": {"bytes": 0, "size": 1u64 << 30, "inUseExceeds": false, "pinsExceed": false},
    });
    json_patch::merge(&mut whole, report);
    PodReport { pod: pod.into(), report: Ok(serde_json::from_value::<MirrorReport>(whole).unwrap()) }
}

fn upstream(host: &str, state: &str, problem: Option<&str>) -> Value {
    json!({"host": host, "state": state, "servingStale": state == "Failing", "problem": problem})
}

fn status(mirror: &Mirror, observed: &Observed, problems: &[Problem], now: i64) -> MirrorStatus {
    next(&Outcome { mirror, observed, problems, failures: &[] }, at(now))
}

fn said(status: &MirrorStatus, kind: &str) -> (String, String) {
    let found = condition::find(&status.conditions, kind).unwrap_or_else(|| panic!("no {kind}"));
    (format!("{}/{}", found.status, found.reason), found.message.clone())
}

#[test]
fn registries_in_trouble_are_told_and_leave_the_mirror_ready() {
    let mirror = fixture::default(SPEC);
    for (first, second, expected, message) in [
        (("Ok", None), ("Ok", None), "True/Reachable", "Every registry answered"),
        (
            ("RateLimited", Some("429")),
            ("Ok", None),
            "False/RateLimited",
            "docker.io refuses further requests for a while (429)",
        ),
        (
            ("Failing", Some("no answer.")),
            ("Ok", None),
            "False/Failing",
            "docker.io does not answer as it should (no answer);",
        ),
        (("CredentialsRejected", None), ("Ok", None), "False/CredentialsRejected", "public images go on"),
        (("RateLimited", None), ("Failing", None), "False/Failing", "docker.io does not answer as it should"),
    ] {
        let mut observed = well(&mirror);
        // One pod has no trouble: what another one has is told.
        observed.reports = Some(vec![
            report(
                "mirror-default-0",
                &json!({"upstreams": [upstream("docker.io", first.0, first.1), upstream("ghcr.io", "Ok", None)]}),
            ),
            report(
                "mirror-default-1",
                &json!({"upstreams": [upstream("docker.io", second.0, second.1), upstream("ghcr.io", "Ok", None)]}),
            ),
        ]);
        let status = status(&mirror, &observed, &[], 0);
        assert_eq!(said(&status, "Ready").0, "True/Ready", "{first:?}");
        let (found, text) = said(&status, "UpstreamsReachable");
        assert_eq!(found, expected, "{first:?} {second:?}: {text}");
        assert!(text.contains(message), "{text}");
        assert_eq!(status.upstreams.len(), 2);
        assert_eq!(status.upstreams[1].state, UpstreamState::Ok);
    }
}

#[test]
fn a_registry_keeps_its_state_since_it_changed_and_while_nobody_tells() {
    let mut mirror = fixture::default(SPEC);
    let mut observed = well(&mirror);
    let with = |state: &str| Some(vec![report("a", &json!({"upstreams": [upstream("docker.io", state, None)]}))]);
    let mut since = Vec::new();
    for (second, reports) in [(0, with("Failing")), (10, with("Failing")), (20, None), (30, with("Ok"))] {
        observed.reports = reports;
        let next = status(&mirror, &observed, &[], second);
        since.push((next.upstreams[0].since.clone().unwrap().0, said(&next, "UpstreamsReachable").0));
        mirror.status = Some(next);
    }
    let failing = || (at(0), "False/Failing".to_owned());
    assert_eq!(since, [failing(), failing(), failing(), (at(30), "True/Reachable".to_owned())]);
    // A pod that cannot be asked is no pod that tells of no trouble.
    observed.reports = Some(vec![PodReport { pod: "a".into(), report: Err("connection refused".into()) }]);
    let fresh = fixture::default(SPEC);
    let (found, message) = said(&status(&fresh, &observed, &[], 40), "UpstreamsReachable");
    assert_eq!(
        (found.as_str(), message.as_str()),
        ("Unknown/NotReported", "Pod a does not tell how it is: connection refused")
    );
}

#[test]
fn a_cache_in_trouble_is_told_and_leaves_the_mirror_ready() {
    let mirror = fixture::default(SPEC);
    for (cache, expected, message) in [
        (json!({}), "True/Caching", "What is fetched is kept"),
        (json!({"problem": "no space left"}), "False/CacheFailing", "no space left. Pulls go on"),
        (json!({"pinsExceed": true}), "False/CacheTooSmall", "or pin fewer"),
        (json!({"inUseExceeds": true}), "False/CacheTooSmall", "images that pods run"),
        (json!({"tooLarge": 3u64 << 30}), "False/BlobTooLarge", "A layer of 3Gi is larger than the cache"),
    ] {
        let mut observed = well(&mirror);
        observed.reports = Some(vec![report("a", &json!({ "cache": cache })), report("b", &json!({}))]);
        let status = status(&mirror, &observed, &[], 0);
        let (found, text) = said(&status, "CacheHealthy");
        assert_eq!(found, expected, "{text}");
        assert!(text.contains(message), "{text}");
        assert_eq!(said(&status, "Ready").0, "True/Ready");
    }
}

#[test]
fn what_pods_told_stays_while_none_tells() {
    let mut mirror = fixture::default(SPEC);
    let mut observed = well(&mirror);
    let pins = json!([{"image": "ghcr.io/a/b:1", "complete": false, "problem": "404 Not Found"}]);
    observed.reports =
        Some(vec![report("a", &json!({"cache": {"bytes": 3u64 << 30, "size": 45u64 << 30}, "pins": pins}))]);
    let first = status(&mirror, &observed, &[], 0);
    assert_eq!(first.cache.as_ref().unwrap().summary, "3Gi/45Gi");
    assert_eq!(first.pins[0].message, "404 Not Found");
    mirror.status = Some(first.clone());
    for reports in [None, Some(vec![PodReport { pod: "a".into(), report: Err("refused".into()) }])] {
        observed.reports = reports;
        assert_eq!(status(&mirror, &observed, &[], 20), first);
    }
}

#[test]
fn nodes_count_when_they_reach_every_host() {
    let both = ["docker.io", "ghcr.io"];
    let granted = both.map(str::to_owned);
    let planned: BTreeSet<String> = granted.clone().into();
    let with = |change: Value| -> NodeRuntimeStatus {
        let mut status = json!(node(&both[..1], true));
        json_patch::merge(&mut status, &change);
        serde_json::from_value(status).unwrap()
    };
    let exception = json!([{"host": "ghcr.io", "reason": "Conflict", "message": "a file stands there"}]);
    let not_ready = json!([{"type": "Ready", "status": "False", "reason": "PortInUse", "message": "another process",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let used = json!([{"host": "docker.io", "written": "2026-01-01T00:00:00Z", "reachable": true, "used": true},
        {"host": "ghcr.io", "written": "2026-01-01T00:00:00Z", "reachable": true, "used": false}]);
    for (nodes, bypassed, counts, expected, message) in [
        (vec![], vec![], (0, 0, 0), "Unknown/NoAgents", "spec.nodes.selector"),
        (vec![NodeRuntimeStatus::default()], vec![], (0, 0, 0), "Unknown/NoAgents", "spec.nodes.selector"),
        (vec![node(&both, true), NodeRuntimeStatus::default()], vec![], (1, 1, 0), "True/AllNodes", "1 of 1 nodes"),
        (vec![with(json!({"mirrors": used}))], vec![], (1, 1, 1), "True/AllNodes", "1 of 1 nodes"),
        (
            vec![node(&both[..1], true)],
            vec![],
            (0, 1, 0),
            "False/SomeNodes",
            "0 of 1 nodes pull through it; not yet: n0",
        ),
        (
            vec![node(&both, false)],
            vec![],
            (0, 1, 0),
            "False/SomeNodes",
            "n0 (does not reach the mirror for docker.io)",
        ),
        (
            vec![with(json!({"exceptions": exception}))],
            vec![],
            (0, 1, 0),
            "False/SomeNodes",
            "n0 (Conflict: a file stands there)",
        ),
        (
            vec![with(json!({"conditions": not_ready}))],
            vec![],
            (0, 1, 0),
            "False/SomeNodes",
            "n0 (PortInUse: another process)",
        ),
        (vec![node(&both, true)], vec!["n0".to_owned()], (1, 1, 0), "False/Bypassed", "pods started on n0"),
    ] {
        let nodes: Vec<(String, NodeRuntimeStatus)> =
            nodes.into_iter().enumerate().map(|(index, status)| (format!("n{index}"), status)).collect();
        let reach = Reach { granted: &granted, planned: &planned, nodes: &nodes, bypassed: Some(&bypassed) };
        let (found, finding) = nodes::nodes(&reach, &MirrorStatus::default());
        assert_eq!((found.able, found.total, found.used), counts, "{message}");
        assert_eq!(found.summary, format!("{}/{}", counts.0, counts.1));
        assert_eq!(format!("{}/{}", finding.status.as_str(), finding.reason), expected);
        assert!(finding.message.contains(message), "{}", finding.message);
    }
    let nodes = [("n0".to_owned(), node(&both, true))];
    let untold = Reach { granted: &granted, planned: &BTreeSet::new(), nodes: &nodes, bypassed: Some(&[]) };
    assert_eq!(nodes::nodes(&untold, &MirrorStatus::default()).1.reason, reason::PROGRESSING);
    let none = Reach { granted: &[], planned: &planned, nodes: &nodes, bypassed: Some(&[]) };
    assert_eq!(
        (nodes::nodes(&none, &MirrorStatus::default()).0.able, nodes::nodes(&none, &MirrorStatus::default()).1.reason),
        (0, reason::HOST_TAKEN)
    );
}

#[test]
fn what_users_have_to_mend_makes_a_mirror_not_ready() {
    let mirror = fixture::default(SPEC);
    let observed = well(&mirror);
    for (condition, reason, ready) in [
        (condition::HOSTS_READY, reason::HOST_TAKEN, "False/HostTaken"),
        (condition::UPSTREAMS_REACHABLE, reason::LOOP, "False/Loop"),
        (condition::UPSTREAMS_REACHABLE, reason::CREDENTIALS_MISSING, "False/CredentialsMissing"),
        (condition::CACHE_HEALTHY, reason::EXPANSION_UNSUPPORTED, "False/ExpansionUnsupported"),
        (condition::AVAILABLE, reason::NAME_TAKEN, "False/NameTaken"),
    ] {
        let problem = |message: &str| Problem { condition, reason, message: message.into() };
        let status = status(&mirror, &observed, &[problem("first"), problem("second")], 0);
        assert_eq!(said(&status, "Ready"), (ready.to_owned(), "first. second".to_owned()));
        assert_eq!(said(&status, "Stalled").0, format!("True/{reason}"));
        assert_eq!(said(&status, condition).0, format!("False/{reason}"));
    }
}

#[test]
fn a_mirror_is_available_with_one_pod_of_several() {
    let mirror = fixture::default(SPEC);
    let mut observed = well(&mirror);
    assert_eq!(said(&status(&mirror, &observed, &[], 0), "Available").1, "2 of 2 pods of the mirror answer");
    observed.stateful_set = running(1);
    assert_eq!(said(&status(&mirror, &observed, &[], 0), "Ready").0, "True/Ready");
    observed.stateful_set = running(0);
    let none = status(&mirror, &observed, &[], 0);
    assert_eq!(said(&none, "Available"), ("False/PodStarting".into(), "The mirror's pod is starting".into()));
    assert_eq!(said(&none, "Reconciling").0, "True/PodStarting");
    observed.stateful_set = Found::Absent;
    assert_eq!(said(&status(&mirror, &observed, &[], 0), "Available").0, "False/Progressing");
}

#[test]
fn a_request_that_failed_is_no_mirror_in_order() {
    let mirror = fixture::default(SPEC);
    let observed = well(&mirror);
    for (kind, condition) in [("StatefulSet", "Available"), ("PersistentVolumeClaim", "CacheHealthy")] {
        let target = Target::new(kind, "wharf-system", "x");
        let failures = [CallError { action: Action::Apply, target, cause: Cause::Timeout }];
        let status = next(&Outcome { mirror: &mirror, observed: &observed, problems: &[], failures: &failures }, at(0));
        assert_eq!(said(&status, condition).0, "False/Retrying");
        assert_eq!(said(&status, "Ready").0, "False/Retrying");
    }
}
