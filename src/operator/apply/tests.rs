use serde_json::json;

use super::intent::{annotated, repair, satisfied};
use crate::api::labels;

/// What the API server would hold after the manifest was applied: more fields, other notation.
#[test]
fn what_the_api_server_adds_is_no_difference() {
    let wanted = json!({
        "spec": {
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "1000m"}}}],
            "volumes": [{"emptyDir": {}}],
        }
    });
    let live = json!({
        "metadata": {"uid": "1"},
        "spec": {
            "containers": [{"name": "a", "image": "x", "resources": {"requests": {"cpu": "1"}}}],
            "volumes": [{"emptyDir": {}}],
            "restartPolicy": "Always",
        }
    });
    assert!(satisfied(&wanted, &live));
}

#[test]
fn each_of_these_is_a_difference() {
    let wanted = json!({"spec": {"replicas": 1, "names": ["a"], "containers": [{"name": "a", "image": "x"}]}});
    let live = |spec| json!({ "spec": spec });
    for other in [
        json!({"replicas": 2, "names": ["a"], "containers": [{"name": "a", "image": "x"}]}),
        json!({"names": ["a"], "containers": [{"name": "a", "image": "x"}]}),
        json!({"replicas": 1, "names": ["a", "b"], "containers": [{"name": "a", "image": "x"}]}),
        json!({"replicas": 1, "names": ["a"], "containers": [{"name": "a", "image": "y"}]}),
        json!({"replicas": 1, "names": ["a"], "containers": [{"name": "b", "image": "x"}]}),
        json!({"replicas": 1, "names": ["a"], "containers": []}),
    ] {
        assert!(!satisfied(&wanted, &live(other.clone())), "{other}");
    }
}

#[test]
fn a_named_element_of_somebody_else_is_theirs() {
    let wanted = json!([{"name": "ours", "value": 1}]);
    assert!(satisfied(&wanted, &json!([{"name": "theirs"}, {"name": "ours", "value": 1}])));
}

#[test]
fn quantities_are_compared_by_amount_only_where_they_are_quantities() {
    assert!(!satisfied(&json!({"label": "1000m"}), &json!({"label": "1"})));
    assert!(satisfied(&json!({"limits": {"memory": "1024Mi"}}), &json!({"limits": {"memory": "1Gi"}})));
}

#[test]
fn a_field_that_was_dropped_changes_the_intent() {
    let with = annotated(json!({"metadata": {"name": "a"}, "spec": {"x": 1, "y": 2}}));
    let without = annotated(json!({"metadata": {"name": "a"}, "spec": {"x": 1}}));
    assert!(satisfied(&with, &with));
    assert!(!satisfied(&without, &with), "the live object still has what was dropped");
    assert_ne!(with["metadata"]["annotations"][labels::INTENT], without["metadata"]["annotations"][labels::INTENT]);
}

#[test]
fn a_repair_sets_what_differs_and_nothing_else() {
    let wanted =
        json!({"metadata": {"name": "a"}, "spec": {"ports": [{"name": "registry", "port": 443}], "type": "ClusterIP"}});
    let mut live = json!({
        "metadata": {"name": "a", "resourceVersion": "9"},
        "spec": {"ports": [{"name": "registry", "port": 444}], "type": "ClusterIP", "clusterIP": "10.96.0.1"},
    });
    let patch = repair(&wanted, &live).unwrap();
    assert_eq!(
        serde_json::to_value(&patch).unwrap(),
        json!([
            {"op": "test", "path": "/metadata/resourceVersion", "value": "9"},
            {"op": "add", "path": "/spec/ports", "value": [{"name": "registry", "port": 443}]},
        ])
    );
    json_patch::patch(&mut live, &patch).unwrap();
    assert!(satisfied(&wanted, &live));
    assert_eq!(repair(&wanted, &live), None);
}
