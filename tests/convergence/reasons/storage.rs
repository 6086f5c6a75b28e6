//! What can be said of a Registry's storage.

use serde_json::{Value, json};
use wharf::operator::volume::Level;

use super::{CLAIM, Case, case, leave, note, set, set_registry};
use crate::apiserver::Server;
use crate::world::add_named_registry;

pub fn cases() -> Vec<Case> {
    let storage = |status| ("StorageReady", status);
    let bucket = json!({"engine": "Distribution", "storage": {"s3": {"bucket": "images"}}});
    vec![
        case("Bound", storage("True"), leave),
        Case { spec: bucket.clone(), ..case("ObjectStore", storage("True"), leave) },
        case("ClaimPending", storage("False"), |server, _| {
            set(server, CLAIM, |claim| claim["status"] = json!({"phase": "Pending"}));
        }),
        case("ClaimLost", storage("False"), |server, _| {
            set(server, CLAIM, |claim| claim["status"] = json!({"phase": "Lost"}));
        }),
        Case {
            heal: |server, _| set(server, CLAIM, |claim| claim["metadata"]["finalizers"] = json!([])),
            ..case("ClaimDeleting", storage("False"), |server, _| {
                set(server, CLAIM, |claim| claim["metadata"]["finalizers"] = json!(["kubernetes.io/pvc-protection"]));
                server.remove(CLAIM.0, CLAIM.1, CLAIM.2);
            })
        },
        case("Expanding", storage("True"), |server, _| {
            set_registry(server, |registry| registry["spec"]["storage"]["claim"]["size"] = json!("30Gi"));
        }),
        Case {
            heal: |server, _| {
                server.set("StorageClass", "", "standard", |class| class["allowVolumeExpansion"] = json!(true));
            },
            ..case("ExpansionUnsupported", storage("False"), |server, _| {
                server.set("StorageClass", "", "standard", |class| class["allowVolumeExpansion"] = json!(false));
                set_registry(server, |registry| registry["spec"]["storage"]["claim"]["size"] = json!("30Gi"));
            })
        },
        case("ExpansionFailed", storage("False"), |server, _| {
            set_registry(server, |registry| registry["spec"]["storage"]["claim"]["size"] = json!("30Gi"));
            set(server, CLAIM, |claim| {
                claim["status"]["allocatedResourceStatuses"] = json!({"storage": "ControllerResizeInfeasible"});
            });
        }),
        Case {
            heal: |server, process| note(server, process, Level::Roomy),
            ..case("NearlyFull", storage("True"), |server, process| note(server, process, Level::NearlyFull))
        },
        Case {
            heal: |server, process| note(server, process, Level::Roomy),
            ..case("Full", storage("False"), |server, process| note(server, process, Level::Full))
        },
        Case {
            spec: bucket,
            heal: |server, _| server.remove("Registry", "platform", "alpha"),
            ..case("StorageTaken", storage("False"), |server, _| {
                server.set_time("2029-01-01T00:00:00Z");
                add_named_registry(
                    server,
                    "alpha",
                    &json!({"engine": "Distribution", "storage": {"s3": {"bucket": "images"}}}),
                );
            })
        },
    ]
}

pub fn cases_from_the_start() -> Vec<Case> {
    let start =
        |reason, spec, spoil| Case { spec, from_the_start: true, ..case(reason, ("StorageReady", "False"), spoil) };
    vec![
        Case {
            heal: |server, _| {
                server.add(&json!({
                    "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "missing"}, "provisioner": "p",
                }));
            },
            ..start("StorageClassMissing", json!({"storage": {"claim": {"storageClassName": "missing"}}}), leave)
        },
        Case {
            heal: |server, _| {
                server.set("StorageClass", "", "standard", |class| {
                    class["metadata"]["annotations"] = json!({"storageclass.kubernetes.io/is-default-class": "true"});
                });
            },
            ..start("NoDefaultStorageClass", json!({}), |server, _| {
                server.set("StorageClass", "", "standard", |class| class["metadata"]["annotations"] = Value::Null);
            })
        },
        Case {
            heal: |server, _| server.remove(CLAIM.0, CLAIM.1, CLAIM.2),
            ..start("ClaimNotOurs", json!({}), |server, _| given_claim(server, "team-registry"))
        },
        Case {
            heal: |server, _| given_claim(server, "given"),
            ..start("ClaimMissing", json!({"storage": {"existingClaimName": "given"}}), leave)
        },
        Case {
            heal: |server, _| server.remove("Pod", "platform", "theirs"),
            ..start("ClaimInUse", json!({"storage": {"existingClaimName": "given"}}), |server, _| {
                given_claim(server, "given");
                server.add(&json!({
                    "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "theirs", "namespace": "platform"},
                    "spec": {
                        "containers": [{"name": "a", "image": "i"}],
                        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "given"}}],
                    },
                }));
            })
        },
        start("Progressing", json!({}), leave),
    ]
}

fn given_claim(server: &Server, name: &str) {
    server.add(&json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "platform"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }));
}
