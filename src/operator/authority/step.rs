//! What comes next in the authority's life. Pure: the authority, what is known of the cluster, and the time are values.
//! It must never let an authority sign before all who must trust it could know it, nor be forgotten while a registry may
//! still show a certificate by it; only an authority's own end, after which nobody trusts it anyway, goes before that.

use std::time::Duration;

use jiff::Timestamp;

use super::state::{Authority, Rotation};

/// An authority with less than this left is replaced: the last two of its ten years.
pub const RENEWAL: Duration = Duration::from_secs(2 * 365 * 24 * 3600);
/// For how long a silent node, or a place that cannot be written, is waited for at least. The overlap may be longer.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// What is known of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// A person asked for a rotation.
    pub requested: bool,
    /// The node plan in the cluster holds every certificate that clients must trust.
    pub in_plan: bool,
    /// Nodes and config maps that do not hold them yet, by name.
    pub lagging: Vec<String>,
    /// Registries whose certificate is by the outgoing authority, by name.
    pub by_outgoing: Vec<String>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until this time at the latest or until a fact changes.
    Wait(Option<Timestamp>),
    /// Make a next authority and have it published.
    Prepare,
    /// Begin the overlap; these were waited for long enough.
    Overlap {
        /// Nodes and config maps that are not waited for any longer.
        without: Vec<String>,
    },
    /// Let the next authority sign.
    Switch,
    /// Begin the overlap after the last certificate by the outgoing authority is gone.
    Settle,
    /// Forget the outgoing authority.
    Retire,
    /// Everything is past its end: make a new authority that signs at once.
    Replace,
}

/// How long a silent node is waited for.
#[must_use]
pub fn patience(overlap: Duration) -> Duration {
    overlap.max(PATIENCE)
}

/// The next step.
#[must_use]
pub fn next(authority: &Authority, facts: &Facts, overlap: Duration, now: Timestamp) -> Step {
    let signer_ended = now >= authority.signer.end();
    match &authority.rotation {
        Rotation::AtRest | Rotation::Reissuing { .. } | Rotation::Retiring { .. } if signer_ended => Step::Replace,
        Rotation::AtRest => {
            let due = authority.signer.end() - RENEWAL;
            if facts.requested || now >= due { Step::Prepare } else { Step::Wait(Some(due)) }
        }
        Rotation::Publishing { next, .. } | Rotation::Overlapping { next, .. } if now >= next.end() => {
            if signer_ended {
                Step::Replace
            } else {
                Step::Prepare
            }
        }
        // Whoever does not know the next one yet is cut off already.
        Rotation::Publishing { .. } | Rotation::Overlapping { .. } if signer_ended => Step::Switch,
        Rotation::Publishing { since, .. } => published(facts, *since + patience(overlap), now),
        Rotation::Overlapping { since, .. } => {
            // Somebody may have put an older plan back meanwhile.
            if facts.in_plan { after(*since + overlap, now, Step::Switch) } else { Step::Wait(None) }
        }
        Rotation::Reissuing { previous, .. } | Rotation::Retiring { previous, .. } if now >= previous.end() => {
            Step::Retire
        }
        Rotation::Reissuing { .. } | Rotation::Retiring { .. } if !facts.by_outgoing.is_empty() => Step::Wait(None),
        Rotation::Reissuing { .. } => Step::Settle,
        Rotation::Retiring { since, .. } => after(*since + overlap, now, Step::Retire),
    }
}

fn published(facts: &Facts, patience_ends: Timestamp, now: Timestamp) -> Step {
    if !facts.in_plan {
        return Step::Wait(None);
    }
    let begin = Step::Overlap { without: facts.lagging.clone() };
    if facts.lagging.is_empty() { begin } else { after(patience_ends, now, begin) }
}

fn after(time: Timestamp, now: Timestamp, step: Step) -> Step {
    if now >= time { step } else { Step::Wait(Some(time)) }
}

#[cfg(test)]
mod tests;
