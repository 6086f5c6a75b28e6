//! Tests of the API server that the other suites run against: one for each behaviour that they rely on.
//! They must never look into the server's store where a real client could see the same.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a broken test should stop at once")]

use std::fmt::Debug;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, pin_mut};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Secret, Service, ServiceAccount};
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, WatchEvent, WatchParams,
};
use kube::core::{PartialObjectMeta, Status};
use kube::{Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout;
use wharf::api::{NodeRuntime, Registry};

#[path = "support/apiserver/mod.rs"]
mod apiserver;

use apiserver::{Fault, Server};

const MOMENT: Duration = Duration::from_millis(50);

fn maps(server: &Server) -> Api<ConfigMap> {
    Api::namespaced(server.client(), "default")
}

fn typed<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn map(name: &str, value: &str) -> ConfigMap {
    typed(json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"tier": value}}, "data": {"key": value}}))
}

fn refusal<T: Debug>(result: kube::Result<T>) -> Status {
    match result {
        Err(kube::Error::Api(status)) => *status,
        other => panic!("expected a refusal, not {other:?}"),
    }
}

async fn apply<K>(api: &Api<K>, manager: &str, force: bool, object: Value) -> kube::Result<K>
where
    K: Clone + DeserializeOwned + Debug,
{
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    api.patch(&name, &PatchParams { force, ..PatchParams::apply(manager) }, &Patch::Apply(object)).await
}

fn apply_map(data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
}

fn deployment(selector: &str, limits: &Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"app": selector}},
        "template": {"metadata": {"labels": {"app": selector}},
            "spec": {"containers": [{"name": "main", "image": "i", "resources": {"limits": limits}}]}}}})
}

fn registry(name: &str) -> Value {
    json!({"apiVersion": "wharf.dev/v1alpha1", "kind": "Registry",
        "metadata": {"name": name, "namespace": "default"}, "spec": {}})
}

#[tokio::test]
async fn what_is_created_can_be_read_once() {
    let server = Server::new();
    let made = maps(&server).create(&PostParams::default(), &map("a", "1")).await.unwrap();
    assert_eq!(maps(&server).get("a").await.unwrap(), made);
    assert!(made.uid().is_some() && made.metadata.generation.is_none());
    let again = refusal(maps(&server).create(&PostParams::default(), &map("a", "1")).await);
    assert!(again.is_already_exists() && again.code == 409);
    assert_eq!(again.details.unwrap().kind, "configmaps");
    assert!(refusal(maps(&server).get("b").await).is_not_found());
}

#[tokio::test]
async fn an_unknown_resource_is_not_found() {
    let api: Api<k8s_openapi::api::batch::v1::Job> = Api::namespaced(Server::new().client(), "default");
    assert!(refusal(api.list(&ListParams::default()).await).is_not_found());
}

#[tokio::test]
async fn names_are_generated_and_never_used_twice() {
    let server = Server::new();
    let mut object = map("", "1");
    object.metadata.name = None;
    assert!(refusal(maps(&server).create(&PostParams::default(), &object).await).is_invalid());
    object.metadata.generate_name = Some("a-".to_owned());
    let first = maps(&server).create(&PostParams::default(), &object).await.unwrap();
    let second = maps(&server).create(&PostParams::default(), &object).await.unwrap();
    assert!(first.name_any().starts_with("a-") && first.name_any() != second.name_any());
    maps(&server).delete(&first.name_any(), &DeleteParams::default()).await.unwrap();
    let third = maps(&server).create(&PostParams::default(), &object).await.unwrap();
    assert!(third.uid() != first.uid() && third.uid() != second.uid());
}

#[tokio::test]
async fn a_replacement_needs_the_latest_version() {
    let server = Server::new();
    let first = maps(&server).create(&PostParams::default(), &map("a", "1")).await.unwrap();
    let mut object = first.clone();
    object.data = map("a", "2").data;
    maps(&server).replace("a", &PostParams::default(), &object).await.unwrap();
    assert!(refusal(maps(&server).replace("a", &PostParams::default(), &object).await).is_conflict());
    object.metadata.resource_version = None;
    maps(&server).replace("a", &PostParams::default(), &object).await.unwrap();
    object.metadata.uid = Some("other".to_owned());
    assert!(refusal(maps(&server).replace("a", &PostParams::default(), &object).await).is_conflict());
}

