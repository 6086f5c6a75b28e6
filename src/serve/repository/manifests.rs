//! Manifests: kept byte for byte, of a type that follows from the bytes, complete as the policy asks.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::{Error, MissingContent, Repositories};
use crate::oci::{self, Algorithm, Digest, ManifestType, Reference, RepositoryName, Tag, manifest};
use crate::serve::store::{Condition, Link, Listing};

/// What a manifest in memory weighs beyond its bytes.
const OVERHEAD: usize = 512;

/// A manifest as it is served.
#[derive(Debug)]
pub struct StoredManifest {
    /// Its digest, by which it was pushed.
    pub digest: Digest,
    /// Its type.
    pub kind: ManifestType,
    /// Its bytes, as they were pushed.
    pub bytes: Bytes,
}

/// A manifest that is to be kept.
#[derive(Clone, Debug)]
pub struct PutManifest {
    /// Where.
    pub repository: RepositoryName,
    /// By what.
    pub reference: Reference,
    /// What it is to be called besides.
    pub tags: Vec<Tag>,
    /// What it is announced as.
    pub content_type: String,
    /// Its bytes.
    pub bytes: Bytes,
}

/// A manifest that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its digest.
    pub digest: Digest,
    /// What it refers to.
    pub subject: Option<Digest>,
}

impl Repositories {
    /// The manifest that a reference stands for.
    ///
    /// # Errors
    /// When the repository has none.
    pub async fn manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Arc<StoredManifest>, Error> {
        let key = (repository.clone(), reference.clone());
        if let Some(manifest) = self.manifests.get(&key) {
            return Ok(manifest);
        }
        let since = self.manifests.now();
        let manifest =
            self.load(repository, reference).await?.ok_or_else(|| Error::ManifestUnknown(reference.clone()))?;
        let manifest = Arc::new(manifest);
        let weight = manifest.bytes.len() + repository.as_str().len() + OVERHEAD;
        self.manifests.insert(since, key, manifest.clone(), weight);
        Ok(manifest)
    }

