//! Requests for blobs, manifests and lists, and those that change manifests.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, pin_mut};
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue,
    IF_NONE_MATCH, IF_RANGE, LINK, LOCATION, RANGE,
};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use tokio::sync::SemaphorePermit;

use super::body::{Answer, Broken, pieces};
use super::error::Refusal;
use super::{CONTENT_DIGEST, Server, answer, in_repository};
use crate::oci::manifest::LARGEST;
use crate::oci::range::{Requested, requested};
use crate::oci::{Digest, Endpoint, ManifestType, Reference, ReferrersIndex, RepositoryName, Tag};
use crate::serve::access::{Caller, Rights};
use crate::serve::repository::PutManifest;
use crate::serve::store::Content;

const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");
const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
/// Blobs up to this length are answered in one piece.
const ONE_PIECE: u64 = 64 * 1024;

fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// Whether the client has it already.
fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).into_iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}

impl Server {
    pub(super) async fn get_blob(
        &self,
        repository: RepositoryName,
        digest: Digest,
        request: &Request<Incoming>,
        caller: &Caller,
    ) -> Result<Response<Answer>, Refusal> {
        let within = in_repository(&repository);
        let blob = self.repositories.blob(&repository, &digest).await.map_err(&within)?;
        let headers = request.headers();
        let (tag, length) = (etag(&digest), blob.content.length());
        if request.method() == Method::HEAD && caller.rights >= Rights::Write {
            self.repositories.renew_blob(&repository, &digest).await.map_err(&within)?;
        }
        let common = [(CONTENT_DIGEST, digest.as_str()), (ETAG, tag.as_str())];
        if is_known(headers, &tag) {
            return Ok(answer(StatusCode::NOT_MODIFIED, common));
        }
        let stale = headers.get(IF_RANGE).is_some_and(|value| value.as_bytes() != tag.as_bytes());
        let range = headers.get(RANGE).filter(|_| !stale).and_then(|value| value.to_str().ok());
        let (status, range) = match range.map_or(Requested::Whole, |header| requested(header, length)) {
            Requested::Whole => (StatusCode::OK, 0..length),
            Requested::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
            Requested::Unsatisfiable => return Err(Refusal::Range(length)),
        };
        let mut response = answer(status, common);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
        if status == StatusCode::PARTIAL_CONTENT
            && let Ok(value) = HeaderValue::try_from(format!("bytes {}-{}/{length}", range.start, range.end - 1))
        {
            headers.insert(CONTENT_RANGE, value);
        }
        if request.method() != Method::HEAD {
            *response.body_mut() = bytes_of(blob.content, range).await.map_err(|error| within(error.into()))?;
        }
        Ok(response)
    }

    pub(super) async fn delete_blob(
        &self,
        repository: RepositoryName,
        digest: Digest,
    ) -> Result<Response<Answer>, Refusal> {
        self.repositories.delete_blob(&repository, &digest).await.map_err(in_repository(&repository))?;
        Ok(answer(StatusCode::ACCEPTED, []))
    }

    pub(super) async fn get_manifest(
        &self,
        repository: RepositoryName,
        reference: Reference,
        request: &Request<Incoming>,
    ) -> Result<Response<Answer>, Refusal> {
        let manifest = self.repositories.manifest(&repository, &reference).await;
        let manifest = manifest.map_err(in_repository(&repository))?;
        let tag = etag(&manifest.digest);
        let common = [(CONTENT_DIGEST, manifest.digest.as_str()), (ETAG, tag.as_str())];
        if is_known(request.headers(), &tag) {
            return Ok(answer(StatusCode::NOT_MODIFIED, common));
        }
        let mut response = answer(StatusCode::OK, common);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(manifest.kind.as_str()));
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(manifest.bytes.len()));
        if request.method() != Method::HEAD {
            *response.body_mut() = Answer::whole(manifest.bytes.clone());
        }
        Ok(response)
    }

    pub(super) async fn put_manifest(
        &self,
        repository: RepositoryName,
        reference: Reference,
        tags: Vec<Tag>,
        request: Request<Incoming>,
    ) -> Result<Response<Answer>, Refusal> {
        let _turn = self.turn_to_receive().await?;
        let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_owned();
        let (bytes, _memory) = self.collect(request).await?;
        let put = PutManifest {
            repository: repository.clone(),
            reference: reference.clone(),
            tags: tags.clone(),
            content_type,
            bytes,
        };
        let accepted = self.repositories.put_manifest(put).await.map_err(in_repository(&repository))?;
        let location = Endpoint::Manifest(repository, reference).to_string();
        let named = [(LOCATION, location.as_str()), (CONTENT_DIGEST, accepted.digest.as_str())];
        let mut response = answer(StatusCode::CREATED, named);
        let subject = accepted.subject.iter().map(|subject| (SUBJECT, subject.as_str()));
        for (name, text) in subject.chain(tags.iter().map(|tag| (OCI_TAG, tag.as_str()))) {
            if let Ok(value) = HeaderValue::try_from(text) {
                response.headers_mut().append(name, value);
            }
        }
        Ok(response)
    }

    pub(super) async fn delete_manifest(
        &self,
        repository: RepositoryName,
        reference: Reference,
    ) -> Result<Response<Answer>, Refusal> {
        let deleted = self.repositories.delete_manifest(&repository, &reference).await;
        deleted.map_err(in_repository(&repository))?;
        Ok(answer(StatusCode::ACCEPTED, []))
    }

    pub(super) async fn tags(
        &self,
        repository: RepositoryName,
        last: Option<String>,
        limit: Option<usize>,
        method: &Method,
    ) -> Result<Response<Answer>, Refusal> {
        #[derive(Serialize)]
        struct List<'a> {
            name: &'a str,
            tags: Vec<&'a str>,
        }
        let listed = self.repositories.tags(&repository, last.as_deref(), limit.unwrap_or(usize::MAX)).await;
        let (tags, more) = listed.map_err(in_repository(&repository))?;
        let answer = List { name: repository.as_str(), tags: tags.iter().map(Tag::as_str).collect() };
        let mut response = json(&answer, "application/json", method);
        if let (true, Some(last), Some(limit)) = (more, tags.last(), limit) {
            let next = format!("<{}?n={limit}&last={last}>; rel=\"next\"", Endpoint::Tags(repository));
            if let Ok(value) = HeaderValue::try_from(next) {
                response.headers_mut().insert(LINK, value);
            }
        }
        Ok(response)
    }

    pub(super) async fn referrers(
        &self,
        repository: RepositoryName,
        subject: Digest,
        artifact_type: Option<String>,
        last: Option<Digest>,
        method: &Method,
    ) -> Result<Response<Answer>, Refusal> {
        let found = self.repositories.referrers(&repository, &subject, artifact_type.as_deref(), last.as_ref()).await;
        let (manifests, more) = found.map_err(in_repository(&repository))?;
        let media_type = ManifestType::OciIndex.as_str();
        let mut response = json(&ReferrersIndex::new(&manifests), media_type, method);
        if artifact_type.is_some() {
            response.headers_mut().insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
        }
        if let (true, Some(last)) = (more, manifests.last()) {
            let filter = artifact_type.map(|text| format!("&artifactType={}", encode(&text))).unwrap_or_default();
            let path = Endpoint::Referrers(repository, subject);
            let next = format!("<{path}?last={}{filter}>; rel=\"next\"", last.digest);
            if let Ok(value) = HeaderValue::try_from(next) {
                response.headers_mut().insert(LINK, value);
            }
        }
        Ok(response)
    }
}