#[tokio::test]
async fn a_custom_resource_is_not_replaced_without_a_version() {
    let server = Server::new();
    let api: Api<Registry> = Api::namespaced(server.client(), "default");
    let mut object: Registry = typed(server.add(&registry("r")));
    object.metadata.resource_version = None;
    assert!(refusal(api.replace("r", &PostParams::default(), &object).await).is_invalid());
}

#[tokio::test]
async fn a_write_that_changes_nothing_keeps_the_version() {
    let server = Server::new();
    let first = apply(&maps(&server), "m", false, apply_map(&json!({"x": "1"}))).await.unwrap();
    let second = apply(&maps(&server), "m", false, apply_map(&json!({"x": "1"}))).await.unwrap();
    assert_eq!(first.resource_version(), second.resource_version());
    let third = maps(&server).replace("a", &PostParams::default(), &second).await.unwrap();
    assert_eq!(third.resource_version(), second.resource_version());
    assert_eq!((server.writes(), server.mutations().len()), (1, 3));
}

#[tokio::test]
async fn merge_patches_and_json_patches_apply() {
    let server = Server::new();
    let api = maps(&server);
    server.add(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"},
        "data": {"x": "1", "y": "2"}}));
    let merge = Patch::Merge(json!({"data": {"x": null, "z": "3"}}));
    let after = api.patch("a", &PatchParams::default(), &merge).await.unwrap();
    assert_eq!(json!(after.data), json!({"y": "2", "z": "3"}));
    let json_patch = |text: &str| Patch::<()>::Json(serde_json::from_str(text).unwrap());
    let good = json_patch(r#"[{"op": "test", "path": "/data/y", "value": "2"}, {"op": "remove", "path": "/data/y"}]"#);
    let after = api.patch("a", &PatchParams::default(), &good).await.unwrap();
    assert_eq!(json!(after.data), json!({"z": "3"}));
    let untrue = refusal(api.patch("a", &PatchParams::default(), &good).await);
    assert_eq!((untrue.code, untrue.is_invalid()), (422, true));
    let stale = Patch::Merge(json!({"metadata": {"resourceVersion": "1"}, "data": {"z": "4"}}));
    assert!(refusal(api.patch("a", &PatchParams::default(), &stale).await).is_conflict());
    let strategic = Patch::Strategic(json!({}));
    assert_eq!(refusal(api.patch("a", &PatchParams::default(), &strategic).await).code, 415);
}

#[tokio::test]
async fn apply_removes_what_its_manager_no_longer_sends() {
    let server = Server::new();
    let api = maps(&server);
    apply(&api, "m", false, apply_map(&json!({"x": "1", "y": "2"}))).await.unwrap();
    server.set("ConfigMap", "default", "a", |object| object["data"]["z"] = json!("3"));
    let after = apply(&api, "m", false, apply_map(&json!({"y": "2"}))).await.unwrap();
    assert_eq!(json!(after.data), json!({"y": "2", "z": "3"}));
    let after = apply(&api, "m", false, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}));
    assert_eq!(json!(after.await.unwrap().data), json!({"z": "3"}));
}

#[tokio::test]
async fn apply_conflicts_with_other_managers_unless_forced() {
    let server = Server::new();
    let api = maps(&server);
    apply(&api, "m", false, apply_map(&json!({"x": "1"}))).await.unwrap();
    apply(&api, "n", false, apply_map(&json!({"x": "1"}))).await.unwrap();
    let conflict = refusal(apply(&api, "n", false, apply_map(&json!({"x": "2"}))).await);
    assert!(conflict.is_conflict());
    let cause = conflict.details.unwrap().causes.remove(0);
    assert_eq!((cause.reason.as_str(), cause.field.as_str()), ("FieldManagerConflict", ".data.x"));
    apply(&api, "n", true, apply_map(&json!({"x": "2"}))).await.unwrap();
    // The loser no longer owns the field, so that it goes with the winner.
    let bare = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    assert!(apply(&api, "n", false, bare).await.unwrap().data.is_none());
    // One manager's updates and applies do not share their fields.
    let merge = Patch::Merge(json!({"data": {"x": "3"}}));
    api.patch("a", &PatchParams { field_manager: Some("n".to_owned()), ..PatchParams::default() }, &merge)
        .await
        .unwrap();
    assert!(refusal(apply(&api, "n", false, apply_map(&json!({"x": "4"}))).await).is_conflict());
}

