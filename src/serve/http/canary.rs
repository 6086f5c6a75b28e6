//! The canary: an image that is compiled in and answered to everybody, for each registry that is served here, so that a node can
//! prove that it reaches this server. It must never come from a store, nor be changed.

use bytes::Bytes;
use hyper::header::HeaderMap;
use hyper::{Method, Response};

use super::answers;
use super::body::Answer;
use super::error::Refusal;
use super::target::Asked;
use crate::oci::canary::{CONFIG, CONFIG_DIGEST, MANIFEST, MANIFEST_DIGEST, MANIFEST_TYPE, REPOSITORY, TAG};
use crate::oci::{Digest, ErrorCode, Reference, RepositoryName};

/// Whether a repository is the canary's.
pub fn is_it(repository: &RepositoryName) -> bool {
    repository.as_str() == REPOSITORY
}

/// Answers a request for something in it; for nothing where it is asked to be changed.
pub fn answer(asked: Option<&Asked>, method: &Method, headers: &HeaderMap) -> Result<Response<Answer>, Refusal> {
    let Some(asked) = asked else { return Err(Refusal::Canary) };
    match asked {
        Asked::Manifest(Reference::Tag(tag)) if tag.as_str() == TAG => manifest(method, headers),
        Asked::Manifest(Reference::Digest(digest)) if digest.as_str() == MANIFEST_DIGEST => manifest(method, headers),
        Asked::Blob(digest) if digest.as_str() == CONFIG_DIGEST => {
            answers::small_blob(digest, &Bytes::from_static(CONFIG), method, headers)
        }
        Asked::Manifest(_) => Err(Refusal::NotOfTheCanary(ErrorCode::ManifestUnknown)),
        Asked::Blob(_) => Err(Refusal::NotOfTheCanary(ErrorCode::BlobUnknown)),
        Asked::Tags(..) | Asked::Referrers(..) => Err(Refusal::NotOfTheCanary(ErrorCode::NameUnknown)),
    }
}

fn manifest(method: &Method, headers: &HeaderMap) -> Result<Response<Answer>, Refusal> {
    let digest: Digest = MANIFEST_DIGEST.parse().map_err(|_| Refusal::NotOfTheCanary(ErrorCode::ManifestUnknown))?;
    let (what, bytes) = ((&digest, MANIFEST_TYPE), Bytes::from_static(MANIFEST));
    Ok(answers::manifest(what, bytes.len() as u64, Some(&bytes), method, headers))
}
