use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::agent::fake::Api as Fake;
use crate::agent::local::LocalEndpoint;
use crate::api::condition::find;

const RUNTIME: &str = "containerd://2.3.4";

fn serving() -> Local {
    Local::Serving(LocalEndpoint { url: "https://127.0.0.1:17443".into(), certificate: None })
}

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn names(hosts: &[&str]) -> BTreeSet<String> {
    hosts.iter().map(|host| (*host).to_owned()).collect()
}

fn carried(exceptions: usize) -> Carried {
    let exceptions = (0..exceptions).map(|number| HostException {
        host: format!("host-{number:02}"),
        reason: reason::CONFLICT.into(),
        message: "it stands there".into(),
    });
    let standing = names(&["a", "b", "c"]);
    let outcome = Outcome { standing, exceptions: exceptions.collect(), ..Outcome::default() };
    Carried { config_path: "/etc/containerd/certs.d".into(), revision: 7, outcome, ..Carried::default() }
}

/// Facts of hosts that stand.
fn with_facts(facts: Vec<HostFacts>) -> Carried {
    let mut carried = carried(0);
    carried.outcome.standing = facts.iter().map(|facts| facts.host.clone()).collect();
    carried.hosts = facts;
    carried
}

fn facts(host: &str) -> HostFacts {
    HostFacts { host: host.into(), written: None, reachable: None, used: false }
}

fn after(old: &NodeRuntimeStatus, carried: &Carried, now: i64) -> NodeRuntimeStatus {
    next(old, RUNTIME, State::CarriedOut(carried), &serving(), Some(1), time(now))
}

fn first(carried: &Carried) -> NodeRuntimeStatus {
    after(&NodeRuntimeStatus::default(), carried, 1)
}

fn ready(status: &NodeRuntimeStatus) -> (&str, &str, &str) {
    let condition = find(&status.conditions, READY).unwrap();
    (&condition.status, &condition.reason, &condition.message)
}

fn mirrors(status: &NodeRuntimeStatus) -> Vec<(&str, Option<i64>, bool, bool)> {
    let second = |time: &Time| time.0.as_second();
    let mirrors = status.mirrors.iter();
    mirrors.map(|host| (host.host.as_str(), host.written.as_ref().map(second), host.reachable, host.used)).collect()
}

#[allow(clippy::unnecessary_wraps, reason = "it is compared with a field of a status")]
fn counts(written: i32, exceptions: i32, mirrors: Option<&str>) -> Option<HostCounts> {
    Some(HostCounts { written, exceptions, mirrors: mirrors.map(str::to_owned) })
}

#[test]
fn a_node_in_order() {
    let status = first(&carried(0));
    assert_eq!(ready(&status), ("True", reason::CONFIGURED, "3 hosts stand as planned"));
    assert_eq!(status.plan_revision, Some(7));
    assert_eq!(status.runtime.as_deref(), Some(RUNTIME));
    assert_eq!(status.config_path.as_deref(), Some("/etc/containerd/certs.d"));
    assert_eq!(status.counts, counts(3, 0, None));
    assert!(status.exceptions.is_empty() && status.mirrors.is_empty());
    let hinted = Carried { hint: Some("reload it"), ..carried(0) };
    assert_eq!(ready(&first(&hinted)).2, "3 hosts stand as planned; reload it");
}

#[test]
fn exceptions_are_counted_and_the_first_twenty_listed() {
    let old = NodeRuntimeStatus { plan_revision: Some(5), ..NodeRuntimeStatus::default() };
    let of = |exceptions| after(&old, &carried(exceptions), 1);
    assert_eq!(ready(&of(1)), ("False", reason::EXCEPTIONS, "host-00: it stands there"));
    assert_eq!(of(1).plan_revision, Some(7));
    assert_eq!(of(20).plan_revision, Some(7));
    let many = of(21);
    assert_eq!(ready(&many).2, "host-00: it stands there (and 20 more)");
    assert_eq!(many.counts, counts(3, 21, None));
    assert_eq!((many.exceptions.len(), many.exceptions[19].host.as_str()), (20, "host-19"));
    assert_eq!(many.plan_revision, Some(5));
}

