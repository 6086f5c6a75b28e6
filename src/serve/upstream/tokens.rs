//! Tokens: granted once for a repository and an identity, kept until shortly before they end. They must never be shown, and
//! never be used for another repository, identity or endpoint.
//!
//! | What is kept of a repository and an identity | A request | What leads out of it |
//! |---|---|---|
//! | nothing | fetches a token; whoever comes meanwhile waits and gets the same, or the same refusal | an answer |
//! | a token | takes it | three quarters of its time |
//! | an old token | the first renews it, the others take it; so does the first if it cannot be renewed | an answer, its end |
//!
//! Nothing is kept over a restart.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::header::HeaderValue;
use serde::Deserialize;

use crate::oci::RepositoryName;

use super::transport::Deadline;
use super::trouble::{Away, Trouble};

/// Tokens that are kept of one endpoint.
const MOST_KEPT: usize = 1024;
/// How long a token holds where the server does not say.
const DEFAULT_TIME: Duration = Duration::from_secs(60);
/// However long a token is said to hold, it is renewed after this.
const LONGEST_TIME: Duration = Duration::from_secs(3600);
/// The longest text that can be a token; it has to pass as a header.
const LONGEST_TOKEN: usize = 32 * 1024;

/// A name for an identity, from which it cannot be told.
pub type Mark = [u8; 32];

/// What was granted.
#[derive(Clone)]
pub struct Token {
    header: HeaderValue,
    renew: Instant,
    end: Instant,
}

/// A token, as a request carries it.
#[derive(Clone)]
pub struct Granted {
    pub header: HeaderValue,
    /// Whether it was granted just now.
    pub is_fresh: bool,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<f64>,
}

impl Token {
    /// Reads the answer of a token server that was asked at `now`.
    #[must_use]
    pub fn read(answer: &[u8], now: Instant) -> Option<Self> {
        let answer: Answer = serde_json::from_slice(answer).ok()?;
        let text = [answer.token, answer.access_token].into_iter().flatten().find(|text| !text.is_empty())?;
        if text.len() > LONGEST_TOKEN || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let mut header = HeaderValue::try_from(format!("Bearer {text}")).ok()?;
        header.set_sensitive(true);
        let said = answer.expires_in.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let time = said.filter(|time| !time.is_zero()).unwrap_or(DEFAULT_TIME).min(LONGEST_TIME);
        Some(Self { header, renew: now + time * 3 / 4, end: now + time })
    }
}

/// The tokens of one endpoint.
#[derive(Default)]
pub struct Tokens {
    slots: Mutex<HashMap<(RepositoryName, Mark), Arc<Slot>>>,
}

/// Of one repository and one identity.
#[derive(Default)]
pub struct Slot {
    known: Mutex<Known>,
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    token: Option<Token>,
    /// How many answers there were, and the last refusal: who waited for it takes it.
    answers: u64,
    refusal: Option<Trouble>,
}

impl Tokens {
    /// What is kept of a repository and an identity.
    pub fn slot(&self, repository: &RepositoryName, mark: Mark, now: Instant) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (repository.clone(), mark);
        if let Some(slot) = slots.get(&key) {
            return slot.clone();
        }
        if slots.len() >= MOST_KEPT {
            slots.retain(|_, slot| slot.known().token.as_ref().is_some_and(|token| now < token.end));
        }
        if slots.len() >= MOST_KEPT {
            slots.clear();
        }
        slots.entry(key).or_default().clone()
    }
}

impl Slot {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A token that still holds, other than one that was refused.
    fn held(&self, refused: Option<&HeaderValue>, now: Instant) -> Option<Token> {
        self.known().token.clone().filter(|token| now < token.end && refused != Some(&token.header))
    }