    pub(super) async fn load(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Option<StoredManifest>, Error> {
        let digest = match reference {
            Reference::Digest(digest) => digest.clone(),
            Reference::Tag(tag) => match self.store.link(&Link::Tag(repository.clone(), tag.clone())).await? {
                Some(digest) => digest,
                None => return Ok(None),
            },
        };
        // A tag counts only while its repository has the manifest.
        let revision = Link::Revision(repository.clone(), digest.clone());
        let Some(target) = self.store.link(&revision).await? else { return Ok(None) };
        let Some(content) = self.store.open(&target).await? else { return Ok(None) };
        if content.length() > manifest::LARGEST as u64 {
            return Ok(None);
        }
        let mut bytes = BytesMut::new();
        while (bytes.len() as u64) < content.length() {
            bytes.extend_from_slice(&content.read(bytes.len() as u64..content.length(), BytesMut::new()).await?);
        }
        match oci::Manifest::parse(&bytes) {
            Ok(manifest) => Ok(Some(StoredManifest { digest, kind: manifest.kind, bytes: bytes.freeze() })),
            Err(error) => {
                tracing::warn!(%repository, %digest, %error, "a manifest that cannot be read counts as absent");
                Ok(None)
            }
        }
    }

    /// Keeps a manifest.
    ///
    /// # Errors
    /// When it is not one, does not have the digest, or names content that has to be there first.
    pub async fn put_manifest(self: &Arc<Self>, put: PutManifest) -> Result<Accepted, Error> {
        let (algorithm, announced) = match &put.reference {
            Reference::Digest(digest) => (digest.algorithm(), Some(digest)),
            Reference::Tag(_) => (Algorithm::Sha256, None),
        };
        let found = Digest::of(algorithm, &put.bytes);
        if let Some(announced) = announced.filter(|announced| **announced != found) {
            return Err(Error::WrongDigest { announced: announced.clone(), found });
        }
        let manifest = oci::Manifest::parse_announced(&put.bytes, &put.content_type)?;
        Self::to_its_end(self.clone().keep(put, found, manifest)).await
    }

    async fn keep(
        self: Arc<Self>,
        put: PutManifest,
        digest: Digest,
        manifest: oci::Manifest,
    ) -> Result<Accepted, Error> {
        let mut tags = put.tags;
        if let Reference::Tag(tag) = put.reference {
            tags.push(tag);
        }
        let repository = &put.repository;
        let _repository = self.repository_locks.read(repository).await;
        let _tags = self.tag_locks.write_all(tags.iter().map(|tag| (repository.clone(), tag.clone()))).await;
        let children = manifest.children.iter().map(|child| &child.digest);
        let named = manifest.blobs.iter().chain(children).chain([&digest]).cloned();
        let _digests = self.digest_locks.read_all(named).await;

        self.check_complete(repository, &manifest).await?;
        self.store.put(&digest, put.bytes).await?;
        let revision = Link::Revision(repository.clone(), digest.clone());
        self.ensure_link(&revision, &digest).await?;
        for tag in tags {
            let link = Link::Tag(repository.clone(), tag.clone());
            let written = self.store.write_link(&link, &digest, Condition::Always).await;
            // A write that failed may have reached the disk all the same.
            self.forget(repository, Reference::Tag(tag));
            written?;
        }
        if let Some(subject) = &manifest.subject {
            self.add_referrer(repository, subject, &digest);
        }
        Ok(Accepted { digest, subject: manifest.subject })
    }

    async fn check_complete(&self, repository: &RepositoryName, manifest: &oci::Manifest) -> Result<(), Error> {
        let policy = self.settings().missing_content;
        let (mut digests, mut links) = (Vec::new(), Vec::new());
        // A digest counts as present where the repository has a link to it, not where only its bytes are.
        if policy != MissingContent::Allow {
            digests.extend(&manifest.blobs);
            links.extend(manifest.blobs.iter().map(|digest| Link::Layer(repository.clone(), digest.clone())));
        }
        if policy == MissingContent::Reject {
            let children = manifest.children.iter().map(|child| &child.digest);
            digests.extend(children.clone());
            links.extend(children.map(|digest| Link::Revision(repository.clone(), digest.clone())));
        }
        let mut targets = Vec::new();
        for (digest, target) in digests.iter().zip(self.store.links(links).await?) {
            targets.push(target.ok_or_else(|| Error::MissingContent((*digest).clone()))?);
        }
        let lengths = self.store.lengths(targets).await?;
        match digests.into_iter().zip(lengths).find(|(_, length)| length.is_none()) {
            Some((digest, _)) => Err(Error::MissingContent(digest.clone())),
            None => Ok(()),
        }
    }

    /// Takes a manifest or a tag away from a repository. With a manifest go the tags that stand for it.
    ///
    /// # Errors
    /// When the repository does not have it.
    pub async fn delete_manifest(
        self: &Arc<Self>,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<(), Error> {
        let (this, repository, reference) = (self.clone(), repository.clone(), reference.clone());
        Self::to_its_end(async move {
            let removed = match &reference {
                Reference::Tag(tag) => this.delete_tag(&repository, tag).await,
                Reference::Digest(digest) => this.delete_revision(&repository, digest).await,
            };
            if removed? { Ok(()) } else { Err(Error::ManifestUnknown(reference)) }
        })
        .await
    }

    async fn delete_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<bool, Error> {
        let _repository = self.repository_locks.read(repository).await;
        let _tag = self.tag_locks.write(&(repository.clone(), tag.clone())).await;
        let reference = Reference::Tag(tag.clone());
        let was_there = self.load(repository, &reference).await?.is_some();
        let removed = self.store.remove_link(&Link::Tag(repository.clone(), tag.clone())).await;
        self.forget(repository, reference);
        removed?;
        Ok(was_there)
    }

    /// Tags go first: one that was left behind would come back with the next push of the same manifest.
    async fn delete_revision(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool, Error> {
        let _repository = self.repository_locks.write(repository).await;
        let _digest = self.digest_locks.write(digest).await;
        let revision = Link::Revision(repository.clone(), digest.clone());
        if self.store.link(&revision).await?.is_none() {
            return Ok(false);
        }
        let tags = self.store.list(&Listing::Tags(repository.clone()), None, usize::MAX).await?;
        for tag in tags.into_iter().flatten().filter_map(|tag| tag.parse::<Tag>().ok()) {
            let link = Link::Tag(repository.clone(), tag.clone());
            if self.store.link(&link).await?.as_ref() == Some(digest) {
                let removed = self.store.remove_link(&link).await;
                self.forget(repository, Reference::Tag(tag));
                removed?;
            }
        }
        let removed = self.store.remove_link(&revision).await;
        self.forget(repository, Reference::Digest(digest.clone()));
        Ok(removed?)
    }

    fn forget(&self, repository: &RepositoryName, reference: Reference) {
        self.manifests.forget(&(repository.clone(), reference));
    }
}
