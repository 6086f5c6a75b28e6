//! C2: a new process whose caches show the cluster as it was some time ago, with other objects under the same names, while
//! its writes and fresh reads reach the cluster as it is. What it does before its caches catch up must destroy nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::apiserver::Server;
use crate::world::{KINDS, Process, add_registry, cluster, moments, run_until_quiet, state};

/// Servers as they were before each write, in the order in which the writes came.
#[derive(Clone, Default)]
struct Past(Arc<Mutex<Vec<Server>>>);

impl Past {
    fn record(&self, server: &Server) {
        self.0.lock().unwrap().push(server.snapshot());
    }

    fn watch(&self, server: &Server) {
        let (past, recorded) = (self.clone(), server.clone());
        server.on_request(move |request| {
            if request.is_mutation() && !request.resource.starts_with("events") {
                past.record(&recorded);
            }
            None
        });
    }

    fn so_far(&self) -> Vec<Server> {
        self.0.lock().unwrap().clone()
    }
}

/// Objects by what a name means to whoever uses it: kind, namespace and name, with the UID. Shards of the node plan are
/// looked at by the hosts that they hold.
fn identities(server: &Server) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (kind, object) in KINDS.iter().flat_map(|kind| server.list(kind).into_iter().map(move |object| (kind, object)))
    {
        let metadata = &object["metadata"];
        let name = metadata["name"].as_str().unwrap();
        let is_shard = object["data"]["hosts.json"].is_string();
        if metadata["deletionTimestamp"].is_null() && !is_shard {
            let name = format!("{kind} {}/{name}", metadata["namespace"].as_str().unwrap_or(""));
            all.insert(name, metadata["uid"].as_str().unwrap().to_owned());
        }
    }
    all.extend(planned_hosts(server).into_iter().map(|host| (format!("entry {host}"), String::new())));
    all
}

/// The hosts that the node plan tells every node of.
fn planned_hosts(server: &Server) -> Vec<String> {
    let document = |name: &str, key: &str| {
        let map = server.get("ConfigMap", "wharf-nodes", name).unwrap_or_default();
        serde_json::from_str::<Value>(map["data"][key].as_str().unwrap_or("{}")).unwrap()
    };
    let index = document("wharf-node-plan", "index.json");
    let shards = index["shards"].as_array().cloned().unwrap_or_default();
    let hosts = |shard: &Value| {
        let shard = document(shard["name"].as_str().unwrap(), "hosts.json");
        shard["hosts"].as_object().into_iter().flatten().map(|(host, _)| host.clone()).collect::<Vec<_>>()
    };
    shards.iter().flat_map(hosts).collect()
}

/// Sizes of claims and replicas of Deployments: what must not become less.
fn sizes(server: &Server) -> BTreeMap<String, i128> {
    let claims = server.list("PersistentVolumeClaim").into_iter().map(|claim| {
        let size =
            claim["spec"]["resources"]["requests"]["storage"].as_str().unwrap().trim_end_matches("Gi").to_owned();
        (format!("claim {}", claim["metadata"]["name"]), size.parse().unwrap())
    });
    let deployments = server.list("Deployment").into_iter().map(|deployment| {
        let replicas = deployment["spec"]["replicas"].as_i64().unwrap();
        (format!("deployment {}", deployment["metadata"]["name"]), replicas.into())
    });
    claims.chain(deployments).collect()
}

/// A process starts on every view from before `server`'s present state.
async fn check(server: &Server, past: &Past, chapter: &str) -> usize {
    let (present, expected) = (identities(server), state(server));
    let views = past.so_far();
    for number in moments(views.len(), 8) {
        let old = &views[number];
        let what = format!("{chapter}, view {number} of {}", views.len());
        let live = server.snapshot();
        let (before, process) = (sizes(&live), Process::reading(old.client(), live.client()));
        for _round in 0..3 {
            process.round().await;
        }
        let after = identities(&live);
        for (name, uid) in &present {
            assert_eq!(after.get(name), Some(uid), "{what}: {name} is gone, or another one");
        }
        let shrunk = sizes(&live);
        assert!(before.iter().all(|(name, size)| shrunk[name] >= *size), "{what}: {before:?} became {shrunk:?}");
        // The caches catch up.
        run_until_quiet(&live, &live.connect()).await;
        for (name, object) in &expected {
            assert_eq!(state(&live).get(name), Some(object), "{what}: {name}");
        }
    }
    views.len()
}

