//! Creating, replacing, patching and deleting.

use super::*;

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
