//! Another writer that sets an object of Wharf's back, again and again: after three rounds Wharf leaves it alone and says
//! who it is, and takes it up again when the other has stopped. The rest of the Registry is looked after all the while.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::advance;

use crate::apiserver::Server;
use crate::world::{Process, cluster, everybody_else};

const MINUTE: Duration = Duration::from_secs(60);

fn ready(server: &Server) -> Value {
    let registry = server.get("Registry", "platform", "team").unwrap();
    registry["status"]["conditions"][0].clone()
}

/// Patches of the Service so far.
fn patches(server: &Server) -> usize {
    server.mutations().iter().filter(|request| request.resource == "services" && request.verb == "patch").count()
}

fn spoil(server: &Server) {
    server.set("Service", "platform", "team", |service| service["spec"]["selector"] = json!({"app": "theirs"}));
}

fn is_spoilt(server: &Server) -> bool {
    server.get("Service", "platform", "team").unwrap()["spec"]["selector"] == json!({"app": "theirs"})
}

/// Rounds a minute apart, with the other writer at work after each.
async fn fight(process: &Process, server: &Server, rounds: usize) {
    for _ in 0..rounds {
        if !is_spoilt(server) {
            spoil(server);
        }
        advance(MINUTE).await;
        process.round().await;
        everybody_else(server);
    }
}

async fn contested() -> (Server, Process) {
    let server = cluster(&json!({}));
    let process = Process::start(server.client());
    process.until_quiet(&server).await;
    fight(&process, &server, 6).await;
    (server, process)
}

#[tokio::test(start_paused = true)]
async fn after_three_rounds_the_other_is_named_and_left_alone() {
    let (server, process) = contested().await;
    assert_eq!(patches(&server), 3, "the first write, and the object set right twice");
    assert_eq!(
        (ready(&server)["status"].clone(), ready(&server)["reason"].clone()),
        (json!("False"), json!("Contested"))
    );
    let said = ready(&server)["message"].as_str().unwrap().to_owned();
    assert!(said.starts_with("another-actor keeps changing spec.selector.app.kubernetes.io/instance, "), "{said}");
    // At rest, but for a try every ten minutes.
    let version =
        |server: &Server| server.get("Registry", "platform", "team").unwrap()["metadata"]["resourceVersion"].clone();
    let before = (version(&server), patches(&server));
    fight(&process, &server, 4).await;
    assert_eq!((version(&server), patches(&server)), before);
    fight(&process, &server, 56).await;
    let tries = patches(&server) - before.1;
    assert!((4..=6).contains(&tries), "{tries} tries within an hour");
    assert_eq!(ready(&server)["reason"], "Contested");
    // What is not contested is looked after.
    server
        .set("Registry", "platform", "team", |registry| registry["spec"]["podTemplate"]["labels"] = json!({"a": "b"}));
    fight(&process, &server, 2).await;
    let deployment = server.get("Deployment", "platform", "team-registry").unwrap();
    assert_eq!(deployment["spec"]["template"]["metadata"]["labels"]["a"], "b");
}

#[tokio::test(start_paused = true)]
async fn it_heals_when_the_other_stops() {
    let (server, process) = contested().await;
    for _minute in 0..11 {
        advance(MINUTE).await;
        process.round().await;
        everybody_else(&server);
    }
    assert!(!is_spoilt(&server));
    assert_eq!(ready(&server)["reason"], "Ready", "{}", ready(&server));
    // Also when the other sets it right itself.
    let (server, process) = contested().await;
    let wanted = json!({"app.kubernetes.io/instance": "team", "app.kubernetes.io/name": "registry"});
    server.set("Service", "platform", "team", |service| service["spec"]["selector"] = wanted);
    process.round().await;
    assert_eq!(ready(&server)["reason"], "Ready", "{}", ready(&server));
}

/// A cache that is behind shows the object as it was before Wharf wrote it: that is nobody's doing, and no second write.
#[tokio::test(start_paused = true)]
async fn an_old_view_is_no_other_writer() {
    let server = cluster(&json!({}));
    let process = Process::start(server.client());
    process.until_quiet(&server).await;
    spoil(&server);
    let old = server.snapshot();
    let stale = Process::reading(old.client(), server.client());
    for _ in 0..6 {
        stale.round().await;
    }
    assert_eq!(patches(&server), 2);
    assert!(!is_spoilt(&server));
    assert_ne!(ready(&server)["reason"], "Contested");
}

/// What leads in from beyond the cluster is none of the registry's own: it stays ready.
#[tokio::test(start_paused = true)]
async fn a_contested_way_in_leaves_the_registry_ready() {
    let server = cluster(&json!({"expose": {"gateway": {"host": "a.example.com", "parentRefs": [{"name": "front"}]}}}));
    let process = Process::start(server.client());
    process.until_quiet(&server).await;
    let exposed = |server: &Server| {
        let registry = server.get("Registry", "platform", "team").unwrap();
        let conditions = registry["status"]["conditions"].as_array().unwrap().clone();
        conditions.into_iter().find(|condition| condition["type"] == "Exposed").unwrap()
    };
    for _round in 0..6 {
        server.set("HTTPRoute", "platform", "team-registry", |route| route["spec"]["hostnames"] = json!(["theirs"]));
        advance(MINUTE).await;
        process.round().await;
        everybody_else(&server);
    }
    assert_eq!(
        (ready(&server)["reason"].clone(), exposed(&server)["reason"].clone()),
        (json!("Ready"), json!("Contested"))
    );
    let said = exposed(&server)["message"].as_str().unwrap().to_owned();
    assert!(said.contains("spec.hostnames") && said.contains("HTTPRoute"), "{said}");
    for _minute in 0..11 {
        advance(MINUTE).await;
        process.round().await;
        everybody_else(&server);
    }
    assert_eq!(exposed(&server)["reason"], "Progressing", "{}", exposed(&server));
}
