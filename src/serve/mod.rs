//! The registry server: it speaks the OCI distribution protocol over HTTP and keeps content under one folder.
//! It must never need a cluster, and must never acknowledge what a crash could take away.

pub mod access;
pub mod config;
pub mod http;
mod linger;
pub mod listen;
mod reload;
pub mod repository;
pub mod store;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::config::{Config, ConfigError, Limits};
use self::http::{Metrics, Server};
use self::listen::Bounds;
use self::reload::Current;
use self::repository::{MissingContent, Repositories, Settings};
use self::store::Filesystem;
use crate::telemetry::{Health, MetricsRegistry, server, shutdown_on_signal};
use crate::volume;

/// How often idle uploads are looked for.
const SWEEP: Duration = Duration::from_secs(600);
/// The socket, and the file that is read or written.
const DESCRIPTORS_OF_A_CONNECTION: usize = 2;

/// Arguments of `wharf serve`.
#[derive(Clone, Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("source").required(true).args(["config", "root"]))]
pub struct Options {
    /// A YAML file with everything; `wharf config schema` describes it.
    #[arg(long, conflicts_with_all = ["listen", "operations"])]
    pub config: Option<PathBuf>,
    /// The folder that holds all content.
    #[arg(long)]
    pub root: Option<PathBuf>,
    /// Address and port of the registry.
    #[arg(long, default_value = "127.0.0.1:5000")]
    pub listen: SocketAddr,
    /// Address and port of `/healthz`, `/readyz`, `/metrics` and `/volume`.
    #[arg(long)]
    pub operations: Option<SocketAddr>,
}

/// Arguments of `wharf tag-referrers`.
#[derive(Clone, Debug, clap::Args)]
pub struct TagReferrersOptions {
    /// The folder that holds all content.
    #[arg(long)]
    pub root: PathBuf,
}

