//! The node's endpoint: the one address at which the node's container runtime asks for everything that Wharf has, on loopback. It
//! passes requests on to the replicas of Mirrors and to Registries. It must never make a pull fail, or wait, that would have worked
//! without it: what cannot be had here is said at once, and the runtime goes to the registry itself.
//!
//! Loopback is no trust boundary: while the agent is away anybody on the node may bind the port. So the runtime is given the
//! certificate of this node's own key, and speaks to nobody else.

mod answers;
mod backend;
mod forward;
mod holder;
mod identity;
mod listen;
mod memory;
pub mod metrics;
mod request;
mod resume;
mod routes;
#[cfg(test)]
mod tests;
mod token;
mod transfer;
mod verify;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::forward::Proxy;
use self::identity::Identity;
use self::metrics::Metrics;
use self::routes::Routes;
use self::token::Token;
use crate::oci::RegistryHost;
use crate::plan::Plan;

pub use self::identity::{Error as IdentityError, forget};

/// What the endpoint needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The port on 127.0.0.1. 0 takes a free one, for tests.
    pub port: u16,
    /// Without TLS: whoever can bind the port while the agent is away can then give the node images, and be given pull secrets.
    pub plain_http: bool,
    /// The folder that holds the node's key.
    pub state_folder: PathBuf,
    /// The file with the token for Mirrors.
    pub token_file: PathBuf,
    /// How long a server that is alive may send nothing of a body: it may have forgotten the connection, and a runtime waits for
    /// minutes.
    pub longest_stall: Duration,
}

/// Why the endpoint does not serve.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another process has the port.
    #[error(
        "{holder} listens at {address}: end it, or give the agent another port (--local-port; agent.localPort in the chart)"
    )]
    InUse {
        /// The address.
        address: SocketAddr,
        /// Who listens there, as far as that can be told.
        holder: String,
    },
    /// The port cannot be bound.
    #[error("cannot listen at {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// The node has no key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// The endpoint, serving. Cloning shares it.
#[derive(Clone)]
pub struct Endpoint {
    address: SocketAddr,
    certificate: Option<String>,
    proxy: Arc<Proxy>,
    stop: CancellationToken,
    serving: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Endpoint {
    /// Binds the port and serves: no registry yet.
    ///
    /// # Errors
    /// When the port or the key cannot be had.
    pub async fn start(settings: Settings, metrics: Metrics) -> Result<Self, BindError> {
        listen::allow_descriptors();
        let identity = if settings.plain_http { None } else { Some(Identity::load(&settings.state_folder)?) };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, settings.port));
        let listener = TcpListener::bind(address).await.map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { address, holder: holder::of(address.port()) },
            _ => BindError::Bind { address, source },
        })?;
        let address = listener.local_addr().map_err(|source| BindError::Bind { address, source })?;
        let proxy = Arc::new(Proxy::new(Token::new(settings.token_file), metrics, settings.longest_stall));
        let stop = CancellationToken::new();
        let (tls, certificate) = identity.map(|identity| (identity.config, identity.certificate)).unzip();
        let serving = tokio::spawn(listen::serve(listener, tls, proxy.clone(), stop.clone()));
        Ok(Self { address, certificate, proxy, stop, serving: Arc::new(Mutex::new(Some(serving))) })
    }

    /// The port that is bound.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Where the container runtime finds it.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The certificate, in PEM, that the runtime is given as the authority; none without TLS.
    #[must_use]
    pub fn certificate(&self) -> Option<&str> {
        self.certificate.as_deref()
    }

    /// Serves the registries of this plan and no others from now on. It must hold only what is for this node. What runs goes on.
    pub fn route(&self, plan: &Plan) {
        let next = Arc::new(Routes::of(plan, &self.proxy.routes()));
        self.proxy.used.keep(|host| next.get(host).is_some());
        *self.proxy.routes.write().unwrap_or_else(PoisonError::into_inner) = next;
    }

    /// Fetches what proves that a registry's content can be had through this endpoint, as the container runtime would.
    ///
    /// # Errors
    /// When it cannot, with what was tried and what came back.
    pub async fn verify(&self, host: &str) -> Result<(), String> {
        let host: RegistryHost = host.parse().map_err(|problem| format!("{host}: {problem}"))?;
        verify::verify(self.address, self.certificate.as_deref(), &self.proxy, &host).await
    }

    /// The files of a registry were written: from now on it counts whether the runtime asks for something of it.
    pub fn note_written(&self, host: &str) {
        if let Ok(host) = host.parse() {
            self.proxy.used.begin(host);
        }
    }

    /// Whether the container runtime has asked for something of a registry.
    #[must_use]
    pub fn used(&self, host: &str) -> bool {
        host.parse().is_ok_and(|host| self.proxy.used.has(&host))
    }

    /// Returns when a registry has become used.
    pub async fn changed(&self) {
        self.proxy.used.changed.notified().await;
    }

    /// Refuses new connections at once, and returns when running transfers have ended or had their time.
    pub async fn drain(&self) {
        self.stop.cancel();
        let serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(serving) = serving {
            // A panic in it was logged where it happened; there is nothing left to wait for.
            let _ = serving.await;
        }
    }
}
