//! What a status says where the operator's settings refuse something.

use super::*;

#[test]
fn names_that_are_refused_are_told_and_the_registry_goes_on() {
    let of = |not_allowed: &[&str], taken: &[(&str, &str)]| {
        let status = after(|case| {
            let text = |text: &str| text.to_owned();
            case.registry.spec.hosts = vec![text("images.example.com")];
            case.observed.hosts.not_allowed = not_allowed.iter().copied().map(text).collect();
            case.observed.hosts.taken = taken.iter().map(|(host, whose)| (text(host), text(whose))).collect();
        });
        let found = condition::find(&status.conditions, condition::HOSTS_READY).unwrap().clone();
        (brief(&status), found.message)
    };
    let rest = "StorageReady=True/Bound Available=True/PodReady PullSecretsReady=True/Attached";
    assert_eq!(of(&[], &[]).0, format!("Ready=True/Ready {rest} HostsReady=True/HostsGranted"));
    let (brief, message) = of(&["a.example.com"], &[]);
    let stalled = "Ready=False/HostNotAllowed Stalled=True/HostNotAllowed";
    assert_eq!(brief, format!("{stalled} {rest} HostsReady=False/HostNotAllowed"));
    assert!(message.contains("setting allowedHosts does not allow a.example.com"), "{message}");
    let (brief, message) = of(&[], &[("images.example.com", "other/first")]);
    assert!(brief.starts_with("Ready=False/HostTaken Stalled=True/HostTaken"), "{brief}");
    assert!(message.starts_with("images.example.com is a name of Registry other/first, which came first"), "{message}");
    // Both are said at once.
    let message = of(&["a.example.com"], &[("images.example.com", "other/first")]).1;
    assert!(message.contains("a.example.com") && message.contains("other/first"), "{message}");
}

#[test]
fn beyond_the_quota_nothing_is_told_but_that_of_a_registry_that_was_never_begun() {
    let mut registry = fixture::team("{}");
    registry.status = Some(after(|_| {}));
    let status = beyond_quota(&registry, 2, NOW);
    assert_eq!(brief(&status), "Ready=False/QuotaExceeded Stalled=True/QuotaExceeded");
    assert!(status.conditions[0].message.starts_with("This namespace may hold 2 Registries"));
    assert_eq!((status.nodes, status.storage), (None, None));
    // Reports of nodes do not wake it.
    registry.status = Some(beyond_quota(&registry, 2, NOW));
    assert!(!lacks_reports(&registry, &[node("a", json!({"planRevision": 9}))], &planned(Some(10))));
}

#[test]
fn beyond_the_quota_a_registry_that_is_there_is_told_of_as_ever() {
    let status = after(|case| case.beyond_quota = Some(2));
    let said = brief(&status);
    assert!(said.starts_with("Ready=False/QuotaExceeded Stalled=True/QuotaExceeded StorageReady=True/Bound"), "{said}");
    assert!(status.conditions[0].message.contains("goes on looking after this one"));
    // What is worse is told first, and reports of nodes wake it.
    let full = Some(VolumeUse { used_percent: 95, level: Level::Full });
    let worse = after(|case| (case.beyond_quota, case.observed.volume) = (Some(2), full));
    assert!(brief(&worse).starts_with("Ready=False/Full Stalled=True/Full"), "{}", brief(&worse));
    let mut registry = fixture::team("{}");
    registry.status = Some(status);
    assert!(lacks_reports(&registry, &[node("a", json!({"planRevision": 9}))], &planned(Some(10))));
}
