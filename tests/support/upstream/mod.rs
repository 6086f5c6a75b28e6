//! A registry that does what a script says: as strict as real ones are while nothing is said, and wrong where it is. It knows
//! what it was asked and how many bytes it has sent; it must never serve a request that a real registry would refuse.

mod answers;
pub mod content;
pub mod faults;
mod sending;
mod tokens;
mod wrong;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use content::Repository;
use faults::{Kind, Rule};
use sending::Line;
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
    /// Who asked.
    pub from: IpAddr,
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

/// How it is reached.
pub struct Front {
    /// Listens at an address.
    pub bind: Box<dyn Fn(SocketAddr) -> std::io::Result<std::net::TcpListener> + Send + Sync>,
    /// The addresses of the registry, which gives tokens too, and of the storage. A port may be left open.
    pub addresses: [SocketAddr; 2],
    /// Both by their names, where those are used: `https://registry.example.com`.
    pub names: Option<[String; 2]>,
    pub tls: Option<TlsAcceptor>,
    /// Whether it is for mirrors only, which ask for all that there may be, and for nothing that is changed on its way.
    pub strict: bool,
}

impl Default for Front {
    fn default() -> Self {
        let nobody = SocketAddr::from(([127, 0, 0, 1], 0));
        let bind = Box::new(|address: SocketAddr| std::net::TcpListener::bind(address));
        Self { bind, addresses: [nobody; 2], names: None, tls: None, strict: true }
    }
}

impl Front {
    fn listen(&self, address: SocketAddr) -> std::io::Result<TcpListener> {
        let listener = (self.bind)(address)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    }
}

pub struct State {
    inner: Mutex<Inner>,
    front: Front,
    /// Where the registry and the storage are, as `http://127.0.0.1:5000`.
    urls: [String; 2],
    line: Arc<Line>,
    silent: AtomicBool,
    /// How many listen.
    listening: AtomicUsize,
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
    #[allow(clippy::unused_async, reason = "it needs the runtime that it is awaited in")]
    pub async fn start(access: Access) -> Self {
        Self::behind(Front::default(), access)
    }

    /// Starts in a runtime, reached as the front says.
    pub fn behind(front: Front, access: Access) -> Self {
        let [registry, storage] = front.addresses.map(|address| front.listen(address).unwrap());
        let (address, of_storage) = (registry.local_addr().unwrap(), storage.local_addr().unwrap());
        let urls = front.names.clone().unwrap_or_else(|| [address, of_storage].map(|at| format!("http://{at}")));
        let inner = Inner {
            access,
            repositories: BTreeMap::new(),
            rules: Vec::new(),
            tokens: Tokens::default(),
            seen: Vec::new(),
            problems: Vec::new(),
            signed: BTreeMap::new(),
            realm: format!("{}/token", urls[0]),
            redirects: false,
        };
        let (line, silent) = (Arc::default(), AtomicBool::new(false));
        let state = State { inner: inner.into(), front, urls, line, silent, listening: AtomicUsize::new(0) };
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
        self.state.listening.store(2, Ordering::SeqCst);
        tokio::spawn(listen(self.state.clone(), registry, Role::Registry, end.clone()));
        tokio::spawn(listen(self.state.clone(), storage, Role::Storage, end));
    }

    /// Nobody listens any more, and each connection ends.
    pub async fn leave(&self) {
        self.running.lock().unwrap().cancel();
        // Until the listeners are gone.
        while self.state.listening.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Where it was before.
    pub async fn come_back(&self) {
        let bind = async |address| loop {
            match self.state.front.listen(address) {
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

    /// All that is sent, to whomever, takes its time: so many bytes a second; 0 is as fast as it can.
    pub fn limit(&self, bytes_a_second: u64) {
        self.state.line.limit(bytes_a_second);
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
        let (stream, from) = tokio::select! {
            () = end.cancelled() => {
                drop(listener);
                state.listening.fetch_sub(1, Ordering::SeqCst);
                return;
            }
            accepted = listener.accept() => accepted.unwrap(),
        };
        let (state, end) = (state.clone(), end.clone());
        tokio::spawn(async move {
            let connection = async {
                match &state.front.tls {
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            converse(&state, role, from.ip(), stream).await;
                        }
                    }
                    None => converse(&state, role, from.ip(), stream).await,
                }
            };
            tokio::select! {
                () = end.cancelled() => {}
                () = connection => {}
            }
        });
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(state: &Arc<State>, role: Role, from: IpAddr, stream: S) {
    let service = service_fn(|request| answers::answer(state, role, from, request));
    // A client that goes away is nothing to speak of.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
