use serde_json::json;

use super::intent::{annotated, satisfied};
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
