//! The operator's requests to the in-process API server, and what a right to read Secrets is used for.

use serde_json::json;
use wharf::operator::apply::Applier;
use wharf::operator::images::{self, Survey};
use wharf::operator::metrics::Metrics;
use wharf::operator::mirror::reports::ask_once;

use crate::apiserver::{RecordedRequest, Server};
use crate::rules::{Request, rendered, without_right};
use crate::world::{Process, cluster, now, run_until_quiet};

fn as_roles_see_it(request: &RecordedRequest) -> Vec<Request> {
    // Discovery is open to everybody, and no roles of ours.
    if request.resource.is_empty() {
        return Vec::new();
    }
    let (plural, group) = request.resource.split_once('.').unwrap_or((&request.resource, ""));
    let part = if request.subresource.is_empty() { String::new() } else { format!("/{}", request.subresource) };
    let seen = |verb: &str, name: &str| Request {
        account: "wharf-operator".to_owned(),
        verb: verb.to_owned(),
        group: group.to_owned(),
        resource: format!("{plural}{part}"),
        namespace: request.namespace.clone(),
        name: name.to_owned(),
    };
    let mut all = vec![seen(request.verb, &request.name)];
    // An apply that makes the object needs both rights.
    if request.verb == "patch" && request.outcome == Some(201) {
        all.push(seen("create", ""));
    }
    all
}

fn requests(server: &Server) -> Vec<Request> {
    server.requests().iter().flat_map(as_roles_see_it).collect()
}

#[tokio::test]
async fn the_rendered_rules_allow_a_whole_life_of_a_registry() {
    let mut all = Vec::new();
    for spec in [
        json!({"storage": {"deletionPolicy": "Delete"}}),
        json!({"engine": "Distribution", "replicas": 3, "storage": {"s3": {"bucket": "images"}}, "podTemplate": {"priorityClassName": "high"}}),
        json!({"expose": {"service": {"type": "NodePort"}}, "caBundle": {"namespaceSelector": {}}}),
        json!({"expose": {"gateway": {"host": "images.example.com", "parentRefs": [{"name": "front"}]}}}),
    ] {
        let server = cluster(&spec);
        let connection = server.connect();
        run_until_quiet(&server, &connection).await;
        server.set("Registry", "platform", "team", |registry| registry["spec"]["suspend"] = json!(true));
        run_until_quiet(&server, &connection).await;
        server.remove("Registry", "platform", "team");
        run_until_quiet(&server, &connection).await;
        all.extend(requests(&server));
    }
    assert!(all.iter().any(|request| request.verb == "delete"), "{all:#?}");
    let unexpected = without_right(&all, &rendered());
    assert!(unexpected.is_empty(), "the rendered rules do not allow: {unexpected:#?}");
}

#[tokio::test]
async fn the_rendered_rules_allow_what_is_asked_about_mirrors() {
    let server = cluster(&json!({}));
    let spec = json!({"upstreams": [{"host": "docker.io"}], "replicas": 2});
    server.add(
        &json!({"apiVersion": "wharf.dev/v1alpha1", "kind": "Mirror", "metadata": {"name": "default"}, "spec": spec}),
    );
    let process = Process::start(server.client());
    process.until_quiet(&server).await;
    let survey = Survey::new(Applier::new(server.client(), images::MANAGER, Metrics::default()));
    survey.pass(&process.fresh_context().await).await.unwrap();
    ask_once(&process.fresh_context().await, 1).await;
    server.set_time(&now().to_string());
    server.remove("Mirror", "", "default");
    server.set("NodeRuntime", "", "a", |runtime| runtime["status"]["planRevision"] = json!(1));
    process.round().await;
    let all = requests(&server);
    for resource in ["leases", "pods", "mirrors", "statefulsets"] {
        assert!(all.iter().any(|request| request.resource == resource), "{resource}");
    }
    let unexpected = without_right(&all, &rendered());
    assert!(unexpected.is_empty(), "the rendered rules do not allow: {unexpected:#?}");
}

/// A Secret that only bears one of Wharf's names is looked at by its metadata: what it holds is not asked for.
#[tokio::test]
async fn what_somebody_elses_secret_holds_is_not_read() {
    let server = cluster(&json!({}));
    for name in ["team-pull", "team-registry", "team-registry-tls", "team-registry-credentials"] {
        server.add(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "platform"},
            "data": {"password": "c2VjcmV0"}}));
    }
    run_until_quiet(&server, &server.connect()).await;
    let asked: Vec<_> = server
        .requests()
        .into_iter()
        .filter(|request| request.resource == "secrets" && request.namespace == "platform")
        .collect();
    assert!(asked.iter().any(|request| request.name == "team-pull"), "{asked:#?}");
    let read: Vec<_> = asked.iter().filter(|request| !request.metadata_only).collect();
    assert!(read.is_empty(), "{read:#?}");
}
