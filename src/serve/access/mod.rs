//! Who asks, and what they may do. It must never run a password hash on a thread that serves others, and never keep a
//! password: what is remembered of a successful check is a keyed hash.

mod agents;
mod users;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::Semaphore;

use super::upstream::Basic;

pub use agents::{Agents, NoAgent, Reviews};
pub use users::{InvalidUsers, Users};

/// How long a successful check is remembered. A changed file of users forgets all of them at once.
const REMEMBERED: Duration = Duration::from_secs(300);
/// How many successful checks are remembered.
const REMEMBERED_CHECKS: usize = 4096;
/// Password hashes that are computed at the same time.
const CHECKS_AT_ONCE: usize = 2;
/// How long a request waits for its turn to be checked.
const PATIENCE: Duration = Duration::from_secs(10);

/// What somebody may do, in all repositories.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema)]
pub enum Rights {
    /// Nothing.
    #[default]
    None,
    /// Pull.
    Read,
    /// Pull, push and delete.
    Write,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user's name; none for the anonymous.
    pub name: Option<Arc<str>>,
    /// What they may do.
    pub rights: Rights,
}

/// Why somebody is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unknown {
    /// The credentials are malformed or wrong.
    #[error("the user name or the password is wrong")]
    Credentials,
    /// Too many others are being checked.
    #[error("too many credentials are being checked")]
    Busy,
}

/// The files that say who may do what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// `user:hash` a line, as `htpasswd -B` writes it.
    pub users: PathBuf,
    /// The names of those who may also write, one a line; without it, all may.
    pub writers: Option<PathBuf>,
}

/// Why the files cannot be used.
#[derive(Debug, Error)]
pub enum FileError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file is malformed.
    #[error("{path}: {source}")]
    Invalid {
        /// Which one.
        path: PathBuf,
        /// What is wrong in it.
        source: InvalidUsers,
    },
}

type Remembered = HashMap<[u8; 32], (Instant, Caller)>;
type Strangers = HashMap<[u8; 32], Instant>;

/// Who may be asking.
#[derive(Clone)]
struct People {
    anonymous: Rights,
    users: Option<Arc<Users>>,
}

/// Decides who asks.
pub struct Access {
    people: RwLock<People>,
    key: hmac::Key,
    remembered: Mutex<Remembered>,
    /// Credentials that are nobody's here, and until when that is remembered: those of other registries come with each request.
    strangers: Mutex<Strangers>,
    turns: Semaphore,
}

impl Access {
    /// With rights for the anonymous, and users if there are any. `key` is random and of this process alone.
    #[must_use]
    pub fn new(anonymous: Rights, users: Option<Users>, key: &[u8; 32]) -> Self {
        Self {
            people: RwLock::new(People { anonymous, users: users.map(Arc::new) }),
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            remembered: Mutex::default(),
            strangers: Mutex::default(),
            turns: Semaphore::new(CHECKS_AT_ONCE),
        }
    }

    /// Takes up other rights and users, and forgets what was remembered of the old ones.
    pub fn replace(&self, anonymous: Rights, users: Option<Users>) {
        let people = People { anonymous, users: users.map(Arc::new) };
        *self.people.write().unwrap_or_else(PoisonError::into_inner) = people;
        self.with_remembered(HashMap::clear);
        self.with_strangers(HashMap::clear);
    }

    /// Whether somebody without credentials should be asked for some, to learn whether they have any.
    #[must_use]
    pub fn has_users(&self) -> bool {
        self.people().users.is_some()
    }

