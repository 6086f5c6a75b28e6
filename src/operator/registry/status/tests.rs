//! Each trouble of a Registry, and what its status says of it.

mod exposed;
mod limits;
mod nodes;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::*;
use crate::api::registry::{Engine, UsageStatus};
use crate::operator::apply::Contest;
use crate::operator::call::{Action, Cause, Target};
use crate::operator::front::{Verdict, Way};
use crate::operator::registry::fixture;
use crate::operator::registry::observe::{ClassTraits, Found, FoundClaim, IngressClassFact, StorageClassFact};
use crate::operator::registry::validate::{obstacles, shortcomings};
use crate::operator::volume::{Level, VolumeUse};
use crate::volume::Images;

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
    beyond_quota: Option<u32>,
}

/// The status after one thing of a serving Registry was spoilt.
fn after(spoil: impl FnOnce(&mut Case)) -> RegistryStatus {
    let registry = fixture::team("{}");
    let names = fixture::names(&registry);
    let mut case = Case {
        observed: serving(&names),
        registry,
        failures: Vec::new(),
        attachments: vec![Attachment::Attached],
        beyond_quota: None,
    };
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
        beyond_quota: case.beyond_quota,
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
            Box::new(|case| {
                let target = Target::new("ServiceAccount", "platform", "default");
                let (managers, fields) = (vec!["argocd".into()], vec!["imagePullSecrets".into()]);
                case.attachments = vec![Attachment::Contested(Contest { target, managers, fields })];
            }),
            "PullSecretsReady",
            "Stalled/Contested",
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
            &Outcome {
                registry,
                names: &names,
                observed,
                problems: &[],
                failures: &[],
                attachments: &attachments,
                beyond_quota: None,
            },
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
fn a_cluster_that_cannot_be_looked_at_leaves_readiness_unknown() {
    let mut registry = fixture::team("{}");
    registry.status = Some(after(|_| {}));
    registry.metadata = ObjectMeta { generation: Some(2), ..registry.metadata };
    let status = unobserved(&registry, &api_failure("pods", "", 500), NOW);
    assert!(brief(&status).starts_with("Ready=Unknown/Retrying StorageReady=True"), "{}", brief(&status));
    assert!(status.conditions[0].message.contains("the reason the API server gave"));
}

#[test]
fn what_images_take_is_told_where_the_engine_tells_it() {
    let known = |bytes| Some(Images { bytes, repositories: 3 });
    let told = |bytes| Some(UsageStatus { bytes, repositories: 3 });
    let of = |engine, observed, before| {
        let status = after(|case| {
            case.registry.spec.engine = engine;
            case.registry.status = Some(RegistryStatus { usage: before, ..RegistryStatus::default() });
            case.observed.images = observed;
        });
        status.usage
    };
    assert_eq!(of(Engine::Wharf, known(1_200), None), told(1_200));
    assert_eq!(of(Engine::Wharf, known(1_200), told(7)), told(1_200));
    assert_eq!(of(Engine::Wharf, None, told(7)), told(7), "a new operator has not asked yet");
    assert_eq!(of(Engine::Wharf, None, None), None);
    assert_eq!(of(Engine::Distribution, known(1_200), told(7)), None, "what was true of the other engine");
}
