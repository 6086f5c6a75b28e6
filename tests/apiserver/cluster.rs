//! What a cluster adds: garbage, namespaces, addresses, validation, and faults.

use super::*;

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
    let ports = json!([{"name": "a", "port": 1}, {"name": "a", "port": 2}]);
    let twice = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": ports}});
    assert!(refusal(apply(&services, "m", false, twice).await).is_invalid());
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
