//! The beginning of Wharf's end in a cluster: deletes all Mirrors and waits until they are gone, while the operator and the
//! agents, by whom alone nodes let go of a Mirror, still run. Helm's hook runs it before it deletes anything else.
//! It must never delete anything else itself: Registries hold images.

use std::fmt;
use std::time::Duration;

use kube::api::{Api, DeleteParams, ListParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::{Client, ResourceExt};
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout};

use crate::api::Mirror;
use crate::telemetry::shutdown_on_signal;

/// How long one call to the API server may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often to look whether Mirrors are gone.
const INTERVAL: Duration = Duration::from_secs(1);

/// Arguments of `wharf uninstall`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// How long to wait until all Mirrors are gone, in seconds
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub wait_seconds: u32,
}

/// Why Wharf cannot be uninstalled yet.
#[derive(Debug, Error)]
pub enum Error {
    /// The process cannot be told to stop.
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] std::io::Error),
    /// There is no way to the API server.
    #[error("cannot set up a client of the API server: {0}")]
    Client(#[source] Box<kube::Error>),
    /// Mirrors are still there.
    #[error(
        "{left} not gone after {waited} s. The operator lifts a Mirror's finalizer once the nodes have let go of it: see \
         whether it runs (kubectl get pods --all-namespaces -l app.kubernetes.io/component=operator) and what it says \
         (kubectl describe mirrors.wharf.dev), then uninstall again. To go on without it: helm uninstall --no-hooks, and \
         afterwards, for each Mirror, kubectl patch mirror.wharf.dev <name> --type=merge -p '{{\"metadata\":{{\"finalizers\":null}}}}'"
    )]
    Left {
        /// Which.
        left: Mirrors,
        /// How long they were waited for.
        waited: u64,
    },
    /// It was never seen which Mirrors there are, or that there are none.
    #[error("cannot tell after {waited} s which Mirrors there are: {last}")]
    Unknown {
        /// How long the API server was asked.
        waited: u64,
        /// What it last answered.
        last: CallError,
    },
    /// It was told to stop.
    #[error("stopped before all Mirrors were gone")]
    Stopped,
}

/// Names of Mirrors, as they stand in messages.
#[derive(Debug, PartialEq, Eq)]
pub struct Mirrors(Vec<String>);

impl fmt::Display for Mirrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(names) = self;
        let (noun, verb) = if names.len() == 1 { ("Mirror", "is") } else { ("Mirrors", "are") };
        write!(formatter, "{noun} {} {verb}", names.join(", "))
    }
}

/// Why one call gave no answer.
#[derive(Debug, Error)]
pub enum CallError {
    /// The API server answered with an error, or could not be reached.
    #[error(transparent)]
    Kube(#[from] kube::Error),
    /// Nothing came within [`CALL_TIMEOUT`].
    #[error("no answer within {} s", CALL_TIMEOUT.as_secs())]
    TimedOut,
}

/// Deletes all Mirrors and waits until they are gone.
///
/// # Errors
/// When some are left, or nobody can tell, after the time that the options give.
pub async fn run(options: Options) -> Result<(), Error> {
    let stop = shutdown_on_signal().map_err(Error::Signals)?;
    let client = Client::try_default().await.map_err(|error| Error::Client(Box::new(error)))?;
    let done = delete_all(client, Duration::from_secs(options.wait_seconds.into()));
    stop.run_until_cancelled(done).await.unwrap_or(Err(Error::Stopped))
}

async fn delete_all(client: Client, wait: Duration) -> Result<(), Error> {
    let mirrors = Api::all(client);
    let began = Instant::now();
    loop {
        let problem = match list(&mirrors).await {
            Ok(found) if found.is_empty() => {
                tracing::info!("there is no Mirror");
                return Ok(());
            }
            Ok(found) => {
                delete(&mirrors, &found).await;
                let names = Mirrors(found.iter().map(ResourceExt::name_any).collect());
                tracing::info!(mirrors = %names, "waiting until the nodes have let go of them");
                Error::Left { left: names, waited: began.elapsed().as_secs() }
            }
            Err(last) => {
                tracing::warn!(error = %last, "cannot list Mirrors");
                Error::Unknown { waited: began.elapsed().as_secs(), last }
            }
        };
        if began.elapsed() >= wait {
            return Err(problem);
        }
        sleep(INTERVAL).await;
    }
}

type Found = PartialObjectMeta<Mirror>;

/// All Mirrors that there are; none where the cluster does not know them.
async fn list(mirrors: &Api<Mirror>) -> Result<Vec<Found>, CallError> {
    match limited(mirrors.list_metadata(&ListParams::default())).await {
        Ok(list) => Ok(list.items),
        Err(CallError::Kube(kube::Error::Api(status))) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Asks for the end of those that are not ending yet. What fails is tried again with the next look.
async fn delete(mirrors: &Api<Mirror>, found: &[Found]) {
    for mirror in found.iter().filter(|mirror| mirror.metadata.deletion_timestamp.is_none()) {
        let preconditions = Preconditions { uid: mirror.uid(), resource_version: None };
        let parameters = DeleteParams::default().preconditions(preconditions);
        let name = mirror.name_any();
        match limited(mirrors.delete(&name, &parameters)).await {
            Ok(_) => tracing::info!(mirror = name, "deleted"),
            Err(CallError::Kube(kube::Error::Api(status))) if status.code == 404 => {}
            Err(error) => tracing::warn!(mirror = name, %error, "cannot delete a Mirror"),
        }
    }
}

async fn limited<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
    match timeout(CALL_TIMEOUT, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(CallError::TimedOut),
    }
}

#[cfg(test)]
mod tests;
