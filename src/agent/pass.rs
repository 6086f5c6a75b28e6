//! One pass: read the plan and the runtime's configuration, make the files follow, tell the result.
//! The files are done also when nothing can be told, and the result is told also when nothing could be done.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use super::Options;
use super::call::{self, limited};
use super::files::disk::Disk;
use super::files::{self, Outcome};
use super::metrics::{Metrics, PassOutcome};
use super::plan_source::PlanSource;
use super::runtime::{self, ConfigPath, Unable, configuration};
use super::status::{Reporter, State};
use crate::api::reason;
use crate::plan::Plan;

/// How often the node is asked which runtime it has. It changes with an upgrade of the node, seldom without a restart.
const NODE_INTERVAL: Duration = Duration::from_hours(1);

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing is left to do until something changes.
    AtRest,
    /// Something failed that may work later.
    Again,
    /// The agent is to stop.
    Stopped,
}

/// What the agent keeps between passes. All of it is read again sooner or later; nothing of it is needed for safety.
pub(super) struct Agent {
    nodes: Api<Node>,
    node_name: String,
    source: PlanSource,
    reporter: Reporter,
    disk: Disk,
    metrics: Metrics,
    /// The runtime as the kubelet reports it, and when that was read.
    runtime: Option<(String, Instant)>,
    plan: Option<Plan>,
    looked: bool,
}

/// What was done on the disk, if anything could be.
type Done = Result<(ConfigPath, Outcome), (Option<ConfigPath>, Unable)>;

impl Agent {
    pub(super) fn new(client: Client, options: &Options, disk: Disk, metrics: Metrics) -> Self {
        Self {
            nodes: Api::all(client.clone()),
            node_name: options.node_name.clone(),
            source: PlanSource::new(client.clone(), &options.plan_namespace),
            reporter: Reporter::new(client, &options.node_name),
            disk,
            metrics,
            runtime: None,
            plan: None,
            looked: false,
        }
    }

    /// Whether a pass has learnt what the plan is, or that there is none.
    pub(super) fn has_looked(&self) -> bool {
        self.looked
    }

    /// One pass. It is safe to stop it at any moment: `stop` ends it between two hosts or calls.
    pub(super) async fn pass(&mut self, stop: &CancellationToken) -> Verdict {
        let verdict = self.stages(stop).await.unwrap_or(Verdict::Stopped);
        match verdict {
            Verdict::AtRest => self.metrics.pass(PassOutcome::completed),
            Verdict::Again => self.metrics.pass(PassOutcome::failed),
            Verdict::Stopped => {}
        }
        verdict
    }

    /// The stages of a pass, in order; none when it was stopped.
    async fn stages(&mut self, stop: &CancellationToken) -> Option<Verdict> {
        let mut again = false;

        if let Err(error) = stop.run_until_cancelled(self.read_node()).await? {
            tracing::warn!(%error, node = %self.node_name, "the node cannot be read");
            again = true;
        }
        let why_no_plan = match stop.run_until_cancelled(self.source.read()).await? {
            Ok(Some(plan)) => {
                self.plan = Some(plan);
                self.looked = true;
                String::new()
            }
            Ok(None) => {
                self.looked = true;
                "There is no node plan yet: the operator has not written one".to_owned()
            }
            Err(error) => {
                tracing::warn!(%error, "the node plan cannot be read; the files stay as they are");
                again = true;
                error.to_string()
            }
        };
        // Without either nothing is known that could be done or told.
        let Some((runtime, _)) = self.runtime.clone() else {
            return Some(Verdict::Again);
        };

        let done = match self.plan.clone() {
            None => None,
            Some(plan) => Some(self.carry_out(runtime.clone(), plan, stop).await?),
        };
        let state = match &done {
            None => State::NoPlan(&why_no_plan),
            Some((revision, Ok((path, outcome)))) => {
                again |= outcome.retry;
                self.metrics.hosts(outcome.written, outcome.exceptions.len(), *revision);
                State::CarriedOut(path, *revision, outcome)
            }
            Some((revision, Err((path, unable)))) => {
                again |= unable.reason == reason::WRITE_FAILED;
                self.metrics.hosts(0, 0, *revision);
                State::Unable(path.as_ref(), unable)
            }
        };

        match stop.run_until_cancelled(self.reporter.tell(&runtime, state, Timestamp::now())).await? {
            Ok(true) => tracing::info!(?state, "the node's state changed"),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, "the node's state cannot be told");
                again = true;
            }
        }
        Some(if again { Verdict::Again } else { Verdict::AtRest })
    }

    async fn read_node(&mut self) -> Result<(), call::Error> {
        if self.runtime.as_ref().is_some_and(|(_, read_at)| read_at.elapsed() < NODE_INTERVAL) {
            return Ok(());
        }
        let node = limited(self.nodes.get(&self.node_name)).await?;
        let info = node.status.and_then(|status| status.node_info);
        let runtime = info.map(|info| info.container_runtime_version).unwrap_or_default();
        self.runtime = Some((runtime, Instant::now()));
        Ok(())
    }

    /// Makes the files follow the plan. It is never dropped half-way, because blocking work goes on when it is dropped.
    async fn carry_out(&self, runtime: String, plan: Plan, stop: &CancellationToken) -> Option<(i64, Done)> {
        let (disk, metrics, token) = (self.disk.clone(), self.metrics.clone(), stop.clone());
        let revision = plan.revision;
        let work = move || carry_out(&disk, &metrics, &runtime, &plan, &token);
        let done = tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
            Err((None, Unable::new(reason::WRITE_FAILED, format!("the pass over the files broke off: {error}"))))
        });
        (!stop.is_cancelled()).then_some((revision, done))
    }
}

fn carry_out(disk: &Disk, metrics: &Metrics, runtime: &str, plan: &Plan, stop: &CancellationToken) -> Done {
    let paths = runtime::detect(runtime, &configuration::read(disk.root())).map_err(|unable| (None, unable))?;
    let Some(shown) = paths.first().cloned() else {
        return Err((None, Unable::new(reason::CONFIG_PATH_UNSET, "containerd reads no host files")));
    };
    match files::apply(disk, &paths, plan, stop, &|kind| metrics.operation(kind)) {
        Ok(outcome) => Ok((shown, outcome)),
        Err(unable) => Err((Some(shown), unable)),
    }
}

#[cfg(test)]
mod tests;
