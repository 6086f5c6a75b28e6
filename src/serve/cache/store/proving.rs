//! Content that a crash may have spoiled is hashed once before it is used. It must never be given to anybody before, and what
//! turns out wrong must never be found again.

use bytes::BytesMut;

use super::tree::Changing;
use super::{CacheStore, Shared, layout};
use crate::oci::{Digest, Hasher};
use crate::serve::store::StoreError;
use crate::serve::store::filesystem::reading;

/// What is hashed at once.
const PIECE: u64 = 256 * 1024;

impl CacheStore {
    /// Hashes content that is suspect. Returns whether it is right, or no longer suspect.
    pub(super) async fn prove(&self, digest: &Digest) -> Result<bool, StoreError> {
        let _alone = self.0.proving.write(digest).await;
        let (shared, digest) = (self.0.clone(), digest.clone());
        self.0.readers.run(move || shared.prove(&digest)).await
    }
}

impl Shared {
    fn prove(&self, digest: &Digest) -> Result<bool, StoreError> {
        let is_suspect = self.tree.index().contents().get(digest).map(|content| content.is_suspect);
        if is_suspect != Some(true) {
            return Ok(is_suspect.is_some());
        }
        let found = self.hash(digest)?;
        self.tree.counts.rehashed();
        self.tree.change().prove(digest, found.as_ref())
    }

    fn hash(&self, digest: &Digest) -> Result<Option<Digest>, StoreError> {
        let path = layout::content(digest);
        let Some(file) = self.tree.disk.open(&path)? else { return Ok(None) };
        let (mut hasher, mut buffer, mut offset) = (Hasher::new(digest.algorithm()), BytesMut::new(), 0);
        loop {
            let bytes = reading::part(&file, &(offset..offset + PIECE), buffer).map_err(|source| StoreError {
                doing: "read",
                what: path.display().to_string(),
                source,
            })?;
            if bytes.is_empty() {
                return Ok(Some(hasher.finish()));
            }
            hasher.update(&bytes);
            offset += bytes.len() as u64;
            buffer = bytes.try_into_mut().unwrap_or_default();
        }
    }
}

impl Changing<'_> {
    /// Says what suspect content was found to be: it is trusted, or goes with all links to it.
    fn prove(&mut self, digest: &Digest, found: Option<&Digest>) -> Result<bool, StoreError> {
        let is_suspect = self.tree.index().contents().get(digest).map(|content| content.is_suspect);
        if is_suspect != Some(true) {
            // Other bytes have come in its place meanwhile, or it was evicted.
            return Ok(is_suspect.is_some());
        }
        let is_right = found == Some(digest);
        if is_right {
            // It is durable only with the next checkpoint, like what has just come.
            self.stamp(&layout::content(digest))?;
            self.tree.index().is_proven(digest);
        } else {
            tracing::warn!(%digest, "a crash has spoiled content, which is removed");
            self.tree.counts.damaged();
            self.remove_damaged(digest)?;
        }
        Ok(is_right)
    }
}
