//! One pass: read the node, the plan and the runtime's configuration, make the endpoint and the files follow, tell the result.
//! The files are done also when nothing can be told, and the result is told also when nothing could be done.
//!
//! The endpoint serves a host before files lead to it, and for as long as files lead to it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Options;
use super::binding::Bound;
use super::call::{self, limited};
use super::chosen::{for_node, with_leaving};
use super::local::Endpoint;
use super::metrics::{Figures, Metrics, PassOutcome};
use super::plan_source::PlanSource;
use super::probing::Probes;
use super::runtime::{NodeInfo, Unable};
use super::status::{Carried, HostFacts, Reporter, State, to_the_second};
use super::work::{Disks, Done, Files, Work};
use crate::api::reason;
use crate::plan::{Entry, OwnerKind, Plan};

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
pub(super) struct Agent<E> {
    nodes: Api<Node>,
    node_name: String,
    source: PlanSource,
    reporter: Reporter,
    disks: Disks,
    metrics: Metrics,
    bound: watch::Receiver<Option<Bound<E>>>,
    probes: Probes,
    node: Option<KnownNode>,
    plan: Option<Plan>,
    /// What the endpoint was last told to serve.
    routed: Plan,
    /// When this process wrote the files of a host.
    written: BTreeMap<String, Time>,
    /// The hosts of which the endpoint knows that files lead to it.
    noted: BTreeSet<String>,
    looked: bool,
}

/// The node as it was last read.
#[derive(Clone)]
struct KnownNode {
    info: NodeInfo,
    labels: BTreeMap<String, String>,
}

