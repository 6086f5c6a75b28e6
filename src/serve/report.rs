//! What pull-through tells of itself to the operator: put together from what its parts know. It must never tell what a client
//! named, nor a credential.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use super::cache::Mirror;
use super::cache::store::Figures;
use crate::mirror_report::{CacheReport, MirrorReport, PATH, UpstreamReport};

/// Answers at [`PATH`] with what `report` tells, once it can.
pub fn router(report: impl Fn() -> Option<MirrorReport> + Send + Sync + 'static) -> Router {
    let report = Arc::new(report);
    Router::new().route(PATH, get(move || answer(report.clone())))
}

async fn answer(report: Arc<impl Fn() -> Option<MirrorReport> + Send + Sync + 'static>) -> Response {
    // What is kept may be a lot to look at.
    match tokio::task::spawn_blocking(move || report()).await {
        Ok(Some(report)) => Json(report).into_response(),
        Ok(None) => (StatusCode::SERVICE_UNAVAILABLE, "the cache is not open yet\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("the report ended early: {error}\n")).into_response(),
    }
}

/// How one registry is doing.
pub fn upstream(mirror: &Mirror) -> UpstreamReport {
    let told = mirror.upstream.told();
    let host = mirror.upstream.host().to_string();
    UpstreamReport { host, state: told.state, serving_stale: told.serving_stale, problem: told.problem }
}

/// What is kept.
pub fn cache(figures: Figures) -> CacheReport {
    CacheReport {
        bytes: figures.bytes.unwrap_or_default(),
        size: figures.size,
        in_use_exceeds: figures.in_use_exceeds,
        pins_exceed: !figures.pins_refused.is_empty(),
        too_large: figures.too_large,
        problem: figures.refused,
    }
}
