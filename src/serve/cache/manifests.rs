//! Manifests of other registries: which one a tag names, and its bytes. It must never serve one whose blobs cannot be had:
//! some clients do not look elsewhere once they have a manifest.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;

use super::asking::{AsWho, Asking, Turned, to_its_end};
use super::freshness::{Settings, Verdict, is_fresh, judge, servable};
use super::rights::Standing;
use super::store::{CacheStore, CachedManifest, CachedTag, Scope};
use super::{Ask, Cache, Manifest, Metrics, Mirror, Missing, Refused};
use crate::oci::{Digest, Reference, Tag};
use crate::serve::store::StoreError;
use crate::serve::upstream::{FetchedManifest, Head, Identity, Object, Upstream};

/// For so long a tag that the upstream did not have is not asked for again.
const MISSING: Duration = Duration::from_secs(10);

/// Which manifest is meant, and what was learned on the way to it.
struct Resolved {
    digest: Digest,
    /// How old the answer is, where there is no newer one.
    age: Option<Duration>,
    /// What the upstream has just said to this caller.
    said: Option<Head>,
}

impl Cache {
    /// A manifest.
    ///
    /// # Errors
    /// When the caller may not have it, or it is not here and cannot be fetched.
    pub async fn manifest(self: &Arc<Self>, ask: &Ask, reference: &Reference) -> Result<Manifest, Refused> {
        let asking = self.asking(ask)?;
        let resolved = match reference {
            Reference::Digest(digest) => Resolved { digest: digest.clone(), age: None, said: None },
            Reference::Tag(tag) => self.resolve(&asking, tag).await?,
        };
        self.revision(&asking, resolved, ask.head).await
    }

    /// Which manifest a tag names.
    async fn resolve(self: &Arc<Self>, asking: &Asking<'_>, tag: &Tag) -> Result<Resolved, Refused> {
        let now = Timestamp::now();
        let known = self.store.tag(asking.scope, tag).await?;
        if let Some(known) = known.as_ref().filter(|known| is_fresh(known, now, &asking.settings))
            && let Standing::Allowed(_) = self.standing(asking, asking.upstream.is_away()).await?
        {
            return Ok(Resolved { digest: known.digest.clone(), age: None, said: None });
        }
        if self.missing.get(&missing(asking, tag)).is_some_and(|((), age)| age < MISSING) {
            return Err(Refused::Unknown(asking.host()));
        }
        let Some(known) = known else { return self.resolve_now(asking, tag, None).await };
        let Some(stale) = self.stale(asking, &known, now).await? else {
            return self.resolve_now(asking, tag, Some(known)).await;
        };
        let (cache, ask, tag) = (self.clone(), asking.ask.clone(), tag.clone());
        let resolving = async move { cache.resolve_now(&cache.asking(&ask)?, &tag, Some(known)).await };
        match asking.impatiently(resolving).await {
            Some(resolved) => resolved,
            None => Ok(self.resolved_stale(asking, stale)),
        }
    }

    /// What can be served of a tag without asking, and how old it is: nothing to those whose right does not stand, nor what is
    /// not here with all that belongs to it.
    async fn stale(
        &self,
        asking: &Asking<'_>,
        known: &CachedTag,
        now: Timestamp,
    ) -> Result<Option<(Digest, Duration)>, StoreError> {
        let servable = servable(known, now, &asking.settings);
        match servable {
            Some(stale) if self.stands_anyway(asking).await? => {
                Ok(self.store.is_complete(asking.scope, &stale.0).await?.then_some(stale))
            }
            _ => Ok(None),
        }
    }

    fn resolved_stale(&self, asking: &Asking<'_>, (digest, age): (Digest, Duration)) -> Resolved {
        self.metrics.stale(&asking.scope.upstream, age);
        asking.upstream.serves_stale();
        Resolved { digest, age: Some(age), said: None }
    }

