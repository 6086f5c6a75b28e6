//! The agent: it makes the container runtime of its node follow the node plan, and tells how far it got.
//!
//! It works from level: each pass derives all from the plan and from what stands on the disk, never from the event that
//! woke it. A pass comes after each change of the plan, at the start, and every ten minutes. What cannot be read leaves
//! the files as they are; what fails at one host never stops the others.

mod binding;
mod call;
mod chosen;
pub mod endpoint;
mod files;
mod heartbeat;
mod hosts;
mod local;
mod metrics;
mod pace;
mod pass;
mod plan_source;
mod probing;
mod reach;
mod runtime;
mod shutdown;
mod status;
pub mod supervisor;
mod work;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::plan::Plan;
use crate::telemetry::{Health, MetricsRegistry, server, shutdown_on_signal};
use binding::{Bound, keep_trying};
use endpoint::Endpoint;
use files::disk::Disk;
use local::{Local, LocalEndpoint};
use metrics::Metrics;
use pass::{Agent, Verdict};
use probing::Probes;
use work::Disks;

/// See [`endpoint::Settings::longest_stall`].
const LONGEST_STALL: Duration = Duration::from_secs(60);
/// How long stopping may take, the node's restoring included. The pod's grace period must be longer.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// What the agent needs to know.
#[allow(clippy::doc_markdown, reason = "these comments are the text of --help")]
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The node that this agent runs on
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,

    /// The namespace of the agent's own DaemonSet
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: String,

    /// The name of the agent's own DaemonSet
    #[arg(long, default_value = "wharf-agent")]
    pub daemon_set: String,

    /// The namespace that holds the node plan
    #[arg(long, default_value = "wharf-nodes")]
    pub plan_namespace: String,

    /// Where the node's /etc/containerd is mounted
    #[arg(long, default_value = "/host/etc/containerd")]
    pub containerd_root: PathBuf,

    /// Where the node's /etc/containers is mounted; without it, nothing is written for CRI-O and podman
    #[arg(long)]
    pub containers_root: Option<PathBuf>,

    /// The port of the node's own endpoint on 127.0.0.1, at which its container runtime finds Mirrors and Registries; 0: none
    #[arg(long, default_value_t = 17443)]
    pub local_port: u16,

    /// Let the node's own endpoint speak plain HTTP
    #[arg(long)]
    pub local_plain_http: bool,

    /// Where the node's /var/lib/wharf is mounted
    #[arg(long, default_value = "/host/var/lib/wharf")]
    pub state_folder: PathBuf,

    /// The token by which Mirrors know this agent
    #[arg(long, default_value = "/var/run/secrets/wharf.dev/token")]
    pub mirror_token: PathBuf,

    /// The address for health and metrics
    #[arg(long, default_value = "0.0.0.0:8081")]
    pub listen: SocketAddr,

    /// Be the process that works, under another that watches it
    #[arg(long, hide = true)]
    pub worker: bool,
}