impl<E: Endpoint> Agent<E> {
    pub(super) fn new(
        client: Client,
        options: &Options,
        disks: Disks,
        bound: watch::Receiver<Option<Bound<E>>>,
        probes: Probes,
        metrics: Metrics,
    ) -> Self {
        Self {
            nodes: Api::all(client.clone()),
            node_name: options.node_name.clone(),
            source: PlanSource::new(client.clone(), &options.plan_namespace),
            reporter: Reporter::new(client, &options.node_name),
            disks,
            metrics,
            bound,
            probes,
            node: None,
            plan: None,
            routed: Plan::default(),
            written: BTreeMap::new(),
            noted: BTreeSet::new(),
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
        // Labels change, and with them what is for this node.
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
        let Some(node) = self.node.clone() else {
            return Some(Verdict::Again);
        };

        let bound = self.bound.borrow_and_update().clone().unwrap_or_else(Bound::disabled);
        let carried = match &self.plan {
            None => None,
            Some(plan) => {
                let plan = for_node(plan, &node.labels);
                let done = self.carry_out(node.info.clone(), &plan, &bound, stop).await?;
                Some(self.learn(&plan, done, &bound))
            }
        };
        let state = match &carried {
            None => State::NoPlan(&why_no_plan),
            Some(Ok(carried)) => {
                again |= carried.outcome.retry;
                State::CarriedOut(carried)
            }
            Some(Err((path, unable))) => {
                again |= unable.reason == reason::WRITE_FAILED;
                State::Unable(path.as_deref(), unable)
            }
        };
        self.metrics.set(figures(&state, self.plan.as_ref(), bound.endpoint.is_some()));

        let told = self.reporter.tell(&node.info.runtime, state, &bound.local, Timestamp::now());
        match stop.run_until_cancelled(told).await? {
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
        let node = limited(self.nodes.get(&self.node_name)).await?;
        let info = node.status.and_then(|status| status.node_info);
        let info = info.map(|info| NodeInfo { runtime: info.container_runtime_version, os_image: info.os_image });
        let labels = node.metadata.labels.unwrap_or_default();
        self.node = Some(KnownNode { info: info.unwrap_or_default(), labels });
        Ok(())
    }

    /// Makes the endpoint and the files follow the plan. It is never dropped half-way, because blocking work goes on when it
    /// is dropped.
    async fn carry_out(
        &mut self,
        info: NodeInfo,
        plan: &Plan,
        bound: &Bound<E>,
        stop: &CancellationToken,
    ) -> Option<Done> {
        let leaving = self.routed.hosts.keys().any(|host| !plan.hosts.contains_key(host));
        self.routed = with_leaving(plan, &self.routed);
        if let Some(endpoint) = &bound.endpoint {
            endpoint.route(&self.routed);
        }
        let (disks, metrics) = (self.disks.clone(), self.metrics.clone());
        let work = Work { disks, info, plan: plan.clone(), local: bound.local.clone(), metrics };
        let token = stop.clone();
        let done = tokio::task::spawn_blocking(move || work.carry_out(&token)).await.unwrap_or_else(|error| {
            Err((None, Unable::new(reason::WRITE_FAILED, format!("the pass over the files broke off: {error}"))))
        });
        if stop.is_cancelled() {
            return None;
        }
        // What failed may have left files that lead to hosts which are to go.
        if leaving && matches!(&done, Ok(files) if !files.outcome.retry) {
            self.routed = plan.clone();
            if let Some(endpoint) = &bound.endpoint {
                endpoint.route(&self.routed);
            }
        }
        Some(done)
    }

    /// Puts what became of the files beside what is known of the hosts, and lets them be probed.
    fn learn(&mut self, plan: &Plan, done: Done, bound: &Bound<E>) -> Result<Carried, (Option<String>, Unable)> {
        let Files { config_path, outcome, hint } = match done {
            Ok(files) => files,
            Err(unable) => {
                self.probes.reach().watch([], |_| false, now());
                return Err(unable);
            }
        };
        let moment = to_the_second(Timestamp::now());
        self.written.extend(outcome.changed.iter().map(|host| (host.clone(), moment.clone())));
        self.written.retain(|host, _| outcome.standing.contains(host));
        self.noted.retain(|host| outcome.standing.contains(host) && !outcome.changed.contains(host));
        if let Some(endpoint) = &bound.endpoint {
            let standing = || mirrored(plan).filter(|(host, _)| outcome.standing.contains(*host));
            for (host, _) in standing() {
                if self.noted.insert(host.clone()) {
                    endpoint.note_written(host);
                }
            }
            let hosts = standing().map(|(host, entry)| (host, entry.since));
            self.probes.reach().watch(hosts, |host| outcome.changed.contains(host), now());
            self.probes.wake();
        } else {
            self.probes.reach().watch([], |_| false, now());
        }
        let hosts = self.facts(plan, bound);
        Ok(Carried { config_path, revision: plan.revision, outcome, hosts, hint })
    }

    fn facts(&self, plan: &Plan, bound: &Bound<E>) -> Vec<HostFacts> {
        let reach = self.probes.reach();
        let facts = mirrored(plan).map(|(host, _)| HostFacts {
            host: host.clone(),
            written: self.written.get(host).cloned(),
            reachable: reach.told(host).cloned(),
            used: bound.endpoint.as_ref().is_some_and(|endpoint| endpoint.used(host)),
        });
        facts.collect()
    }
}

/// The hosts of Mirrors.
fn mirrored(plan: &Plan) -> impl Iterator<Item = (&String, &Entry)> {
    plan.hosts.iter().filter(|(_, entry)| entry.owner.kind == OwnerKind::Mirror)
}

fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}

fn figures(state: &State<'_>, plan: Option<&Plan>, serving: bool) -> Figures {
    let figures = Figures { revision: plan.map_or(0, |plan| plan.revision), serving, ..Figures::default() };
    let State::CarriedOut(Carried { outcome, hosts, .. }) = state else {
        return figures;
    };
    let mirrors: Vec<&HostFacts> = hosts.iter().filter(|facts| outcome.standing.contains(&facts.host)).collect();
    Figures {
        written: outcome.standing.len(),
        exceptions: outcome.exceptions.len(),
        mirrors_written: mirrors.len(),
        mirrors_reachable: mirrors.iter().filter(|facts| matches!(facts.reachable, Some(Ok(())))).count(),
        ..figures
    }
}

#[cfg(test)]
mod tests;
