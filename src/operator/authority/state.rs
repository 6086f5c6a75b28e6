//! What the authority's Secret holds, as a value: who signs, what clients must trust, and how far a rotation is.
//! A value never has a signing key whose certificate is not in its bundle, because the bundle is made from the same value.
//! What cannot be understood whole is damaged: half of it must never be used, or written back.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use crate::api::labels;
use crate::operator::certificate::{CertificateError, KeyedCertificate, Validity, is_pair, make_authority, read};

/// An authority that is trusted and cannot sign any more: its key is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    certificate: String,
    validity: Validity,
}

impl Anchor {
    fn read(certificate: String) -> Result<Self, CertificateError> {
        Ok(Self { validity: read(&certificate)?.validity, certificate })
    }

    /// PEM of the certificate.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// When nobody trusts it any more.
    #[must_use]
    pub fn end(&self) -> Timestamp {
        self.validity.end
    }
}

/// An authority with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    pair: KeyedCertificate,
    validity: Validity,
}

impl Signer {
    /// A new one.
    ///
    /// # Errors
    /// When the certificate library refuses.
    pub fn make(now: Timestamp) -> Result<Self, CertificateError> {
        Self::read(make_authority(now)?)
    }

    fn read(pair: KeyedCertificate) -> Result<Self, CertificateError> {
        if !is_pair(&pair)? {
            return Err(CertificateError::Read("the key belongs to another certificate".to_owned()));
        }
        Ok(Self { validity: read(&pair.certificate)?.validity, pair })
    }

    /// Certificate and key.
    #[must_use]
    pub fn pair(&self) -> &KeyedCertificate {
        &self.pair
    }

    /// When nobody trusts it any more.
    #[must_use]
    pub fn end(&self) -> Timestamp {
        self.validity.end
    }

    fn into_anchor(self) -> Anchor {
        Anchor { certificate: self.pair.certificate, validity: self.validity }
    }
}

/// How far a rotation is. `since` is when the step began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// There is one authority.
    AtRest,
    /// The next authority is being told to all who must trust it.
    Publishing {
        /// The next authority.
        next: Signer,
        /// When the step began.
        since: Timestamp,
    },
    /// The next authority stands in every place; those who read it seldom are given time.
    Overlapping {
        /// The next authority.
        next: Signer,
        /// When the step began.
        since: Timestamp,
    },
    /// The next authority signs; certificates by the previous one are being issued anew, a few at a time.
    Reissuing {
        /// The previous authority.
        previous: Anchor,
        /// When the step began.
        since: Timestamp,
    },
    /// No certificate is by the previous authority any more; what still serves an old one is given time.
    Retiring {
        /// The previous authority.
        previous: Anchor,
        /// When the step began.
        since: Timestamp,
    },
}

/// The authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Who signs.
    pub signer: Signer,
    /// How far a rotation is.
    pub rotation: Rotation,
}

/// What is wrong with a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage(pub String);

const SIGNER: [&str; 2] = ["tls.crt", "tls.key"];
const NEXT: [&str; 2] = ["next.crt", "next.key"];
const PREVIOUS: &str = "previous.crt";
const OVERLAPPING: &str = "Overlapping";
const RETIRING: &str = "Retiring";

impl Authority {
    /// An authority at rest.
    #[must_use]
    pub fn new(signer: Signer) -> Self {
        Self { signer, rotation: Rotation::AtRest }
    }

    /// Reads a Secret.
    ///
    /// # Errors
    /// When it is not whole.
    pub fn read(secret: &Secret) -> Result<Self, Damage> {
        let signer =
            signer_of(secret, SIGNER)?.ok_or_else(|| Damage("`tls.crt` or `tls.key` is missing".to_owned()))?;
        let next = signer_of(secret, NEXT)?;
        let previous = text(secret, PREVIOUS)?.map(Anchor::read).transpose();
        let previous = previous.map_err(|error| Damage(format!("`{PREVIOUS}`: {error}")))?;
        let annotation = secret.annotations().get(labels::ROTATION).and_then(|text| text.split_once(' '));
        let written = annotation.and_then(|(step, since)| Some((step, since.parse::<Timestamp>().ok()?)));
        // Where the annotation was lost, a step begins again: it may then last longer than it has to, never less.
        let rotation = match (next, previous, written) {
            (None, None, _) => Rotation::AtRest,
            (Some(_), Some(_), _) => return Err(Damage(format!("it has both `next.crt` and `{PREVIOUS}`"))),
            (Some(next), None, Some((OVERLAPPING, since))) => Rotation::Overlapping { next, since },
            (Some(next), None, written) => {
                Rotation::Publishing { since: written.map_or(next.validity.start, |(_, since)| since), next }
            }
            (None, Some(previous), Some((RETIRING, since))) => Rotation::Retiring { previous, since },
            (None, Some(previous), written) => {
                Rotation::Reissuing { previous, since: written.map_or(signer.validity.start, |(_, since)| since) }
            }
        };
        Ok(Self { signer, rotation })
    }

