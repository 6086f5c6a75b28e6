//! Where content is kept: bytes by their digest, and links that say which repository has them under which name.
//! The trait knows no paths, renames or appends, so that an object store can stand behind it. It must never judge content:
//! that a digest is right is proven before [`Store::finish`] and [`Store::put`] are called.

pub mod filesystem;

use std::io;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use thiserror::Error;

use crate::oci::{Digest, Hasher, RepositoryName, Tag};

pub use filesystem::Filesystem;

/// A step that failed.
#[derive(Debug, Error)]
#[error("cannot {doing} {what}: {source}")]
pub struct StoreError {
    /// What was tried.
    pub doing: &'static str,
    /// On what, within the store.
    pub what: String,
    /// The system's answer.
    pub source: io::Error,
}

impl StoreError {
    /// Whether there is no room left, so that the same may succeed later.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// What a call to a store comes to.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// What a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of content, each content once.
    pub bytes: u64,
    /// Repositories that something was pushed to.
    pub repositories: u64,
}

/// A name that a repository has for content.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Link {
    /// A blob.
    Layer(RepositoryName, Digest),
    /// A manifest, by its digest.
    Revision(RepositoryName, Digest),
    /// A manifest, by a tag.
    Tag(RepositoryName, Tag),
}

impl Link {
    /// The repository that has it.
    #[must_use]
    pub fn repository(&self) -> &RepositoryName {
        match self {
            Self::Layer(name, _) | Self::Revision(name, _) | Self::Tag(name, _) => name,
        }
    }
}

/// Links that can be listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    /// The names of all repositories.
    Repositories,
    /// The tags of a repository.
    Tags(RepositoryName),
    /// The digests of a repository's manifests.
    Revisions(RepositoryName),
}

/// When a link is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// In any case.
    Always,
    /// If the repository has none of that name yet.
    IfAbsent,
}

/// What a store knows of an upload under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// The repository that it was begun in.
    pub repository: RepositoryName,
    /// How many bytes are there.
    pub length: u64,
    /// What [`Store::suspend`] was last given.
    pub note: Option<Vec<u8>>,
}

/// Content that is open for reading; it stays readable when it is removed meanwhile.
pub trait Content: Send + Sync {
    /// How many bytes it has.
    fn length(&self) -> u64;

    /// Reads some of the bytes of the range from its start on; at least one, unless the range is empty. They may come in the
    /// memory of `buffer`, whose bytes do not matter.
    fn read(&self, range: Range<u64>, buffer: BytesMut) -> Answer<'_, Bytes>;
}

/// Content that is in memory.
impl Content for Bytes {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, range: Range<u64>, _: BytesMut) -> Answer<'_, Bytes> {
        let within = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(self.len());
        let (start, end) = (within(range.start), within(range.end));
        std::future::ready(Ok(self.slice(start.min(end)..end))).boxed()
    }
}

/// A content store. What a call has acknowledged survives a loss of power, except where it says otherwise.
pub trait Store: Send + Sync + 'static {
    /// How much of the room for content is taken, in percent, by bytes or by number, whichever is worse.
    fn used_percent(&self) -> Answer<'_, i32>;

    /// The lengths of content, each if it is there.
    fn lengths(&self, digests: Vec<Digest>) -> Answer<'_, Vec<Option<u64>>>;

    /// The length of content, if it is there.
    fn length<'a>(&'a self, digest: &'a Digest) -> Answer<'a, Option<u64>> {
        self.lengths(vec![digest.clone()]).map(|lengths| Ok(lengths?.pop().flatten())).boxed()
    }

    /// Opens content, if it is there. Small content may be in memory then.
    fn open<'a>(&'a self, digest: &'a Digest) -> Answer<'a, Option<Box<dyn Content>>>;

    /// Keeps small content at once.
    fn put<'a>(&'a self, digest: &'a Digest, bytes: Bytes) -> Answer<'a, ()>;

    /// Begins an upload, whose id must be new. Uploads need not survive a loss of power.
    fn begin<'a>(&'a self, id: &'a str, repository: &'a RepositoryName) -> Answer<'a, ()>;

    /// What is there of an upload, also one that was begun before a restart.
    fn upload<'a>(&'a self, id: &'a str) -> Answer<'a, Option<Upload>>;

    /// Adds bytes to an upload; `offset` is how many are there. `hasher` takes them too, because it needs a thread of its own
    /// as the disk does, and two would cost more.
    fn part<'a>(&'a self, id: &'a str, offset: u64, bytes: Vec<Bytes>, hasher: Hasher) -> Answer<'a, Hasher>;

    /// Reads back some of the bytes of an upload, from the range's start on.
    fn received<'a>(&'a self, id: &'a str, range: Range<u64>) -> Answer<'a, Bytes>;

    /// Makes what is there of an upload durable, and then a note about it.
    fn suspend<'a>(&'a self, id: &'a str, note: Vec<u8>) -> Answer<'a, ()>;

    /// Ends an upload: its first `length` bytes are content from now on.
    fn finish<'a>(&'a self, id: &'a str, length: u64, digest: &'a Digest) -> Answer<'a, ()>;

    /// Ends an upload and forgets its bytes.
    fn abandon<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;

    /// Forgets the uploads that got nothing for this many seconds; returns how many.
    fn abandon_idle(&self, seconds: u64) -> Answer<'_, usize>;

    /// The digests that links name.
    fn links(&self, links: Vec<Link>) -> Answer<'_, Vec<Option<Digest>>>;

    /// The digest that a link names.
    fn link<'a>(&'a self, link: &'a Link) -> Answer<'a, Option<Digest>> {
        self.links(vec![link.clone()]).map(|targets| Ok(targets?.pop().flatten())).boxed()
    }

    /// Writes a link; returns whether the condition held.
    fn write_link<'a>(&'a self, link: &'a Link, target: &'a Digest, condition: Condition) -> Answer<'a, bool>;

    /// Makes a link as young as a new one, so that a collector leaves it alone. It need not survive a loss of power.
    fn renew_link<'a>(&'a self, link: &'a Link) -> Answer<'a, ()>;

    /// Removes a link; returns whether there was one.
    fn remove_link<'a>(&'a self, link: &'a Link) -> Answer<'a, bool>;

    /// The names in a listing, sorted, behind `after`, at most `limit`; None where its repository was never written to.
    fn list<'a>(
        &'a self,
        listing: &'a Listing,
        after: Option<&'a str>,
        limit: usize,
    ) -> Answer<'a, Option<Vec<String>>>;
}
