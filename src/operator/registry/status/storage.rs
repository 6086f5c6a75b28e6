//! The condition `StorageReady`, and what the status tells of the volume. Pure.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use super::Outcome;
use crate::api::condition::{self, Finding, Status};
use crate::api::reason;
use crate::api::registry::{Engine, ObjectStore, StorageStatus, UsageStatus};
use crate::operator::registry::observe::{FoundClaim, capacity, requested};
use crate::operator::volume::{Level, NEARLY_FULL, VolumeUse};
use crate::quantity;

/// What the status tells of the volume; `None` where there is none.
pub(super) fn volume(outcome: &Outcome<'_>) -> Option<StorageStatus> {
    let claim = outcome.observed.claim.in_use()?;
    Some(StorageStatus {
        capacity: capacity(claim).map(str::to_owned),
        used_percent: outcome.observed.volume.map(|volume| volume.used_percent),
    })
}

/// What the images take; `None` where nobody tells it. An operator that has just started knows what the one before told.
pub(super) fn usage(outcome: &Outcome<'_>) -> Option<UsageStatus> {
    if outcome.registry.spec.engine != Engine::Wharf {
        return None;
    }
    let Some(images) = outcome.observed.images else {
        return outcome.registry.status.as_ref()?.usage;
    };
    let number = |number| i64::try_from(number).unwrap_or(i64::MAX);
    Some(UsageStatus { bytes: number(images.bytes), repositories: number(images.repositories) })
}

pub(super) fn finding(outcome: &Outcome<'_>) -> Finding {
    let kind = condition::STORAGE_READY;
    if let Some(finding) = super::hindrance(outcome, kind, &["PersistentVolumeClaim"]) {
        return finding;
    }
    if let Some(store) = &outcome.registry.spec.storage.s3 {
        return Finding::new(kind, Status::True, reason::OBJECT_STORE, bucket(store));
    }
    let Some(claim) = outcome.observed.claim.in_use() else {
        let name = outcome.names.claim();
        let message = match outcome.observed.claim {
            FoundClaim::Left { .. } => format!("PersistentVolumeClaim {name} is being taken over"),
            _ => format!("PersistentVolumeClaim {name} is being made"),
        };
        return Finding::new(kind, Status::False, reason::PROGRESSING, message);
    };
    let (status, reason, message) = match claim.status.as_ref().and_then(|status| status.phase.as_deref()) {
        Some("Bound") => bound(claim, &outcome.registry.spec.storage.claim.size.0, outcome.observed.volume),
        Some("Lost") => (
            Status::False,
            reason::CLAIM_LOST,
            format!(
                "PersistentVolumeClaim {} has lost its volume. Restore the PersistentVolume, or delete the claim to begin with an empty one",
                name(claim)
            ),
        ),
        _ => (
            Status::False,
            reason::CLAIM_PENDING,
            format!("PersistentVolumeClaim {name} is not bound yet: kubectl describe pvc {name}", name = name(claim)),
        ),
    };
    Finding::new(kind, status, reason, message)
}

fn bucket(store: &ObjectStore) -> String {
    let endpoint = store.endpoint.as_ref().map_or_else(String::new, |endpoint| format!(" at {endpoint}"));
    let folder = match store.prefix.trim_matches('/') {
        "" => String::new(),
        prefix => format!(", folder {prefix}"),
    };
    format!("Images are kept in bucket {}{folder}{endpoint}", store.bucket)
}

fn bound(claim: &PersistentVolumeClaim, wanted: &str, volume: Option<VolumeUse>) -> (Status, &'static str, String) {
    if let Some(failed) = failed_expansion(claim, wanted) {
        return failed;
    }
    let size = capacity(claim).map_or_else(String::new, |size| format!(" with {size}"));
    let claim_is = format!("PersistentVolumeClaim {}{size} is", name(claim));
    let room = "Raise spec.storage.claim.size where the storage class can grow volumes, or delete images";
    let level = volume.map_or(Level::Roomy, |volume| volume.level);
    // Who has asked for more room has done what can be done: what remains is to wait, whether or not the volume is full.
    match (level, expansion(claim, wanted)) {
        (Level::Full, Some(asked)) => (
            Status::False,
            reason::EXPANDING,
            format!("{claim_is} full, and is being expanded to {asked}: pushes fail until then, pulls go on"),
        ),
        (Level::NearlyFull, Some(asked)) => (
            Status::True,
            reason::EXPANDING,
            format!("{claim_is} more than {NEARLY_FULL} % full, and is being expanded to {asked}"),
        ),
        (Level::Roomy, Some(asked)) => {
            (Status::True, reason::EXPANDING, format!("{claim_is} being expanded to {asked}"))
        }
        (Level::Full, None) => {
            (Status::False, reason::FULL, format!("{claim_is} full: pushes fail, pulls go on. {room}"))
        }
        (Level::NearlyFull, None) => {
            (Status::True, reason::NEARLY_FULL, format!("{claim_is} more than {NEARLY_FULL} % full. {room}"))
        }
        (Level::Roomy, None) => {
            (Status::True, reason::BOUND, format!("PersistentVolumeClaim {} is bound{size}", name(claim)))
        }
    }
}

