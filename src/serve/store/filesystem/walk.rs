//! Walks once over all that is there, to count it. It takes its time: it must never keep the disk from those who are served.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::disk::Disk;
use super::{Filesystem, layout};
use crate::oci::Algorithm;
use crate::serve::store::{StoreError, Usage};

/// How much longer it rests after each step than the step took.
const REST: u32 = 4;
/// Folders of repositories that are looked into at a step.
const FOLDERS: usize = 64;

impl Filesystem {
    /// What is there; none before it was counted.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        let counts = &self.disk.counts;
        Some(Usage { bytes: counts.content.sum()?, repositories: counts.repositories.sum()? })
    }

    /// Counts what is there, once in the life of the process. What is added meanwhile and later is counted as it comes.
    ///
    /// # Errors
    /// When a folder cannot be read. There is no count then.
    pub async fn count(&self) -> Result<(), StoreError> {
        for algorithm in Algorithm::ALL {
            let folder = layout::contents(algorithm);
            let starts = self.slowly(move |disk| disk.names(&folder)).await?;
            for start in starts.unwrap_or_default() {
                self.slowly(move |disk| disk.count_contents(algorithm, &start)).await?;
            }
        }
        self.disk.counts.content.complete();
        let mut folders = vec![PathBuf::new()];
        while !folders.is_empty() {
            let some = folders.split_off(folders.len().saturating_sub(FOLDERS));
            folders.extend(self.slowly(move |disk| disk.count_repositories(&some)).await?);
        }
        self.disk.counts.repositories.complete();
        Ok(())
    }

    async fn slowly<T: Send + 'static>(
        &self,
        step: impl FnOnce(&Disk) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (done, took) = self
            .blocking(move |disk| {
                let began = Instant::now();
                step(disk).map(|done| (done, began.elapsed()))
            })
            .await?;
        tokio::time::sleep((took * REST).max(Duration::from_millis(1))).await;
        Ok(done)
    }
}

impl Disk {
    /// The content whose digests have this start.
    fn count_contents(&self, algorithm: Algorithm, start: &str) -> Result<(), StoreError> {
        let folder = layout::contents(algorithm).join(start);
        for name in self.names(&folder)?.unwrap_or_default() {
            let Ok(digest) = format!("{}:{name}", algorithm.as_str()).parse() else { continue };
            if let Some(length) = self.length(&folder.join(&name).join("data"))? {
                self.counts.content.found(&digest, length);
            }
        }
        Ok(())
    }

    /// Which of these folders are repositories, and which folders there are in them that may be.
    fn count_repositories(&self, folders: &[PathBuf]) -> Result<Vec<PathBuf>, StoreError> {
        let mut below = Vec::new();
        for folder in folders {
            let names = self.names(&Path::new(layout::REPOSITORIES).join(folder))?.unwrap_or_default();
            let is_one = names.iter().any(|name| layout::PARTS.contains(&name.as_str()));
            if let Some(name) = repository_of(folder).filter(|_| is_one) {
                self.counts.repositories.found(&name, 1);
            }
            below.extend(names.iter().filter(|name| !name.starts_with('_')).map(|name| folder.join(name)));
        }
        Ok(below)
    }
}

fn repository_of(folder: &Path) -> Option<crate::oci::RepositoryName> {
    folder.to_str()?.parse().ok()
}
