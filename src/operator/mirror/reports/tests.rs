use serde_json::json;

use super::*;
use crate::mirror_report::{CacheReport, PinReport, State, UpstreamReport};

fn report(state: State, bytes: u64) -> MirrorReport {
    let upstream = UpstreamReport { host: "docker.io".into(), state, serving_stale: false, problem: None };
    let cache = CacheReport { bytes, size: 1 << 30, ..CacheReport::default() };
    MirrorReport { upstreams: vec![upstream], cache, pins: Vec::new() }
}

fn answer(pod: &str, state: State, bytes: u64) -> PodReport {
    PodReport { pod: pod.into(), report: Ok(report(state, bytes)) }
}

fn silence(pod: &str) -> PodReport {
    PodReport { pod: pod.into(), report: Err("port 5001 does not answer".into()) }
}

#[test]
fn a_pass_is_woken_only_by_what_a_status_would_tell() {
    let (reports, start) = (MirrorReports::default(), Instant::now());
    let at = |seconds| start + Duration::from_secs(seconds);
    let (one, two) = (100 << 20, 200 << 20);
    let pin = |complete| {
        let mut found = report(State::Ok, two);
        found.pins = vec![PinReport { image: "a".into(), complete, problem: None }];
        vec![PodReport { pod: "a".into(), report: Ok(found) }]
    };
    for (found, seconds, wakes, what) in [
        (vec![answer("a", State::Ok, one)], 0, true, "the first answer"),
        (vec![answer("a", State::Ok, one)], 30, false, "the same"),
        (vec![answer("a", State::Ok, one + 1)], 60, false, "a byte more"),
        (vec![answer("a", State::Ok, two)], 90, false, "more bytes, too soon"),
        (vec![answer("a", State::Ok, two)], 301, true, "more bytes, after a rest"),
        (vec![answer("a", State::Failing, one)], 302, true, "another state"),
        (vec![answer("a", State::Ok, two)], 303, true, "the first one again"),
        (vec![answer("a", State::Ok, two), answer("b", State::Ok, 0)], 304, true, "a pod more"),
        (vec![answer("a", State::Ok, two)], 305, true, "a pod less"),
        (pin(false), 306, true, "a pin that is missing"),
        (pin(true), 307, true, "a pin that has come"),
        (Vec::new(), 308, true, "no pod"),
        (Vec::new(), 309, false, "no pod still"),
        (vec![answer("a", State::Ok, 0)], 310, true, "an empty cache"),
        (vec![answer("a", State::Ok, one)], 311, true, "its first bytes"),
        (vec![answer("a", State::Ok, two)], 312, false, "more bytes, too soon after them"),
        (Vec::new(), 313, true, "no pod again"),
    ] {
        assert_eq!(reports.note("uid", found, at(seconds)), wakes, "{what}");
    }
    assert_eq!(reports.of("uid"), Some(Vec::new()));
    assert_eq!(reports.of("another"), None);
    reports.keep_only(&[]);
    assert_eq!(reports.of("uid"), None);
}

#[test]
fn a_pod_that_misses_few_questions_is_taken_at_its_last_word() {
    let (reports, now) = (MirrorReports::default(), Instant::now());
    let tell = |found| {
        let wakes = reports.note("uid", vec![found], now);
        (wakes, reports.of("uid").unwrap()[0].report.is_ok())
    };
    // One that has never answered has no last word.
    assert_eq!(tell(silence("a")), (true, false));
    assert_eq!(tell(answer("a", State::Ok, 0)), (true, true));
    assert_eq!(tell(silence("a")), (false, true));
    assert_eq!(tell(silence("a")), (false, true));
    assert_eq!(tell(silence("a")), (true, false));
    assert_eq!(tell(silence("a")), (false, false));
    assert_eq!(tell(answer("a", State::Ok, 0)), (true, true));
    assert_eq!(tell(silence("a")), (false, true));
    // Another pod is not taken at this one's word.
    assert_eq!(tell(silence("b")), (true, false));
}

#[test]
fn the_pods_of_a_mirror_are_its_replicas_in_their_order() {
    let pod = |name: &str, instance: &str| -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name, "labels": {labels::INSTANCE: instance}}})).unwrap()
    };
    let pods = [
        pod("mirror-a-10", "a"),
        pod("mirror-a-2", "a"),
        pod("mirror-a-0", "b"),
        pod("mirror-a-x", "a"),
        pod("mirror-a-b-0", "a-b"),
        pod("debug", "a"),
    ];
    let mirror: Mirror = serde_json::from_value(json!({
        "apiVersion": "wharf.dev/v1alpha1", "kind": "Mirror", "metadata": {"name": "a"}, "spec": {"upstreams": [{"host": "docker.io"}]},
    }))
    .unwrap();
    let names: Vec<_> = replicas(&mirror, "wharf-system", &pods).into_iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["mirror-a-2", "mirror-a-10"]);
}
