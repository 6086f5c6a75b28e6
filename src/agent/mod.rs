//! The agent: it makes the container runtime of its node follow the node plan, and tells how far it got.
//!
//! It works from level: each pass derives all from the plan and from what stands on the disk, never from the event that
//! woke it. A pass comes after each change of the plan, at the start, and every ten minutes. What cannot be read leaves
//! the files as they are; what fails at one host never stops the others.

mod call;
mod files;
mod hosts;
mod metrics;
mod pace;
mod pass;
mod plan_source;
mod runtime;
mod shutdown;
mod status;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use thiserror::Error;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::telemetry::{Health, MetricsRegistry, server, shutdown_on_signal};
use files::disk::Disk;
use metrics::Metrics;
use pass::{Agent, Verdict};

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

    /// The address for health and metrics
    #[arg(long, default_value = "0.0.0.0:8081")]
    pub listen: SocketAddr,
}

/// Why the agent cannot run at all.
#[derive(Debug, Error)]
pub enum Error {
    /// The process cannot be told to stop.
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] std::io::Error),
    /// There is no way to the API server.
    #[error("cannot set up a client of the API server: {0}")]
    Client(#[source] kube::Error),
    /// The address for health and metrics is taken. The error names it.
    #[error(transparent)]
    Listen(std::io::Error),
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
    let listener = server::bind(options.listen).await.map_err(Error::Listen)?;
    // It answers until the very end, so that the kubelet does not kill an agent that is restoring its node.
    let serving = tokio::spawn(server::serve(listener, health.clone(), registry, axum::Router::new()));

    let disk = Disk::new(options.containerd_root.clone());
    let agent = Agent::new(client.clone(), &options, disk.clone(), metrics.clone());
    work(agent, &client, &options, &health, &stop).await;
    finish(client, &options, disk, metrics).await;
    serving.abort();
    Ok(())
}

/// Passes, one after the other, until `stop` is cancelled.
async fn work(mut agent: Agent, client: &Client, options: &Options, health: &Health, stop: &CancellationToken) {
    let gate = health.gate("first look at the node plan");
    let changed = Arc::new(Notify::new());
    let watch = plan_source::watch(client.clone(), options.plan_namespace.clone(), changed.clone(), stop.clone());
    tokio::spawn(watch);
    let mut failures = 0_u32;
    while !stop.is_cancelled() {
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
            () = changed.notified() => {
                let jitter = tokio::time::sleep(pace::before_fetching(rand::random()));
                stop.run_until_cancelled(jitter).await;
            }
        }
    }
}

/// Leaves the node as it was found, if the agent is being uninstalled.
async fn finish(client: Client, options: &Options, disk: Disk, metrics: Metrics) {
    let limit = CancellationToken::new();
    let deadline = limit.clone();
    tokio::spawn(async move {
        tokio::time::sleep(STOP_LIMIT).await;
        deadline.cancel();
    });
    let answer = shutdown::ask(client, &options.namespace, &options.daemon_set).await;
    if shutdown::decide(answer) == shutdown::Decision::Keep {
        tracing::info!(?answer, "the entries of this node stay");
        return;
    }
    tracing::info!(?answer, "the agent is being uninstalled: the entries of this node are removed");
    // Blocking work cannot be dropped; it looks at the limit between two folders.
    let restored = tokio::task::spawn_blocking(move || files::restore(&disk, &limit, &|kind| metrics.operation(kind)));
    match restored.await {
        Ok(errors) if errors.is_empty() => tracing::info!("the node is as it was found"),
        Ok(errors) => errors.iter().for_each(|error| tracing::error!(%error, "an entry stays")),
        Err(error) => tracing::error!(%error, "restoring the node broke off"),
    }
}

#[cfg(test)]
mod fake;
