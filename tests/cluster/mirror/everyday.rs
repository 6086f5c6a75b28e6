//! What a Mirror is for: pods on all nodes start from images that came once, also when the registry is gone.

use serde_json::{Value, json};

use super::hub::{Hub, Pushed, is_node};
use super::pulls::{NODES, Way, forget_everywhere, pull_everywhere};
use super::stage::Stage;
use super::upstream::faults::Kind;
use crate::support::{Namespace, apply, attempt, eventually, get, kubectl};
use crate::turn::Alone;

/// Pods of an image, in turn on each node, until all run.
pub fn run_pods(namespace: &Namespace, name: &str, image: &str, count: usize) {
    let pods: Vec<Value> =
        (0..count).map(|number| pod(&namespace.name, &format!("{name}-{number}"), image, number)).collect();
    apply(&json!({"apiVersion": "v1", "kind": "List", "items": pods}).to_string());
    eventually(&format!("{count} pods run {image}"), || {
        let found = get(&["pods", "-n", &namespace.name, "-l", &format!("run={name}")])?;
        let running = found["items"].as_array()?.iter().filter(|pod| pod["status"]["phase"] == "Running").count();
        (running == count).then_some(())
    });
}

fn pod(namespace: &str, name: &str, image: &str, number: usize) -> Value {
    let run = name.rsplit_once('-').unwrap().0;
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"run": run}},
        "spec": {
            "nodeName": format!("node{}", NODES[number % NODES.len()]), "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main", "image": image, "imagePullPolicy": "Always", "command": ["/bin/busybox", "sleep", "3600"],
            }],
        },
    })
}

fn end_pods(namespace: &Namespace, name: &str) {
    kubectl(&["delete", "pods", "-n", &namespace.name, "-l", &format!("run={name}"), "--wait=true", "--timeout=60s"]);
}

/// Upstream was asked for each blob once, whole, and by no node.
pub fn came_once(hub: &Hub, pushed: &Pushed) {
    let around: Vec<_> =
        hub.asked().into_iter().filter(is_node).map(|seen| (seen.kind, seen.reference, seen.status)).collect();
    assert!(around.is_empty(), "asked by a node itself: {around:?}");
    for blob in pushed.image.blobs() {
        let sent = hub.upstream.sent(&blob.digest);
        assert!(sent.len() == 1 && sent[0].end == blob.bytes.len() as u64, "{}: {sent:?}", blob.digest);
    }
}

#[test]
#[ignore = "needs cluster"]
fn ten_pods_on_all_nodes_take_each_blob_once_and_nothing_when_it_is_gone() {
    let _alone = Alone::new();
    let namespace = Namespace::new("mirrored");
    let stage = Stage::new("everyday", &json!({}));
    let hub = &stage.hub;
    let pushed = hub.push("ten", &[100_000, 3_000_000, 8_000_000]);
    run_pods(&namespace, "first", &pushed.reference, 10);
    came_once(hub, &pushed);
    assert_eq!(hub.upstream.bytes_sent(), pushed.bytes());
    assert_eq!(hub.upstream.count(Kind::HeadTag) + hub.upstream.count(Kind::GetTag), 2, "{:?}", hub.upstream.asked());

    // The story that `kubectl get` tells.
    eventually("each node has proven that it pulls through the Mirror", || {
        let used = |node: &u8| {
            let runtime = get(&["noderuntime", &format!("node{node}")])?;
            let host =
                runtime["status"]["mirrors"].as_array()?.iter().find(|mirror| mirror["host"] == "docker.io")?.clone();
            (host["written"].is_string() && host["reachable"] == true && host["used"] == true).then_some(())
        };
        NODES.iter().all(|node| used(node).is_some()).then_some(())
    });
    eventually("the Mirror counts them", || {
        let nodes = stage.get()?["status"]["nodes"].clone();
        (nodes["able"] == 2 && nodes["total"] == 2 && nodes["used"] == 2 && nodes["bypassed"] == 0).then_some(())
    });
    stage.wait_for("UpstreamsReachable", "True/Reachable");

    // The second wave, on nodes that have forgotten all of it: from here on no byte comes from upstream.
    end_pods(&namespace, "first");
    forget_everywhere();
    hub.upstream.forget_seen();
    run_pods(&namespace, "second", &pushed.reference, 10);
    assert_eq!(hub.upstream.bytes_sent(), 0, "{:?}", hub.upstream.asked());
    end_pods(&namespace, "second");
    forget_everywhere();

    // And when there is nobody upstream.
    let cached = || pull_everywhere(Way::Configured, [&pushed.reference; 2], 60);
    let before = cached();
    forget_everywhere();
    hub.leave();
    let pulls = cached();
    forget_everywhere();
    run_pods(&namespace, "third", &pushed.reference, 10);
    hub.come_back();
    for (pull, before) in pulls.iter().zip(&before) {
        assert!(pull.problem.is_none(), "{pull:?}");
        assert!(pull.took.as_secs_f64() < before.took.as_secs_f64() + 1.0, "{pull:?} after {before:?}");
    }
    end_pods(&namespace, "third");

    // Who pulls without an agent has no business there.
    let service = get(&["service", &stage.pod(0), "-n", "wharf-system"]).unwrap();
    let address = service["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let target = format!("https://{address}/v2/library/ten/manifests/1?ns=docker.io");
    let status = ["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}"];
    let asked = |more: &[&str]| crate::support::client(&[&status[..], more, &[&target]].concat());
    assert_eq!(asked(&[]).unwrap(), "403");
    let token = kubectl(&["create", "token", "default", "-n", &namespace.name, "--audience=wharf.dev/mirror"]);
    assert_eq!(asked(&["-H", &format!("Wharf-Agent-Token: {}", token.trim())]).unwrap(), "403");
    let _ = attempt("kubectl", &["delete", "namespace", &namespace.name, "--wait=false"], "");
}