/// Why the server cannot run.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The root cannot be served.
    #[error(transparent)]
    Root(#[from] store::filesystem::OpenError),
    /// The content store failed.
    #[error(transparent)]
    Store(#[from] store::StoreError),
    /// Referrers could not be tagged.
    #[error(transparent)]
    Referrers(#[from] repository::Error),
    /// The users cannot be read.
    #[error(transparent)]
    Users(#[from] access::FileError),
    /// The certificate or its key cannot be used.
    #[error("cannot use {path} for TLS: {problem}")]
    Tls {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// An address is taken. The error names it.
    #[error(transparent)]
    Listen(std::io::Error),
    /// The process cannot be told to stop.
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] std::io::Error),
}

/// Serves until the process is told to stop.
///
/// # Errors
/// When it cannot start.
pub async fn run(options: Options) -> Result<(), ServeError> {
    let config = match (&options.config, options.root) {
        (Some(file), _) => Config::read(file)?,
        (None, root) => Config::of(root.unwrap_or_default(), options.listen, options.operations),
    };
    serve(config, options.config, shutdown_on_signal().map_err(ServeError::Signals)?).await
}

/// Writes the tags by which engines without the referrers API list referrers. Where nothing was served since the last time,
/// there is nothing to do, and nothing is touched.
///
/// # Errors
/// When the root is served by another process, or the store fails; not for want of room.
pub async fn tag_referrers(options: TagReferrersOptions) -> Result<(), ServeError> {
    let root = options.root;
    if !Filesystem::was_served(&root) {
        tracing::info!(root = %root.display(), "no referrers have come since their tags were written");
        return Ok(());
    }
    let store = Filesystem::open(&root)?;
    // Nothing is pushed here but what lists what is there.
    let settings = settings(MissingContent::IndexOnly, &Limits::default());
    let changed = match Repositories::new(Arc::new(store.clone()), settings).tag_referrers().await {
        Ok(changed) => changed,
        // It stands before another engine: one that lists too little is better than none.
        Err(repository::Error::Store(error)) if error.is_full() => {
            tracing::warn!(%error, root = %root.display(), "no room for the tags of referrers; the next run tries again");
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    store.unmark_served()?;
    tracing::info!(root = %root.display(), changed, "the tags of referrers are written");
    Ok(())
}

/// Serves until `stop` is cancelled. Changes of `file`, where the configuration is from one, are taken up.
///
/// # Errors
/// When it cannot start. Nothing is left running then.
pub async fn serve(config: Config, file: Option<PathBuf>, stop: CancellationToken) -> Result<(), ServeError> {
    let ends = stop.clone().drop_guard();
    let health = Health::default();
    let mut registry = MetricsRegistry::default();
    let metrics = Metrics::register(&mut registry);
    raise_descriptors(config.limits.connections);
    let listener = server::bind(config.listen).await.map_err(ServeError::Listen)?;
    let opened = Arc::new(OnceLock::new());
    if let Some(address) = config.operations {
        let operations = server::bind(address).await.map_err(ServeError::Listen)?;
        // It answers until the very end.
        let store = opened.clone();
        let images = move || {
            let found = store.get().and_then(Filesystem::usage)?;
            Some(volume::Images { bytes: found.bytes, repositories: found.repositories })
        };
        let volume = volume::router(config.root.clone(), images);
        tokio::spawn(server::serve(operations, health.clone(), registry, volume));
    }
    let ready = health.gate("content store");
    let (changes, current) = watch::channel(Arc::new(config.clone()));
    let certificate = reload::certificate(current.clone(), stop.clone())?;
    let access = reload::access(current.clone(), &rand::random(), stop.clone())?;
    let store = Filesystem::open(&config.root)?;
    store.mark_served()?;
    tokio::spawn(count(opened.get_or_init(|| store.clone()).clone(), stop.clone()));
    let limits = &config.limits;
    let repositories = Repositories::new(Arc::new(store), settings(config.missing_content, limits));
    tokio::spawn(sweep(repositories.clone(), current, stop.clone()));
    let uploads = repositories.clone();
    let server = Arc::new(Server::new(repositories.clone(), access, metrics.clone(), requests(limits)));
    let (change_bounds, bounds) = watch::channel(connections(limits));
    if let Some(file) = file {
        let server = server.clone();
        let take_up = move |config: &Config| {
            repositories.change(settings(config.missing_content, &config.limits));
            server.change(requests(&config.limits));
            change_bounds.send_replace(connections(&config.limits));
        };
        tokio::spawn(reload::configuration(file, changes, take_up, stop.clone()));
    }
    tracing::info!(root = %config.root.display(), listen = %config.listen, tls = config.tls.is_some(), "serving");
    ready.open();
    let closing = stop.clone();
    tokio::spawn(async move {
        closing.cancelled().await;
        ready.close();
    });
    listen::serve(listener, server, certificate, metrics, bounds, stop).await;
    uploads.suspend_uploads().await;
    drop(ends);
    tracing::info!("stopped");
    Ok(())
}

/// Takes as many descriptors as the system gives: the usual soft limit is below what the connections alone may need.
fn raise_descriptors(connections: usize) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
    let have = getrlimit(Resource::Nofile).current;
    let needed = connections.saturating_mul(DESCRIPTORS_OF_A_CONNECTION) as u64;
    if have.is_some_and(|have| have < needed) {
        tracing::warn!(have, needed, "open files are limited to less than limits.connections may need");
    }
}

fn settings(missing_content: MissingContent, limits: &Limits) -> Settings {
    let manifest_memory = limits.manifest_memory_mebibytes * 1024 * 1024;
    let (open_uploads, reserve_percent) = (limits.open_uploads, limits.reserve_percent);
    Settings { missing_content, manifest_memory, open_uploads, reserve_percent }
}

fn requests(limits: &Limits) -> http::Limits {
    http::Limits::new(limits.receiving, Duration::from_secs(limits.idle_client_seconds))
}

fn connections(limits: &Limits) -> Bounds {
    let [idle, stop] = [limits.idle_client_seconds, limits.stop_seconds].map(Duration::from_secs);
    Bounds { connections: limits.connections, idle, stop }
}

/// Counts once what is stored; nothing waits for it.
async fn count(store: Filesystem, stop: CancellationToken) {
    if let Some(Err(error)) = stop.run_until_cancelled(store.count()).await {
        tracing::warn!(%error, "what is stored could not be counted");
    }
}

/// Forgets uploads whose clients do not come back.
async fn sweep(repositories: Arc<Repositories>, current: Current, stop: CancellationToken) {
    loop {
        let idle_seconds = current.borrow().limits.idle_upload_seconds;
        match repositories.cancel_idle_uploads(idle_seconds).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "idle uploads are forgotten"),
            Err(error) => tracing::warn!(%error, "idle uploads could not be looked for"),
        }
        if stop.run_until_cancelled(tokio::time::sleep(SWEEP)).await.is_none() {
            return;
        }
    }
}
