//! Decides whether a Mirror can be built, and collects what stands in the way. Pure: values in, values out.
//! It must never return on the first problem; a user wants to know all of them at once.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;

use super::build::growth::is_smaller;
use super::names::Names;
use super::observe::Observed;
use super::precedence::Hosts;
use crate::api::{Mirror, condition, reason};
use crate::operator::apply::Contest;
use crate::operator::found::Found;
use crate::operator::problem::Problem;
use crate::operator::registry::observe::{ClassTraits, StorageClassFact, requested};

/// Everything that forbids writing the children. Empty when they may be written.
#[must_use]
pub fn obstacles(names: &Names, observed: &Observed) -> Vec<Problem> {
    let object = names.object();
    let mut problems: Vec<Problem> = [
        foreign("Service", &object, &observed.service),
        foreign("StatefulSet", &object, &observed.stateful_set),
        foreign("ConfigMap", &object, &observed.configuration),
        foreign("Secret", &names.certificate(), &observed.certificate),
        foreign("PodDisruptionBudget", &object, &observed.disruption_budget),
        foreign("NetworkPolicy", &object, &observed.network_policy),
    ]
    .into_iter()
    .flatten()
    .collect();
    let replicas = (0..).zip(&observed.replicas);
    problems.extend(replicas.filter_map(|(ordinal, found)| foreign("Service", &names.replica(ordinal), found)));
    problems
}

/// What the cluster lacks, or cannot do, for what exists already. It does not forbid writing.
#[must_use]
pub fn shortcomings(mirror: &Mirror, observed: &Observed) -> Vec<Problem> {
    let mut problems: Vec<Problem> = hosts_problem(&observed.hosts).into_iter().collect();
    let size = &mirror.spec.cache.size;
    let bound = |claim: &&PersistentVolumeClaim| {
        claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
    };
    if observed.claims.iter().any(|claim| !bound(&claim)) {
        problems.extend(class_problem(mirror, &observed.storage_class));
    }
    let small = observed.claims.iter().filter(bound).find(|claim| is_smaller(claim, size));
    problems.extend(small.and_then(|claim| growth_problem(claim, size, &observed.storage_class)));
    problems
}

/// A child that another writer keeps setting back.
#[must_use]
pub fn contested(contest: &Contest) -> Problem {
    let condition = match contest.target.kind.as_str() {
        "PersistentVolumeClaim" => condition::CACHE_HEALTHY,
        _ => condition::AVAILABLE,
    };
    Problem { condition, reason: reason::CONTESTED, message: contest.to_string() }
}

fn foreign<K>(kind: &str, name: &str, found: &Found<K>) -> Option<Problem> {
    let Found::Foreign(whose) = found else {
        return None;
    };
    Some(Problem {
        condition: condition::AVAILABLE,
        reason: reason::NAME_TAKEN,
        message: format!(
            "{kind} {name} exists in Wharf's own namespace and is not this Mirror's ({whose}). Remove or rename it, or choose \
             another name for the Mirror; nothing was changed"
        ),
    })
}

/// Hosts that the Mirror asks for and does not get. It goes on with the others.
fn hosts_problem(hosts: &Hosts) -> Option<Problem> {
    let sentences: Vec<String> =
        hosts.lost.iter().map(|(host, whose)| format!("{host} is {whose}'s, until that goes or gives it up")).collect();
    let rest = if hosts.granted.is_empty() {
        "This Mirror has no other host".to_owned()
    } else {
        format!("This Mirror goes on with {}", hosts.granted.join(", "))
    };
    (!sentences.is_empty()).then(|| Problem {
        condition: condition::HOSTS_READY,
        reason: reason::HOST_TAKEN,
        message: format!("{}. {rest}", sentences.join(". ")),
    })
}

/// What the cluster lacks for a claim that is not bound. It binds when the class appears.
fn class_problem(mirror: &Mirror, fact: &StorageClassFact) -> Option<Problem> {
    let wanted = mirror.spec.cache.storage_class_name.as_deref().unwrap_or_default();
    let existing = |names: &[String]| {
        if names.is_empty() { "there is none".to_owned() } else { format!("existing classes: {}", names.join(", ")) }
    };
    let (reason, message) = match fact {
        StorageClassFact::NotNeeded | StorageClassFact::Available(_) => return None,
        StorageClassFact::Missing(names) => (
            reason::STORAGE_CLASS_MISSING,
            format!(
                "there is no StorageClass {wanted} ({}). Make it; the claims then bind by themselves",
                existing(names)
            ),
        ),
        StorageClassFact::NoDefault(names) => (
            reason::NO_DEFAULT_STORAGE_CLASS,
            format!(
                "spec.cache.storageClassName is not set and the cluster has no default StorageClass ({}). Make one the \
                 default, or make the Mirror again with a class",
                existing(names)
            ),
        ),
    };
    Some(Problem { condition: condition::CACHE_HEALTHY, reason, message })
}

/// A volume that should grow and cannot. What is there goes on being used.
fn growth_problem(claim: &PersistentVolumeClaim, wanted: &str, fact: &StorageClassFact) -> Option<Problem> {
    if matches!(fact, StorageClassFact::Available(ClassTraits { expandable: true, .. })) {
        return None;
    }
    let size = requested(claim).unwrap_or_default();
    let class = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref()).unwrap_or("(none)");
    Some(Problem {
        condition: condition::CACHE_HEALTHY,
        reason: reason::EXPANSION_UNSUPPORTED,
        message: format!(
            "the volume of claim {} has {size} and cannot grow to {wanted}: StorageClass {class} does not exist any more or has \
             no allowVolumeExpansion: true. Set it there if the driver can, or delete this Mirror and make it again, which \
             begins with an empty cache; it goes on with what it has",
            claim.name_any()
        ),
    })
}
