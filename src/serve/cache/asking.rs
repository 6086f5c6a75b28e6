//! How an upstream is asked for a caller: with whose credential, in which order, and what its answer proves. It must never take
//! an answer that one credential got for an answer to another.

use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::task::JoinError;

use super::freshness::Settings;
use super::rights::{Fingerprint, PrivateImages, Standing, Whose, standing};
use super::store::Scope;
use super::{Ask, Cache, Caller, Mirror, Refused};
use crate::oci::RegistryHost;
use crate::serve::store::StoreError;
use crate::serve::upstream::{Basic, Failure, Head, Identity, List, Listed, Object, Upstream};

/// What is asked, and with whose credential: those who ask the same may wait for the same answer.
pub type Asked = (RegistryHost, Object, Whose, Option<Fingerprint>);

/// In which role a request is sent.
#[derive(Clone, Copy)]
pub struct AsWho {
    pub whose: Whose,
    /// Whether the right is proven already. If not, an answer counts as proof, and must be the upstream's own to this request.
    pub is_proven: bool,
}

/// A request on its way.
pub struct Asking<'a> {
    pub mirror: Arc<Mirror>,
    /// The upstream, told through which servers the request came.
    pub upstream: Upstream,
    pub settings: Settings,
    pub ask: &'a Ask,
    pub scope: &'a Scope,
    pub caller: Option<(&'a Basic, Fingerprint)>,
}

/// Why nothing was got.
pub enum Turned {
    /// The caller does not have the right, and no upstream was asked.
    Away(Refused),
    /// The upstream's answer.
    Upstream(Failure),
}

impl From<StoreError> for Turned {
    fn from(error: StoreError) -> Self {
        Self::Away(Refused::Store(error))
    }
}

impl Asking<'_> {
    /// The upstream's name.
    pub fn host(&self) -> RegistryHost {
        self.scope.upstream.clone()
    }

    /// That it cannot be had now, for a reason of our own.
    pub fn away(&self, problem: String) -> Failure {
        Failure::Away { host: self.host(), problem, retry_after: None }
    }

    /// Whether it is this server's own question.
    pub fn is_own(&self) -> bool {
        matches!(self.ask.caller, Caller::Mirror)
    }

    fn identity(&self, whose: Whose) -> Identity {
        match (whose, self.caller) {
            (Whose::Ours, _) => Identity::Own,
            (Whose::Client, Some((credential, _))) => Identity::Client(credential.clone()),
            (Whose::Client | Whose::Nobody, _) => Identity::Anonymous,
        }
    }

    /// Names a question, so that others can wait for its answer.
    pub fn asked(&self, object: Object, whose: Whose) -> Asked {
        let fingerprint = self.caller.filter(|_| whose == Whose::Client).map(|(_, fingerprint)| fingerprint);
        (self.host(), object, whose, fingerprint)
    }

    /// What comes of a question within the patience that there is with this upstream; None where that is over. The question goes
    /// on by itself then: what it finds out is not lost.
    pub async fn impatiently<T: Send + 'static>(
        &self,
        question: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let question = tokio::spawn(question);
        match tokio::time::timeout(self.mirror.patience.left(Instant::now()), question).await {
            Ok(answer) => answer.ok(),
            Err(_) => {
                self.mirror.patience.is_tried(Instant::now());
                None
            }
        }
    }

    /// What a caller is told.
    pub fn refused(&self, turned: Turned) -> Refused {
        let host = self.host();
        match turned {
            Turned::Away(refused) => refused,
            Turned::Upstream(Failure::NotFound(_)) => Refused::Unknown(host),
            Turned::Upstream(Failure::Denied(_)) if self.may_authenticate() => Refused::Unauthorized(host),
            Turned::Upstream(Failure::Denied(_)) => Refused::Denied(host),
            Turned::Upstream(Failure::Loop(_)) => Refused::Loop(host),
            Turned::Upstream(Failure::Away { problem, retry_after, host }) => {
                Refused::Away { problem: format!("{host} cannot be asked: {problem}"), retry_after }
            }
            Turned::Upstream(failure @ (Failure::CredentialsRejected(_) | Failure::Wrong { .. })) => {
                Refused::Away { problem: failure.to_string(), retry_after: None }
            }
        }
    }

    /// Whether a credential could help.
    fn may_authenticate(&self) -> bool {
        self.mirror.private_images == PrivateImages::VerifyWithUpstream && self.caller.is_none()
    }
}

