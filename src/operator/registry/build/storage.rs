//! The claim that holds the images. It carries no owner reference: the garbage collector knows no deletion policy.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::Inputs;
use crate::api::labels;
use crate::api::registry::AccessMode;
use crate::operator::apply::MANAGER;
use crate::quantity;

pub(super) fn claim(inputs: &Inputs<'_>) -> PersistentVolumeClaim {
    let wanted = &inputs.registry.spec.storage.claim;
    let live = inputs.observed.claim.usable();
    let modes = wanted.access_modes.clone().unwrap_or_else(|| vec![AccessMode::ReadWriteOnce]);
    let mut metadata = inputs.unowned(inputs.names.claim());
    metadata.annotations =
        inputs.registry.metadata.uid.clone().map(|uid| BTreeMap::from([(labels::REGISTRY_UID.to_owned(), uid)]));
    PersistentVolumeClaim {
        metadata,
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(
                live_access_modes(live).unwrap_or_else(|| modes.iter().map(|mode| mode.as_str().to_owned()).collect()),
            ),
            storage_class_name: storage_class_name(live, wanted.storage_class_name.as_ref()),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), size(live, &wanted.size))])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

/// Kubernetes fixes the modes of a claim; one that was taken over keeps its own.
fn live_access_modes(live: Option<&PersistentVolumeClaim>) -> Option<Vec<String>> {
    live?.spec.as_ref()?.access_modes.clone()
}

/// Kubernetes fixes the class of a claim too, and refuses an apply that takes back a class it once sent. A class that
/// the cluster filled in by itself is left to the cluster.
fn storage_class_name(live: Option<&PersistentVolumeClaim>, wanted: Option<&String>) -> Option<String> {
    let Some(live) = live else {
        return wanted.cloned();
    };
    let class = live.spec.as_ref().and_then(|spec| spec.storage_class_name.clone());
    (wanted.is_some() || sent_by_us(live)).then_some(class).flatten()
}

fn sent_by_us(claim: &PersistentVolumeClaim) -> bool {
    claim.metadata.managed_fields.iter().flatten().any(|entry| {
        entry.manager.as_deref() == Some(MANAGER)
            && entry.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer("/f:spec/f:storageClassName").is_some())
    })
}

/// A claim never shrinks: one that was taken over may be larger than asked for.
fn size(live: Option<&PersistentVolumeClaim>, wanted: &Quantity) -> Quantity {
    let present = live
        .and_then(|claim| claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage"))
        .filter(|present| quantity::milli(&present.0) >= quantity::milli(&wanted.0));
    present.unwrap_or(wanted).clone()
}
