//! Who may have what of an upstream's: what was proven by asking the upstream itself, and for how long that holds. It must never
//! keep a credential, and never take a right from anything but an answer that the upstream gave for that right.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use ring::hmac;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::freshness::{self, Settings};
use super::store::Scope;
use crate::serve::upstream::Basic;

/// For so long a repository is public after an anonymous request for something in it was answered.
const PUBLIC: Duration = Duration::from_secs(3600);
/// For so long a right is good: the bound of how long a revoked one is still used.
const GRANTED: Duration = Duration::from_secs(300);
/// For so long a refusal is not asked for again.
const REFUSED: Duration = Duration::from_secs(60);
/// How many proofs are remembered of each kind; beyond that the oldest are forgotten, which costs a question each.
const REMEMBERED: usize = 16_384;

/// Who may have images that an upstream does not give to everybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum PrivateImages {
    /// Whoever the upstream gives them to: it is asked with the client's own credential.
    #[default]
    VerifyWithUpstream,
    /// All who may ask here: they are fetched with the configured credential.
    Shared,
    /// Nobody.
    Deny,
}

/// Whose credential a request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Whose {
    /// Nobody's.
    Nobody,
    /// That which is configured.
    Ours,
    /// That which the client brought.
    Client,
}

/// What is known of a caller in a repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// How long ago an anonymous request was answered.
    pub public: Option<Duration>,
    /// An anonymous request was refused a moment ago.
    pub private: bool,
    /// How long ago this caller's credential was good.
    pub granted: Option<Duration>,
    /// It was refused a moment ago.
    pub refused: bool,
}

/// How a caller stands to a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// They may have what is there; what is not is asked for with this credential.
    Allowed(Whose),
    /// The upstream has to be asked with these, in turn, until it gives the object.
    Prove(&'static [Whose]),
    /// A credential could help.
    Unauthorized,
    /// None would, or not this one.
    Denied,
}

/// How a caller stands to a repository. `away` says that the upstream cannot be asked: what was proven holds longer then.
#[must_use]
pub fn standing(
    policy: PrivateImages,
    has_credential: bool,
    known: Known,
    away: bool,
    settings: &Settings,
) -> Standing {
    let within = |age: Option<Duration>, usual: Duration, prolonged: Duration| {
        age.is_some_and(|age| age < usual || (away && age < prolonged))
    };
    let is_public = within(known.public, PUBLIC, settings.stale_if_error);
    match policy {
        PrivateImages::Shared => Standing::Allowed(Whose::Ours),
        _ if is_public => Standing::Allowed(Whose::Ours),
        PrivateImages::Deny if known.private => Standing::Denied,
        PrivateImages::Deny => Standing::Prove(&[Whose::Nobody]),
        PrivateImages::VerifyWithUpstream => {
            if has_credential && within(known.granted, GRANTED, settings.right_stale_if_error) {
                return Standing::Allowed(Whose::Client);
            }
            match (known.private, has_credential, known.refused) {
                (true, false, _) => Standing::Unauthorized,
                (true, true, true) => Standing::Denied,
                (true, true, false) => Standing::Prove(&[Whose::Client]),
                (false, true, false) => Standing::Prove(&[Whose::Nobody, Whose::Client]),
                (false, _, _) => Standing::Prove(&[Whose::Nobody]),
            }
        }
    }
}

/// A credential, as it is remembered: a keyed hash of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

/// What was proven lately.
pub struct Proofs {
    key: hmac::Key,
    public: Remembered<Scope, Timestamp>,
    private: Remembered<Scope, ()>,
    granted: Remembered<(Fingerprint, Scope), ()>,
    refused: Remembered<(Fingerprint, Scope), ()>,
}

