//! The deletion policy: the only code that deletes images.
//! It must never act on a cached Registry or claim. The Registry is read afresh, and the claim is deleted only as the
//! very object that was read, so that a race with a change of the policy or a new Registry ends in data kept.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};

use super::names::Names;
use crate::api::registry::DeletionPolicy;
use crate::api::{Registry, labels};
use crate::operator::call::{Action, CallError, Target, call, read};
use crate::operator::context::Context;

/// Puts the finalizer on while the policy is `Delete`, and takes it off when it is not.
pub(super) async fn keep_finalizer_in_step(registry: &Registry, context: &Context) -> Result<(), CallError> {
    let wanted = registry.spec.storage.deletion_policy == DeletionPolicy::Delete;
    set_finalizer(registry, wanted, context).await
}

/// Carries out the policy of a Registry that is being deleted.
pub(super) async fn finish(registry: &Registry, names: &Names, context: &Context) -> Result<(), CallError> {
    if !has_finalizer(registry) {
        return Ok(());
    }
    let api = Api::<Registry>::namespaced(context.client.clone(), names.namespace());
    let target = Target::new("Registry", names.namespace(), names.registry());
    let Some(fresh) = read(&context.metrics, target, api.get(names.registry())).await? else {
        return Ok(());
    };
    if fresh.metadata.uid != registry.metadata.uid || fresh.metadata.deletion_timestamp.is_none() {
        return Ok(());
    }
    if fresh.spec.storage.deletion_policy == DeletionPolicy::Delete {
        delete_claim(&fresh, names, context).await?;
    }
    set_finalizer(&fresh, false, context).await
}

async fn delete_claim(registry: &Registry, names: &Names, context: &Context) -> Result<(), CallError> {
    let name = names.claim();
    let api = Api::<PersistentVolumeClaim>::namespaced(context.client.clone(), names.namespace());
    let target = Target::new("PersistentVolumeClaim", names.namespace(), &name);
    let Some(claim) = read(&context.metrics, target.clone(), api.get(&name)).await? else {
        return Ok(());
    };
    let ours = claim.owner_references().is_empty()
        && claim.labels().get(labels::MANAGED_BY).is_some_and(|value| value == labels::MANAGED_BY_WHARF)
        && claim.annotations().get(labels::REGISTRY_UID) == registry.metadata.uid.as_ref();
    if !ours || claim.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let parameters = DeleteParams {
        preconditions: Some(Preconditions {
            uid: claim.metadata.uid.clone(),
            resource_version: claim.metadata.resource_version.clone(),
        }),
        ..DeleteParams::default()
    };
    match call(&context.metrics, Action::Delete, target.clone(), api.delete(&name, &parameters)).await {
        Ok(_) => {
            tracing::info!(claim = %target, "deleted with its images: the Registry's deletionPolicy is Delete");
            super::events::storage_deleted(registry, &name, context).await;
            Ok(())
        }
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

fn has_finalizer(registry: &Registry) -> bool {
    registry.finalizers().iter().any(|finalizer| finalizer == labels::DELETE_STORAGE)
}

async fn set_finalizer(registry: &Registry, wanted: bool, context: &Context) -> Result<(), CallError> {
    let Some(patch) = finalizer_patch(registry, wanted) else {
        return Ok(());
    };
    let (namespace, name) = (registry.namespace().unwrap_or_default(), registry.name_any());
    let api = Api::<Registry>::namespaced(context.client.clone(), &namespace);
    let (parameters, patch) = (PatchParams::default(), Patch::Json::<()>(patch));
    let request = api.patch_metadata(&name, &parameters, &patch);
    match call(&context.metrics, Action::Patch, Target::new("Registry", namespace, &name), request).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

/// The change that adds or removes the finalizer; `None` when it is as wanted. Others' finalizers stay.
fn finalizer_patch(registry: &Registry, wanted: bool) -> Option<json_patch::Patch> {
    if has_finalizer(registry) == wanted {
        return None;
    }
    let mut finalizers: Vec<&str> = registry.finalizers().iter().map(String::as_str).collect();
    if wanted {
        finalizers.push(labels::DELETE_STORAGE);
    } else {
        finalizers.retain(|finalizer| *finalizer != labels::DELETE_STORAGE);
    }
    let version = registry.metadata.resource_version.as_deref().unwrap_or_default();
    let test = json!({"op": "test", "path": "/metadata/resourceVersion", "value": version});
    let change = if finalizers.is_empty() {
        json!({"op": "remove", "path": "/metadata/finalizers"})
    } else {
        json!({"op": "add", "path": "/metadata/finalizers", "value": finalizers})
    };
    serde_json::from_value(Value::Array(vec![test, change])).ok()
}
