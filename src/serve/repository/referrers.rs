//! Which manifests refer to a subject. What is in memory is a hint where to look: each answer is checked against the
//! manifests themselves, so that it need not be told of deletions.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use super::{Error, Repositories};
use crate::oci::{self, Descriptor, Digest, Reference, RepositoryName};
use crate::serve::store::Listing;

/// What is left of the largest manifest for the frame of an answer, which is an index itself.
pub(super) const FRAME: usize = 4096;

/// The referrers of a repository's manifests.
#[derive(Default)]
pub struct RepositoryReferrers {
    scanned: OnceCell<()>,
    subjects: Mutex<HashMap<Digest, BTreeSet<Digest>>>,
}

impl RepositoryReferrers {
    fn add(&self, subject: &Digest, referrer: &Digest) {
        let mut subjects = self.subjects.lock().unwrap_or_else(PoisonError::into_inner);
        subjects.entry(subject.clone()).or_default().insert(referrer.clone());
    }

    /// All subjects with what refers to them.
    pub fn into_subjects(self) -> HashMap<Digest, BTreeSet<Digest>> {
        self.subjects.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, subject: &Digest, last: Option<&Digest>) -> Vec<Digest> {
        let subjects = self.subjects.lock().unwrap_or_else(PoisonError::into_inner);
        let all = subjects.get(subject).into_iter().flatten();
        all.filter(|digest| last.is_none_or(|last| *digest > last)).cloned().collect()
    }
}

impl Repositories {
    /// Descriptors of the manifests that refer to a subject, behind `last`, as many as an index may have; and whether there
    /// are more. A subject that is not there may have some.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        artifact_type: Option<&str>,
        last: Option<&Digest>,
    ) -> Result<(Vec<Descriptor>, bool), Error> {
        let referrers = self.referrers.get_or_insert(repository.clone(), 1, Arc::default);
        referrers.scanned.get_or_try_init(|| self.scan(repository, &referrers)).await?;
        let (mut descriptors, mut size) = (Vec::new(), FRAME);
        for digest in referrers.of(subject, last) {
            let Some(descriptor) = self.describe(repository, subject, digest).await? else { continue };
            if artifact_type.is_some_and(|wanted| descriptor.artifact_type.as_deref() != Some(wanted)) {
                continue;
            }
            size += descriptor.written_length();
            if size > oci::manifest::LARGEST && !descriptors.is_empty() {
                return Ok((descriptors, true));
            }
            descriptors.push(descriptor);
        }
        Ok((descriptors, false))
    }

    async fn describe(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        digest: Digest,
    ) -> Result<Option<Descriptor>, Error> {
        let stored = match self.manifest(repository, &Reference::Digest(digest.clone())).await {
            Ok(stored) => stored,
            Err(Error::ManifestUnknown(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let manifest = oci::Manifest::parse(&stored.bytes).ok();
        let manifest = manifest.filter(|manifest| manifest.subject.as_ref() == Some(subject));
        Ok(manifest.map(|manifest| manifest.descriptor(digest, stored.bytes.len() as u64)))
    }

    /// Reads all manifests of a repository, once in the life of the process. A manifest that is pushed meanwhile is added by
    /// its push: what is scanned was put in its place in memory before this began.
    pub(super) async fn scan(&self, repository: &RepositoryName, referrers: &RepositoryReferrers) -> Result<(), Error> {
        let listing = Listing::Revisions(repository.clone());
        let revisions = self.store.list(&listing, None, usize::MAX).await?.unwrap_or_default();
        for digest in revisions.iter().filter_map(|text| text.parse::<Digest>().ok()) {
            tokio::task::yield_now().await;
            let Some(stored) = self.load(repository, &Reference::Digest(digest.clone())).await? else { continue };
            if let Ok(oci::Manifest { subject: Some(subject), .. }) = oci::Manifest::parse(&stored.bytes) {
                referrers.add(&subject, &digest);
            }
        }
        Ok(())
    }

    /// Tells of a manifest whose link is durable.
    pub(super) fn add_referrer(&self, repository: &RepositoryName, subject: &Digest, referrer: &Digest) {
        if let Some(referrers) = self.referrers.get(repository) {
            referrers.add(subject, referrer);
        }
    }
}