    fn people(&self) -> People {
        self.people.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn with_remembered<T>(&self, act: impl FnOnce(&mut Remembered) -> T) -> T {
        act(&mut self.remembered.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn with_strangers<T>(&self, act: impl FnOnce(&mut Strangers) -> T) -> T {
        act(&mut self.strangers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who sends this `Authorization` header with a request for what another registry has. Where the anonymous may read, it may
    /// hold a credential that is nobody's here and somebody's there; that one is returned besides.
    ///
    /// # Errors
    /// When it is neither that of a user nor one for another registry.
    pub async fn identify_beside(
        &self,
        authorization: Option<&[u8]>,
        now: Instant,
    ) -> Result<(Caller, Option<Basic>), Unknown> {
        let People { anonymous, users } = self.people();
        let anonymous = Caller { name: None, rights: anonymous };
        let Some(authorization) = authorization.filter(|_| anonymous.rights >= Rights::Read) else {
            return Ok((self.identify(authorization, now).await?, None));
        };
        let (user, password) = basic(authorization).ok_or(Unknown::Credentials)?;
        // What podman sends when it was asked for a credential and has none.
        if user.is_empty() && password.is_empty() {
            return Ok((anonymous, None));
        }
        let mark = self.mark(&user, &password);
        if !self.with_strangers(|strangers| strangers.get(&mark).is_some_and(|until| now < *until)) {
            match self.identify(Some(authorization), now).await {
                Ok(caller) if caller.name.is_some() => return Ok((caller, None)),
                Ok(_) => {}
                Err(Unknown::Credentials) => self.remember_stranger(mark, now, users.as_ref()),
                Err(Unknown::Busy) => return Err(Unknown::Busy),
            }
        }
        Ok((anonymous, Some(Basic { user, password })))
    }

    fn remember_stranger(&self, mark: [u8; 32], now: Instant, checked: Option<&Arc<Users>>) {
        self.with_strangers(|strangers| {
            // As in [`Self::remember`].
            if self.people().users.as_ref().map(Arc::as_ptr) != checked.map(Arc::as_ptr) {
                return;
            }
            if strangers.len() >= REMEMBERED_CHECKS {
                strangers.clear();
            }
            strangers.insert(mark, now + REMEMBERED);
        });
    }

    /// Who sends this `Authorization` header.
    ///
    /// # Errors
    /// When it is not that of a user.
    pub async fn identify(&self, authorization: Option<&[u8]>, now: Instant) -> Result<Caller, Unknown> {
        let People { anonymous, users } = self.people();
        // Where nobody has a name, whatever a client happens to send does no harm.
        let (Some(authorization), Some(users)) = (authorization, users) else {
            return Ok(Caller { name: None, rights: anonymous });
        };
        let (name, password) = basic(authorization).ok_or(Unknown::Credentials)?;
        let mark = self.mark(&name, &password);
        let known = self.with_remembered(|remembered| remembered.get(&mark).cloned());
        if let Some((until, caller)) = known
            && now < until
        {
            return Ok(caller);
        }
        let turn = tokio::time::timeout(PATIENCE, self.turns.acquire()).await;
        let _turn = turn.ok().and_then(Result::ok).ok_or(Unknown::Busy)?;
        let checked = users.clone();
        let caller = tokio::task::spawn_blocking(move || {
            checked.check(&name, &password).map(|rights| Caller { name: Some(name.into()), rights })
        });
        let caller = caller.await.ok().flatten().ok_or(Unknown::Credentials)?;
        self.remember(mark, now, &caller, &users);
        Ok(caller)
    }

    fn mark(&self, name: &str, password: &str) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        // A name has no colon, so that no two pairs make the same text.
        for part in [name, ":", password] {
            context.update(part.as_bytes());
        }
        context.sign().as_ref().try_into().unwrap_or_default()
    }

    fn remember(&self, mark: [u8; 32], now: Instant, caller: &Caller, checked: &Arc<Users>) {
        self.with_remembered(|remembered| {
            // The users may have been replaced while this one was being checked.
            if !self.people().users.is_some_and(|users| Arc::ptr_eq(&users, checked)) {
                return;
            }
            if remembered.len() >= REMEMBERED_CHECKS {
                remembered.retain(|_, (until, _)| now < *until);
            }
            if remembered.len() >= REMEMBERED_CHECKS {
                remembered.clear();
            }
            remembered.insert(mark, (now + REMEMBERED, caller.clone()));
        });
    }
}

/// Name and password of a `Basic` header.
fn basic(authorization: &[u8]) -> Option<(String, String)> {
    let text = std::str::from_utf8(authorization).ok()?;
    let (scheme, encoded) = text.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    decoded.split_once(':').map(|(name, password)| (name.to_owned(), password.to_owned()))
}

impl Files {
    /// The texts of the files.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn read(&self) -> Result<(String, Option<String>), FileError> {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|source| FileError::Read { path: path.clone(), source })
        };
        Ok((read(&self.users)?, self.writers.as_ref().map(read).transpose()?))
    }

    /// The users that the texts name.
    ///
    /// # Errors
    /// When one is malformed.
    pub fn parse(&self, users: &str, writers: Option<&str>) -> Result<Users, FileError> {
        Users::parse(users, writers).map_err(|source| {
            let path = match (&source, &self.writers) {
                (InvalidUsers::NobodyByThatName { .. }, Some(writers)) => writers.clone(),
                _ => self.users.clone(),
            };
            FileError::Invalid { path, source }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use base64::Engine as _;
    use futures::FutureExt as _;

    use super::{Access, Caller, REMEMBERED, Rights, Unknown, Users};

    fn users(password: &str) -> Users {
        let hash = bcrypt::hash(password, 4).unwrap();
        Users::parse(&format!("reader:{hash}\nwriter:{hash}\n"), Some("writer\n")).unwrap()
    }

    fn header(name: &str, password: &str) -> Vec<u8> {
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
        format!("Basic {encoded}").into_bytes()
    }

    #[tokio::test]
    async fn callers_get_the_rights_of_their_name() {
        let access = Access::new(Rights::Read, Some(users("secret:with colon")), &[7; 32]);
        let now = Instant::now();
        for (name, rights) in [("reader", Rights::Read), ("writer", Rights::Write)] {
            let caller = access.identify(Some(&header(name, "secret:with colon")), now).await.unwrap();
            assert_eq!(caller, Caller { name: Some(name.into()), rights });
        }
        assert_eq!(access.identify(None, now).await.unwrap(), Caller { name: None, rights: Rights::Read });
        for wrong in [
            header("reader", "secret"),
            header("nobody", "secret:with colon"),
            b"Basic !".to_vec(),
            b"Bearer token".to_vec(),
            b"Basic".to_vec(),
            vec![0xff],
        ] {
            assert_eq!(access.identify(Some(&wrong), now).await, Err(Unknown::Credentials));
        }
    }

    #[tokio::test]
    async fn a_success_is_remembered_for_a_while_and_until_the_users_change() {
        let access = Access::new(Rights::None, Some(users("old")), &[7; 32]);
        let now = Instant::now();
        let header = header("reader", "old");
        access.identify(Some(&header), now).await.unwrap();
        // Nobody gets a turn: only what is remembered can answer.
        let turns = access.turns.acquire_many(2).await.unwrap();
        assert!(access.identify(Some(&header), now + REMEMBERED / 2).await.is_ok());
        assert_eq!(access.identify(Some(&header), now + REMEMBERED).now_or_never(), None);
        access.replace(Rights::None, Some(users("new")));
        assert_eq!(access.identify(Some(&header), now).now_or_never(), None);
        drop(turns);
        assert_eq!(access.identify(Some(&header), now).await, Err(Unknown::Credentials));
    }

    #[tokio::test]
    async fn the_rights_of_the_anonymous_change_with_the_users() {
        let access = Access::new(Rights::Write, None, &[7; 32]);
        access.replace(Rights::Read, Some(users("secret")));
        assert!(access.has_users());
        assert_eq!(access.identify(None, Instant::now()).await.unwrap().rights, Rights::Read);
    }

    #[tokio::test]
    async fn what_is_nobody_s_here_is_passed_on_only_beside_the_anonymous() {
        let now = Instant::now();
        let told = async |access: &Access, authorization: &[u8]| {
            let found = access.identify_beside(Some(authorization), now).await;
            found.map(|(caller, basic)| (caller.name.is_some(), basic.map(|basic| (basic.user, basic.password))))
        };
        let theirs = Ok((false, Some(("me".to_owned(), "there:".to_owned()))));
        let open = Access::new(Rights::Read, Some(users("here")), &[7; 32]);
        assert_eq!(told(&open, &header("reader", "here")).await, Ok((true, None)));
        assert_eq!(told(&open, &header("me", "there:")).await, theirs);
        assert_eq!(told(&open, &header("", "")).await, Ok((false, None)));
        assert_eq!(told(&open, b"Bearer token").await, Err(Unknown::Credentials));
        assert_eq!(open.identify_beside(None, now).await.unwrap().1, None);
        // The next time costs no check.
        let turns = open.turns.acquire_many(2).await.unwrap();
        assert_eq!(told(&open, &header("me", "there:")).now_or_never(), Some(theirs.clone()));
        drop(turns);
        open.replace(Rights::Read, Some(users("there:")));
        assert_eq!(told(&open, &header("reader", "there:")).await, Ok((true, None)));
        let closed = Access::new(Rights::None, Some(users("here")), &[7; 32]);
        assert_eq!(told(&closed, &header("me", "there:")).await, Err(Unknown::Credentials));
        assert_eq!(told(&closed, &header("reader", "here")).await, Ok((true, None)));
        assert_eq!(closed.identify_beside(None, now).await.unwrap().0.rights, Rights::None);
        let without_users = Access::new(Rights::Write, None, &[7; 32]);
        assert_eq!(told(&without_users, &header("me", "there:")).await, theirs);
        assert_eq!(told(&without_users, b"Bearer token").await, Err(Unknown::Credentials));
    }

    #[tokio::test]
    async fn without_users_everybody_is_anonymous() {
        let access = Access::new(Rights::Write, None, &[7; 32]);
        let caller = access.identify(Some(&header("any", "body")), Instant::now()).await.unwrap();
        assert_eq!(caller, Caller { name: None, rights: Rights::Write });
    }
}
