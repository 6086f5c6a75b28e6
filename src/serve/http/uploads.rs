//! Requests that bring blobs.

use futures::StreamExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderName, HeaderValue, LOCATION, RANGE};
use hyper::{Request, Response, StatusCode};

use super::body::{Answer, pieces};
use super::error::Refusal;
use super::route::Begin;
use super::{CONTENT_DIGEST, Server, answer, in_repository};
use crate::oci::{Algorithm, Digest, Endpoint, RepositoryName, range};
use crate::serve::repository::{Body, Chunk, Progress, UploadId};

const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// Where an upload is and how far.
pub(super) fn progress_headers(headers: &mut HeaderMap, repository: &RepositoryName, progress: &Progress) {
    let location = Endpoint::Upload(repository.clone(), progress.id.as_str().to_owned()).to_string();
    // Both ends count, so that nothing and one byte look alike; that is how all registries do it.
    let range = format!("0-{}", progress.length.saturating_sub(1));
    for (name, text) in [(LOCATION, location.as_str()), (RANGE, &range), (UPLOAD_UUID, progress.id.as_str())] {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    }
}

fn progressed(status: StatusCode, repository: &RepositoryName, progress: &Progress) -> Response<Answer> {
    let mut response = answer(status, []);
    progress_headers(response.headers_mut(), repository, progress);
    response
}

fn created(repository: &RepositoryName, digest: &Digest) -> Response<Answer> {
    let location = Endpoint::Blob(repository.clone(), digest.clone()).to_string();
    answer(StatusCode::CREATED, [(LOCATION, location.as_str()), (CONTENT_DIGEST, digest.as_str())])
}

/// The bytes of a request, and where they belong.
fn chunk(request: Request<Incoming>, server: &Server) -> Result<Chunk<impl Body + use<>>, Refusal> {
    let headers = request.headers();
    let range = match headers.get(CONTENT_RANGE) {
        None => None,
        Some(value) => {
            let range = value.to_str().ok().and_then(range::chunk);
            Some(range.ok_or(Refusal::Header(CONTENT_RANGE))?)
        }
    };
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if let (Some(range), Some(length)) = (&range, length)
        && range.end - range.start != length
    {
        return Err(Refusal::Header(CONTENT_RANGE));
    }
    let body = pieces(request.into_body(), server.limits().idle).map(|piece| piece.map_err(Into::into));
    Ok(Chunk { range, body })
}

impl Server {
    pub(super) async fn begin_upload(
        &self,
        repository: RepositoryName,
        begin: Begin,
        request: Request<Incoming>,
    ) -> Result<Response<Answer>, Refusal> {
        let within = in_repository(&repository);
        let algorithm = match &begin {
            Begin::Mount(digest, from) => {
                // Whoever may push may pull everywhere; tokens will say more.
                let mounted = self.repositories.mount(&repository, digest, from.as_ref(), |_| true).await;
                if mounted.map_err(&within)? {
                    return Ok(created(&repository, digest));
                }
                digest.algorithm()
            }
            Begin::Whole(digest) => digest.algorithm(),
            Begin::Empty(algorithm) => *algorithm,
        };
        let progress = self.begin(&repository, algorithm).await?;
        let Begin::Whole(digest) = begin else { return Ok(progressed(StatusCode::ACCEPTED, &repository, &progress)) };
        let finished = self.finish_upload(repository.clone(), progress.id.clone(), digest, request).await;
        if finished.is_err() {
            // The client does not know of it.
            let _ = self.repositories.cancel_upload(&repository, &progress.id).await;
        }
        finished
    }

    async fn begin(&self, repository: &RepositoryName, algorithm: Algorithm) -> Result<Progress, Refusal> {
        let id = UploadId::from_random(rand::random());
        self.repositories.begin_upload(repository, id, algorithm).await.map_err(in_repository(repository))
    }

    pub(super) async fn upload_progress(
        &self,
        repository: RepositoryName,
        id: UploadId,
    ) -> Result<Response<Answer>, Refusal> {
        let progress = self.repositories.upload_progress(&repository, &id).await;
        Ok(progressed(StatusCode::NO_CONTENT, &repository, &progress.map_err(in_repository(&repository))?))
    }

    pub(super) async fn append(
        &self,
        repository: RepositoryName,
        id: UploadId,
        request: Request<Incoming>,
    ) -> Result<Response<Answer>, Refusal> {
        let _turn = self.turn_to_receive().await?;
        let progress = self.repositories.append(&repository, &id, chunk(request, self)?).await;
        Ok(progressed(StatusCode::ACCEPTED, &repository, &progress.map_err(in_repository(&repository))?))
    }

    pub(super) async fn finish_upload(
        &self,
        repository: RepositoryName,
        id: UploadId,
        digest: Digest,
        request: Request<Incoming>,
    ) -> Result<Response<Answer>, Refusal> {
        let _turn = self.turn_to_receive().await?;
        let chunk = chunk(request, self)?;
        let finished = self.repositories.finish_upload(&repository, &id, chunk, &digest).await;
        finished.map_err(in_repository(&repository))?;
        Ok(created(&repository, &digest))
    }

    pub(super) async fn cancel_upload(
        &self,
        repository: RepositoryName,
        id: UploadId,
    ) -> Result<Response<Answer>, Refusal> {
        self.repositories.cancel_upload(&repository, &id).await.map_err(in_repository(&repository))?;
        Ok(answer(StatusCode::NO_CONTENT, []))
    }
}
