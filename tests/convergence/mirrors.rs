//! A Mirror's life: its children, its growth, and what becomes of it when something about it is wrong.

use std::sync::atomic::{AtomicUsize, Ordering};

use kube::api::{Api, DeleteParams};
use serde_json::{Value, json};
use wharf::api::Mirror;

use crate::apiserver::{Fault, Server};
use crate::silence::nothing_is_written;
use crate::world::{cluster, moments, run_until_quiet, state};

const OWN: &str = "wharf-system";

pub fn add_mirror(server: &Server, name: &str, spec: &Value) {
    server
        .add(&json!({"apiVersion": "wharf.dev/v1alpha1", "kind": "Mirror", "metadata": {"name": name}, "spec": spec}));
}

/// A cluster with a Registry and this Mirror.
fn with_mirror(spec: &Value) -> Server {
    let server = cluster(&json!({}));
    add_mirror(&server, "default", spec);
    server
}

async fn settle(server: &Server) {
    run_until_quiet(server, &server.connect()).await;
}

/// `status/reason` of a condition and its message; empty without it.
pub fn condition(server: &Server, mirror: &str, kind: &str) -> (String, String) {
    let mirror = server.get("Mirror", "", mirror).unwrap();
    let conditions = mirror["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    conditions.iter().find(|condition| condition["type"] == kind).map_or_else(Default::default, |found| {
        (format!("{}/{}", text(&found["status"]), text(&found["reason"])), text(&found["message"]))
    })
}

fn configuration(server: &Server) -> Value {
    let config_map = server.get("ConfigMap", OWN, "mirror-default").unwrap();
    serde_json::from_str(config_map["data"]["serve.yaml"].as_str().unwrap()).unwrap()
}