/// The size to which the volume is to grow, while it has not. A request that Kubernetes does not let us take back does not
/// count any more once the spec has.
fn expansion<'a>(claim: &'a PersistentVolumeClaim, wanted: &str) -> Option<&'a str> {
    let (asked, granted) = (requested(claim)?, capacity(claim)?);
    let granted = quantity::milli(granted);
    (quantity::milli(asked) > granted && quantity::milli(wanted) > granted).then_some(asked)
}

fn failed_expansion(claim: &PersistentVolumeClaim, wanted: &str) -> Option<(Status, &'static str, String)> {
    let asked = expansion(claim, wanted)?;
    let status = claim.status.as_ref()?;
    let infeasible = status
        .allocated_resource_statuses
        .as_ref()
        .and_then(|statuses| statuses.get("storage"))
        .is_some_and(|status| status.ends_with("ResizeInfeasible") || status.ends_with("ResizeFailed"));
    let error = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_.ends_with("ResizeError") && condition.status == "True");
    if !infeasible && error.is_none() {
        return None;
    }
    let said = error
        .and_then(|condition| condition.message.as_deref())
        .map_or_else(String::new, |message| format!(" ({})", message.trim_end_matches('.')));
    let (name, granted) = (name(claim), capacity(claim).unwrap_or_default());
    Some((
        Status::False,
        reason::EXPANSION_FAILED,
        format!(
            "the storage system cannot expand PersistentVolumeClaim {name} from {granted} to {asked}{said}; the registry goes on \
             with {granted}. Make room there, or lower spec.storage.claim.size, down to {granted}: kubectl describe pvc {name}"
        ),
    ))
}

fn name(claim: &PersistentVolumeClaim) -> &str {
    claim.metadata.name.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::operator::volume::VolumeUse;

    fn claim(asked: &str, granted: &str, extra: &Value) -> PersistentVolumeClaim {
        let mut status = json!({"phase": "Bound", "capacity": {"storage": granted}});
        if let (Some(fields), Some(more)) = (status.as_object_mut(), extra.as_object()) {
            fields.extend(more.clone());
        }
        serde_json::from_value(json!({
            "metadata": {"name": "team-registry"},
            "spec": {"resources": {"requests": {"storage": asked}}},
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_bound_claim_tells_of_growth_failure_and_fullness() {
        let infeasible = json!({"allocatedResourceStatuses": {"storage": "ControllerResizeInfeasible"}});
        let error = json!({"conditions": [{"type": "NodeResizeError", "status": "True", "message": "no space left."}]});
        let none = json!({});
        let full = |level| Some(VolumeUse { used_percent: 90, level });
        for (claim, wanted, volume, status, reason, said) in vec![
            (claim("20Gi", "20Gi", &none), "20Gi", None, Status::True, reason::BOUND, "is bound with 20Gi"),
            (claim("20Gi", "30Gi", &none), "20Gi", None, Status::True, reason::BOUND, "is bound with 30Gi"),
            (
                claim("40Gi", "20Gi", &none),
                "40Gi",
                None,
                Status::True,
                reason::EXPANDING,
                "with 20Gi is being expanded to 40Gi",
            ),
            (
                claim("40Gi", "20Gi", &none),
                "40Gi",
                full(Level::NearlyFull),
                Status::True,
                reason::EXPANDING,
                "85 % full, and is being expanded to 40Gi",
            ),
            (
                claim("40Gi", "20Gi", &none),
                "40Gi",
                full(Level::Full),
                Status::False,
                reason::EXPANDING,
                "is full, and is being expanded to 40Gi: pushes fail",
            ),
            (claim("40Gi", "20Gi", &infeasible), "40Gi", None, Status::False, reason::EXPANSION_FAILED, "down to 20Gi"),
            (claim("40Gi", "20Gi", &error), "40Gi", None, Status::False, reason::EXPANSION_FAILED, "(no space left)"),
            // The spec went back: what Kubernetes still tries is no trouble of this Registry.
            (claim("40Gi", "20Gi", &infeasible), "20Gi", None, Status::True, reason::BOUND, "is bound with 20Gi"),
            (claim("20Gi", "20Gi", &none), "20Gi", full(Level::Roomy), Status::True, reason::BOUND, "is bound"),
            (
                claim("20Gi", "20Gi", &none),
                "20Gi",
                full(Level::NearlyFull),
                Status::True,
                reason::NEARLY_FULL,
                "85 % full",
            ),
            (
                claim("20Gi", "20Gi", &none),
                "20Gi",
                full(Level::Full),
                Status::False,
                reason::FULL,
                "pushes fail, pulls go on",
            ),
        ] {
            let found = bound(&claim, wanted, volume);
            assert_eq!((found.0, found.1), (status, reason), "{}", found.2);
            assert!(found.2.contains(said), "expected {said:?} in {:?}", found.2);
        }
    }
}
