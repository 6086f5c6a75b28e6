//! As whom one question is asked. What tells identities apart must never be of use to anybody who sees it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;
use ring::hmac;

use super::tokens::Mark;
use super::trouble::Trouble;
use super::{Basic, Identity};

/// Who asks.
#[derive(Clone)]
pub struct Who {
    pub credential: Option<Basic>,
    is_own: bool,
    pub mark: Mark,
}

impl Who {
    /// By this identity; `own` is the credential that is configured, `key` of this process alone.
    pub fn of(identity: &Identity, own: Option<&Basic>, key: &hmac::Key) -> Self {
        let (credential, is_own) = match identity {
            Identity::Anonymous => (None, false),
            Identity::Own => (own.cloned(), true),
            Identity::Client(credential) => (Some(credential.clone()), false),
        };
        let mark = credential.as_ref().map(|credential| mark(credential, key)).unwrap_or_default();
        Self { credential, is_own, mark }
    }

    /// The header that carries the credential, if there is one.
    pub fn basic(&self) -> Option<HeaderValue> {
        let Basic { user, password } = self.credential.as_ref()?;
        let mut header =
            HeaderValue::try_from(format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))).ok()?;
        header.set_sensitive(true);
        Some(header)
    }

    /// Whether the credential that is configured is used.
    pub fn is_configured(&self) -> bool {
        self.is_own && self.credential.is_some()
    }

    /// What it means that the credential, or the lack of one, is refused.
    pub fn rejected(&self) -> Trouble {
        if self.is_configured() { Trouble::CredentialsRejected } else { Trouble::Denied }
    }
}

fn mark(credential: &Basic, key: &hmac::Key) -> Mark {
    let mut context = hmac::Context::with_key(key);
    // The length keeps two pairs from making the same text.
    context.update(&(credential.user.len() as u64).to_be_bytes());
    context.update(credential.user.as_bytes());
    context.update(credential.password.as_bytes());
    context.sign().as_ref().try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use ring::hmac;

    use super::Who;
    use crate::serve::upstream::trouble::Trouble;
    use crate::serve::upstream::{Basic, Identity};

    fn basic(user: &str, password: &str) -> Basic {
        Basic { user: user.into(), password: password.into() }
    }

    #[test]
    fn identities_are_told_apart_by_all_that_they_are() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
        let own = basic("own", "secret");
        let who = |identity| Who::of(&identity, Some(&own), &key);
        let client = |user: &str, password: &str| Identity::Client(basic(user, password));
        // The same credential gets the same tokens, whoever has it.
        assert_eq!(who(Identity::Own).mark, who(client("own", "secret")).mark);
        let marks = [
            who(Identity::Own).mark,
            who(Identity::Anonymous).mark,
            who(client("own", "other")).mark,
            who(client("owns", "ecret")).mark,
            who(client("", "")).mark,
        ];
        for (at, mark) in marks.iter().enumerate() {
            assert!(!marks[..at].contains(mark), "{at}");
        }
        assert_eq!(Who::of(&Identity::Own, None, &key).mark, who(Identity::Anonymous).mark);
        assert_eq!(who(Identity::Own).rejected(), Trouble::CredentialsRejected);
        assert_eq!(Who::of(&Identity::Own, None, &key).rejected(), Trouble::Denied);
        assert_eq!(who(client("own", "secret")).rejected(), Trouble::Denied);
        assert_eq!(who(client("a", "b:c")).basic().unwrap(), "Basic YTpiOmM=");
        assert!(who(Identity::Anonymous).basic().is_none());
    }
}
