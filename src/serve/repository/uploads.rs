//! Uploads: bytes come in order, in any number of requests, and become a blob if they have the digest that is announced.
//! It must never finish an upload whose bytes were not all hashed.

use std::collections::hash_map::Entry;
use std::ops::Range;
use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinHandle;

use super::checkpoint::Checkpoint;
use super::{Error, Repositories};
use crate::oci::{Algorithm, Digest, Hasher, RepositoryName};
use crate::serve::store::StoreError;

/// How much is gathered before it is written and hashed, while the next is gathered. An upload's memory is twice this.
const GATHERED: usize = 512 * 1024;
/// From how many bytes on an upload's hash is written down at a stop: less is read again in no time.
const WORTH_A_CHECKPOINT: u64 = 16 * 1024 * 1024;
/// How long a request waits for another one that is still at the same upload.
const PATIENCE: Duration = Duration::from_secs(5);

/// An upload's name: 32 hexadecimal digits, never guessed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UploadId(String);

impl UploadId {
    /// One made of random bits.
    #[must_use]
    pub fn from_random(bits: u128) -> Self {
        Self(format!("{bits:032x}"))
    }

    /// One that a client names; None if it cannot be ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hexadecimal = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (text.len() == 32 && hexadecimal).then(|| Self(text.to_owned()))
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How far an upload is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Which one.
    pub id: UploadId,
    /// How many bytes are there.
    pub length: u64,
}

/// What a request's body is to the domain.
pub trait Body: Stream<Item = Result<Bytes, Box<dyn std::error::Error + Send + Sync>>> + Send {}
impl<T: Stream<Item = Result<Bytes, Box<dyn std::error::Error + Send + Sync>>> + Send> Body for T {}

/// Bytes for an upload.
pub struct Chunk<B> {
    /// Where they belong, if the client says so.
    pub range: Option<Range<u64>>,
    /// The bytes.
    pub body: B,
}

/// An upload under way, in memory.
pub struct Session {
    id: UploadId,
    repository: RepositoryName,
    length: u64,
    hasher: Hasher,
    ended: bool,
}

type Held = OwnedMutexGuard<Session>;

impl Repositories {
    /// Begins an upload.
    ///
    /// # Errors
    /// When too many are under way, or the store fails.
    pub async fn begin_upload(
        self: &Arc<Self>,
        repository: &RepositoryName,
        id: UploadId,
        algorithm: Algorithm,
    ) -> Result<Progress, Error> {
        if self.open_uploads() >= self.settings().open_uploads {
            return Err(Error::TooManyUploads);
        }
        self.need_room().await?;
        let (this, repository) = (self.clone(), repository.clone());
        Self::to_its_end(async move {
            this.store.begin(id.as_str(), &repository).await?;
            let session =
                Session { id: id.clone(), repository, length: 0, hasher: Hasher::new(algorithm), ended: false };
            let progress = session.progress();
            this.with_uploads(|uploads| uploads.insert(id, Arc::new(tokio::sync::Mutex::new(session))));
            Ok(progress)
        })
        .await
    }

    /// How far an upload is.
    ///
    /// # Errors
    /// When there is no such upload.
    pub async fn upload_progress(&self, repository: &RepositoryName, id: &UploadId) -> Result<Progress, Error> {
        Ok(self.hold(repository, id).await?.progress())
    }

    /// Adds bytes to an upload.
    ///
    /// # Errors
    /// When they do not belong there or cannot be read or written. What came in order before that is kept.
    pub async fn append<B: Body>(
        self: &Arc<Self>,
        repository: &RepositoryName,
        id: &UploadId,
        chunk: Chunk<B>,
    ) -> Result<Progress, Error> {
        let held = self.hold(repository, id).await?;
        Ok(self.receive(held, chunk).await?.progress())
    }

    /// Adds the last bytes of an upload, and makes it a blob.
    ///
    /// # Errors
    /// As [`Repositories::append`]; and when the bytes do not have the digest, which ends the upload.
    pub async fn finish_upload<B: Body>(
        self: &Arc<Self>,
        repository: &RepositoryName,
        id: &UploadId,
        chunk: Chunk<B>,
        digest: &Digest,
    ) -> Result<(), Error> {
        let held = self.hold(repository, id).await?;
        let mut held = self.receive(held, chunk).await?;
        let (this, digest) = (self.clone(), digest.clone());
        Self::to_its_end(async move {
            let found = this.hash(&mut held, digest.algorithm()).await?;
            if found != digest {
                this.end(&mut held);
                this.store.abandon(held.id.as_str()).await?;
                return Err(Error::WrongDigest { announced: digest, found });
            }
            let _reading = this.digest_locks.read(&digest).await;
            this.store.finish(held.id.as_str(), held.length, &digest).await?;
            this.end(&mut held);
            this.link_blob(&held.repository, &digest, &digest).await
        })
        .await
    }

