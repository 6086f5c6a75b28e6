//! The edge: requests in, answers out, one log line each. It decides nothing but who may ask what; the rest is the
//! domain's. It must never put into an answer what the domain does not say.

mod answers;
mod body;
mod canary;
mod content;
mod error;
mod metrics;
mod mirrors;
mod route;
pub mod target;
mod uploads;

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use hyper::body::{Body as _, Incoming};
use hyper::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, RANGE,
    USER_AGENT,
};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use self::error::Refusal;
use self::route::{Query, Route, route};
use self::target::{Asked, Mirrored, Target};
use super::access::{Access, Agents, Caller, Rights};
use super::repository::{Error, Repositories};
use crate::oci::RepositoryName;

pub use body::Answer;
pub use metrics::Metrics;
pub use mirrors::Mirrors;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
/// How long a request waits until it may bring content.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many bytes of manifests that are being pushed are held in memory.
const MANIFESTS_IN_FLIGHT: usize = 32 * 1024 * 1024;
/// What may stand in a request once at most: what two of them mean, two servers may see differently.
const ONCE: [HeaderName; 7] = [AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HOST, RANGE, AGENT_TOKEN];
/// With what an agent shows that it is one.
const AGENT_TOKEN: HeaderName = HeaderName::from_static("wharf-agent-token");

/// Answers requests.
pub struct Server {
    repositories: Arc<Repositories>,
    access: Arc<Access>,
    agents: Arc<Agents>,
    mirrors: Option<Arc<Mirrors>>,
    metrics: Metrics,
    manifests_in_flight: Semaphore,
    limits: RwLock<Limits>,
}

/// What requests are bound by.
#[derive(Clone, Debug)]
pub struct Limits {
    /// As many of them as may bring content at the same time.
    receiving: Arc<Semaphore>,
    /// How long one may bring nothing.
    idle: Duration,
}

impl Limits {
    /// So many requests that bring content, each of which may rest for so long.
    #[must_use]
    pub fn new(receiving: usize, idle: Duration) -> Self {
        Self { receiving: Arc::new(Semaphore::new(receiving)), idle }
    }
}

/// Whose content a request is for, once that is decided.
enum Whose<'a> {
    /// This server's own.
    Ours(Route),
    /// Another registry's.
    Mirror(&'a Mirrors, Mirrored),
    /// Nobody's: the canary. None where it would be changed.
    Canary(Option<Asked>),
}

impl Whose<'_> {
    fn of_this_server(route: Route) -> Self {
        if route.repository().is_some_and(canary::is_it) {
            Self::Canary(target::asked(&route))
        } else {
            Self::Ours(route)
        }
    }
}

