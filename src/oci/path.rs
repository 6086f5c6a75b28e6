//! The grammar of the protocol's paths, in both directions: what a path asks for, and the path that asks for it.

use std::fmt;

use thiserror::Error;

use super::digest::{Digest, InvalidDigest};
use super::name::{InvalidName, RepositoryName};
use super::tag::{InvalidReference, Reference};

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v2/`
    Base,
    /// `/v2/<name>/blobs/<digest>`
    Blob(RepositoryName, Digest),
    /// `/v2/<name>/blobs/uploads/`
    Uploads(RepositoryName),
    /// `/v2/<name>/blobs/uploads/<id>`; what an id is, the server decides.
    Upload(RepositoryName, String),
    /// `/v2/<name>/manifests/<reference>`
    Manifest(RepositoryName, Reference),
    /// `/v2/<name>/tags/list`
    Tags(RepositoryName),
    /// `/v2/<name>/referrers/<digest>`
    Referrers(RepositoryName, Digest),
}

/// Why a path names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidPath {
    /// It is not of the protocol.
    #[error("there is nothing at this path")]
    Unknown,
    /// Its repository's name is malformed.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// Its digest is malformed.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
    /// Its tag or digest is malformed.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
}

/// Takes a path apart. It must be decoded already; no part is taken on trust, so that a decoded slash does no harm.
///
/// # Errors
/// When it names nothing, with the part that is wrong.
pub fn parse(path: &str) -> Result<Endpoint, InvalidPath> {
    let rest = match path {
        "/v2" | "/v2/" => return Ok(Endpoint::Base),
        _ => path.strip_prefix("/v2/").ok_or(InvalidPath::Unknown)?,
    };
    let mut parts = rest.rsplitn(3, '/');
    let (last, kind, before) = (parts.next(), parts.next(), parts.next());
    let (Some(last), Some(kind), Some(before)) = (last, kind, before) else { return Err(InvalidPath::Unknown) };
    // `<name>/blobs/uploads/<id>` has one part more behind the name than the others.
    if kind == "uploads"
        && let Some(name) = before.strip_suffix("/blobs")
    {
        let name = name.parse()?;
        return Ok(if last.is_empty() { Endpoint::Uploads(name) } else { Endpoint::Upload(name, last.to_owned()) });
    }
    match (kind, last) {
        ("blobs", "uploads") => Ok(Endpoint::Uploads(before.parse()?)),
        ("blobs", digest) => Ok(Endpoint::Blob(before.parse()?, digest.parse()?)),
        ("manifests", reference) => Ok(Endpoint::Manifest(before.parse()?, reference.parse()?)),
        ("tags", "list") => Ok(Endpoint::Tags(before.parse()?)),
        ("referrers", digest) => Ok(Endpoint::Referrers(before.parse()?, digest.parse()?)),
        _ => Err(InvalidPath::Unknown),
    }
}

/// Takes percent-encoding away, once; `None` where it is malformed, or leads to no UTF-8.
#[must_use]
pub fn decode(text: &str, plus_is_space: bool) -> Option<String> {
    if !text.contains(['%', '+']) {
        return Some(text.to_owned());
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            b'+' if plus_is_space => b' ',
            _ => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

impl Endpoint {
    /// The repository it belongs to.
    #[must_use]
    pub fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Self::Base => None,
            Self::Blob(name, _)
            | Self::Uploads(name)
            | Self::Upload(name, _)
            | Self::Manifest(name, _)
            | Self::Tags(name)
            | Self::Referrers(name, _) => Some(name),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base => formatter.write_str("/v2/"),
            Self::Blob(name, digest) => write!(formatter, "/v2/{name}/blobs/{digest}"),
            Self::Uploads(name) => write!(formatter, "/v2/{name}/blobs/uploads/"),
            Self::Upload(name, id) => write!(formatter, "/v2/{name}/blobs/uploads/{id}"),
            Self::Manifest(name, reference) => write!(formatter, "/v2/{name}/manifests/{reference}"),
            Self::Tags(name) => write!(formatter, "/v2/{name}/tags/list"),
            Self::Referrers(name, digest) => write!(formatter, "/v2/{name}/referrers/{digest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Endpoint, InvalidPath, parse};

    #[test]
    fn what_is_written_is_read_back() {
        let digest = format!("sha256:{}", "0".repeat(64));
        // Words of the grammar are also names of repositories.
        for name in ["a", "a/b/c", "blobs", "blobs/uploads", "tags/list", "v2", "manifests/manifests"] {
            for path in [
                "/v2/".to_owned(),
                format!("/v2/{name}/blobs/{digest}"),
                format!("/v2/{name}/blobs/uploads/"),
                format!("/v2/{name}/blobs/uploads/some-id"),
                format!("/v2/{name}/manifests/latest"),
                format!("/v2/{name}/manifests/{digest}"),
                format!("/v2/{name}/tags/list"),
                format!("/v2/{name}/referrers/{digest}"),
            ] {
                let endpoint = parse(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
                assert_eq!(endpoint.to_string(), path);
                assert!(endpoint.repository().is_none_or(|found| found.as_str() == name), "{path}");
            }
        }
        assert_eq!(parse("/v2"), Ok(Endpoint::Base));
        assert_eq!(parse("/v2/a/blobs/uploads"), parse("/v2/a/blobs/uploads/"));
    }

    #[test]
    fn each_malformed_path_says_what_is_wrong() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for path in ["", "/", "/v1/", "/v2/a", "/v2/a/tags", "/v2/a/tags/", "/v2//", "/v2/a/other/b", "/v2/tags/list"] {
            assert_eq!(parse(path), Err(InvalidPath::Unknown), "{path}");
        }
        for path in [
            format!("/v2/../blobs/{digest}"),
            format!("/v2//blobs/{digest}"),
            format!("/v2/A/blobs/{digest}"),
            "/v2/a/../../etc/manifests/latest".to_owned(),
            "/v2/a//tags/list".to_owned(),
            "/v2/a_/blobs/uploads/".to_owned(),
        ] {
            assert!(matches!(parse(&path), Err(InvalidPath::Name(_))), "{path}");
        }
        for path in ["/v2/a/blobs/latest", "/v2/a/blobs/", "/v2/a/referrers/sha256:0"] {
            assert!(matches!(parse(path), Err(InvalidPath::Digest(_))), "{path}");
        }
        for path in ["/v2/a/manifests/", "/v2/a/manifests/..", "/v2/a/manifests/sha256:0", "/v2/a/manifests/-"] {
            assert!(matches!(parse(path), Err(InvalidPath::Reference(_))), "{path}");
        }
    }
}
