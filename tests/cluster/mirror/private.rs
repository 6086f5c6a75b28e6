//! Images that are not for everybody: who may have them upstream gets them from the Mirror, and nobody else does.

use serde_json::json;

use super::everyday::{came_once, run_pods};
use super::pulls::{NODES, forget_everywhere};
use super::stage::Stage;
use super::upstream::content::Readers;
use crate::support::{Namespace, apply, eventually, kubectl, pod_manifest};
use crate::turn::Alone;

fn pull_secret(namespace: &Namespace, user: &str, password: &str) {
    let arguments = [
        "create",
        "secret",
        "docker-registry",
        "hub",
        "-n",
        &namespace.name,
        "--docker-server=https://index.docker.io/v1/",
        &format!("--docker-username={user}"),
        &format!("--docker-password={password}"),
    ];
    kubectl(&arguments);
    eventually("the service account takes it", || {
        namespace.get("serviceaccount", "default")?;
        let patch = json!({"imagePullSecrets": [{"name": "hub"}]}).to_string();
        kubectl(&["patch", "serviceaccount", "default", "-n", &namespace.name, "-p", &patch]);
        Some(())
    });
}

/// A pod on each node is refused the image, by the registry's word.
fn is_refused(namespace: &Namespace, image: &str) {
    for node in NODES {
        apply(&pod_manifest(&namespace.name, &format!("thief-{node}"), image, &format!("node{node}")));
    }
    for node in NODES {
        eventually("the pull is refused", || {
            let pod = namespace.get("pod", &format!("thief-{node}"))?;
            assert_ne!(pod["status"]["phase"], "Running", "{pod}");
            let waiting = pod.pointer("/status/containerStatuses/0/state/waiting")?.clone();
            let message = waiting["message"].as_str().unwrap_or_default().to_owned();
            // What each runtime makes of 401 and 403.
            ["authorization failed", "denied", "401 Unauthorized", "403 Forbidden"]
                .iter()
                .any(|words| message.contains(words))
                .then_some(())
        });
    }
}

#[test]
#[ignore = "needs cluster"]
fn a_private_image_is_for_those_who_may_have_it_upstream() {
    let _alone = Alone::new();
    let [owner, other, stranger] = ["private-owner", "private-other", "private-stranger"].map(Namespace::new);
    let stage = Stage::new("private", &json!({}));
    let pushed = stage.hub.push_for("secret", &[100_000], Readers::Only(vec!["alice".to_owned()]));
    pull_secret(&owner, "alice", "alice-secret");
    pull_secret(&other, "bob", "bob-secret");
    run_pods(&owner, "own", &pushed.reference, 4);
    came_once(&stage.hub, &pushed);
    // It is in the cache now, and on both nodes.
    is_refused(&stranger, &pushed.reference);
    is_refused(&other, &pushed.reference);
    // Also where no node has it.
    for namespace in [&owner, &other, &stranger] {
        kubectl(&["delete", "pods", "--all", "-n", &namespace.name, "--wait=true", "--timeout=60s"]);
    }
    forget_everywhere();
    stage.hub.upstream.forget_seen();
    is_refused(&stranger, &pushed.reference);
    is_refused(&other, &pushed.reference);
    let before = stage.hub.upstream.bytes_sent();
    run_pods(&owner, "again", &pushed.reference, 4);
    assert_eq!((before, stage.hub.upstream.bytes_sent()), (0, 0));
}
