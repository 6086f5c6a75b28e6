//! C7: valid nonsense and a cluster that lacks something. Every reason that a condition of a Registry can carry is produced
//! here, by what brings it about in a cluster: what ran goes on, the status comes to rest, and it heals when the cause goes.

mod exposure;
mod storage;

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use wharf::operator::volume::{Level, VolumeUse};

use crate::apiserver::{Fault, Server};
use crate::world::{Process, add_named_registry, cluster, everybody_else, run_until_quiet};

/// How a reason comes about, and how the cause goes.
struct Case {
    reason: &'static str,
    /// The condition that carries it, and its status.
    condition: (&'static str, &'static str),
    spec: Value,
    /// Whether the cause is there before the operator's first pass, and not only when the Registry serves.
    from_the_start: bool,
    spoil: fn(&Server, &Process),
    heal: fn(&Server, &Process),
}

const CLAIM: (&str, &str, &str) = ("PersistentVolumeClaim", "platform", "team-registry");
const DEPLOYMENT: (&str, &str, &str) = ("Deployment", "platform", "team-registry");

fn set(server: &Server, (kind, namespace, name): (&str, &str, &str), change: impl FnOnce(&mut Value)) {
    server.set(kind, namespace, name, change);
}

fn set_registry(server: &Server, change: impl FnOnce(&mut Value)) {
    server.set("Registry", "platform", "team", change);
}

fn leave(_: &Server, _: &Process) {}

/// Nobody else has to do anything for it to heal but what they always do.
fn case(reason: &'static str, condition: (&'static str, &'static str), spoil: fn(&Server, &Process)) -> Case {
    Case { reason, condition, spec: json!({}), from_the_start: false, spoil, heal: leave }
}

fn no_pod_answers(server: &Server) {
    set(server, DEPLOYMENT, |deployment| deployment["status"]["availableReplicas"] = Value::Null);
}

fn pod(server: &Server, node: &str, status: &Value) {
    server.add(&json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "team-registry-1", "namespace": "platform",
            "labels": {"app.kubernetes.io/name": "registry", "app.kubernetes.io/instance": "team"},
        },
        "spec": {
            "nodeName": node,
            "containers": [{"name": "registry", "image": "i"}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "team-registry"}}],
        },
        "status": status,
    }));
}

fn note(server: &Server, process: &Process, level: Level) {
    let registry = server.get("Registry", "platform", "team").unwrap();
    let _ = process.volumes.note(&serde_json::from_value(registry).unwrap(), VolumeUse { used_percent: 90, level });
}

fn pod_cases() -> Vec<Case> {
    let available = |status| ("Available", status);
    vec![
        case("PodReady", available("True"), leave),
        case("PodStarting", available("False"), |server, _| no_pod_answers(server)),
        Case {
            heal: |server, _| server.remove("Pod", "platform", "team-registry-1"),
            ..case("PodFailing", available("False"), |server, _| {
                no_pod_answers(server);
                server.set("Node", "", "a", |node| {
                    node["status"] = json!({"conditions": [{"type": "Ready", "status": "True"}]});
                });
                let state = json!({"waiting": {"reason": "CrashLoopBackOff"}});
                pod(
                    server,
                    "a",
                    &json!({"containerStatuses": [
                        {"name": "registry", "image": "i", "imageID": "", "ready": false, "restartCount": 3, "state": state},
                    ]}),
                );
            })
        },
        Case {
            heal: |server, _| server.remove("Pod", "platform", "team-registry-1"),
            ..case("AttachedElsewhere", available("False"), |server, _| {
                no_pod_answers(server);
                pod(server, "gone", &json!({}));
            })
        },
        Case {
            heal: |server, _| set_registry(server, |registry| registry["spec"]["suspend"] = json!(false)),
            ..case("Suspended", available("False"), |server, _| {
                set_registry(server, |registry| registry["spec"]["suspend"] = json!(true));
            })
        },
    ]
}

