//! The operator: it turns Registries into workloads and the node plan. Only its wiring is here: client, lease, health,
//! caches, controllers, and the order in which they stop. It must never be needed by what it made: registries serve and
//! nodes pull while no operator runs.

pub mod apis;
pub mod apply;
mod ask;
pub mod authority;
pub mod backoff;
pub mod ca_bundle;
pub mod call;
pub mod certificate;
pub mod context;
pub mod controllers;
pub mod finalizer;
pub mod found;
pub mod front;
pub mod gateway_api;
pub mod images;
pub mod limits;
pub mod metrics;
pub mod mirror;
pub mod node_plan;
pub mod node_runtimes;
mod pending;
pub mod problem;
pub mod pull_secret;
pub mod registry;
pub mod rivals;
pub mod settings;
pub mod statuses;
pub mod view;
pub mod volume;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use k8s_controller::LeaderElection;
use kube::api::{Api, ListParams};
use kube::{Client, Config};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::call::CALL_TIMEOUT;
use self::controllers::Controllers;
use self::limits::{HostPattern, Limits};
use self::metrics::Metrics;
use self::settings::Settings;
use crate::api::{Mirror, NodeRuntime, Registry};
use crate::telemetry::{Health, MetricsRegistry, server, shutdown_on_signal};

/// The name of the lease that the leader holds.
const LEASE: &str = "wharf-operator";
/// How long running passes may take to end after a signal; less than the pod's grace period.
const GRACE: Duration = Duration::from_secs(20);
/// The longest silence on a connection; watches are ended by the API server after 290 s at most.
const READ_TIMEOUT: Duration = Duration::from_secs(300);
/// How often to look for what the process waits for at its start.
const START_RETRY: Duration = Duration::from_secs(2);

/// Arguments of `wharf operator`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The operator's own namespace: lease and authority live there.
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: String,
    /// A name that no other replica has; the pod's name.
    #[arg(long, env = "POD_NAME")]
    pub identity: String,
    /// The namespace of the node plan.
    #[arg(long, default_value = "wharf-nodes")]
    pub plan_namespace: String,
    /// The cluster's DNS domain.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
    /// The image of Wharf itself, for what it adds to the pods of Registries.
    #[arg(long)]
    pub wharf_image: String,
    /// How often each Registry's pod is asked how full its volume is, in seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub volume_interval: u32,
    /// The image of CNCF distribution.
    #[arg(long, default_value = "docker.io/library/registry:3.1.2")]
    pub distribution_image: String,
    /// How long clients that read the certificates seldom are given when the authority is replaced, such as 336h.
    #[arg(long, default_value = "336h", value_parser = positive_duration)]
    pub certificate_overlap: Duration,
    /// A further name that Registries may bear, or all names one label below a domain, such as `*.example.com`; may be repeated.
    #[arg(long = "allowed-host")]
    pub allowed_hosts: Vec<HostPattern>,
    /// How many Registries a namespace may hold; 0 for any number.
    #[arg(long, default_value_t = 0)]
    pub registries_per_namespace: u32,
    /// The service account of the pods of Mirrors, in the operator's namespace.
    #[arg(long, default_value = "wharf-mirror")]
    pub mirror_service_account: String,
    /// The service account of the agents, in the operator's namespace: Mirrors answer only those who prove to be it.
    #[arg(long, default_value = "wharf-agent")]
    pub agent_service_account: String,
    /// A range of addresses that no registry may redirect a Mirror to, such as that of the cluster's Services, 10.96.0.0/12,
    /// besides those that are private everywhere; may be repeated.
    #[arg(long = "closed-range")]
    pub closed_ranges: Vec<IpNet>,
    /// Address of the operational endpoint: /healthz, /readyz, /metrics.
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
}

/// Hours, minutes and seconds, such as `336h` or `1h30m`.
fn positive_duration(text: &str) -> Result<Duration, String> {
    let duration: jiff::SignedDuration = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    let duration = Duration::try_from(duration).unwrap_or_default();
    // A rotation adds it to times a few times over.
    if (1..=366 * 24 * 3600).contains(&duration.as_secs()) {
        return Ok(duration);
    }
    Err("must be from 1s to 8784h".to_owned())
}

