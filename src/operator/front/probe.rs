//! Pushes one blob through a front, as a client beyond the cluster would, and deletes it again.
//! The credential must go over verified TLS only. The blob is the same one for ever and is deleted by way of the inner Service,
//! so that whatever a front does, and whenever this process ends, a registry keeps two megabytes at most.

mod settle;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use hyper::header::{LOCATION, SERVER};
use hyper::http::response::Parts;
use hyper::{Method, Uri};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;

pub use self::settle::Inside;
use self::settle::path_of;
use self::wire::{CONNECT_PATIENCE, exchange, lookup, request, secured, shown, text};
use super::target::{Front, Way};
use super::trust::Trust;
use super::verdict::{Failure, Step, Verdict};

/// How long all requests through a front may take: two megabytes over a slow line.
const PATIENCE: Duration = Duration::from_secs(45);
/// The size of the blob, all of it zeros: more than the usual limits on requests, less than anybody minds.
const UPLOAD: usize = 2 * 1024 * 1024;
/// The hash of the blob.
const HASH: &str = "5647f05ec18958947d32874eeb788fa396a05d0bab7c1b71f112ceb7e9b31eee";
/// The repository of the blob, which never gets a manifest.
const REPOSITORY: &str = "wharf-proof";
/// By this header a registry is told from other servers.
const REGISTRY: &str = "docker-distribution-api-version";

/// The header value for a user and password.
#[must_use]
pub fn basic(user: &str, password: &str) -> String {
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Basic {pair}")
}

/// What a proof came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What it says of the front.
    pub verdict: Verdict,
    /// The path of an upload that is still to be settled.
    pub unsettled: Option<String>,
}

/// One proof.
pub struct Probe<'a> {
    /// The front.
    pub front: &'a Front,
    /// The registry's own credential, as a header value.
    pub authorization: &'a str,
    /// The registry's address inside the cluster.
    pub inside: &'a Inside,
    /// Whom to believe.
    pub trust: &'a Trust,
    /// The path of an upload that the proof before could not settle.
    pub unsettled: Option<String>,
}

/// How far an upload came, as far as the front told.
#[derive(Default)]
struct Progress {
    /// Where it began.
    begun: Option<String>,
    /// Whether the blob is known to be there.
    finished: bool,
}

