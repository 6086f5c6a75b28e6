//! The hosts of Mirrors in the node plan: when they come, what they survive, and when they go.

use serde_json::{Value, json};

use crate::apiserver::Server;
use crate::mirrors::add_mirror;
use crate::world::{Process, cluster, run_until_quiet};

const OWN: &str = "wharf-system";

/// The entry of a host in the node plan; null without one.
fn entry(server: &Server, host: &str) -> Value {
    let shards = server
        .list("ConfigMap")
        .into_iter()
        .filter_map(|config_map| serde_json::from_str::<Value>(config_map["data"]["hosts.json"].as_str()?).ok());
    shards.map(|shard| shard["hosts"][host].clone()).find(|entry| !entry.is_null()).unwrap_or_default()
}

fn owner(server: &Server, host: &str) -> Value {
    entry(server, host)["owner"]["name"].clone()
}

async fn settle(server: &Server) {
    run_until_quiet(server, &server.connect()).await;
}

#[tokio::test]
async fn nodes_are_told_of_a_mirrors_hosts_once_each_replica_has_an_address() {
    let server = cluster(&json!({}));
    let nodes = json!({"selector": {"matchLabels": {"zone": "a"}}});
    add_mirror(&server, "default", &json!({"upstreams": [{"host": "docker.io"}], "replicas": 2, "nodes": nodes}));
    settle(&server).await;
    let found = entry(&server, "docker.io");
    let address = |ordinal: u32| {
        let service = server.get("Service", OWN, &format!("mirror-default-{ordinal}")).unwrap();
        format!("https://{}", service["spec"]["clusterIP"].as_str().unwrap())
    };
    assert_eq!(found["backends"], json!([address(0), address(1)]));
    let uid = server.get("Mirror", "", "default").unwrap()["metadata"]["uid"].clone();
    assert_eq!(found["owner"], json!({"kind": "Mirror", "name": "default", "uid": uid}));
    assert_eq!(found["nodes"], nodes["selector"]);
    assert_eq!(owner(&server, "team.platform.svc"), "team");
}

#[tokio::test]
async fn an_entry_stays_while_its_services_are_made_again_and_goes_with_the_spec() {
    let server = cluster(&json!({}));
    add_mirror(&server, "default", &json!({"upstreams": [{"host": "docker.io"}, {"host": "ghcr.io"}]}));
    settle(&server).await;
    let before = entry(&server, "docker.io");
    // An operator whose view has neither Services nor, after that, anything.
    server.set("Service", OWN, "mirror-default-0", |service| service["spec"]["clusterIP"] = json!("None"));
    let behind = server.snapshot();
    Process::reading(behind.client(), server.client()).round().await;
    assert_eq!(entry(&server, "docker.io"), before);
    let empty = cluster(&json!({})).snapshot();
    Process::reading(empty.client(), server.client()).round().await;
    assert_eq!(entry(&server, "docker.io"), before, "a view that shows no Mirror takes no node's entries");

    server.set("Mirror", "", "default", |mirror| mirror["spec"]["upstreams"] = json!([{"host": "docker.io"}]));
    settle(&server).await;
    assert_eq!((owner(&server, "docker.io"), owner(&server, "ghcr.io")), (json!("default"), Value::Null));
}

#[tokio::test]
async fn a_mirror_that_is_being_deleted_leaves_the_plan_and_its_hosts_pass_on() {
    let server = cluster(&json!({}));
    add_mirror(&server, "default", &json!({"upstreams": [{"host": "docker.io"}, {"host": "ghcr.io"}]}));
    server.set("Mirror", "", "default", |mirror| {
        mirror["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    });
    add_mirror(&server, "other", &json!({"upstreams": [{"host": "ghcr.io"}]}));
    settle(&server).await;
    assert_eq!((owner(&server, "docker.io"), owner(&server, "ghcr.io")), (json!("default"), json!("default")));
    server.set("Mirror", "", "default", |mirror| {
        mirror["metadata"]["finalizers"] = json!(["example.com/hold"]);
        mirror["metadata"]["deletionTimestamp"] = json!("2026-06-01T00:00:00Z");
    });
    settle(&server).await;
    assert_eq!((owner(&server, "docker.io"), owner(&server, "ghcr.io")), (Value::Null, json!("other")));
}
