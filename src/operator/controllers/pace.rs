//! How fast a loop goes: it waits for a wake, gathers what comes with it, and after failures waits longer and longer. No wait
//! is without an end.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::operator::backoff::delay;
use crate::operator::metrics::{PassGuard, PassOutcome};

/// How often the loops look without being told.
pub(super) const RESYNC: Duration = Duration::from_secs(600);

/// Ends the measurement of a loop's pass and counts failures in a row.
pub(super) fn outcome(guard: PassGuard, failures: u32, error: Option<&impl Display>, what: &str) -> u32 {
    let Some(error) = error else {
        guard.end(PassOutcome::Completed);
        return 0;
    };
    guard.end(PassOutcome::Failed);
    tracing::warn!(%error, "{what}; it is tried again");
    failures + 1
}

/// Waits for the next pass of a loop: for a wake, or after failures for the back-off, at most until the resync.
pub(super) async fn wait(
    wake: impl Future<Output = ()>,
    debounce: Duration,
    failures: u32,
    shutdown: &CancellationToken,
) {
    wait_at_most(RESYNC, wake, debounce, failures, shutdown).await;
}

pub(super) async fn wait_at_most(
    longest: Duration,
    wake: impl Future<Output = ()>,
    debounce: Duration,
    failures: u32,
    shutdown: &CancellationToken,
) {
    let longest = if failures > 0 { delay(failures, rand::random()) } else { longest };
    tokio::select! {
        () = wake, if failures == 0 => {
            tokio::select! {
                () = sleep(debounce) => {}
                () = shutdown.cancelled() => {}
            }
        }
        () = sleep(longest) => {}
        () = shutdown.cancelled() => {}
    }
}
