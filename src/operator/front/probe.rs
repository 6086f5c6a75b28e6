//! Sends one upload through a front, as a client beyond the cluster would, and takes it back.
//! The credential must go over verified TLS only. The upload is given up by way of the inner Service, also when it failed, so
//! that a front that lets no deletion through fills no volume; what is left all the same, the engine purges after a week.

use std::convert::Infallible;
use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use futures::future::{Either, select};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, LOCATION, SERVER};
use hyper::http::response::Parts;
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConfig};

use super::target::{Front, Way};
use super::trust::Trust;
use super::verdict::{Failure, Step, Verdict};

/// How long a connection may take to come about, TLS included.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How long giving up an upload may take.
const CANCEL_PATIENCE: Duration = Duration::from_secs(10);
/// The size of the upload: more than the usual limits on requests, less than anybody minds.
const UPLOAD: usize = 2 * 1024 * 1024;
/// The size of its pieces.
const PIECE: usize = 64 * 1024;
/// The repository in which uploads begin; none ends, so it never exists.
const BEGINNING: &str = "/v2/wharf-proof/blobs/uploads/";
/// By this header a registry is told from other servers.
const REGISTRY: &str = "docker-distribution-api-version";
/// How much of a text from outside is repeated, in characters.
const REPEATED: usize = 120;

/// The address of a registry inside the cluster.
#[derive(Clone, Debug)]
pub struct Inside {
    /// The cluster address of its Service, and the port.
    pub address: SocketAddr,
    /// The name that its certificate has.
    pub name: String,
}

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
    /// Whether a part of the upload may have stayed in the registry.
    pub left_behind: bool,
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
}

impl Probe<'_> {
    /// Looks, uploads, and gives the upload up.
    pub async fn prove(&self) -> Outcome {
        let mut left_behind = false;
        let verdict = match self.attempt(&mut left_behind).await {
            Ok(()) => Verdict::proven(),
            Err(failure) => Verdict::of(self.front, &failure),
        };
        Outcome { verdict, left_behind }
    }

    async fn attempt(&self, left_behind: &mut bool) -> Result<(), Failure> {
        let answer = self.send(Step::Look, Method::HEAD, "/v2/", None).await?;
        if answer.status.as_u16() != 200 || !answer.headers.contains_key(REGISTRY) {
            return Err(unexpected(Step::Look, &answer));
        }
        let answer = self.send(Step::Begin, Method::POST, BEGINNING, None).await?;
        let location = (answer.status.as_u16() == 202).then(|| text(&answer.headers, LOCATION)).flatten();
        let Some(location) = location else {
            return Err(unexpected(Step::Begin, &answer));
        };
        let outcome = match place(&location, &self.front.authority()) {
            Some(path) => self.upload(&path).await,
            None => Err(Failure::SentElsewhere(shown(&location))),
        };
        // The engine takes only the newest address, which says how much has arrived. After an upload that broke off nobody
        // knows it; the first address is right if nothing did.
        let newest = outcome.as_ref().ok().cloned().flatten().unwrap_or(location);
        *left_behind = !self.cancel(&newest).await;
        outcome.map(|_| ())
    }

    /// Where the upload would go on.
    async fn upload(&self, path: &str) -> Result<Option<String>, Failure> {
        let answer = self.send(Step::Upload, Method::PATCH, path, Some(UPLOAD)).await?;
        if !matches!(answer.status.as_u16(), 202 | 204) {
            return Err(unexpected(Step::Upload, &answer));
        }
        Ok(text(&answer.headers, LOCATION))
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

    /// Gives the upload up, inside the cluster; whether nothing of it is left.
    async fn cancel(&self, location: &str) -> bool {
        let cancellation = async {
            let path = location.parse::<Uri>().map_err(|error| error.to_string())?.path_and_query().cloned();
            let path = path.ok_or("no path")?;
            let request = request(&Method::DELETE, path.as_str(), &self.inside.name, self.authorization, None)
                .ok_or("the request cannot be written")?;
            let stream = secured(self.inside.address, &self.inside.name, &self.trust.own)
                .await
                .map_err(|cause| format!("{cause:?}"))?;
            let answer = exchange(stream, request).await?;
            if answer.status.is_success() { Ok(()) } else { Err(answer.status.to_string()) }
        };
        let ended: Result<(), String> =
            timeout(CANCEL_PATIENCE, cancellation).await.unwrap_or_else(|_| Err("no answer".to_owned()));
        if let Err(cause) = &ended {
            tracing::warn!(
                registry = self.inside.name,
                cause,
                "the upload of a proof could not be given up; it is purged later"
            );
        }
        ended.is_ok()
    }
}

