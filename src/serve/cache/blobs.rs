//! Blobs of other registries: from what is kept, from a fill that runs, or by one that is begun. It must never let a caller join
//! a fill for which the upstream has not been asked for this caller's repository.

use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;

use super::asking::{AsWho, Asking, Turned};
use super::fill::{FillError, Given, Sources};
use super::{Ask, Cache, Refused};
use crate::oci::Digest;
use crate::serve::store::{Content, StoreError};
use crate::serve::upstream::{Failure, Identity, Object};

/// A blob of another registry.
pub enum Blob {
    /// It is here.
    Kept(Arc<dyn Content>),
    /// It is coming.
    Growing(Given),
    /// Its length alone, which was all that was asked for.
    Head(u64),
}

/// How often a caller tries to join what comes and goes meanwhile.
const ROUNDS: usize = 4;

/// What comes of a fill.
enum Coming {
    Given(Given),
    /// Others were faster.
    Kept,
}

impl Cache {
    /// A blob, of which the caller wants the bytes from `from` on.
    ///
    /// # Errors
    /// When the caller may not have it, or it is not here and cannot be fetched.
    pub async fn blob(self: &Arc<Self>, ask: &Ask, digest: &Digest, from: u64) -> Result<Blob, Refused> {
        let asking = self.asking(ask)?;
        let object = Object::Blob(asking.scope.repository.clone(), digest.clone());
        for _ in 0..ROUNDS {
            if let Some(blob) = self.kept(&asking, digest, &object, ask.head).await? {
                return Ok(blob);
            }
            if from > 0 && self.fills.was_wrong(digest, Instant::now()) {
                return Err(Refused::Unverified(asking.host()));
            }
            let coming = self.fill(&asking, digest, &object).await.map_err(|turned| asking.refused(turned))?;
            let Coming::Given(given) = coming else { continue };
            let host = &asking.scope.upstream;
            if given.joined {
                self.metrics.joined(host);
            } else {
                self.metrics.miss(host);
            }
            return Ok(Blob::Growing(given));
        }
        Err(asking.refused(Turned::Upstream(asking.away(format!("{digest} came and went again and again")))))
    }

    /// A blob that is here, or the length of one that is not, if that is all that is wanted.
    async fn kept(
        self: &Arc<Self>,
        asking: &Asking<'_>,
        digest: &Digest,
        object: &Object,
        head: bool,
    ) -> Result<Option<Blob>, Refused> {
        let host = &asking.scope.upstream;
        if let Some(kept) = self.store.blob(asking.scope, digest).await? {
            self.permit(asking, object).await?;
            self.metrics.hit(host);
            return Ok(Some(Blob::Kept(kept)));
        }
        let here = self.store.has(digest).await?;
        if !here && !head {
            return Ok(None);
        }
        let said = self.head(asking, object).await.map_err(|turned| asking.refused(turned))?;
        if here && let Some(kept) = self.linked(asking, digest).await? {
            self.metrics.hit(host);
            return Ok(Some(Blob::Kept(kept)));
        }
        Ok(said.length.filter(|_| head).map(Blob::Head))
    }

    /// A blob that is here, for a repository that has it too, as the upstream has just said.
    async fn linked(&self, asking: &Asking<'_>, digest: &Digest) -> Result<Option<Arc<dyn Content>>, StoreError> {
        match self.store.link_blob(asking.scope, digest).await {
            Ok(true) => self.store.blob(asking.scope, digest).await,
            Ok(false) => Ok(None),
            // A full disk takes nothing away from a client.
            Err(error) if error.is_full() => self.store.blob_without_link(digest).await,
            Err(error) => Err(error),
        }
    }

    /// Joins the fill of a blob, or begins it.
    async fn fill(&self, asking: &Asking<'_>, digest: &Digest, object: &Object) -> Result<Coming, Turned> {
        let send =
            |identity: Identity, as_who: AsWho| self.join(asking, digest, object, identity, as_who.is_proven).boxed();
        self.request(asking, send).await
    }

    async fn join(
        &self,
        asking: &Asking<'_>,
        digest: &Digest,
        object: &Object,
        identity: Identity,
        is_proven: bool,
    ) -> Result<Coming, Failure> {
        asking.mirror.pace(is_proven)?;
        let (upstream, repository) = (asking.upstream.clone(), asking.scope.repository.clone());
        let sources: Sources = {
            let (upstream, digest, identity) = (upstream.clone(), digest.clone(), identity.clone());
            Arc::new(move || upstream.blob(&repository, &digest, &identity))
        };
        let mut asked = is_proven;
        for _ in 0..ROUNDS {
            match self.fills.get(asking.scope, digest, rand::random(), sources.clone()).await {
                Ok(given) => {
                    // That somebody else got it proves nothing for this caller.
                    if given.joined && !asked {
                        upstream.head(object, &identity).await?;
                    }
                    return Ok(Coming::Given(given));
                }
                Err(FillError::OfAnotherScope) => {
                    upstream.head(object, &identity).await?;
                    asked = true;
                    if let Some(fill) = self.fills.running(digest) {
                        fill.allow(asking.scope);
                    }
                }
                Err(FillError::Kept) => {
                    if !asked {
                        upstream.head(object, &identity).await?;
                    }
                    return Ok(Coming::Kept);
                }
                Err(FillError::Upstream(failure)) => return Err(failure),
                Err(error @ (FillError::Busy(_) | FillError::Lost(_))) => return Err(asking.away(error.to_string())),
            }
        }
        Err(asking.away(format!("{digest} was begun and ended for other repositories again and again")))
    }
}
