//! Events for what a user would want to be told: a Registry became ready or is stuck, a claim was taken over or deleted,
//! a certificate was issued. An event that cannot be written is logged and forgotten; it must never fail a pass.

use kube::Resource;
use kube::runtime::events::{Event, EventType};
use tokio::time::timeout;

use super::mint::{MintError, Minted};
use super::observe::{FoundClaim, Observed};
use crate::api::registry::RegistryStatus;
use crate::api::{Registry, condition, reason};
use crate::operator::call::CALL_TIMEOUT;
use crate::operator::context::Context;

/// Tells of a change of readiness.
pub(super) async fn on_transition(registry: &Registry, next: &RegistryStatus, context: &Context) {
    if let Some(event) = transition(registry.status.as_ref(), next) {
        publish(registry, event, context).await;
    }
}

/// Tells of what a complete run of the apply engine did.
pub(super) async fn after_apply(registry: &Registry, observed: &Observed, minted: &Minted, context: &Context) {
    if let FoundClaim::Left { claim, .. } = &observed.claim {
        let name = claim.metadata.name.clone().unwrap_or_default();
        let note =
            format!("Took over PersistentVolumeClaim {name} with the images of an earlier Registry of this name");
        publish(registry, event(EventType::Normal, reason::CLAIM_ADOPTED, note), context).await;
    }
    if let Some(why) = minted.issued_because {
        let note = format!("Issued the server certificate: {why}");
        publish(registry, event(EventType::Normal, reason::CERTIFICATE_ISSUED, note), context).await;
    }
}

/// Tells that a secret could not be made: most often a certificate, which will end.
pub(super) async fn not_minted(registry: &Registry, error: &MintError, context: &Context) {
    let note = format!("The registry's credential or certificate could not be made: {error}");
    publish(registry, event(EventType::Warning, reason::CERTIFICATE_NOT_RENEWED, note), context).await;
}

/// Tells that the deletion policy was carried out.
pub(super) async fn storage_deleted(registry: &Registry, claim: &str, context: &Context) {
    let note = format!("Deleted PersistentVolumeClaim {claim} and its images: storage.deletionPolicy is Delete");
    publish(registry, event(EventType::Normal, reason::STORAGE_DELETED, note), context).await;
}

/// The event for a change of `Ready`; `None` when its status and reason stay.
fn transition(old: Option<&RegistryStatus>, next: &RegistryStatus) -> Option<Event> {
    let before = old.and_then(|status| condition::find(&status.conditions, condition::READY));
    let after = condition::find(&next.conditions, condition::READY)?;
    if before.is_some_and(|before| before.status == after.status && before.reason == after.reason) {
        return None;
    }
    let stalled = condition::find(&next.conditions, condition::STALLED).is_some();
    let was_ready = before.is_some_and(|before| before.status == "True");
    // The steps of a start are in the status for whoever looks; they are no news.
    let is_news = was_ready
        || stalled
        || after.status == "True"
        || matches!(after.reason.as_str(), reason::POD_FAILING | reason::SUSPENDED);
    if !is_news {
        return None;
    }
    let kind = if stalled || after.reason == reason::POD_FAILING { EventType::Warning } else { EventType::Normal };
    Some(event(kind, &after.reason, after.message.clone()))
}

fn event(kind: EventType, reason: &str, note: String) -> Event {
    /// The API server refuses longer notes.
    const LIMIT: usize = 1024;
    let note = if note.len() > LIMIT { note.chars().take(LIMIT / 4).collect() } else { note };
    Event { type_: kind, reason: reason.to_owned(), note: Some(note), action: "Reconcile".to_owned(), secondary: None }
}

async fn publish(registry: &Registry, event: Event, context: &Context) {
    let reference = registry.object_ref(&());
    match timeout(CALL_TIMEOUT, context.recorder.publish(&event, &reference)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, reason = event.reason, "event could not be written"),
        Err(_) => tracing::warn!(reason = event.reason, "event could not be written in time"),
    }
}