#[tokio::test]
async fn apply_refuses_another_identity_and_unknown_fields() {
    let server = Server::new();
    let api = maps(&server);
    let with = |field: &str, value: &str| {
        let mut object = apply_map(&json!({"x": "1"}));
        object["metadata"][field] = json!(value);
        object
    };
    assert!(refusal(apply(&api, "m", true, with("uid", "other")).await).is_conflict());
    let made = apply(&api, "m", true, with("uid", "")).await;
    assert!(made.is_ok());
    assert!(refusal(apply(&api, "m", true, with("uid", "other")).await).is_conflict());
    assert!(refusal(apply(&api, "m", true, with("resourceVersion", "1")).await).is_conflict());
    let mut typo = apply_map(&json!({}));
    typo["dota"] = json!({"x": "1"});
    assert_eq!(refusal(apply(&api, "m", true, typo).await).code, 500);
    let mut read_back = json!(api.get("a").await.unwrap());
    read_back["metadata"]["resourceVersion"].take();
    assert_eq!(refusal(apply(&api, "m", true, read_back).await).code, 400);
}

#[tokio::test]
async fn apply_merges_lists_by_key_where_the_schema_says_so() {
    let server = Server::new();
    let api: Api<Deployment> = Api::namespaced(server.client(), "default");
    apply(&api, "m", false, deployment("a", &json!({}))).await.unwrap();
    let mut other = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {
        "template": {"spec": {"containers": [{"name": "side", "image": "s"}]}}}});
    apply(&api, "n", false, other.clone()).await.unwrap();
    let names = |object: Deployment| {
        let containers = object.spec.unwrap().template.spec.unwrap().containers;
        containers.into_iter().map(|container| container.name).collect::<Vec<_>>()
    };
    let both = api.get("d").await.unwrap();
    assert_eq!(names(both.clone()), ["main", "side"]);
    let again = apply(&api, "m", false, deployment("a", &json!({}))).await.unwrap();
    assert_eq!(again.resource_version(), both.resource_version());
    other["spec"]["template"]["spec"]["containers"] = json!([]);
    assert_eq!(names(apply(&api, "n", false, other).await.unwrap()), ["main"]);
}

#[tokio::test]
async fn a_service_accounts_pull_secrets_are_one_field() {
    let server = Server::new();
    let api: Api<ServiceAccount> = Api::namespaced(server.client(), "default");
    let account = |secret: &str| {
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"},
            "imagePullSecrets": [{"name": secret}]})
    };
    apply(&api, "m", false, account("one")).await.unwrap();
    assert!(refusal(apply(&api, "n", false, account("two")).await).is_conflict());
    let after = apply(&api, "n", true, account("two")).await.unwrap();
    assert_eq!(after.image_pull_secrets.unwrap().len(), 1);
}

#[tokio::test]
async fn owners_and_finalizers_of_several_managers_live_side_by_side() {
    let server = Server::new();
    let api = maps(&server);
    let owned = |uid: &str, finalizer: &str| {
        let mut object = apply_map(&json!({"x": "1"}));
        let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": uid});
        object["metadata"]["ownerReferences"] = json!([owner]);
        object["metadata"]["finalizers"] = json!([finalizer]);
        object
    };
    apply(&api, "m", false, owned("1", "wharf.dev/m")).await.unwrap();
    let both = apply(&api, "n", false, owned("2", "wharf.dev/n")).await.unwrap();
    assert_eq!((both.owner_references().len(), both.finalizers().len()), (2, 2));
    let one = apply(&api, "m", false, apply_map(&json!({"x": "1"}))).await.unwrap();
    assert_eq!((one.owner_references()[0].uid.as_str(), one.finalizers()), ("2", &["wharf.dev/n".to_owned()][..]));
}

