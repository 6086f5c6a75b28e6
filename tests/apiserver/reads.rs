//! Lists and watches.

use super::*;

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

#[tokio::test]
async fn discovery_names_what_is_served_and_nothing_else() {
    let server = Server::new();
    let groups = || async {
        let groups = server.client().list_api_groups().await.unwrap().groups;
        groups.into_iter().map(|group| group.name).collect::<Vec<_>>()
    };
    assert!(groups().await.contains(&"gateway.networking.k8s.io".to_owned()));
    let resources = server.client().list_api_group_resources("apps/v1").await.unwrap().resources;
    assert_eq!(
        resources.iter().map(|resource| &resource.name).collect::<Vec<_>>(),
        ["deployments", "daemonsets", "statefulsets"]
    );
    for kind in ["HTTPRoute", "BackendTLSPolicy", "Gateway"] {
        server.withdraw(kind);
    }
    assert!(!groups().await.contains(&"gateway.networking.k8s.io".to_owned()));
    assert_eq!(refusal(server.client().list_api_group_resources("gateway.networking.k8s.io/v1").await).code, 404);
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
