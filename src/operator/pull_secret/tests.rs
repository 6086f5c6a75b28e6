use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::operator::registry::fixture;

fn account(metadata: &Value, secrets: &[&str]) -> ServiceAccount {
    let mut account: ServiceAccount = serde_json::from_value(json!({ "metadata": metadata })).unwrap();
    account.metadata.resource_version = Some("7".into());
    let references: Vec<Value> = secrets.iter().map(|name| json!({"name": name})).collect();
    account.image_pull_secrets = (!secrets.is_empty()).then(|| serde_json::from_value(json!(references)).unwrap());
    account
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// The account after the patch, as the API server would make it.
fn patched(account: &ServiceAccount, wanted: &[&str]) -> ServiceAccount {
    let mut value = serde_json::to_value(account).unwrap();
    if let Some(patch) = patch(account, &set(wanted)) {
        json_patch::patch(&mut value, &patch).unwrap();
    }
    serde_json::from_value(value).unwrap()
}

fn secrets(account: &ServiceAccount) -> Vec<String> {
    account.image_pull_secrets.iter().flatten().map(|reference| reference.name.clone()).collect()
}

#[test]
fn attaching_and_taking_off_leaves_the_account_as_it_was() {
    for before in [
        account(&json!({"name": "default"}), &[]),
        account(&json!({"name": "default", "labels": {"a": "b"}, "annotations": {"c": "d"}}), &["theirs"]),
    ] {
        let attached = patched(&before, &["team-pull"]);
        assert!(secrets(&attached).contains(&"team-pull".to_owned()));
        assert_eq!(secrets(&attached).len(), secrets(&before).len() + 1);
        assert_eq!(patch(&attached, &set(&["team-pull"])), None, "once attached, nothing is written");
        let after = patched(&attached, &[]);
        assert_eq!(secrets(&after), secrets(&before));
        assert_eq!(after.labels(), before.labels());
        assert_eq!(after.annotations(), before.annotations());
        assert_eq!(patch(&after, &set(&[])), None);
    }
}

#[test]
fn an_entry_that_somebody_else_made_is_never_taken_off() {
    let before = account(&json!({"name": "default"}), &["team-pull"]);
    let attached = patched(&before, &["team-pull"]);
    assert_eq!(attached, before, "it is there already, and is not ours");
    assert_eq!(secrets(&patched(&attached, &[])), ["team-pull"]);
}

#[test]
fn an_entry_taken_off_by_hand_comes_back() {
    let mut attached = patched(&account(&json!({"name": "default"}), &["theirs"]), &["team-pull"]);
    attached.image_pull_secrets = None;
    assert_eq!(secrets(&patched(&attached, &["team-pull"])), ["team-pull"]);
}

#[test]
fn each_patch_tests_the_version_that_was_read() {
    let patch = patch(&account(&json!({"name": "default"}), &[]), &set(&["team-pull"])).unwrap();
    let first = serde_json::to_value(&patch.0[0]).unwrap();
    assert_eq!(first, json!({"op": "test", "path": "/metadata/resourceVersion", "value": "7"}));
}

#[test]
fn only_registries_of_the_same_namespace_that_name_the_account_count() {
    let mut elsewhere = fixture::team("{}");
    elsewhere.metadata.namespace = Some("other".into());
    let unnamed = fixture::team("{pullSecrets: {serviceAccounts: [builder]}}");
    let named = fixture::team("{}");
    assert_eq!(wanted(&[elsewhere, unnamed.clone(), named], "platform", "default"), set(&["team-pull"]));
    assert_eq!(wanted(&[unnamed], "platform", "default"), set(&[]));
}