#[tokio::test]
async fn status_and_the_rest_are_written_apart() {
    let server = Server::new();
    let api: Api<Registry> = Api::namespaced(server.client(), "default");
    let mut object = registry("r");
    object["status"] = json!({"address": "forged"});
    let made = api.create(&PostParams::default(), &typed(object)).await.unwrap();
    assert!(made.status.is_none());
    let mut intent = json!({"apiVersion": "wharf.dev/v1alpha1", "kind": "Registry", "metadata": {"name": "r"},
        "spec": {"suspend": true}, "status": {"address": "a.b.svc"}});
    let after = api.patch_status("r", &PatchParams::apply("m"), &Patch::Apply(&intent)).await.unwrap();
    assert!(!after.spec.suspend && after.metadata.generation == Some(1));
    assert_eq!(after.status.unwrap().address.as_deref(), Some("a.b.svc"));
    intent["status"]["address"] = json!("other");
    let after = api.patch("r", &PatchParams::apply("m").force(), &Patch::Apply(&intent)).await.unwrap();
    assert!(after.spec.suspend && after.metadata.generation == Some(2));
    assert_eq!(after.status.as_ref().unwrap().address.as_deref(), Some("a.b.svc"));
    let merge = Patch::Merge(json!({"status": {"address": "again"}, "metadata": {"labels": {"a": "b"}}}));
    let after = api.patch_status("r", &PatchParams::default(), &merge).await.unwrap();
    assert!(after.labels().is_empty() && after.status.unwrap().address.as_deref() == Some("again"));
    let merge = Patch::Merge(json!({"status": {"address": "forged"}}));
    let after = api.patch("r", &PatchParams::default(), &merge).await.unwrap();
    assert_eq!(after.status.unwrap().address.as_deref(), Some("again"));
}

#[tokio::test]
async fn the_generation_counts_changes_of_the_spec() {
    let server = Server::new();
    let api: Api<Deployment> = Api::namespaced(server.client(), "default");
    apply(&api, "m", false, deployment("a", &json!({}))).await.unwrap();
    let label = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
    assert_eq!(api.patch("d", &PatchParams::default(), &label).await.unwrap().metadata.generation, Some(1));
    let scale = Patch::Merge(json!({"spec": {"replicas": 0}}));
    assert_eq!(api.patch("d", &PatchParams::default(), &scale).await.unwrap().metadata.generation, Some(2));
}

#[tokio::test]
async fn typed_objects_are_stored_in_normal_form() {
    let server = Server::new();
    let api: Api<Deployment> = Api::namespaced(server.client(), "default");
    let limits = json!({"cpu": "1000m", "memory": "1024Mi"});
    let made = apply(&api, "m", false, deployment("a", &limits)).await.unwrap();
    let pod = made.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
    assert_eq!(json!(pod.containers[0].resources.as_ref().unwrap().limits), json!({"cpu": "1", "memory": "1Gi"}));
    assert_eq!(pod.restart_policy.as_deref(), Some("Always"));
    let again = apply(&api, "m", false, deployment("a", &limits)).await.unwrap();
    assert_eq!(again.resource_version(), made.resource_version());
    for (text, normal) in [("0.5", "500m"), ("1.5Gi", "1536Mi"), ("1000Ki", "1000Ki"), ("2048M", "2048M"), ("0", "0")] {
        let after = apply(&api, "m", false, deployment("a", &json!({"memory": text}))).await.unwrap();
        let stored = json!(after)["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"].clone();
        assert_eq!(stored, json!(normal));
    }
}

#[tokio::test]
async fn a_deletion_can_demand_an_identity() {
    let server = Server::new();
    let made = maps(&server).create(&PostParams::default(), &map("a", "1")).await.unwrap();
    let demand = |uid: Option<String>, resource_version: Option<String>| {
        DeleteParams::default().preconditions(Preconditions { uid, resource_version })
    };
    assert!(refusal(maps(&server).delete("a", &demand(Some("other".to_owned()), None)).await).is_conflict());
    assert!(refusal(maps(&server).delete("a", &demand(None, Some("1".to_owned()))).await).is_conflict());
    let done = maps(&server).delete("a", &demand(made.uid(), made.resource_version())).await.unwrap();
    assert!(done.right().unwrap().is_success());
    assert!(refusal(maps(&server).delete("a", &DeleteParams::default()).await).is_not_found());
}

