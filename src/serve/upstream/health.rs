//! How the endpoints of a registry are doing, for metrics and status. It must never hold a credential or a query.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::breaker::{Admission, Breaker, BreakerState, Outcome};
use super::rate_limit::RateLimit;
use super::trouble::{Away, Trouble};

/// How a registry is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Its endpoints, in their order.
    pub endpoints: Vec<EndpointHealth>,
}

/// How one endpoint is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointHealth {
    /// Its URL.
    pub endpoint: String,
    /// Whether it is asked.
    pub breaker: BreakerState,
    /// Why it was away, when it last was.
    pub problem: Option<String>,
    /// How often it may still be asked, as it last said.
    pub rate_limit: Option<RateLimit>,
    /// What was counted.
    pub figures: Figures,
}

/// What is counted of one endpoint, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Requests, with those to token servers and redirect targets.
    pub requests: u64,
    /// Bytes of bodies that were asked for.
    pub bytes: u64,
    /// Tokens that were granted.
    pub tokens: u64,
    /// Questions that found it away.
    pub away: u64,
    /// Questions that were not asked, because it was away shortly before.
    pub not_asked: u64,
    /// Answers that could not be used.
    pub wrong: u64,
    /// Refusals of the configured credential.
    pub credentials_rejected: u64,
}

/// One of [`Figures`], while it is counted.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is known of one endpoint.
#[derive(Debug)]
pub struct Watched {
    endpoint: String,
    state: Mutex<State>,
    pub requests: Counter,
    pub bytes: Counter,
    pub tokens: Counter,
    away: Counter,
    not_asked: Counter,
    wrong: Counter,
    credentials_rejected: Counter,
}

#[derive(Debug, Default)]
struct State {
    breaker: Breaker,
    problem: Option<String>,
    rate_limit: Option<RateLimit>,
}

impl Watched {
    pub fn new(endpoint: String) -> Self {
        Self {
            endpoint,
            state: Mutex::default(),
            requests: Counter::default(),
            bytes: Counter::default(),
            tokens: Counter::default(),
            away: Counter::default(),
            not_asked: Counter::default(),
            wrong: Counter::default(),
            credentials_rejected: Counter::default(),
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs what asks this endpoint for an object of this number, unless it was away shortly before.
    pub async fn ask<T>(&self, object: u64, asking: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
        let admission = self.with(|state| {
            let admitted = state.breaker.admit(Instant::now());
            admitted.map_err(|wait| {
                let since = state.problem.as_deref().unwrap_or("it does not answer");
                Trouble::away(Away::NotAsked(wait), format!("{} is not asked for now: {since}", self.endpoint))
            })
        });
        let mut asked =
            Asked { watched: self, admission: admission.inspect_err(|_| self.not_asked.add(1))?, outcome: None };
        let answer = asking.await;
        asked.outcome = Some(answer.as_ref().err().map_or(Outcome::Answered, |trouble| trouble.outcome(object)));
        if let Err(trouble) = &answer {
            self.note(trouble);
        }
        answer
    }

    fn note(&self, trouble: &Trouble) {
        match trouble {
            Trouble::Away { problem, .. } => {
                self.away.add(1);
                self.with(|state| state.problem = Some(problem.clone()));
            }
            Trouble::Wrong(problem) => {
                self.wrong.add(1);
                // Whoever can make it answer so could fill the log: the same is said once in a row.
                if self.with(|state| state.problem.replace(problem.clone())).as_ref() != Some(problem) {
                    tracing::warn!(endpoint = self.endpoint, problem, "an upstream's answer cannot be used");
                }
            }
            Trouble::CredentialsRejected => self.credentials_rejected.add(1),
            Trouble::NotFound | Trouble::Denied | Trouble::Loop => {}
        }
    }

    /// Takes note of what an answer says of rates.
    pub fn limited(&self, rate_limit: Option<RateLimit>) {
        if rate_limit.is_some() {
            self.with(|state| state.rate_limit = rate_limit);
        }
    }

    pub fn refuses(&self, now: Instant) -> bool {
        self.with(|state| state.breaker.refuses(now))
    }

    pub fn health(&self, now: Instant) -> EndpointHealth {
        let (breaker, problem, rate_limit) =
            self.with(|state| (state.breaker.state(now), state.problem.clone(), state.rate_limit));
        let figures = Figures {
            requests: self.requests.value(),
            bytes: self.bytes.value(),
            tokens: self.tokens.value(),
            away: self.away.value(),
            not_asked: self.not_asked.value(),
            wrong: self.wrong.value(),
            credentials_rejected: self.credentials_rejected.value(),
        };
        EndpointHealth { endpoint: self.endpoint.clone(), breaker, problem, rate_limit, figures }
    }
}

/// A request that was let pass. It is reported on however it ends, also where nobody waits for it any more.
struct Asked<'a> {
    watched: &'a Watched,
    admission: Admission,
    outcome: Option<Outcome>,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let (now, outcome) = (Instant::now(), self.outcome.unwrap_or(Outcome::GivenUp));
        let (before, after, problem) = self.watched.with(|state| {
            let before = state.breaker.state(now);
            state.breaker.report(&self.admission, outcome, now, rand::random());
            (before, state.breaker.state(now), state.problem.clone())
        });
        let endpoint = &self.watched.endpoint;
        match (before, after) {
            (BreakerState::Closed, BreakerState::Open) => {
                tracing::warn!(endpoint, problem, "an upstream is away; it is asked again from time to time");
            }
            (BreakerState::Open | BreakerState::HalfOpen, BreakerState::Closed) => {
                tracing::info!(endpoint, "an upstream is back");
            }
            _ => {}
        }
    }
}

impl Health {
    pub(super) fn of<'a>(watched: impl Iterator<Item = &'a Watched>) -> Self {
        let now = Instant::now();
        Self { endpoints: watched.map(|watched| watched.health(now)).collect() }
    }
}
