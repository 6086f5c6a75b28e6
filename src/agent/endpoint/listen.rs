//! The endpoint's connections: accepted up to a bound, over TLS or not, and let go in order when the agent stops. While it stops, a new
//! connection must be refused at once and never be accepted to wait.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::forward::Proxy;
use crate::unstalled::Unstalled;

/// How many connections there may be; a runtime has a few for each image that it pulls.
const CONNECTIONS: usize = 512;
/// How many files may be open: two for each connection, and those of the rest of the agent. Without one a connection could not be
/// accepted, and whoever waits in the kernel's queue would hear nothing.
const DESCRIPTORS: u64 = 4096;
/// How long the greeting of TLS may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may rest between two requests.
const REST: Duration = Duration::from_secs(60);
/// How much of a request is read at once, and how much of an answer is gathered.
const BUFFER: usize = 128 * 1024;
/// How long transfers may go on after `stop`; the pod's grace period must be longer.
const DRAIN: Duration = Duration::from_secs(15);
/// How long to wait after the system refused to accept, for want of descriptors for example.
const AFTER_REFUSAL: Duration = Duration::from_millis(100);

/// Allows this process as many open files as it may need; container runtimes commonly allow 1,024 at first.
pub fn allow_descriptors() {
    let allowed = getrlimit(Resource::Nofile);
    if allowed.current.is_none_or(|current| current >= DESCRIPTORS) {
        return;
    }
    let current = Some(allowed.maximum.map_or(DESCRIPTORS, |maximum| maximum.min(DESCRIPTORS)));
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current, ..allowed }) {
        tracing::warn!(%error, allowed = allowed.current, wanted = DESCRIPTORS, "there may be too few open files");
    }
}

/// Serves until `stop`, then until running transfers have ended or had their time.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    proxy: Arc<Proxy>,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let (running, abort) = (TaskTracker::new(), CancellationToken::new());
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(AFTER_REFUSAL).await;
                continue;
            }
        };
        // Beyond the bound it is closed at once, and the runtime goes elsewhere.
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let _ = stream.set_nodelay(true);
        let connection = connection(stream, tls.clone(), proxy.clone(), stop.clone());
        let (metrics, abort) = (proxy.metrics.clone(), abort.clone());
        running.spawn(async move {
            metrics.connected(1);
            abort.run_until_cancelled(connection).await;
            metrics.connected(-1);
            drop(place);
        });
    }
    drop(listener);
    running.close();
    if timeout(DRAIN, running.wait()).await.is_err() {
        tracing::warn!(connections = running.len(), "transfers that are still running are cut off");
        abort.cancel();
        running.wait().await;
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<Arc<rustls::ServerConfig>>,
    proxy: Arc<Proxy>,
    stop: CancellationToken,
) {
    let Some(tls) = tls else { return http(stream, proxy, stop).await };
    match timeout(HANDSHAKE, TlsAcceptor::from(tls).accept(stream)).await {
        Ok(Ok(stream)) => http(stream, proxy, stop).await,
        Ok(Err(error)) => tracing::debug!(%error, "the TLS handshake failed"),
        Err(_) => tracing::debug!("the TLS handshake took too long"),
    }
}

async fn http<S>(stream: S, proxy: Arc<Proxy>, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let proxy = proxy.clone();
        async move { Ok::<_, Infallible>(proxy.answer(request).await) }
    });
    let mut builder = Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(REST).max_buf_size(BUFFER);
    let stream = TokioIo::new(Unstalled::new(stream, REST));
    let mut connection = std::pin::pin!(builder.serve_connection(stream, service));
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