/// Why the agent cannot run at all.
#[derive(Debug, Error)]
pub enum Error {
    /// The process cannot be told to stop.
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] io::Error),
    /// There is no way to the API server.
    #[error("cannot set up a client of the API server: {0}")]
    Client(#[source] kube::Error),
    /// The address for health and metrics is taken. The error names it.
    #[error(transparent)]
    Listen(io::Error),
    /// The process that watches this one is gone.
    #[error("the agent's outer process cannot be told any more that this one turns: {0}")]
    Supervisor(#[source] io::Error),
}

/// Runs the agent until the process is told to stop.
///
/// # Errors
/// When it cannot start. What goes wrong later is told by logs, metrics and the node's `NodeRuntime`.
pub async fn run(options: Options) -> Result<(), Error> {
    let stop = shutdown_on_signal().map_err(Error::Signals)?;
    let client = Client::try_default().await.map_err(Error::Client)?;
    let health = Health::default();
    let mut registry = MetricsRegistry::default();
    let metrics = Metrics::register(&mut registry);
    let disks = Disks {
        containerd: Disk::new(options.containerd_root.clone(), runtime::ROOT),
        containers: options.containers_root.clone().map(|root| Disk::new(root, runtime::containers::ROOT)),
    };
    let traffic = endpoint::metrics::Metrics::register(&mut registry);
    let listener = server::bind(options.listen).await.map_err(Error::Listen)?;
    // It answers until the very end, so that the kubelet does not kill an agent that is restoring its node.
    let serving = tokio::spawn(server::serve(listener, health.clone(), registry, axum::Router::new()));
    let (bind, bound) = watch::channel(None);
    let probes = Probes::default();
    let agent = Agent::new(client.clone(), &options, disks.clone(), bound.clone(), probes.clone(), metrics.clone());
    let news = Arc::new(Notify::new());
    let local = Served { options: options.clone(), traffic, probes, news: news.clone(), metrics: metrics.clone() };
    let serve = tokio::spawn(local.run(bind, stop.clone()));
    let life = async {
        work(agent, bound.clone(), news, &client, &options, &health, &stop).await;
        // It is bound by now, or will never be.
        let _ = serve.await;
        let endpoint = bound.borrow().as_ref().and_then(|bound| bound.endpoint.clone());
        finish(client.clone(), &options, disks, metrics, endpoint).await;
    };
    tokio::select! {
        () = life => {}
        lost = heartbeat::beat() => return Err(Error::Supervisor(lost)),
    }
    serving.abort();
    Ok(())
}

/// What the node's own endpoint needs.
struct Served {
    options: Options,
    traffic: endpoint::metrics::Metrics,
    probes: Probes,
    news: Arc<Notify>,
    metrics: Metrics,
}

impl Served {
    /// Starts the endpoint, and then asks through it for all hosts, until `stop` is cancelled.
    async fn run(self, bind: watch::Sender<Option<Bound<Endpoint>>>, stop: CancellationToken) {
        if self.options.local_port == 0 {
            bind.send_replace(Some(Bound::disabled()));
            return;
        }
        keep_trying(async || self.start().await, &bind, &stop).await;
        let Some(endpoint) = bind.borrow().as_ref().and_then(|bound| bound.endpoint.clone()) else {
            return;
        };
        let used = async {
            loop {
                endpoint.changed().await;
                self.news.notify_one();
            }
        };
        tokio::select! {
            () = self.probes.run(endpoint.clone(), self.news.clone(), self.metrics, stop) => {}
            () = used => {}
        }
    }

    async fn start(&self) -> Result<Endpoint, Local> {
        let settings = endpoint::Settings {
            port: self.options.local_port,
            plain_http: self.options.local_plain_http,
            state_folder: self.options.state_folder.clone(),
            token_file: self.options.mirror_token.clone(),
            longest_stall: LONGEST_STALL,
        };
        Endpoint::start(settings, self.traffic.clone()).await.map_err(|error| match error {
            endpoint::BindError::InUse { .. } => Local::PortInUse(error.to_string()),
            _ => Local::Failed(error.to_string()),
        })
    }
}

impl local::Endpoint for Endpoint {
    fn describe(&self) -> LocalEndpoint {
        LocalEndpoint { url: self.url(), certificate: self.certificate().map(str::to_owned) }
    }
    fn route(&self, plan: &Plan) {
        Self::route(self, plan);
    }
    async fn verify(&self, host: &str) -> Result<(), String> {
        Self::verify(self, host).await
    }
    fn note_written(&self, host: &str) {
        Self::note_written(self, host);
    }
    fn used(&self, host: &str) -> bool {
        Self::used(self, host)
    }
}

/// Passes, one after the other, until `stop` is cancelled.
async fn work<E: local::Endpoint>(
    mut agent: Agent<E>,
    mut bound: watch::Receiver<Option<Bound<E>>>,
    news: Arc<Notify>,
    client: &Client,
    options: &Options,
    health: &Health,
    stop: &CancellationToken,
) {
    let gate = health.gate("first look at the node plan");
    // No file may lead to the endpoint, or cease to, before it is known whether it serves.
    let known = bound.wait_for(Option::is_some);
    if stop.run_until_cancelled(known).await.is_none_or(|known| known.is_err()) {
        return;
    }
    let changed = Arc::new(Notify::new());
    let watch = plan_source::watch(client.clone(), options.plan_namespace.clone(), changed.clone(), stop.clone());
    tokio::spawn(watch);
    let mut failures = 0_u32;
    while !stop.is_cancelled() {
        bound.mark_unchanged();
        match agent.pass(stop).await {
            Verdict::Stopped => break,
            Verdict::AtRest => failures = 0,
            Verdict::Again => failures = failures.saturating_add(1),
        }
        if agent.has_looked() {
            gate.open();
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(pace::until_next(failures, rand::random())) => {}
            // Whoever bound the endpoint is gone when it serves, and then nothing more comes from here.
            Ok(()) = bound.changed() => {}
            () = changed.notified() => wait_a_little(stop).await,
            () = news.notified() => wait_a_little(stop).await,
        }
    }
}

/// So that many agents do not ask at the same moment, and several pieces of news are told together.
async fn wait_a_little(stop: &CancellationToken) {
    stop.run_until_cancelled(tokio::time::sleep(pace::before_fetching(rand::random()))).await;
}

/// Leaves the node as it was found, if the agent is being uninstalled, and lets running transfers end.
async fn finish(client: Client, options: &Options, disks: Disks, metrics: Metrics, endpoint: Option<Endpoint>) {
    let limit = CancellationToken::new();
    let deadline = limit.clone();
    tokio::spawn(async move {
        tokio::time::sleep(STOP_LIMIT).await;
        deadline.cancel();
    });
    let answer = shutdown::ask(client, &options.namespace, &options.daemon_set).await;
    let decision = shutdown::decide(answer);
    match decision {
        shutdown::Decision::Keep => tracing::info!(?answer, "the entries of this node stay"),
        shutdown::Decision::Restore => {
            tracing::info!(?answer, "the agent is being uninstalled: the entries of this node are removed");
            // Files first: after them nothing leads to an endpoint that is going.
            restore(disks, limit.clone(), metrics).await;
        }
    }
    if let Some(endpoint) = endpoint {
        limit.run_until_cancelled(endpoint.drain()).await;
    }
    if decision == shutdown::Decision::Restore
        && let Err(error) = endpoint::forget(&options.state_folder)
    {
        tracing::error!(%error, "the key of the node's endpoint stays");
    }
}

async fn restore(disks: Disks, limit: CancellationToken, metrics: Metrics) {
    // Blocking work cannot be dropped; it looks at the limit between two folders.
    let restored = tokio::task::spawn_blocking(move || {
        let disks = std::iter::once(&disks.containerd).chain(&disks.containers);
        disks.flat_map(|disk| files::restore(disk, &limit, &|kind| metrics.operation(kind))).collect::<Vec<_>>()
    });
    match restored.await {
        Ok(errors) if errors.is_empty() => tracing::info!("the node is as it was found"),
        Ok(errors) => errors.iter().for_each(|error| tracing::error!(%error, "an entry stays")),
        Err(error) => tracing::error!(%error, "restoring the node broke off"),
    }
}

#[cfg(test)]
mod fake;
