//! Requests of the container runtime, passed on to the servers that have the content. Headers come fast, or an error does with which the
//! runtime goes elsewhere: a request must never wait for a server that is not alive, nor be answered with 429.

use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{RANGE, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::{Instant, sleep, timeout};

use super::answers;
use super::backend::{Backend, Connection, Outgoing, Trouble};
use super::memory::{Recent, Used};
use super::metrics::{Metrics, Outcome};
use super::request::{self, Asked, Wanted};
use super::resume::{Resume, Way};
use super::routes::Routes;
use super::token::{self, Token};
use super::transfer::{Body, Source, Transfer};
use crate::oci::range::begins;
use crate::oci::{Endpoint as Object, RegistryHost};

/// How long a server may take for headers before it is asked whether it is alive; it doubles up to [`PATIENT`].
const PATIENCE: Duration = Duration::from_millis(400);
const PATIENT: Duration = Duration::from_secs(2);
/// The longest time for headers. A Mirror gives up on a registry before; containerd waits for 30 s, if it has a limit at all.
const LONGEST: Duration = Duration::from_secs(25);
/// How long what was cut off is not begun again.
const CUT: Duration = Duration::from_secs(30);
/// How long a client that cannot go elsewhere after a manifest is taken to be at the same image.
const SAME_IMAGE: Duration = Duration::from_secs(60);
/// How long such a client is kept waiting for a server to come back.
const HOLD: Duration = Duration::from_secs(5);
/// How often it is looked whether one has, and how soon one that is there is asked again; the latter doubles.
const LOOK: Duration = Duration::from_millis(100);
/// How long the other replicas may take, once one has said that the registry is away. One that has the content answers at once; another
/// would only wait for the same registry.
const ELSEWHERE: Duration = Duration::from_millis(250);

/// Why a server gave no answer.
pub enum Failed {
    /// It does not answer at all.
    Dead(Trouble),
    /// It is alive and did not answer in time.
    Slow(Trouble),
}

/// What all requests share.
pub struct Proxy {
    pub routes: RwLock<Arc<Routes>>,
    pub token: Token,
    pub used: Used,
    /// Blobs whose transfers were cut off.
    pub cuts: Recent,
    /// Repositories of which a client that cannot go elsewhere got a manifest.
    manifests: Recent,
    pub metrics: Metrics,
    /// See [`super::Settings::longest_stall`].
    pub longest_stall: Duration,
}

impl Proxy {
    /// Nothing to pass on yet.
    pub fn new(token: Token, metrics: Metrics, longest_stall: Duration) -> Self {
        let (routes, used) = Default::default();
        Self { routes, token, used, cuts: Recent::new(CUT), manifests: Recent::new(SAME_IMAGE), metrics, longest_stall }
    }

    /// The routes of the plan in force.
    pub fn routes(&self) -> Arc<Routes> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The servers for what is wanted, the first one first.
    pub fn servers(&self, wanted: &Wanted) -> Vec<Arc<Backend>> {
        self.routes().get(&wanted.host).map(|route| route.ranked(&wanted.key())).unwrap_or_default()
    }

    /// Answers a request.
    pub async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let routes = self.routes();
        let known = |host: &RegistryHost| routes.get(host).is_some();
        let wanted = match request::read(request.method(), request.uri(), known) {
            Ok(Asked::Base) => return answers::base(),
            Ok(Asked::Object(wanted)) if known(&wanted.host) => wanted,
            Ok(Asked::Object(wanted)) => {
                self.metrics.answered(Outcome::refused);
                return answers::unknown(wanted.host.as_str());
            }
            Err(problem) => {
                self.metrics.answered(Outcome::refused);
                return answers::malformed(&problem);
            }
        };
        let client = request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        self.used.asked(&wanted.host, client);
        if self.continues_a_cut(&wanted, &request) {
            self.metrics.answered(Outcome::unavailable);
            return answers::unavailable(
                "a transfer of this blob was cut off a moment ago: its rest comes from the registry",
            );
        }
        let outgoing = Outgoing {
            method: request.method().clone(),
            path_and_query: wanted.path_and_query.clone(),
            headers: answers::sent_on(request.headers()),
        };
        let began = Instant::now();
        match self.pass_on(wanted, outgoing).await {
            Ok(response) => {
                self.metrics.answered(Outcome::passed);
                self.metrics.waited(began.elapsed());
                response
            }
            Err(message) => {
                self.metrics.answered(Outcome::unavailable);
                tracing::debug!(%message, "a request is not passed on");
                answers::unavailable(&message)
            }
        }
    }

    /// Whether a runtime that can go elsewhere asks for the rest of what was cut off.
    fn continues_a_cut(&self, wanted: &Wanted, request: &Request<Incoming>) -> bool {
        let range = request.headers().get(RANGE).and_then(|value| value.to_str().ok());
        let continues = !wanted.by_prefix && range.is_some_and(|range| begins(range) > 0);
        continues && wanted.blob().is_some_and(|digest| self.cuts.has(digest.as_str()))
    }

    /// Asks the servers, again and again for a while where the client cannot go elsewhere. Where none answers, the error says what was
    /// tried.
    async fn pass_on(self: &Arc<Self>, wanted: Wanted, outgoing: Outgoing) -> Result<Response<Body>, String> {
        let servers = self.servers(&wanted);
        let depends = wanted.by_prefix && self.manifests.has(&wanted.repository());
        let deadline = Instant::now() + HOLD;
        let mut pause = LOOK;
        loop {
            let tried = match self.round(&servers, &outgoing).await {
                Ok(found) => return Ok(self.passed(found, wanted, outgoing)),
                Err(tried) => tried,
            };
            if !depends || Instant::now() + pause >= deadline {
                return Err(format!("{} cannot be had here now: {}", wanted.host, tried.join("; ")));
            }
            sleep(pause).await;
            hold(&servers, deadline).await;
            pause *= 2;
        }
    }

    /// Asks one server after the other for an answer that can be passed on.
    ///
    /// # Errors
    /// When none has one, with what each did.
    async fn round(&self, servers: &[Arc<Backend>], outgoing: &Outgoing) -> Result<Found, Vec<String>> {
        let (mut tried, mut unavailable, mut silent) = (Vec::new(), None, None);
        for (place, backend) in servers.iter().enumerate() {
            if let Some(trouble) = backend.away() {
                tried.push(trouble.to_string());
                continue;
            }
            // It was asked together with the one before, and has nearly answered.
            if let Some(since) = silent
                && let Err(trouble) = backend.alive(since).await
            {
                tried.push(self.note(backend, Failed::Dead(trouble)).to_string());
                continue;
            }
            let others = servers.get(place + 1..).unwrap_or_default();
            let began = Instant::now();
            let asking = self.ask(backend, outgoing, others);
            let answer = match unavailable {
                None => asking.await,
                Some(_) => match timeout(ELSEWHERE, asking).await {
                    Ok(answer) => answer,
                    Err(_) => continue,
                },
            };
            let found = match answer {
                Ok((answer, connection)) => Found { answer, connection, backend: backend.clone() },
                Err(failed) => {
                    tried.push(self.note(backend, failed).to_string());
                    silent = silent.or((began.elapsed() >= PATIENCE).then_some(began));
                    continue;
                }
            };
            match objection(&found.answer) {
                Some(objection) => tried.push(backend.trouble(&objection).to_string()),
                None if found.answer.status() == StatusCode::SERVICE_UNAVAILABLE => {
                    unavailable.get_or_insert(found);
                }
                // After one that could not ask the registry, another that says no has not asked it either.
                None if unavailable.is_none() || found.answer.status().is_success() => return Ok(found),
                None => {}
            }
        }
        if tried.is_empty() {
            tried.push("the plan names no server for it".to_owned());
        }
        unavailable.ok_or(tried)
    }

    /// Asks one server, and while it is silent, whether it is alive: it and the others that would be asked next, so that not each of
    /// them takes its time to be found out.
    ///
    /// # Errors
    /// When it is not, or takes too long.
    pub async fn ask(
        &self,
        backend: &Arc<Backend>,
        outgoing: &Outgoing,
        others: &[Arc<Backend>],
    ) -> Result<(Response<Incoming>, Connection), Failed> {
        let mut outgoing = outgoing.clone();
        if backend.is_trusted()
            && let Some(value) = self.token.header()
        {
            outgoing.headers.insert(token::HEADER, value);
        }
        let began = Instant::now();
        let mut patience = PATIENCE;
        let mut asking = pin!(backend.send(&outgoing));
        loop {
            tokio::select! {
                biased;
                answer = &mut asking => return answer.map_err(Failed::Dead),
                () = sleep(patience) => {}
            }
            if patience == PATIENCE {
                others.iter().for_each(look_after);
            }
            tokio::select! {
                biased;
                answer = &mut asking => return answer.map_err(Failed::Dead),
                alive = backend.alive(Instant::now()) => alive.map_err(Failed::Dead)?,
            }
            if began.elapsed() > LONGEST {
                return Err(Failed::Slow(backend.trouble(&format!("no headers within {} s", LONGEST.as_secs()))));
            }
            patience = (patience * 2).min(PATIENT);
        }
    }

    /// Takes note of why a server gave no answer.
    pub fn note(&self, backend: &Arc<Backend>, failed: Failed) -> Trouble {
        match failed {
            Failed::Dead(trouble) => {
                self.metrics.lost();
                backend.leave(&trouble);
                trouble
            }
            Failed::Slow(trouble) => trouble,
        }
    }

    /// A server's answer as it is passed on.
    fn passed(
        self: &Arc<Self>,
        Found { answer, connection, backend }: Found,
        wanted: Wanted,
        outgoing: Outgoing,
    ) -> Response<Body> {
        if wanted.by_prefix && answer.status().is_success() && matches!(wanted.object, Object::Manifest(..)) {
            self.manifests.add(&wanted.repository());
        }
        let (parts, incoming) = answer.into_parts();
        let mut response = Response::new(());
        *response.status_mut() = parts.status;
        *response.headers_mut() = answers::passed_on(&parts.headers);
        if outgoing.method == Method::HEAD {
            backend.keep(connection);
            return response.map(|()| Body::empty());
        }
        let way = Way::of(&wanted, &outgoing.method, &response);
        let resume = Resume { proxy: self.clone(), wanted, outgoing, way };
        let source = Source { incoming, connection, backend };
        let transfer = Box::new(Transfer::new(&response, source, resume));
        response.map(|()| Body::Transfer(transfer))
    }
}

