//! The deletion policy: the only code that deletes images.
//! It must never act on a cached Registry or claim. The Registry is read afresh, and the claim is deleted only as the
//! very object that was read, so that a race with a change of the policy or a new Registry ends in data kept.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Preconditions};

use super::names::Names;
use crate::api::registry::DeletionPolicy;
use crate::api::{Registry, labels};
use crate::operator::call::{Action, CallError, Target, call, read};
use crate::operator::context::Context;
use crate::operator::finalizer;

/// Puts the finalizer on while the policy is `Delete`, and takes it off when it is not.
pub(super) async fn keep_finalizer_in_step(registry: &Registry, context: &Context) -> Result<(), CallError> {
    let wanted = registry.spec.storage.deletion_policy == DeletionPolicy::Delete;
    finalizer::set::<Registry>(&registry.metadata, labels::DELETE_STORAGE, wanted, context).await
}

/// Carries out the policy of a Registry that is being deleted.
pub(super) async fn finish(registry: &Registry, names: &Names, context: &Context) -> Result<(), CallError> {
    if !finalizer::is_on(&registry.metadata, labels::DELETE_STORAGE) {
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
    finalizer::set::<Registry>(&fresh.metadata, labels::DELETE_STORAGE, false, context).await
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
