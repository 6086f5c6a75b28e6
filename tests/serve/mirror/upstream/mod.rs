//! A registry that does what a script says: as strict as real ones are while nothing is said, and wrong where it is. It knows
//! what it was asked and how many bytes it has sent; it must never serve a request that a real registry would refuse.

mod answers;
pub mod content;
pub mod faults;
mod sending;
mod tests;
mod tokens;
mod wrong;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use content::Repository;
use faults::{Kind, Rule};
use tokens::Tokens;

/// How readers are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// By Basic; nobody in particular may read what is for everybody.
    Basic,
    /// By tokens, also where everybody may read.
    Tokens,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Seen {
    pub kind: Kind,
    /// A tag or a digest.
    pub reference: String,
    pub headers: HeaderMap,
    pub status: u16,
    /// The first byte of the body within what was asked for.
    pub start: u64,
    pub sent: Arc<AtomicU64>,
}

pub struct Inner {
    access: Access,
    repositories: BTreeMap<String, Repository>,
    rules: Vec<Rule>,
    tokens: Tokens,
    seen: Vec<Seen>,
    problems: Vec<String>,
    /// What may be had from the storage, by signature: repository, type, digest, bytes.
    signed: BTreeMap<String, (String, String, String, Bytes)>,
    realm: String,
    redirects: bool,
}

pub struct State {
    inner: Mutex<Inner>,
    address: SocketAddr,
    storage: SocketAddr,
    silent: AtomicBool,
}

impl State {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Registry,
    Storage,
}

/// A registry with a storage beside it, both gone with the value.
pub struct Upstream {
    pub address: SocketAddr,
    /// Where redirects lead.
    pub storage: SocketAddr,
    state: Arc<State>,
    running: Mutex<CancellationToken>,
}

impl Upstream {
    pub async fn start(access: Access) -> Self {
        let [registry, storage] =
            [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
        let (address, of_storage) = (registry.local_addr().unwrap(), storage.local_addr().unwrap());
        let inner = Inner {
            access,
            repositories: BTreeMap::new(),
            rules: Vec::new(),
            tokens: Tokens::default(),
            seen: Vec::new(),
            problems: Vec::new(),
            signed: BTreeMap::new(),
            realm: format!("http://{address}/token"),
            redirects: false,
        };
        let state = State { inner: inner.into(), address, storage: of_storage, silent: AtomicBool::new(false) };
        let upstream = Self { address, storage: of_storage, state: state.into(), running: Mutex::default() };
        upstream.run(registry, storage);
        upstream
    }

    /// With these repositories, by Basic.
    pub async fn with<const N: usize>(repositories: [(&str, Repository); N]) -> Self {
        let upstream = Self::start(Access::Basic).await;
        for (name, repository) in repositories {
            upstream.put(name, repository);
        }
        upstream
    }

    fn run(&self, registry: TcpListener, storage: TcpListener) {
        let end = CancellationToken::new();
        *self.running.lock().unwrap() = end.clone();
        tokio::spawn(listen(self.state.clone(), registry, Role::Registry, end.clone()));
        tokio::spawn(listen(self.state.clone(), storage, Role::Storage, end));
    }

    /// Nobody listens any more, and each connection ends.
    pub async fn leave(&self) {
        self.running.lock().unwrap().cancel();
        // Until the listener is gone.
        while TcpStream::connect(self.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Where it was before.
    pub async fn come_back(&self) {
        let bind = async |address| loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        self.run(bind(self.address).await, bind(self.storage).await);
    }

    /// It takes connections and requests, and says nothing.
    pub fn fall_silent(&self, silent: bool) {
        self.state.silent.store(silent, Ordering::SeqCst);
    }

    pub fn put(&self, name: &str, repository: Repository) {
        self.state.inner().repositories.insert(name.to_owned(), repository);
    }

    pub fn change(&self, name: &str, change: impl FnOnce(&mut Repository)) {
        change(self.state.inner().repositories.get_mut(name).unwrap());
    }

    pub fn rule(&self, rule: Rule) {
        self.state.inner().rules.push(rule);
    }

    /// Whether the first of the rules is used up.
    pub fn has_befallen(&self) -> bool {
        self.state.inner().rules.first().is_some_and(|rule| rule.times == 0)
    }

    /// It is as it should be from now on.
    pub fn heal(&self) {
        self.state.inner().rules.clear();
        self.fall_silent(false);
    }

    /// Where challenges send clients.
    pub fn set_realm(&self, realm: &str) {
        realm.clone_into(&mut self.state.inner().realm);
    }

    /// All blobs are had from the storage, as at most public registries.
    pub fn redirect_blobs(&self, redirects: bool) {
        self.state.inner().redirects = redirects;
    }

    pub fn expire_tokens(&self) {
        self.state.inner().tokens.expire();
    }

    pub fn change_password(&self, user: &str, password: &str) {
        self.state.inner().tokens.users.insert(user.to_owned(), password.to_owned());
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.inner().seen.clone()
    }

    pub fn forget_seen(&self) {
        self.state.inner().seen.clear();
    }

    pub fn count(&self, kind: Kind) -> usize {
        self.state.inner().seen.iter().filter(|seen| seen.kind == kind).count()
    }

    /// All but those that only ask how to ask.
    pub fn asked(&self) -> Vec<(Kind, String)> {
        let seen = self.seen().into_iter().filter(|seen| !matches!(seen.kind, Kind::Ping | Kind::Token));
        seen.filter(|seen| seen.status != 401).map(|seen| (seen.kind, seen.reference)).collect()
    }

    /// What clients did that they may not.
    pub fn problems(&self) -> Vec<String> {
        self.state.inner().problems.clone()
    }

    /// The parts of a digest's bytes that were sent, in their order in time.
    pub fn sent(&self, digest: &str) -> Vec<std::ops::Range<u64>> {
        let bodies = self.seen().into_iter().filter(|seen| seen.reference == digest);
        let parts = bodies.map(|seen| seen.start..seen.start + seen.sent.load(Ordering::SeqCst));
        parts.filter(|part| !part.is_empty()).collect()
    }

    /// How many bytes of a digest were sent again.
    pub fn sent_again(&self, digest: &str) -> u64 {
        let mut parts = self.sent(digest);
        let all: u64 = parts.iter().map(|part| part.end - part.start).sum();
        parts.sort_by_key(|part| part.start);
        let mut end = 0;
        let mut once = 0;
        for part in parts {
            once += part.end.saturating_sub(part.start.max(end));
            end = end.max(part.end);
        }
        all - once
    }

    /// How many bytes of all digests were sent.
    pub fn bytes_sent(&self) -> u64 {
        let seen = self.seen();
        let blobs = seen.iter().filter(|seen| matches!(seen.kind, Kind::GetBlob | Kind::Storage));
        blobs.map(|seen| seen.sent.load(Ordering::SeqCst)).sum()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.running.lock().unwrap().cancel();
    }
}

async fn listen(state: Arc<State>, listener: TcpListener, role: Role, end: CancellationToken) {
    loop {
        let stream = tokio::select! {
            () = end.cancelled() => return,
            accepted = listener.accept() => accepted.unwrap().0,
        };
        let (state, end) = (state.clone(), end.clone());
        tokio::spawn(async move {
            let service = service_fn(|request| answers::answer(&state, role, request));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                () = end.cancelled() => {}
                _ = connection => {}
            }
        });
    }
}
