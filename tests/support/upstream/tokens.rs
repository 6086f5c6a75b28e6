//! The scripted upstream's token endpoint, as strict as those of real registries: a token is for one service and for what its
//! user may do, and ends. It must never refuse to give a token for too much: it gives one for less, as they do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use base64::Engine as _;
use http::HeaderMap;
use http::header::AUTHORIZATION;

pub const SERVICE: &str = "scripted";

/// Who asks, as the request says; nobody is an empty name.
pub enum Caller {
    User(String),
    /// The credential is wrong.
    Stranger,
}

struct Token {
    user: String,
    repositories: BTreeSet<String>,
    end: Instant,
}

pub struct Tokens {
    pub users: BTreeMap<String, String>,
    pub lifetime: Duration,
    given: BTreeMap<String, Token>,
    count: u64,
}

impl Default for Tokens {
    fn default() -> Self {
        let users = ["alice", "bob", "mirror"].map(|user| (user.to_owned(), format!("{user}-secret")));
        Self { users: users.into(), lifetime: Duration::from_secs(300), given: BTreeMap::new(), count: 0 }
    }
}

impl Tokens {
    /// The user of a Basic credential.
    pub fn caller(&self, headers: &HeaderMap) -> Caller {
        let Some(value) = headers.get(AUTHORIZATION) else { return Caller::User(String::new()) };
        let decoded = value.to_str().ok().and_then(|value| value.strip_prefix("Basic ")).and_then(|text| {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
            String::from_utf8(bytes).ok()
        });
        match decoded.as_deref().and_then(|text| text.split_once(':')) {
            Some((user, password)) if self.users.get(user).is_some_and(|known| known == password) => {
                Caller::User(user.to_owned())
            }
            _ => Caller::Stranger,
        }
    }

    pub fn give(&mut self, user: &str, repositories: BTreeSet<String>) -> String {
        self.count += 1;
        let text = format!("token-{}-of-{user}", self.count);
        let end = Instant::now() + self.lifetime;
        self.given.insert(text.clone(), Token { user: user.to_owned(), repositories, end });
        text
    }

    /// The user of the token in a request, if it is for this repository; else what is wrong with it.
    pub fn user(&self, headers: &HeaderMap, repository: &str) -> Result<String, Option<&'static str>> {
        let value = headers.get(AUTHORIZATION).ok_or(None)?;
        let token = value.to_str().ok().and_then(|value| value.strip_prefix("Bearer "));
        let token = token.and_then(|token| self.given.get(token)).ok_or(Some("invalid_token"))?;
        if token.end <= Instant::now() {
            return Err(Some("invalid_token"));
        }
        if !token.repositories.contains(repository) {
            return Err(Some("insufficient_scope"));
        }
        Ok(token.user.clone())
    }

    /// All that were given end now.
    pub fn expire(&mut self) {
        self.given.clear();
    }
}
