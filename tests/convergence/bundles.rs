//! The certificates in the namespaces that Registries select: there exactly while one selects them, and never in place of
//! somebody else's.

use serde_json::{Value, json};
use wharf::operator::limits::Limits;

use crate::apiserver::Server;
use crate::names::{condition, converge, delete};
use crate::world::{Process, add_named_registry, cluster, everybody_else, run_until_quiet};

fn namespace(server: &Server, name: &str, labels: &Value) {
    server.add(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}));
}

fn bundle(server: &Server, namespace: &str) -> Option<String> {
    let found = server.get("ConfigMap", namespace, "wharf-ca.crt")?;
    Some(found["data"]["ca.crt"].as_str().unwrap_or_default().to_owned())
}

fn authority(server: &Server) -> String {
    server.get("ConfigMap", "platform", "team-ca").unwrap()["data"]["ca.crt"].as_str().unwrap().to_owned()
}

fn selecting(labels: &Value) -> Value {
    json!({"caBundle": {"namespaceSelector": {"matchLabels": labels}}})
}

async fn quiet(server: &Server) {
    run_until_quiet(server, &server.connect()).await;
}

#[tokio::test]
async fn a_selected_namespace_has_the_certificates_as_long_as_it_is_selected() {
    let server = cluster(&selecting(&json!({"team": "a"})));
    namespace(&server, "apps", &json!({"team": "a"}));
    namespace(&server, "others", &json!({"team": "b"}));
    quiet(&server).await;
    assert_eq!(bundle(&server, "apps"), Some(authority(&server)));
    assert_eq!(bundle(&server, "others"), None);
    assert_eq!(condition(&server, "team", "CaBundlesReady"), "True/Published");
    // A hand edit is put right.
    server.set("ConfigMap", "apps", "wharf-ca.crt", |object| object["data"]["ca.crt"] = json!("nonsense"));
    quiet(&server).await;
    assert_eq!(bundle(&server, "apps"), Some(authority(&server)));
    // Labels change.
    server.set("Namespace", "", "apps", |object| object["metadata"]["labels"] = json!({"team": "b"}));
    server.set("Namespace", "", "others", |object| object["metadata"]["labels"] = json!({"team": "a"}));
    quiet(&server).await;
    assert_eq!((bundle(&server, "apps"), bundle(&server, "others")), (None, Some(authority(&server))));
}

#[tokio::test]
async fn one_config_map_serves_all_registries_and_goes_with_the_last() {
    let server = cluster(&selecting(&json!({"team": "a"})));
    add_named_registry(&server, "also", &json!({"caBundle": {"namespaceSelector": {}}}));
    namespace(&server, "apps", &json!({"team": "a"}));
    quiet(&server).await;
    let writes = server.mutations().iter().filter(|request| request.name == "wharf-ca.crt").count();
    assert_eq!(writes, server.list("Namespace").len(), "one write a namespace");
    delete(&server, "also").await;
    quiet(&server).await;
    assert_eq!(bundle(&server, "apps"), Some(authority(&server)));
    assert_eq!(bundle(&server, "platform"), None);
    // One that cannot be read may select anything.
    server.set("Registry", "platform", "team", |registry| registry["spec"]["replicas"] = json!("many"));
    quiet(&server).await;
    assert!(bundle(&server, "apps").is_some(), "nothing is taken away while a Registry cannot be read");
    delete(&server, "team").await;
    quiet(&server).await;
    assert_eq!(bundle(&server, "apps"), None);
}

#[tokio::test]
async fn what_somebody_else_made_is_left_and_named() {
    let server = cluster(&selecting(&json!({"team": "a"})));
    namespace(&server, "apps", &json!({"team": "a"}));
    server.add(&json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "wharf-ca.crt", "namespace": "apps"},
        "data": {"ca.crt": "theirs"},
    }));
    quiet(&server).await;
    assert_eq!(bundle(&server, "apps").as_deref(), Some("theirs"));
    assert_eq!(condition(&server, "team", "CaBundlesReady"), "False/NameTaken");
    assert_eq!(condition(&server, "team", "Ready"), "True/Ready", "another namespace is not the registry's trouble");
    let before = server.mutations().len();
    quiet(&server).await;
    assert_eq!(server.mutations().len(), before);
    server.remove("ConfigMap", "apps", "wharf-ca.crt");
    quiet(&server).await;
    assert_eq!(bundle(&server, "apps"), Some(authority(&server)));
    assert_eq!(condition(&server, "team", "CaBundlesReady"), "True/Published");
}

#[tokio::test]
async fn a_namespace_that_ends_is_left_alone() {
    let server = cluster(&selecting(&json!({"team": "a"})));
    server.add(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": "ending", "labels": {"team": "a"}, "finalizers": ["example.com/hold"]}}));
    let api = kube::Api::<k8s_openapi::api::core::v1::Namespace>::all(server.client());
    api.delete("ending", &kube::api::DeleteParams::default()).await.unwrap();
    quiet(&server).await;
    assert_eq!(bundle(&server, "ending"), None);
    assert_eq!(condition(&server, "team", "CaBundlesReady"), "True/Published");
}

#[tokio::test]
async fn beyond_the_quota_no_namespace_is_given_anything_but_by_a_registry_that_was_there() {
    let limits = |registries_per_namespace| Limits { registries_per_namespace, ..Limits::default() };
    let server = cluster(&json!({}));
    server.set("Registry", "platform", "team", |registry| {
        registry["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    });
    add_named_registry(&server, "extra", &selecting(&json!({"team": "a"})));
    namespace(&server, "apps", &json!({"team": "a"}));
    converge(&server, &limits(1)).await;
    assert_eq!(bundle(&server, "apps"), None);
    converge(&server, &limits(2)).await;
    assert!(bundle(&server, "apps").is_some());
    namespace(&server, "later", &json!({"team": "a"}));
    converge(&server, &limits(1)).await;
    assert!(bundle(&server, "apps").is_some() && bundle(&server, "later").is_some());
    assert_eq!(condition(&server, "extra", "CaBundlesReady"), "True/Published");
}

#[tokio::test]
async fn many_namespaces_are_served_in_batches_and_then_left_in_peace() {
    let server = cluster(&json!({"caBundle": {"namespaceSelector": {}}}));
    for number in 0..250 {
        namespace(&server, &format!("apps-{number}"), &json!({}));
    }
    let process = Process::start(server.client());
    process.round().await;
    let written = || server.mutations().iter().filter(|request| request.name == "wharf-ca.crt").count();
    assert_eq!(written(), 100);
    for _round in 0..6 {
        process.round().await;
        everybody_else(&server);
    }
    assert_eq!(written(), server.list("Namespace").len());
    let requests = server.requests().len();
    process.round().await;
    let after = server.requests();
    let about_bundles = after[requests..].iter().filter(|request| request.name == "wharf-ca.crt").count();
    assert_eq!(about_bundles, 0);
}
