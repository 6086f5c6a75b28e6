//! Decides whether a Registry can be built, and collects what stands in the way. Pure: values in, values out.
//! It must never return on the first problem; a user wants to know all of them at once.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use crate::api::{condition, reason};

use super::names::Names;
use super::observe::{ClassTraits, Found, FoundClaim, Observed, StorageClassFact, requested};
use super::precedence::Hosts;
use crate::api::Registry;
use crate::operator::apply::Contest;
use crate::operator::front::Way;
use crate::operator::problem::Problem;
use crate::quantity;

/// Everything that forbids writing the children. Empty when they may be written.
#[must_use]
pub fn obstacles(registry: &Registry, names: &Names, observed: &Observed) -> Vec<Problem> {
    let mut problems = Vec::new();
    let taken = [
        foreign("Service", names.service(), &observed.service, condition::AVAILABLE),
        foreign("Deployment", &names.deployment(), &observed.deployment, condition::AVAILABLE),
        foreign("Secret", &names.configuration(), &observed.configuration, condition::AVAILABLE),
        foreign("ConfigMap", &names.authority(), &observed.authority, condition::AVAILABLE),
        foreign("Secret", &names.credentials(), &observed.credentials, condition::AVAILABLE),
        foreign("Secret", &names.certificate(), &observed.certificate, condition::AVAILABLE),
        foreign("Secret", &names.pull_secret(), &observed.pull_secret, condition::PULL_SECRETS_READY),
        foreign("PodDisruptionBudget", &names.deployment(), &observed.disruption_budget, condition::AVAILABLE),
        foreign("NetworkPolicy", &names.network_policy(), &observed.network_policy, condition::AVAILABLE),
        foreign("ServiceAccount", &names.service_account(), &observed.service_account, condition::AVAILABLE),
    ];
    problems.extend(taken.into_iter().flatten());
    problems.extend(observed.rival.as_deref().map(rivalry));
    problems.extend(claim_problem(registry, names, &observed.claim));
    // Which access modes a claim is made with depends on its class, so it is not made before there is one.
    if observed.claim == FoundClaim::Absent {
        problems.extend(class_problem(registry, &observed.storage_class));
    }
    problems
}

/// What the cluster lacks, or cannot do, for what exists already. It does not forbid writing.
#[must_use]
pub fn shortcomings(registry: &Registry, observed: &Observed) -> Vec<Problem> {
    let mut problems = claim_shortcomings(registry, observed);
    problems.extend(hosts_problem(&observed.hosts));
    problems
}

fn claim_shortcomings(registry: &Registry, observed: &Observed) -> Vec<Problem> {
    match &observed.claim {
        FoundClaim::Ours(claim) | FoundClaim::Left { claim, .. } => {
            let bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
            let problem = if bound {
                growth_problem(registry, claim, &observed.storage_class)
            } else {
                class_problem(registry, &observed.storage_class)
            };
            problem.into_iter().collect()
        }
        _ => Vec::new(),
    }
}

/// A child that another writer keeps setting back. One that only leads in from beyond the cluster leaves the registry ready.
#[must_use]
pub fn contested(names: &Names, contest: &Contest) -> Problem {
    let condition = match contest.target.kind.as_str() {
        _ if Way::of_child(names, &contest.target).is_some() => condition::EXPOSED,
        "PersistentVolumeClaim" => condition::STORAGE_READY,
        "Secret" if contest.target.name == names.pull_secret() => condition::PULL_SECRETS_READY,
        _ => condition::AVAILABLE,
    };
    Problem { condition, reason: reason::CONTESTED, message: contest.to_string() }
}

fn storage_problem(reason: &'static str, message: String) -> Problem {
    Problem { condition: condition::STORAGE_READY, reason, message }
}

fn rivalry(older: &str) -> Problem {
    storage_problem(
        reason::STORAGE_TAKEN,
        format!(
            "Registry {older} keeps its images in the same place and came first; two engines would damage them. Choose another \
             place, or delete that Registry"
        ),
    )
}

