//! The operational endpoint of a process: `/healthz`, `/readyz` and `/metrics` over plain HTTP.
//! It must never serve anything that a stranger in the cluster should not read.

use std::net::SocketAddr;
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

/// Binds the endpoint's address.
///
/// # Errors
/// When the address cannot be bound, naming the address.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| std::io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}

/// Serves until the process ends: while it stops in order, somebody may want to see how that goes.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, health: Health, metrics: MetricsRegistry) -> std::io::Result<()> {
    let state = Arc::new((health, metrics));
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_text))
        .with_state(state);
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
