//! One server that has content: a replica of a Mirror, or a Registry. Connections to it, whether it is asked at all, and whether it
//! is alive. A server that does not answer must never be waited for by more than the requests that found it out.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::{HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use url::Url;

use crate::plan::OwnerKind;

/// How long a connection may take to come. Within a cluster it takes a millisecond; a server that is gone takes for ever.
/// The kernel of the other machine takes it, however busy the server is; a packet that is lost is sent again after a second, for which
/// nobody can wait here.
const CONNECT: Duration = Duration::from_millis(250);
/// How long the greeting of TLS may take on a connection that stands; a busy server needs processor time for it.
const HANDSHAKE: Duration = Duration::from_millis(1500);
/// How long what was sent may stay unacknowledged by the other machine's kernel, which takes no processor time of the server.
/// Source: RFC 5482.
const UNACKNOWLEDGED_MILLIS: u32 = 500;
/// How long a connection rests before its other end is asked for a sign of life, and how long between two: one whose other end has
/// forgotten it must not look like one on which nothing comes.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);
/// How long a server that is alive takes to say so.
const ALIVE: Duration = Duration::from_millis(1000);
/// How long a connection that nobody uses is kept: less than servers do.
const IDLE: Duration = Duration::from_secs(20);
/// How many connections that nobody uses are kept.
const IDLE_CONNECTIONS: usize = 16;
/// How much of an answer is handed on at once.
const READ_BUFFER: usize = 128 * 1024;
/// How soon a server that did not answer is asked again whether it is alive; it doubles up to [`SLOWEST_PROBE`].
const FIRST_PROBE: Duration = Duration::from_millis(500);
const SLOWEST_PROBE: Duration = Duration::from_secs(5);

/// Why a server did not answer.
#[derive(Clone, Debug, Error)]
#[error("{backend}: {problem}")]
pub struct Trouble {
    backend: String,
    problem: String,
}

/// A connection that takes one request at a time.
pub type Connection = SendRequest<Empty<Bytes>>;

/// A request as it is sent to whichever server.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub method: Method,
    pub path_and_query: String,
    pub headers: HeaderMap,
}

/// A server.
pub struct Backend {
    url: String,
    address: SocketAddr,
    host: HeaderValue,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    kind: OwnerKind,
    idle: Mutex<Vec<(Connection, Instant)>>,
    /// Why it is not asked, while it is not.
    away: Mutex<Option<Trouble>>,
    /// What it last said when it was asked whether it is alive, and when.
    said: tokio::sync::Mutex<Option<(Instant, Result<(), Trouble>)>>,
}

impl Backend {
    /// The server at a URL, whose certificate `tls` believes.
    ///
    /// # Errors
    /// When the URL is not that of an address; names of the cluster are not resolved on nodes.
    pub fn new(url: &str, kind: OwnerKind, tls: &Arc<rustls::ClientConfig>) -> Result<Self, Trouble> {
        let wrong = |problem: &str| Trouble { backend: url.to_owned(), problem: problem.to_owned() };
        let parsed = Url::parse(url).map_err(|error| wrong(&error.to_string()))?;
        let secure = match parsed.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(wrong("it is neither https nor http")),
        };
        let ip = match parsed.host() {
            Some(url::Host::Ipv4(ip)) => ip.into(),
            Some(url::Host::Ipv6(ip)) => ip.into(),
            _ => return Err(wrong("its host is not an address")),
        };
        let address = SocketAddr::new(ip, parsed.port_or_known_default().unwrap_or(443));
        let authority = parsed.authority().to_owned();
        let host = HeaderValue::try_from(authority).map_err(|_| wrong("its host is malformed"))?;
        let tls = secure.then(|| (TlsConnector::from(tls.clone()), ServerName::from(ip)));
        let (idle, away, said) = Default::default();
        Ok(Self { url: url.to_owned(), address, host, tls, kind, idle, away, said })
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether a secret of the agent's may be sent to it: it is Wharf's own and nobody can listen.
    pub fn is_trusted(&self) -> bool {
        self.kind == OwnerKind::Mirror && self.tls.is_some()
    }

    /// Why it is not asked, while it is not.
    pub fn away(&self) -> Option<Trouble> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Does not ask it any more until it is found to be alive.
    pub fn leave(self: &Arc<Self>, trouble: &Trouble) {
        let was_there = {
            let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
            let was_there = away.is_none();
            *away = Some(trouble.clone());
            was_there
        };
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        if was_there {
            tracing::warn!(%trouble, "a server is not asked until it answers again");
            tokio::spawn(await_return(Arc::downgrade(self)));
        }
    }

