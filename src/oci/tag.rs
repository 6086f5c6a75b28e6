//! Tags, and what a manifest is asked by: a tag or a digest.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use super::digest::{Algorithm, Digest, InvalidDigest};

/// How much of a digest a referrers tag has.
const REFERRERS_HEX: usize = 64;

/// Why a text is not a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a tag has at most 128 letters, digits, `_`, `.` and `-`, and begins with a letter, a digit or `_`")]
pub struct InvalidTag;

/// A name for a manifest within its repository. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

impl Tag {
    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Tag {
    /// The tag that lists what refers to a subject where a registry has no API for that: the protocol's referrers tag.
    #[must_use]
    pub fn of_referrers(subject: &Digest) -> Self {
        let hex: String = subject.hex().chars().take(REFERRERS_HEX).collect();
        Self(format!("{}-{hex}", subject.algorithm().as_str()).into())
    }

    /// Whether it has the form of [`Tag::of_referrers`].
    #[must_use]
    pub fn is_of_referrers(&self) -> bool {
        let Some((name, hex)) = self.0.split_once('-') else { return false };
        let known = Algorithm::ALL.into_iter().any(|algorithm| algorithm.as_str() == name);
        known && hex.len() == REFERRERS_HEX && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    }
}

impl FromStr for Tag {
    type Err = InvalidTag;

    fn from_str(text: &str) -> Result<Self, InvalidTag> {
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let rest = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
        if first && rest && text.len() <= 128 { Ok(Self(text.into())) } else { Err(InvalidTag) }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What a manifest is asked by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// By name.
    Tag(Tag),
    /// By content.
    Digest(Digest),
}

/// Why a text is neither a tag nor a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidReference {
    /// It has a colon, so that it can only be a digest.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
    /// It has none.
    #[error(transparent)]
    Tag(#[from] InvalidTag),
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        if text.contains(':') { Ok(Self::Digest(text.parse()?)) } else { Ok(Self::Tag(text.parse()?)) }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(formatter),
            Self::Digest(digest) => digest.fmt(formatter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{InvalidReference, Reference, Tag};
    use crate::oci::digest::InvalidDigest;

    #[test]
    fn tags_follow_the_grammar_of_the_protocol() {
        for good in ["latest", "1.2.3", "_", "V1-rc.1", "_a", &"x".repeat(128)] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "-a", ".a", "a/b", "a b", "a:b", "ä", "a\0", &"x".repeat(129)] {
            assert!(bad.parse::<Tag>().is_err(), "{bad}");
        }
    }

    #[test]
    fn referrers_tags_are_cut_as_the_protocol_says() {
        for (digest, tag) in [("sha256:", "sha256-"), ("sha512:", "sha512-")] {
            let subject = format!("{digest}{}", "ab".repeat(if digest == "sha256:" { 32 } else { 64 }));
            let of = Tag::of_referrers(&subject.parse().unwrap());
            assert_eq!(of.as_str(), format!("{tag}{}", "ab".repeat(32)));
            assert!(of.is_of_referrers());
        }
        let hex = "0".repeat(64);
        for other in
            ["latest", "sha256-", &format!("sha256-{hex}.sig"), &format!("sha1-{hex}"), &format!("sha256-{hex}0")]
        {
            assert!(!other.parse::<Tag>().unwrap().is_of_referrers(), "{other}");
        }
    }

    #[test]
    fn a_colon_makes_a_reference_a_digest() {
        let digest = format!("sha256:{}", "0".repeat(64));
        assert!(matches!(digest.parse(), Ok(Reference::Digest(_))));
        assert!(matches!("sha256".parse(), Ok(Reference::Tag(_))));
        assert_eq!("sha256:short".parse::<Reference>(), Err(InvalidReference::Digest(InvalidDigest::Hex)));
        assert!(matches!("-".parse::<Reference>(), Err(InvalidReference::Tag(_))));
    }
}
