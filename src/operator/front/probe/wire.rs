//! Requests over TLS whose other end is verified, one a connection. It must never send anything to whom it has not verified,
//! or read the body of an answer, which is nobody's business.

use std::convert::Infallible;
use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::http::response::Parts;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConfig};

use crate::operator::front::verdict::Failure;

/// How long a connection may take to come about, TLS included.
pub(super) const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// The size of a body's pieces.
const PIECE: usize = 64 * 1024;
/// How much of a text from outside is repeated, in characters.
const REPEATED: usize = 120;

pub(super) async fn lookup(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    match timeout(CONNECT_PATIENCE, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => Ok(addresses.take(2).collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the name servers do not answer".to_owned()),
    }
}

/// Connects and does TLS; only who shows a trusted certificate for `host` gets through.
pub(super) async fn secured(
    address: SocketAddr,
    host: &str,
    trust: &Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, Failure> {
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

pub(super) type Body = BoxBody<Bytes, Infallible>;

/// A request without a body, or with one of so many zeros.
pub(super) fn request(
    method: &Method,
    path: &str,
    host: &str,
    authorization: &str,
    size: Option<usize>,
) -> Option<Request<Body>> {
    let mut credential = HeaderValue::from_str(authorization).ok()?;
    credential.set_sensitive(true);
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, host)
        .header(AUTHORIZATION, credential)
        .header("user-agent", concat!("wharf/", env!("CARGO_PKG_VERSION")));
    if !matches!(*method, Method::HEAD | Method::GET) {
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
    let whole = std::iter::repeat_n(piece.clone(), size / PIECE);
    let pieces = whole.chain([piece.slice(..size % PIECE)]).map(|piece| Ok(Frame::data(piece)));
    BodyExt::boxed(StreamBody::new(futures::stream::iter(pieces)))
}

/// Sends a request and gives back the head of the answer; the body is nobody's business.
pub(super) async fn exchange(stream: TlsStream<TcpStream>, request: Request<Body>) -> Result<Parts, String> {
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

pub(super) fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// What is repeated of a text from outside. The state of an upload is left out of an address.
pub(super) fn shown(text: &str) -> String {
    let text = text.split('?').next().unwrap_or_default();
    text.chars().filter(|character| !character.is_control()).take(REPEATED).collect()
}