/// Small content is read where it is asked for; the connection reads the rest as it goes.
async fn bytes_of(
    content: Arc<dyn Content>,
    range: std::ops::Range<u64>,
) -> Result<Answer, crate::serve::store::StoreError> {
    if range.end - range.start <= ONE_PIECE && content.length() <= ONE_PIECE {
        let bytes = content.read(range.clone(), BytesMut::new()).await?;
        if bytes.len() as u64 == range.end - range.start {
            return Ok(Answer::whole(bytes));
        }
    }
    Ok(Answer::content(content, range))
}

impl Server {
    /// A manifest's bytes, up to the largest that is kept, and what they take of the memory that all such bytes may have.
    async fn collect(&self, request: Request<Incoming>) -> Result<(Bytes, Option<SemaphorePermit<'_>>), Refusal> {
        let announced = request.headers().get(CONTENT_LENGTH);
        let announced = announced.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if announced.is_some_and(|length| length > LARGEST) {
            return Err(Refusal::Body(Broken::TooLong(LARGEST)));
        }
        let (mut bytes, mut held) = (BytesMut::new(), None::<SemaphorePermit<'_>>);
        let body = pieces(request.into_body(), self.limits().idle);
        pin_mut!(body);
        while let Some(piece) = body.next().await {
            let piece = piece?;
            if bytes.len() + piece.len() > LARGEST {
                return Err(Refusal::Body(Broken::TooLong(LARGEST)));
            }
            // By what has come, not by what is announced: who sends nothing takes nothing away from others.
            let taken = self.manifest_memory(piece.len()).await?;
            match &mut held {
                Some(held) => held.merge(taken),
                None => held = Some(taken),
            }
            bytes.extend_from_slice(&piece);
        }
        Ok((bytes.freeze(), held))
    }
}

fn json(value: &impl Serialize, content_type: &'static str, method: &Method) -> Response<Answer> {
    // Lists of strings always serialize.
    let text = serde_json::to_string(value).unwrap_or_default();
    let mut response = answer(StatusCode::OK, [(CONTENT_TYPE, content_type)]);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
    if method != Method::HEAD {
        *response.body_mut() = Answer::whole(text.into());
    }
    response
}

/// Percent-encodes what is not plain in a query.
fn encode(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'/') {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;
    use hyper::header::{HeaderValue, IF_NONE_MATCH};

    use super::{encode, is_known};

    #[test]
    fn what_a_client_has_is_known_by_its_tag() {
        for (value, expected) in
            [("\"a\"", true), ("W/\"a\"", true), ("\"b\", \"a\"", true), ("*", true), ("\"b\"", false), ("a", false)]
        {
            let headers = HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static(value))]);
            assert_eq!(is_known(&headers, "\"a\""), expected, "{value}");
        }
        assert!(!is_known(&HeaderMap::new(), "\"a\""));
    }

    #[test]
    fn a_query_is_encoded() {
        assert_eq!(encode("application/vnd.a+json&x=<>"), "application/vnd.a%2Bjson%26x%3D%3C%3E");
    }
}
