//! Tags, and what a manifest is asked by: a tag or a digest.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use super::digest::{Digest, InvalidDigest};

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
    fn a_colon_makes_a_reference_a_digest() {
        let digest = format!("sha256:{}", "0".repeat(64));
        assert!(matches!(digest.parse(), Ok(Reference::Digest(_))));
        assert!(matches!("sha256".parse(), Ok(Reference::Tag(_))));
        assert_eq!("sha256:short".parse::<Reference>(), Err(InvalidReference::Digest(InvalidDigest::Hex)));
        assert!(matches!("-".parse::<Reference>(), Err(InvalidReference::Tag(_))));
    }
}
