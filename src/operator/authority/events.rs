//! What people are told of the authority: each step of a rotation, and what stays undone. An event that cannot be written is
//! logged and forgotten; it must never hold up a step, and never carry more of a certificate than its end.

use std::sync::PoisonError;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Secret};
use kube::Resource;
use kube::runtime::events::{Event, EventType};
use tokio::time::timeout;

use super::facts::Leaf;
use super::state::Authority;
use super::step::{Step, patience};
use super::{Keeper, SECRET_NAME};
use crate::api::reason;
use crate::operator::call::CALL_TIMEOUT;

/// A registry's certificate with less than this left should have been issued anew a month ago.
const OVERDUE: Duration = Duration::from_secs(60 * 24 * 3600);
/// How often the same warning is given again.
const WARNING_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// How many names a note lists.
const NAMES: usize = 5;

/// What a step means, for the reader of logs and events.
pub(super) fn note(step: &Step) -> String {
    match step {
        Step::Wait(_) => "Nothing to do",
        Step::Prepare => "Made the next authority; it is published beside the present one, which still signs",
        Step::Overlap { without } if without.is_empty() => {
            "Every node and config map has the next authority; it signs after the overlap"
        }
        Step::Overlap { without } => {
            return format!(
                "The next authority signs after the overlap, although these do not have it yet and were waited for long \
                 enough: {}. A node pulls again once its agent has run",
                listed(without)
            );
        }
        Step::Switch => "The next authority signs now; every registry gets a new certificate, a few at a time",
        Step::Settle => "No certificate is by the previous authority any more; it is trusted until the overlap has passed",
        Step::Retire => "The previous authority is trusted no more: the rotation is done",
        Step::Replace => "The authority had ended; a new one signs at once",
    }
    .to_owned()
}

/// The step as an event's action. Events that differ in nothing but their note are counted as one by the recorder.
pub(super) fn action(step: &Step) -> &'static str {
    match step {
        Step::Wait(_) => "Wait",
        Step::Prepare => "Publish",
        Step::Overlap { .. } => "Overlap",
        Step::Switch => "Reissue",
        Step::Settle => "Settle",
        Step::Retire => "Retire",
        Step::Replace => "Replace",
    }
}

fn listed(names: &[String]) -> String {
    let first: Vec<&str> = names.iter().take(NAMES).map(String::as_str).collect();
    let more = names.len().saturating_sub(NAMES);
    if more == 0 { first.join(", ") } else { format!("{} and {more} more", first.join(", ")) }
}

impl Keeper {
    /// Tells of the ends of certificates, and warns of those that should have been issued anew long ago.
    pub(super) async fn judge_leaves(&self, leaves: &[Leaf], authority_end: Timestamp, now: Timestamp) {
        self.metrics.set_certificate_ends(authority_end, leaves.iter().filter_map(Leaf::end).min());
        for leaf in leaves {
            let Some(end) = leaf.end().filter(|end| *end < now + OVERDUE && *end < authority_end) else {
                continue;
            };
            let note = format!(
                "The certificate in {} ends at {end} and was not issued anew: see what its Registry's status says",
                leaf.place()
            );
            let reference = ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Secret".to_owned()),
                namespace: Some(leaf.namespace.clone()),
                name: Some(leaf.secret.clone()),
                ..ObjectReference::default()
            };
            self.warn(&leaf.place(), &reference, note, now).await;
        }
    }

    /// Warns of registries that keep a rotation from ending.
    pub(super) async fn warn_of_left_behind(
        &self,
        authority: &Authority,
        left_behind: &[String],
        secret: &Secret,
        now: Timestamp,
    ) {
        let Some((outgoing, since)) = authority.outgoing().filter(|_| !left_behind.is_empty()) else {
            return;
        };
        if since.is_some_and(|since| now < since + self.overlap + patience(self.overlap)) {
            return;
        }
        let note = format!(
            "These certificates are still by the previous authority, which is therefore trusted until {}: {}. See what their \
             Registries' status says",
            outgoing.end(),
            listed(left_behind)
        );
        self.warn("left behind", &self.reference(Some(secret)), note, now).await;
    }

    /// Gives a warning, but the same one not again and again.
    pub(super) async fn warn(&self, subject: &str, reference: &ObjectReference, note: String, now: Timestamp) {
        {
            let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
            warned.retain(|_, given| now < *given + WARNING_INTERVAL);
            if warned.insert(subject.to_owned(), now).is_some() {
                return;
            }
        }
        tracing::warn!("{note}");
        self.publish(reference, EventType::Warning, reason::CERTIFICATE_NOT_RENEWED, "Warn", note).await;
    }

    /// The authority's Secret, for events.
    pub(super) fn reference(&self, secret: Option<&Secret>) -> ObjectReference {
        secret.map_or_else(
            || ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Secret".to_owned()),
                namespace: Some(self.namespace.clone()),
                name: Some(SECRET_NAME.to_owned()),
                ..ObjectReference::default()
            },
            |secret| secret.object_ref(&()),
        )
    }

    pub(super) async fn publish(
        &self,
        reference: &ObjectReference,
        kind: EventType,
        reason: &str,
        action: &str,
        note: String,
    ) {
        let event = Event {
            type_: kind,
            reason: reason.to_owned(),
            note: Some(note),
            action: action.to_owned(),
            secondary: None,
        };
        match timeout(CALL_TIMEOUT, self.recorder.publish(&event, reference)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, reason, "event could not be written"),
            Err(_) => tracing::warn!(reason, "event could not be written in time"),
        }
    }
}