#[test]
fn a_node_that_cannot_be_configured_tells_why_and_claims_nothing() {
    let unable = Unable::new(reason::CONFIG_PATH_UNSET, "write this");
    let old = first(&carried(1));
    let status = next(&old, "r", State::Unable(None, &unable), &serving(), None, time(2));
    assert_eq!(ready(&status), ("False", reason::CONFIG_PATH_UNSET, "write this"));
    assert_eq!((status.plan_revision, status.counts, status.config_path), (None, None, None));
    assert!(status.exceptions.is_empty());
}

#[test]
fn without_a_plan_what_was_carried_out_still_stands() {
    let old = first(&with_facts(vec![facts("docker.io")]));
    let status = next(&old, "r", State::NoPlan("waiting"), &serving(), None, time(2));
    assert_eq!(ready(&status), ("Unknown", reason::PENDING, "waiting"));
    assert_eq!((status.plan_revision, status.mirrors), (Some(7), old.mirrors));
}

#[test]
fn the_endpoint_has_a_condition_of_its_own() {
    let of = |local: Local| {
        let status = next(&NodeRuntimeStatus::default(), "r", State::CarriedOut(&carried(0)), &local, None, time(1));
        let condition = find(&status.conditions, ENDPOINT_READY).unwrap();
        (condition.status.clone(), condition.reason.clone(), condition.message.clone())
    };
    let expected = |status: &str, reason: &str, message: &str| (status.into(), reason.into(), message.into());
    assert_eq!(
        of(serving()),
        expected("True", reason::SERVING, "The node's endpoint serves at https://127.0.0.1:17443")
    );
    assert_eq!(of(Local::PortInUse("taken".into())), expected("False", reason::PORT_IN_USE, "taken"));
    assert_eq!(of(Local::Failed("no key".into())), expected("False", reason::ENDPOINT_FAILED, "no key"));
    assert_eq!(of(Local::Disabled).1, reason::DISABLED);
}

#[test]
fn when_a_host_was_written_and_that_it_was_used_hold_while_its_files_are_as_they_are() {
    let mirror = facts("docker.io");
    let status = first(&with_facts(vec![mirror.clone()]));
    assert_eq!(mirrors(&status), [("docker.io", Some(1), false, false)]);
    assert_eq!(status.counts, counts(1, 0, Some("0/1")));
    // The runtime pulls.
    let used = HostFacts { reachable: Some(Ok(())), used: true, ..mirror.clone() };
    let status = after(&status, &with_facts(vec![used]), 2);
    assert_eq!(mirrors(&status), [("docker.io", Some(1), true, true)]);
    assert_eq!(status.counts.as_ref().unwrap().mirrors.as_deref(), Some("1/1"));
    // Another process has not seen it, nor tried anything yet.
    let restarted = after(&status, &with_facts(vec![mirror.clone()]), 3);
    assert_eq!(restarted, status);
    // This process writes the files anew, and tells it twice.
    let rewritten = HostFacts { written: Some(Time(time(4))), ..mirror.clone() };
    let status = after(&status, &with_facts(vec![rewritten.clone()]), 5);
    assert_eq!(mirrors(&status), [("docker.io", Some(4), true, false)]);
    assert_eq!(after(&status, &with_facts(vec![rewritten]), 6), status);
    // It stands no longer, and then again.
    let mut gone = with_facts(vec![mirror.clone()]);
    gone.outcome.standing.clear();
    let status = after(&status, &gone, 7);
    assert_eq!(mirrors(&status), [("docker.io", None, false, false)]);
    assert_eq!(status.counts, counts(0, 0, Some("0/0")));
    assert_eq!(mirrors(&after(&status, &with_facts(vec![mirror]), 8)), [("docker.io", Some(8), false, false)]);
}

