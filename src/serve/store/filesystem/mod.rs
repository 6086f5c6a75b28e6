//! The content store on a filesystem, in CNCF distribution's layout, so that either engine serves what the other wrote.
//! It must never follow anything but the layout, and never write outside `wharf/` except by renaming what is complete.
//!
//! | Leftover | How it came | Who moves it | What a restart does |
//! |---|---|---|---|
//! | anything in `wharf/tmp` | a crash before a rename, or between renaming out and removing | nobody | removes it |
//! | `wharf/uploads/<id>` | an upload that was never finished | its client, or the sweep of idle uploads | keeps it |
//! | `wharf/uploads/<id>/note` | a stop of the server | the next stop | keeps it: it is true of the bytes it speaks of, which were synced before |
//! | `wharf/uploads/<id>` without its data | a crash between finishing and removing | the sweep | counts it as absent |
//! | `wharf/served` | a start of the server | `wharf tag-referrers`, which removes it at its end | writes it |
//! | content without a link | a crash before the link was written | a collector | keeps it |
//! | a folder without its `link` | a crash of either engine while it made or removed one | the next write of that name | counts it as absent |
//! | a tag whose manifest has no link | a crash between removing tags and manifest | the repository, which reads it as absent | keeps it |
//!
//! Writes go in this order: the file under `wharf/`, synced; its rename to its place; the folders it is in, synced from the
//! leaf up to the root. Only then is it acknowledged. One process holds the lock on the root.

pub(in crate::serve) mod disk;
mod layout;
mod links;
pub(in crate::serve) mod reading;
mod syncing;
#[cfg(test)]
mod tests;
mod uploads;
mod usage;
mod walk;

use std::fs::{File, TryLockError};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use thiserror::Error;

use self::disk::Disk;
pub use self::disk::{Hook, Operation};
use self::layout::Place;
use self::reading::Readers;
use self::uploads::{no_upload, upload_folder};
use super::{Answer, Condition, Content, Link, Listing, Store, StoreError, Upload};
use crate::oci::{Digest, Hasher, RepositoryName};

/// A link that is younger than this is young enough.
const RENEWED_AFTER: Duration = Duration::from_secs(60);

/// Why a root cannot be served.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process serves it.
    #[error("another process serves {0}: it holds the lock on wharf/lock")]
    Locked(PathBuf),
    /// The file system has no locks.
    #[error(
        "cannot lock wharf/lock in {0}: {1}. The volume needs a file system with locks: without one, a second server damages it"
    )]
    Unlockable(PathBuf, io::Error),
    /// The system refused something.
    #[error("cannot prepare {0}: {1}")]
    Io(PathBuf, io::Error),
    /// As before, in the course of a step.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The store on a filesystem. Cloning shares it.
#[derive(Clone)]
pub struct Filesystem {
    disk: Arc<Disk>,
    readers: Readers,
    _lock: Arc<File>,
}

impl Filesystem {
    /// Takes the root, makes it if need be, and removes what a crash has left.
    ///
    /// # Errors
    /// When another process has it, or it cannot be written to.
    pub fn open(root: &Path) -> Result<Self, OpenError> {
        Self::open_with(root, None)
    }

