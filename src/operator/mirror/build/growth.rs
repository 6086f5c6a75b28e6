//! The sizes of a Mirror's claims. Kubernetes fixes the template of claims in a `StatefulSet`: each claim is grown by itself,
//! and then the `StatefulSet` is made again around its pods, which do not notice. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use kube::api::ObjectMeta;

use super::Inputs;
use crate::operator::mirror::names::CACHE;
use crate::operator::mirror::observe::Observed;
use crate::operator::registry::observe::{ClassTraits, StorageClassFact, capacity, requested};
use crate::quantity;

/// What of a volume the server may fill, in tenths. The rest is for what is being fetched, and for the file system.
const TENTHS: i128 = 9;

/// The claims that are to grow, each with the claim as it is. They are named by Kubernetes, and nothing else of them is ours.
pub(super) fn claims<'a>(inputs: &Inputs<'a>) -> Vec<(PersistentVolumeClaim, &'a PersistentVolumeClaim)> {
    let wanted = &inputs.mirror.spec.cache.size;
    let may_grow = |claim: &&PersistentVolumeClaim| is_bound(claim) && may_grow(inputs.observed);
    let claims = inputs.observed.claims.iter().filter(|claim| claim.metadata.deletion_timestamp.is_none());
    claims
        .filter(|claim| is_smaller(claim, wanted))
        .filter(may_grow)
        .map(|claim| (with_size(&claim.name_any(), inputs.names.namespace(), wanted), claim))
        .collect()
}

fn with_size(name: &str, namespace: &str, size: &str) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            resources: Some(request(size)),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

pub(super) fn request(size: &str) -> VolumeResourceRequirements {
    VolumeResourceRequirements {
        requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(size.to_owned()))])),
        ..VolumeResourceRequirements::default()
    }
}

/// Whether a claim asks for less than this.
#[must_use]
pub fn is_smaller(claim: &PersistentVolumeClaim, wanted: &str) -> bool {
    requested(claim).is_some_and(|size| quantity::milli(size) < quantity::milli(wanted))
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
}

fn may_grow(observed: &Observed) -> bool {
    matches!(observed.storage_class, StorageClassFact::Available(ClassTraits { expandable: true, .. }))
}

/// The size in the template of claims. One that exists keeps its own until all claims have grown.
pub(super) fn template_size(inputs: &Inputs<'_>) -> String {
    let live = inputs.observed.stateful_set.ours().and_then(size_of);
    live.map_or_else(|| inputs.mirror.spec.cache.size.clone(), str::to_owned)
}

/// Whether the `StatefulSet` has to be made again, because its claims have grown and its template cannot.
#[must_use]
pub fn outgrew(stateful_set: &StatefulSet, claims: &[PersistentVolumeClaim], wanted: &str) -> bool {
    size_of(stateful_set).is_some_and(|size| quantity::milli(size) < quantity::milli(wanted))
        && claims.iter().all(|claim| !is_smaller(claim, wanted))
}

fn size_of(stateful_set: &StatefulSet) -> Option<&str> {
    let templates = stateful_set.spec.as_ref()?.volume_claim_templates.as_ref()?;
    requested(templates.iter().find(|template| template.metadata.name.as_deref() == Some(CACHE))?)
}

/// How many bytes the server may keep: of the smallest volume, as long as some are not as large as they should be.
pub(super) fn cache_bytes(inputs: &Inputs<'_>) -> i128 {
    let bytes = |text: &str| quantity::milli(text).unwrap_or_default() / 1000;
    let wanted = bytes(&inputs.mirror.spec.cache.size);
    let smallest = inputs.observed.claims.iter().filter_map(capacity).map(bytes).filter(|size| *size > 0).min();
    (smallest.map_or(wanted, |smallest| smallest.min(wanted)) * TENTHS / 10).max(1)
}