#[test]
fn what_cannot_be_reached_is_an_exception() {
    let away = |host: &str| HostFacts { reachable: Some(Err(format!("{host} is away"))), ..facts(host) };
    let mirror = away("docker.io");
    let status = first(&with_facts(vec![mirror.clone()]));
    assert_eq!(ready(&status), ("False", reason::EXCEPTIONS, "docker.io: docker.io is away"));
    let listed: Vec<(&str, &str)> =
        status.exceptions.iter().map(|exception| (exception.host.as_str(), exception.reason.as_str())).collect();
    assert_eq!(listed, [("docker.io", reason::UNREACHABLE)]);
    assert_eq!((status.plan_revision, &status.counts), (Some(7), &counts(1, 1, Some("0/1"))));
    // A new process tells the same until it has tried.
    let untried = [facts("docker.io")];
    assert_eq!(after(&status, &with_facts(untried.to_vec()), 2), status);
    let answers = untried.map(|facts| HostFacts { reachable: Some(Ok(())), ..facts });
    let healed = after(&status, &with_facts(answers.to_vec()), 3);
    assert_eq!((ready(&healed).0, healed.exceptions.len()), ("True", 0));
    // What is not in order on the disk is not said to be out of reach besides.
    let mut conflict = with_facts(vec![mirror]);
    conflict.outcome = carried(1).outcome;
    assert_eq!(first(&conflict).exceptions.len(), 1);
}

#[test]
fn unreachable_hosts_never_hide_which_files_are_in_order() {
    let away = |number: usize| HostFacts { reachable: Some(Err("away".into())), ..facts(&format!("r{number:02}")) };
    let mut many = with_facts((0..30).map(away).collect());
    many.outcome.exceptions = carried(2).outcome.exceptions;
    let status = first(&many);
    assert_eq!((status.plan_revision, status.exceptions.len()), (Some(7), 20));
    assert_eq!(status.exceptions[1].host, "host-01");
    assert_eq!(status.counts, counts(30, 32, Some("0/30")));
}

#[test]
fn nothing_new_is_the_same_status() {
    let of_hosts = with_facts(vec![
        HostFacts { reachable: Some(Err("away".into())), ..facts("docker.io") },
        HostFacts { used: true, written: Some(Time(time(1))), ..facts("ghcr.io") },
    ]);
    let carried = [carried(0), carried(2), of_hosts];
    let unable = Unable::new(reason::UNSUPPORTED, "no");
    let states: Vec<State> =
        carried.iter().map(State::CarriedOut).chain([State::Unable(None, &unable), State::NoPlan("waiting")]).collect();
    for state in states {
        for local in [serving(), Local::Disabled] {
            let first = next(&NodeRuntimeStatus::default(), "r", state, &local, Some(1), time(1));
            assert_eq!(next(&first, "r", state, &local, Some(1), time(99)), first);
        }
    }
}

#[tokio::test]
async fn the_status_is_written_once() {
    const PATH: &str = "/apis/wharf.dev/v1alpha1/noderuntimes/node-1";
    let fake = Fake::default();
    let reporter = Reporter::new(fake.client(), "node-1");
    let carried = with_facts(vec![facts("docker.io")]);
    let state = State::CarriedOut(&carried);
    let tell = async |now| reporter.tell("r", state, &serving(), time(now)).await;
    assert!(matches!(tell(1).await, Err(Error::Missing(_))));
    let object = json!({
        "apiVersion": "wharf.dev/v1alpha1", "kind": "NodeRuntime", "metadata": {"name": "node-1"}, "spec": {},
    });
    fake.put(PATH.into(), object);
    assert!(tell(2).await.unwrap());
    assert_eq!(fake.get(PATH).unwrap()["status"]["planRevision"], 7);
    fake.forget_requests();
    assert!(!tell(3).await.unwrap());
    assert_eq!(fake.requests(), [format!("GET {PATH}")]);
}