    /// As [`Filesystem::open`], with a hook that is asked before each operation.
    ///
    /// # Errors
    /// As [`Filesystem::open`].
    pub fn open_with(root: &Path, hook: Option<Hook>) -> Result<Self, OpenError> {
        let fail = |error| OpenError::Io(root.to_owned(), error);
        std::fs::create_dir_all(root.join(layout::TEMPORARY)).map_err(fail)?;
        std::fs::create_dir_all(root.join(layout::UPLOADS)).map_err(fail)?;
        let lock =
            File::options().write(true).create(true).truncate(false).open(root.join(layout::LOCK)).map_err(fail)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(root.to_owned())),
            Err(TryLockError::Error(error)) => return Err(OpenError::Unlockable(root.to_owned(), error)),
        }
        let disk = Disk::new(root.to_owned(), layout::TEMPORARY, hook);
        for name in disk.names(Path::new(layout::TEMPORARY))?.unwrap_or_default() {
            disk.remove(&Path::new(layout::TEMPORARY).join(name))?;
        }
        Ok(Self { disk: Arc::new(disk), readers: Readers::default(), _lock: Arc::new(lock) })
    }

    /// Writes down that manifests may change from now on without the tags of their referrers.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn mark_served(&self) -> Result<(), StoreError> {
        let place = Place { file: layout::SERVED.into(), permanent: "wharf".into() };
        self.disk.write_file(&place, Bytes::new())
    }

    /// Whether a root has the mark of [`Filesystem::mark_served`].
    #[must_use]
    pub fn was_served(root: &Path) -> bool {
        root.join(layout::SERVED).exists()
    }

    /// Takes the mark away, once the tags are there.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn unmark_served(&self) -> Result<(), StoreError> {
        self.disk.remove(Path::new(layout::SERVED))
    }

    /// Runs what only reads where it stops nobody else.
    fn reading<'a, T: Send + 'static>(
        &self,
        work: impl FnOnce(&Disk) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'a, T> {
        let (disk, readers) = (self.disk.clone(), self.readers.clone());
        async move { readers.run(move || work(&disk)).await }.boxed()
    }

    /// Runs what changes the disk where it stops nobody else.
    fn blocking<'a, T: Send + 'static>(
        &self,
        work: impl FnOnce(&Disk) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'a, T> {
        let disk = self.disk.clone();
        let task = tokio::task::spawn_blocking(move || work(&disk));
        async move { task.await.unwrap_or_else(|error| Err(unfinished(error))) }.boxed()
    }
}

/// A step whose task ended without an answer.
fn unfinished(error: tokio::task::JoinError) -> StoreError {
    StoreError { doing: "finish a step of", what: "the store".to_owned(), source: io::Error::other(error) }
}

impl Disk {
    /// Moves a complete, synced file to its place.
    fn place(&self, temporary: &Path, place: &Place) -> Result<(), StoreError> {
        let folder = place.file.parent().unwrap_or(&place.permanent);
        self.create_folders(folder)?;
        self.rename(temporary, &place.file)?;
        self.settle(folder, &place.permanent)
    }

    /// Content that is there in its full length is kept as it is: readers may be in it.
    fn place_content(&self, file: &Path, length: u64, digest: &Digest) -> Result<(), StoreError> {
        let place = layout::content(digest);
        let arriving = self.counts.content.arriving(digest);
        let present = self.length(&place.file)?;
        if present != Some(length) {
            self.place(file, &place)?;
            if present.is_none() {
                arriving.arrived(length);
            }
            return Ok(());
        }
        self.remove(file)?;
        // Another upload may have put it there a moment ago and not have come to this yet.
        self.settle(place.file.parent().unwrap_or(&place.permanent), &place.permanent)
    }

    fn write_file(&self, place: &Place, bytes: Bytes) -> Result<(), StoreError> {
        let temporary = self.temporary();
        let placed = self.create(&temporary, bytes).and_then(|()| self.place(&temporary, place));
        if placed.is_err() {
            // What it left is of no use; that it cannot be removed either, the next start takes care of.
            let _ = self.remove(&temporary);
        }
        placed
    }

    fn put(&self, digest: &Digest, bytes: Bytes) -> Result<(), StoreError> {
        let (temporary, length) = (self.temporary(), bytes.len() as u64);
        let placed = self.create(&temporary, bytes).and_then(|()| self.place_content(&temporary, length, digest));
        if placed.is_err() {
            let _ = self.remove(&temporary);
        }
        placed
    }
}