fn other_cases() -> Vec<Case> {
    vec![
        case("Ready", ("Ready", "True"), leave),
        case("Attached", ("PullSecretsReady", "True"), leave),
        case("AllNodes", ("NodesConfigured", "True"), leave),
        Case {
            heal: |server, _| server.remove("Service", "platform", "team"),
            from_the_start: true,
            ..case("NameTaken", ("Available", "False"), |server, _| {
                server.add(&json!({
                    "apiVersion": "v1", "kind": "Service", "metadata": {"name": "team", "namespace": "platform"},
                    "spec": {"ports": [{"port": 80}]},
                }));
            })
        },
        Case {
            heal: |server, _| server.heal(),
            ..case("Refused", ("Available", "False"), |server, _| change_under(server, 403, "Forbidden"))
        },
        Case {
            heal: |server, _| server.heal(),
            ..case("Retrying", ("Available", "False"), |server, _| change_under(server, 503, "ServiceUnavailable"))
        },
        Case {
            spec: json!({"pullSecrets": {"serviceAccounts": ["default", "builder"]}}),
            from_the_start: true,
            heal: |server, _| {
                server.add(&json!({
                    "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "builder", "namespace": "platform"},
                }));
            },
            ..case("ServiceAccountMissing", ("PullSecretsReady", "False"), leave)
        },
        case("SomeNodes", ("NodesConfigured", "False"), |server, _| {
            server.set("NodeRuntime", "", "b", |runtime| runtime["status"]["planRevision"] = json!(1));
        }),
        Case {
            heal: |server, _| {
                server.add(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}}));
            },
            ..case("NoAgents", ("NodesConfigured", "Unknown"), |server, _| {
                for name in ["a", "b"] {
                    server.remove("Node", "", name);
                }
                server.collect_garbage();
            })
        },
    ]
}

