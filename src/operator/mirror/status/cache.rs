//! The condition `CacheHealthy`. Pure.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;

use super::told::{Answers, not_reported};
use super::{Outcome, as_before, hindrance};
use crate::api::condition::{self, Finding, Status};
use crate::api::{MirrorStatus, reason};
use crate::operator::mirror::reports::written;
use crate::operator::registry::observe::{capacity, requested};
use crate::quantity;

const REASONS: [&str; 4] = [reason::CACHING, reason::CACHE_FAILING, reason::CACHE_TOO_SMALL, reason::BLOB_TOO_LARGE];

/// The condition for the volumes and what pods tell of their caches.
pub(super) fn finding(outcome: &Outcome<'_>, answers: &Answers<'_>, old: &MirrorStatus) -> Finding {
    let kind = condition::CACHE_HEALTHY;
    if let Some(finding) = hindrance(outcome, kind) {
        return finding;
    }
    let claims = &outcome.observed.claims;
    if let Some(message) = claims.iter().find_map(failed_expansion) {
        return Finding::new(kind, Status::False, reason::EXPANSION_FAILED, message);
    }
    if answers.reports.is_empty() {
        return as_before(&old.conditions, kind, &REASONS).unwrap_or_else(|| not_reported(kind, answers));
    }
    let caches = || answers.reports.iter().map(|report| &report.cache);
    if let Some(problem) = caches().find_map(|cache| cache.problem.as_ref()) {
        let message =
            format!("Nothing new is kept for now: {problem}. Pulls go on, from the registries where they must");
        return Finding::new(kind, Status::False, reason::CACHE_FAILING, message);
    }
    let bigger = "raise spec.cache.size";
    if caches().any(|cache| cache.pins_exceed) {
        let message = format!(
            "The images of spec.cache.pin are more than four fifths of the cache, and the last of them are not kept: {bigger}, or \
             pin fewer"
        );
        return Finding::new(kind, Status::False, reason::CACHE_TOO_SMALL, message);
    }
    if caches().any(|cache| cache.in_use_exceeds) {
        let message =
            format!("The cache is smaller than the images that pods run; those used longest ago are evicted: {bigger}");
        return Finding::new(kind, Status::False, reason::CACHE_TOO_SMALL, message);
    }
    if let Some(bytes) = caches().filter_map(|cache| cache.too_large).max() {
        let message = format!(
            "A layer of {} is larger than the cache, and is passed on without being kept: {bigger}",
            written(bytes)
        );
        return Finding::new(kind, Status::False, reason::BLOB_TOO_LARGE, message);
    }
    if let Some(claim) = claims.iter().find(|claim| is_growing(claim)) {
        let asked = requested(claim).unwrap_or_default();
        let message = format!("The volume of claim {} is being expanded to {asked}", claim.name_any());
        return Finding::new(kind, Status::True, reason::EXPANDING, message);
    }
    Finding::new(kind, Status::True, reason::CACHING, "What is fetched is kept")
}

fn is_growing(claim: &PersistentVolumeClaim) -> bool {
    let size = |text: Option<&str>| text.and_then(quantity::milli);
    capacity(claim).is_some() && size(requested(claim)) > size(capacity(claim))
}

fn failed_expansion(claim: &PersistentVolumeClaim) -> Option<String> {
    let status = claim.status.as_ref()?;
    let mut resources = status.allocated_resource_statuses.iter().flatten();
    let infeasible = resources.any(|(_, word)| word.ends_with("ResizeInfeasible") || word.ends_with("ResizeFailed"));
    let error = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_.ends_with("ResizeError") && condition.status == "True");
    if !is_growing(claim) || (!infeasible && error.is_none()) {
        return None;
    }
    let said = error
        .and_then(|condition| condition.message.as_deref())
        .map_or_else(String::new, |message| format!(" ({})", message.trim_end_matches('.')));
    Some(format!(
        "the volume of claim {} could not be expanded to {}{said}. Make room in the storage system, or delete this Mirror and \
         make it again with a size that can be had; it goes on with what it has",
        claim.name_any(),
        requested(claim).unwrap_or_default(),
    ))
}