    /// What the Secret holds.
    #[must_use]
    pub fn data(&self) -> BTreeMap<String, ByteString> {
        let mut texts = vec![(SIGNER, self.signer.pair())];
        let mut previous_text = None;
        match &self.rotation {
            Rotation::AtRest => {}
            Rotation::Publishing { next, .. } | Rotation::Overlapping { next, .. } => texts.push((NEXT, next.pair())),
            Rotation::Reissuing { previous, .. } | Rotation::Retiring { previous, .. } => {
                previous_text = Some((PREVIOUS, previous.certificate()));
            }
        }
        let pairs = texts.iter().flat_map(|([certificate, key], pair)| {
            [(*certificate, pair.certificate.as_str()), (*key, pair.key.as_str())]
        });
        pairs.chain(previous_text).map(|(key, text)| (key.to_owned(), ByteString(text.as_bytes().to_vec()))).collect()
    }

    /// The value of [`labels::ROTATION`] on the Secret; none at rest.
    #[must_use]
    pub fn annotation(&self) -> Option<String> {
        let (step, since) = match &self.rotation {
            Rotation::AtRest => return None,
            Rotation::Publishing { since, .. } => ("Publishing", since),
            Rotation::Overlapping { since, .. } => (OVERLAPPING, since),
            Rotation::Reissuing { since, .. } => ("Reissuing", since),
            Rotation::Retiring { since, .. } => (RETIRING, since),
        };
        Some(format!("{step} {since}"))
    }

    /// The certificates that clients must trust, the older one first. Neither a step from one signer to the next nor the
    /// order of keys in the Secret changes the text.
    #[must_use]
    pub fn trusted(&self) -> Vec<&str> {
        let signer = self.signer.pair.certificate.as_str();
        match &self.rotation {
            Rotation::AtRest => vec![signer],
            Rotation::Publishing { next, .. } | Rotation::Overlapping { next, .. } => {
                vec![signer, &next.pair.certificate]
            }
            Rotation::Reissuing { previous, .. } | Rotation::Retiring { previous, .. } => {
                vec![previous.certificate(), signer]
            }
        }
    }

    /// [`Self::trusted`] as one PEM text.
    #[must_use]
    pub fn bundle(&self) -> String {
        match self.trusted().as_slice() {
            [one] => (*one).to_owned(),
            several => several.iter().flat_map(|certificate| [certificate.trim_end(), "\n"]).collect(),
        }
    }

    /// Whether every certificate of a registry is by an authority that nodes had before the rotation, so that a node
    /// without the newer one can pull.
    #[must_use]
    pub fn older_suffices(&self) -> bool {
        matches!(self.rotation, Rotation::Publishing { .. } | Rotation::Overlapping { .. })
    }

    /// The authority whose certificates are to be issued anew, and from when on; `None` as the time means at once.
    #[must_use]
    pub fn outgoing(&self) -> Option<(&Anchor, Option<Timestamp>)> {
        match &self.rotation {
            Rotation::Reissuing { previous, since } => Some((previous, Some(*since))),
            Rotation::Retiring { previous, .. } => Some((previous, None)),
            Rotation::AtRest | Rotation::Publishing { .. } | Rotation::Overlapping { .. } => None,
        }
    }

    /// The same signer with a next one to be published.
    pub(in crate::operator) fn with_next(self, next: Signer, now: Timestamp) -> Self {
        Self { rotation: Rotation::Publishing { next, since: now }, ..self }
    }

    /// The next authority is published everywhere.
    pub(in crate::operator) fn overlapping(self, now: Timestamp) -> Self {
        let rotation = match self.rotation {
            Rotation::Publishing { next, .. } => Rotation::Overlapping { next, since: now },
            other => other,
        };
        Self { rotation, ..self }
    }

    /// The next authority signs; the key of the one before is forgotten.
    pub(in crate::operator) fn switched(self, now: Timestamp) -> Self {
        match self.rotation {
            Rotation::Publishing { next, .. } | Rotation::Overlapping { next, .. } => {
                Self { signer: next, rotation: Rotation::Reissuing { previous: self.signer.into_anchor(), since: now } }
            }
            rotation => Self { rotation, ..self },
        }
    }

    /// No certificate is by the previous authority any more.
    pub(in crate::operator) fn retiring(self, now: Timestamp) -> Self {
        let rotation = match self.rotation {
            Rotation::Reissuing { previous, .. } => Rotation::Retiring { previous, since: now },
            other => other,
        };
        Self { rotation, ..self }
    }

    /// The previous authority is trusted no more.
    pub(in crate::operator) fn at_rest(self) -> Self {
        Self::new(self.signer)
    }
}

/// Whether a key of the Secret is one that a value of this type may write.
pub(super) fn is_ours(key: &str) -> bool {
    SIGNER.contains(&key) || NEXT.contains(&key) || key == PREVIOUS
}

fn signer_of(secret: &Secret, [certificate, key]: [&str; 2]) -> Result<Option<Signer>, Damage> {
    match (text(secret, certificate)?, text(secret, key)?) {
        (None, None) => Ok(None),
        (Some(certificate_text), Some(key_text)) => {
            let pair = KeyedCertificate { certificate: certificate_text, key: key_text };
            let signer = Signer::read(pair).map_err(|error| Damage(format!("`{certificate}` and `{key}`: {error}")))?;
            Ok(Some(signer))
        }
        _ => Err(Damage(format!("only one of `{certificate}` and `{key}` is there"))),
    }
}

fn text(secret: &Secret, key: &str) -> Result<Option<String>, Damage> {
    let Some(bytes) = secret.data.as_ref().and_then(|data| data.get(key)) else {
        return Ok(None);
    };
    String::from_utf8(bytes.0.clone()).map(Some).map_err(|_| Damage(format!("`{key}` is no text")))
}

#[cfg(test)]
mod tests;
