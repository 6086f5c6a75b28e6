//! Push and pull of local content: the protocol's rules over a content store. It must never know HTTP, and never let an
//! answer go out before the store has acknowledged what it says.
//!
//! Whatever changes the store runs in a task of its own, so that a client that leaves does not let go of a lock while the
//! disk is still at work. Locks are taken in this order: repository, tags, digests.
//!
//! | State | Who may move it | What a restart does |
//! |---|---|---|
//! | an upload in memory: its length and the hash so far | one request at a time, which holds its lock | takes the length from the store; what was hashed when the server stopped is not hashed again |
//! | manifests in memory | readers add, changes forget | begins empty |
//! | small blobs in memory | readers add, deletes forget | begins empty |
//! | referrers of a repository in memory | the first question reads the repository's manifests; a manifest's PUT adds | begins empty |
//! | where a blob was seen lately | each upload, mount and pull | begins empty: a mount without a source then falls back to an upload |

mod blobs;
mod checkpoint;
pub(in crate::serve) mod locks;
mod manifests;
mod recent;
mod referrers;
mod referrers_tags;
mod tags;
#[cfg(test)]
mod tests;
mod uploads;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::locks::Locks;
use self::manifests::StoredManifest;
use self::recent::Recent;
use self::referrers::RepositoryReferrers;
use self::uploads::Session;
use super::store::{Store, StoreError};
use crate::oci::manifest::InvalidManifest;
use crate::oci::{Digest, Reference, RepositoryName, Tag};

pub use blobs::Blob;
pub use manifests::{Accepted, PutManifest, StoredManifest as Manifest};
pub use uploads::{Body, Chunk, Progress, UploadId};

/// Digests of which is remembered where they were seen.
const SIGHTINGS: usize = 65_536;
/// Repositories whose referrers are kept in memory.
const REFERRERS: usize = 1024;
/// How many bytes of small blobs are kept in memory.
const SMALL_BLOBS: usize = 4 * 1024 * 1024;

/// What happens to a manifest that names content which its repository does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum MissingContent {
    /// It is refused.
    Reject,
    /// It is refused, but an index may name manifests that are not there.
    #[default]
    IndexOnly,
    /// It is accepted.
    Allow,
}

/// What may be chosen.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What happens to manifests that name absent content.
    pub missing_content: MissingContent,
    /// How many bytes of manifests are kept in memory.
    pub manifest_memory: usize,
    /// How many uploads may be under way, whether bytes arrive or not.
    pub open_uploads: usize,
    /// Percent of the room for content that uploads leave free.
    pub reserve_percent: u8,
}

/// Why something was not done.
#[derive(Debug, Error)]
pub enum Error {
    /// The blob is not in the repository.
    #[error("this repository has no blob {0}")]
    BlobUnknown(Digest),
    /// There is no such upload in the repository.
    #[error("there is no such upload; it may have ended, or have been idle for too long")]
    UploadUnknown,
    /// Another request is at it.
    #[error("another request is still writing to this upload")]
    UploadBusy,
    /// There are as many as may be.
    #[error("too many uploads are under way")]
    TooManyUploads,
    /// A chunk does not begin where the last one ended.
    #[error("this upload goes on at byte {}, not at {offered}", .progress.length)]
    OutOfOrder {
        /// How far the upload is.
        progress: Progress,
        /// Where the chunk begins.
        offered: u64,
    },
    /// A chunk is not as long as it says.
    #[error("the chunk is announced with {announced} bytes and has another length")]
    ChunkLength {
        /// What it says.
        announced: u64,
    },
    /// The client's bytes ended before their end.
    #[error("the request's body could not be read: {0}")]
    Receive(Box<dyn std::error::Error + Send + Sync>),
    /// Content does not have the digest that it was announced with.
    #[error("the content's digest is {found}, not {announced}")]
    WrongDigest {
        /// What the client says.
        announced: Digest,
        /// What it is.
        found: Digest,
    },
    /// The manifest is not in the repository.
    #[error("this repository has no manifest {0}")]
    ManifestUnknown(Reference),
    /// The bytes are not a manifest that is kept here.
    #[error(transparent)]
    ManifestInvalid(#[from] InvalidManifest),
    /// The manifest names what the repository does not have.
    #[error("the manifest names {0}, which this repository does not have: push it first")]
    MissingContent(Digest),
    /// There is no such repository.
    #[error("there is no repository {0}")]
    RepositoryUnknown(RepositoryName),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A task of ours ended without an answer.
    #[error("a task of the server failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// The key of a manifest in memory.
type ManifestKey = (RepositoryName, Reference);

/// All repositories of one store.
pub struct Repositories {
    store: Arc<dyn Store>,
    settings: RwLock<Settings>,
    manifests: Recent<ManifestKey, Arc<StoredManifest>>,
    small_blobs: Recent<(RepositoryName, Digest), Bytes>,
    referrers: Recent<RepositoryName, Arc<RepositoryReferrers>>,
    sightings: Recent<Digest, Vec<RepositoryName>>,
    uploads: Mutex<HashMap<UploadId, Arc<tokio::sync::Mutex<Session>>>>,
    repository_locks: Locks<RepositoryName>,
    tag_locks: Locks<(RepositoryName, Tag)>,
    digest_locks: Locks<Digest>,
}

impl Repositories {
    /// The repositories that a store has.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            store,
            manifests: Recent::new(settings.manifest_memory),
            small_blobs: Recent::new(SMALL_BLOBS),
            referrers: Recent::new(REFERRERS),
            sightings: Recent::new(SIGHTINGS),
            uploads: Mutex::default(),
            repository_locks: Locks::default(),
            tag_locks: Locks::default(),
            digest_locks: Locks::default(),
            settings: RwLock::new(settings),
        })
    }

    fn settings(&self) -> Settings {
        *self.settings.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Chooses anew. What is under way goes on as it began.
    pub fn change(&self, settings: Settings) {
        self.manifests.resize(settings.manifest_memory);
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    /// Runs a change to its end, whether its client stays or leaves.
    async fn to_its_end<T: Send + 'static>(
        change: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        tokio::spawn(change).await?
    }
}
