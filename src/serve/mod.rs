//! The registry server: it speaks the OCI distribution protocol over HTTP and keeps content under one folder.
//! It must never need a cluster, and must never acknowledge what a crash could take away.

pub mod access;
pub mod cache;
pub mod config;
mod credentials;
mod first_screen;
mod flights;
pub mod http;
mod linger;
pub mod listen;
mod pins;
mod progress;
mod pull_through;
mod reload;
mod report;
pub mod repository;
pub mod store;
pub mod upstream;

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::access::Agents;
use self::config::{Config, ConfigError, Limits, Mirror, Size};
use self::first_screen::first_screen;
use self::http::{Metrics, Server};
use self::listen::Bounds;
use self::pull_through::PullThrough;
use self::reload::Current;
use self::repository::{MissingContent, Repositories, Settings};
use self::store::Filesystem;
use crate::telemetry::{Health, LogFormat, MetricsRegistry, server, shutdown_on_signal, terminal};
use crate::token_review::TokenReviews;
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
    #[arg(long, conflicts_with_all = ["listen", "operations", "mirrors", "cache_size"])]
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
    /// Another registry whose images are served too, fetched once and kept: `docker.io`, or `docker.io=https://mirror.example.com`
    /// where it is to be asked somewhere else. May be given several times. `docker.io` also serves Docker's `registry-mirrors`.
    // Read later: what is malformed here is shown as it was given, and a password may stand in it by mistake.
    #[arg(long = "mirror", value_name = "HOST[=URL]")]
    pub mirrors: Vec<String>,
    /// How much of other registries is kept.
    #[arg(long, value_name = "SIZE", default_value = "20Gi", requires = "mirrors")]
    pub cache_size: Size,
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
    /// What is said of mirrors cannot be used.
    #[error(transparent)]
    Mirrors(#[from] pull_through::FileError),
    /// Agents cannot be told from others.
    #[error("clients.agents cannot be told from others: {0}")]
    Agents(String),
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

/// Serves until the process is told to stop. `log_format` says whether a person reads the log.
///
/// # Errors
/// When it cannot start.
pub async fn run(options: Options, log_format: LogFormat) -> Result<(), ServeError> {
    let config = match (&options.config, options.root) {
        (Some(file), _) => Config::read(file)?,
        (None, root) => {
            let config = Config::of(root.unwrap_or_default(), options.listen, options.operations);
            let mirrors = options.mirrors.iter().map(|flag| Mirror::of_flag(flag)).collect::<Result<_, _>>()?;
            config.with_mirrors(mirrors, options.cache_size)?
        }
    };
    let stop = shutdown_on_signal().map_err(ServeError::Signals)?;
    let person = Person {
        reads: !config.mirrors.is_empty() && options.config.is_none() && std::io::stdout().is_terminal(),
        watches: log_format == LogFormat::Text && terminal::is_there(),
    };
    serve_to(config, options.config, person, stop).await
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

/// Who is at a terminal.
#[derive(Clone, Copy, Debug, Default)]
struct Person {
    /// Somebody to whom the first screen is of use.
    reads: bool,
    /// Somebody who may watch what is on its way.
    watches: bool,
}

/// Serves until `stop` is cancelled. Changes of `file`, where the configuration is from one, are taken up.
///
/// # Errors
/// When it cannot start. Nothing is left running then.
pub async fn serve(config: Config, file: Option<PathBuf>, stop: CancellationToken) -> Result<(), ServeError> {
    serve_to(config, file, Person::default(), stop).await
}

async fn serve_to(
    config: Config,
    file: Option<PathBuf>,
    person: Person,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let ends = stop.clone().drop_guard();
    let health = Health::default();
    let mut registry = MetricsRegistry::default();
    let metrics = Metrics::register(&mut registry);
    let mirroring = Arc::new(OnceLock::<Arc<PullThrough>>::new());
    let told = mirroring.clone();
    let cache_metrics = (!config.mirrors.is_empty())
        .then(|| cache::Metrics::register(&mut registry, move || Some(told.get()?.figures())));
    raise_descriptors(config.limits.connections);
    let listener = server::bind(config.listen).await.map_err(ServeError::Listen)?;
    let opened = Arc::new(OnceLock::new());
    if let Some(address) = config.operations {
        let operations = server::bind(address).await.map_err(ServeError::Listen)?;
        // It answers until the very end.
        let mut beside = volume(&config, opened.clone());
        if !config.mirrors.is_empty() {
            let told = mirroring.clone();
            beside = beside.merge(report::router(move || Some(told.get()?.report())));
        }
        tokio::spawn(server::serve(operations, health.clone(), registry, beside));
    }
    let ready = health.gate("content store");
    let (changes, current) = watch::channel(Arc::new(config.clone()));
    let certificate = reload::certificate(current.clone(), stop.clone())?;
    let access = reload::access(current.clone(), &rand::random(), stop.clone())?;
    let agents = agents(&config).await?;
    let store = Filesystem::open(&config.root)?;
    store.mark_served()?;
    tokio::spawn(count(opened.get_or_init(|| store.clone()).clone(), stop.clone()));
    let limits = &config.limits;
    let repositories = Repositories::new(Arc::new(store), settings(config.missing_content, limits));
    tokio::spawn(sweep(repositories.clone(), current.clone(), stop.clone()));
    let running = cache_metrics.map(|metrics| reload::pull_through(current, metrics, stop.clone())).transpose()?;
    let running = running.map(|running| mirroring.get_or_init(|| running).clone());
    let maintained = running.as_ref().map(|running| running.maintain());
    let mirrors = running.as_ref().map(|running| running.edge.clone());
    let uploads = repositories.clone();
    let server =
        Arc::new(Server::new(repositories.clone(), access, agents.clone(), mirrors, metrics.clone(), requests(limits)));
    let (change_bounds, bounds) = watch::channel(connections(limits));
    if let Some(file) = file {
        let server = server.clone();
        let take_up = move |config: &Config| {
            repositories.change(settings(config.missing_content, &config.limits));
            server.change(requests(&config.limits));
            agents.change(config.clients.agents.as_ref());
            change_bounds.send_replace(connections(&config.limits));
        };
        tokio::spawn(reload::configuration(file, changes, take_up, stop.clone()));
    }
    tell(&config, person);
    if let Some(running) = running.filter(|_| person.watches) {
        tokio::spawn(progress::show(move || running.under_way(), stop.clone()));
    }
    ready.open();
    let closing = stop.clone();
    tokio::spawn(async move {
        closing.cancelled().await;
        ready.close();
    });
    listen::serve(listener, server, certificate, metrics, bounds, stop).await;
    uploads.suspend_uploads().await;
    if let Some(maintained) = maintained {
        maintained.end().await;
    }
    drop(ends);
    tracing::info!("stopped");
    Ok(())
}

/// Who tells agents from others. Where there are to be some, there has to be a cluster; whether its API server answers does not
/// matter yet.
async fn agents(config: &Config) -> Result<Arc<Agents>, ServeError> {
    let (wanted, reviews) = (config.clients.agents.clone(), TokenReviews::default());
    if wanted.is_some() {
        reviews.prepare().await.map_err(ServeError::Agents)?;
    }
    Ok(Arc::new(Agents::new(wanted, Box::new(reviews), &rand::random())))
}

/// Says what is served, and to a person how to use it.
fn tell(config: &Config, person: Person) {
    tracing::info!(root = %config.root.display(), listen = %config.listen, tls = config.tls.is_some(), "serving");
    for mirror in &config.mirrors {
        let endpoints = mirror.settings().endpoints;
        tracing::info!(host = %mirror.host, ?endpoints, default = mirror.default, "mirroring");
    }
    if person.reads {
        // Nobody may be reading any more; that is no reason not to serve.
        let _ = std::io::stdout().write_all(first_screen(config).as_bytes());
    }
}

/// What tells how full the volume is, and of what once the store is open.
fn volume(config: &Config, opened: Arc<OnceLock<Filesystem>>) -> axum::Router {
    let images = move || {
        let found = opened.get().and_then(Filesystem::usage)?;
        Some(volume::Images { bytes: found.bytes, repositories: found.repositories })
    };
    volume::router(config.root.clone(), images)
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