async fn delete_registry(server: &Server) {
    let api = kube::Api::<wharf::api::Registry>::namespaced(server.client(), "platform");
    api.delete("team", &DeleteParams::default()).await.unwrap();
}

#[tokio::test]
async fn c2_nothing_of_another_identity_is_touched() {
    let past = Past::default();
    let server = cluster(&json!({"storage": {"deletionPolicy": "Delete"}}));
    past.watch(&server);
    let converge = async || run_until_quiet(&server, &server.connect()).await;
    converge().await;
    let mut runs = check(&server, &past, "the first Registry").await;

    // It goes with its images, and another one of its name keeps its own.
    delete_registry(&server).await;
    converge().await;
    assert!(server.get("PersistentVolumeClaim", "platform", "team-registry").is_none());
    past.record(&server);
    add_registry(&server, &json!({"podTemplate": {"labels": {"a": "b"}}}));
    converge().await;
    runs += check(&server, &past, "the second Registry").await;

    // Children are made again under their names, and the volume grows.
    server.remove("Deployment", "platform", "team-registry");
    server.remove("Service", "platform", "team");
    server.remove("Secret", "platform", "team-pull");
    server.set("Registry", "platform", "team", |registry| {
        registry["spec"]["storage"] = json!({"claim": {"size": "30Gi"}, "deletionPolicy": "Retain"});
    });
    converge().await;
    runs += check(&server, &past, "children made again").await;

    // The Registry goes and its images stay for the third one.
    delete_registry(&server).await;
    converge().await;
    assert!(server.get("PersistentVolumeClaim", "platform", "team-registry").is_some());
    past.record(&server);
    add_registry(&server, &json!({"storage": {"deletionPolicy": "Delete"}}));
    converge().await;
    runs += check(&server, &past, "the third Registry").await;
    println!("{runs} old views");
}

/// The policy was `Delete` when the caches were filled, and the Registry was being deleted: since then both changed.
#[tokio::test]
async fn c2_a_policy_that_was_taken_back_deletes_nothing() {
    let server = cluster(&json!({"storage": {"deletionPolicy": "Delete"}}));
    run_until_quiet(&server, &server.connect()).await;
    delete_registry(&server).await;
    let old = server.snapshot();
    server.set("Registry", "platform", "team", |registry| {
        registry["spec"]["storage"]["deletionPolicy"] = json!("Retain");
    });
    Process::reading(old.client(), server.client()).round().await;
    assert!(server.get("PersistentVolumeClaim", "platform", "team-registry").is_some());
    assert!(server.get("Registry", "platform", "team").is_none(), "the finalizer hangs");
}

/// Somebody's own claim stands where the one of an old view stood.
#[tokio::test]
async fn c2_a_claim_of_somebody_else_is_not_deleted() {
    let server = cluster(&json!({"storage": {"deletionPolicy": "Delete"}}));
    run_until_quiet(&server, &server.connect()).await;
    delete_registry(&server).await;
    let old = server.snapshot();
    let theirs = server.get("PersistentVolumeClaim", "platform", "team-registry").unwrap();
    server.remove("PersistentVolumeClaim", "platform", "team-registry");
    let theirs = server.add(&json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        // Restored from a copy: the labels are ours, and the annotation names another Registry.
        "metadata": {
            "name": "team-registry", "namespace": "platform", "labels": theirs["metadata"]["labels"],
            "annotations": {"wharf.dev/registry-uid": "another"},
        },
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "20Gi"}}},
    }));
    Process::reading(old.client(), server.client()).round().await;
    let found = server.get("PersistentVolumeClaim", "platform", "team-registry");
    assert_eq!(found.map(|claim| claim["metadata"]["uid"].clone()), Some(theirs["metadata"]["uid"].clone()));
}