impl Proofs {
    /// Nothing yet. `key` is random and of this process alone.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let (public, private, granted, refused) = Default::default();
        Self { key, public, private, granted, refused }
    }

    /// A credential's hash.
    #[must_use]
    pub fn fingerprint(&self, credential: &Basic) -> Fingerprint {
        let mut context = hmac::Context::with_key(&self.key);
        // A name has no NUL, so that no two credentials are written alike.
        context.update(credential.user.as_bytes());
        context.update(&[0]);
        context.update(credential.password.as_bytes());
        let mut hash = [0; 32];
        hash.copy_from_slice(context.sign().as_ref());
        Fingerprint(hash)
    }

    /// What is known of a caller.
    pub fn known(&self, scope: &Scope, caller: Option<Fingerprint>, now: Timestamp) -> Known {
        let public = self.public.get(scope).map(|(since, _)| freshness::age(since, now).unwrap_or_default());
        let private = self.private.get(scope).is_some_and(|((), age)| age < REFUSED);
        let Some(caller) = caller else { return Known { public, private, ..Known::default() } };
        let key = (caller, scope.clone());
        let granted = self.granted.get(&key).map(|((), age)| age);
        let refused = self.refused.get(&key).is_some_and(|((), age)| age < REFUSED);
        Known { public, private, granted, refused }
    }

    /// Whether this process knows by itself whether a repository is public.
    pub fn remembers(&self, scope: &Scope) -> bool {
        self.public.get(scope).is_some() || self.private.get(scope).is_some_and(|((), age)| age < REFUSED)
    }

    /// An anonymous request was answered at this time, by what an earlier process wrote down.
    pub fn was_public(&self, scope: &Scope, at: Timestamp) {
        self.public.remember(scope.clone(), at);
    }

    /// An anonymous request was answered at this time.
    pub fn is_public(&self, scope: &Scope, at: Timestamp) {
        self.private.forget(scope);
        self.public.remember(scope.clone(), at);
    }

    /// What was proven of the public does not hold any more; what does is open.
    pub fn is_open(&self, scope: &Scope) {
        self.public.forget(scope);
    }

    /// An anonymous request was refused.
    pub fn is_private(&self, scope: &Scope) {
        self.public.forget(scope);
        self.private.remember(scope.clone(), ());
    }

    /// A request with a credential was answered.
    pub fn is_granted(&self, scope: &Scope, caller: Fingerprint) {
        let key = (caller, scope.clone());
        self.refused.forget(&key);
        self.granted.remember(key, ());
    }

    /// A request with a credential was refused.
    pub fn is_refused(&self, scope: &Scope, caller: Fingerprint) {
        let key = (caller, scope.clone());
        self.granted.forget(&key);
        self.refused.remember(key, ());
    }
}

