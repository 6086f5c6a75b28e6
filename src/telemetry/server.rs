//! The operational endpoint of a process: `/healthz`, `/readyz` and `/metrics` over plain HTTP.
//! A process may answer for more beside them. It must never serve anything that a stranger in the cluster should not read.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use tokio::net::TcpListener;

use super::{Health, MetricsRegistry};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Binds the endpoint's address. `[::]` is every address, also where the machine has no IPv6.
///
/// # Errors
/// When the address cannot be bound, naming the address.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    let bound = match bound.as_ref().err().and_then(|error| without_ipv6(address, error)) {
        Some(address) => TcpListener::bind(address).await,
        None => bound,
    };
    bound.map_err(|error| std::io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}

/// What to bind instead of every address, where the kernel knows no IPv6.
fn without_ipv6(address: SocketAddr, error: &std::io::Error) -> Option<SocketAddr> {
    let unknown = error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error());
    (unknown && address.ip() == Ipv6Addr::UNSPECIFIED).then(|| (Ipv4Addr::UNSPECIFIED, address.port()).into())
}

/// Serves until the process ends, with what `beside` answers for: while it stops in order, somebody may want to see how that
/// goes.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    health: Health,
    metrics: MetricsRegistry,
    beside: Router,
) -> std::io::Result<()> {
    let state = Arc::new((health, metrics));
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_text))
        .with_state(state)
        .merge(beside);
    axum::serve(listener, router).await
}

async fn ready(State(state): State<Arc<(Health, MetricsRegistry)>>) -> Response {
    let waiting = state.0.waiting_for();
    if waiting.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for: {}\n", waiting.join(", "))).into_response()
}

async fn metrics_text(State(state): State<Arc<(Health, MetricsRegistry)>>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &state.1) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Error;

    use super::{bind, without_ipv6};

    #[test]
    fn every_address_is_that_of_the_other_family_where_there_is_one_family() {
        let unknown = Error::from(rustix::io::Errno::AFNOSUPPORT);
        for (address, error, instead) in [
            ("[::]:5000", &unknown, Some("0.0.0.0:5000")),
            ("[::1]:5000", &unknown, None),
            ("0.0.0.0:5000", &unknown, None),
            ("[::]:5000", &Error::from(rustix::io::Errno::ADDRINUSE), None),
        ] {
            let found = without_ipv6(address.parse().unwrap(), error);
            assert_eq!(found, instead.map(|address| address.parse().unwrap()), "{address} {error}");
        }
    }

    #[tokio::test]
    async fn every_address_is_reached_by_that_of_the_older_family() {
        let listener = bind("[::]:0".parse().unwrap()).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    }
}
