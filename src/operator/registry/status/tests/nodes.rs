//! How many nodes can pull, and which reports of them wake a Registry.

use serde_json::json;

use super::*;

#[test]
fn nodes_are_counted_by_what_they_report() {
    type Table = Vec<(Vec<(String, NodeRuntimeStatus)>, Option<i64>, &'static str, &'static str, &'static str)>;
    let exception = json!({"planRevision": 10, "exceptions": [
        {"host": "team.platform.svc", "reason": "Conflict", "message": "/etc/x is not Wharf's"}]});
    let table: Table = vec![
        (vec![], Some(10), "Unknown", "NoAgents", "0/0"),
        (vec![node("a", json!({"planRevision": 9}))], Some(10), "False", "SomeNodes", "0/1"),
        (vec![node("a", json!({}))], Some(10), "False", "SomeNodes", "0/1"),
        (vec![node("a", json!({"planRevision": 10}))], None, "False", "Progressing", "0/1"),
        (
            vec![node("a", exception.clone()), node("b", json!({"planRevision": 10}))],
            Some(10),
            "False",
            "SomeNodes",
            "1/2",
        ),
        (
            vec![node("a", json!({"planRevision": 10, "counts": {"written": 0, "exceptions": 21}}))],
            Some(10),
            "False",
            "SomeNodes",
            "0/1",
        ),
    ];
    for (nodes, since, expected, reason, summary) in table {
        let status = after(|case| {
            case.observed.nodes = nodes;
            case.observed.planned = planned(since);
        });
        let found = condition::find(&status.conditions, condition::NODES_CONFIGURED).unwrap();
        assert_eq!((found.status.as_str(), found.reason.as_str()), (expected, reason), "{}", found.message);
        assert_eq!(status.nodes.unwrap().summary, summary);
    }
    let status = after(|case| case.observed.nodes = vec![node("a", exception)]);
    let message = &condition::find(&status.conditions, condition::NODES_CONFIGURED).unwrap().message;
    assert!(message.contains("a (Conflict: /etc/x is not Wharf's)"), "{message}");
}

#[test]
fn a_node_that_does_not_reach_a_registry_is_configured_all_the_same() {
    let away = |host: &str| json!({"host": host, "reason": "Unreachable", "message": "it is away"});
    let of = |exceptions: serde_json::Value| {
        let counts = json!({"written": 30, "exceptions": 30});
        let report = json!({"planRevision": 10, "counts": counts, "exceptions": exceptions});
        let status = after(|case| {
            case.observed.nodes = vec![node("a", report)];
            case.observed.planned = planned(Some(10));
        });
        status.nodes.unwrap().summary
    };
    assert_eq!(of(json!([away("team.platform.svc")])), "1/1");
    assert_eq!(of(json!([away("other.platform.svc")])), "1/1", "all that is not in order is listed before");
    let conflict = json!({"host": "other.platform.svc", "reason": "Conflict", "message": "a file of somebody else"});
    assert_eq!(of(json!([conflict])), "0/1");
}

#[test]
fn a_node_counts_when_it_can_pull_by_every_name() {
    let of = |further: Option<i64>, nodes: Vec<(String, NodeRuntimeStatus)>| {
        let status = after(|case| {
            case.observed.nodes = nodes;
            case.observed.planned.push(PlannedHost { host: "images.example.com".into(), since: further });
        });
        let found = condition::find(&status.conditions, condition::NODES_CONFIGURED).unwrap();
        format!("{} {}", found.reason, status.nodes.unwrap().summary)
    };
    let at = |revision: i64| node("a", json!({ "planRevision": revision }));
    assert_eq!(of(Some(11), vec![at(11)]), "AllNodes 1/1");
    assert_eq!(of(Some(11), vec![at(10)]), "SomeNodes 0/1", "its entry is newer than the address's");
    assert_eq!(of(None, vec![at(11)]), "Progressing 0/1");
    let exception = json!({"host": "images.example.com", "reason": "Conflict", "message": "a file of somebody else"});
    assert_eq!(of(Some(11), vec![node("a", json!({"planRevision": 11, "exceptions": [exception]}))]), "SomeNodes 0/1");
}

#[test]
fn a_registry_is_woken_only_by_reports_that_its_status_lacks() {
    let reports = |revision: i64| {
        vec![node("a", json!({"planRevision": revision})), node("b", json!({"planRevision": 12, "runtime": "x"}))]
    };
    let mut registry = fixture::team("{}");
    assert!(lacks_reports(&registry, &reports(10), &planned(Some(10))), "nobody has looked at it");
    registry.status = Some(after(|case| case.observed.nodes = reports(10)));
    assert!(!lacks_reports(&registry, &reports(10), &planned(Some(10))));
    assert!(!lacks_reports(&registry, &reports(11), &planned(Some(10))), "a later revision changes nothing for it");
    assert!(lacks_reports(&registry, &reports(9), &planned(Some(10))), "a node fell behind");
    assert!(lacks_reports(&registry, &reports(10), &planned(Some(11))), "its entry changed");
    assert!(lacks_reports(&registry, &reports(10)[..1], &planned(Some(10))), "a node is gone");
    // The counts are the same and only the message differs.
    registry.status = Some(after(|case| case.observed.nodes = reports(9)));
    let mut other = reports(9);
    other[0].0 = "c".into();
    assert!(lacks_reports(&registry, &other, &planned(Some(10))), "another node is behind");
}