/// A question that is asked to its end, also where nobody waits for the answer any more: what it tells of the upstream is not lost.
pub fn to_its_end<T: Send + 'static>(
    mirror: Arc<Mirror>,
    question: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> BoxFuture<'static, Result<T, Failure>> {
    let asked = tokio::spawn(question);
    let lost = move |error: JoinError| Failure::Away {
        host: mirror.upstream.host().clone(),
        problem: format!("the question was not asked to its end: {error}"),
        retry_after: None,
    };
    async move { asked.await.unwrap_or_else(|error| Err(lost(error))) }.boxed()
}

impl Cache {
    /// Takes a request on.
    pub(super) fn asking<'a>(&self, ask: &'a Ask) -> Result<Asking<'a>, Refused> {
        let mirrors = self.mirrors();
        let host = &ask.scope.upstream;
        let mirror = mirrors.by_host.get(host).cloned().ok_or_else(|| Refused::Unknown(host.clone()))?;
        let caller = match &ask.caller {
            Caller::Client(Some(credential)) => Some((credential, self.proofs.fingerprint(credential))),
            Caller::Client(None) | Caller::Mirror => None,
        };
        let upstream = mirror.upstream.behind(&ask.via);
        Ok(Asking { mirror, upstream, settings: mirrors.settings, ask, scope: &ask.scope, caller })
    }

    /// How the caller stands to the repository.
    pub(super) async fn standing(&self, asking: &Asking<'_>, away: bool) -> Result<Standing, StoreError> {
        if asking.is_own() {
            return Ok(Standing::Allowed(Whose::Ours));
        }
        if !self.proofs.remembers(asking.scope)
            && let Some(at) = self.store.public(asking.scope).await?
        {
            self.proofs.was_public(asking.scope, at);
        }
        let caller = asking.caller.map(|(_, fingerprint)| fingerprint);
        let known = self.proofs.known(asking.scope, caller, Timestamp::now());
        Ok(standing(asking.mirror.private_images, caller.is_some(), known, away, &asking.settings))
    }

    /// Whether the caller's right stands although the upstream cannot be asked.
    pub(super) async fn stands_anyway(&self, asking: &Asking<'_>) -> Result<bool, StoreError> {
        Ok(matches!(self.standing(asking, true).await?, Standing::Allowed(_)))
    }

    /// Whether the caller may have an object that is here. A right that would stand without the upstream's word does not wait for
    /// it for long; when it comes, it counts for the next.
    pub(super) async fn permit(self: &Arc<Self>, asking: &Asking<'_>, object: &Object) -> Result<(), Refused> {
        if let Standing::Allowed(_) = self.standing(asking, asking.upstream.is_away()).await? {
            return Ok(());
        }
        if !self.stands_anyway(asking).await? {
            return self.prove_for(asking, object).await;
        }
        let (cache, ask, object) = (self.clone(), asking.ask.clone(), object.clone());
        let proof = async move { cache.prove_for(&cache.asking(&ask)?, &object).await };
        asking.impatiently(proof).await.unwrap_or(Ok(()))
    }

    /// Asks the upstream whether a caller may have an object.
    async fn prove_for(&self, asking: &Asking<'_>, object: &Object) -> Result<(), Refused> {
        match self.head(asking, object).await {
            Ok(_) => Ok(()),
            Err(Turned::Upstream(Failure::Away { .. })) if self.stands_anyway(asking).await? => Ok(()),
            Err(turned) => Err(asking.refused(turned)),
        }
    }

    /// Asks the upstream for an object without its bytes, once for all who ask the same.
    pub(super) async fn head(&self, asking: &Asking<'_>, object: &Object) -> Result<Head, Turned> {
        let send = |identity, AsWho { whose, is_proven }: AsWho| {
            let (mirror, upstream, object) = (asking.mirror.clone(), asking.upstream.clone(), object.clone());
            let asked = asking.asked(object.clone(), whose);
            let request = move || {
                to_its_end(mirror.clone(), async move {
                    mirror.pace(is_proven)?;
                    let said = upstream.head(&object, &identity).await;
                    mirror.hear(&said);
                    said
                })
            };
            self.heads.run(asked, request).boxed()
        };
        self.request(asking, send).await
    }

    /// Asks the upstream with the credentials that the caller's standing calls for, and remembers what its answer proves.
    pub(super) async fn request<'a, T>(
        &self,
        asking: &Asking<'_>,
        send: impl Fn(Identity, AsWho) -> BoxFuture<'a, Result<T, Failure>>,
    ) -> Result<T, Turned> {
        let policy = asking.mirror.private_images;
        let mut standing = self.standing(asking, asking.upstream.is_away()).await?;
        if let Standing::Allowed(whose) = standing {
            let is_proven = true;
            let mut answer = send(asking.identity(whose), AsWho { whose, is_proven }).await;
            if policy != PrivateImages::Shared
                && let (Whose::Ours, Err(Failure::CredentialsRejected(_))) = (whose, &answer)
            {
                // What everybody may have does not need it.
                let whose = Whose::Nobody;
                answer = send(asking.identity(whose), AsWho { whose, is_proven }).await;
            }
            match answer {
                // What this server is not given says nothing of what everybody is.
                Err(Failure::Denied(_)) if policy != PrivateImages::Shared && !asking.is_own() => {
                    self.revoke(asking, whose).await?;
                    standing = self.standing(asking, false).await?;
                }
                answer => return answer.map_err(Turned::Upstream),
            }
        }
        match standing {
            Standing::Prove(candidates) => self.prove(asking, candidates, send).await,
            Standing::Unauthorized => Err(Turned::Away(Refused::Unauthorized(asking.host()))),
            Standing::Denied | Standing::Allowed(_) => Err(Turned::Away(Refused::Denied(asking.host()))),
        }
    }

    async fn prove<'a, T>(
        &self,
        asking: &Asking<'_>,
        candidates: &[Whose],
        send: impl Fn(Identity, AsWho) -> BoxFuture<'a, Result<T, Failure>>,
    ) -> Result<T, Turned> {
        let mut last = Failure::NotFound(asking.host());
        for &whose in candidates {
            match send(asking.identity(whose), AsWho { whose, is_proven: false }).await {
                Ok(answer) => {
                    self.is_proven(asking, whose).await;
                    return Ok(answer);
                }
                Err(failure @ Failure::Denied(_)) => {
                    self.revoke(asking, whose).await?;
                    if whose == Whose::Nobody {
                        self.proofs.is_private(asking.scope);
                    }
                    last = failure;
                }
                // Some registries say so of what they do not give to everybody.
                Err(failure @ Failure::NotFound(_)) => last = failure,
                Err(failure) => return Err(Turned::Upstream(failure)),
            }
        }
        Err(Turned::Upstream(last))
    }

    async fn is_proven(&self, asking: &Asking<'_>, whose: Whose) {
        match (whose, asking.caller) {
            (Whose::Client, Some((_, caller))) => self.proofs.is_granted(asking.scope, caller),
            (Whose::Nobody, _) => {
                let now = Timestamp::now();
                self.proofs.is_public(asking.scope, now);
                // It is for the time after a restart; a full disk takes nothing away from a client.
                if let Err(error) = self.store.put_public(asking.scope, Some(now)).await {
                    tracing::warn!(%error, upstream = %asking.scope.upstream, "that a repository is public is not kept");
                }
            }
            (Whose::Client | Whose::Ours, _) => {}
        }
    }

    /// Forgets what an answer has just denied.
    async fn revoke(&self, asking: &Asking<'_>, whose: Whose) -> Result<(), StoreError> {
        match (whose, asking.caller) {
            (Whose::Client, Some((_, caller))) => self.proofs.is_refused(asking.scope, caller),
            (Whose::Client, None) => {}
            (Whose::Nobody | Whose::Ours, _) => {
                self.proofs.is_open(asking.scope);
                self.store.put_public(asking.scope, None).await?;
            }
        }
        Ok(())
    }

    /// A list, as the upstream has it now.
    ///
    /// # Errors
    /// When the caller may not have it, or the upstream does not give it.
    pub async fn list(&self, ask: &Ask, listed: &Listed) -> Result<List, Refused> {
        let asking = self.asking(ask)?;
        let send = |identity: Identity, AsWho { is_proven, .. }: AsWho| {
            let (mirror, upstream) = (asking.mirror.clone(), asking.upstream.clone());
            let (repository, listed) = (ask.scope.repository.clone(), listed.clone());
            async move {
                mirror.pace(is_proven)?;
                upstream.list(&repository, &listed, &identity).await
            }
            .boxed()
        };
        self.request(&asking, send).await.map_err(|turned| asking.refused(turned))
    }
}