/// Specs that the schema takes and that cannot be: the pod is refused in each, or no pod could ever start.
fn nonsense() -> Vec<Case> {
    let needs = |resources: Value| json!({"podTemplate": {"resources": resources}});
    let refused = |spec| Case {
        spec,
        from_the_start: true,
        heal: |server, _| set_registry(server, |registry| registry["spec"]["podTemplate"] = json!({})),
        ..case("Refused", ("Available", "False"), leave)
    };
    vec![
        // More than may be used.
        refused(needs(json!({"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}))),
        refused(needs(json!({"requests": {"memory": "-1Gi"}}))),
        // Also while it serves: what runs goes on.
        Case {
            heal: |server, _| set_registry(server, |registry| registry["spec"]["podTemplate"] = json!({})),
            ..case("Refused", ("Available", "False"), |server, _| {
                set_registry(server, |registry| {
                    registry["spec"]["podTemplate"] =
                        json!({"resources": {"requests": {"cpu": "3"}, "limits": {"cpu": "2"}}});
                });
            })
        },
    ]
}

/// A change of the pod that the API server does not take.
fn change_under(server: &Server, code: u16, reason: &'static str) {
    server.on_request(move |request| {
        let of_pods = request.verb == "patch" && request.resource == "deployments.apps";
        of_pods.then_some(Fault::Status { code, reason, retry_after: None })
    });
    set_registry(server, |registry| registry["spec"]["podTemplate"]["labels"] = json!({"team": "blue"}));
}

fn cases() -> Vec<Case> {
    let all =
        [storage::cases(), storage::cases_from_the_start(), pod_cases(), other_cases(), nonsense(), exposure::cases()];
    all.into_iter().flatten().collect()
}

/// Conditions by type, as `status/reason`.
fn told(server: &Server, kind: &str) -> (String, String) {
    let registry = server.get("Registry", "platform", "team").unwrap();
    let conditions = registry["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == kind).cloned().unwrap_or_default();
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (format!("{}/{}", text("status"), text("reason")), text("message"))
}

async fn check(case: &Case) {
    let reason = case.reason;
    let server = cluster(&case.spec);
    let process = Process::start(server.client());
    if !case.from_the_start {
        process.until_quiet(&server).await;
        assert_eq!(told(&server, "Ready").0, "True/Ready", "{reason}: before the cause");
    }
    let running = server.get("Deployment", "platform", "team-registry");
    (case.spoil)(&server, &process);
    if case.from_the_start && reason != "Progressing" {
        process.until_quiet(&server).await;
    }
    // Nobody else does anything meanwhile, or they would mend it.
    process.round().await;
    let (kind, status) = case.condition;
    let expected = format!("{status}/{reason}");
    if reason != "Progressing" {
        process.round().await;
        process.round().await;
        let version = |server: &Server| {
            server.get("Registry", "platform", "team").unwrap()["metadata"]["resourceVersion"].clone()
        };
        let before = version(&server);
        process.round().await;
        assert_eq!(version(&server), before, "{reason}: the status does not come to rest");
    }
    let (found, message) = told(&server, kind);
    assert_eq!(found, expected, "{message}");
    assert!(!message.is_empty(), "{reason} says nothing");
    // What only tells of the nodes, of beyond the cluster, or of something that works all the same, leaves the Registry ready.
    if status == "False" && !["NodesConfigured", "Exposed"].contains(&kind) {
        assert_eq!(told(&server, "Ready").0, format!("False/{reason}"), "{}", told(&server, "Ready").1);
    }
    if let Some(running) = running {
        let now = server.get("Deployment", "platform", "team-registry").unwrap();
        assert_eq!(now["metadata"]["uid"], running["metadata"]["uid"], "{reason}: what ran was replaced");
        let replicas = |deployment: &Value| deployment["spec"]["replicas"].clone();
        assert!(reason == "Suspended" || replicas(&now) == replicas(&running), "{reason}: what ran was stopped");
    }
    (case.heal)(&server, &process);
    everybody_else(&server);
    process.until_quiet(&server).await;
    let (ready, message) = told(&server, "Ready");
    assert_eq!(ready, "True/Ready", "{reason} does not heal: {message}");
    assert!(kind != "Exposed" || told(&server, kind).0 != expected, "{reason} does not heal");
}

#[tokio::test]
async fn c7_every_reason_comes_about_and_heals() {
    for case in cases() {
        check(&case).await;
    }
}

/// Reasons that no condition of a Registry carries, or that this suite cannot bring about, and a test that shows them.
const SHOWN_ELSEWHERE: [(&str, &str, &str); 49] = [
    ("Serving", "src/agent/status/tests.rs", "SERVING"),
    ("PortInUse", "src/agent/status/tests.rs", "PORT_IN_USE"),
    ("Disabled", "src/agent/status/tests.rs", "DISABLED"),
    ("EndpointFailed", "src/agent/status/tests.rs", "ENDPOINT_FAILED"),
    ("Unreachable", "src/agent/status/tests.rs", "UNREACHABLE"),
    ("Loop", "tests/convergence/mirrors.rs", "False/Loop"),
    ("UpstreamInvalid", "tests/convergence/mirrors.rs", "False/UpstreamInvalid"),
    ("CredentialsMissing", "tests/convergence/mirrors.rs", "False/CredentialsMissing"),
    ("EndpointNotAllowed", "tests/convergence/mirrors.rs", "False/EndpointNotAllowed"),
    ("AuthorityMissing", "tests/convergence/mirrors.rs", "False/AuthorityMissing"),
    ("Reachable", "src/operator/mirror/status/tests.rs", "True/Reachable"),
    ("RateLimited", "src/operator/mirror/status/tests.rs", "False/RateLimited"),
    ("Failing", "src/operator/mirror/status/tests.rs", "False/Failing"),
    ("CredentialsRejected", "src/operator/mirror/status/tests.rs", "False/CredentialsRejected"),
    ("NotReported", "src/operator/mirror/status/tests.rs", "Unknown/NotReported"),
    ("Caching", "src/operator/mirror/status/tests.rs", "True/Caching"),
    ("CacheFailing", "src/operator/mirror/status/tests.rs", "False/CacheFailing"),
    ("CacheTooSmall", "src/operator/mirror/status/tests.rs", "False/CacheTooSmall"),
    ("BlobTooLarge", "src/operator/mirror/status/tests.rs", "False/BlobTooLarge"),
    ("Bypassed", "src/operator/mirror/status/tests.rs", "False/Bypassed"),
    ("Pending", "src/api/condition.rs", "PENDING"),
    ("Configured", "src/agent/pass/tests.rs", "CONFIGURED"),
    ("Exceptions", "src/agent/pass/tests.rs", "EXCEPTIONS"),
    ("Conflict", "src/agent/files/tests.rs", "CONFLICT"),
    ("Unsupported", "src/agent/pass/tests.rs", "UNSUPPORTED"),
    ("ConfigPathUnset", "src/agent/pass/tests.rs", "CONFIG_PATH_UNSET"),
    ("ConfigurationUnreadable", "src/agent/pass/tests.rs", "CONFIGURATION_UNREADABLE"),
    ("WriteFailed", "src/agent/pass/tests.rs", "WRITE_FAILED"),
    ("AuthorityRotation", "tests/rotation/requests.rs", "AuthorityRotation"),
    ("CertificateNotRenewed", "tests/rotation/requests.rs", "CertificateNotRenewed"),
    ("StorageDeleted", "tests/convergence/reasons.rs", "StorageDeleted"),
    ("ClaimAdopted", "tests/convergence/reasons.rs", "ClaimAdopted"),
    ("CertificateIssued", "tests/convergence/reasons.rs", "CertificateIssued"),
    ("Contested", "tests/convergence/contest.rs", "Contested"),
    ("Proven", "src/operator/registry/status/tests/exposed.rs", "True/Proven"),
    ("IngressClassMissing", "src/operator/registry/status/tests/exposed.rs", "False/IngressClassMissing"),
    ("HostTaken", "tests/convergence/exposure.rs", "False/HostTaken"),
    ("AddressPending", "src/operator/registry/status/tests/exposed.rs", "False/AddressPending"),
    ("FrontUnreachable", "src/operator/front/probe/tests.rs", "FrontUnreachable"),
    ("CertificateNotTrusted", "src/operator/front/probe/tests.rs", "CertificateNotTrusted"),
    ("NotRouted", "src/operator/front/probe/tests.rs", "NotRouted"),
    ("BackendUnreachable", "src/operator/front/probe/tests.rs", "BackendUnreachable"),
    ("UploadRefused", "src/operator/front/probe/tests.rs", "UploadRefused"),
    ("Malformed", "tests/cluster/troubles.rs", "True/Malformed"),
    ("HostsGranted", "tests/convergence/names.rs", "True/HostsGranted"),
    ("HostNotAllowed", "tests/convergence/names.rs", "False/HostNotAllowed"),
    ("QuotaExceeded", "tests/convergence/names.rs", "True/QuotaExceeded"),
    ("NodesNotConfirmed", "tests/convergence/departures.rs", "NodesNotConfirmed"),
    ("Published", "tests/convergence/bundles.rs", "True/Published"),
];

#[test]
fn every_reason_is_produced_by_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let constants = read("src/api/reason.rs")
        + &read("src/api/condition.rs").lines().filter(|line| line.contains("PENDING: ")).collect::<String>();
    let all: BTreeSet<&str> = constants
        .lines()
        .filter(|line| line.starts_with("pub const ") && line.contains('"'))
        .filter_map(|line| line.split('"').nth(1))
        .collect();
    let here: BTreeSet<&str> = cases().iter().map(|case| case.reason).collect();
    for (reason, path, word) in SHOWN_ELSEWHERE {
        assert!(read(path).contains(word), "{path} does not show {reason}");
        assert!(!here.contains(reason), "{reason} is shown twice");
    }
    let shown: BTreeSet<&str> = here.into_iter().chain(SHOWN_ELSEWHERE.map(|(reason, _, _)| reason)).collect();
    assert_eq!(all, shown, "reasons of src/api/reason.rs, and those that a test shows");
}

#[tokio::test]
async fn events_tell_what_happened_to_images_and_certificates() {
    let server = cluster(&json!({"storage": {"deletionPolicy": "Delete"}}));
    let told = |server: &Server, reason: &str| {
        let requests = server.mutations();
        requests.iter().any(|request| request.resource.starts_with("events") && request.body["reason"] == reason)
    };
    run_until_quiet(&server, &server.connect()).await;
    assert!(told(&server, "CertificateIssued") && !told(&server, "ClaimAdopted"));
    set_registry(&server, |registry| registry["spec"]["storage"]["deletionPolicy"] = json!("Retain"));
    run_until_quiet(&server, &server.connect()).await;
    server.remove("Registry", "platform", "team");
    run_until_quiet(&server, &server.connect()).await;
    add_named_registry(&server, "team", &json!({"storage": {"deletionPolicy": "Delete"}}));
    run_until_quiet(&server, &server.connect()).await;
    assert!(told(&server, "ClaimAdopted") && !told(&server, "StorageDeleted"));
    server.remove("Registry", "platform", "team");
    run_until_quiet(&server, &server.connect()).await;
    assert!(told(&server, "StorageDeleted"));
}
