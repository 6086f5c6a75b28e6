//! Asks, over and over, whether the Mirrors of the node's hosts can be reached through the node's own endpoint.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::local::Endpoint;
use super::metrics::Metrics;
use super::reach::{PAUSE, Reach};

/// How long one attempt may take.
const LIMIT: Duration = Duration::from_secs(5);

/// What is known of each host, between the agent that tells it and the task that finds it out. Cloning shares it.
#[derive(Clone, Default)]
pub struct Probes {
    reach: Arc<Mutex<Reach>>,
    /// There is something to try.
    wake: Arc<Notify>,
}

impl Probes {
    /// What is known.
    pub fn reach(&self) -> MutexGuard<'_, Reach> {
        self.reach.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the task look which hosts there are now.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Tries the hosts that are due, until `stop` is cancelled. `news` is notified when something else is to be told.
    pub async fn run<E: Endpoint>(self, endpoint: E, news: Arc<Notify>, metrics: Metrics, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let now = Instant::now().into_std();
            let (due, rest) = {
                let reach = self.reach();
                (reach.due(now), reach.rest(now))
            };
            if stop.run_until_cancelled(self.round(&endpoint, due, &news, &metrics)).await.is_none() {
                return;
            }
            // Hosts that have come meanwhile are tried with the next round.
            let rested = async {
                match rest {
                    Some(rest) => tokio::time::sleep(rest).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = rested => {}
                () = self.wake.notified() => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    async fn round<E: Endpoint>(&self, endpoint: &E, due: Vec<String>, news: &Notify, metrics: &Metrics) {
        let answers = due.iter().map(async |host| {
            let answer = tokio::time::timeout(LIMIT, endpoint.verify(host)).await;
            answer.unwrap_or_else(|_| Err(format!("nothing came of asking for {host} within {} s", LIMIT.as_secs())))
        });
        let answers = join_all(answers).await;
        let now = Instant::now().into_std();
        let mut changed = false;
        for (host, answer) in due.iter().zip(answers) {
            metrics.probe(answer.is_ok());
            if let Err(why) = &answer {
                tracing::debug!(host, why, "a host cannot be reached");
            }
            changed |= self.reach().learn(host, answer, now, rand::random());
        }
        if changed {
            news.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::fake::Local as Fake;

    #[tokio::test(start_paused = true)]
    async fn what_changes_is_told_and_what_does_not_is_not() {
        let (probes, news, stop, fake) =
            (Probes::default(), Arc::new(Notify::new()), CancellationToken::new(), Fake::default());
        let running = tokio::spawn(probes.clone().run(fake.clone(), news.clone(), Metrics::default(), stop.clone()));
        let name = "docker.io".to_owned();
        probes.reach().watch([(&name, 1)], |_| false, Instant::now().into_std());
        probes.wake();
        news.notified().await;
        assert_eq!(probes.reach().told("docker.io"), Some(&Ok(())));

        fake.refuse("docker.io");
        let began = Instant::now();
        news.notified().await;
        assert!(probes.reach().told("docker.io").unwrap().is_err());
        let elapsed = began.elapsed().as_secs();
        assert!((60..120).contains(&elapsed), "{elapsed}");
        let asked = fake.verified();

        // It stays away: it is asked ever less, and nothing more is told.
        assert!(tokio::time::timeout(Duration::from_mins(30), news.notified()).await.is_err());
        let more = fake.verified() - asked;
        assert!((30..60).contains(&more), "{more} in half an hour");
        fake.allow("docker.io");
        news.notified().await;
        assert_eq!(probes.reach().told("docker.io"), Some(&Ok(())));
        stop.cancel();
        running.await.unwrap();
    }
}
