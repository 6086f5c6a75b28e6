//! Blobs: read by those whose repository has a link to them, mounted from a repository that the caller may read.

use std::sync::Arc;

use bytes::BytesMut;

use super::{Error, Repositories};
use crate::oci::{Digest, RepositoryName};
use crate::serve::store::{Condition, Content, Link};

/// In how many repositories a blob is remembered to have been seen.
const SIGHTINGS_OF_A_BLOB: usize = 4;

/// Blobs up to this length are kept in memory when they are read: configurations and the like, which each pull asks for.
const SMALL: u64 = 64 * 1024;
/// What a blob in memory weighs beyond its bytes.
const OVERHEAD: usize = 512;

/// A blob that is open for reading.
pub struct Blob {
    /// The bytes.
    pub content: Arc<dyn Content>,
}

impl Repositories {
    /// Opens a blob.
    ///
    /// # Errors
    /// When the repository does not have it.
    pub async fn blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Blob, Error> {
        let key = (repository.clone(), digest.clone());
        if let Some(bytes) = self.small_blobs.get(&key) {
            return Ok(Blob { content: Arc::new(bytes) });
        }
        let since = self.small_blobs.now();
        let unknown = || Error::BlobUnknown(digest.clone());
        let link = Link::Layer(repository.clone(), digest.clone());
        let target = self.store.link(&link).await?.ok_or_else(unknown)?;
        let content: Arc<dyn Content> = self.store.open(&target).await?.ok_or_else(unknown)?.into();
        self.saw(repository, digest);
        if content.length() <= SMALL {
            let bytes = content.read(0..content.length(), BytesMut::new()).await?;
            if bytes.len() as u64 == content.length() {
                let weight = bytes.len() + repository.as_str().len() + OVERHEAD;
                self.small_blobs.insert(since, key, bytes.clone(), weight);
                return Ok(Blob { content: Arc::new(bytes) });
            }
        }
        Ok(Blob { content })
    }

    /// Keeps a blob from being collected for a while: a client that was told that it is there does not push it again.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn renew_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), Error> {
        Ok(self.store.renew_link(&Link::Layer(repository.clone(), digest.clone())).await?)
    }

    /// Gives a repository a blob that another one has, if the caller may pull it there. Without a source, those are tried
    /// that had it lately. Says whether it was done; if not, nothing tells why.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn mount(
        self: &Arc<Self>,
        repository: &RepositoryName,
        digest: &Digest,
        from: Option<&RepositoryName>,
        may_pull: impl Fn(&RepositoryName) -> bool,
    ) -> Result<bool, Error> {
        let sightings = self.sightings.get(digest).unwrap_or_default();
        let sources: Vec<RepositoryName> =
            from.cloned().into_iter().chain(sightings).filter(|source| may_pull(source)).collect();
        let (this, repository, digest) = (self.clone(), repository.clone(), digest.clone());
        Self::to_its_end(async move {
            let _reading = this.digest_locks.read(&digest).await;
            for source in sources {
                let Some(target) = this.store.link(&Link::Layer(source, digest.clone())).await? else { continue };
                if this.store.length(&target).await?.is_none() {
                    continue;
                }
                this.link_blob(&repository, &digest, &target).await?;
                return Ok(true);
            }
            Ok(false)
        })
        .await
    }

    /// Takes a blob away from a repository.
    ///
    /// # Errors
    /// When the repository does not have it.
    pub async fn delete_blob(self: &Arc<Self>, repository: &RepositoryName, digest: &Digest) -> Result<(), Error> {
        let (this, repository, digest) = (self.clone(), repository.clone(), digest.clone());
        Self::to_its_end(async move {
            let _writing = this.digest_locks.write(&digest).await;
            let removed = this.store.remove_link(&Link::Layer(repository.clone(), digest.clone())).await;
            // A removal that failed may have reached the disk all the same.
            this.small_blobs.forget(&(repository, digest.clone()));
            let was_there = removed?;
            if was_there { Ok(()) } else { Err(Error::BlobUnknown(digest)) }
        })
        .await
    }

    /// Writes the link of a blob whose content is durable. The caller holds the digest's read lock.
    pub(super) async fn link_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        target: &Digest,
    ) -> Result<(), Error> {
        self.ensure_link(&Link::Layer(repository.clone(), digest.clone()), target).await?;
        self.saw(repository, digest);
        Ok(())
    }

    /// Makes a link name content that is there. One that is there already may name other content for the same digest, which
    /// another engine may have lost.
    pub(super) async fn ensure_link(&self, link: &Link, target: &Digest) -> Result<(), Error> {
        if self.store.write_link(link, target, Condition::IfAbsent).await? {
            return Ok(());
        }
        if self.store.link(link).await?.as_ref() == Some(target) {
            self.store.renew_link(link).await?;
        } else {
            self.store.write_link(link, target, Condition::Always).await?;
        }
        Ok(())
    }

    fn saw(&self, repository: &RepositoryName, digest: &Digest) {
        let mut seen = self.sightings.get(digest).unwrap_or_default();
        if !seen.contains(repository) {
            seen.insert(0, repository.clone());
            seen.truncate(SIGHTINGS_OF_A_BLOB);
            self.sightings.insert(self.sightings.now(), digest.clone(), seen, 1);
        }
    }
}
