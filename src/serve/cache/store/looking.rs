//! What is there, for those who may see it: through a link of the asked repository, and by a digest alone only for those to whom
//! the upstream has just given the right.

use std::sync::Arc;

use bytes::BytesMut;
use jiff::Timestamp;

use super::index::{Named, Names};
use super::{CacheStore, CachedManifest, CachedTag, Scope, Shared, layout};
use crate::oci::{Digest, ManifestType, Tag, manifest};
use crate::serve::store::filesystem::reading;
use crate::serve::store::{Content, StoreError};

/// A link that was found.
struct Found {
    media_type: Option<ManifestType>,
    length: u64,
    is_suspect: bool,
}

impl Shared {
    fn known(&self, scope: &Scope, named: &Named) -> Option<Found> {
        let index = self.tree.index();
        let link = index.link(scope, named)?;
        let content = index.contents().get(named.digest())?;
        Some(Found { media_type: link.media_type, length: content.length, is_suspect: content.is_suspect })
    }
}

impl CacheStore {
    /// A blob, if this repository has a link to it. This counts as a use.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn blob(&self, scope: &Scope, digest: &Digest) -> Result<Option<Arc<dyn Content>>, StoreError> {
        let opened = self.open_linked(scope, &Named::Blob(digest.clone())).await?;
        Ok(opened.map(|(content, _)| content))
    }

    /// A blob that is here, also without a link. Only for who was just told by the upstream that their repository has it, and
    /// could not be linked for want of room.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn blob_without_link(&self, digest: &Digest) -> Result<Option<Arc<dyn Content>>, StoreError> {
        if !self.has(digest).await? {
            return Ok(None);
        }
        let found = self.0.tree.index().contents().get(digest).map(|content| (content.length, content.is_suspect));
        let Some((length, is_suspect)) = found else { return Ok(None) };
        self.open_found(digest, length, is_suspect).await
    }

    /// A manifest, if this repository has a link to it as one. This counts as a use.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn manifest(&self, scope: &Scope, digest: &Digest) -> Result<Option<CachedManifest>, StoreError> {
        let Some((content, Some(media_type))) = self.open_linked(scope, &Named::Manifest(digest.clone())).await? else {
            return Ok(None);
        };
        if content.length() > manifest::LARGEST as u64 {
            return Ok(None);
        }
        let mut bytes = BytesMut::new();
        while (bytes.len() as u64) < content.length() {
            let next = content.read(bytes.len() as u64..content.length(), BytesMut::new()).await?;
            if bytes.is_empty() && next.len() as u64 == content.length() {
                return Ok(Some(CachedManifest { media_type, bytes: next }));
            }
            bytes.extend_from_slice(&next);
        }
        Ok(Some(CachedManifest { media_type, bytes: bytes.freeze() }))
    }

    /// Whether this content is there, in whatever repository.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn has(&self, digest: &Digest) -> Result<bool, StoreError> {
        {
            let index = self.0.tree.index();
            if index.is_complete() || index.contents().contains_key(digest) {
                return Ok(index.contents().contains_key(digest));
            }
        }
        let (shared, digest) = (self.0.clone(), digest.clone());
        self.0.readers.run(move || shared.tree.change().find_content(&digest)).await
    }

    /// What a tag was when the upstream was last asked.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn tag(&self, scope: &Scope, tag: &Tag) -> Result<Option<CachedTag>, StoreError> {
        let known = |shared: &Shared| {
            let index = shared.tree.index();
            let found = index.scopes().get(scope).and_then(|repository| repository.tags.get(tag)).cloned();
            (found, index.is_complete())
        };
        if let (found @ Some(_), _) | (found, true) = known(&self.0) {
            return Ok(found);
        }
        let (shared, within, name) = (self.0.clone(), scope.clone(), tag.clone());
        self.0.readers.run(move || shared.tree.change().find_tag(&within, &name)).await?;
        Ok(known(&self.0).0)
    }

    /// When an anonymous request for an object of this repository was last answered.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn public(&self, scope: &Scope) -> Result<Option<Timestamp>, StoreError> {
        let known = |shared: &Shared| {
            let index = shared.tree.index();
            let found = index.scopes().get(scope).and_then(|repository| repository.public);
            (found, index.is_complete())
        };
        if let (found @ Some(_), _) | (found, true) = known(&self.0) {
            return Ok(found);
        }
        let (shared, within) = (self.0.clone(), scope.clone());
        self.0.readers.run(move || shared.tree.change().find_public(&within)).await?;
        Ok(known(&self.0).0)
    }

    /// Whether an image is here with all that it names, or of an index at least one.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn is_complete(&self, scope: &Scope, digest: &Digest) -> Result<bool, StoreError> {
        if !self.0.tree.index().is_complete() {
            let (shared, scope, digest) = (self.0.clone(), scope.clone(), digest.clone());
            self.0.readers.run(move || shared.find_image(&scope, &digest)).await?;
        }
        Ok(self.0.tree.index().has_all(scope, digest))
    }

    async fn open_linked(
        &self,
        scope: &Scope,
        named: &Named,
    ) -> Result<Option<(Arc<dyn Content>, Option<ManifestType>)>, StoreError> {
        let Some(found) = self.find(scope, named).await? else { return Ok(None) };
        let content = self.open_found(named.digest(), found.length, found.is_suspect).await?;
        Ok(content.map(|content| {
            self.0.tree.index().use_link(scope, named, self.0.tree.clock.now());
            (content, found.media_type)
        }))
    }

    async fn open_found(
        &self,
        digest: &Digest,
        length: u64,
        is_suspect: bool,
    ) -> Result<Option<Arc<dyn Content>>, StoreError> {
        let (shared, digest) = (self.0.clone(), digest.clone());
        if is_suspect && !self.prove(&digest).await? {
            return Ok(None);
        }
        let open = move || {
            let readers = shared.readers.clone();
            let content = reading::open(&shared.tree.disk, &layout::content(&digest), readers)?;
            if content.as_ref().is_some_and(|content| content.length() == length) {
                return Ok(content);
            }
            shared.tree.change().check(&digest)?;
            Ok(None)
        };
        Ok(self.0.readers.run(open).await?.map(Arc::from))
    }

    async fn find(&self, scope: &Scope, named: &Named) -> Result<Option<Found>, StoreError> {
        let known = self.0.known(scope, named);
        if known.is_some() || self.0.tree.index().is_complete() {
            return Ok(known);
        }
        let (shared, within, name) = (self.0.clone(), scope.clone(), named.clone());
        self.0.readers.run(move || shared.tree.change().find_link(&within, &name)).await?;
        Ok(self.0.known(scope, named))
    }
}

impl Shared {
    /// Takes up in the index what [`super::index::Index::has_all`] looks at.
    fn find_image(&self, scope: &Scope, digest: &Digest) -> Result<(), StoreError> {
        let mut manifests = vec![digest.clone()];
        let mut is_index = true;
        while let Some(digest) = manifests.pop() {
            let changing = self.tree.change();
            if !changing.find_link(scope, &Named::Manifest(digest.clone()))? {
                continue;
            }
            let names = self.tree.index().contents().get(&digest).and_then(|content| content.names.clone());
            match names.as_deref() {
                Some(Names::Manifests(children)) if std::mem::take(&mut is_index) => {
                    manifests.extend(children.iter().map(|child| child.digest.clone()));
                }
                Some(Names::Blobs(blobs)) => {
                    for blob in blobs {
                        changing.find_link(scope, &Named::Blob(blob.clone()))?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}