#[tokio::test]
async fn finalizers_hold_a_deleted_object() {
    let server = Server::new();
    let mut object = map("a", "1");
    object.metadata.finalizers = Some(vec!["wharf.dev/f".to_owned()]);
    maps(&server).create(&PostParams::default(), &object).await.unwrap();
    server.set_time("2031-01-01T00:00:00Z");
    let held = maps(&server).delete("a", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert_eq!(json!(held.metadata.deletion_timestamp), json!("2031-01-01T00:00:00Z"));
    let more = Patch::Merge(json!({"metadata": {"finalizers": ["wharf.dev/f", "wharf.dev/g"]}}));
    assert!(refusal(maps(&server).patch("a", &PatchParams::default(), &more).await).is_invalid());
    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps(&server).patch("a", &PatchParams::default(), &none).await.unwrap();
    assert!(refusal(maps(&server).get("a").await).is_not_found());
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let server = Server::new();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    assert!(maps(&server).create(&dry, &map("a", "1")).await.is_ok());
    assert!(maps(&server).get_opt("a").await.unwrap().is_none());
    maps(&server).create(&PostParams::default(), &map("a", "1")).await.unwrap();
    maps(&server).delete("a", &DeleteParams { dry_run: true, ..DeleteParams::default() }).await.unwrap();
    assert_eq!((maps(&server).get("a").await.is_ok(), server.writes()), (true, 1));
}

#[tokio::test]
async fn lists_follow_selectors() {
    let server = Server::new();
    for (name, tier) in [("a", "x"), ("b", "y"), ("c", "z")] {
        maps(&server).create(&PostParams::default(), &map(name, tier)).await.unwrap();
    }
    for (labels, expected) in [
        ("tier=x", &["a"][..]),
        ("tier==y", &["b"]),
        ("tier!=x", &["b", "c"]),
        ("tier in (x, z)", &["a", "c"]),
        ("tier notin (x,z)", &["b"]),
        ("tier", &["a", "b", "c"]),
        ("!tier", &[]),
        ("tier in (x,y),tier!=x", &["b"]),
    ] {
        let found = maps(&server).list(&ListParams::default().labels(labels)).await.unwrap();
        assert_eq!(found.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), expected, "{labels}");
    }
    let everywhere: Api<ConfigMap> = Api::all(server.client());
    let named = everywhere.list(&ListParams::default().fields("metadata.name=b,metadata.namespace=default")).await;
    assert_eq!(named.unwrap().items.len(), 1);
    assert_eq!(refusal(everywhere.list(&ListParams::default().fields("data.key=x")).await).code, 400);
    let metadata: Api<PartialObjectMeta<ConfigMap>> = Api::all(server.client());
    let found = metadata.list_metadata(&ListParams::default()).await.unwrap();
    assert_eq!((found.items.len(), found.items[0].name_any().as_str()), (3, "a"));
    assert_eq!(maps(&server).get_metadata("b").await.unwrap().types.unwrap().kind, "PartialObjectMetadata");
}

async fn next(events: &mut (impl futures::Stream<Item = kube::Result<WatchEvent<ConfigMap>>> + Unpin)) -> String {
    match timeout(MOMENT, events.next()).await {
        Err(_) => "nothing".to_owned(),
        Ok(None) => "end".to_owned(),
        Ok(Some(Ok(WatchEvent::Added(object)))) => format!("added {}", object.name_any()),
        Ok(Some(Ok(WatchEvent::Modified(object)))) => format!("modified {}", object.name_any()),
        Ok(Some(Ok(WatchEvent::Deleted(object)))) => format!("deleted {}", object.name_any()),
        Ok(Some(Ok(WatchEvent::Error(status)))) => format!("error {}", status.code),
        Ok(Some(Ok(WatchEvent::Bookmark(_)))) => "bookmark".to_owned(),
        Ok(Some(Err(error))) => error.to_string(),
    }
}