impl Probe<'_> {
    /// Looks, pushes the blob, and deletes it. As long as an upload of before is not settled no other is begun, so that there
    /// is never more than one.
    pub async fn prove(&self) -> Outcome {
        if let Some(upload) = &self.unsettled
            && let Err(cause) = self.settle(upload).await
        {
            let verdict = Verdict::of(self.front, &Failure::Unsettled(cause));
            return Outcome { verdict, unsettled: Some(upload.clone()) };
        }
        let mut progress = Progress::default();
        let attempt = timeout(PATIENCE, self.attempt(&mut progress));
        let too_slow = |_| Err(Failure::Broken(Step::Upload, format!("not finished within {} s", PATIENCE.as_secs())));
        let verdict = match attempt.await.unwrap_or_else(too_slow) {
            Ok(()) => Verdict::proven(),
            Err(failure) => Verdict::of(self.front, &failure),
        };
        Outcome { verdict, unsettled: self.tidy_up(progress).await }
    }

    async fn attempt(&self, progress: &mut Progress) -> Result<(), Failure> {
        let answer = self.send(Step::Look, Method::HEAD, "/v2/", None).await?;
        if answer.status.as_u16() != 200 || !answer.headers.contains_key(REGISTRY) {
            return Err(unexpected(Step::Look, &answer));
        }
        let answer = self.send(Step::Begin, Method::POST, &format!("/v2/{REPOSITORY}/blobs/uploads/"), None).await?;
        let location = (answer.status.as_u16() == 202).then(|| text(&answer.headers, LOCATION)).flatten();
        let location = location.ok_or_else(|| unexpected(Step::Begin, &answer))?;
        progress.begun = path_of(&location);
        let path = self.goes_on(&location)?;
        let answer = self.send(Step::Upload, Method::PATCH, &path, Some(UPLOAD)).await?;
        if !matches!(answer.status.as_u16(), 202 | 204) {
            return Err(unexpected(Step::Upload, &answer));
        }
        let path = text(&answer.headers, LOCATION).map_or(Ok(path), |location| self.goes_on(&location))?;
        let answer = self.send(Step::Finish, Method::PUT, &with_digest(&path), None).await?;
        if answer.status.as_u16() != 201 {
            return Err(unexpected(Step::Finish, &answer));
        }
        progress.finished = true;
        Ok(())
    }

    /// The path at which an upload goes on by way of the front.
    fn goes_on(&self, location: &str) -> Result<String, Failure> {
        place(location, &self.front.authority()).ok_or_else(|| Failure::SentElsewhere(shown(location)))
    }

    /// Leaves nothing of the upload; where it began if it could not be ended.
    async fn tidy_up(&self, progress: Progress) -> Option<String> {
        let upload = progress.begun?;
        let registry = &self.inside.name;
        if !progress.finished
            && let Err(cause) = self.settle(&upload).await
        {
            tracing::warn!(registry, cause, "the upload of a proof could not be ended; it is tried again");
            return Some(upload);
        }
        if let Err(cause) = self.delete_blob().await {
            tracing::warn!(registry, cause, "the blob of a proof could not be deleted; the next proof does it");
        }
        None
    }

    /// One request on a connection of its own, so that no step depends on how the one before ended.
    async fn send(&self, step: Step, method: Method, path: &str, size: Option<usize>) -> Result<Parts, Failure> {
        let trust = if self.front.way == Way::Service { &self.trust.own } else { &self.trust.public };
        let stream = self.connect(trust).await?;
        let request = request(&method, path, &self.front.authority(), self.authorization, size)
            .ok_or_else(|| Failure::Broken(step, "the request cannot be written".to_owned()))?;
        exchange(stream, request).await.map_err(|cause| Failure::Broken(step, cause))
    }

    async fn connect(&self, trust: &Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, Failure> {
        let host = std::slice::from_ref(&self.front.host);
        let candidates = if self.front.addresses.is_empty() { host } else { &self.front.addresses };
        let mut failure = Failure::Unreachable("no address is known".to_owned());
        for candidate in candidates {
            let addresses: Vec<SocketAddr> = match lookup(candidate, self.front.port).await {
                Ok(addresses) => addresses,
                Err(cause) => {
                    failure = Failure::Unresolved(cause);
                    continue;
                }
            };
            for address in addresses {
                match timeout(CONNECT_PATIENCE, secured(address, &self.front.host, trust)).await {
                    Ok(Ok(stream)) => return Ok(stream),
                    Ok(Err(cause)) => failure = cause,
                    Err(_) => failure = Failure::Unreachable(format!("no answer in {} s", CONNECT_PATIENCE.as_secs())),
                }
            }
        }
        Err(failure)
    }
}

/// The digest of the blob.
fn blob() -> String {
    format!("sha256:{HASH}")
}

/// The path of an upload with what its blob is to be.
fn with_digest(path: &str) -> String {
    let joint = if path.contains('?') { '&' } else { '?' };
    format!("{path}{joint}digest={}", blob())
}

/// The path at which an upload goes on, if it is one of the front's own.
fn place(location: &str, authority: &str) -> Option<String> {
    let uri: Uri = location.parse().ok()?;
    let own = match (uri.scheme_str(), uri.authority()) {
        (None, None) => true,
        (Some(scheme), Some(found)) => {
            scheme == "https" && (found.as_str() == authority || found.as_str() == format!("{authority}:443"))
        }
        _ => false,
    };
    own.then(|| uri.path_and_query().map(ToString::to_string)).flatten()
}

fn unexpected(step: Step, answer: &Parts) -> Failure {
    Failure::Answer {
        step,
        code: answer.status.as_u16(),
        from_registry: answer.headers.contains_key(REGISTRY),
        server: text(&answer.headers, SERVER).map(|server| shown(&server)),
        location: text(&answer.headers, LOCATION).map(|location| shown(&location)),
    }
}

#[cfg(test)]
mod tests;
