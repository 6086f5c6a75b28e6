//! Content on its way into the store: a file that only grows, read by others meanwhile, and renamed to its place when its
//! digest is proven. It must never be seen under a digest before that, and never be written again.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::index::Named;
use super::room::Reservation;
use super::{CacheStore, Scope, Shared};
use crate::oci::{Digest, Hasher};
use crate::serve::store::StoreError;
use crate::serve::store::filesystem::reading::OpenFile;

/// A file that grows. What is dropped before [`Partial::commit`] is removed, and what was reserved for it is free again.
pub struct Partial {
    shared: Arc<Shared>,
    digest: Digest,
    path: PathBuf,
    file: OpenFile,
    length: u64,
    reservation: Reservation,
    /// Whether the file has no name of its own any more.
    is_placed: bool,
}

/// Reads what is there of a [`Partial`], also when it is committed or dropped meanwhile. Cloning shares it.
#[derive(Clone)]
pub struct PartialReader(OpenFile);

impl PartialReader {
    /// Reads some of the bytes of the range from its start on, at least one, unless the range is empty. All of them must have
    /// been appended. They may come in the memory of `buffer`, whose bytes do not matter.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn read(&self, range: Range<u64>, buffer: BytesMut) -> Result<Bytes, StoreError> {
        self.0.read(range, buffer).await
    }
}

impl CacheStore {
    /// Begins a file for content of this digest.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn begin(&self, digest: &Digest, reservation: Reservation) -> Result<Partial, StoreError> {
        let (shared, digest) = (self.0.clone(), digest.clone());
        let begin = move || {
            let disk = &shared.tree.disk;
            let path = disk.temporary();
            disk.create_empty(&path)?;
            let missing = || StoreError {
                doing: "open",
                what: path.display().to_string(),
                source: std::io::ErrorKind::NotFound.into(),
            };
            let file = disk.open(&path).and_then(|file| file.ok_or_else(missing));
            let file = match file {
                Ok(file) => OpenFile::new(file, shared.readers.clone()),
                Err(error) => {
                    // The next start takes care of it otherwise.
                    let _ = disk.remove(&path);
                    return Err(error);
                }
            };
            Ok(Partial { shared: shared.clone(), digest, path, file, length: 0, reservation, is_placed: false })
        };
        let opened = self.0.writers.run(begin).await;
        self.0.tree.counts.refused(&opened);
        opened
    }
}

impl Partial {
    /// How many bytes were appended.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whose bytes they are to be.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// What reads what is there.
    #[must_use]
    pub fn reader(&self) -> PartialReader {
        PartialReader(self.file.clone())
    }

    /// Adds bytes. `hasher` takes them too, because it needs a thread of its own as the disk does, and two would cost more.
    /// What is beyond the reservation is reserved besides; where there is no room for it, it fails as a full disk does.
    /// After an error the same bytes may be appended again.
    ///
    /// # Errors
    /// When the disk fails, or there is no room.
    pub async fn append(&mut self, bytes: Vec<Bytes>, mut hasher: Hasher) -> Result<Hasher, StoreError> {
        let added: u64 = bytes.iter().map(|bytes| bytes.len() as u64).sum();
        let length = self.length + added;
        self.reserve(length).await?;
        let (shared, path, offset) = (self.shared.clone(), self.path.clone(), self.length);
        let write = move || {
            shared.tree.disk.write(&path, offset, &bytes)?;
            for bytes in &bytes {
                hasher.update(bytes);
            }
            Ok(hasher)
        };
        let hasher = self.shared.writers.run(write).await;
        self.shared.tree.counts.refused(&hasher);
        self.length = if hasher.is_ok() { length } else { self.length };
        hasher
    }

    async fn reserve(&mut self, length: u64) -> Result<(), StoreError> {
        let missing = length.saturating_sub(self.reservation.bytes());
        if missing == 0 {
            return Ok(());
        }
        let full = || StoreError {
            doing: "reserve room for",
            what: self.digest.to_string(),
            source: std::io::ErrorKind::StorageFull.into(),
        };
        if length > self.shared.demands().0.size {
            self.shared.tree.counts.too_large(length);
            return Err(full());
        }
        let more = CacheStore(self.shared.clone()).reserve(missing).await.ok_or_else(full)?;
        self.reservation.join(more);
        Ok(())
    }

    /// Makes content of it, linked in these repositories as a blob. Its digest was proven. Content that is there already is
    /// kept as it is. A loss of power may take it, but what is there afterwards is right.
    ///
    /// # Errors
    /// When the disk fails. It may be content then, without some of the links.
    pub async fn commit(self, scopes: &[Scope]) -> Result<(), StoreError> {
        let (shared, scopes) = (self.shared.clone(), scopes.to_vec());
        let committed = shared.writers.run(move || self.commit_now(&scopes)).await;
        shared.tree.counts.kept(&committed);
        committed
    }

    fn commit_now(mut self, scopes: &[Scope]) -> Result<(), StoreError> {
        let disk = &self.shared.tree.disk;
        if disk.length(&self.path)? != Some(self.length) {
            // Bytes whose append failed were left behind.
            disk.truncate(&self.path, self.length)?;
        }
        // One turn for all of it: content without a link may be evicted at any time.
        let mut changing = self.shared.tree.change();
        changing.put_content(&self.path, &self.digest, self.length, &mut self.reservation)?;
        self.is_placed = true;
        for scope in scopes {
            changing.put_link(scope, &Named::Blob(self.digest.clone()), None)?;
        }
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.is_placed {
            return;
        }
        let (shared, path) = (self.shared.clone(), std::mem::take(&mut self.path));
        let reservation = self.reservation.split();
        let remove = move || {
            if let Err(error) = shared.tree.disk.remove(&path) {
                tracing::warn!(%error, "what was not finished is removed at the next start");
            }
            // The room is free only now.
            drop(reservation);
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}