#[tokio::test]
async fn a_watch_reports_what_enters_changes_and_leaves_its_selection() {
    let server = Server::new();
    let api = maps(&server);
    let start = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    api.create(&PostParams::default(), &map("a", "x")).await.unwrap();
    let events = api.watch(&WatchParams::default().labels("tier=x"), &start).await.unwrap();
    pin_mut!(events);
    assert_eq!(next(&mut events).await, "added a");
    assert_eq!(next(&mut events).await, "nothing");
    server.set("ConfigMap", "default", "a", |object| object["data"]["key"] = json!("other"));
    assert_eq!(next(&mut events).await, "modified a");
    server.set("ConfigMap", "default", "a", |object| object["metadata"]["labels"]["tier"] = json!("y"));
    assert_eq!(next(&mut events).await, "deleted a");
    server.remove("ConfigMap", "default", "a");
    assert_eq!(next(&mut events).await, "nothing");
    api.create(&PostParams::default(), &map("b", "x")).await.unwrap();
    assert_eq!(next(&mut events).await, "added b");
    server.remove("ConfigMap", "default", "b");
    assert_eq!(next(&mut events).await, "deleted b");
    server.cut_watches();
    assert_eq!(next(&mut events).await, "end");
    api.create(&PostParams::default(), &map("c", "x")).await.unwrap();
    let everything = WatchParams { send_initial_events: true, ..WatchParams::default() };
    let events = api.watch(&everything, "").await.unwrap();
    pin_mut!(events);
    assert_eq!([next(&mut events).await, next(&mut events).await], ["added c", "bookmark"]);
    server.compact();
    let events = api.watch(&WatchParams::default(), &start).await.unwrap();
    pin_mut!(events);
    assert_eq!(next(&mut events).await, "error 410");
}

#[tokio::test]
async fn watchers_of_the_runtime_survive_cuts_and_expiry() {
    use kube::runtime::{WatchStreamExt, watcher};
    let server = Server::new();
    let api = maps(&server);
    let metadata: Api<PartialObjectMeta<ConfigMap>> = Api::namespaced(server.client(), "default");
    let streaming = watcher::Config::default().streaming_lists();
    for config in [watcher::Config::default(), streaming] {
        let seen = watcher(api.clone(), config.clone()).default_backoff().applied_objects().map_ok(|o| o.name_any());
        let metadata = watcher(metadata.clone(), config).default_backoff().applied_objects().map_ok(|o| o.name_any());
        // A watcher reports an expired version as an error and goes on.
        let both = futures::stream::select(seen.boxed(), metadata.boxed()).filter_map(async |found| found.ok());
        pin_mut!(both);
        let mut expect = async |name: &str| {
            for _ in 0..2 {
                let found = timeout(Duration::from_secs(10), both.next()).await.unwrap();
                assert_eq!(found.as_deref(), Some(name));
            }
        };
        api.create(&PostParams::default(), &map("a", "x")).await.unwrap();
        expect("a").await;
        api.delete("a", &DeleteParams::default()).await.unwrap();
        server.cut_watches();
        server.compact();
        api.create(&PostParams::default(), &map("b", "x")).await.unwrap();
        expect("b").await;
        api.delete("b", &DeleteParams::default()).await.unwrap();
    }
}

#[tokio::test]
async fn garbage_is_what_has_lost_all_its_owners() {
    let server = Server::new();
    let owners: Vec<Value> = ["one", "two"]
        .map(|name| {
            let uid = server.add(&registry(name))["metadata"]["uid"].clone();
            json!({"apiVersion": "wharf.dev/v1alpha1", "kind": "Registry", "name": name, "uid": uid})
        })
        .to_vec();
    let mut object = map("a", "1");
    object.metadata.owner_references = Some(typed(json!(owners)));
    maps(&server).create(&PostParams::default(), &object).await.unwrap();
    for (name, remaining) in [("one", 1), ("two", 0)] {
        server.remove("Registry", "default", name);
        server.collect_garbage();
        assert_eq!(server.list("ConfigMap").len(), remaining);
    }
}

#[tokio::test]
async fn a_namespace_takes_its_content_along() {
    let server = Server::new();
    let api: Api<Namespace> = Api::all(server.client());
    let absent: Api<ConfigMap> = Api::namespaced(server.client(), "absent");
    assert!(refusal(absent.create(&PostParams::default(), &map("a", "1")).await).is_not_found());
    let mut held = map("a", "1");
    held.metadata.finalizers = Some(vec!["wharf.dev/f".to_owned()]);
    maps(&server).create(&PostParams::default(), &held).await.unwrap();
    api.delete("default", &DeleteParams::default()).await.unwrap();
    assert!(refusal(maps(&server).create(&PostParams::default(), &map("b", "1")).await).is_forbidden());
    server.collect_garbage();
    assert!(api.get_opt("default").await.unwrap().is_some());
    server.set("ConfigMap", "default", "a", |object| object["metadata"]["finalizers"] = json!([]));
    server.collect_garbage();
    assert!(api.get_opt("default").await.unwrap().is_none());
}

