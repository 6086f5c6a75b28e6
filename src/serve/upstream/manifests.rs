//! A manifest that an endpoint answered with, checked. Its type is never taken from the endpoint alone.

use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

use crate::oci::manifest::{InvalidManifest, LARGEST};
use crate::oci::{Algorithm, Digest, Manifest, ManifestType, Reference};

use super::FetchedManifest;
use super::client::{content_digest, length};
use super::exchange::{Answer, read_bounded};
use super::transport::{Deadline, Limits};
use super::trouble::Trouble;

/// The types that are asked for, whatever a client would take: a tag must mean one digest here.
pub fn accepted() -> HeaderValue {
    HeaderValue::try_from(ManifestType::ALL.map(ManifestType::as_str).join(", "))
        .unwrap_or(HeaderValue::from_static("*/*"))
}

/// Whether an answer is a manifest of Docker's first schema, which no registry here has.
pub fn is_of_the_first_schema(headers: &HeaderMap) -> bool {
    content_type(headers).starts_with("application/vnd.docker.distribution.manifest.v1+")
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Reads what was answered when a manifest was asked for.
pub async fn read(
    answer: Answer,
    reference: &Reference,
    limits: &Limits,
    deadline: Deadline,
) -> Result<FetchedManifest, Trouble> {
    let Answer { response, what } = answer;
    let headers = response.headers().clone();
    if is_of_the_first_schema(&headers) {
        return Err(Trouble::NotFound);
    }
    if length(&headers).is_some_and(|length| length > LARGEST as u64) {
        return Err(Trouble::Wrong(format!("{what}: the manifest is longer than {LARGEST} bytes")));
    }
    let bytes = read_bounded(response, LARGEST, limits.progress, deadline, &what).await?;
    let said = content_digest(&headers);
    let asked = match reference {
        Reference::Digest(digest) => Some(digest.clone()),
        Reference::Tag(_) => None,
    };
    for expected in asked.iter().chain(&said) {
        let found = Digest::of(expected.algorithm(), &bytes);
        if found != *expected {
            return Err(Trouble::Wrong(format!("{what}: the manifest is {found}, and should be {expected}")));
        }
    }
    let digest = asked.or(said).unwrap_or_else(|| Digest::of(Algorithm::Sha256, &bytes));
    match Manifest::parse_announced(&bytes, content_type(&headers)) {
        Ok(manifest) => Ok(FetchedManifest { digest, media_type: manifest.kind, bytes }),
        Err(InvalidManifest::Schema) => Err(Trouble::NotFound),
        Err(InvalidManifest::Announced { found, .. }) => {
            Err(Trouble::Wrong(format!("{what}: the manifest is of type {found}, and was announced as another")))
        }
        // What it is that cannot be read stands in the upstream's bytes, and may be anything.
        Err(_) => Err(Trouble::Wrong(format!("{what}: the answer is not a manifest that a registry keeps"))),
    }
}
