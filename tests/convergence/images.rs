//! What the operator makes of the images that pods run: the list for the caches, and who passes a Mirror by.

use std::time::Duration;

use serde_json::{Value, json};
use wharf::operator::apply::Applier;
use wharf::operator::images::{MANAGER, Survey};
use wharf::operator::metrics::Metrics;

use crate::apiserver::{Fault, Server};
use crate::world::{Process, cluster, now};

const WRITTEN: &str = "2026-05-31T12:00:00Z";

fn digest(number: usize) -> String {
    format!("sha256:{number:064}")
}

fn add_mirror(server: &Server, name: &str, hosts: &[&str]) {
    let upstreams: Vec<Value> = hosts.iter().map(|host| json!({ "host": host })).collect();
    let spec = json!({ "upstreams": upstreams });
    server
        .add(&json!({"apiVersion": "wharf.dev/v1alpha1", "kind": "Mirror", "metadata": {"name": name}, "spec": spec}));
}

/// A pod that a node runs, and since when.
fn add_pod(server: &Server, name: &str, image: &str, image_id: &str, phase: &str, started: &str) {
    server.add(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "platform"},
        "spec": {"nodeName": "a", "containers": [{"name": "main", "image": image}]},
        "status": {
            "phase": phase, "startTime": started,
            "containerStatuses": [{
                "name": "main", "image": image, "imageID": image_id, "ready": true, "restartCount": 0,
                "state": {"running": {"startedAt": started}},
            }],
        },
    }));
}

/// What the agent of node `a` reports.
fn report(server: &Server, used: bool) {
    server.set("NodeRuntime", "", "a", |runtime| {
        runtime["status"] = json!({
            "planRevision": 1, "conditions": [],
            "mirrors": [{"host": "docker.io", "written": WRITTEN, "reachable": true, "used": used}],
        });
    });
}

/// Looks once; the Mirrors that are to look again.
async fn look(server: &Server, process: &Process) -> Result<Vec<String>, String> {
    let survey = Survey::new(Applier::new(server.client(), MANAGER, Metrics::default()));
    let keys = survey.pass(&process.fresh_context().await).await.map_err(|error| error.to_string())?;
    Ok(keys.into_iter().map(|key| key.name).collect())
}

fn in_use(server: &Server, mirror: &str) -> Option<Vec<String>> {
    let config_map = server.get("ConfigMap", "wharf-system", &format!("mirror-{mirror}-in-use"))?;
    let lines = config_map["data"]["in-use"].as_str().unwrap().lines().filter(|line| !line.starts_with('#'));
    Some(lines.map(ToOwned::to_owned).collect())
}

#[tokio::test]
async fn a_mirror_is_told_which_images_of_its_hosts_pods_run_and_once() {
    let server = cluster(&json!({}));
    let process = Process::start(server.client());
    add_pod(&server, "a", "busybox:1", &format!("docker.io/library/busybox@{}", digest(1)), "Running", WRITTEN);
    assert_eq!(look(&server, &process).await, Ok(vec![]));
    assert!(
        !server.requests().iter().any(|request| request.resource == "pods"),
        "without a Mirror nobody wants to know"
    );
    add_mirror(&server, "m", &["docker.io", "quay.io"]);
    add_mirror(&server, "n", &["ghcr.io"]);
    add_pod(&server, "b", "quay.io/a/b:1", &format!("quay.io/a/b@{}", digest(2)), "Pending", WRITTEN);
    add_pod(&server, "c", "quay.io/a/c:1", &format!("quay.io/a/c@{}", digest(3)), "Succeeded", WRITTEN);
    add_pod(&server, "d", "example.com/a:1", &format!("example.com/a@{}", digest(4)), "Running", WRITTEN);
    look(&server, &process).await.unwrap();
    assert_eq!(in_use(&server, "m"), Some(vec![digest(1), digest(2)]));
    assert_eq!(in_use(&server, "n"), Some(vec![]));
    let owner =
        server.get("ConfigMap", "wharf-system", "mirror-m-in-use").unwrap()["metadata"]["ownerReferences"][0].clone();
    assert_eq!(owner["uid"], server.get("Mirror", "", "m").unwrap()["metadata"]["uid"]);
    // At rest it writes nothing.
    let writes = server.writes();
    look(&server, &process).await.unwrap();
    assert_eq!(server.writes(), writes);
    // The Mirror's own controller leaves the list alone.
    process.until_quiet(&server).await;
    assert_eq!(in_use(&server, "m"), Some(vec![digest(1), digest(2)]));
    server.remove("Pod", "platform", "b");
    look(&server, &process).await.unwrap();
    assert_eq!(in_use(&server, "m"), Some(vec![digest(1)]));
}

