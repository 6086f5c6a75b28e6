//! Pull-through: what other registries have, fetched once, kept as long as there is room, and given to those who may have it.
//! It must never give bytes that are not of their digest, nor an object to somebody for whom the upstream has not been asked.

mod asking;
mod blobs;
pub mod fill;
pub mod freshness;
mod manifests;
pub mod metrics;
mod pace;
mod patience;
pub mod rights;
pub mod store;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use thiserror::Error;

use self::asking::Asked;
use self::fill::Fills;
use self::freshness::Settings;
use self::pace::Pace;
use self::patience::Patience;
use self::rights::{PrivateImages, Proofs, Remembered};
use self::store::{CacheStore, Scope};
use super::flights::Flights;
use super::store::StoreError;
use super::upstream::{Basic, Failure, FetchedManifest, Head, Upstream};
use crate::oci::{Digest, ManifestType, RegistryHost, Tag};

pub use blobs::Blob;
pub use metrics::Metrics;

/// For whom something is asked.
#[derive(Clone, Debug)]
pub enum Caller {
    /// A client, with the credential that it brought.
    Client(Option<Basic>),
    /// This server itself, with the configured credential. What it is given proves nothing for anybody.
    Mirror,
}

/// A request for something that another registry has.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Where.
    pub scope: Scope,
    /// For whom.
    pub caller: Caller,
    /// Whether the bytes are not wanted.
    pub head: bool,
    /// Through which servers it came, as its `Via` says.
    pub via: String,
}

/// A manifest of another registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its digest.
    pub digest: Digest,
    /// Its type, as the upstream had it.
    pub media_type: ManifestType,
    /// How long it is.
    pub length: u64,
    /// Its bytes; they may be missing where they were not wanted.
    pub bytes: Option<Bytes>,
    /// How old the tag's answer is, where the upstream could not be asked for a newer one.
    pub age: Option<Duration>,
}

/// Why a request is not answered with what it asks for.
#[derive(Debug, Error)]
pub enum Refused {
    /// The upstream does not have it, or it is not configured here.
    #[error("{0} does not have it")]
    Unknown(RegistryHost),
    /// A credential is needed that the upstream accepts.
    #[error("{0} gives it only to those with a credential")]
    Unauthorized(RegistryHost),
    /// This caller does not get it.
    #[error("{0} does not give it to this caller")]
    Denied(RegistryHost),
    /// It is not here, or not with all that belongs to it, and cannot be fetched now.
    #[error("{problem}")]
    Away {
        /// What was tried and what came back.
        problem: String,
        /// When to ask again.
        retry_after: Option<Duration>,
    },
    /// The upstream gave wrong bytes for it a moment ago: what a client has of it must not be continued.
    #[error(
        "{0} gave wrong bytes for this blob lately, and a part that is asked for now could be of other bytes than the rest"
    )]
    Unverified(RegistryHost),
    /// The upstream leads back to this server.
    #[error("{0} leads back to this server")]
    Loop(RegistryHost),
    /// The disk failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One registry that is cached.
pub struct Mirror {
    /// How it is asked.
    pub upstream: Upstream,
    /// Who may have what it does not give to everybody.
    pub private_images: PrivateImages,
    proofs: Pace,
    patience: Patience,
}

impl Mirror {
    /// A registry that is asked like this.
    #[must_use]
    pub fn new(upstream: Upstream, private_images: PrivateImages) -> Self {
        Self { upstream, private_images, proofs: Pace::default(), patience: Patience::default() }
    }

    /// Takes note of whether a question was answered, whatever the answer says.
    fn hear<T>(&self, answer: &Result<T, Failure>) {
        if !matches!(answer, Err(Failure::Away { .. })) {
            self.patience.is_heard();
        }
    }

    /// Whether a question may be asked now: on behalf of those whose right is proven always, for others not too often.
    fn pace(&self, is_proven: bool) -> Result<(), Failure> {
        if is_proven || self.proofs.take(Instant::now()) {
            return Ok(());
        }
        let (host, problem) = (self.upstream.host().clone(), "too many rights are being proven there".to_owned());
        Err(Failure::Away { host, problem, retry_after: None })
    }
}

/// The registries that are cached, and for how long what is known of them is good.
#[derive(Default)]
pub struct Mirrors {
    /// By their names.
    pub by_host: BTreeMap<RegistryHost, Arc<Mirror>>,
    /// For all of them.
    pub settings: Settings,
}

/// A tag that somebody, or everybody, was not given.
type Missing = (Scope, Tag, Option<rights::Fingerprint>, bool);

/// What other registries have.
pub struct Cache {
    store: CacheStore,
    fills: Arc<Fills>,
    mirrors: RwLock<Arc<Mirrors>>,
    proofs: Proofs,
    heads: Flights<Asked, Result<Head, Failure>>,
    manifests: Flights<Asked, Result<FetchedManifest, Failure>>,
    missing: Remembered<Missing, ()>,
    metrics: Metrics,
}

impl Cache {
    /// What is kept in `store` and fetched by `fills`. `key` is random and of this process alone.
    #[must_use]
    pub fn new(store: CacheStore, fills: Arc<Fills>, mirrors: Mirrors, metrics: Metrics, key: &[u8; 32]) -> Self {
        let (heads, manifests, missing) = Default::default();
        let (mirrors, proofs) = (RwLock::new(Arc::new(mirrors)), Proofs::new(key));
        Self { store, fills, mirrors, proofs, heads, manifests, missing, metrics }
    }

    /// Other registries, or others ways to ask them, from now on.
    pub fn change(&self, mirrors: Mirrors) {
        *self.mirrors.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(mirrors);
    }

    /// What is configured now.
    #[must_use]
    pub fn mirrors(&self) -> Arc<Mirrors> {
        self.mirrors.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether this registry is cached.
    #[must_use]
    pub fn knows(&self, host: &RegistryHost) -> bool {
        self.mirrors().by_host.contains_key(host)
    }
}

#[cfg(test)]
mod tests {
    use super::{Mirror, PrivateImages};
    use crate::serve::upstream::{Failure, Settings, Upstream};

    #[test]
    fn who_has_a_right_is_not_held_up_by_those_who_invent_one() {
        let upstream = Upstream::new(Settings::of("registry.example.com".parse().unwrap()), "wharf-test").unwrap();
        let mirror = Mirror::new(upstream, PrivateImages::default());
        // More than a burst, and far more than time makes up for meanwhile.
        let refused = (0..100_000).filter(|_| mirror.pace(false).is_err()).count();
        assert!(refused > 0);
        assert!((0..1000).all(|_| mirror.pace(true).is_ok()));
        let Err(Failure::Away { problem, .. }) = (0..1000).map(|_| mirror.pace(false)).find(Result::is_err).unwrap()
        else {
            panic!("it is refused as something else");
        };
        assert!(problem.contains("too many rights"), "{problem}");
    }
}