#[tokio::test]
async fn services_get_addresses_and_claims_wait() {
    let server = Server::new();
    let services: Api<Service> = Api::namespaced(server.client(), "default");
    let service = |name: &str| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 443}]}});
    let first = apply(&services, "m", false, service("a")).await.unwrap().spec.unwrap();
    let second = apply(&services, "m", false, service("b")).await.unwrap().spec.unwrap();
    assert!(first.cluster_ip.as_ref().unwrap().starts_with("10.96.") && first.cluster_ip != second.cluster_ip);
    assert_eq!(first.cluster_ips.unwrap(), [first.cluster_ip.unwrap()]);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(server.client(), "default");
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "a"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1024Mi"}}}});
    let made = apply(&claims, "m", false, claim).await.unwrap();
    assert_eq!(made.status.unwrap().phase.as_deref(), Some("Pending"));
    assert_eq!(json!(made.spec.unwrap().resources.unwrap().requests), json!({"storage": "1Gi"}));
}

/// Whether a merge patch is carried out, and not refused as invalid.
async fn patch<K>(client: Client, name: &str, patch: Value) -> bool
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::namespaced(client, "default");
    match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => true,
        refused => !refusal(refused).is_invalid(),
    }
}

#[tokio::test]
async fn what_cannot_change_is_refused() {
    let server = Server::new();
    let in_default = |mut object: Value| {
        object["metadata"]["namespace"] = json!("default");
        server.add(&object);
    };
    in_default(deployment("a", &json!({})));
    in_default(
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 1}]}}),
    );
    in_default(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"x": "1"}}));
    in_default(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"},
        "spec": {"resources": {"requests": {"storage": "1Gi"}}}}));
    let selector = json!({"matchLabels": {"app": "b"}});
    let template = json!({"metadata": {"labels": {"app": "b"}}});
    let reselected = json!({"spec": {"selector": selector, "template": template}});
    assert!(!patch::<Deployment>(server.client(), "d", reselected).await);
    assert!(!patch::<Deployment>(server.client(), "d", json!({"spec": {"template": template}})).await);
    assert!(!patch::<Service>(server.client(), "s", json!({"spec": {"clusterIP": "10.96.9.9"}})).await);
    assert!(patch::<Service>(server.client(), "s", json!({"spec": {"clusterIP": null}})).await);
    assert!(!patch::<Secret>(server.client(), "s", json!({"type": "other"})).await);
    assert_eq!(server.get("Secret", "default", "s").unwrap()["data"]["x"], "MQ==");
    let size = |size: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}});
    assert!(!patch::<PersistentVolumeClaim>(server.client(), "c", size("2Gi")).await);
    server.set("PersistentVolumeClaim", "default", "c", |claim| {
        claim["status"] = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}});
    });
    assert!(patch::<PersistentVolumeClaim>(server.client(), "c", size("2Gi")).await);
    assert!(!patch::<PersistentVolumeClaim>(server.client(), "c", size("512Mi")).await);
    assert!(!patch::<PersistentVolumeClaim>(server.client(), "c", json!({"spec": {"storageClassName": "fast"}})).await);
}

#[tokio::test]
async fn malformed_objects_are_refused() {
    let server = Server::new();
    let create = async |object: ConfigMap| refusal(maps(&server).create(&PostParams::default(), &object).await).code;
    assert_eq!(create(map("Upper", "1")).await, 422);
    assert_eq!(create(map("a", &"x".repeat(64))).await, 422);
    let mut elsewhere = map("a", "1");
    elsewhere.metadata.namespace = Some("kube-system".to_owned());
    assert_eq!(create(elsewhere).await, 400);
    let named_otherwise = Patch::Apply(apply_map(&json!({"x": "1"})));
    assert_eq!(refusal(maps(&server).patch("b", &PatchParams::apply("m"), &named_otherwise).await).code, 400);
    let mut huge = map("a", "1");
    huge.data = Some([("key".to_owned(), "x".repeat(1_048_577))].into());
    assert_eq!(create(huge).await, 422);
    let services: Api<Service> = Api::namespaced(server.client(), "default");
    let digit = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "1a"}, "spec": {}});
    assert!(refusal(apply(&services, "m", false, digit).await).is_invalid());
    let secrets: Api<Secret> = Api::namespaced(server.client(), "default");
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "type": "kubernetes.io/tls"});
    assert!(refusal(apply(&secrets, "m", false, secret).await).is_invalid());
    maps(&server).create(&PostParams::default(), &map("a", "1")).await.unwrap();
    let number = Patch::Merge(json!({"data": {"x": 1}}));
    assert_eq!(refusal(maps(&server).patch("a", &PatchParams::default(), &number).await).code, 400);
}

