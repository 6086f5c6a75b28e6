use serde_json::json;

use super::*;
use crate::agent::fake::Api as Fake;
use crate::plan::{Entry, Owner, render};

const NAMESPACE: &str = "wharf-nodes";

fn plan(revision: i64, hosts: &[String]) -> Plan {
    let owner =
        Owner { kind: crate::plan::OwnerKind::Registry, namespace: "a".into(), name: "b".into(), uid: "c".into() };
    let entry = Entry { backends: vec![format!("https://{revision}")], owner, nodes: None, since: revision };
    let hosts = hosts.iter().map(|host| (host.clone(), entry.clone())).collect();
    Plan { revision, authority: "PEM".into(), authority_since: 1, hosts }
}

fn put(fake: &Fake, plan: &Plan) -> Vec<String> {
    let (index, documents) = render(plan);
    for (name, document) in &documents {
        fake.put(path(name), json!({"metadata": {"name": name}, "data": {SHARD_KEY: document}}));
    }
    put_index(fake, &serde_json::to_string(&index).unwrap());
    documents.into_keys().collect()
}

fn put_index(fake: &Fake, document: &str) {
    fake.put(path(INDEX_NAME), json!({"metadata": {"name": INDEX_NAME}, "data": {INDEX_KEY: document}}));
}

fn path(name: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/configmaps/{name}")
}

fn source(fake: &Fake) -> PlanSource {
    PlanSource::new(fake.client(), NAMESPACE)
}

fn hosts(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("team-{number}.platform.svc")).collect()
}

#[tokio::test]
async fn a_plan_is_read_whole_and_later_only_what_changed() {
    let fake = Fake::default();
    let first = plan(1, &hosts(200));
    let shards = put(&fake, &first);
    assert!(shards.len() > 2);
    let mut source = source(&fake);
    assert_eq!(source.read().await.unwrap(), Some(first.clone()));
    assert_eq!(fake.requests().len(), 1 + shards.len());

    let mut second = first;
    second.revision = 2;
    second.hosts.remove("team-7.platform.svc");
    put(&fake, &second);
    fake.forget_requests();
    assert_eq!(source.read().await.unwrap(), Some(second));
    assert_eq!(fake.requests().len(), 2);
}

#[tokio::test]
async fn no_index_is_not_an_empty_plan() {
    let fake = Fake::default();
    assert_eq!(source(&fake).read().await.unwrap(), None);
    put(&fake, &plan(3, &[]));
    assert_eq!(source(&fake).read().await.unwrap(), Some(plan(3, &[])));
}

#[tokio::test]
async fn a_missing_shard_makes_it_read_the_index_again() {
    let fake = Fake::default();
    let old = plan(1, &hosts(2));
    let new = plan(2, &hosts(2));
    let shards = put(&fake, &old);
    fake.remove(&path(&shards[0]));
    // The writer is done as soon as the agent has seen that the shard is gone.
    let writer = fake.clone();
    let replaced = new.clone();
    fake.after(path(&shards[0]), move || {
        put(&writer, &replaced);
    });
    assert_eq!(source(&fake).read().await.unwrap(), Some(new));
}

#[tokio::test]
async fn whatever_is_wrong_gives_no_plan() {
    let fake = Fake::default();
    let shards = put(&fake, &plan(1, &hosts(2)));
    let shard = path(&shards[0]);
    let good = fake.get(&shard).unwrap();

    fake.put(shard.clone(), json!({"metadata": {"name": "x"}, "data": {SHARD_KEY: "{\"hosts\":{}}"}}));
    let error = source(&fake).read().await.unwrap_err().to_string();
    assert!(error.contains("its digest is"), "{error}");

    fake.remove(&shard);
    let error = source(&fake).read().await.unwrap_err();
    assert!(matches!(error, Error::ShardMissing(_)), "{error}");
    fake.put(shard, good);
    assert!(source(&fake).read().await.is_ok());

    put_index(&fake, "{\"version\": 9, \"else\": true}");
    assert!(matches!(source(&fake).read().await, Err(Error::Version(9))));
    put_index(&fake, "{\"version\": 2}");
    assert!(matches!(source(&fake).read().await, Err(Error::Malformed { .. })));
    fake.put(path(INDEX_NAME), json!({"metadata": {"name": INDEX_NAME}}));
    let error = source(&fake).read().await.unwrap_err().to_string();
    assert!(error.contains("no key index.json"), "{error}");

    fake.fail(500);
    assert!(matches!(source(&fake).read().await, Err(Error::Read { .. })));
}
