//! Starts the node's own endpoint, and goes on trying while something else has its port. It must never tell of a failure that
//! passes by itself while one agent follows another.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::local::{Endpoint, Local};

/// The delay between two attempts.
const RETRY: Duration = Duration::from_secs(3);
/// So many attempts must fail before it is told, and before entries that lead to the endpoint go.
const PATIENCE: u32 = 3;

/// How the endpoint is doing, with the endpoint itself while it serves.
#[derive(Clone, Debug)]
pub struct Bound<E> {
    /// How it is doing.
    pub local: Local,
    /// The endpoint.
    pub endpoint: Option<E>,
}

impl<E> Bound<E> {
    /// An endpoint that is turned off.
    #[must_use]
    pub fn disabled() -> Self {
        Self { local: Local::Disabled, endpoint: None }
    }
}

/// Why an attempt failed, as it is told.
pub type Failure = Local;

/// Tries until the endpoint serves, or `stop` is cancelled. What comes of it is told through `bound`.
pub async fn keep_trying<E, S, F>(start: S, bound: &watch::Sender<Option<Bound<E>>>, stop: &CancellationToken)
where
    E: Endpoint,
    S: Fn() -> F,
    F: Future<Output = Result<E, Failure>>,
{
    let mut attempts = 0_u32;
    while let Some(attempt) = stop.run_until_cancelled(start()).await {
        match attempt {
            Ok(endpoint) => {
                let described = endpoint.describe();
                tracing::info!(url = described.url, "the node's own endpoint serves");
                bound.send_replace(Some(Bound { local: Local::Serving(described), endpoint: Some(endpoint) }));
                return;
            }
            Err(failure) => {
                attempts = attempts.saturating_add(1);
                let is_told = bound.borrow().as_ref().is_some_and(|bound| bound.local == failure);
                if attempts >= PATIENCE && !is_told {
                    tracing::warn!(
                        why = failure.finding().1,
                        "the node's own endpoint cannot be started; it is tried again"
                    );
                    bound.send_replace(Some(Bound { local: failure, endpoint: None }));
                }
            }
        }
        stop.run_until_cancelled(tokio::time::sleep(RETRY)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::agent::fake::Local as Fake;

    async fn after(failures: u32) -> (Vec<Option<Local>>, Duration) {
        let (sender, mut receiver) = watch::channel::<Option<Bound<Fake>>>(None);
        let attempts = Cell::new(0);
        let start = async || {
            attempts.set(attempts.get() + 1);
            if attempts.get() > failures { Ok(Fake::default()) } else { Err(Local::PortInUse("taken".into())) }
        };
        let began = tokio::time::Instant::now();
        let stop = CancellationToken::new();
        let told = async {
            let mut told = Vec::new();
            while !matches!(told.last(), Some(Some(Local::Serving(_)))) {
                receiver.changed().await.unwrap();
                told.push(receiver.borrow_and_update().as_ref().map(|bound| bound.local.clone()));
            }
            told
        };
        let (told, ()) = tokio::join!(told, keep_trying(start, &sender, &stop));
        (told, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_that_is_taken_is_told_when_it_stays_so_and_tried_until_it_is_free() {
        let serving = Some(Local::Serving(Fake::default().describe()));
        assert_eq!(after(0).await, (vec![serving.clone()], Duration::ZERO));
        assert_eq!(after(2).await, (vec![serving.clone()], RETRY * 2));
        let taken = Some(Local::PortInUse("taken".into()));
        assert_eq!(after(100).await, (vec![taken, serving], RETRY * 100));
    }
}
