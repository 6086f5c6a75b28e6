//! What a fill needs of the store: room, a file that grows, and links. It must never know more of it.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;

use crate::oci::{Digest, Hasher};
use crate::serve::cache::store::{self, CacheStore, PartialReader, Scope};
use crate::serve::store::Answer;

/// A store of blobs that come from upstreams.
pub trait Keep: Send + Sync + 'static {
    /// Whether a blob is here, in any scope.
    fn has<'a>(&'a self, digest: &'a Digest) -> Answer<'a, bool>;

    /// Makes room for so many bytes of a blob and begins it; None where there is no room. More is made for what is more, as it is
    /// appended.
    fn begin<'a>(&'a self, digest: &'a Digest, bytes: u64) -> Answer<'a, Option<Box<dyn Partial>>>;

    /// Makes a blob that is here visible in a scope.
    fn link<'a>(&'a self, scope: &'a Scope, digest: &'a Digest) -> Answer<'a, bool>;
}

/// A blob of which not everything is there. Dropped, it leaves nothing behind but to those who have it open.
pub trait Partial: Send {
    /// Adds bytes behind those that are there, and to the hash of them, on a thread that may wait for the disk.
    fn append(&mut self, bytes: Vec<Bytes>, hasher: Hasher) -> Answer<'_, Hasher>;

    /// What is there, to be read.
    fn file(&self) -> Arc<dyn PartialFile>;

    /// Makes it a blob of the store, in these scopes. That its digest is right was proven before.
    fn commit(self: Box<Self>, scopes: Vec<Scope>) -> Answer<'static, ()>;
}

/// The file of a [`Partial`], which stays readable when that is committed or dropped.
pub trait PartialFile: Send + Sync {
    /// Reads some of the bytes of a range that is there, from its start on; at least one. They may come in the memory of
    /// `buffer`.
    fn read(&self, range: Range<u64>, buffer: BytesMut) -> Answer<'_, Bytes>;
}

impl Keep for CacheStore {
    fn has<'a>(&'a self, digest: &'a Digest) -> Answer<'a, bool> {
        CacheStore::has(self, digest).boxed()
    }

    fn begin<'a>(&'a self, digest: &'a Digest, bytes: u64) -> Answer<'a, Option<Box<dyn Partial>>> {
        async move {
            let Some(reservation) = self.reserve(bytes).await else { return Ok(None) };
            let partial = CacheStore::begin(self, digest, reservation).await?;
            Ok(Some(Box::new(partial) as Box<dyn Partial>))
        }
        .boxed()
    }

    fn link<'a>(&'a self, scope: &'a Scope, digest: &'a Digest) -> Answer<'a, bool> {
        self.link_blob(scope, digest).boxed()
    }
}

impl Partial for store::Partial {
    fn append(&mut self, bytes: Vec<Bytes>, hasher: Hasher) -> Answer<'_, Hasher> {
        store::Partial::append(self, bytes, hasher).boxed()
    }

    fn file(&self) -> Arc<dyn PartialFile> {
        Arc::new(self.reader())
    }

    fn commit(self: Box<Self>, scopes: Vec<Scope>) -> Answer<'static, ()> {
        async move { store::Partial::commit(*self, &scopes).await }.boxed()
    }
}

impl PartialFile for PartialReader {
    fn read(&self, range: Range<u64>, buffer: BytesMut) -> Answer<'_, Bytes> {
        PartialReader::read(self, range, buffer).boxed()
    }
}
