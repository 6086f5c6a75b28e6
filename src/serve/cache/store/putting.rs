//! What is put into the store besides blobs that arrive: links to what is there, manifests, tags, and that a repository is
//! public. A link is made only where its content is.

use bytes::Bytes;
use jiff::Timestamp;

use super::index::Named;
use super::room::{ENTRIES, Reservation};
use super::tree::Changing;
use super::{CacheStore, CachedManifest, CachedTag, Scope, Shared};
use crate::oci::{Digest, ManifestType, Tag};
use crate::serve::store::StoreError;

impl CacheStore {
    /// Makes a blob that is here visible in a repository. Returns false where it is not here.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn link_blob(&self, scope: &Scope, digest: &Digest) -> Result<bool, StoreError> {
        self.link(scope, Named::Blob(digest.clone()), None).await
    }

    /// Makes a manifest that is here visible in a repository. Returns false where it is not here.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn link_manifest(
        &self,
        scope: &Scope,
        digest: &Digest,
        media_type: ManifestType,
    ) -> Result<bool, StoreError> {
        self.link(scope, Named::Manifest(digest.clone()), Some(media_type)).await
    }

    async fn link(&self, scope: &Scope, named: Named, media_type: Option<ManifestType>) -> Result<bool, StoreError> {
        if self.has_link(scope, &named, media_type) {
            return Ok(true);
        }
        let scope = scope.clone();
        self.adding(move |changing| changing.put_link(&scope, &named, media_type)).await
    }

    fn has_link(&self, scope: &Scope, named: &Named, media_type: Option<ManifestType>) -> bool {
        self.0.tree.index().link(scope, named).is_some_and(|link| link.media_type == media_type)
    }

    /// Keeps a manifest in a repository. Its digest was proven. Returns false where there is no room for it.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn put_manifest(
        &self,
        scope: &Scope,
        digest: &Digest,
        manifest: &CachedManifest,
    ) -> Result<bool, StoreError> {
        if self.link_manifest(scope, digest, manifest.media_type).await? {
            return Ok(true);
        }
        let length = manifest.bytes.len() as u64;
        let Some(reservation) = self.reserve(length).await else { return Ok(false) };
        let (scope, digest, manifest) = (scope.clone(), digest.clone(), manifest.clone());
        let put = move |shared: &Shared| shared.put_manifest(&scope, &digest, manifest, reservation);
        let shared = self.0.clone();
        let kept = self.0.writers.run(move || put(&shared)).await;
        self.0.tree.counts.refused(&kept);
        kept.map(|()| true)
    }

    /// Says what a tag is, as the upstream has just said.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn put_tag(&self, scope: &Scope, tag: &Tag, cached: &CachedTag) -> Result<(), StoreError> {
        let (scope, tag, cached) = (scope.clone(), tag.clone(), cached.clone());
        // Where there is no room for it, it is as if it had been evicted at once.
        self.adding(move |changing| changing.put_tag(&scope, &tag, cached).map(|()| true)).await.map(drop)
    }

    /// Forgets a tag, which the upstream does not have any more.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn remove_tag(&self, scope: &Scope, tag: &Tag) -> Result<(), StoreError> {
        let (scope, tag) = (scope.clone(), tag.clone());
        self.changing(move |changing| changing.remove_tag(&scope, &tag)).await
    }

    /// Says when an anonymous request for an object of this repository was last answered, or that one was refused.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn put_public(&self, scope: &Scope, public: Option<Timestamp>) -> Result<(), StoreError> {
        let scope = scope.clone();
        self.adding(move |changing| changing.put_public(&scope, public).map(|()| true)).await.map(drop)
    }

    /// As [`CacheStore::changing`], where there is room for another entry; false where there is not.
    async fn adding(
        &self,
        change: impl FnOnce(&mut Changing<'_>) -> Result<bool, StoreError> + Send + 'static,
    ) -> Result<bool, StoreError> {
        let shared = self.0.clone();
        let add = move || {
            let mut changing = shared.tree.change();
            // Nothing is evicted before all is known; what is there then is not more than there was.
            let fits = !shared.tree.index().is_complete() || shared.make_room_in(&mut changing, 0, ENTRIES)?;
            if fits { change(&mut changing) } else { Ok(false) }
        };
        self.0.writers.run(add).await
    }

    async fn changing<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Changing<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = self.0.clone();
        self.0.writers.run(move || change(&mut shared.tree.change())).await
    }
}

impl Shared {
    fn put_manifest(
        &self,
        scope: &Scope,
        digest: &Digest,
        manifest: CachedManifest,
        mut reservation: Reservation,
    ) -> Result<(), StoreError> {
        let (disk, length) = (&self.tree.disk, manifest.bytes.len() as u64);
        let temporary = disk.temporary();
        let mut put = |bytes: Bytes| {
            disk.create_unsynced(&temporary, bytes)?;
            let mut changing = self.tree.change();
            changing.put_content(&temporary, digest, length, &mut reservation)?;
            changing.put_link(scope, &Named::Manifest(digest.clone()), Some(manifest.media_type))
        };
        let put = put(manifest.bytes);
        if put.is_err() {
            // What it left is of no use; that it cannot be removed either, the next start takes care of.
            let _ = disk.remove(&temporary);
        }
        put.map(drop)
    }
}
