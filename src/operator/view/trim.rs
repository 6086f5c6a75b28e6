//! What the caches leave out of each object: what no pass looks at, and of what others made nearly everything. It must never
//! take away what a pass compares, or each pass would write it again.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim};
use k8s_openapi::api::networking::v1::{Ingress, IngressRule};
use kube::api::PartialObjectMeta;
use kube::{Resource, ResourceExt};

use crate::api::labels;
use crate::operator::apply::MANAGER;
use crate::operator::ca_bundle;

/// Where `kubectl apply` keeps a copy of what it sent.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Takes out of an object what no pass looks at: who wrote which field is most of its size.
pub(super) fn trim<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
    trim_annotations(object);
}

/// The same for an Ingress, of which those of others matter only by their hosts. Without labels, none of theirs wakes a
/// Registry of the same name.
pub(super) fn trim_ingress(ingress: &mut Ingress) {
    trim(ingress);
    if is_managed(ingress) {
        return;
    }
    ingress.metadata.labels = None;
    ingress.metadata.annotations = None;
    ingress.status = None;
    if let Some(spec) = ingress.spec.as_mut() {
        (spec.default_backend, spec.tls) = (None, None);
        for rule in spec.rules.iter_mut().flatten() {
            *rule = IngressRule { host: rule.host.take(), http: None };
        }
    }
}

fn is_managed<K: Resource>(object: &K) -> bool {
    object.labels().get(labels::MANAGED_BY).is_some_and(|manager| manager == labels::MANAGED_BY_WHARF)
}

/// An object without annotations stays one without: a patch that adds the first has to know.
fn trim_annotations<K: Resource>(object: &mut K) {
    if let Some(annotations) = object.meta_mut().annotations.as_mut() {
        annotations.remove(LAST_APPLIED);
    }
}

/// The same for a claim, of which it matters which fields Wharf once sent.
pub(super) fn trim_claim(claim: &mut PersistentVolumeClaim) {
    if let Some(entries) = claim.metadata.managed_fields.as_mut() {
        entries.retain(|entry| entry.manager.as_deref() == Some(MANAGER));
    }
    trim_annotations(claim);
}

/// Of a config map that is somebody else's, it matters only that it is there.
pub(super) fn trim_bundle(config_map: &mut ConfigMap) {
    trim(config_map);
    if !ca_bundle::is_ours(config_map) {
        config_map.data = None;
        config_map.binary_data = None;
    }
}

/// Of a namespace, it matters what it is called and labelled, and whether it ends.
pub(super) fn trim_namespace(namespace: &mut PartialObjectMeta<Namespace>) {
    namespace.metadata.managed_fields = None;
    namespace.metadata.annotations = None;
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::operator::view::change::child_changes;

    fn claim(metadata: &Value) -> PersistentVolumeClaim {
        serde_json::from_value(json!({ "metadata": metadata })).unwrap()
    }

    #[test]
    fn a_cached_object_is_without_what_no_pass_looks_at() {
        let entries = json!([{"manager": MANAGER, "fieldsV1": {"f:spec": {}}}, {"manager": "kubelet"}]);
        let annotations = json!({LAST_APPLIED: "{}", "other": "stays"});
        let full = claim(&json!({"name": "a", "managedFields": entries, "annotations": annotations}));
        let mut trimmed = full.clone();
        trim(&mut trimmed);
        assert_eq!(trimmed, claim(&json!({"name": "a", "annotations": {"other": "stays"}})));
        // Of a claim it matters what Wharf itself once sent.
        let mut trimmed = full;
        trim_claim(&mut trimmed);
        let managers: Vec<_> = trimmed.managed_fields().iter().map(|entry| entry.manager.clone().unwrap()).collect();
        assert_eq!(managers, [MANAGER]);
        assert!(trimmed.managed_fields()[0].fields_v1.is_some());
    }

    #[test]
    fn of_the_ingress_of_somebody_else_only_its_hosts_are_kept() {
        let ingress = |labels: Value| -> Ingress {
            serde_json::from_value(json!({
                "metadata": {"name": "a", "uid": "1", "labels": labels},
                "spec": {
                    "tls": [{"hosts": ["a.example.com"], "secretName": "tls"}],
                    "rules": [{"host": "a.example.com", "http": {"paths": [{"pathType": "Prefix", "path": "/", "backend": {}}]}}],
                },
            }))
            .unwrap()
        };
        let ours = ingress(json!({labels::MANAGED_BY: "wharf", labels::INSTANCE: "team"}));
        let mut trimmed = ours.clone();
        trim_ingress(&mut trimmed);
        assert_eq!(trimmed, ours);
        let mut trimmed = ingress(json!({labels::MANAGED_BY: "Helm", labels::INSTANCE: "team"}));
        trim_ingress(&mut trimmed);
        let expected = json!({"metadata": {"name": "a", "uid": "1"}, "spec": {"rules": [{"host": "a.example.com"}]}});
        assert_eq!(trimmed, serde_json::from_value(expected).unwrap());
        assert_eq!(child_changes(&trimmed), []);
    }

    #[test]
    fn an_object_without_annotations_stays_one_without() {
        let mut bare = claim(&json!({"name": "a"}));
        trim_claim(&mut bare);
        trim(&mut bare);
        assert_eq!(bare, claim(&json!({"name": "a"})));
    }
}