    /// Ends an upload and forgets its bytes.
    ///
    /// # Errors
    /// When there is no such upload.
    pub async fn cancel_upload(self: &Arc<Self>, repository: &RepositoryName, id: &UploadId) -> Result<(), Error> {
        let mut held = self.hold(repository, id).await?;
        let this = self.clone();
        Self::to_its_end(async move {
            this.end(&mut held);
            Ok(this.store.abandon(held.id.as_str()).await?)
        })
        .await
    }

    /// Forgets the uploads that got nothing for so long; returns how many.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn cancel_idle_uploads(&self, seconds: u64) -> Result<usize, Error> {
        let count = self.store.abandon_idle(seconds).await?;
        let idle: Vec<UploadId> = self.with_uploads(|uploads| uploads.keys().cloned().collect());
        for id in idle {
            if self.store.upload(id.as_str()).await?.is_none() {
                self.with_uploads(|uploads| uploads.remove(&id));
            }
        }
        Ok(count)
    }

    /// Refuses, as the system does when nothing is left, once only the reserve is. What is there is finished in the reserve:
    /// a manifest, the links, what a delete writes.
    async fn need_room(&self) -> Result<(), StoreError> {
        let reserve = self.settings().reserve_percent;
        if reserve == 0 {
            return Ok(());
        }
        let used = self.store.used_percent().await?;
        if used < 100 - i32::from(reserve) {
            return Ok(());
        }
        let source = std::io::ErrorKind::StorageFull.into();
        Err(StoreError { doing: "take more bytes", what: format!("with {used} % of the room in use"), source })
    }

    /// How many uploads are under way.
    pub fn open_uploads(&self) -> usize {
        self.with_uploads(|uploads| uploads.len())
    }

    fn with_uploads<T>(
        &self,
        act: impl FnOnce(&mut std::collections::HashMap<UploadId, Arc<tokio::sync::Mutex<Session>>>) -> T,
    ) -> T {
        act(&mut self.uploads.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn end(&self, session: &mut Session) {
        session.ended = true;
        self.with_uploads(|uploads| uploads.remove(&session.id));
    }

    /// Writes down how far the large uploads are hashed. To be called when no request runs any more.
    pub async fn suspend_uploads(&self) {
        let sessions: Vec<_> = self.with_uploads(|uploads| uploads.values().cloned().collect());
        for session in sessions {
            let Ok(held) = tokio::time::timeout(PATIENCE, session.lock_owned()).await else { continue };
            if held.ended || held.length < WORTH_A_CHECKPOINT {
                continue;
            }
            let checkpoint = Checkpoint { length: held.length, hasher: held.hasher.clone() };
            if let Err(error) = self.store.suspend(held.id.as_str(), checkpoint.write()).await {
                tracing::warn!(upload = held.id.as_str(), %error, "an upload's bytes will be hashed again");
            }
        }
    }

    /// Takes an upload for this request alone. One that was begun before a restart is hashed first.
    async fn hold(&self, repository: &RepositoryName, id: &UploadId) -> Result<Held, Error> {
        let known = self.with_uploads(|uploads| uploads.get(id).cloned());
        let session = match known {
            Some(session) => session,
            None => self.take_up(id).await?,
        };
        let waited = tokio::time::timeout(PATIENCE, session.lock_owned()).await;
        let held = waited.map_err(|_| Error::UploadBusy)?;
        if held.ended || held.repository != *repository { Err(Error::UploadUnknown) } else { Ok(held) }
    }

    async fn take_up(&self, id: &UploadId) -> Result<Arc<tokio::sync::Mutex<Session>>, Error> {
        let upload = self.store.upload(id.as_str()).await?.ok_or(Error::UploadUnknown)?;
        let (repository, length) = (upload.repository, upload.length);
        let checkpoint = upload.note.as_deref().and_then(Checkpoint::read);
        // A loss of power may have cut a file that grew after its checkpoint.
        let checkpoint = checkpoint.filter(|checkpoint| checkpoint.length <= length).unwrap_or_default();
        let hasher = Hasher::new(Algorithm::Sha256);
        let mut session = Session { id: id.clone(), repository, length, hasher, ended: false };
        session.hasher = self.hash_on(&session, checkpoint).await?;
        let session = Arc::new(tokio::sync::Mutex::new(session));
        Ok(self.with_uploads(|uploads| match uploads.entry(id.clone()) {
            // Another request was faster.
            Entry::Occupied(entry) => entry.get().clone(),
            Entry::Vacant(entry) => entry.insert(session).clone(),
        }))
    }

    async fn hash(&self, session: &mut Session, algorithm: Algorithm) -> Result<Digest, Error> {
        if session.hasher.algorithm() != algorithm {
            let nothing = Checkpoint { length: 0, hasher: Hasher::new(algorithm) };
            session.hasher = self.hash_on(session, nothing).await?;
        }
        Ok(session.hasher.clone().finish())
    }

    /// Hashes what is there behind a checkpoint.
    async fn hash_on(&self, session: &Session, from: Checkpoint) -> Result<Hasher, Error> {
        let Checkpoint { length: mut offset, mut hasher } = from;
        while offset < session.length {
            let bytes = self.store.received(session.id.as_str(), offset..session.length).await?;
            if bytes.is_empty() {
                return Err(Error::UploadUnknown);
            }
            offset += bytes.len() as u64;
            hasher = tokio::task::spawn_blocking(move || {
                hasher.update(&bytes);
                hasher
            })
            .await?;
        }
        Ok(hasher)
    }

    /// Takes a body to its end: one part is written and hashed while the next arrives.
    async fn receive<B: Body>(self: &Arc<Self>, mut held: Held, chunk: Chunk<B>) -> Result<Held, Error> {
        if let Some(range) = &chunk.range
            && range.start != held.length
        {
            return Err(Error::OutOfOrder { progress: held.progress(), offered: range.start });
        }
        let (start, hasher) = (held.length, held.hasher.clone());
        let announced = chunk.range.map(|range| range.end - range.start);
        let mut received = 0;
        let mut body = pin!(chunk.body);
        let mut gathered = Gathered::default();
        let mut writing: Option<JoinHandle<(Held, Result<(), StoreError>)>> = None;
        let mut failure = None;
        let mut spare = Some(held);
        loop {
            let next = body.next().await;
            let ended = !matches!(next, Some(Ok(_)));
            match next {
                Some(Ok(bytes)) => {
                    received += bytes.len() as u64;
                    gathered.push(bytes);
                }
                Some(Err(error)) => failure = Some(Error::Receive(error)),
                None => {}
            }
            let too_long = announced.is_some_and(|announced| received > announced);
            if !too_long && (gathered.length < GATHERED && !ended) {
                continue;
            }
            held = match (spare.take(), writing.take()) {
                (Some(held), _) => held,
                (None, Some(task)) => {
                    let (held, written) = task.await?;
                    written?;
                    held
                }
                (None, None) => return Err(Error::UploadUnknown),
            };
            if too_long || (ended && failure.is_none() && announced.is_some_and(|announced| received != announced)) {
                // Nothing of a chunk that contradicts itself counts.
                (held.length, held.hasher) = (start, hasher);
                return Err(Error::ChunkLength { announced: announced.unwrap_or_default() });
            }
            if ended {
                let (held, written) = self.write(held, gathered).await?;
                written?;
                return failure.map_or(Ok(held), Err);
            }
            writing = Some(self.write(held, std::mem::take(&mut gathered)));
        }
    }

    /// Writes and hashes in a task that holds the upload until both are done.
    fn write(self: &Arc<Self>, mut held: Held, gathered: Gathered) -> JoinHandle<(Held, Result<(), StoreError>)> {
        let this = self.clone();
        tokio::spawn(async move {
            if gathered.length == 0 {
                return (held, Ok(()));
            }
            let part = match this.need_room().await {
                Ok(()) => this.store.part(held.id.as_str(), held.length, gathered.parts, held.hasher.clone()).await,
                Err(error) => Err(error),
            };
            let written = part.map(|hasher| {
                held.length += gathered.length as u64;
                held.hasher = hasher;
            });
            (held, written)
        })
    }
}

impl Session {
    fn progress(&self) -> Progress {
        Progress { id: self.id.clone(), length: self.length }
    }
}

#[derive(Default)]
struct Gathered {
    parts: Vec<Bytes>,
    length: usize,
}

impl Gathered {
    fn push(&mut self, bytes: Bytes) {
        self.length += bytes.len();
        if !bytes.is_empty() {
            self.parts.push(bytes);
        }
    }
}
