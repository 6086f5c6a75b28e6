//! What becomes of data and of others' objects when Registries come and go.

use serde_json::{Value, json};

use crate::apiserver::Server;
use crate::world::{add_registry, cluster, run_until_quiet};

async fn converge(server: &Server) {
    run_until_quiet(server, &server.connect()).await;
}

async fn delete_registry(server: &Server) {
    let api = kube::Api::<wharf::api::Registry>::namespaced(server.client(), "platform");
    api.delete("team", &kube::api::DeleteParams::default()).await.unwrap();
}

fn claim(server: &Server) -> Option<Value> {
    server.get("PersistentVolumeClaim", "platform", "team-registry")
}

#[tokio::test]
async fn retain_keeps_the_claim_and_the_next_registry_takes_it_over() {
    let server = cluster(&json!({}));
    converge(&server).await;
    let before = claim(&server).unwrap();
    delete_registry(&server).await;
    converge(&server).await;
    assert!(server.get("Deployment", "platform", "team-registry").is_none(), "children go with their Registry");
    assert_eq!(claim(&server).unwrap()["metadata"]["uid"], before["metadata"]["uid"]);
    let account = server.get("ServiceAccount", "platform", "default").unwrap();
    assert!(account.get("imagePullSecrets").is_none_or(Value::is_null), "{account}");
    add_registry(&server, &json!({}));
    converge(&server).await;
    let after = claim(&server).unwrap();
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    let registry = server.get("Registry", "platform", "team").unwrap();
    assert_eq!(after["metadata"]["annotations"]["wharf.dev/registry-uid"], registry["metadata"]["uid"]);
    assert_eq!(registry["status"]["conditions"][0]["status"], "True");
}

#[tokio::test]
async fn delete_deletes_the_claim_of_this_registry_only() {
    let server = cluster(&json!({"storage": {"deletionPolicy": "Delete"}}));
    converge(&server).await;
    // Somebody put another claim in its place: same name, another identity.
    server.remove("PersistentVolumeClaim", "platform", "team-registry");
    server.add(&json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "team-registry", "namespace": "platform"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }));
    delete_registry(&server).await;
    converge(&server).await;
    assert!(claim(&server).is_some(), "a claim of somebody else was deleted");
    assert!(server.get("Registry", "platform", "team").is_none(), "the finalizer hangs");

    let server = cluster(&json!({"storage": {"deletionPolicy": "Delete"}}));
    converge(&server).await;
    delete_registry(&server).await;
    converge(&server).await;
    assert!(claim(&server).is_none());
    assert!(server.get("Registry", "platform", "team").is_none());
}

#[tokio::test]
async fn a_policy_changed_at_the_last_moment_keeps_the_claim() {
    let server = cluster(&json!({"storage": {"deletionPolicy": "Delete"}}));
    converge(&server).await;
    delete_registry(&server).await;
    // The operator's cache still says Delete when it begins; the fresh read says Retain.
    let rival = server.clone();
    server.on_request(move |request| {
        if request.verb == "get" && request.resource == "registries.wharf.dev" {
            rival.set("Registry", "platform", "team", |registry| {
                registry["spec"]["storage"]["deletionPolicy"] = json!("Retain");
            });
        }
        None
    });
    converge(&server).await;
    assert!(claim(&server).is_some());
    assert!(server.get("Registry", "platform", "team").is_none());
}

#[tokio::test]
async fn what_the_registry_no_longer_wants_is_removed() {
    let server = cluster(&json!({}));
    converge(&server).await;
    let registry = server.get("Registry", "platform", "team").unwrap();
    let owned = |owner: &Value| {
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": "team-of-an-older-version",
                "namespace": "platform",
                "labels": {"app.kubernetes.io/managed-by": "wharf", "app.kubernetes.io/instance": "team"},
                "ownerReferences": [{"apiVersion": "wharf.dev/v1alpha1", "kind": "Registry", "name": "team", "uid": owner["metadata"]["uid"]}],
            },
        })
    };
    server.add(&owned(&registry));
    server.add(&json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "theirs", "namespace": "platform", "labels": {"app.kubernetes.io/managed-by": "wharf"}},
    }));
    converge(&server).await;
    assert!(server.get("ConfigMap", "platform", "team-of-an-older-version").is_none());
    assert!(server.get("ConfigMap", "platform", "theirs").is_some(), "what the Registry does not own stays");
}
