//! What is done in the background: building the index from the tree, checkpoints, writing down last uses, and hashing what a
//! crash may have spoiled. It must never keep anybody waiting for longer than one small step of it takes.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::index::Named;
use super::{CacheStore, Scope, Shared, layout};
use crate::oci::{Algorithm, Digest, RegistryHost};
use crate::serve::store::StoreError;

/// How often there is a checkpoint, if anything has come since the last one.
const CHECKPOINT: Duration = Duration::from_secs(10);
/// How often last uses are written down: each object's at most once in so long.
const USES: Duration = Duration::from_secs(60);
/// Until the index is built again after it failed.
const AGAIN: Duration = Duration::from_secs(60);
/// Files that are looked at in one step.
const STEP: usize = 64;

impl CacheStore {
    /// Builds the index, then takes care of the store until `stop` is cancelled, and ends in order. What is put into the store
    /// later needs no care: it is as after a crash.
    pub async fn maintain(self, stop: CancellationToken) {
        while !self.0.tree.index().is_complete() {
            let Some(Err(error)) = stop.run_until_cancelled(self.build()).await else { break };
            tracing::warn!(%error, "the cache cannot be looked through; nothing is evicted before it was");
            if stop.run_until_cancelled(tokio::time::sleep(AGAIN)).await.is_none() {
                break;
            }
        }
        let mut uses = tokio::time::Instant::now() + USES;
        while stop.run_until_cancelled(tokio::time::sleep(CHECKPOINT)).await.is_some() {
            let Some(proven) = stop.run_until_cancelled(self.prove_all()).await else { break };
            said(proven, "what a crash may have spoiled cannot be hashed");
            if tokio::time::Instant::now() >= uses {
                uses = tokio::time::Instant::now() + USES;
                said(self.write_uses().await, "last uses in the cache cannot be written down");
            }
            said(self.checkpoint().await, "the cache has no checkpoint");
            said(self.shrink().await, "the cache cannot be made smaller");
        }
        said(self.write_uses().await, "last uses in the cache cannot be written down");
        said(
            self.end().await,
            "the cache does not end in order: what has come lately is hashed again after the next start",
        );
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = self.0.clone();
        self.0.writers.run(move || work(&shared)).await
    }

    /// As [`CacheStore::on_disk`], resting afterwards for as long as it took, because others want the disk too.
    async fn slowly<T: Send + 'static>(
        &self,
        step: impl FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let began = Instant::now();
        let done = self.on_disk(step).await?;
        tokio::time::sleep(began.elapsed().min(Duration::from_secs(1))).await;
        Ok(done)
    }

    async fn names(&self, folder: PathBuf) -> Result<Vec<String>, StoreError> {
        self.on_disk(move |shared| Ok(shared.tree.disk.names(&folder)?.unwrap_or_default())).await
    }

    /// Looks through all that is there.
    pub(super) async fn build(&self) -> Result<(), StoreError> {
        for algorithm in Algorithm::ALL {
            for start in self.names(layout::contents(algorithm)).await? {
                let digests = self.digests(layout::contents(algorithm).join(start), algorithm).await?;
                for some in digests.chunks(STEP).map(<[Digest]>::to_vec) {
                    self.slowly(move |shared| some.iter().try_for_each(|digest| shared.list_content(digest))).await?;
                }
            }
        }
        self.0.tree.index().contents_are_listed();
        for host in self.names(layout::REGISTRIES.into()).await? {
            let Ok(host) = RegistryHost::of_prefix(&host) else { continue };
            let mut folders = vec![PathBuf::new()];
            while let Some(folder) = folders.pop() {
                for name in self.names(layout::registry(&host).join(&folder)).await? {
                    if !name.starts_with('_') {
                        folders.push(folder.join(name));
                    }
                }
                if let Some(repository) = folder.to_str().and_then(|name| name.parse().ok()) {
                    self.list_scope(Scope { upstream: host.clone(), repository }).await?;
                }
            }
        }
        self.on_disk(|shared| {
            let changing = shared.tree.change();
            let mut index = shared.tree.index();
            index.complete();
            shared.tree.clock.not_below(index.latest());
            drop(changing);
            Ok(())
        })
        .await
    }

    async fn digests(&self, folder: PathBuf, algorithm: Algorithm) -> Result<Vec<Digest>, StoreError> {
        let names = self.names(folder).await?;
        Ok(names.iter().filter_map(|hex| format!("{}:{hex}", algorithm.as_str()).parse().ok()).collect())
    }

    /// Takes up what one repository has, manifests first: what names them is known then.
    async fn list_scope(&self, scope: Scope) -> Result<(), StoreError> {
        let folder = layout::scope(&scope);
        for (kind, named) in [(layout::MANIFESTS, Named::Manifest as fn(Digest) -> Named), (layout::BLOBS, Named::Blob)]
        {
            for algorithm in Algorithm::ALL {
                let digests = self.digests(folder.join(kind).join(algorithm.as_str()), algorithm).await?;
                for some in digests.chunks(STEP).map(<[Digest]>::to_vec) {
                    let scope = scope.clone();
                    let list = move |shared: &Shared| {
                        some.into_iter()
                            .try_for_each(|digest| shared.tree.change().find_or_sweep_link(&scope, &named(digest)))
                    };
                    self.slowly(list).await?;
                }
            }
        }
        let tags = self.names(folder.join(layout::TAGS)).await?;
        for some in tags.chunks(STEP).map(<[String]>::to_vec) {
            let scope = scope.clone();
            let list = move |shared: &Shared| {
                let mut tags = some.iter().filter_map(|tag| tag.parse().ok());
                tags.try_for_each(|tag| shared.tree.change().find_or_sweep_tag(&scope, &tag))
            };
            self.slowly(list).await?;
        }
        self.on_disk(move |shared| shared.tree.change().find_or_sweep_public(&scope)).await
    }

    /// Hashes what a crash may have spoiled. Only then a checkpoint says the truth.
    pub(super) async fn prove_all(&self) -> Result<(), StoreError> {
        for digest in self.on_disk(|shared| Ok(shared.tree.change().suspects())).await? {
            self.prove(&digest).await?;
        }
        self.on_disk(|shared| {
            shared.tree.change().all_are_proven();
            Ok(())
        })
        .await
    }

    /// Writes down when things were last used.
    pub(super) async fn write_uses(&self) -> Result<(), StoreError> {
        loop {
            let uses = self.0.tree.index().take_unwritten(STEP);
            if uses.is_empty() {
                return Ok(());
            }
            self.on_disk(move |shared| {
                uses.iter().try_for_each(|(scope, named, used)| shared.tree.write_use(scope, named, *used))
            })
            .await?;
        }
    }

    pub(super) async fn checkpoint(&self) -> Result<(), StoreError> {
        self.on_disk(|shared| shared.tree.checkpoint()).await
    }

    /// Evicts what is more than the size, after that was made smaller.
    pub(super) async fn shrink(&self) -> Result<(), StoreError> {
        self.on_disk(|shared| shared.make_room(0).map(drop)).await
    }

    pub(super) async fn end(&self) -> Result<(), StoreError> {
        self.on_disk(|shared| shared.tree.end()).await
    }
}

impl Shared {
    fn list_content(&self, digest: &Digest) -> Result<(), StoreError> {
        self.tree.change().find_content(digest).map(drop)
    }
}

/// What fails here is tried again, or costs no more than time.
fn said(result: Result<(), StoreError>, meaning: &str) {
    if let Err(error) = result {
        tracing::warn!(%error, "{meaning}");
    }
}
