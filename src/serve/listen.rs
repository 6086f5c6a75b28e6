//! Connections: accepted up to a bound, over TLS or not, in HTTP/1.1 or HTTP/2, and let go in order when the server stops.
//! A client that neither gives nor takes a byte must never hold one for long.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::http::{Metrics, Server};
use super::linger::Lingering;
use crate::unstalled::Unstalled;

/// The longest head of a request that is read.
const LARGEST_HEAD: usize = 64 * 1024;
/// Requests at the same time on one HTTP/2 connection.
const STREAMS: u32 = 64;
/// How many bytes tell HTTP/2 from HTTP/1.1.
const GREETING: usize = 24;
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long to wait after the system refused to accept, for want of descriptors for example.
const AFTER_REFUSAL: Duration = Duration::from_millis(100);
/// How many connections beyond the limit are told so at the same time; what comes on top is closed without a word.
const TURNING_AWAY: usize = 64;
/// What a connection beyond the limit is told.
const TURNED_AWAY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Type: application/json\r\n\
    Content-Length: 82\r\nConnection: close\r\n\r\n\
    {\"errors\":[{\"code\":\"UNAVAILABLE\",\"message\":\"too many connections are open here\"}]}";

/// The certificate in force, where there is one.
pub type Certificate = watch::Receiver<Option<Arc<rustls::ServerConfig>>>;

/// What connections are bound by.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How many there may be.
    pub connections: usize,
    /// How long one may rest in the middle of something.
    pub idle: Duration,
    /// How long running requests may go on after `stop`.
    pub stop: Duration,
}

/// Accepts connections until `stop` is cancelled, then waits for running requests.
pub async fn serve(
    listener: TcpListener,
    server: Arc<Server>,
    certificate: Certificate,
    metrics: Metrics,
    bounds: watch::Receiver<Bounds>,
    stop: CancellationToken,
) {
    // Each connection has one of these.
    let places = Arc::new(());
    let outside = Arc::new(Semaphore::new(TURNING_AWAY));
    let running = TaskTracker::new();
    let abort = CancellationToken::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let (stream, client) = match accepted {
            // Where one socket is for both families, the older one's addresses come in the newer one's form.
            Ok((stream, client)) => (stream, SocketAddr::new(client.ip().to_canonical(), client.port())),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(AFTER_REFUSAL).await;
                continue;
            }
        };
        // Answers are written whole; holding back their last packet helps nobody.
        let _ = stream.set_nodelay(true);
        let now = *bounds.borrow();
        if Arc::strong_count(&places) > now.connections {
            metrics.turned_away.inc();
            // Without a handshake there is no way to say it to a client of TLS.
            if let (None, Ok(place)) = (&*certificate.borrow(), outside.clone().try_acquire_owned()) {
                running.spawn(turn_away(stream, now.idle, place));
            }
            continue;
        }
        let place = places.clone();
        let connection =
            connection(stream, client, server.clone(), certificate.borrow().clone(), now.idle, stop.clone());
        let (metrics, abort) = (metrics.clone(), abort.clone());
        running.spawn(async move {
            metrics.connections.inc();
            abort.run_until_cancelled(connection).await;
            metrics.connections.dec();
            drop(place);
        });
    }
    drop(listener);
    running.close();
    let patience = bounds.borrow().stop;
    if tokio::time::timeout(patience, running.wait()).await.is_err() {
        tracing::warn!(connections = running.len(), "requests that are still running are cut off");
        abort.cancel();
        running.wait().await;
    }
}

async fn turn_away(stream: TcpStream, idle: Duration, _place: OwnedSemaphorePermit) {
    let mut stream = Lingering::new(stream);
    let _ = tokio::time::timeout(idle, stream.write_all(TURNED_AWAY)).await;
    let _ = stream.shutdown().await;
}

async fn connection(
    stream: TcpStream,
    client: SocketAddr,
    server: Arc<Server>,
    certificate: Option<Arc<rustls::ServerConfig>>,
    idle: Duration,
    stop: CancellationToken,
) {
    let stream = Lingering::new(stream);
    let Some(certificate) = certificate else { return http(stream, client, server, idle, stop).await };
    match tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(certificate).accept(stream)).await {
        Ok(Ok(stream)) => http(stream, client, server, idle, stop).await,
        Ok(Err(error)) => tracing::debug!(%client, %error, "the TLS handshake failed"),
        Err(_) => tracing::debug!(%client, "the TLS handshake took too long"),
    }
}

async fn http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    client: SocketAddr,
    server: Arc<Server>,
    idle: Duration,
    stop: CancellationToken,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(idle).max_buf_size(LARGEST_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(LARGEST_HEAD).unwrap_or(u32::MAX))
        .keep_alive_interval(idle)
        .keep_alive_timeout(idle);
    let service = service_fn(move |request| {
        let server = server.clone();
        async move { Ok::<_, std::convert::Infallible>(server.handle(request, client).await) }
    });
    let stream = TokioIo::new(Watched::new(stream, idle));
    let mut connection = pin!(builder.serve_connection(stream, service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
            // It never became a request, whose line would tell of it.
            tracing::info!(%client, reason = %error, "refused");
        } else {
            tracing::debug!(%client, %error, "a connection ended early");
        }
    }
}

/// A connection whose client must say what it wants, and take what it is given: a write that makes no progress for too long
/// fails, and so does a read before the version of HTTP is known. After that, what a client does not send is watched where
/// it is read, because between requests it may rest.
struct Watched<S> {
    stream: Unstalled<S>,
    greeting: Option<Pin<Box<Sleep>>>,
    received: usize,
}

impl<S> Watched<S> {
    fn new(stream: S, idle: Duration) -> Self {
        let greeting = Some(Box::pin(tokio::time::sleep(idle)));
        Self { stream: Unstalled::new(stream, idle), greeting, received: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.greeting.is_some() {
            self.received += buffer.filled().len() - before;
            if self.received >= GREETING {
                self.greeting = None;
            }
        }
        match &mut self.greeting {
            Some(late) if read.is_pending() => {
                late.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
            }
            _ => read,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