fn hosts(configuration: &Value) -> Vec<&str> {
    configuration["mirrors"].as_array().unwrap().iter().map(|mirror| mirror["host"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_mirror_gets_its_children_and_becomes_ready() {
    let server = with_mirror(&json!({"upstreams": [{"host": "docker.io"}, {"host": "ghcr.io"}], "replicas": 2}));
    settle(&server).await;
    assert_eq!(condition(&server, "default", "Ready").0, "True/Ready", "{:#?}", server.get("Mirror", "", "default"));
    let names = |kind: &str| -> Vec<String> {
        let of_mirrors = server.list(kind).into_iter().filter(|object| object["metadata"]["namespace"] == OWN);
        let names = of_mirrors.map(|object| object["metadata"]["name"].as_str().unwrap().to_owned());
        names.filter(|name| name.contains("mirror-")).collect()
    };
    assert_eq!(names("Service"), ["mirror-default", "mirror-default-0", "mirror-default-1"]);
    assert_eq!(names("PersistentVolumeClaim"), ["cache-mirror-default-0", "cache-mirror-default-1"]);
    for kind in ["StatefulSet", "ConfigMap", "PodDisruptionBudget", "NetworkPolicy"] {
        assert_eq!(names(kind), ["mirror-default"], "{kind}");
    }
    assert_eq!(names("Secret"), ["mirror-default-tls"]);
    assert_eq!(hosts(&configuration(&server)), ["docker.io", "ghcr.io"]);
    assert_eq!(condition(&server, "default", "NodesConfigured").0, "True/AllNodes");
    assert_eq!(server.get("Mirror", "", "default").unwrap()["status"]["nodes"]["summary"], "2/2");
    assert_eq!(server.get("Mirror", "", "default").unwrap()["status"]["hosts"], "docker.io +1");
}

fn template_size(server: &Server) -> Value {
    let set = server.get("StatefulSet", OWN, "mirror-default").unwrap();
    set["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"].clone()
}

fn claim(server: &Server, ordinal: u32) -> Value {
    server.get("PersistentVolumeClaim", OWN, &format!("cache-mirror-default-{ordinal}")).unwrap()
}

#[tokio::test]
async fn a_cache_grows_with_its_claims_and_keeps_its_pods() {
    let server = with_mirror(&json!({"upstreams": [{"host": "docker.io"}], "cache": {"size": "50Gi"}, "replicas": 2}));
    settle(&server).await;
    let (before, first) = (server.get("StatefulSet", OWN, "mirror-default").unwrap(), claim(&server, 0));
    server.set("Mirror", "", "default", |mirror| mirror["spec"]["cache"]["size"] = json!("100Gi"));
    settle(&server).await;
    assert_eq!(condition(&server, "default", "Ready").0, "True/Ready");
    let after = server.get("StatefulSet", OWN, "mirror-default").unwrap();
    assert_ne!(after["metadata"]["uid"], before["metadata"]["uid"], "a template of claims cannot change");
    assert_eq!(after["spec"]["template"], before["spec"]["template"], "no pod is replaced");
    assert_eq!(template_size(&server), "100Gi");
    for ordinal in 0..2 {
        assert_eq!(claim(&server, ordinal)["spec"]["resources"]["requests"]["storage"], "100Gi");
    }
    assert_eq!(claim(&server, 0)["metadata"]["uid"], first["metadata"]["uid"], "the claims are the same");
    assert_eq!(configuration(&server)["cache"]["size"], (90_u64 << 30).to_string());
}

#[tokio::test]
async fn a_cache_that_cannot_grow_goes_on_and_says_so() {
    let server = with_mirror(&json!({"upstreams": [{"host": "docker.io"}], "cache": {"size": "50Gi"}}));
    settle(&server).await;
    let uid = |server: &Server| server.get("StatefulSet", OWN, "mirror-default").unwrap()["metadata"]["uid"].clone();
    let before = uid(&server);
    server.set("StorageClass", "", "standard", |class| class["allowVolumeExpansion"] = json!(false));
    server.set("Mirror", "", "default", |mirror| mirror["spec"]["cache"]["size"] = json!("100Gi"));
    settle(&server).await;
    let (found, message) = condition(&server, "default", "CacheHealthy");
    assert_eq!(found, "False/ExpansionUnsupported", "{message}");
    assert_eq!(condition(&server, "default", "Stalled").0, "True/ExpansionUnsupported");
    assert_eq!((uid(&server), template_size(&server)), (before, json!("50Gi")), "what ran goes on");
    assert_eq!(configuration(&server)["cache"]["size"], (45_u64 << 30).to_string());
    server.set("StorageClass", "", "standard", |class| class["allowVolumeExpansion"] = json!(true));
    settle(&server).await;
    assert_eq!(
        (condition(&server, "default", "Ready").0.as_str(), template_size(&server)),
        ("True/Ready", json!("100Gi"))
    );
}

#[tokio::test]
async fn fewer_pods_leave_nothing_behind_and_more_never_stop_the_others() {
    let server = with_mirror(&json!({"upstreams": [{"host": "docker.io"}], "replicas": 2}));
    settle(&server).await;
    let uid = |server: &Server| server.get("StatefulSet", OWN, "mirror-default").unwrap()["metadata"]["uid"].clone();
    let before = uid(&server);
    server.set("Mirror", "", "default", |mirror| mirror["spec"]["replicas"] = json!(1));
    settle(&server).await;
    for kind in ["Service", "PersistentVolumeClaim", "PodDisruptionBudget"] {
        let names: Vec<String> =
            server.list(kind).iter().map(|object| object["metadata"]["name"].to_string()).collect();
        assert!(!names.iter().any(|name| name.contains("default-1") || kind.starts_with("Pod")), "{kind}: {names:?}");
    }
    server.set("Mirror", "", "default", |mirror| mirror["spec"]["replicas"] = json!(3));
    settle(&server).await;
    assert_eq!(condition(&server, "default", "Available").1, "3 of 3 pods of the mirror answer");
    assert_eq!(uid(&server), before, "a Service without an address yet is no reason to stop what runs");
}

#[tokio::test]
async fn a_host_is_the_older_mirrors_and_passes_on_when_that_goes() {
    let server = cluster(&json!({"hosts": ["images.example.com"]}));
    server.set_time("2029-01-01T00:00:00Z");
    add_mirror(&server, "older", &json!({"upstreams": [{"host": "docker.io"}]}));
    server.set_time("2030-01-01T00:00:00Z");
    let hosts_of_second = json!([{"host": "docker.io"}, {"host": "ghcr.io"}, {"host": "images.example.com"}]);
    add_mirror(&server, "default", &json!({ "upstreams": hosts_of_second }));
    settle(&server).await;
    assert_eq!(condition(&server, "older", "Ready").0, "True/Ready");
    let (found, message) = condition(&server, "default", "HostsReady");
    assert_eq!(found, "False/HostTaken");
    assert!(message.contains("docker.io is Mirror older's") && message.contains("goes on with ghcr.io"), "{message}");
    assert!(message.contains("images.example.com is Registry platform/team's"), "{message}");
    assert_eq!(condition(&server, "default", "Ready").0, "False/HostTaken");
    assert_eq!(hosts(&configuration(&server)), ["ghcr.io"]);
    let api = Api::<Mirror>::all(server.client());
    api.delete("older", &DeleteParams::default()).await.unwrap();
    server.set("Registry", "platform", "team", |registry| registry["spec"]["hosts"] = json!([]));
    settle(&server).await;
    assert_eq!(server.get("Mirror", "", "older"), None);
    assert_eq!(condition(&server, "default", "HostsReady").0, "True/HostsGranted");
    assert_eq!(condition(&server, "default", "Ready").0, "True/Ready");
    assert_eq!(hosts(&configuration(&server)), ["docker.io", "ghcr.io", "images.example.com"]);
}

fn secret(server: &Server, name: &str, kind: &str, keys: &[&str], annotations: &Value) {
    let data: Value = keys.iter().map(|key| ((*key).to_owned(), json!("c2VjcmV0LXdvcmQ="))).collect();
    server.add(&json!({"apiVersion": "v1", "kind": "Secret", "type": kind, "data": data,
        "metadata": {"name": name, "namespace": OWN, "annotations": annotations}}));
}

/// What is wrong about a registry stops no other one, and heals without another pod.
#[tokio::test]
async fn what_is_wrong_about_a_registry_is_told_and_heals() {
    type Change = fn(&Server);
    let cases: [(&str, Value, Change, Change); 6] = [
        (
            "False/CredentialsMissing",
            json!({"host": "docker.io", "credentialsSecretRef": {"name": "hub"}}),
            |_| {},
            |server| secret(server, "hub", "kubernetes.io/basic-auth", &["username", "password"], &json!({})),
        ),
        (
            "False/CredentialsMissing",
            json!({"host": "docker.io", "credentialsSecretRef": {"name": "hub"}}),
            |server| secret(server, "hub", "Opaque", &["password"], &json!({})),
            |server| {
                server.remove("Secret", OWN, "hub");
                secret(server, "hub", "kubernetes.io/dockerconfigjson", &[".dockerconfigjson"], &json!({}));
            },
        ),
        (
            "False/EndpointNotAllowed",
            json!({"host": "docker.io", "credentialsSecretRef": {"name": "hub"}, "endpoints": ["https://a.example"]}),
            |server| secret(server, "hub", "kubernetes.io/basic-auth", &["username", "password"], &json!({})),
            |server| {
                server.set("Secret", OWN, "hub", |secret| {
                    secret["metadata"]["annotations"] = json!({"wharf.dev/endpoints": "https://a.example"});
                });
            },
        ),
        (
            "False/AuthorityMissing",
            json!({"host": "docker.io", "caSecretRef": {"name": "ca"}}),
            |_| {},
            |server| secret(server, "ca", "Opaque", &["ca.crt"], &json!({})),
        ),
        (
            "False/Loop",
            json!({"host": "docker.io", "endpoints": ["https://mirror-default.wharf-system.svc"]}),
            |_| {},
            |server| {
                server.set("Mirror", "", "default", |mirror| mirror["spec"]["upstreams"][0]["endpoints"] = json!([]));
            },
        ),
        (
            "False/UpstreamInvalid",
            json!({"host": "docker.io", "endpoints": ["https://a.example:65536"]}),
            |_| {},
            |server| {
                server.set("Mirror", "", "default", |mirror| mirror["spec"]["upstreams"][0]["endpoints"] = json!([]));
            },
        ),
    ];
    for (expected, upstream, spoil, heal) in cases {
        let server = with_mirror(&json!({"upstreams": [upstream, {"host": "ghcr.io"}]}));
        spoil(&server);
        settle(&server).await;
        let (found, message) = condition(&server, "default", "UpstreamsReachable");
        assert_eq!(found, expected, "{message}");
        assert!(message.contains("docker.io"), "{message}");
        assert_eq!(condition(&server, "default", "Ready").0, expected);
        assert_eq!(condition(&server, "default", "Available").0, "True/PodReady", "{expected}: the others go on");
        assert!(hosts(&configuration(&server)).contains(&"ghcr.io"), "{expected}");
        let pod =
            |server: &Server| server.get("StatefulSet", OWN, "mirror-default").unwrap()["spec"]["template"].clone();
        let before = pod(&server);
        heal(&server);
        settle(&server).await;
        assert_eq!(condition(&server, "default", "Ready").0, "True/Ready", "{expected} does not heal");
        assert_eq!(pod(&server), before, "{expected}: pods are replaced for it");
        assert_eq!(hosts(&configuration(&server)), ["docker.io", "ghcr.io"]);
        assert!(
            !server.mutations().iter().any(|request| request.body.to_string().contains("c2VjcmV0LXdvcmQ=")),
            "a secret is written"
        );
    }
}

#[tokio::test]
async fn an_object_of_somebody_else_is_left_alone() {
    let server = cluster(&json!({}));
    let theirs =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mirror-default", "namespace": OWN}});
    server.add(&theirs);
    add_mirror(&server, "default", &json!({"upstreams": [{"host": "docker.io"}]}));
    settle(&server).await;
    assert_eq!(condition(&server, "default", "Ready").0, "False/NameTaken");
    assert_eq!(server.get("ConfigMap", OWN, "mirror-default").unwrap().get("data"), None);
    assert_eq!(server.get("StatefulSet", OWN, "mirror-default"), None);
    server.remove("ConfigMap", OWN, "mirror-default");
    settle(&server).await;
    assert_eq!(condition(&server, "default", "Ready").0, "True/Ready");
}

#[tokio::test]
async fn after_convergence_nothing_is_written() {
    for spec in [
        json!({"upstreams": [{"host": "docker.io"}]}),
        json!({"upstreams": [{"host": "docker.io", "credentialsSecretRef": {"name": "missing"}}], "clients": "Cluster"}),
        json!({"upstreams": [{"host": "docker.io"}], "replicas": 3, "cache": {"size": "51200Mi", "storageClassName": "missing"},
            "podTemplate": {"resources": {"requests": {"cpu": "1000m", "memory": "1024Mi"}}, "labels": {"a": "b"}}}),
    ] {
        let server = with_mirror(&spec);
        settle(&server).await;
        let status = server.get("Mirror", "", "default").unwrap()["status"].clone();
        nothing_is_written(&server, &spec).await;
        assert_eq!(server.get("Mirror", "", "default").unwrap()["status"], status, "{spec}");
    }
}

/// The operator's process ends before or after each of its writes, growth included; another one starts with no memory of it.
#[tokio::test]
async fn a_crash_at_any_write_changes_nothing_about_the_end() {
    let life = async |fault: Option<(usize, Fault)>| {
        let server =
            with_mirror(&json!({"upstreams": [{"host": "docker.io"}], "cache": {"size": "50Gi"}, "replicas": 2}));
        if let Some((ordinal, fault)) = fault {
            let seen = AtomicUsize::new(0);
            server.on_request(move |request| {
                let hit = request.is_mutation() && seen.fetch_add(1, Ordering::SeqCst) == ordinal;
                hit.then(|| fault.clone())
            });
        }
        // A second process goes on where the first one ended.
        settle(&server).await;
        settle(&server).await;
        server.set("Mirror", "", "default", |mirror| mirror["spec"]["cache"]["size"] = json!("100Gi"));
        settle(&server).await;
        settle(&server).await;
        server
    };
    let clean = life(None).await;
    let (expected, writes) = (state(&clean), clean.mutations());
    assert_eq!(template_size(&clean), "100Gi");
    let faults = [Fault::CrashBefore, Fault::CrashAfter, Fault::ApplyThenLose, Fault::Reset];
    let all: Vec<_> =
        (0..writes.len()).flat_map(|ordinal| faults.clone().into_iter().map(move |fault| (ordinal, fault))).collect();
    for moment in moments(all.len(), 11) {
        let (ordinal, fault) = all[moment].clone();
        let what = format!("{fault:?} at write {ordinal} ({} {})", writes[ordinal].verb, writes[ordinal].resource);
        let server = life(Some((ordinal, fault))).await;
        let found = state(&server);
        for (name, object) in &expected {
            assert_eq!(found.get(name), Some(object), "{what}: {name}");
        }
        assert_eq!(found.len(), expected.len(), "{what}: {:?}", found.keys());
    }
}
