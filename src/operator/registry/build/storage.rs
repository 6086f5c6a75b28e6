//! The claim that holds the images. It carries no owner reference: the garbage collector knows no deletion policy.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::Inputs;
use crate::api::labels;
use crate::api::registry::AccessMode;
use crate::operator::apply::MANAGER;
use crate::operator::registry::observe::{ClassTraits, StorageClassFact, capacity, requested};
use crate::quantity;

/// The claim that Wharf makes; `None` where the images are kept elsewhere.
pub(super) fn claim(inputs: &Inputs<'_>) -> Option<PersistentVolumeClaim> {
    let storage = &inputs.registry.spec.storage;
    (storage.s3.is_none() && storage.existing_claim_name.is_none()).then(|| own_claim(inputs))
}

fn own_claim(inputs: &Inputs<'_>) -> PersistentVolumeClaim {
    let wanted = &inputs.registry.spec.storage.claim;
    let live = inputs.observed.claim.usable();
    let modes = wanted.access_modes.clone().unwrap_or_else(|| vec![default_mode(&inputs.observed.storage_class)]);
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
                requests: Some(BTreeMap::from([(
                    "storage".to_owned(),
                    size(live, &wanted.size, &inputs.observed.storage_class),
                )])),
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

/// Kubernetes itself keeps a second pod away where it can, which is where a CSI driver makes the volume.
fn default_mode(class: &StorageClassFact) -> AccessMode {
    match class {
        StorageClassFact::Available(ClassTraits { by_csi_driver: true, .. }) => AccessMode::ReadWriteOncePod,
        _ => AccessMode::ReadWriteOnce,
    }
}

/// The size to ask for. A volume never shrinks: one that was taken over may be larger than asked for, and one whose class
/// does not let it grow stays as it is. Only a request that was not granted is taken back, as far as Kubernetes lets it be:
/// to more than the volume has.
fn size(live: Option<&PersistentVolumeClaim>, wanted: &Quantity, class: &StorageClassFact) -> Quantity {
    let Some((claim, present)) = live.and_then(|claim| Some((claim, requested(claim)?))) else {
        return wanted.clone();
    };
    let milli = |text: &str| quantity::milli(text).unwrap_or_default();
    let unbound = capacity(claim).is_none();
    let granted = capacity(claim).map_or(0, milli);
    let (present_size, wanted_size) = (milli(present), milli(&wanted.0));
    let may_grow = matches!(class, StorageClassFact::Available(ClassTraits { expandable: true, .. }));
    let grows = wanted_size > present_size && (may_grow && !unbound);
    let recedes = wanted_size < present_size && !unbound && granted < present_size && wanted_size > granted;
    if grows || recedes { wanted.clone() } else { Quantity(present.to_owned()) }
}