/// The operator ended for a reason that it cannot mend by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither a kubeconfig nor a service account was found.
    #[error("cannot find the cluster: {0}")]
    Configuration(#[from] kube::config::InferConfigError),
    /// The client could not be made.
    #[error("cannot make a client for the cluster: {0}")]
    Client(#[from] Box<kube::Error>),
    /// The operational endpoint failed.
    #[error(transparent)]
    Endpoint(#[from] std::io::Error),
    /// Another replica may lead now; nothing of this process may go on.
    #[error("lost the lease {LEASE}: stopping, so that two operators never write at once")]
    LeaseLost,
    /// The controllers ended without being told to.
    #[error("{0}")]
    Controllers(#[from] controllers::ControllersError),
}

/// Runs the operator until SIGTERM.
///
/// # Errors
/// When it cannot go on; the process should end and be started again.
pub async fn run(options: Options) -> Result<(), Error> {
    let shutdown = shutdown_on_signal()?;
    let metrics = Metrics::default();
    let mut registry = MetricsRegistry::default();
    metrics.register(&mut registry);
    let health = Health::default();
    let definitions = health.gate("custom resource definitions");
    let listener = server::bind(options.listen).await?;
    let mut endpoint = tokio::spawn(server::serve(listener, health.clone(), registry, axum::Router::new()));

    let client = client().await?;
    let work = async {
        tokio::select! {
            () = wait_for_definitions(&client) => definitions.open(),
            () = shutdown.cancelled() => return Ok(()),
        }
        Box::pin(lead(&options, client, &metrics, &health, &shutdown)).await
    };
    tokio::select! {
        result = work => result,
        result = &mut endpoint => match result {
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(())) => Err(std::io::Error::other("the operational endpoint ended by itself").into()),
            Err(error) => Err(std::io::Error::other(error).into()),
        },
    }
}

/// A client without retries of its own: each pass has its own bound, and the next pass tries again.
async fn client() -> Result<Client, Error> {
    let mut config = Config::infer().await?;
    config.default_retry = false;
    // A watch ends by itself before this; a connection that died without a word ends by it.
    config.read_timeout = Some(READ_TIMEOUT);
    Client::try_from(config).map_err(|error| Error::Client(Box::new(error)))
}

/// Waits for the lease, then runs the controllers for as long as it is held.
async fn lead(
    options: &Options,
    client: Client,
    metrics: &Metrics,
    health: &Health,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let election = LeaderElection::new(client.clone(), &options.namespace, LEASE, &options.identity);
    let settings = Settings {
        namespace: options.namespace.clone(),
        plan_namespace: options.plan_namespace.clone(),
        cluster_domain: options.cluster_domain.clone(),
        wharf_image: options.wharf_image.clone(),
        volume_interval: Duration::from_secs(options.volume_interval.into()),
        distribution_image: options.distribution_image.clone(),
        certificate_overlap: options.certificate_overlap,
        limits: Limits {
            allowed_hosts: options.allowed_hosts.clone(),
            registries_per_namespace: options.registries_per_namespace,
        },
        mirror_service_account: options.mirror_service_account.clone(),
        agent_service_account: options.agent_service_account.clone(),
        closed_ranges: options.closed_ranges.clone(),
    };
    let leads = AtomicBool::new(false);
    let leading = election.with_lease(async {
        tracing::info!(identity = options.identity, "leading");
        metrics.set_leader(true);
        leads.store(true, Ordering::Relaxed);
        let identity = options.identity.clone();
        let controllers = Controllers { client, settings, identity, metrics: metrics.clone() };
        Box::pin(controllers.run(health, shutdown)).await
    });
    let stop = async {
        shutdown.cancelled().await;
        // The controllers see the same signal and end by themselves; this is the bound. Who waits for the lease has none.
        if leads.load(Ordering::Relaxed) {
            sleep(GRACE).await;
        }
    };
    let held = tokio::select! {
        result = leading => Some(result),
        () = stop => None,
    };
    metrics.set_leader(false);
    match held {
        Some(Some(result)) => Ok(result?),
        Some(None) if !shutdown.is_cancelled() => Err(Error::LeaseLost),
        Some(None) => Ok(()),
        None if !leads.load(Ordering::Relaxed) => Ok(()),
        None => {
            tracing::warn!("passes were still running {} s after the signal and are dropped", GRACE.as_secs());
            let _ = timeout(Duration::from_secs(5), election.release()).await;
            Ok(())
        }
    }
}

/// Without its resource definitions the operator can do nothing; restarting would not make them appear.
async fn wait_for_definitions(client: &Client) {
    let one = ListParams::default().limit(1);
    let (registries, nodes) = (Api::<Registry>::all(client.clone()), Api::<NodeRuntime>::all(client.clone()));
    let mirrors = Api::<Mirror>::all(client.clone());
    loop {
        let all = async {
            registries.list_metadata(&one).await?;
            mirrors.list_metadata(&one).await?;
            nodes.list_metadata(&one).await
        };
        match timeout(CALL_TIMEOUT, all).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot list Wharf's resources yet; install the chart wharf-crds, or check the API server");
            }
            Err(_) => tracing::warn!("the API server does not answer a list of Wharf's resources"),
        }
        sleep(START_RETRY).await;
    }
}
