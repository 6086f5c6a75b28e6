use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::*;
use crate::operator::call::{Action, Cause, Target};
use crate::operator::front::{Verdict, Way};
use crate::operator::registry::fixture;
use crate::operator::registry::observe::{ClassTraits, Found, FoundClaim, IngressClassFact, StorageClassFact};
use crate::operator::registry::validate::{obstacles, shortcomings};
use crate::operator::volume::{Level, VolumeUse};

const NOW: Timestamp = Timestamp::constant(1_767_225_600, 0);

fn claim(phase: &str) -> PersistentVolumeClaim {
    serde_json::from_value(json!({
        "metadata": {"name": "team-registry"},
        "spec": {"resources": {"requests": {"storage": "20Gi"}}},
        "status": {"phase": phase, "capacity": {"storage": "20Gi"}},
    }))
    .unwrap()
}

fn deployment(available: i32) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"name": "team-registry", "generation": 2},
        "status": {"observedGeneration": 2, "availableReplicas": available, "updatedReplicas": 1, "replicas": 1},
    }))
    .unwrap()
}

fn node(name: &str, status: Value) -> (String, NodeRuntimeStatus) {
    (name.to_owned(), serde_json::from_value(status).unwrap())
}

/// The Registry's address, with an entry in the node plan since this revision.
fn planned(since: Option<i64>) -> Vec<PlannedHost> {
    vec![PlannedHost { host: "team.platform.svc".into(), since }]
}

/// A Registry that serves: everything else spoils one thing of it.
fn serving(names: &Names) -> Observed {
    let mut observed = fixture::nothing(names);
    observed.claim = FoundClaim::Ours(claim("Bound"));
    observed.deployment = Found::Ours(deployment(1));
    observed.pull_secret = Found::Ours(Secret::default());
    observed.planned = planned(Some(10));
    observed.nodes = vec![node("a", json!({"planRevision": 10})), node("b", json!({"planRevision": 12}))];
    observed
}

struct Case {
    registry: Registry,
    observed: Observed,
    failures: Vec<CallError>,
    attachments: Vec<Attachment>,
}

/// The status after one thing of a serving Registry was spoilt.
fn after(spoil: impl FnOnce(&mut Case)) -> RegistryStatus {
    let registry = fixture::team("{}");
    let names = fixture::names(&registry);
    let mut case =
        Case { observed: serving(&names), registry, failures: Vec::new(), attachments: vec![Attachment::Attached] };
    spoil(&mut case);
    let mut problems = obstacles(&case.registry, &names, &case.observed);
    problems.extend(shortcomings(&case.registry, &case.observed));
    let outcome = Outcome {
        registry: &case.registry,
        names: &names,
        observed: &case.observed,
        problems: &problems,
        failures: &case.failures,
        attachments: &case.attachments,
    };
    next(&outcome, NOW)
}

/// `Type=Status/Reason` of each condition but the node's.
fn brief(status: &RegistryStatus) -> String {
    let texts: Vec<String> = status
        .conditions
        .iter()
        .filter(|condition| condition.type_ != condition::NODES_CONFIGURED)
        .map(|condition| format!("{}={}/{}", condition.type_, condition.status, condition.reason))
        .collect();
    texts.join(" ")
}

fn api_failure(kind: &str, name: &str, code: u16) -> CallError {
    let status =
        kube::core::Status { code, message: "the reason the API server gave".into(), ..kube::core::Status::default() };
    CallError {
        action: Action::Apply,
        target: Target::new(kind, "platform", name),
        cause: Cause::Client(Box::new(kube::Error::Api(Box::new(status)))),
    }
}