    /// Sends a request and returns the answer with the connection it comes by. One that was kept and has gone meanwhile is no
    /// trouble: the request is sent again by a new one.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send(&self, outgoing: &Outgoing) -> Result<(Response<Incoming>, Connection), Trouble> {
        while let Some(mut connection) = self.kept() {
            if let Ok(response) = connection.send_request(self.request(outgoing)).await {
                return Ok((response, connection));
            }
        }
        let mut connection = self.connect().await?;
        let response = connection.send_request(self.request(outgoing)).await;
        Ok((response.map_err(|error| self.trouble(&error))?, connection))
    }

    /// Keeps a connection whose answer has been read to its end.
    pub fn keep(self: &Arc<Self>, connection: Connection) {
        if connection.is_closed() || self.away().is_some() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_CONNECTIONS {
            idle.push((connection, Instant::now()));
        }
    }

    /// Whether it has been alive since this moment. All who want to know at the same time share one question: a crowd of them would
    /// keep it from answering.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn alive(&self, since: Instant) -> Result<(), Trouble> {
        let mut said = self.said.lock().await;
        if let Some((at, found)) = &*said
            && *at >= since
        {
            return found.clone();
        }
        let found = self.probe().await.map(drop);
        *said = Some((Instant::now(), found.clone()));
        found
    }

    /// Asks it, by a connection of its own, for what costs it nothing.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn probe(&self) -> Result<Response<Incoming>, Trouble> {
        let outgoing = Outgoing { method: Method::GET, path_and_query: "/v2/".to_owned(), headers: HeaderMap::new() };
        let asking = async {
            let mut connection = self.connect().await?;
            let response = connection.send_request(self.request(&outgoing)).await;
            response.map_err(|error| self.trouble(&error))
        };
        let answer = timeout(ALIVE, asking).await;
        let answer =
            answer.unwrap_or_else(|_| Err(self.trouble(&"it does not answer, and its port takes connections")))?;
        match answer.status() {
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => Err(self.trouble(&answer.status())),
            _ => Ok(answer),
        }
    }

    /// A connection that was kept, unless it is too old or has ended.
    fn kept(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((connection, since)) = idle.pop() {
            if connection.is_ready() && since.elapsed() < IDLE {
                return Some(connection);
            }
        }
        None
    }

    fn request(&self, outgoing: &Outgoing) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = outgoing.method.clone();
        // It was taken apart and put together from parts that can stand in one.
        *request.uri_mut() = outgoing.path_and_query.parse().unwrap_or_default();
        request.headers_mut().clone_from(&outgoing.headers);
        request.headers_mut().insert(HOST, self.host.clone());
        request
    }

    async fn connect(&self) -> Result<Connection, Trouble> {
        let connecting = timeout(CONNECT, TcpStream::connect(self.address)).await;
        let stream =
            connecting.map_err(|_| self.trouble(&format!("no connection within {} ms", CONNECT.as_millis())))?;
        let stream = stream.map_err(|error| self.trouble(&error))?;
        // Neither can fail on a connection that stands; without them it is only slower.
        let _ = stream.set_nodelay(true);
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, UNACKNOWLEDGED_MILLIS);
        let _ = rustix::net::sockopt::set_socket_keepalive(&stream, true);
        let _ = rustix::net::sockopt::set_tcp_keepidle(&stream, SIGN_OF_LIFE);
        let _ = rustix::net::sockopt::set_tcp_keepintvl(&stream, SIGN_OF_LIFE);
        let Some((connector, name)) = &self.tls else { return self.greet(TokioIo::new(stream)).await };
        let greeting = timeout(HANDSHAKE, connector.connect(name.clone(), stream)).await;
        let stream =
            greeting.map_err(|_| self.trouble(&"its port takes connections, and there is no greeting of TLS"))?;
        self.greet(TokioIo::new(stream.map_err(|error| self.trouble(&error))?)).await
    }

    async fn greet<S>(&self, stream: S) -> Result<Connection, Trouble>
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let (sender, connection) =
            Builder::new().max_buf_size(READ_BUFFER).handshake(stream).await.map_err(|error| self.trouble(&error))?;
        // It ends when the sender is gone, or the server closes it; whoever waits for an answer is told.
        tokio::spawn(connection);
        Ok(sender)
    }

    /// What went wrong with it, down to the cause.
    pub fn trouble(&self, problem: &dyn DisplayWithCause) -> Trouble {
        Trouble { backend: self.url.clone(), problem: problem.with_cause() }
    }
}

/// A problem in words, with what caused it.
pub trait DisplayWithCause {
    /// The words.
    fn with_cause(&self) -> String;
}

impl DisplayWithCause for std::io::Error {
    fn with_cause(&self) -> String {
        self.to_string()
    }
}

impl DisplayWithCause for hyper::Error {
    fn with_cause(&self) -> String {
        let cause = std::error::Error::source(self).map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("{self}{cause}")
    }
}

impl DisplayWithCause for &str {
    fn with_cause(&self) -> String {
        (*self).to_owned()
    }
}

impl DisplayWithCause for String {
    fn with_cause(&self) -> String {
        self.clone()
    }
}

impl DisplayWithCause for StatusCode {
    fn with_cause(&self) -> String {
        format!("it answers {self}")
    }
}

/// Asks a server that did not answer whether it is alive, more and more seldom, until it is or nobody wants to know.
async fn await_return(backend: Weak<Backend>) {
    let mut pause = FIRST_PROBE;
    loop {
        sleep(pause.mul_f64(0.8 + 0.4 * rand::random::<f64>())).await;
        let Some(backend) = backend.upgrade() else { return };
        match backend.probe().await {
            Ok(_) => {
                *backend.away.lock().unwrap_or_else(PoisonError::into_inner) = None;
                tracing::info!(backend = backend.url, "a server answers again");
                return;
            }
            Err(trouble) => *backend.away.lock().unwrap_or_else(PoisonError::into_inner) = Some(trouble),
        }
        pause = (pause * 2).min(SLOWEST_PROBE);
    }
}