/// A bounded memory of values and of when each was put there.
pub(super) struct Remembered<K, V>(Mutex<HashMap<K, (V, Instant)>>);

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash, V: Copy> Remembered<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<(V, Duration)> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(key).map(|(value, since)| (*value, since.elapsed()))
    }

    pub(super) fn remember(&self, key: K, value: V) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= REMEMBERED && !entries.contains_key(&key) {
            // One in two goes, the older ones: a bound that costs nothing until it is reached.
            let mut times: Vec<Instant> = entries.values().map(|(_, since)| *since).collect();
            let middle = times.len() / 2;
            let (_, median, _) = times.select_nth_unstable(middle);
            let median = *median;
            entries.retain(|_, (_, since)| *since > median);
        }
        entries.insert(key, (value, Instant::now()));
    }

    pub(super) fn forget(&self, key: &K) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::{Known, PrivateImages, Proofs, REMEMBERED, Remembered, Standing, Whose, standing};
    use crate::serve::cache::freshness::Settings;
    use crate::serve::cache::store::Scope;
    use crate::serve::upstream::Basic;

    const NOTHING: Known = Known { public: None, private: false, granted: None, refused: false };

    #[test]
    fn each_caller_stands_as_was_proven() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let prove_all = Standing::Prove(&[Whose::Nobody, Whose::Client]);
        let (ours, client) = (Standing::Allowed(Whose::Ours), Standing::Allowed(Whose::Client));
        let prove_anonymous = Standing::Prove(&[Whose::Nobody]);
        let settings = Settings { stale_if_error: Duration::from_secs(10_000), ..Settings::default() };
        for (has_credential, away, known, expected) in [
            (false, false, NOTHING, &prove_anonymous),
            (true, false, NOTHING, &prove_all),
            (false, false, Known { public: seconds(3599), ..NOTHING }, &ours),
            (true, false, Known { public: seconds(3599), ..NOTHING }, &ours),
            (false, false, Known { public: seconds(3600), ..NOTHING }, &prove_anonymous),
            (false, true, Known { public: seconds(9999), ..NOTHING }, &ours),
            (false, true, Known { public: seconds(10_000), ..NOTHING }, &prove_anonymous),
            (false, false, Known { private: true, ..NOTHING }, &Standing::Unauthorized),
            (true, false, Known { private: true, ..NOTHING }, &Standing::Prove(&[Whose::Client])),
            (true, false, Known { private: true, refused: true, ..NOTHING }, &Standing::Denied),
            (true, false, Known { refused: true, ..NOTHING }, &prove_anonymous),
            (true, false, Known { private: true, granted: seconds(299), ..NOTHING }, &client),
            (true, false, Known { granted: seconds(300), ..NOTHING }, &prove_all),
            (true, true, Known { granted: seconds(3599), ..NOTHING }, &client),
            (
                true,
                true,
                Known { private: true, granted: seconds(3600), ..NOTHING },
                &Standing::Prove(&[Whose::Client]),
            ),
            // What was granted to somebody is nothing to one without a credential.
            (false, true, Known { private: true, granted: seconds(1), ..NOTHING }, &Standing::Unauthorized),
        ] {
            let found = standing(PrivateImages::VerifyWithUpstream, has_credential, known, away, &settings);
            assert_eq!(&found, expected, "{has_credential} {away} {known:?}");
        }
        let private = Known { private: true, granted: seconds(1), ..NOTHING };
        let public = Known { public: seconds(1), ..NOTHING };
        for (policy, known, expected) in [
            (PrivateImages::Shared, NOTHING, &ours),
            (PrivateImages::Shared, private, &ours),
            (PrivateImages::Deny, NOTHING, &prove_anonymous),
            (PrivateImages::Deny, private, &Standing::Denied),
            (PrivateImages::Deny, public, &ours),
        ] {
            assert_eq!(&standing(policy, true, known, false, &settings), expected, "{policy:?} {known:?}");
        }
    }

    #[test]
    fn what_was_proven_is_of_one_credential_and_one_repository() {
        let scope = |name: &str| Scope { upstream: "docker.io".parse().unwrap(), repository: name.parse().unwrap() };
        let proofs = Proofs::new(&[7; 32]);
        let basic = |user: &str, password: &str| Basic { user: user.to_owned(), password: password.to_owned() };
        let (one, other) = (proofs.fingerprint(&basic("a", "bc")), proofs.fingerprint(&basic("ab", "c")));
        assert!(one != other, "two credentials are taken for one");
        let now = Timestamp::constant(1_800_000_000, 0);
        proofs.is_private(&scope("a/a"));
        proofs.is_granted(&scope("a/a"), one);
        assert!(proofs.known(&scope("a/a"), Some(one), now).granted.is_some());
        assert_eq!(proofs.known(&scope("a/a"), Some(other), now), Known { private: true, ..NOTHING });
        assert_eq!(proofs.known(&scope("a/b"), Some(one), now), NOTHING);
        assert_eq!(proofs.known(&scope("a/a"), None, now), Known { private: true, ..NOTHING });
        proofs.is_refused(&scope("a/a"), one);
        assert_eq!(proofs.known(&scope("a/a"), Some(one), now), Known { private: true, refused: true, ..NOTHING });
        proofs.is_public(&scope("a/a"), now);
        assert_eq!(proofs.known(&scope("a/a"), None, now), Known { public: Some(Duration::ZERO), ..NOTHING });
        proofs.is_private(&scope("a/a"));
        assert_eq!(proofs.known(&scope("a/a"), None, now), Known { private: true, ..NOTHING });
    }

    #[test]
    fn memory_is_bounded_and_the_newest_stay() {
        let remembered = Remembered::<usize, ()>::default();
        for key in 0..REMEMBERED * 3 {
            remembered.remember(key, ());
            assert!(remembered.get(&key).is_some());
        }
        assert!(remembered.0.lock().unwrap().len() <= REMEMBERED);
    }
}