#[test]
fn a_serving_registry() {
    let status = after(|_| {});
    assert_eq!(
        brief(&status),
        "Ready=True/Ready StorageReady=True/Bound Available=True/PodReady PullSecretsReady=True/Attached"
    );
    assert_eq!(status.address.as_deref(), Some("team.platform.svc"));
    assert_eq!(status.observed_generation, Some(1));
    assert_eq!(status.nodes.unwrap().summary, "2/2");
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table reads best in one piece")]
fn each_trouble_has_its_reason_and_says_who_must_act() {
    type Spoil = Box<dyn FnOnce(&mut Case)>;
    let pod = |value: Value| serde_json::from_value::<Pod>(value).unwrap();
    let waiting = pod(json!({"metadata": {"name": "p"}, "status": {"containerStatuses": [
        {"name": "registry", "image": "x", "imageID": "", "ready": false, "restartCount": 1,
         "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off 40s"}}}]}}));
    let stranded = pod(json!({"metadata": {"name": "p"}, "spec": {"nodeName": "gone", "containers": []}}));
    let unschedulable = pod(json!({"metadata": {"name": "p"}, "status": {"conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}]}}));
    let cases: Vec<(Spoil, &str, &str)> = vec![
        (
            Box::new(|case| case.observed.service = Found::Foreign("without an owner".into())),
            "Available",
            "Stalled/NameTaken",
        ),
        (
            Box::new(|case| case.observed.pull_secret = Found::Foreign("x".into())),
            "PullSecretsReady",
            "Stalled/NameTaken",
        ),
        (
            Box::new(|case| case.observed.claim = FoundClaim::Foreign("x".into())),
            "StorageReady",
            "Stalled/ClaimNotOurs",
        ),
        (
            Box::new(|case| {
                case.observed.claim = FoundClaim::Left { claim: claim("Bound"), mounted_by: vec!["old".into()] };
            }),
            "StorageReady",
            "Reconciling/ClaimInUse",
        ),
        (
            Box::new(|case| {
                let mut deleting = claim("Bound");
                deleting.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(NOW));
                case.observed.claim = FoundClaim::Ours(deleting);
            }),
            "StorageReady",
            "Reconciling/ClaimDeleting",
        ),
        (Box::new(|case| case.observed.claim = FoundClaim::Ours(claim("Lost"))), "StorageReady", "Stalled/ClaimLost"),
        (
            Box::new(|case| case.observed.claim = FoundClaim::Ours(claim("Pending"))),
            "StorageReady",
            "Reconciling/ClaimPending",
        ),
        (
            Box::new(|case| {
                case.observed.claim = FoundClaim::Absent;
                case.observed.storage_class = StorageClassFact::Missing(vec!["standard".into()]);
            }),
            "StorageReady",
            "Stalled/StorageClassMissing",
        ),
        (
            Box::new(|case| {
                case.observed.claim = FoundClaim::Ours(claim("Pending"));
                case.observed.storage_class = StorageClassFact::NoDefault(Vec::new());
            }),
            "StorageReady",
            "Stalled/NoDefaultStorageClass",
        ),
        (
            Box::new(|case| {
                case.registry.spec.storage.claim.size = Quantity("30Gi".into());
                case.observed.storage_class = StorageClassFact::Available(ClassTraits::default());
            }),
            "StorageReady",
            "Stalled/ExpansionUnsupported",
        ),
        (Box::new(|case| case.observed.rival = Some("platform/older".into())), "StorageReady", "Stalled/StorageTaken"),
        (Box::new(|case| case.observed.claim = FoundClaim::GivenMissing), "StorageReady", "Stalled/ClaimMissing"),
        (
            Box::new(|case| {
                case.observed.claim = FoundClaim::Given { claim: claim("Bound"), mounted_by: vec!["other".into()] };
            }),
            "StorageReady",
            "Reconciling/ClaimInUse",
        ),
        (
            Box::new(|case| case.observed.volume = Some(VolumeUse { used_percent: 95, level: Level::Full })),
            "StorageReady",
            "Stalled/Full",
        ),
        (
            Box::new(|case| {
                case.observed.deployment = Found::Ours(deployment(0));
                case.observed.pods = vec![stranded];
                case.observed.lost_nodes = vec!["gone".into()];
            }),
            "Available",
            "Reconciling/AttachedElsewhere",
        ),
        (
            Box::new(|case| case.observed.deployment = Found::Ours(deployment(0))),
            "Available",
            "Reconciling/PodStarting",
        ),
        (
            Box::new(|case| {
                case.observed.deployment = Found::Ours(deployment(0));
                case.observed.pods = vec![waiting];
            }),
            "Available",
            "Reconciling/PodFailing",
        ),
        (
            Box::new(|case| {
                case.observed.deployment = Found::Ours(deployment(0));
                case.observed.pods = vec![unschedulable];
            }),
            "Available",
            "Reconciling/PodFailing",
        ),
        (Box::new(|case| case.observed.deployment = Found::Absent), "Available", "Reconciling/Progressing"),
        (
            Box::new(|case| case.failures = vec![api_failure("Deployment", "team-registry", 422)]),
            "Available",
            "Stalled/Refused",
        ),
        (
            Box::new(|case| case.failures = vec![api_failure("PersistentVolumeClaim", "team-registry", 500)]),
            "StorageReady",
            "Reconciling/Retrying",
        ),
        (
            Box::new(|case| case.failures = vec![api_failure("ServiceAccount", "default", 500)]),
            "PullSecretsReady",
            "Reconciling/Retrying",
        ),
        (
            Box::new(|case| case.attachments = vec![Attachment::Missing("builder".into())]),
            "PullSecretsReady",
            "Reconciling/ServiceAccountMissing",
        ),
    ];
    for (spoil, condition_type, expected) in cases {
        let status = after(spoil);
        let (general, reason) = expected.split_once('/').unwrap();
        let text = brief(&status);
        assert!(text.starts_with(&format!("Ready=False/{reason} {general}=True/{reason} ")), "{expected}: {text}");
        assert!(text.contains(&format!("{condition_type}=False/{reason}")), "{expected}: {text}");
        assert_eq!(text.matches("=False").count(), 2, "only Ready and {condition_type} are false: {text}");
    }
}

#[test]
fn an_available_pod_of_an_older_template_does_not_count() {
    let status = after(|case| {
        let mut old = deployment(1);
        old.metadata.generation = Some(3);
        case.observed.deployment = Found::Ours(old);
    });
    assert!(brief(&status).contains("Available=False/PodStarting"), "{}", brief(&status));
}

#[test]
fn a_suspended_registry_is_neither_ready_nor_stalled() {
    let status = after(|case| case.registry.spec.suspend = true);
    assert!(brief(&status).starts_with("Ready=False/Suspended StorageReady=True"), "{}", brief(&status));
}

#[test]
fn transition_times_move_only_with_the_status() {
    let first = after(|_| {});
    let later: Timestamp = "2026-05-05T05:05:05Z".parse().unwrap();
    let mut registry = fixture::team("{}");
    registry.status = Some(first.clone());
    let names = fixture::names(&registry);
    let mut observed = serving(&names);
    let again = |registry: &Registry, observed: &Observed| {
        let attachments = [Attachment::Attached];
        next(
            &Outcome { registry, names: &names, observed, problems: &[], failures: &[], attachments: &attachments },
            later,
        )
    };
    assert_eq!(again(&registry, &observed), first, "nothing changed, so nothing is written");
    observed.deployment = Found::Ours(deployment(0));
    let changed = again(&registry, &observed);
    let since = |kind: &str| condition::find(&changed.conditions, kind).unwrap().last_transition_time.0;
    assert_eq!(since(condition::AVAILABLE), later);
    assert_eq!(since(condition::STORAGE_READY), NOW);
}

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
fn beyond_the_quota_nothing_is_told_but_that() {
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

#[test]
fn a_cluster_that_cannot_be_looked_at_leaves_readiness_unknown() {
    let mut registry = fixture::team("{}");
    registry.status = Some(after(|_| {}));
    registry.metadata = ObjectMeta { generation: Some(2), ..registry.metadata };
    let status = unobserved(&registry, &api_failure("pods", "", 500), NOW);
    assert!(brief(&status).starts_with("Ready=Unknown/Retrying StorageReady=True"), "{}", brief(&status));
    assert!(status.conditions[0].message.contains("the reason the API server gave"));
}

/// A Registry with an Ingress, a load balancer and both proven.
fn exposed(case: &mut Case) {
    let expose = "{ingress: {host: images.example.com}, service: {type: LoadBalancer}}";
    case.registry.spec.expose = Some(serde_saphyr::from_str(expose).unwrap());
    let address = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}});
    case.observed.exposure.ingress = Found::Ours(serde_json::from_value(json!({})).unwrap());
    case.observed.exposure.service = Found::Ours(serde_json::from_value(address).unwrap());
    case.observed.exposure.class = IngressClassFact::Controller("example.com/controller".into());
    case.observed.exposure.verdicts = vec![(Way::Ingress, Verdict::proven()), (Way::Service, Verdict::proven())];
}