async fn lookup(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    match timeout(CONNECT_PATIENCE, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => Ok(addresses.take(2).collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the name servers do not answer".to_owned()),
    }
}

/// Connects and does TLS; only who shows a trusted certificate for `host` gets through.
async fn secured(address: SocketAddr, host: &str, trust: &Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, Failure> {
    let stream = TcpStream::connect(address).await.map_err(|error| Failure::Unreachable(error.to_string()))?;
    let name = ServerName::try_from(host.to_owned()).map_err(|error| Failure::NoTls(error.to_string()))?;
    TlsConnector::from(trust.clone()).connect(name, stream).await.map_err(|error| of_handshake(&error))
}

fn of_handshake(error: &io::Error) -> Failure {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(cause)) => Failure::NotTrusted(why_not_trusted(cause)),
        Some(rustls::Error::NoCertificatesPresented) => Failure::NotTrusted("none is shown".to_owned()),
        Some(other) => Failure::NoTls(shown(&other.to_string())),
        None => Failure::NoTls(shown(&error.to_string())),
    }
}

/// In words, and without the names that the certificate has: what stands behind an address is nobody's business.
fn why_not_trusted(cause: &rustls::CertificateError) -> String {
    use rustls::CertificateError as Cause;
    match cause {
        Cause::UnknownIssuer => "nobody who is trusted signed it".to_owned(),
        Cause::Expired | Cause::ExpiredContext { .. } => "it has expired".to_owned(),
        Cause::NotValidYet | Cause::NotValidYetContext { .. } => "it is not valid yet".to_owned(),
        Cause::NotValidForName | Cause::NotValidForNameContext { .. } => "it is for other names".to_owned(),
        other => shown(&format!("{other:?}")),
    }
}

type Body = BoxBody<Bytes, Infallible>;

fn request(method: &Method, path: &str, host: &str, authorization: &str, size: Option<usize>) -> Option<Request<Body>> {
    let mut credential = HeaderValue::from_str(authorization).ok()?;
    credential.set_sensitive(true);
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, host)
        .header(AUTHORIZATION, credential)
        .header("user-agent", concat!("wharf/", env!("CARGO_PKG_VERSION")));
    if *method != Method::HEAD {
        request = request.header(CONTENT_LENGTH, size.unwrap_or(0));
    }
    if size.is_some() {
        request = request.header(CONTENT_TYPE, "application/octet-stream");
    }
    request.body(size.map_or_else(|| Full::new(Bytes::new()).boxed(), zeros)).ok()
}

/// A body of that many bytes, which are in memory once for all its pieces.
fn zeros(size: usize) -> Body {
    static ZEROS: [u8; PIECE] = [0; PIECE];
    let piece = Bytes::from_static(&ZEROS);
    let pieces = std::iter::repeat_n(piece, size / PIECE).map(|piece| Ok(Frame::data(piece)));
    BodyExt::boxed(StreamBody::new(futures::stream::iter(pieces)))
}

/// Sends a request and gives back the head of the answer; the body is nobody's business.
async fn exchange(stream: TlsStream<TcpStream>, request: Request<Body>) -> Result<Parts, String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| full(&error))?;
    let answer = std::pin::pin!(sender.send_request(request));
    // The connection has to be driven; it may end when the answer has been read and is not taken yet.
    let answer = match select(answer, std::pin::pin!(connection)).await {
        Either::Left((answer, _)) => answer,
        Either::Right((_, answer)) => answer.await,
    };
    answer.map(|answer| answer.into_parts().0).map_err(|error| full(&error))
}

fn full(error: &hyper::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
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

fn text(headers: &HeaderMap, name: hyper::header::HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// What is repeated of a text from outside. The state of an upload is left out of an address.
fn shown(text: &str) -> String {
    let text = text.split('?').next().unwrap_or_default();
    text.chars().filter(|character| !character.is_control()).take(REPEATED).collect()
}

#[cfg(test)]
mod tests;