#[tokio::test]
async fn pods_are_read_page_by_page_and_a_list_that_breaks_off_changes_nothing() {
    let server = cluster(&json!({}));
    let process = Process::start(server.client());
    add_mirror(&server, "m", &["docker.io"]);
    let pods = 1_203;
    for number in 0..pods {
        let image_id = format!("docker.io/library/a@{}", digest(number));
        add_pod(&server, &format!("pod-{number}"), "a", &image_id, "Running", WRITTEN);
    }
    let lists = || server.requests().iter().filter(|request| request.resource == "pods").count();
    look(&server, &process).await.unwrap();
    assert_eq!((lists(), in_use(&server, "m").unwrap().len()), (3, pods));
    let (rival, writes) = (server.clone(), server.writes());
    server.on_request(move |request| {
        let is_third = rival.requests().iter().filter(|request| request.resource == "pods").count() == 6;
        let fault = || Fault::Status { code: 410, reason: "Expired", retry_after: None };
        (request.resource == "pods" && is_third).then(fault)
    });
    let problem = look(&server, &process).await.unwrap_err();
    assert!(problem.starts_with("cannot list pods of all namespaces: "), "{problem}");
    assert_eq!((lists(), server.writes()), (6, writes));
}

#[tokio::test]
async fn who_passes_a_mirror_by_is_known_until_it_is_used() {
    let server = cluster(&json!({}));
    let process = Process::start(server.client());
    process.round().await;
    add_mirror(&server, "m", &["docker.io"]);
    report(&server, false);
    let hosts = ["docker.io".to_owned()];
    let bypassed = async || {
        let reports = process.fresh_context().await.view.node_reports();
        process.images.bypassed(&hosts, &reports)
    };
    assert_eq!(bypassed().await, None, "nobody has looked yet");
    let image_id = format!("docker.io/library/busybox@{}", digest(1));
    add_pod(&server, "old", "busybox", &image_id, "Running", "2026-05-31T11:00:00Z");
    look(&server, &process).await.unwrap();
    assert_eq!(bypassed().await, Some(vec![]));
    // Its image is there already.
    server.remove("Pod", "platform", "old");
    add_pod(&server, "again", "busybox", &image_id, "Running", "2026-05-31T13:00:00Z");
    // What the agent noticed of so young a pod may not be reported yet.
    let young = (now() - Duration::from_secs(59)).to_string();
    add_pod(&server, "young", "a", &format!("docker.io/library/a@{}", digest(2)), "Running", &young);
    // Nobody pulled these: one was put on the node by hand, of the other it is not known under which name it came.
    add_pod(&server, "imported", "c", &digest(4), "Running", "2026-05-31T13:00:00Z");
    add_pod(
        &server,
        "two",
        "quay.io/d",
        &format!("docker.io/library/d@{}", digest(5)),
        "Running",
        "2026-05-31T13:00:00Z",
    );
    assert_eq!(look(&server, &process).await, Ok(vec![]));
    assert_eq!(bypassed().await, Some(vec![]));
    assert_eq!(in_use(&server, "m").unwrap().len(), 4);
    add_pod(&server, "new", "b", &format!("docker.io/library/b@{}", digest(3)), "Running", "2026-05-31T13:00:00Z");
    assert_eq!(look(&server, &process).await, Ok(vec!["m".to_owned()]));
    assert_eq!(bypassed().await, Some(vec!["a".to_owned()]));
    assert_eq!(look(&server, &process).await, Ok(vec![]), "that is known");
    report(&server, true);
    assert_eq!(bypassed().await, Some(vec![]));
}

/// How often pods were listed in so much time, with the cluster as it is.
async fn lists_within(server: &Server, process: &Process, time: Duration) -> usize {
    let survey = Survey::new(Applier::new(server.client(), MANAGER, Metrics::default()));
    let context = process.fresh_context().await;
    let count = || server.requests().iter().filter(|request| request.resource == "pods").count();
    let before = count();
    let _ = tokio::time::timeout(time, survey.run(&context, |_| {})).await;
    count() - before
}

#[tokio::test(start_paused = true)]
async fn pods_are_listed_soon_after_the_start_and_then_seldom() {
    let server = cluster(&json!({}));
    let process = Process::start(server.client());
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    assert_eq!(lists_within(&server, &process, minutes(60)).await, 0, "without a Mirror nobody wants to know");
    add_mirror(&server, "m", &["docker.io"]);
    assert_eq!(lists_within(&server, &process, Duration::from_secs(20)).await, 0);
    assert_eq!(lists_within(&server, &process, Duration::from_secs(40)).await, 1);
    assert_eq!(lists_within(&server, &process, minutes(8)).await, 1);
    assert_eq!(lists_within(&server, &process, minutes(14)).await, 2);
    // After failures soon again, and then more and more seldom.
    server.on_request(|request| {
        let fault = || Fault::Status { code: 500, reason: "InternalError", retry_after: None };
        (request.resource == "pods").then(fault)
    });
    let lists = lists_within(&server, &process, minutes(4)).await;
    assert!((2..=4).contains(&lists), "{lists}");
    let lists = lists_within(&server, &process, minutes(120)).await;
    assert!((12..=20).contains(&lists), "{lists}");
}
