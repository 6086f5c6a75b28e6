//! A small client of the protocol. It must never retry: a test wants to know what the first answer was.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

pub use crate::mirror::upstream::content::{IMAGE, digest, image};

#[derive(Clone)]
pub struct Client {
    pub http: HyperClient<HttpConnector, Full<Bytes>>,
    pub address: String,
    pub authorization: Option<String>,
    /// What an agent of a node shows.
    pub agent_token: Option<String>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The code of the error in the body.
    pub fn code(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Client {
    pub fn new(address: &str) -> Self {
        let http = HyperClient::builder(TokioExecutor::new()).build_http();
        Self { http, address: address.to_owned(), authorization: None, agent_token: None }
    }

    /// None where the connection broke.
    pub async fn send(&self, method: Method, target: &str, headers: &[(&str, &str)], body: Bytes) -> Option<Answer> {
        // Some registries send whole addresses.
        let target = target.strip_prefix(&format!("http://{}", self.address)).unwrap_or(target);
        let mut request = Request::builder().method(method).uri(format!("http://{}{target}", self.address));
        for (name, value) in headers.iter().copied().chain(self.identity()) {
            request = request.header(name, value);
        }
        let response = self.http.request(request.body(Full::new(body)).unwrap()).await.ok()?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        Some(Answer { status: head.status, headers: head.headers, body })
    }

    /// The headers that say who asks.
    pub fn identity(&self) -> impl Iterator<Item = (&str, &str)> {
        let authorization = self.authorization.iter().map(|value| ("authorization", value.as_str()));
        authorization.chain(self.agent_token.iter().map(|value| ("wharf-agent-token", value.as_str())))
    }

    pub async fn get(&self, target: &str) -> Answer {
        self.send(Method::GET, target, &[], Bytes::new()).await.unwrap()
    }

    /// Pushes a blob in two requests.
    pub async fn push_blob(&self, repository: &str, bytes: &[u8]) -> Option<Answer> {
        let begun = self.send(Method::POST, &format!("/v2/{repository}/blobs/uploads/"), &[], Bytes::new()).await?;
        if begun.status != StatusCode::ACCEPTED {
            return Some(begun);
        }
        let location = begun.header("location");
        let joint = if location.contains('?') { '&' } else { '?' };
        let target = format!("{location}{joint}digest={}", digest(bytes));
        self.send(Method::PUT, &target, &[], Bytes::copy_from_slice(bytes)).await
    }

    pub async fn put_manifest(&self, repository: &str, reference: &str, bytes: &Bytes) -> Option<Answer> {
        let target = format!("/v2/{repository}/manifests/{reference}");
        self.send(Method::PUT, &target, &[("content-type", IMAGE)], bytes.clone()).await
    }

    /// Pushes an image of these blobs.
    pub async fn push_image(&self, repository: &str, tag: &str, blobs: &[&[u8]]) -> Bytes {
        for blob in blobs {
            assert_eq!(self.push_blob(repository, blob).await.unwrap().status, StatusCode::CREATED);
        }
        let manifest = image(blobs);
        let answer = self.put_manifest(repository, tag, &manifest).await.unwrap();
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        manifest
    }
}