    /// Asks the upstream which manifest a tag names, and falls back on what is `known` where it does not say.
    async fn resolve_now(&self, asking: &Asking<'_>, tag: &Tag, known: Option<CachedTag>) -> Result<Resolved, Refused> {
        match self.ask_for_tag(asking, tag).await {
            Ok(said) => {
                let digest = said.digest.clone().ok_or_else(|| Refused::Unknown(asking.host()))?;
                Ok(Resolved { digest, age: None, said: Some(said) })
            }
            Err(Turned::Upstream(failure)) => {
                let may_serve = self.stands_anyway(asking).await?;
                match judge(known.as_ref(), &failure, may_serve, Timestamp::now(), &asking.settings) {
                    Verdict::Stale(digest, age) => Ok(self.resolved_stale(asking, (digest, age))),
                    Verdict::Forget => {
                        self.store.remove_tag(asking.scope, tag).await?;
                        self.missing.remember(missing(asking, tag), ());
                        Err(asking.refused(Turned::Upstream(failure)))
                    }
                    Verdict::Fail => Err(asking.refused(Turned::Upstream(failure))),
                }
            }
            Err(turned) => Err(asking.refused(turned)),
        }
    }

    /// What the upstream says of a tag; always with the digest.
    async fn ask_for_tag(&self, asking: &Asking<'_>, tag: &Tag) -> Result<Head, Turned> {
        let reference = Reference::Tag(tag.clone());
        let send = |identity: Identity, AsWho { whose, is_proven }: AsWho| {
            let object = Object::Manifest(asking.scope.repository.clone(), reference.clone());
            let (asked, by) = (asking.asked(object.clone(), whose), self.errand(asking));
            let (tag, settings) = (tag.clone(), asking.settings);
            let request = move || {
                to_its_end(by.mirror.clone(), async move {
                    by.mirror.pace(is_proven)?;
                    // Another answer may have come since the store was looked at.
                    if is_proven && let Some(known) = by.fresh_tag(&tag, &settings).await {
                        return Ok(Head { digest: Some(known.digest), ..Head::default() });
                    }
                    let said = by.upstream.head(&object, &identity).await;
                    by.mirror.hear(&said);
                    let said = said?;
                    by.keep_tag(&tag, said.digest.as_ref()).await;
                    Ok(said)
                })
            };
            self.heads.run(asked, request).boxed()
        };
        let said = self.request(asking, send).await?;
        if said.digest.is_some() {
            return Ok(said);
        }
        // Without a digest, only the bytes say which manifest it is.
        let fetched = self.fetch(asking, &reference).await?;
        self.errand(asking).keep_tag(tag, Some(&fetched.digest)).await;
        let (digest, length) = (Some(fetched.digest), Some(fetched.bytes.len() as u64));
        Ok(Head { digest, length, media_type: Some(fetched.media_type) })
    }

    /// A manifest's bytes from the upstream, once for all who ask the same. They are kept if there is room.
    async fn fetch(&self, asking: &Asking<'_>, reference: &Reference) -> Result<FetchedManifest, Turned> {
        let send = |identity: Identity, AsWho { whose, is_proven }: AsWho| {
            let repository = asking.scope.repository.clone();
            let object = Object::Manifest(repository.clone(), reference.clone());
            let (asked, by, reference) = (asking.asked(object, whose), self.errand(asking), reference.clone());
            let request = move || {
                to_its_end(by.mirror.clone(), async move {
                    by.mirror.pace(is_proven)?;
                    // It may have come since the store was looked at.
                    if is_proven && let Some(kept) = by.kept_manifest(&reference).await {
                        return Ok(kept);
                    }
                    let fetched = by.upstream.manifest(&repository, &reference, &identity).await;
                    by.mirror.hear(&fetched);
                    let fetched = fetched?;
                    by.keep_manifest(&fetched).await;
                    Ok(fetched)
                })
            };
            self.manifests.run(asked, request).boxed()
        };
        self.request(asking, send).await
    }

    /// What a request takes along that may outlive the caller who began it.
    fn errand(&self, asking: &Asking<'_>) -> Errand {
        let (store, metrics) = (self.store.clone(), self.metrics.clone());
        let (mirror, upstream, scope) = (asking.mirror.clone(), asking.upstream.clone(), asking.scope.clone());
        Errand { store, metrics, mirror, upstream, scope }
    }

