//! Requests for blobs, manifests and lists, and those that change manifests.

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, pin_mut};
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use tokio::sync::SemaphorePermit;

use super::answers::{self, FILTERS_APPLIED, Mark, encode};
use super::body::{Answer, Broken, pieces};
use super::error::Refusal;
use super::{CONTENT_DIGEST, Server, answer, in_repository};
use crate::oci::manifest::LARGEST;
use crate::oci::{Digest, Endpoint, ManifestType, Reference, ReferrersIndex, RepositoryName, Tag};
use crate::serve::access::{Caller, Rights};
use crate::serve::repository::PutManifest;
use crate::serve::store::StoreError;

const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");

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
        if request.method() == Method::HEAD && caller.rights >= Rights::Write {
            self.repositories.renew_blob(&repository, &digest).await.map_err(&within)?;
        }
        let unread = |error: StoreError| within(error.into());
        answers::blob(blob.content, (&digest, Mark::Proven), request.method(), request.headers(), unread).await
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
        let (what, length) = ((&manifest.digest, manifest.kind), manifest.bytes.len() as u64);
        Ok(answers::manifest(what, length, Some(&manifest.bytes), request.method(), request.headers()))
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
        let mut response = answers::list(&answer, "application/json", method);
        if let (true, Some(last), Some(limit)) = (more, tags.last(), limit) {
            answers::goes_on(&mut response, &format!("{}?n={limit}&last={last}", Endpoint::Tags(repository)));
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
        let mut response = answers::list(&ReferrersIndex::new(&manifests), media_type, method);
        if artifact_type.is_some() {
            response.headers_mut().insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
        }
        if let (true, Some(last)) = (more, manifests.last()) {
            let filter = artifact_type.map(|text| format!("&artifactType={}", encode(&text))).unwrap_or_default();
            let path = Endpoint::Referrers(repository, subject);
            answers::goes_on(&mut response, &format!("{path}?last={}{filter}", last.digest));
        }
        Ok(response)
    }
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
