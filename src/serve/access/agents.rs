//! The agents of a cluster's nodes, told by their tokens: of one service account, for one audience, as the API server says. It must
//! never keep or show a token (what is remembered is a keyed hash), and never take away while the API server cannot be asked what
//! it has said before.
//!
//! | What is known of a token | What it is answered | What is asked |
//! |---|---|---|
//! | good, for less than five minutes | yes | nothing |
//! | good, before that | yes; after a long rest once the API server has said so, or has not for a moment | again, in the background |
//! | wrong, for less than ten seconds | no | nothing |
//! | nothing | what the API server says; where it cannot be asked, that | once for all who wait |
//!
//! What was good is so until the token itself ends, at most.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::Timestamp;
use ring::hmac;
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::serve::config;
use crate::serve::flights::Flights;
use crate::token_review::{Answer, TokenReviews};

#[cfg(test)]
mod tests;

/// For so long a token that is good is not asked for again.
const GOOD: Duration = Duration::from_secs(300);
/// For so long one that is wrong is not; and one that is good after the API server could not be asked.
const AGAIN: Duration = Duration::from_secs(10);
/// How long a request waits to hear whether what was good long ago still is.
const PATIENCE: Duration = Duration::from_millis(800);
/// How long a question waits for its turn.
const TURN: Duration = Duration::from_secs(2);
/// Questions at the same time: whoever invents tokens must not keep the API server busy.
const AT_ONCE: usize = 8;
/// How many tokens are remembered of each kind; those that are good are of nodes alone.
const REMEMBERED: usize = 32_768;

/// Who says whose a token is.
pub trait Reviews: Send + Sync + 'static {
    /// Asks about a token that is meant for an audience. A problem is told without the token.
    fn review<'a>(&'a self, token: &'a str, audience: &'a str) -> BoxFuture<'a, Result<Answer, String>>;
}

impl Reviews for TokenReviews {
    fn review<'a>(&'a self, token: &'a str, audience: &'a str) -> BoxFuture<'a, Result<Answer, String>> {
        self.ask(token, audience).boxed()
    }
}

/// Why somebody is not taken for an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoAgent {
    /// There is no token.
    #[error(
        "this mirror answers the agents of nodes only; in a pod use the image's own name, or set spec.clients: Cluster"
    )]
    NoToken,
    /// It is not that of an agent.
    #[error(
        "the token in Wharf-Agent-Token is not one of an agent, and this mirror answers the agents of nodes only; in a pod use \
         the image's own name, or set spec.clients: Cluster"
    )]
    Wrong,
    /// Nobody can say whose it is now.
    #[error("whether this is an agent's token cannot be said now: the cluster's API server cannot be asked")]
    Unknowable,
}

type Mark = [u8; 32];

/// What is known of a token that was good.
#[derive(Clone, Copy)]
struct Good {
    /// When it is asked for again.
    again: Instant,
    /// When the API server last said so.
    said: Instant,
    /// Whether it could not be asked since.
    is_unanswered: bool,
    /// When the token itself ends.
    end: Instant,
}

#[derive(Default)]
struct Memory {
    good: HashMap<Mark, Good>,
    /// And until when.
    wrong: HashMap<Mark, Instant>,
}

#[derive(Clone, Copy)]
enum Known {
    Nothing,
    Good(Good),
    Wrong,
}

/// Decides who is an agent.
pub struct Agents {
    wanted: RwLock<Option<Arc<config::Agents>>>,
    reviews: Box<dyn Reviews>,
    key: hmac::Key,
    memory: Mutex<Memory>,
    asked: Flights<Mark, Result<bool, ()>>,
    turns: Semaphore,
    /// The last problem with asking, until it is over.
    problem: Mutex<Option<String>>,
}

impl Agents {
    /// Those that are `wanted`; everybody is let pass where nothing is. `key` is random and of this process alone.
    #[must_use]
    pub fn new(wanted: Option<config::Agents>, reviews: Box<dyn Reviews>, key: &[u8; 32]) -> Self {
        let (wanted, key) = (RwLock::new(wanted.map(Arc::new)), hmac::Key::new(hmac::HMAC_SHA256, key));
        let (memory, asked, turns, problem) =
            (Mutex::default(), Flights::default(), Semaphore::new(AT_ONCE), Mutex::default());
        Self { wanted, reviews, key, memory, asked, turns, problem }
    }

    /// Others from now on. What was said of the old ones is forgotten.
    pub fn change(&self, wanted: Option<&config::Agents>) {
        let mut before = self.wanted.write().unwrap_or_else(PoisonError::into_inner);
        if before.as_deref() != wanted {
            *before = wanted.cloned().map(Arc::new);
            self.memory(|memory| *memory = Memory::default());
        }
    }