/// Names that the Registry asks for and does not get. It goes on without them.
fn hosts_problem(hosts: &Hosts) -> Option<Problem> {
    let mut sentences = Vec::new();
    if !hosts.not_allowed.is_empty() {
        sentences.push(format!(
            "The operator's setting allowedHosts does not allow {}: an administrator adds to it what Registries may be called, \
             or spec.hosts has to do without",
            hosts.not_allowed.join(", ")
        ));
    }
    sentences.extend(hosts.taken.iter().map(|(host, whose)| {
        format!("{host} is a name of Registry {whose}, which came first, until that Registry goes or gives it up")
    }));
    let reason = if hosts.not_allowed.is_empty() { reason::HOST_TAKEN } else { reason::HOST_NOT_ALLOWED };
    (!sentences.is_empty()).then(|| Problem {
        condition: condition::HOSTS_READY,
        reason,
        message: format!("{}. The registry goes on without these names", sentences.join(". ")),
    })
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

fn claim_problem(registry: &Registry, names: &Names, claim: &FoundClaim) -> Option<Problem> {
    let name = registry.spec.storage.existing_claim_name.clone().unwrap_or_else(|| names.claim());
    let problem = |reason, message| Some(storage_problem(reason, message));
    match claim {
        FoundClaim::Foreign(whose) => problem(
            reason::CLAIM_NOT_OURS,
            format!(
                "PersistentVolumeClaim {name} exists and was not made for this Registry ({whose}). Remove or rename it, or \
                 choose another name for the Registry; nothing was changed"
            ),
        ),
        FoundClaim::GivenMissing => problem(
            reason::CLAIM_MISSING,
            format!(
                "there is no PersistentVolumeClaim {name} in this namespace, which spec.storage.existingClaimName names. Make \
                 it, or make the Registry again without that field to have Wharf make one"
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
        FoundClaim::Given { mounted_by, .. } if !mounted_by.is_empty() => problem(
            reason::CLAIM_IN_USE,
            format!(
                "PersistentVolumeClaim {name} is mounted by {}; the registry starts when that ends, so that nobody else \
                 writes among its images",
                mounted_by.join(", ")
            ),
        ),
        FoundClaim::Ours(claim) | FoundClaim::Left { claim, .. } | FoundClaim::Given { claim, .. }
            if claim.metadata.deletion_timestamp.is_some() =>
        {
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

/// What the cluster lacks for a claim that is not bound. It binds, or is made, when the class appears.
fn class_problem(registry: &Registry, fact: &StorageClassFact) -> Option<Problem> {
    let wanted = registry.spec.storage.claim.storage_class_name.as_deref().unwrap_or_default();
    let existing = |names: &[String]| {
        if names.is_empty() { "there is none".to_owned() } else { format!("existing classes: {}", names.join(", ")) }
    };
    let (reason, message) = match fact {
        StorageClassFact::NotNeeded | StorageClassFact::Available(_) => return None,
        StorageClassFact::Missing(names) => (
            reason::STORAGE_CLASS_MISSING,
            format!("there is no StorageClass {wanted} ({}). Make it; the claim then binds by itself", existing(names)),
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
    Some(storage_problem(reason, message))
}

/// A volume that should grow and cannot. What is there goes on being used.
fn growth_problem(registry: &Registry, claim: &PersistentVolumeClaim, fact: &StorageClassFact) -> Option<Problem> {
    let wanted = &registry.spec.storage.claim.size.0;
    let size = requested(claim).filter(|size| quantity::milli(size) < quantity::milli(wanted))?;
    if matches!(fact, StorageClassFact::Available(ClassTraits { expandable: true, .. })) {
        return None;
    }
    let class = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref()).unwrap_or("(none)");
    Some(storage_problem(
        reason::EXPANSION_UNSUPPORTED,
        format!(
            "the volume has {size} and cannot grow to {wanted}: StorageClass {class} does not exist any more or has no \
             allowVolumeExpansion: true. Set it there if the driver can, or set spec.storage.claim.size back to {size}; the \
             registry goes on with what it has"
        ),
    ))
}