    /// A token. `refused` is one that did not help; `fetch` is used if there is none that does.
    ///
    /// # Errors
    /// When none is granted, or nobody answers in time.
    pub async fn get(
        &self,
        refused: Option<&HeaderValue>,
        deadline: Deadline,
        fetch: impl Future<Output = Result<Token, Trouble>>,
    ) -> Result<Granted, Trouble> {
        let before = self.known().answers;
        let held = self.held(refused, Instant::now());
        let kept = |token: Token| Granted { header: token.header, is_fresh: false };
        let _turn = match held {
            Some(token) if Instant::now() < token.renew => return Ok(kept(token)),
            Some(token) => match self.turn.try_lock() {
                Ok(turn) => turn,
                Err(_) => return Ok(kept(token)),
            },
            None => {
                let wait = deadline.within(Duration::MAX);
                let turn = tokio::time::timeout(wait, self.turn.lock()).await;
                turn.map_err(|_| Trouble::away(Away::Silent, "a token was not granted in time"))?
            }
        };
        if let Some(token) = self.held(refused, Instant::now()).filter(|token| Instant::now() < token.renew) {
            return Ok(kept(token));
        }
        {
            let known = self.known();
            if let Some(refusal) = known.refusal.clone().filter(|_| known.answers != before) {
                return Err(refusal);
            }
        }
        let answer = fetch.await;
        let mut known = self.known();
        known.answers += 1;
        known.refusal = answer.as_ref().err().cloned();
        match answer {
            Ok(token) => {
                known.token = Some(token.clone());
                Ok(Granted { header: token.header, is_fresh: true })
            }
            Err(trouble) => {
                drop(known);
                let held = self.held(refused, Instant::now()).filter(|_| matches!(trouble, Trouble::Away { .. }));
                held.map(kept).ok_or(trouble)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use futures::future::join_all;

    use super::{MOST_KEPT, Slot, Token, Tokens};
    use crate::serve::upstream::transport::Deadline;
    use crate::serve::upstream::trouble::{Away, Trouble};

    const PATIENT: Duration = Duration::from_secs(60);

    fn token(name: &str, begun: Instant) -> Token {
        Token::read(format!(r#"{{"token":"{name}","expires_in":100}}"#).as_bytes(), begun).unwrap()
    }

    #[test]
    fn an_answer_is_read_as_the_protocol_has_it() {
        let now = Instant::now();
        for (answer, expected) in [
            (r#"{"token":"a.b-c"}"#, Some(("Bearer a.b-c", 60))),
            (r#"{"access_token":"a","expires_in":300,"issued_at":"2009-11-10T23:00:00Z"}"#, Some(("Bearer a", 300))),
            (r#"{"token":"","access_token":"a","expires_in":0}"#, Some(("Bearer a", 60))),
            (r#"{"token":"a","access_token":"b","expires_in":8}"#, Some(("Bearer a", 8))),
            (r#"{"token":"a","expires_in":-5}"#, Some(("Bearer a", 60))),
            (r#"{"token":"a","expires_in":1e300}"#, Some(("Bearer a", 60))),
            (r#"{"token":"a","expires_in":1e9}"#, Some(("Bearer a", 3600))),
            (r#"{"token":"a b"}"#, None),
            (r#"{"token":"a\r\nx: y"}"#, None),
            (r#"{"token":"é"}"#, None),
            (r#"{"token":7}"#, None),
            (r#"{"errors":[]}"#, None),
            ("[]", None),
            ("", None),
        ] {
            let token = Token::read(answer.as_bytes(), now);
            let found = token.as_ref().map(|token| (token.header.to_str().unwrap(), (token.end - now).as_secs()));
            assert_eq!(found, expected, "{answer}");
            assert!(token.is_none_or(|token| now < token.renew && token.renew < token.end));
        }
        let long = format!(r#"{{"token":"{}"}}"#, "a".repeat(super::LONGEST_TOKEN + 1));
        assert!(Token::read(long.as_bytes(), now).is_none());
    }

    #[tokio::test]
    async fn one_fetches_for_all_who_wait_also_where_it_is_refused() {
        for answer in [Ok(token("a", Instant::now())), Err(Trouble::Denied)] {
            let (slot, fetched) = (&Slot::default(), &AtomicUsize::new(0));
            let ask = || {
                let answer = answer.clone();
                slot.get(None, Deadline::after(PATIENT), async move {
                    fetched.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    answer
                })
            };
            let found = join_all((0..20).map(|_| ask())).await;
            assert_eq!(fetched.load(Ordering::Relaxed), 1);
            assert!(found.iter().all(|found| found.is_ok() == answer.is_ok()));
            // Who comes later is not refused without being heard.
            let _ = ask().await;
            assert_eq!(fetched.load(Ordering::Relaxed), if answer.is_ok() { 1 } else { 2 });
        }
    }

    #[tokio::test]
    async fn who_waited_for_one_that_has_gone_fetches_itself() {
        let slot = &Slot::default();
        let mut gone = Box::pin(slot.get(None, Deadline::after(PATIENT), std::future::pending()));
        assert!(futures::poll!(gone.as_mut()).is_pending());
        let mut waits = Box::pin(slot.get(None, Deadline::after(PATIENT), async { Ok(token("a", Instant::now())) }));
        assert!(futures::poll!(waits.as_mut()).is_pending());
        let late = slot.get(None, Deadline::after(Duration::ZERO), std::future::pending());
        assert!(matches!(late.await, Err(Trouble::Away { how: Away::Silent, .. })));
        drop(gone);
        assert!(waits.await.is_ok_and(|granted| granted.is_fresh));
    }

    #[tokio::test]
    async fn an_old_token_is_renewed_by_one_and_serves_until_its_end() {
        let slot = &Slot::default();
        let old = token("old", Instant::now().checked_sub(Duration::from_secs(80)).unwrap());
        let (header, deadline) = (old.header.clone(), Deadline::after(PATIENT));
        slot.get(None, deadline, async { Ok(old) }).await.ok().unwrap();
        // One is at it, and another does not wait.
        let mut renews = Box::pin(slot.get(None, deadline, std::future::pending()));
        assert!(futures::poll!(renews.as_mut()).is_pending());
        let other = slot.get(None, deadline, std::future::pending()).await.ok().unwrap();
        assert!(other.header == header && !other.is_fresh);
        drop(renews);
        // It cannot be renewed, which does no harm; unless that is a refusal.
        let away = || Err(Trouble::away(Away::Failing, "away"));
        assert!(slot.get(None, deadline, async { away() }).await.is_ok_and(|granted| granted.header == header));
        assert!(matches!(slot.get(None, deadline, async { Err(Trouble::Denied) }).await, Err(Trouble::Denied)));
        // Nor does it serve whom it did not help.
        assert!(slot.get(Some(&header), deadline, async { away() }).await.is_err());
        let new = slot.get(Some(&header), deadline, async { Ok(token("new", Instant::now())) }).await.ok().unwrap();
        assert!(new.is_fresh && new.header != header);
        // Who comes with the old one takes what another got meanwhile.
        let other = slot.get(Some(&header), deadline, std::future::pending()).await.ok().unwrap();
        assert!(other.header == new.header && !other.is_fresh);
    }

    #[tokio::test]
    async fn tokens_are_kept_apart_and_not_without_bounds() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        let name = "a".parse().unwrap();
        let slot = tokens.slot(&name, [0; 32], now);
        slot.get(None, Deadline::after(PATIENT), async { Ok(token("a", now)) }).await.ok().unwrap();
        for (name, mark) in [("a", [1; 32]), ("b", [0; 32])] {
            assert!(tokens.slot(&name.parse().unwrap(), mark, now).held(None, now).is_none());
        }
        let marks = (0..MOST_KEPT as u64 * 2).map(|number| {
            let mut mark = [9; 32];
            mark[..8].copy_from_slice(&number.to_be_bytes());
            mark
        });
        for mark in marks {
            tokens.slot(&name, mark, now);
            assert!(tokens.slots.lock().unwrap().len() <= MOST_KEPT);
        }
        // What holds a token stays the longest.
        assert!(tokens.slot(&name, [0; 32], now).held(None, now).is_some());
    }
}
