//! Derives a Mirror's status from what was observed and done. Pure: the time is an argument.
//! It must never turn "could not look" into "all is well", nor a registry's trouble into a Mirror that is not ready: what is
//! cached, and what the registry gives, goes on.

mod cache;
mod nodes;
mod told;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::observe::Observed;
use super::reports;
use crate::api::condition::{self, Finding, Status, conditions};
use crate::api::{Mirror, MirrorStatus, reason};
use crate::operator::call::CallError;
use crate::operator::problem::{Problem, reason_of};
use crate::operator::registry::pods;

pub use self::nodes::{Reach, lacks_reports};

/// What a pass found and did.
pub struct Outcome<'a> {
    /// The Mirror as read.
    pub mirror: &'a Mirror,
    /// What was observed before anything was written.
    pub observed: &'a Observed,
    /// What stands in the way.
    pub problems: &'a [Problem],
    /// Requests that failed.
    pub failures: &'a [CallError],
}

/// The status after a pass.
#[must_use]
pub fn next(outcome: &Outcome<'_>, now: Timestamp) -> MirrorStatus {
    let (mirror, observed) = (outcome.mirror, outcome.observed);
    let old = mirror.status.clone().unwrap_or_default();
    let answers = told::answers(observed.reports.as_deref());
    let pods = observed.reports.as_deref().unwrap_or_default();
    let upstreams = reports::upstreams(pods, &observed.hosts.granted, &old.upstreams, now);
    let (counts, nodes) = nodes::nodes(&Reach::of(observed), &old);
    let parts = vec![
        available(outcome),
        hosts(outcome),
        hindrance(outcome, condition::UPSTREAMS_REACHABLE).unwrap_or_else(|| told::finding(&upstreams, &answers, &old)),
        cache::finding(outcome, &answers, &old),
    ];
    let mut findings = overall(outcome, &parts);
    findings.extend(parts);
    findings.push(nodes);
    MirrorStatus {
        observed_generation: mirror.metadata.generation,
        hosts: Some(first_and_more(&observed.hosts.granted)),
        upstreams,
        cache: reports::cache(pods, old.cache.as_ref()).or(old.cache),
        pins: reports::pins(pods, &mirror.spec.cache.pin).unwrap_or(old.pins),
        nodes: Some(counts),
        conditions: conditions(&old.conditions, findings, mirror.metadata.generation, now),
    }
}

/// The status when the cluster could not be looked at: what was known stays, but readiness is unknown.
#[must_use]
pub fn unobserved(mirror: &Mirror, error: &CallError, now: Timestamp) -> MirrorStatus {
    let mut status = mirror.status.clone().unwrap_or_default();
    let finding = Finding::new(condition::READY, Status::Unknown, reason::RETRYING, error.to_string());
    let fresh = conditions(&status.conditions, vec![finding], mirror.metadata.generation, now);
    status.conditions.retain(|old| old.type_ != condition::READY);
    status.conditions.splice(0..0, fresh);
    status
}

/// Names for a printed column.
fn first_and_more(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first} +{}", rest.len()),
    }
}

/// Reasons that only a person can mend.
fn is_stalled(reason: &str) -> bool {
    matches!(
        reason,
        reason::NAME_TAKEN
            | reason::CONTESTED
            | reason::REFUSED
            | reason::HOST_TAKEN
            | reason::LOOP
            | reason::UPSTREAM_INVALID
            | reason::CREDENTIALS_MISSING
            | reason::ENDPOINT_NOT_ALLOWED
            | reason::AUTHORITY_MISSING
            | reason::EXPANSION_UNSUPPORTED
            | reason::EXPANSION_FAILED
            | reason::STORAGE_CLASS_MISSING
            | reason::NO_DEFAULT_STORAGE_CLASS
    )
}