/// An answer without a body.
fn answer<'a>(status: StatusCode, headers: impl IntoIterator<Item = (HeaderName, &'a str)>) -> Response<Answer> {
    let mut response = Response::new(Answer::empty());
    *response.status_mut() = status;
    for (name, text) in headers {
        if let Ok(value) = HeaderValue::try_from(text) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// Says in which repository the domain refused something.
fn in_repository(repository: &RepositoryName) -> impl Fn(Error) -> Refusal + use<> {
    let repository = repository.clone();
    move |error| Refusal::Repository { repository: repository.clone(), error }
}

impl Server {
    /// One for these repositories, and for what other registries have: for agents, where only those are answered.
    #[must_use]
    pub fn new(
        repositories: Arc<Repositories>,
        access: Arc<Access>,
        agents: Arc<Agents>,
        mirrors: Option<Arc<Mirrors>>,
        metrics: Metrics,
        limits: Limits,
    ) -> Self {
        let manifests_in_flight = Semaphore::new(MANIFESTS_IN_FLIGHT);
        Self { repositories, access, agents, mirrors, metrics, manifests_in_flight, limits: RwLock::new(limits) }
    }

    /// Bounds requests anew. Those that run end by the bounds they began with, and do not count for the new ones.
    pub fn change(&self, limits: Limits) {
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    fn limits(&self) -> Limits {
        self.limits.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers a request.
    pub async fn handle(&self, request: Request<Incoming>, client: SocketAddr) -> Response<Answer> {
        let start = Instant::now();
        let method = request.method().clone();
        let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
        let agent =
            request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let mut user = None;
        let result = self.decide(request, &mut user).await;
        let (mut response, refusal) = match result {
            Ok(response) => (response, None),
            Err(refusal) => (refusal.answer(&method), Some(refusal)),
        };
        if let (Some(mirrors), Some(refusal)) = (&self.mirrors, &refusal) {
            mirrors.refused(refusal);
        }
        response.headers_mut().insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
        let status = response.status().as_u16();
        let (length, elapsed) = (response.body().size_hint().exact().unwrap_or_default(), start.elapsed());
        self.metrics.answered(&method, status, length, elapsed);
        let (user, milliseconds) = (user.as_deref().unwrap_or("-"), elapsed.as_secs_f64() * 1000.0);
        match refusal {
            Some(refusal) if refusal.is_ours(&method) => {
                tracing::error!(%client, user, %method, target, status, length, milliseconds, agent, reason = %refusal, "failed");
            }
            Some(refusal) => {
                tracing::info!(%client, user, %method, target, status, length, milliseconds, agent, reason = %refusal, "refused");
            }
            None => tracing::info!(%client, user, %method, target, status, length, milliseconds, agent, "answered"),
        }
        response
    }

    async fn decide(
        &self,
        request: Request<Incoming>,
        user: &mut Option<Arc<str>>,
    ) -> Result<Response<Answer>, Refusal> {
        let headers = request.headers();
        if let Some(name) = ONCE.iter().find(|name| headers.get_all(*name).iter().nth(1).is_some()) {
            return Err(Refusal::Header(name.clone()));
        }
        let authorization = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let target = self.target(&request).await;
        if let Ok(whose) = &target {
            self.admit(whose, headers).await?;
        }
        let (caller, beside) = match &target {
            Ok(Whose::Canary(_)) => (Caller { name: None, rights: Rights::Read }, None),
            Ok(Whose::Mirror(..)) => self.access.identify_beside(authorization, Instant::now()).await?,
            _ => (self.access.identify(authorization, Instant::now()).await?, None),
        };
        user.clone_from(&caller.name);
        if caller.rights == Rights::None {
            return Err(Refusal::Unauthorized);
        }
        match target? {
            Whose::Canary(asked) => canary::answer(asked.as_ref(), request.method(), request.headers()),
            Whose::Mirror(mirrors, mirrored) => mirrors.answer(mirrored, &request, beside).await,
            Whose::Ours(route) if caller.rights < route.needs() => {
                Err(if caller.name.is_none() { Refusal::Unauthorized } else { Refusal::Denied })
            }
            Whose::Ours(route) => self.dispatch(route, request, &caller).await,
        }
    }

    /// Lets a request for what other registries have pass, where it has not been here before and comes from whom it may.
    async fn admit(&self, whose: &Whose<'_>, headers: &HeaderMap) -> Result<(), Refusal> {
        let token = headers.get(AGENT_TOKEN).map(HeaderValue::as_bytes);
        match whose {
            Whose::Mirror(mirrors, _) => {
                // Also one of this server's own, which is no agent's.
                mirrors.refuse_loop(headers)?;
                Ok(self.agents.admit(token).await?)
            }
            // An agent proves with it also that its token is taken.
            Whose::Canary(_) if token.is_some() => Ok(self.agents.admit(token).await?),
            Whose::Canary(_) | Whose::Ours(_) => Ok(()),
        }
    }

    /// Whose content a request is for.
    async fn target(&self, request: &Request<Incoming>) -> Result<Whose<'_>, Refusal> {
        let query = Query::parse(request.uri().query().unwrap_or_default())?;
        let route = route(request.method(), request.uri().path(), &query)?;
        let Some(mirrors) = &self.mirrors else { return Ok(Whose::of_this_server(route)) };
        match mirrors.names().target(route, &query, request.method() == Method::HEAD)? {
            Target::Local(route) => Ok(Whose::of_this_server(route)),
            Target::Mirror(mirrored) if canary::is_it(&mirrored.repository) => Ok(Whose::Canary(Some(mirrored.asked))),
            Target::Mirror(mirrored) => Ok(Whose::Mirror(mirrors, mirrored)),
            Target::Either(route, _) if route.repository().is_some_and(canary::is_it) => {
                Ok(Whose::of_this_server(route))
            }
            Target::Either(route, mirrored) => {
                let here = self.repositories.has(&mirrored.repository).await;
                let here = here.map_err(in_repository(&mirrored.repository))?;
                Ok(if here { Whose::Ours(route) } else { Whose::Mirror(mirrors, mirrored) })
            }
        }
    }

    async fn dispatch(
        &self,
        route: Route,
        request: Request<Incoming>,
        caller: &Caller,
    ) -> Result<Response<Answer>, Refusal> {
        match route {
            Route::Base => self.base(caller, request.method()),
            Route::GetBlob(name, digest) => self.get_blob(name, digest, &request, caller).await,
            Route::DeleteBlob(name, digest) => self.delete_blob(name, digest).await,
            Route::BeginUpload(name, begin) => self.begin_upload(name, begin, request).await,
            Route::UploadProgress(name, id) => self.upload_progress(name, id).await,
            Route::Append(name, id) => self.append(name, id, request).await,
            Route::FinishUpload(name, id, digest) => self.finish_upload(name, id, digest, request).await,
            Route::CancelUpload(name, id) => self.cancel_upload(name, id).await,
            Route::GetManifest(name, reference) => self.get_manifest(name, reference, &request).await,
            Route::PutManifest(name, reference, tags) => self.put_manifest(name, reference, tags, request).await,
            Route::DeleteManifest(name, reference) => self.delete_manifest(name, reference).await,
            Route::Tags(name, last, limit) => self.tags(name, last, limit, request.method()).await,
            Route::Referrers(name, digest, kind, last) => {
                self.referrers(name, digest, kind, last, request.method()).await
            }
        }
    }

    /// Clients learn here whether they need credentials. Where users may do more than the anonymous, those who bring none
    /// are asked: without that, `docker login` and a push by one of them would never send any.
    fn base(&self, caller: &Caller, method: &Method) -> Result<Response<Answer>, Refusal> {
        if caller.name.is_none() && self.access.has_users() {
            return Err(Refusal::Unauthorized);
        }
        let mut response = answer(StatusCode::OK, [(CONTENT_TYPE, "application/json"), (CONTENT_LENGTH, "2")]);
        if method != Method::HEAD {
            *response.body_mut() = Answer::whole(bytes::Bytes::from_static(b"{}"));
        }
        Ok(response)
    }

    /// Waits until another request may bring content.
    async fn turn_to_receive(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let turn = tokio::time::timeout(PATIENCE, self.limits().receiving.acquire_owned()).await;
        turn.ok().and_then(Result::ok).ok_or(Refusal::Busy)
    }

    /// Waits until there is memory for so many bytes of a manifest.
    async fn manifest_memory(&self, length: usize) -> Result<SemaphorePermit<'_>, Refusal> {
        let permits = u32::try_from(length).unwrap_or(u32::MAX);
        let taken = tokio::time::timeout(PATIENCE, self.manifests_in_flight.acquire_many(permits)).await;
        taken.ok().and_then(Result::ok).ok_or(Refusal::Busy)
    }
}
