//! Puts finalizers on objects and takes them off. It must never act on an object that changed since it was looked at, nor touch the
//! finalizers of others.

use kube::Resource;
use kube::api::{ObjectMeta, Patch, PatchParams};
use serde_json::{Value, json};

use super::call::{Action, CallError, Target, call};
use super::context::Context;
use super::statuses::dynamic;

/// Whether an object carries a finalizer.
#[must_use]
pub fn is_on(metadata: &ObjectMeta, finalizer: &str) -> bool {
    metadata.finalizers.iter().flatten().any(|found| found == finalizer)
}

/// Puts a finalizer on, or takes it off. An object that is gone meanwhile has none.
///
/// # Errors
/// When the API server refused, or could not be asked.
pub async fn set<K: Resource<DynamicType = ()>>(
    metadata: &ObjectMeta,
    finalizer: &str,
    wanted: bool,
    context: &Context,
) -> Result<(), CallError> {
    let Some(patch) = change(metadata, finalizer, wanted) else {
        return Ok(());
    };
    let (name, namespace) = (metadata.name.clone().unwrap_or_default(), metadata.namespace.clone());
    let api = dynamic::<K>(&context.client, namespace.as_deref());
    let (parameters, patch) = (PatchParams::default(), Patch::Json::<()>(patch));
    let target = Target::new(K::kind(&()), namespace.unwrap_or_default(), &name);
    match call(&context.metrics, Action::Patch, target, api.patch_metadata(&name, &parameters, &patch)).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

/// The change that adds or removes the finalizer; `None` when it is as wanted.
fn change(metadata: &ObjectMeta, finalizer: &str, wanted: bool) -> Option<json_patch::Patch> {
    if is_on(metadata, finalizer) == wanted {
        return None;
    }
    let mut finalizers: Vec<&str> = metadata.finalizers.iter().flatten().map(String::as_str).collect();
    if wanted {
        finalizers.push(finalizer);
    } else {
        finalizers.retain(|found| *found != finalizer);
    }
    let version = metadata.resource_version.as_deref().unwrap_or_default();
    let test = json!({"op": "test", "path": "/metadata/resourceVersion", "value": version});
    let change = if finalizers.is_empty() {
        json!({"op": "remove", "path": "/metadata/finalizers"})
    } else {
        json!({"op": "add", "path": "/metadata/finalizers", "value": finalizers})
    };
    serde_json::from_value(Value::Array(vec![test, change])).ok()
}