/// Whether a part counts for readiness: what registries and nodes do is told, and held against no Mirror.
fn counts(part: &Finding) -> bool {
    part.status == Status::False
        && match part.kind {
            condition::UPSTREAMS_REACHABLE => is_stalled(part.reason),
            condition::CACHE_HEALTHY => is_stalled(part.reason) || part.reason == reason::RETRYING,
            _ => true,
        }
}

fn overall(outcome: &Outcome<'_>, parts: &[Finding]) -> Vec<Finding> {
    let counted = || parts.iter().filter(|part| counts(part));
    if let Some(part) = counted().find(|part| is_stalled(part.reason)) {
        return vec![
            Finding::new(condition::READY, Status::False, part.reason, part.message.clone()),
            Finding::new(condition::STALLED, Status::True, part.reason, part.message.clone()),
        ];
    }
    match counted().next() {
        None => {
            let message = format!("Caching {}", outcome.observed.hosts.granted.join(", "));
            vec![Finding::new(condition::READY, Status::True, reason::READY, message)]
        }
        Some(part) => vec![
            Finding::new(condition::READY, Status::False, part.reason, part.message.clone()),
            Finding::new(condition::RECONCILING, Status::True, part.reason, part.message.clone()),
        ],
    }
}

fn available(outcome: &Outcome<'_>) -> Finding {
    let kind = condition::AVAILABLE;
    if let Some(finding) = hindrance(outcome, kind) {
        return finding;
    }
    let Some(stateful_set) = outcome.observed.stateful_set.ours() else {
        return Finding::new(kind, Status::False, reason::PROGRESSING, "The mirror's objects are being made");
    };
    if is_available(stateful_set) {
        return Finding::new(kind, Status::True, reason::POD_READY, answering(stateful_set));
    }
    let (reason, message) = pods::diagnosis("mirror", &outcome.observed.pods, &outcome.observed.lost_nodes);
    Finding::new(kind, Status::False, reason, message)
}

fn is_available(stateful_set: &StatefulSet) -> bool {
    stateful_set.status.as_ref().is_some_and(|status| {
        status.observed_generation >= stateful_set.metadata.generation && status.available_replicas.unwrap_or(0) > 0
    })
}

fn answering(stateful_set: &StatefulSet) -> String {
    let wanted = stateful_set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let there = stateful_set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
    if wanted == 1 {
        return "The mirror's pod answers".to_owned();
    }
    format!("{there} of {wanted} pods of the mirror answer")
}

fn hosts(outcome: &Outcome<'_>) -> Finding {
    let kind = condition::HOSTS_READY;
    let all = || {
        let message = format!("Nodes may pull {} through it", outcome.observed.hosts.granted.join(", "));
        Finding::new(kind, Status::True, reason::HOSTS_GRANTED, message)
    };
    hindrance(outcome, kind).unwrap_or_else(all)
}

/// A problem or a failed request that concerns a condition.
fn hindrance(outcome: &Outcome<'_>, kind: &'static str) -> Option<Finding> {
    let problems: Vec<&Problem> = outcome.problems.iter().filter(|problem| problem.condition == kind).collect();
    if let Some(first) = problems.first() {
        let messages: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
        return Some(Finding::new(kind, Status::False, first.reason, messages.join(". ")));
    }
    let failure = outcome.failures.iter().find(|failure| concerned(failure) == kind)?;
    Some(Finding::new(kind, Status::False, reason_of(failure), failure.to_string()))
}

fn concerned(failure: &CallError) -> &'static str {
    if failure.target.kind == "PersistentVolumeClaim" { condition::CACHE_HEALTHY } else { condition::AVAILABLE }
}

/// What a condition said when it was last written.
fn as_before(old: &[Condition], kind: &'static str, reasons: &[&'static str]) -> Option<Finding> {
    let before = condition::find(old, kind)?;
    let reason = reasons.iter().find(|reason| **reason == before.reason)?;
    let status = match before.status.as_str() {
        "True" => Status::True,
        "False" => Status::False,
        _ => Status::Unknown,
    };
    Some(Finding::new(kind, status, reason, before.message.clone()))
}

#[cfg(test)]
mod tests;
