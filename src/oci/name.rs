//! Names of repositories. A name never has a part that begins with `_` or `.`, so that it may be a path of folders.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

/// Of a whole name. Clients add a host of their own and stay below 255 with it.
const LONGEST: usize = 255;

/// Why a text is not a repository's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "a repository's name has at most 255 characters: parts of lower-case letters and digits, joined by `/`, with single \
     `.` or `_`, `__` or dashes inside a part"
)]
pub struct InvalidName;

/// The name of a repository, such as `library/nginx`. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(Arc<str>);

impl RepositoryName {
    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepositoryName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let valid = text.len() <= LONGEST && text.split('/').all(is_part);
        if valid { Ok(Self(text.into())) } else { Err(InvalidName) }
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_part(part: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends_well = |byte: Option<u8>| byte.is_some_and(alphanumeric);
    ends_well(part.bytes().next())
        && ends_well(part.bytes().last())
        && part.bytes().all(|byte| alphanumeric(byte) || matches!(byte, b'.' | b'_' | b'-'))
        && part
            .split(|character: char| character.is_ascii_alphanumeric())
            .all(|joint| matches!(joint, "" | "." | "_" | "__") || joint.bytes().all(|byte| byte == b'-'))
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for RepositoryName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::RepositoryName;

    #[test]
    fn names_follow_the_grammar_of_the_protocol() {
        for good in ["a", "library/nginx", "a.b/c_d/e__f/g-h/i---j", "0/1", "x509", &"a".repeat(255)] {
            assert!(good.parse::<RepositoryName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a..b",
            "a___b",
            "a._b",
            "a-.b",
            "_a",
            "a_",
            ".a",
            "a.",
            "-a",
            "a-",
            "..",
            "a/../b",
            "a/_manifests",
            "a b",
            "a%2fb",
            "ä",
            "a\0b",
            "a:b",
            &"a".repeat(256),
        ] {
            assert!(bad.parse::<RepositoryName>().is_err(), "{bad}");
        }
    }
}
