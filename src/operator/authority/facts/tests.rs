use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ObjectMeta, PartialObjectMeta};
use serde_json::json;

use super::*;
use crate::operator::authority::Signer;
use crate::operator::certificate::issue;
use kube::runtime::watcher::Event;

fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().unwrap()
}

fn status(value: serde_json::Value) -> NodeRuntimeStatus {
    serde_json::from_value(value).unwrap()
}

fn ready(reason: &str) -> serde_json::Value {
    json!([{"type": "Ready", "status": "True", "reason": reason, "message": "", "lastTransitionTime": "2026-06-01T00:00:00Z"}])
}

#[test]
fn a_node_lags_unless_it_depends_on_nothing_or_has_carried_out_the_revision() {
    let failed = json!([{"host": "a", "reason": "WriteFailed", "message": ""}]);
    let foreign = json!([{"host": "a", "reason": "Conflict", "message": ""}]);
    let cases = [
        (json!({}), false, "no agent ever ran"),
        (json!({"conditions": ready("Configured"), "planRevision": 7}), false, "as planned"),
        (json!({"conditions": ready("Configured"), "planRevision": 6}), true, "an older revision"),
        (json!({"conditions": ready("Exceptions"), "planRevision": 7, "exceptions": failed}), true, "a file failed"),
        (json!({"conditions": ready("Exceptions"), "planRevision": 7, "exceptions": foreign}), false, "a user's file"),
        (json!({"conditions": ready("WriteFailed")}), true, "the folder cannot be written"),
        (json!({"conditions": ready("ConfigurationUnreadable")}), true, "what the runtime reads is unknown"),
        (json!({"conditions": ready("ConfigPathUnset")}), false, "the runtime reads no files"),
        (json!({"conditions": ready("Unsupported")}), false, "the runtime is another"),
        (json!({"conditions": ready("Pending")}), false, "the agent knows no plan yet"),
        (json!({"conditions": ready("Pending"), "planRevision": 6}), true, "an earlier agent's files stand"),
    ];
    for (value, expected, name) in cases {
        assert_eq!(lags(&status(value), 7), expected, "{name}");
    }
}

#[test]
fn the_facts_name_what_lags_and_whose_certificate_is_old() {
    let first = Authority::new(Signer::make(now()).unwrap());
    let second = first.clone().with_next(Signer::make(now()).unwrap(), now()).switched(now());
    let (view, mut writers) = View::empty();
    let metadata = |name: &str| ObjectMeta {
        name: Some(name.into()),
        namespace: Some("platform".into()),
        labels: Some([(labels::INSTANCE.to_owned(), "team".to_owned())].into()),
        ..ObjectMeta::default()
    };
    writers.config_maps.apply_watcher_event(&Event::Init);
    for (name, key, text) in [
        ("told-ca", "ca.crt", second.bundle()),
        ("late-ca", "ca.crt", first.bundle()),
        ("engine", "config.yml", first.bundle()),
    ] {
        let data = Some([(key.to_owned(), text)].into());
        let object = ConfigMap { metadata: metadata(name), data, ..ConfigMap::default() };
        writers.config_maps.apply_watcher_event(&Event::InitApply(object));
    }
    writers.config_maps.apply_watcher_event(&Event::InitDone);
    writers.secrets.apply_watcher_event(&Event::Init);
    for (name, authority) in [("old-tls", &first), ("new-tls", &second)] {
        let leaf = issue(authority.signer.pair(), &["team".to_owned()].into(), now()).unwrap();
        let data = Some([("tls.crt".to_owned(), ByteString(leaf.certificate.into_bytes()))].into());
        let object = Secret { metadata: metadata(name), data, ..Secret::default() };
        writers.secrets.apply_watcher_event(&Event::InitApply(object));
    }
    writers.secrets.apply_watcher_event(&Event::InitDone);
    writers.namespaces.apply_watcher_event(&Event::Init);
    writers.ca_bundles.apply_watcher_event(&Event::Init);
    for (namespace, manager, ends) in [("late", "wharf", false), ("theirs", "helm", false), ("ending", "wharf", true)] {
        let mut named = PartialObjectMeta::<Namespace>::default();
        named.metadata.name = Some(namespace.into());
        named.metadata.deletion_timestamp = ends.then(|| Time(now()));
        writers.namespaces.apply_watcher_event(&Event::InitApply(named));
        let marks = json!({"app.kubernetes.io/name": "ca-bundle", "app.kubernetes.io/managed-by": manager});
        let metadata = json!({"name": "wharf-ca.crt", "namespace": namespace, "labels": marks});
        let object = json!({"metadata": metadata, "data": {"ca.crt": first.bundle()}});
        writers.ca_bundles.apply_watcher_event(&Event::InitApply(serde_json::from_value(object).unwrap()));
    }
    writers.namespaces.apply_watcher_event(&Event::InitDone);
    writers.ca_bundles.apply_watcher_event(&Event::InitDone);
    let mut plan = Plan { authority: second.bundle(), ..Plan::default() };
    let leaves = leaves(&view);
    let facts = gather(&second, true, &leaves, &view, &plan);
    let expected = Facts {
        requested: true,
        in_plan: true,
        lagging: vec!["ConfigMap late/wharf-ca.crt".into(), "ConfigMap platform/late-ca".into()],
        by_outgoing: vec!["Secret platform/old-tls".into()],
    };
    assert_eq!(facts, expected);
    plan.authority = first.bundle();
    assert!(!gather(&second, true, &leaves, &view, &plan).in_plan);
}
