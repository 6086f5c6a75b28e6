//! What every Wharf process tells about itself: logs, metrics, health; and the one signal that ends it.
//! It must never know what the process does.

pub mod health;
pub mod server;
pub mod terminal;

use clap::ValueEnum;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

pub use health::Health;
pub use prometheus_client::registry::Registry as MetricsRegistry;

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging to standard error. `filter` is a directive of `tracing_subscriber`, such as `info` or `wharf=debug,kube=warn`.
///
/// # Errors
/// When the filter is malformed, with the part that was not understood.
pub fn start_logging(format: LogFormat, filter: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = filter.parse::<EnvFilter>()?;
    // A line that cannot be written is lost. By default that would be said, by a panic where it cannot be said either.
    let subscriber = tracing_subscriber::fmt().log_internal_errors(false);
    let subscriber = subscriber.with_env_filter(filter).with_writer(|| terminal::Log);
    match format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
    }
    Ok(())
}

/// A token that is cancelled by the first SIGTERM or SIGINT.
///
/// # Errors
/// When the process cannot install signal handlers.
pub fn shutdown_on_signal() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let cancelled = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM received: stopping"),
            _ = interrupt.recv() => tracing::info!("SIGINT received: stopping"),
        }
        cancelled.cancel();
    });
    Ok(token)
}
