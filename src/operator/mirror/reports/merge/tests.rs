use serde_json::json;

use super::*;

const GI: u64 = 1 << 30;

fn pod(name: &str, report: &serde_json::Value) -> PodReport {
    PodReport { pod: name.to_owned(), report: Ok(serde_json::from_value(report.clone()).unwrap()) }
}

fn silent(name: &str) -> PodReport {
    PodReport { pod: name.to_owned(), report: Err("refused".to_owned()) }
}

fn upstream(state: &str, serves_stale: bool, problem: Option<&str>) -> serde_json::Value {
    let upstream = json!({"host": "docker.io", "state": state, "servingStale": serves_stale, "problem": problem});
    let cache = json!({"bytes": 0, "size": 0, "inUseExceeds": false, "pinsExceed": false});
    json!({"upstreams": [upstream], "cache": cache})
}

fn cached(bytes: u64, size: u64) -> serde_json::Value {
    json!({"upstreams": [], "cache": {"bytes": bytes, "size": size, "inUseExceeds": false, "pinsExceed": false}})
}

fn at(time: &str) -> Timestamp {
    time.parse().unwrap()
}

#[test]
fn the_worst_that_a_pod_says_of_a_registry_is_told() {
    let hosts = ["docker.io".to_owned()];
    let limited = upstream("RateLimited", false, Some("429"));
    for (pods, state, serving_stale, message) in [
        (vec![upstream("Ok", false, None)], UpstreamState::Ok, false, None),
        (vec![upstream("Ok", true, None), limited.clone()], UpstreamState::RateLimited, true, Some("429")),
        (
            vec![limited.clone(), upstream("Failing", true, Some("502")), upstream("Failing", false, Some("503"))],
            UpstreamState::Failing,
            true,
            Some("502"),
        ),
        (
            vec![upstream("CredentialsRejected", false, Some("401")), limited],
            UpstreamState::CredentialsRejected,
            false,
            Some("401"),
        ),
        (
            vec![upstream("Failing", false, None), upstream("Failing", false, Some("b"))],
            UpstreamState::Failing,
            false,
            Some("b"),
        ),
    ] {
        let reports: Vec<_> = pods.iter().map(|report| pod("p", report)).chain([silent("q")]).collect();
        let now = at("2026-01-01T00:00:00Z");
        let expected = UpstreamStatus {
            host: "docker.io".into(),
            state,
            since: Some(Time(now)),
            serving_stale,
            message: message.map(ToOwned::to_owned),
        };
        assert_eq!(upstreams(&reports, &hosts, &[], now), [expected]);
    }
}

#[test]
fn the_time_stays_with_the_state_and_what_nobody_tells_stays() {
    let hosts = ["docker.io".to_owned(), "quay.io".to_owned()];
    let (first, later) = (at("2026-01-01T00:00:00Z"), at("2026-01-01T01:00:00Z"));
    let failing = |message| [pod("a", &upstream("Failing", true, Some(message)))];
    let old = upstreams(&failing("502"), &hosts, &[], first);
    // Nothing is said of a host that no pod has been asked for.
    assert_eq!(old.len(), 1);
    let next = upstreams(&failing("503"), &hosts, &old, later);
    assert_eq!((next[0].since.clone(), next[0].message.as_deref()), (Some(Time(first)), Some("503")));
    assert_eq!(upstreams(&[silent("a")], &hosts, &next, later), next);
    let well = upstreams(&[pod("a", &upstream("Ok", false, None))], &hosts, &next, later);
    assert_eq!((well[0].since.clone(), well[0].state), (Some(Time(later)), UpstreamState::Ok));
    // A host that the spec names no longer goes.
    assert_eq!(upstreams(&failing("502"), &hosts[1..], &old, later), []);
}

#[test]
fn what_is_kept_is_summed_and_told_with_two_digits() {
    for (bytes, told, summary) in [
        (vec![0], 0, "0/50Gi"),
        (vec![1023], 1000, "1000/50Gi"),
        (vec![1536], 1536, "1.5Ki/50Gi"),
        (vec![6 * GI, 6 * GI + GI / 2], 12 * GI, "12Gi/50Gi"),
        (vec![GI + GI * 29 / 100], 1_288_490_189, "1.2Gi/50Gi"),
        (vec![10 * GI - 1], 10_630_044_058, "9.9Gi/50Gi"),
        (vec![123 * GI], 120 * GI, "120Gi/50Gi"),
        (vec![1023 * GI], 1000 * GI, "1000Gi/50Gi"),
        (vec![1024 * GI], 1024 * GI, "1Ti/50Gi"),
    ] {
        let mut reports: Vec<_> = bytes.iter().map(|bytes| pod("p", &cached(*bytes, 0))).collect();
        reports.push(pod("q", &cached(0, 50 * GI)));
        let found = cache(&reports, None).unwrap();
        assert_eq!((found.bytes, found.summary.as_str()), (told.try_into().unwrap(), summary), "{bytes:?}");
        // Told again of what was told, it is the same.
        let again = cache(&[pod("p", &cached(told, 50 * GI))], None).unwrap();
        assert_eq!(again, found);
    }
    assert_eq!(cache(&[silent("a")], None), None);
    assert_eq!(cache(&[], None), None);
    let absurd = [pod("a", &cached(u64::MAX, u64::MAX)), pod("b", &cached(u64::MAX, 1))];
    assert_eq!(cache(&absurd, None).unwrap().capacity, i64::MAX);
}

#[test]
fn a_cache_that_hovers_at_a_border_is_told_once() {
    for (before, bytes, after) in [
        (12 * GI, 13 * GI, 12 * GI),
        (12 * GI, 12 * GI - GI / 20, 12 * GI),
        (12 * GI, 12 * GI - GI / 5, 11 * GI),
        (12 * GI, 13 * GI + GI / 5, 13 * GI),
        (10 * GI, 9 * GI + GI / 2, 9 * GI + GI / 2),
        // What an earlier version told otherwise.
        (12 * GI + 5, 12 * GI + 6, 12 * GI),
        (0, 0, 0),
    ] {
        assert_eq!(coarse(bytes, Some(before)), after, "{before} {bytes}");
    }
}

#[test]
fn pins_are_told_until_every_pod_has_them_in_whole() {
    let report = |pins: serde_json::Value| {
        let mut report = cached(0, 0);
        report["pins"] = pins;
        report
    };
    let pin = |image: &str, complete: bool, problem: Option<&str>| json!({"image": image, "complete": complete, "problem": problem});
    let reports = [
        pod(
            "a",
            &report(json!([
                pin("a", true, None),
                pin("b", false, None),
                pin("c", false, Some("no such tag")),
                pin("z", false, None)
            ])),
        ),
        silent("b"),
        pod(
            "c",
            &report(json!([pin("a", true, None), pin("b", true, None), pin("c", false, None), pin("d", true, None)])),
        ),
    ];
    let images = ["a", "b", "c", "d", "e"].map(ToOwned::to_owned);
    let told: Vec<_> =
        pins(&reports, &images).unwrap().into_iter().map(|pin| format!("{}: {}", pin.image, pin.message)).collect();
    assert_eq!(told, ["b: Being fetched", "c: no such tag", "e: Not looked at yet"]);
    assert_eq!(pins(&[silent("a")], &images), None);
}
