//! Decides whether a Registry can be built, and collects what stands in the way. Pure: values in, values out.
//! It must never return on the first problem; a user wants to know all of them at once.

use crate::api::{condition, reason};

use super::names::Names;
use super::observe::{Found, FoundClaim, Observed, StorageClassFact};

/// Something that a user, or the cluster, has to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The condition that it makes false, besides `Ready`.
    pub condition: &'static str,
    /// Its documented reason.
    pub reason: &'static str,
    /// What was found and what to do.
    pub message: String,
}

/// Everything that forbids writing the children. Empty when they may be written.
#[must_use]
pub fn obstacles(names: &Names, observed: &Observed) -> Vec<Problem> {
    let mut problems = Vec::new();
    let taken = [
        foreign("Service", names.service(), &observed.service, condition::AVAILABLE),
        foreign("Deployment", &names.deployment(), &observed.deployment, condition::AVAILABLE),
        foreign("ConfigMap", &names.configuration(), &observed.configuration, condition::AVAILABLE),
        foreign("ConfigMap", &names.authority(), &observed.authority, condition::AVAILABLE),
        foreign("Secret", &names.credentials(), &observed.credentials, condition::AVAILABLE),
        foreign("Secret", &names.certificate(), &observed.certificate, condition::AVAILABLE),
        foreign("Secret", &names.pull_secret(), &observed.pull_secret, condition::PULL_SECRETS_READY),
        foreign("ServiceAccount", &names.service_account(), &observed.service_account, condition::AVAILABLE),
    ];
    problems.extend(taken.into_iter().flatten());
    problems.extend(claim_problem(names, &observed.claim));
    problems
}

fn foreign<K>(kind: &str, name: &str, found: &Found<K>, condition: &'static str) -> Option<Problem> {
    let Found::Foreign(whose) = found else {
        return None;
    };
    Some(Problem {
        condition,
        reason: reason::NAME_TAKEN,
        message: format!(
            "{kind} {name} exists and is not this Registry's ({whose}). Remove or rename it, or choose another name for \
             the Registry; nothing was changed"
        ),
    })
}

fn claim_problem(names: &Names, claim: &FoundClaim) -> Option<Problem> {
    let name = names.claim();
    let problem = |reason, message| Some(Problem { condition: condition::STORAGE_READY, reason, message });
    match claim {
        FoundClaim::Foreign(whose) => problem(
            reason::CLAIM_NOT_OURS,
            format!(
                "PersistentVolumeClaim {name} exists and was not made for this Registry ({whose}). Remove or rename it, or \
                 choose another name for the Registry; nothing was changed"
            ),
        ),
        FoundClaim::Left { mounted_by, .. } if !mounted_by.is_empty() => problem(
            reason::CLAIM_IN_USE,
            format!(
                "PersistentVolumeClaim {name} of an earlier Registry of this name is still mounted by {}; it is taken over \
                 when that ends",
                mounted_by.join(", ")
            ),
        ),
        FoundClaim::Ours(claim) | FoundClaim::Left { claim, .. } if claim.metadata.deletion_timestamp.is_some() => {
            problem(
                reason::CLAIM_DELETING,
                format!(
                    "PersistentVolumeClaim {name} is being deleted and cannot be saved; a new one is made when it is gone. \
                     To end the wait, scale down or delete what mounts it: kubectl describe pvc {name}"
                ),
            )
        }
        _ => None,
    }
}

/// What the cluster lacks for the claim. It does not forbid writing: the claim waits, and binds when the class appears.
#[must_use]
pub fn storage_class_problem(wanted: Option<&str>, fact: &StorageClassFact) -> Option<Problem> {
    let existing = |names: &[String]| {
        if names.is_empty() { "there is none".to_owned() } else { format!("existing classes: {}", names.join(", ")) }
    };
    let (reason, message) = match fact {
        StorageClassFact::NotNeeded | StorageClassFact::Available => return None,
        StorageClassFact::Missing(names) => (
            reason::STORAGE_CLASS_MISSING,
            format!(
                "there is no StorageClass {} ({}). Make it; the claim then binds by itself",
                wanted.unwrap_or_default(),
                existing(names)
            ),
        ),
        StorageClassFact::NoDefault(names) => (
            reason::NO_DEFAULT_STORAGE_CLASS,
            format!(
                "spec.storage.claim.storageClassName is not set and the cluster has no default StorageClass ({}). Make one \
                 the default, or make the Registry again with a class",
                existing(names)
            ),
        ),
    };
    Some(Problem { condition: condition::STORAGE_READY, reason, message })
}
