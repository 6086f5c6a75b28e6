//! The proof that a Mirror reaches this node: an image that every server of ours has, fetched through the endpoint as the
//! container runtime would, by the pinned certificate. It must never take an answer of the endpoint's own for one of a server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::forward::Proxy;
use crate::oci::{RegistryHost, canary};

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(5);
/// The longest answer that is read.
const LARGEST: usize = 64 * 1024;

/// Fetches the canary of a registry.
///
/// # Errors
/// When it does not come, with what was tried and what came back.
pub async fn verify(
    address: SocketAddr,
    certificate: Option<&str>,
    proxy: &Arc<Proxy>,
    host: &RegistryHost,
) -> Result<(), String> {
    if proxy.routes().get(host).is_none() {
        return Err(format!("{host} is not in the plan of this node"));
    }
    let asking = ask(address, certificate, host);
    let answer = timeout(LIMIT, asking).await;
    let what = format!("the probe {} of {host} through {address}", canary::REPOSITORY);
    let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {} s", LIMIT.as_secs())));
    let (status, body) = answer.map_err(|problem| format!("{what}: {problem}"))?;
    match status {
        StatusCode::OK if body == canary::MANIFEST => Ok(()),
        StatusCode::OK => Err(format!("{what}: something else came back than every server of Wharf answers")),
        status => Err(format!("{what}: {status}: {}", message(&body))),
    }
}

async fn ask(
    address: SocketAddr,
    certificate: Option<&str>,
    host: &RegistryHost,
) -> Result<(StatusCode, Bytes), String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let stream = TcpStream::connect(address).await.map_err(|error| words(&error))?;
    let Some(certificate) = certificate else { return exchange(TokioIo::new(stream), address, host).await };
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(certificate.as_bytes()).filter_map(Result::ok));
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::from(address.ip());
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| words(&error))?;
    exchange(TokioIo::new(stream), address, host).await
}

async fn exchange<S>(stream: S, address: SocketAddr, host: &RegistryHost) -> Result<(StatusCode, Bytes), String>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let words = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(stream).await.map_err(words)?;
    tokio::spawn(connection);
    let mut request = Request::new(Empty::<Bytes>::new());
    let target = format!("{}?ns={}", canary::PATH, host.as_str().replace(':', "%3A"));
    *request.uri_mut() = target.parse().unwrap_or_default();
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::try_from(address.to_string()).unwrap_or(HeaderValue::from_static("localhost")));
    headers.insert(USER_AGENT, HeaderValue::from_static("wharf-agent"));
    let response: Response<_> = sender.send_request(request).await.map_err(words)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), LARGEST).collect().await.map_err(|error| error.to_string())?;
    Ok((status, body.to_bytes()))
}

/// The message of an error's body, or its text.
fn message(body: &[u8]) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let message = parsed.as_ref().and_then(|body| body.pointer("/errors/0/message")?.as_str());
    message.map_or_else(|| String::from_utf8_lossy(body).chars().take(200).collect(), str::to_owned)
}
