use std::collections::BTreeMap;

use super::*;

fn wanted(servers: &[(&str, &str)]) -> BTreeMap<String, Wanted> {
    servers
        .iter()
        .map(|(host, server)| {
            let owner = Owner {
                kind: crate::plan::OwnerKind::Registry,
                namespace: "platform".into(),
                name: (*host).into(),
                uid: format!("uid-of-{host}"),
            };
            ((*host).to_owned(), Wanted { backends: vec![(*server).into()], owner, nodes: None })
        })
        .collect()
}

#[test]
fn a_first_plan_starts_from_the_clock() {
    let plan = next(&Plan::default(), "ca", wanted(&[("a", "https://1")]), 1_000);
    assert_eq!(plan.revision, 1_000);
    assert_eq!(plan.hosts["a"].since, 1_000);
}

#[test]
fn an_empty_first_plan_has_a_revision_too() {
    assert_eq!(next(&Plan::default(), "", BTreeMap::new(), 7).revision, 7);
}

#[test]
fn an_unchanged_plan_is_the_same_plan() {
    let first = next(&Plan::default(), "ca", wanted(&[("a", "https://1")]), 1_000);
    assert_eq!(next(&first, "ca", wanted(&[("a", "https://1")]), 2_000), first);
}

#[test]
fn only_the_changed_entry_becomes_newer() {
    let first = next(&Plan::default(), "ca", wanted(&[("a", "https://1"), ("b", "https://2")]), 1_000);
    let second = next(&first, "ca", wanted(&[("a", "https://1"), ("b", "https://3")]), 900);
    assert_eq!(second.revision, 1_001);
    assert_eq!(second.hosts["a"].since, 1_000);
    assert_eq!(second.hosts["b"].since, 1_001);
}

#[test]
fn a_removed_host_makes_a_new_revision_and_leaves_the_others() {
    let first = next(&Plan::default(), "ca", wanted(&[("a", "https://1"), ("b", "https://2")]), 1_000);
    let second = next(&first, "ca", wanted(&[("a", "https://1")]), 1_000);
    assert_eq!(second.revision, 1_001);
    assert_eq!(second.hosts["a"].since, 1_000);
    assert!(!second.hosts.contains_key("b"));
}

/// Whatever the certificates hold, they are told apart by their frames.
fn pem(name: &str) -> String {
    format!("-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----\n")
}

#[test]
fn a_rotation_changes_the_index_alone_and_says_since_when_all_certificates_stand() {
    let hosts = || wanted(&[("a", "https://1"), ("b", "https://2")]);
    let (old, both, new) = (pem("old"), pem("old") + &pem("new"), pem("new"));
    let first = next(&Plan::default(), &old, hosts(), 1_000);
    assert_eq!(first.authority_since, 1_000);
    let published = next(&first, &both, hosts(), 2_000);
    assert_eq!((published.revision, published.authority_since), (2_000, 2_000));
    let retired = next(&published, &new, hosts(), 3_000);
    assert_eq!((retired.revision, retired.authority_since), (3_000, 2_000), "who has both has the new one");
    let replaced = next(&retired, &pem("another"), hosts(), 4_000);
    assert_eq!(replaced.authority_since, 4_000);
    for plan in [&published, &retired, &replaced] {
        assert_eq!(render(plan).1, render(&first).1, "no shard is written anew");
    }
    let grown = next(&published, &both, wanted(&[("a", "https://1")]), 5_000);
    assert_eq!((grown.revision, grown.authority_since), (5_000, 2_000));
}

#[test]
fn an_index_of_an_older_writer_is_read() {
    let index: Index = serde_json::from_str(r#"{"version":1,"revision":7,"authority":"","shards":[]}"#).unwrap();
    assert_eq!(index.authority_since, 0);
}

#[test]
fn shards_stay_small_and_hold_every_host_once() {
    let names: Vec<String> = (0..300).map(|number| format!("team-{number}.platform.svc")).collect();
    let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "https://10.96.0.1")).collect();
    let plan = next(&Plan::default(), "ca", wanted(&pairs), 1);
    let (index, documents) = render(&plan);
    assert_eq!(index.shards.len(), 8);
    let mut found = 0;
    for reference in &index.shards {
        let document = &documents[&reference.name];
        assert_eq!(digest_of(document), reference.digest);
        let shard: Shard = serde_json::from_str(document).unwrap();
        assert!(shard.hosts.len() <= HOSTS_PER_SHARD, "{}", shard.hosts.len());
        found += shard.hosts.len();
    }
    assert_eq!(found, 300);
}

#[test]
fn an_entry_counts_only_for_its_owner() {
    let plan = next(&Plan::default(), "ca", wanted(&[("a", "https://1")]), 1_000);
    assert_eq!(plan.needed_revision("a", "uid-of-a", true), Some(1_000));
    assert_eq!(plan.needed_revision("a", "uid-of-b", true), None, "the name passes from one to another");
    assert_eq!(plan.needed_revision("b", "uid-of-b", true), None);
}
