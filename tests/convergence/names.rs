//! Further names and the quota: who wins, and that who lost heals when the winner goes.

use std::time::Duration;

use kube::api::{Api, DeleteParams};
use serde_json::{Value, json};
use wharf::api::Registry;
use wharf::operator::limits::Limits;

use crate::apiserver::Server;
use crate::world::{Process, add_named_registry, cluster, everybody_else, run_until_quiet, set_now};

const HOST: &str = "images.example.com";

/// `status/reason` of a condition; empty without it.
pub fn condition(server: &Server, registry: &str, kind: &str) -> String {
    let registry = server.get("Registry", "platform", registry).unwrap();
    let conditions = registry["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == kind);
    found.map_or_else(String::new, |found| {
        format!("{}/{}", found["status"].as_str().unwrap(), found["reason"].as_str().unwrap())
    })
}

/// Who has a host in the node plan.
fn planned(server: &Server, host: &str) -> Option<String> {
    server.list("ConfigMap").iter().find_map(|config_map| {
        let shard: Value = serde_json::from_str(config_map["data"]["hosts.json"].as_str()?).unwrap();
        shard["hosts"][host]["owner"]["name"].as_str().map(str::to_owned)
    })
}

fn logins(server: &Server, registry: &str) -> Vec<String> {
    use base64::Engine as _;
    let secret = server.get("Secret", "platform", &format!("{registry}-pull")).unwrap();
    let text = secret["data"][".dockerconfigjson"].as_str().unwrap();
    let document = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    let document: Value = serde_json::from_slice(&document).unwrap();
    document["auths"].as_object().unwrap().keys().cloned().collect()
}

pub async fn delete(server: &Server, name: &str) {
    let api = Api::<Registry>::namespaced(server.client(), "platform");
    api.delete(name, &DeleteParams::default()).await.unwrap();
}

pub async fn converge(server: &Server, limits: &Limits) {
    let process = Process::with_limits(server.client(), limits.clone());
    for _round in 0..10 {
        process.round().await;
        everybody_else(server);
    }
}

#[tokio::test]
async fn a_name_passes_to_the_next_registry_when_the_first_goes() {
    let server = cluster(&json!({ "hosts": [HOST] }));
    server.set("Registry", "platform", "team", |registry| {
        registry["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    });
    add_named_registry(&server, "also", &json!({ "hosts": [HOST, "own.example.com"] }));
    run_until_quiet(&server, &server.connect()).await;
    assert_eq!(condition(&server, "team", "HostsReady"), "True/HostsGranted");
    assert_eq!(condition(&server, "team", "NodesConfigured"), "True/AllNodes");
    assert_eq!(planned(&server, HOST).as_deref(), Some("team"));
    assert_eq!(logins(&server, "team"), [HOST, "team.platform.svc"]);
    // The other one goes on with what it has.
    assert_eq!(condition(&server, "also", "HostsReady"), "False/HostTaken");
    assert_eq!(condition(&server, "also", "Available"), "True/PodReady");
    assert_eq!(planned(&server, "own.example.com").as_deref(), Some("also"));
    assert_eq!(logins(&server, "also"), ["also.platform.svc", "own.example.com"]);

    delete(&server, "team").await;
    run_until_quiet(&server, &server.connect()).await;
    assert_eq!(condition(&server, "also", "HostsReady"), "True/HostsGranted");
    assert_eq!(condition(&server, "also", "Ready"), "True/Ready");
    assert_eq!(planned(&server, HOST).as_deref(), Some("also"));
    assert_eq!(logins(&server, "also").len(), 3);
}

#[tokio::test]
async fn a_name_that_is_not_allowed_reaches_neither_nodes_nor_secrets() {
    let server = cluster(&json!({"hosts": ["images.example.org"]}));
    run_until_quiet(&server, &server.connect()).await;
    assert_eq!(condition(&server, "team", "Ready"), "False/HostNotAllowed");
    assert_eq!(condition(&server, "team", "Available"), "True/PodReady");
    assert_eq!(planned(&server, "images.example.org"), None);
    assert_eq!(planned(&server, "team.platform.svc").as_deref(), Some("team"));
    assert_eq!(logins(&server, "team"), ["team.platform.svc"]);
    // It heals with the setting.
    let limits = Limits { allowed_hosts: vec!["images.example.org".parse().unwrap()], ..Limits::default() };
    converge(&server, &limits).await;
    assert_eq!(condition(&server, "team", "Ready"), "True/Ready");
    assert_eq!(planned(&server, "images.example.org").as_deref(), Some("team"));
}

#[tokio::test]
async fn beyond_the_quota_nothing_is_written_and_nothing_is_taken_away() {
    let quota = |registries_per_namespace| Limits { registries_per_namespace, ..Limits::default() };
    let server = cluster(&json!({}));
    server.set("Registry", "platform", "team", |registry| {
        registry["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    });
    add_named_registry(&server, "extra", &json!({"storage": {"deletionPolicy": "Delete"}}));
    converge(&server, &quota(1)).await;
    assert_eq!(condition(&server, "team", "Ready"), "True/Ready");
    assert_eq!(condition(&server, "extra", "Ready"), "False/QuotaExceeded");
    assert_eq!(condition(&server, "extra", "Stalled"), "True/QuotaExceeded");
    let of_extra = |server: &Server| {
        let requests = server.mutations();
        let children = requests.iter().filter(|request| request.name.starts_with("extra"));
        children.filter(|request| request.subresource.is_empty()).count()
    };
    assert_eq!(of_extra(&server), 0, "{:#?}", server.mutations());
    let secrets = |server: &Server| {
        let account = server.get("ServiceAccount", "platform", "default").unwrap();
        account["imagePullSecrets"].as_array().unwrap().len()
    };
    assert_eq!(secrets(&server), 1, "a pull secret that is never made must not be named");
    // A larger setting heals it, and the smaller one again takes nothing away.
    converge(&server, &quota(2)).await;
    assert_eq!(condition(&server, "extra", "Ready"), "True/Ready");
    assert_eq!(secrets(&server), 2);
    let before = server.mutations().len();
    converge(&server, &quota(1)).await;
    assert_eq!(condition(&server, "extra", "Ready"), "False/QuotaExceeded");
    assert_eq!(server.mutations().len(), before + 2, "the status and its event: {:#?}", &server.mutations()[before..]);
    assert_eq!(secrets(&server), 2);
    assert_eq!(planned(&server, "extra.platform.svc").as_deref(), Some("extra"));
    // What is there is looked after: set right by hand-made changes, and its certificate is renewed in time.
    server.remove("Secret", "platform", "extra-pull");
    let certificate = || server.get("Secret", "platform", "extra-registry-tls").unwrap()["data"]["tls.crt"].clone();
    let old = certificate();
    set_now("2027-04-15T00:00:00Z".parse().unwrap());
    converge(&server, &quota(1)).await;
    assert!(server.get("Secret", "platform", "extra-pull").is_some());
    assert_ne!(certificate(), old);
    assert_eq!(condition(&server, "extra", "Ready"), "False/QuotaExceeded");
    assert_eq!(condition(&server, "extra", "Available"), "True/PodReady");
    // It heals when another one goes.
    delete(&server, "team").await;
    converge(&server, &quota(1)).await;
    assert_eq!(condition(&server, "extra", "Ready"), "True/Ready");
}

#[tokio::test]
async fn the_network_policy_goes_when_it_is_not_wanted() {
    let server = cluster(&json!({}));
    run_until_quiet(&server, &server.connect()).await;
    let policy = || server.get("NetworkPolicy", "platform", "team-registry");
    assert_eq!(policy().unwrap()["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    server.set("Registry", "platform", "team", |registry| {
        registry["spec"]["networkPolicy"] = json!({"mode": "None"});
    });
    run_until_quiet(&server, &server.connect()).await;
    assert!(policy().is_none());
    assert_eq!(condition(&server, "team", "Ready"), "True/Ready");
}

/// Two Registries made within one second want the same folder of a bucket, and the one that the operator sees first is not the
/// one that wins.
#[tokio::test]
async fn of_two_registries_of_one_second_a_single_one_is_started_over_a_bucket() {
    let server = cluster(&json!({}));
    let second = "2026-06-01T00:00:00Z";
    server.set_time(second);
    let bucket = json!({"storage": {"s3": {"bucket": "images"}}});
    add_named_registry(&server, "second", &bucket);
    let behind = server.snapshot();
    add_named_registry(&server, "first", &bucket);
    let started = |name: &str| server.get("Deployment", "platform", &format!("{name}-registry")).is_some();
    let reading = Process::reading(behind.client(), server.client());
    let made: jiff::Timestamp = second.parse().unwrap();
    set_now(made + Duration::from_millis(1500));
    reading.round().await;
    assert!(!started("second"), "it may not be the first of its second");
    // Its view is still behind when the second is over.
    set_now(made + Duration::from_secs(2));
    reading.round().await;
    assert!(!started("second"));
    assert_eq!(condition(&server, "second", "StorageReady"), "False/StorageTaken");
    run_until_quiet(&server, &server.connect()).await;
    assert!(started("first") && !started("second"));
    assert_eq!(condition(&server, "first", "Ready"), "True/Ready");
}
