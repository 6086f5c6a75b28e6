//! Events for what a user would want to be told of a Registry besides its readiness: a claim was taken over or deleted, a
//! certificate was issued. None must ever fail a pass.

use kube::runtime::events::EventType;

use super::mint::{MintError, Minted};
use super::observe::{FoundClaim, Observed};
use crate::api::{Registry, reason};
use crate::operator::context::Context;
use crate::operator::statuses::{event, publish};

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