#[tokio::test]
async fn requests_are_recorded_with_what_became_of_them() {
    let server = Server::new();
    let api: Api<NodeRuntime> = Api::all(server.client());
    server.add(
        &json!({"apiVersion": "wharf.dev/v1alpha1", "kind": "NodeRuntime", "metadata": {"name": "n"}, "spec": {}}),
    );
    let patch = Patch::Merge(json!({"status": {"planRevision": 3}}));
    api.patch_status("n", &PatchParams::default(), &patch).await.unwrap();
    api.patch_status("n", &PatchParams::default(), &patch).await.unwrap();
    let _ = api.get("absent").await;
    let requests = server.requests();
    let told: Vec<_> =
        requests.iter().map(|r| (r.verb, r.name.as_str(), r.subresource.as_str(), r.wrote, r.outcome)).collect();
    let expected = [
        ("patch", "n", "status", true, Some(200)),
        ("patch", "n", "status", false, Some(200)),
        ("get", "absent", "", false, Some(404)),
    ];
    assert_eq!(told, expected);
    assert_eq!((requests[0].resource.as_str(), requests[0].ordinal), ("noderuntimes.wharf.dev", 0));
    assert_eq!((server.writes(), server.mutations().len()), (1, 2));
}

#[tokio::test]
async fn faults_strike_single_requests() {
    let server = Server::new();
    let create = async |name: &str| maps(&server).create(&PostParams::default(), &map(name, "1")).await;
    let faults = [
        Fault::Status { code: 429, reason: "TooManyRequests", retry_after: Some(7) },
        Fault::Reset,
        Fault::ApplyThenLose,
        Fault::Hang,
    ];
    server.on_request(move |request| faults.get(request.ordinal).cloned());
    let refused = refusal(create("refused").await);
    assert_eq!((refused.code, refused.details.unwrap().retry_after_seconds), (429, 7));
    assert!(matches!(create("reset").await, Err(kube::Error::Service(_))));
    assert!(matches!(create("lost").await, Err(kube::Error::Service(_))));
    assert!(timeout(MOMENT, create("hung")).await.is_err());
    create("passed").await.unwrap();
    let names: Vec<_> = server.list("ConfigMap").into_iter().map(|object| object["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["lost", "passed"]);
    assert_eq!(server.requests()[2].outcome, None);
    server.heal();
}

#[tokio::test]
async fn a_crash_ends_all_of_one_process_and_no_other() {
    for (fault, applied) in [(Fault::CrashBefore, false), (Fault::CrashAfter, true)] {
        let server = Server::new();
        let process = server.connect();
        let api: Api<ConfigMap> = Api::namespaced(process.client(), "default");
        let events = api.watch(&WatchParams::default(), "0").await.unwrap();
        pin_mut!(events);
        server.on_request(move |request| request.is_mutation().then(|| fault.clone()));
        assert!(timeout(MOMENT, process.crashed()).await.is_err());
        assert!(api.create(&PostParams::default(), &map("a", "1")).await.is_err());
        process.crashed().await;
        server.heal();
        let seen = server.requests().len();
        assert!(api.get("a").await.is_err());
        assert_eq!(server.requests().len(), seen);
        while events.next().await.is_some() {}
        let next: Api<ConfigMap> = Api::namespaced(server.connect().client(), "default");
        assert_eq!(next.get_opt("a").await.unwrap().is_some(), applied);
    }
}

#[tokio::test]
async fn another_actor_can_come_in_between() {
    let server = Server::new();
    let made = maps(&server).create(&PostParams::default(), &map("a", "1")).await.unwrap();
    let rival = server.clone();
    server.on_request(move |request| {
        if request.verb == "update" {
            rival.set("ConfigMap", "default", "a", |object| object["data"]["key"] = json!("rival"));
        }
        None
    });
    let mut object = made.clone();
    object.data = map("a", "2").data;
    assert!(refusal(maps(&server).replace("a", &PostParams::default(), &object).await).is_conflict());
}
