//! A client that pushes as runtimes' clients do: HEAD, POST, PATCH, PUT for each blob, four at a time, on connections that
//! stay. It must never go on after an answer that a client would not take for success.

use std::time::Instant;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::content::{Blob, Image, MANIFEST_TYPE};
use crate::engines::Server;

/// How many blobs of an image are pushed at once.
const AT_ONCE: usize = 4;

/// A client of one server.
pub struct Pusher {
    client: Client<HttpConnector, Full<Bytes>>,
    base: String,
    repository: &'static str,
}

impl Pusher {
    pub fn new(server: &Server, repository: &'static str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self { client, base: server.url(""), repository }
    }

    async fn send(&self, method: Method, path: &str, kind: Option<&str>, body: Bytes) -> (StatusCode, HeaderMap) {
        let url = if path.starts_with('/') { format!("{}{path}", self.base) } else { path.to_owned() };
        let mut request = Request::builder().method(&method).uri(&url).header(CONTENT_LENGTH, body.len());
        if let Some(kind) = kind {
            request = request.header(CONTENT_TYPE, kind);
        }
        let answer = self.client.request(request.body(Full::new(body)).unwrap()).await;
        let answer = answer.unwrap_or_else(|error| panic!("{method} {url}: {error:?}"));
        let (status, headers) = (answer.status(), answer.headers().clone());
        answer.into_body().collect().await.unwrap_or_else(|error| panic!("{method} {url}: {error:?}"));
        (status, headers)
    }

    /// Sends what must be taken; gives back where the answer points.
    async fn must(&self, method: Method, path: &str, kind: Option<&str>, body: Bytes) -> String {
        let (status, headers) = self.send(method.clone(), path, kind, body).await;
        assert!(status.is_success(), "{method} {path}: {status}");
        headers.get(LOCATION).map(|place| place.to_str().unwrap().to_owned()).unwrap_or_default()
    }

    pub async fn blob(&self, blob: &Blob) {
        let blobs = format!("/v2/{}/blobs", self.repository);
        let (status, _) = self.send(Method::HEAD, &format!("{blobs}/{}", blob.digest), None, Bytes::new()).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "the blob is new");
        let place = self.must(Method::POST, &format!("{blobs}/uploads/"), None, Bytes::new()).await;
        let stream = Some("application/octet-stream");
        let place = self.must(Method::PATCH, &place, stream, blob.bytes.clone()).await;
        let separator = if place.contains('?') { '&' } else { '?' };
        let place = format!("{place}{separator}digest={}", blob.digest);
        self.must(Method::PUT, &place, stream, Bytes::new()).await;
    }

    /// Pushes an image and gives it a second tag; tells how many seconds that took.
    pub async fn image(&self, image: &Image, tags: [&str; 2]) -> f64 {
        let started = Instant::now();
        stream::iter(&image.blobs).for_each_concurrent(AT_ONCE, |blob| self.blob(blob)).await;
        for tag in tags {
            let path = format!("/v2/{}/manifests/{tag}", self.repository);
            self.must(Method::PUT, &path, Some(MANIFEST_TYPE), image.manifest.bytes.clone()).await;
        }
        started.elapsed().as_secs_f64()
    }
}
