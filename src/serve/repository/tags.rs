//! The list of a repository's tags.

use super::{Error, Repositories};
use crate::oci::{Digest, RepositoryName, Tag};
use crate::serve::store::{Link, Listing};

/// How many tags are looked at in one go.
const BATCH: usize = 64;

impl Repositories {
    /// The tags behind `last`, in their order, at most `limit`; and whether there are more.
    ///
    /// # Errors
    /// When there is no such repository.
    pub async fn tags(
        &self,
        repository: &RepositoryName,
        last: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<Tag>, bool), Error> {
        let listing = Listing::Tags(repository.clone());
        let names = self.store.list(&listing, last, usize::MAX).await?;
        let names = names.ok_or_else(|| Error::RepositoryUnknown(repository.clone()))?;
        let mut tags = Vec::new();
        for batch in names.chunks(BATCH) {
            if tags.len() > limit {
                break;
            }
            let batch = batch.iter().filter_map(|name| name.parse().ok()).collect();
            tags.extend(self.standing(repository, batch).await?);
        }
        let more = tags.len() > limit;
        tags.truncate(limit);
        Ok((tags, more))
    }

    /// Whether there is a repository of this name.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn has(&self, repository: &RepositoryName) -> Result<bool, Error> {
        Ok(self.store.list(&Listing::Tags(repository.clone()), None, 0).await?.is_some())
    }

    /// Those of some tags that stand for manifests which the repository has.
    async fn standing(&self, repository: &RepositoryName, tags: Vec<Tag>) -> Result<Vec<Tag>, Error> {
        let links = tags.iter().map(|tag| Link::Tag(repository.clone(), tag.clone())).collect();
        let targets = self.store.links(links).await?;
        let named: Vec<(Tag, Digest)> =
            tags.into_iter().zip(targets).filter_map(|(tag, target)| Some((tag, target?))).collect();
        let links = named.iter().map(|(_, digest)| Link::Revision(repository.clone(), digest.clone())).collect();
        let revisions = self.store.links(links).await?;
        let there = named.into_iter().zip(revisions).filter(|(_, revision)| revision.is_some());
        Ok(there.map(|((tag, _), _)| tag).collect())
    }
}
