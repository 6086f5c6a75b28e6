//! Decides whether a stored server certificate is kept or issued anew. Pure: what is stored, the authority and the time are
//! values. A certificate that serves must never be replaced without a stated reason, because the engine `Distribution`
//! reads it only at its start: each replacement restarts the registry's pod.
//!
//! What is due for its age, or because of a rotation, is not due everywhere at once: each Registry has a moment of its own
//! in a window, from the hash of its UID, so that no state has to be kept and any two operators agree.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use sha2::{Digest, Sha256};

use crate::operator::authority::Authority;
use crate::operator::certificate::{
    CertificateError, KeyedCertificate, LEAF_LIFETIME, is_pair, is_signed_by, issue, leaf_end, read,
};

/// The window in which certificates of one age are issued anew; a quarter of their last third.
const RENEWAL_WINDOW: Duration = Duration::from_secs(30 * 24 * 3600);
/// A new certificate that would end so little later than the present one is not worth a restart.
const LEAST_GAIN: Duration = Duration::from_secs(24 * 3600);

/// What to do with a stored certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Keep it until this time at least; `None` when no time alone makes it due.
    Keep(Option<Timestamp>),
    /// Issue it anew, for this reason.
    Reissue(&'static str),
}

/// What a certificate is judged by.
pub struct Rule<'a> {
    /// The names and addresses that it must have.
    pub names: &'a BTreeSet<String>,
    /// The UID of its Registry.
    pub uid: &'a str,
    /// The authority.
    pub authority: &'a Authority,
    /// The window of a rotation.
    pub overlap: Duration,
}

/// Judges a stored certificate.
#[must_use]
pub fn judge(leaf: &KeyedCertificate, rule: &Rule<'_>, now: Timestamp) -> Verdict {
    let Ok(facts) = read(&leaf.certificate) else {
        return Verdict::Reissue("the stored certificate cannot be read");
    };
    if !is_pair(leaf).unwrap_or(false) {
        return Verdict::Reissue("the stored certificate and its key do not belong together");
    }
    if facts.names != *rule.names {
        return Verdict::Reissue("the registry's names or addresses changed");
    }
    let signed_by = |certificate: &str| is_signed_by(&leaf.certificate, certificate);
    if !rule.authority.trusted().into_iter().any(signed_by) {
        return Verdict::Reissue("the authority is another one");
    }
    if now >= facts.validity.end || now < facts.validity.start {
        return Verdict::Reissue("the certificate is not valid at this time");
    }
    let outgoing = rule.authority.outgoing().filter(|(outgoing, _)| signed_by(outgoing.certificate()));
    let rotation_due = outgoing.map(|(_, since)| since.map_or(now, |since| since + place(rule.uid, rule.overlap)));
    if rotation_due.is_some_and(|due| now >= due) {
        return Verdict::Reissue("the authority is being replaced");
    }
    let age_due = facts.validity.end - LEAF_LIFETIME / 3 + place(rule.uid, RENEWAL_WINDOW);
    let gains = leaf_end(rule.authority.signer.end(), age_due.max(now)) >= facts.validity.end + LEAST_GAIN;
    if gains && now >= age_due {
        return Verdict::Reissue("the certificate is in the last third of its life");
    }
    Verdict::Keep(rotation_due.into_iter().chain(gains.then_some(age_due)).min())
}

/// A certificate to serve with.
#[derive(Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The certificate and its key.
    pub pair: KeyedCertificate,
    /// Why it was issued just now; `None` where the stored one was kept.
    pub issued_because: Option<&'static str>,
    /// When it may be due, if a time alone can make it so.
    pub renew_at: Option<Timestamp>,
}

/// Keeps what is stored, or issues another.
///
/// # Errors
/// When none can be issued.
pub fn keep_or_issue(
    stored: Option<KeyedCertificate>,
    rule: &Rule<'_>,
    now: Timestamp,
) -> Result<Leaf, CertificateError> {
    let verdict = stored.as_ref().map_or(Verdict::Reissue("there is none yet"), |leaf| judge(leaf, rule, now));
    match (stored, verdict) {
        (Some(pair), Verdict::Keep(renew_at)) => Ok(Leaf { pair, issued_because: None, renew_at }),
        (_, verdict) => {
            let issued_because = if let Verdict::Reissue(reason) = verdict { Some(reason) } else { None };
            Ok(Leaf { pair: issue(rule.authority.signer.pair(), rule.names, now)?, issued_because, renew_at: None })
        }
    }
}

/// The certificate that a Secret holds.
#[must_use]
pub fn stored(secret: &Secret) -> Option<KeyedCertificate> {
    let text = |key: &str| String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok();
    Some(KeyedCertificate { certificate: text("tls.crt")?, key: text("tls.key")? })
}

/// A Registry's own place in a window, from its start.
fn place(uid: &str, window: Duration) -> Duration {
    let part = Sha256::digest(uid.as_bytes()).iter().take(4).fold(0, |number, byte| number << 8 | u32::from(*byte));
    window.mul_f64(f64::from(part) / (f64::from(u32::MAX) + 1.0))
}

#[cfg(test)]
mod tests;
