//! How far one fill is, for whom it is, and what of it a reader may see.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::figures::{FailedBy, Host};
use super::keep::PartialFile;
use crate::oci::{Digest, Hasher};
use crate::serve::cache::store::Scope;
use crate::serve::store::StoreError;
use crate::serve::upstream::Failure;

/// How far a fill is. The table is at the head of the module.
#[derive(Clone)]
pub enum Stage {
    /// The upstream has not answered yet.
    Opening,
    /// Bytes arrive.
    Growing(Grown),
    /// All bytes are there and right.
    Proven(Grown),
    /// It is over without that.
    Failed(Reason),
}

/// What is there of a blob.
#[derive(Clone)]
pub struct Grown {
    /// The file.
    pub file: Arc<dyn PartialFile>,
    /// How many bytes it has.
    pub there: u64,
    /// How many bytes the blob has, if that was announced.
    pub length: Option<u64>,
}

/// What is there of a blob whose rest is not kept.
pub struct Rest {
    /// What is there.
    pub grown: Grown,
    /// The hash of it.
    pub hasher: Hasher,
}

/// Why a fill is over.
#[derive(Clone)]
pub enum Reason {
    /// The upstream did not begin to give it.
    NotOpened(Failure),
    /// There was no place among the fills from its upstream.
    Busy,
    /// The store has it already.
    Kept,
    /// The store has no room for it; nothing was begun.
    NoRoom,
    /// The store took some bytes and refused more.
    Refused(Arc<Rest>),
    /// The upstream did not give it to its end, or gave something else.
    Broken(Failure),
    /// Its clients left too early.
    Unwanted,
    /// Its task ended before it was done.
    Lost,
}

impl Reason {
    /// As it is counted; None where nothing failed.
    pub fn counted(&self) -> Option<FailedBy> {
        match self {
            Self::NotOpened(_) => Some(FailedBy::Opening),
            Self::Busy => Some(FailedBy::Busy),
            Self::Kept | Self::NoRoom => None,
            Self::Refused(_) => Some(FailedBy::Store),
            Self::Broken(Failure::Wrong { .. }) => Some(FailedBy::Wrong),
            Self::Broken(_) => Some(FailedBy::Cut),
            Self::Unwanted => Some(FailedBy::Unwanted),
            Self::Lost => Some(FailedBy::Lost),
        }
    }
}

/// What a reader finds who wants a range of the blob.
pub enum Sight {
    /// Some bytes that may be read.
    Bytes(Arc<dyn PartialFile>, Range<u64>),
    /// The range begins where the blob ends.
    End,
    /// The rest has to be brought by the reader itself.
    Alone(Arc<Rest>),
    /// There will be no bytes.
    Nothing(StoreError),
}

/// Up to where a blob may be read by who wants it up to `end`: its last bytes only when all are proven to be right.
pub fn visible(grown: &Grown, end: u64, held_back: u64) -> u64 {
    match grown.length {
        Some(length) if end < length => grown.there,
        Some(length) => grown.there.min(length.saturating_sub(held_back)),
        None => grown.there.saturating_sub(held_back),
    }
}

/// For whom a fill is.
struct Scopes {
    allowed: Vec<Scope>,
    over: bool,
}

/// One blob on its way.
pub struct Fill {
    digest: Digest,
    id: String,
    /// Where it comes from.
    pub(super) host: Arc<Host>,
    /// For whom it was begun.
    pub(super) scope: Scope,
    scopes: Mutex<Scopes>,
    pub(super) stage: watch::Sender<Stage>,
}

impl Fill {
    pub(super) fn new(digest: Digest, id: String, host: Arc<Host>, scope: Scope) -> Self {
        let scopes = Mutex::new(Scopes { allowed: vec![scope.clone()], over: false });
        Self { digest, id, host, scope, scopes, stage: watch::Sender::new(Stage::Opening) }
    }

    /// Which blob.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Which fill of it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Lets a scope have it: its upstream has answered 200 there. Returns false where the fill is over, so that the blob has to
    /// be looked for in the store, and linked there, by who asks.
    pub fn allow(&self, scope: &Scope) -> bool {
        let mut scopes = self.scopes();
        if !scopes.over && !scopes.allowed.contains(scope) {
            scopes.allowed.push(scope.clone());
        }
        !scopes.over
    }

    /// Whether a scope may have it.
    pub(super) fn permits(&self, scope: &Scope) -> bool {
        self.scopes().allowed.contains(scope)
    }

    /// The scopes that were allowed behind the first `known`.
    pub(super) fn allowed_since(&self, known: usize) -> Vec<Scope> {
        self.scopes().allowed.iter().skip(known).cloned().collect()
    }

    /// Lets no more scopes in, if there are not more of them than are known.
    pub(super) fn close(&self, known: usize) -> bool {
        let mut scopes = self.scopes();
        scopes.over |= scopes.allowed.len() <= known;
        scopes.over
    }

    fn scopes(&self) -> MutexGuard<'_, Scopes> {
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a reader finds now who wants a range; None while there is nothing yet.
    pub(super) fn sight(&self, stage: &Stage, range: &Range<u64>, held_back: u64) -> Option<Sight> {
        let passes = |grown: &Grown, end: u64| {
            let bytes = range.start..end.min(range.end);
            (!bytes.is_empty()).then(|| Sight::Bytes(grown.file.clone(), bytes))
        };
        match stage {
            Stage::Opening => None,
            Stage::Growing(grown) => passes(grown, visible(grown, range.end, held_back)),
            Stage::Proven(grown) => Some(passes(grown, grown.there).unwrap_or(Sight::End)),
            Stage::Failed(Reason::Refused(rest)) => {
                let seen = passes(&rest.grown, visible(&rest.grown, range.end, held_back));
                Some(seen.unwrap_or_else(|| Sight::Alone(rest.clone())))
            }
            Stage::Failed(reason) => Some(Sight::Nothing(self.failed(reason))),
        }
    }

    fn failed(&self, reason: &Reason) -> StoreError {
        match reason {
            Reason::NotOpened(failure) | Reason::Broken(failure) => cut_off(&self.digest, &self.host, failure),
            Reason::Refused(_) | Reason::NoRoom => cut_off(&self.digest, &self.host, "there is no room for it"),
            Reason::Busy => cut_off(&self.digest, &self.host, "too much is on its way from there"),
            Reason::Kept => cut_off(&self.digest, &self.host, "it is here already"),
            Reason::Unwanted => cut_off(&self.digest, &self.host, "its clients had left"),
            Reason::Lost => cut_off(&self.digest, &self.host, "its task ended"),
        }
    }
}

/// What a client's connection ends with when a blob does not come to its end.
pub fn cut_off(digest: &Digest, host: &Host, problem: &(impl ToString + ?Sized)) -> StoreError {
    let what = format!("{digest} from {}", host.name);
    StoreError { doing: "bring the rest of", what, source: io::Error::other(problem.to_string()) }
}

/// What an upstream gave is something else.
pub fn wrong_digest(digest: &Digest, host: &Host, found: &Digest) -> Failure {
    Failure::Wrong { host: host.name.clone(), problem: format!("the bytes of {digest} have the digest {found}") }
}
