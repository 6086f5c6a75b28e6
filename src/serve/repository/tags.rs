//! The list of a repository's tags.

use super::{Error, Repositories};
use crate::oci::{RepositoryName, Tag};
use crate::serve::store::{Link, Listing};

/// How many tags are looked at between two chances for others to run.
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
        for (count, name) in names.iter().enumerate() {
            if tags.len() > limit {
                break;
            }
            if count % BATCH == BATCH - 1 {
                tokio::task::yield_now().await;
            }
            if let Ok(tag) = name.parse::<Tag>()
                && self.is_tag(repository, &tag).await?
            {
                tags.push(tag);
            }
        }
        let more = tags.len() > limit;
        tags.truncate(limit);
        Ok((tags, more))
    }

    /// Whether a folder of tags stands for a manifest that the repository has.
    async fn is_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<bool, Error> {
        let digest = self.store.link(&Link::Tag(repository.clone(), tag.clone())).await?;
        let Some(digest) = digest else { return Ok(false) };
        Ok(self.store.link(&Link::Revision(repository.clone(), digest)).await?.is_some())
    }
}