    fn wanted(&self) -> Option<Arc<config::Agents>> {
        self.wanted.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn memory<T>(&self, act: impl FnOnce(&mut Memory) -> T) -> T {
        act(&mut self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether who brings this token is an agent, where only those are answered.
    ///
    /// # Errors
    /// When it is none, or that cannot be said.
    pub async fn admit(self: &Arc<Self>, token: Option<&[u8]>) -> Result<(), NoAgent> {
        let Some(wanted) = self.wanted() else { return Ok(()) };
        let token = token.ok_or(NoAgent::NoToken)?;
        let token = str::from_utf8(token).ok().filter(|token| !token.is_empty()).ok_or(NoAgent::Wrong)?;
        let mark = self.mark(&wanted, token);
        let now = Instant::now();
        let good = match self.memory(|memory| memory.known(&mark, now)) {
            Known::Wrong => return Err(NoAgent::Wrong),
            Known::Good(good) if now < good.again => return Ok(()),
            Known::Good(good) => Some(good),
            Known::Nothing => None,
        };
        let (agents, token) = (self.clone(), token.to_owned());
        // It comes to its end also if this request does not wait for it.
        let answer = tokio::spawn(async move { agents.ask(mark, wanted, token).await });
        let answer = match good {
            None => answer.await,
            Some(good) if good.is_unanswered || now < good.said + 2 * GOOD => return Ok(()),
            Some(_) => match tokio::time::timeout(PATIENCE, answer).await {
                Ok(answer) => answer,
                Err(_) => return Ok(()),
            },
        };
        match answer {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(NoAgent::Wrong),
            _ if good.is_some() => Ok(()),
            _ => Err(NoAgent::Unknowable),
        }
    }

    fn mark(&self, wanted: &config::Agents, token: &str) -> Mark {
        let mut context = hmac::Context::with_key(&self.key);
        // None of them has a NUL.
        for part in [&wanted.service_account, "\0", &wanted.audience, "\0", token] {
            context.update(part.as_bytes());
        }
        context.sign().as_ref().try_into().unwrap_or_default()
    }

    /// Asks the API server, once for all who ask the same.
    async fn ask(self: Arc<Self>, mark: Mark, wanted: Arc<config::Agents>, token: String) -> Result<bool, ()> {
        let agents = self.clone();
        let request = move || async move { agents.review(mark, &wanted, &token).await }.boxed();
        self.asked.run(mark, request).await
    }

    async fn review(&self, mark: Mark, wanted: &config::Agents, token: &str) -> Result<bool, ()> {
        let turn = tokio::time::timeout(TURN, self.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(()) };
        let now = Instant::now();
        // Another answer may have come since this was begun.
        match self.memory(|memory| memory.known(&mark, now)) {
            Known::Good(good) if now < good.again => return Ok(true),
            Known::Wrong => return Ok(false),
            _ => {}
        }
        let answer = self.reviews.review(token, &wanted.audience).await;
        let now = Instant::now();
        self.tell(answer.as_ref().err());
        let answer = answer.map_err(|_| self.memory(|memory| memory.wait(&mark, now)))?;
        let is_agent = is_agent(wanted, &answer);
        self.memory(
            |memory| if is_agent { memory.is_good(mark, now, rest(token)) } else { memory.is_wrong(mark, now) },
        );
        Ok(is_agent)
    }

    /// Each problem is logged once, and that it is over.
    fn tell(&self, problem: Option<&String>) {
        let mut told = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) if told.as_ref() != Some(problem) => {
                tracing::warn!(problem, "agents that are not known yet cannot be told from others");
            }
            None if told.is_some() => tracing::info!("the API server says again whose tokens are"),
            _ => {}
        }
        *told = problem.cloned();
    }
}

/// Whether the API server's answer means one of these.
fn is_agent(wanted: &config::Agents, answer: &Answer) -> bool {
    // One that knows no audiences says nothing of them: then the token may be one for the API server itself.
    answer.user.as_ref() == Some(&wanted.service_account) && answer.audiences.contains(&wanted.audience)
}

/// How long a token is still good for, by what it says itself. That it is right, the API server has just said.
fn rest(token: &str) -> Option<Duration> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    let end = Timestamp::from_second(claims.get("exp")?.as_i64()?).ok()?;
    Some(end.duration_since(Timestamp::now()).try_into().unwrap_or_default())
}

impl Memory {
    fn known(&self, mark: &Mark, now: Instant) -> Known {
        if let Some(good) = self.good.get(mark).filter(|good| now < good.end) {
            return Known::Good(*good);
        }
        if self.wrong.get(mark).is_some_and(|until| now < *until) { Known::Wrong } else { Known::Nothing }
    }

    fn is_good(&mut self, mark: Mark, now: Instant, rest: Option<Duration>) {
        self.wrong.remove(&mark);
        if self.good.len() >= REMEMBERED {
            self.good.retain(|_, good| now < good.end);
        }
        if self.good.len() < REMEMBERED {
            let end = now + rest.unwrap_or(GOOD).min(365 * 24 * Duration::from_secs(3600));
            self.good.insert(mark, Good { again: (now + GOOD).min(end), said: now, is_unanswered: false, end });
        }
    }

    fn is_wrong(&mut self, mark: Mark, now: Instant) {
        self.good.remove(&mark);
        if self.wrong.len() >= REMEMBERED {
            self.wrong.clear();
        }
        self.wrong.insert(mark, now + AGAIN);
    }

    /// The API server could not be asked: it is not, for a moment, for what was good.
    fn wait(&mut self, mark: &Mark, now: Instant) {
        if let Some(good) = self.good.get_mut(mark) {
            good.again = now + AGAIN;
            good.is_unanswered = true;
        }
    }
}
