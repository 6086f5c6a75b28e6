//! Server-side apply and who owns which field.

use super::*;

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
    assert!(refusal(apply(&api, "m", true, with("uid", "other")).await).is_invalid());
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
async fn a_field_goes_with_the_defaults_in_it() {
    let server = Server::new();
    let api: Api<Deployment> = Api::namespaced(server.client(), "default");
    let probed = |handler: Value| {
        let mut object = deployment("a", &json!({"memory": "1Gi"}));
        object["spec"]["template"]["spec"]["containers"][0]["livenessProbe"] = handler;
        object
    };
    let probe = |after: Deployment| json!(after)["spec"]["template"]["spec"]["containers"][0]["livenessProbe"].clone();
    let before = apply(&api, "m", false, probed(json!({"httpGet": {"port": 1}}))).await.unwrap();
    assert_eq!(probe(before)["httpGet"], json!({"path": "/", "port": 1, "scheme": "HTTP"}));
    let after = probe(apply(&api, "m", false, probed(json!({"tcpSocket": {"port": 1}}))).await.unwrap());
    assert_eq!((&after["httpGet"], &after["periodSeconds"]), (&Value::Null, &json!(10)));
}
