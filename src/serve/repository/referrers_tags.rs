//! The protocol's referrers tags, for engines without its referrers API: an index of what refers to a subject, under a tag
//! made of the subject's digest. They are written while nobody serves the root. It must never leave out of such an index a
//! manifest that is there and that a client has put in, and never take such a tag from something else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::referrers::{FRAME, RepositoryReferrers};
use super::{Error, PutManifest, Repositories};
use crate::oci::{self, Descriptor, Digest, ManifestType, Reference, ReferrersIndex, RepositoryName, Tag, manifest};
use crate::serve::store::Listing;

/// What a tag of that form lists; none where it stands for something else than an index.
type Listed = BTreeMap<Tag, Option<BTreeSet<Digest>>>;

impl Repositories {
    /// Brings the referrers tags of all repositories up to what is there; returns how many were written or removed.
    ///
    /// # Errors
    /// When the store fails. What is done by then is right, and the rest is done by the next call.
    pub async fn tag_referrers(self: &Arc<Self>) -> Result<usize, Error> {
        let names = self.store.list(&Listing::Repositories, None, usize::MAX).await?.unwrap_or_default();
        let mut changed = 0;
        for repository in names.iter().filter_map(|name| name.parse().ok()) {
            changed += self.tag_referrers_of(&repository).await?;
        }
        Ok(changed)
    }

    async fn tag_referrers_of(self: &Arc<Self>, repository: &RepositoryName) -> Result<usize, Error> {
        let referrers = RepositoryReferrers::default();
        self.scan(repository, &referrers).await?;
        let listed = self.listed_by_tags(repository).await?;
        let indexes = listed.iter().filter_map(|(tag, listed)| Some((tag.clone(), listed.clone()?)));
        let mut wanted: BTreeMap<Tag, BTreeSet<Digest>> = indexes.collect();
        for (subject, referrers) in referrers.into_subjects() {
            let tag = Tag::of_referrers(&subject);
            if listed.get(&tag) == Some(&None) {
                tracing::warn!(%repository, %tag, "the tag is not that of an index, so referrers cannot be listed by it");
                continue;
            }
            wanted.entry(tag).or_default().extend(referrers);
        }
        let mut changed = 0;
        for (tag, digests) in wanted {
            let descriptors = self.descriptors(repository, &digests).await?;
            let found = descriptors.iter().map(|descriptor| descriptor.digest.clone()).collect();
            // Where a client's index has all and no more, its bytes stay.
            if listed.get(&tag) == Some(&Some(found)) {
                continue;
            }
            if descriptors.is_empty() {
                self.delete_manifest(repository, &Reference::Tag(tag)).await?;
            } else {
                self.put_manifest(index(repository, tag, &descriptors)).await?;
            }
            changed += 1;
        }
        Ok(changed)
    }

    async fn listed_by_tags(&self, repository: &RepositoryName) -> Result<Listed, Error> {
        let mut listed = Listed::new();
        let names = self.store.list(&Listing::Tags(repository.clone()), None, usize::MAX).await?.unwrap_or_default();
        for tag in names.iter().filter_map(|name| name.parse::<Tag>().ok()).filter(Tag::is_of_referrers) {
            let Some(stored) = self.load(repository, &Reference::Tag(tag.clone())).await? else { continue };
            let children = match stored.kind {
                ManifestType::OciIndex => {
                    let children = oci::Manifest::parse(&stored.bytes)?.children;
                    Some(children.into_iter().map(|child| child.digest).collect())
                }
                _ => None,
            };
            listed.insert(tag, children);
        }
        Ok(listed)
    }

    /// How an index describes those of the manifests that are there, as many as it may have.
    async fn descriptors(
        &self,
        repository: &RepositoryName,
        digests: &BTreeSet<Digest>,
    ) -> Result<Vec<Descriptor>, Error> {
        let (mut descriptors, mut size) = (Vec::new(), FRAME);
        for digest in digests {
            let Some(stored) = self.load(repository, &Reference::Digest(digest.clone())).await? else { continue };
            let manifest = oci::Manifest::parse(&stored.bytes)?;
            let descriptor = manifest.descriptor(digest.clone(), stored.bytes.len() as u64);
            size += descriptor.written_length();
            if size > manifest::LARGEST {
                tracing::warn!(%repository, all = digests.len(), "not all referrers fit into the index of a referrers tag");
                break;
            }
            descriptors.push(descriptor);
        }
        Ok(descriptors)
    }
}

fn index(repository: &RepositoryName, tag: Tag, manifests: &[Descriptor]) -> PutManifest {
    let media_type = ManifestType::OciIndex.as_str();
    // Descriptors always serialize.
    let bytes = serde_json::to_vec(&ReferrersIndex::new(manifests)).unwrap_or_default();
    PutManifest {
        repository: repository.clone(),
        reference: Reference::Tag(tag),
        tags: Vec::new(),
        content_type: media_type.to_owned(),
        bytes: Bytes::from(bytes),
    }
}