/// An answer that a server gave.
struct Found {
    answer: Response<Incoming>,
    connection: Connection,
    backend: Arc<Backend>,
}

/// Finds out beside other things whether a server is alive, and does not ask it any more where it is not.
fn look_after(backend: &Arc<Backend>) {
    if backend.away().is_some() {
        return;
    }
    let backend = backend.clone();
    tokio::spawn(async move {
        if let Err(trouble) = backend.alive(Instant::now()).await {
            backend.leave(&trouble);
        }
    });
}

/// Waits for one of the servers to come back, where all are away.
async fn hold(servers: &[Arc<Backend>], deadline: Instant) {
    while Instant::now() < deadline && servers.iter().all(|backend| backend.away().is_some()) {
        sleep(LOOK).await;
    }
}

/// Why an answer is not passed on: another server may have a better one, and so may the registry.
fn objection<T>(answer: &Response<T>) -> Option<String> {
    let refused = answer.headers().get(answers::REFUSED).is_some_and(|value| value == "agent-token");
    match answer.status() {
        // A runtime would repeat it at once, several times.
        status @ StatusCode::TOO_MANY_REQUESTS => Some(format!("it answers {status}")),
        status if status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE => {
            Some(format!("it answers {status}"))
        }
        StatusCode::FORBIDDEN if refused => Some("it does not accept the token of this node's agent".to_owned()),
        _ => None,
    }
}
