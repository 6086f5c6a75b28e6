use serde_json::json;

use super::*;
use crate::agent::fake::Api as Fake;
use crate::api::condition::find;
use crate::api::node_runtime::HostException;

fn path() -> ConfigPath {
    ConfigPath::parse("/etc/containerd/certs.d").unwrap()
}

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn outcome(exceptions: usize) -> Outcome {
    let exceptions = (0..exceptions).map(|number| HostException {
        host: format!("host-{number:02}"),
        reason: reason::CONFLICT.into(),
        message: "it stands there".into(),
    });
    Outcome { written: 3, exceptions: exceptions.collect(), retry: false }
}

fn ready(status: &NodeRuntimeStatus) -> (&str, &str, &str) {
    let condition = find(&status.conditions, READY).unwrap();
    (&condition.status, &condition.reason, &condition.message)
}

#[test]
fn a_node_in_order() {
    let status = next(
        &NodeRuntimeStatus::default(),
        "containerd://2.3.4",
        State::CarriedOut(&path(), 7, &outcome(0)),
        Some(1),
        time(1),
    );
    assert_eq!(ready(&status), ("True", reason::CONFIGURED, "3 hosts stand as planned"));
    assert_eq!(status.plan_revision, Some(7));
    assert_eq!(status.runtime.as_deref(), Some("containerd://2.3.4"));
    assert_eq!(status.config_path.as_deref(), Some("/etc/containerd/certs.d"));
    assert_eq!(status.counts, Some(HostCounts { written: 3, exceptions: 0 }));
    assert!(status.exceptions.is_empty());
}

#[test]
fn exceptions_are_counted_and_the_first_twenty_listed() {
    let old = NodeRuntimeStatus { plan_revision: Some(5), ..NodeRuntimeStatus::default() };
    let of = |exceptions| next(&old, "r", State::CarriedOut(&path(), 7, &outcome(exceptions)), None, time(1));
    assert_eq!(ready(&of(1)), ("False", reason::EXCEPTIONS, "host-00: it stands there"));
    assert_eq!(of(1).plan_revision, Some(7));
    assert_eq!(of(20).plan_revision, Some(7));
    let many = of(21);
    assert_eq!(ready(&many).2, "host-00: it stands there (and 20 more)");
    assert_eq!(many.counts, Some(HostCounts { written: 3, exceptions: 21 }));
    assert_eq!((many.exceptions.len(), many.exceptions[19].host.as_str()), (20, "host-19"));
    assert_eq!(many.plan_revision, Some(5));
}

#[test]
fn a_node_that_cannot_be_configured_tells_why_and_claims_nothing() {
    let old = next(&NodeRuntimeStatus::default(), "r", State::CarriedOut(&path(), 7, &outcome(1)), None, time(1));
    let unable = Unable::new(reason::CONFIG_PATH_UNSET, "write this");
    let status = next(&old, "r", State::Unable(None, &unable), None, time(2));
    assert_eq!(ready(&status), ("False", reason::CONFIG_PATH_UNSET, "write this"));
    assert_eq!((status.plan_revision, status.counts, status.config_path), (None, None, None));
    assert!(status.exceptions.is_empty());
}

#[test]
fn without_a_plan_what_was_carried_out_still_stands() {
    let old = next(&NodeRuntimeStatus::default(), "r", State::CarriedOut(&path(), 7, &outcome(0)), None, time(1));
    let status = next(&old, "r", State::NoPlan("waiting"), None, time(2));
    assert_eq!(ready(&status), ("Unknown", reason::PENDING, "waiting"));
    assert_eq!(status.plan_revision, Some(7));
}

#[test]
fn nothing_new_is_the_same_status() {
    let states = [outcome(0), outcome(2)];
    let unable = Unable::new(reason::UNSUPPORTED, "no");
    let path = path();
    let states: Vec<State> = states
        .iter()
        .map(|outcome| State::CarriedOut(&path, 7, outcome))
        .chain([State::Unable(None, &unable), State::NoPlan("waiting")])
        .collect();
    for state in states {
        let first = next(&NodeRuntimeStatus::default(), "r", state, Some(1), time(1));
        assert_eq!(next(&first, "r", state, Some(1), time(99)), first);
    }
}

#[tokio::test]
async fn the_status_is_written_once() {
    const PATH: &str = "/apis/wharf.dev/v1alpha1/noderuntimes/node-1";
    let fake = Fake::default();
    let reporter = Reporter::new(fake.client(), "node-1");
    let (path, outcome) = (path(), outcome(0));
    let state = State::CarriedOut(&path, 7, &outcome);
    assert!(matches!(reporter.tell("r", state, time(1)).await, Err(Error::Missing(_))));
    let object = json!({
        "apiVersion": "wharf.dev/v1alpha1", "kind": "NodeRuntime", "metadata": {"name": "node-1"}, "spec": {},
    });
    fake.put(PATH.into(), object);
    assert!(reporter.tell("r", state, time(2)).await.unwrap());
    assert_eq!(fake.get(PATH).unwrap()["status"]["planRevision"], 7);
    fake.forget_requests();
    assert!(!reporter.tell("r", state, time(3)).await.unwrap());
    assert_eq!(fake.requests(), [format!("GET {PATH}")]);
}