fn verdict(reason: &'static str) -> Verdict {
    Verdict { reason, message: "what came back".into() }
}

fn exposed_finding(status: &RegistryStatus) -> String {
    let found = condition::find(&status.conditions, condition::EXPOSED).expect("there is a condition");
    format!("{}/{}: {}", found.status, found.reason, found.message)
}

#[test]
fn exposed_is_true_only_when_an_upload_went_through_each_front() {
    let status = after(exposed);
    assert_eq!(
        exposed_finding(&status),
        "True/Proven: images.example.com (Ingress): an upload of 2 MiB went through; 192.0.2.1 (Service): an upload of 2 MiB \
         went through"
    );
    assert_eq!(status.external_addresses, ["images.example.com", "192.0.2.1"]);
    assert_eq!(condition::find(&after(|_| {}).conditions, condition::EXPOSED), None);
}

#[test]
fn each_trouble_outside_has_its_reason_and_leaves_the_registry_ready() {
    type Spoil = Box<dyn FnOnce(&mut Case)>;
    let judge = |reason: &'static str| -> Spoil {
        Box::new(move |case: &mut Case| case.observed.exposure.verdicts[0].1 = verdict(reason))
    };
    let cases: Vec<(Spoil, &str, &str)> = vec![
        (judge(reason::NOT_ROUTED), "False/NotRouted", "images.example.com (Ingress): what came back"),
        (judge(reason::UPLOAD_REFUSED), "False/UploadRefused", "what came back"),
        (Box::new(|case| case.observed.exposure.verdicts.clear()), "Unknown/Progressing", "about to be tried"),
        (Box::new(|case| case.observed.exposure.ingress = Found::Absent), "Unknown/Progressing", "being made"),
        (Box::new(|case| case.observed.exposure.ingress = Found::Foreign("x".into())), "False/NameTaken", "Ingress"),
        (Box::new(|case| case.observed.exposure.authority = Found::Foreign("x".into())), "False/NameTaken", "Secret"),
        (Box::new(|case| case.observed.exposure.service = Found::Foreign("x".into())), "False/NameTaken", "Service"),
        (
            Box::new(|case| case.observed.exposure.host_taken_by = Some("Ingress shop/web".into())),
            "False/HostTaken",
            "Ingress shop/web",
        ),
        (
            Box::new(|case| {
                case.observed.exposure.class = IngressClassFact::NoDefault(vec!["nginx".into()]);
                case.observed.exposure.verdicts[0].1 = verdict(reason::ADDRESS_PENDING);
            }),
            "False/IngressClassMissing",
            "existing classes: nginx",
        ),
        (
            Box::new(|case| {
                case.observed.exposure.class = IngressClassFact::Missing(Vec::new());
                case.observed.exposure.verdicts.remove(0);
            }),
            "False/IngressClassMissing",
            "there is none",
        ),
        (
            Box::new(|case| case.observed.exposure.service = Found::Ours(serde_json::from_value(json!({})).unwrap())),
            "False/AddressPending",
            "team-external",
        ),
        (
            Box::new(|case| case.failures = vec![api_failure("Ingress", "team-registry", 403)]),
            "False/Refused",
            "the reason the API server gave",
        ),
        (
            Box::new(|case| case.failures = vec![api_failure("Service", "team-external", 500)]),
            "False/Retrying",
            "team-external",
        ),
    ];
    for (spoil, expected, words) in cases {
        let status = after(|case| {
            exposed(case);
            spoil(case);
        });
        let found = exposed_finding(&status);
        assert!(found.starts_with(expected) && found.contains(words), "{expected}: {found}");
        assert!(brief(&status).starts_with("Ready=True"), "{expected}: {}", brief(&status));
    }
}

#[test]
fn a_class_that_is_missing_is_no_trouble_while_uploads_go_through() {
    let status = after(|case| {
        exposed(case);
        case.observed.exposure.class = IngressClassFact::NoDefault(Vec::new());
    });
    assert!(exposed_finding(&status).starts_with("True/Proven"));
}

#[test]
fn a_restart_keeps_the_word_of_the_last_proof_until_something_else_is_asked_for() {
    let proven = after(exposed);
    let after_restart = |change: fn(&mut Case)| {
        let old = proven.clone();
        after(|case| {
            exposed(case);
            case.observed.exposure.verdicts.clear();
            case.registry.status = Some(old);
            change(case);
        })
    };
    assert_eq!(after_restart(|_| {}).conditions, proven.conditions);
    let other = after_restart(|case| case.registry.metadata.generation = Some(2));
    assert!(exposed_finding(&other).starts_with("Unknown/Progressing"));
    let stopped = after_restart(|case| case.observed.deployment = Found::Ours(deployment(0)));
    assert!(exposed_finding(&stopped).starts_with("False/Progressing"));
    let suspended = after_restart(|case| case.registry.spec.suspend = true);
    assert!(exposed_finding(&suspended).starts_with("False/Suspended"));
}
