//! Decides whether an object already is as intended, so that a pass after convergence writes nothing.
//! It must never compare times, and never look at fields that Wharf has no opinion on.
//!
//! An object is as intended when two things hold. Its annotation carries the hash of the intent: so the intent did not
//! change, and no field was dropped from it. And every field of the intent stands in the object: so nobody else changed
//! one. Server-side apply itself is not always a no-op (kubernetes/kubernetes#124605), hence the comparison here.

use json_patch::Patch;
use serde_json::{Map, Value, json};

use crate::api::labels;
use crate::{plan, quantity};

/// The manifest with the annotation that names its own content.
pub(super) fn annotated(mut manifest: Value) -> Value {
    let digest = plan::digest_of(&manifest.to_string());
    let metadata = manifest.get_mut("metadata").and_then(Value::as_object_mut);
    if let Some(metadata) = metadata
        && let Value::Object(annotations) = metadata.entry("annotations").or_insert_with(|| Value::Object(Map::new()))
    {
        annotations.insert(labels::INTENT.to_owned(), Value::String(digest));
    }
    manifest
}

/// The digest that [`annotated`] wrote.
pub(super) fn digest(manifest: &Value) -> &str {
    let annotations = manifest.pointer("/metadata/annotations");
    annotations.and_then(|annotations| annotations.get(labels::INTENT)?.as_str()).unwrap_or_default()
}

/// The fields of the manifest that the live object lacks or has otherwise, each as the steps to it.
pub(super) fn differing(manifest: &Value, live: &Value) -> Vec<Vec<String>> {
    let mut operations = Vec::new();
    differences("", manifest, live, &mut operations);
    let paths = operations.iter().filter_map(|operation| operation.get("path")?.as_str());
    let step = |step: &str| step.replace("~1", "/").replace("~0", "~");
    paths.map(|path| path.split('/').skip(1).map(step).collect()).collect()
}

/// Whether the live object has every field of the manifest.
pub(super) fn satisfied(manifest: &Value, live: &Value) -> bool {
    contains(live, manifest, false)
}

/// `quantities` is true below a field whose leaves the API server rewrites in its own notation.
fn contains(live: &Value, wanted: &Value, quantities: bool) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted.iter().all(|(key, value)| {
            let quantities = quantities || matches!(key.as_str(), "requests" | "limits" | "sizeLimit");
            live.get(key).is_some_and(|found| contains(found, value, quantities))
        }),
        (Value::Array(live), Value::Array(wanted)) => list_contains(live, wanted, quantities),
        (Value::String(live), Value::String(wanted)) if quantities => quantity::equal(live, wanted),
        _ => live == wanted,
    }
}

/// A patch that sets every list and value of the intent that the live object lacks; `None` when it lacks nothing. It tests
/// the version that was looked at.
pub(super) fn repair(manifest: &Value, live: &Value) -> Option<Patch> {
    let mut operations = vec![json!({
        "op": "test",
        "path": "/metadata/resourceVersion",
        "value": live.pointer("/metadata/resourceVersion")?,
    })];
    differences("", manifest, live, &mut operations);
    if operations.len() == 1 {
        return None;
    }
    serde_json::from_value(Value::Array(operations)).ok()
}

fn differences(path: &str, wanted: &Value, live: &Value, operations: &mut Vec<Value>) {
    if contains(live, wanted, false) {
        return;
    }
    if let (Value::Object(wanted), Value::Object(live)) = (wanted, live) {
        for (key, value) in wanted {
            let path = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
            differences(&path, value, live.get(key).unwrap_or(&Value::Null), operations);
        }
    } else {
        // `add` replaces what is there.
        operations.push(json!({"op": "add", "path": path, "value": wanted}));
    }
}

/// Server-side apply merges lists of named elements and leaves other writers' elements alone, so only ours are compared.
/// Other lists are compared in order and length; the API server keeps the order in which an applier sends them.
fn list_contains(live: &[Value], wanted: &[Value], quantities: bool) -> bool {
    if wanted.iter().all(|value| value.get("name").is_some()) {
        return wanted.iter().all(|value| {
            live.iter()
                .find(|found| found.get("name") == value.get("name"))
                .is_some_and(|found| contains(found, value, quantities))
        });
    }
    live.len() == wanted.len() && live.iter().zip(wanted).all(|(found, value)| contains(found, value, quantities))
}