impl Store for Filesystem {
    fn used_percent(&self) -> Answer<'_, i32> {
        self.reading(Disk::used_percent)
    }

    fn lengths(&self, digests: Vec<Digest>) -> Answer<'_, Vec<Option<u64>>> {
        self.reading(move |disk| digests.iter().map(|digest| disk.length(&layout::content(digest).file)).collect())
    }

    fn open<'a>(&'a self, digest: &'a Digest) -> Answer<'a, Option<Box<dyn Content>>> {
        let (digest, readers) = (digest.clone(), self.readers.clone());
        self.reading(move |disk| reading::open(disk, &layout::content(&digest).file, readers))
    }

    fn put<'a>(&'a self, digest: &'a Digest, bytes: Bytes) -> Answer<'a, ()> {
        let digest = digest.clone();
        self.blocking(move |disk| disk.put(&digest, bytes))
    }

    fn begin<'a>(&'a self, id: &'a str, repository: &'a RepositoryName) -> Answer<'a, ()> {
        let (id, repository) = (id.to_owned(), repository.clone());
        self.blocking(move |disk| disk.begin(&id, &repository))
    }

    fn upload<'a>(&'a self, id: &'a str) -> Answer<'a, Option<Upload>> {
        let id = id.to_owned();
        self.reading(move |disk| disk.upload(&id))
    }

    fn part<'a>(&'a self, id: &'a str, offset: u64, bytes: Vec<Bytes>, mut hasher: Hasher) -> Answer<'a, Hasher> {
        let data = upload_folder(id).map(|folder| folder.join(layout::UPLOAD_DATA)).ok_or_else(|| no_upload(id));
        self.blocking(move |disk| {
            disk.write(&data?, offset, &bytes)?;
            for bytes in &bytes {
                hasher.update(bytes);
            }
            Ok(hasher)
        })
    }

    fn received<'a>(&'a self, id: &'a str, range: Range<u64>) -> Answer<'a, Bytes> {
        let id = id.to_owned();
        self.reading(move |disk| {
            let data = upload_folder(&id).ok_or_else(|| no_upload(&id))?.join(layout::UPLOAD_DATA);
            let file = disk.open(&data)?.ok_or_else(|| no_upload(&id))?;
            reading::part(&file, &range, BytesMut::new()).map_err(|source| StoreError {
                doing: "read back",
                what: id,
                source,
            })
        })
    }

    fn suspend<'a>(&'a self, id: &'a str, note: Vec<u8>) -> Answer<'a, ()> {
        let id = id.to_owned();
        self.blocking(move |disk| disk.suspend(&id, note))
    }

    fn finish<'a>(&'a self, id: &'a str, length: u64, digest: &'a Digest) -> Answer<'a, ()> {
        let (id, digest) = (id.to_owned(), digest.clone());
        self.blocking(move |disk| disk.finish(&id, length, &digest))
    }

    fn abandon<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        let id = id.to_owned();
        self.blocking(move |disk| disk.abandon(&id))
    }

    fn abandon_idle(&self, seconds: u64) -> Answer<'_, usize> {
        self.blocking(move |disk| disk.abandon_idle(seconds, SystemTime::now()))
    }

    fn links(&self, links: Vec<Link>) -> Answer<'_, Vec<Option<Digest>>> {
        self.reading(move |disk| links.iter().map(|link| disk.read_link(&layout::link(link).file)).collect())
    }

    fn write_link<'a>(&'a self, link: &'a Link, target: &'a Digest, condition: Condition) -> Answer<'a, bool> {
        let (link, target) = (link.clone(), target.clone());
        self.blocking(move |disk| disk.write_link(&link, &target, condition))
    }

    fn renew_link<'a>(&'a self, link: &'a Link) -> Answer<'a, ()> {
        let path = layout::link(link).file;
        self.blocking(move |disk| {
            let now = SystemTime::now();
            let old = disk.modified(&path)?.and_then(|modified| now.duration_since(modified).ok());
            if old.is_some_and(|age| age >= RENEWED_AFTER) { disk.stamp(&path, now) } else { Ok(()) }
        })
    }

    fn remove_link<'a>(&'a self, link: &'a Link) -> Answer<'a, bool> {
        let link = link.clone();
        self.blocking(move |disk| disk.remove_link(&link))
    }

    fn list<'a>(
        &'a self,
        listing: &'a Listing,
        after: Option<&'a str>,
        limit: usize,
    ) -> Answer<'a, Option<Vec<String>>> {
        let (listing, after) = (listing.clone(), after.map(str::to_owned));
        self.reading(move |disk| disk.list(&listing, after.as_deref(), limit))
    }
}