    async fn revision(
        self: &Arc<Self>,
        asking: &Asking<'_>,
        resolved: Resolved,
        head: bool,
    ) -> Result<Manifest, Refused> {
        let Resolved { digest, age, said } = resolved;
        let object = Object::Manifest(asking.scope.repository.clone(), Reference::Digest(digest.clone()));
        if let Some(kept) = self.store.manifest(asking.scope, &digest).await? {
            // A stale answer is given only to those whose right stands, and the upstream has just been asked in vain.
            if said.is_none() && age.is_none() {
                self.permit(asking, &object).await?;
            }
            if (age.is_some() || asking.upstream.is_away()) && !self.store.is_complete(asking.scope, &digest).await? {
                let problem = format!("{} cannot be asked, and not all that {digest} names is here", asking.host());
                return Err(Refused::Away { problem, retry_after: None });
            }
            self.metrics.hit(&asking.scope.upstream);
            return Ok(answer(digest, kept, age));
        }
        let said = match said {
            // The bytes are here by way of another repository: that this one has them too is all that is to be asked.
            None if self.store.has(&digest).await? => {
                Some(self.head(asking, &object).await.map_err(|turned| asking.refused(turned))?)
            }
            said => said,
        };
        if let Some(Head { media_type: Some(media_type), length, .. }) = said {
            let linked = match self.store.link_manifest(asking.scope, &digest, media_type).await {
                // A full disk takes nothing away from a client: it is fetched.
                Err(error) if error.is_full() => false,
                linked => linked?,
            };
            if linked && let Some(kept) = self.store.manifest(asking.scope, &digest).await? {
                self.metrics.hit(&asking.scope.upstream);
                return Ok(answer(digest, kept, age));
            }
            if let (true, Some(length)) = (head, length) {
                return Ok(Manifest { digest, media_type, length, bytes: None, age });
            }
        }
        let fetched = self.fetch(asking, &Reference::Digest(digest)).await.map_err(|turned| asking.refused(turned))?;
        let kept = CachedManifest { media_type: fetched.media_type, bytes: fetched.bytes };
        Ok(answer(fetched.digest, kept, age))
    }
}

/// A request to an upstream, and what is kept of its answer before anybody is told: who comes later finds it.
struct Errand {
    store: CacheStore,
    metrics: Metrics,
    mirror: Arc<Mirror>,
    upstream: Upstream,
    scope: Scope,
}

impl Errand {
    /// What is known of a tag, if that needs no question. A store that fails has nothing.
    async fn fresh_tag(&self, tag: &Tag, settings: &Settings) -> Option<CachedTag> {
        let known = self.store.tag(&self.scope, tag).await.ok().flatten();
        known.filter(|known| is_fresh(known, Timestamp::now(), settings))
    }

    async fn keep_tag(&self, tag: &Tag, digest: Option<&Digest>) {
        let Some(digest) = digest.cloned() else { return };
        let known = CachedTag { digest, checked: Timestamp::now() };
        if let Err(error) = self.store.put_tag(&self.scope, tag, &known).await {
            tracing::warn!(%error, %tag, upstream = %self.scope.upstream, "what a tag names is not kept");
        }
    }

    async fn kept_manifest(&self, reference: &Reference) -> Option<FetchedManifest> {
        let Reference::Digest(digest) = reference else { return None };
        let CachedManifest { media_type, bytes } = self.store.manifest(&self.scope, digest).await.ok().flatten()?;
        Some(FetchedManifest { digest: digest.clone(), media_type, bytes })
    }

    /// A disk that fails or is full takes no manifest away from a client: the bytes are here.
    async fn keep_manifest(&self, fetched: &FetchedManifest) {
        self.metrics.miss(&self.scope.upstream);
        let kept = CachedManifest { media_type: fetched.media_type, bytes: fetched.bytes.clone() };
        if let Err(error) = self.store.put_manifest(&self.scope, &fetched.digest, &kept).await {
            tracing::warn!(%error, digest = %fetched.digest, "a manifest could not be kept; it is passed on");
        }
    }
}

/// As what it is remembered that a tag is not there, for this caller.
fn missing(asking: &Asking<'_>, tag: &Tag) -> Missing {
    (asking.scope.clone(), tag.clone(), asking.caller.map(|(_, fingerprint)| fingerprint), asking.is_own())
}

fn answer(digest: Digest, kept: CachedManifest, age: Option<Duration>) -> Manifest {
    let CachedManifest { media_type, bytes } = kept;
    Manifest { digest, media_type, length: bytes.len() as u64, bytes: Some(bytes), age }
}
