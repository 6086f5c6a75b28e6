//! What the agent tells about its node: the `NodeRuntime`'s status, derived from what a pass found, and written only
//! when it says something new. The operator makes the object; the agent never does.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use thiserror::Error;

use super::call::{self, limited};
use super::files::Outcome;
use super::local::Local;
use super::runtime::Unable;
use crate::api::condition::{ENDPOINT_READY, Finding, READY, Status, conditions};
use crate::api::node_runtime::{HostCounts, HostException, MAX_EXCEPTIONS, MAX_MIRRORS, MirroredHost};
use crate::api::{NodeRuntime, NodeRuntimeStatus, reason};

/// The name under which the API server records what the agent wrote.
const FIELD_MANAGER: &str = "wharf/agent";

/// The status could not be told.
#[derive(Debug, Error)]
pub enum Error {
    /// The operator has not made the object yet.
    #[error("the NodeRuntime {0} does not exist yet: the operator makes it")]
    Missing(String),
    /// The API server refused, or gave no answer.
    #[error("cannot {doing} the status of NodeRuntime {name}: {source}")]
    Call {
        /// What was tried.
        doing: &'static str,
        /// The object.
        name: String,
        /// The API server's answer.
        source: call::Error,
    },
}

/// What a pass came to.
#[derive(Clone, Copy, Debug)]
pub enum State<'a> {
    /// No plan was ever read, for this reason.
    NoPlan(&'a str),
    /// Entries would have no effect, or the folder for them, if there is one, cannot be used.
    Unable(Option<&'a str>, &'a Unable),
    /// A plan was carried out.
    CarriedOut(&'a Carried),
}

/// What was carried out.
#[derive(Clone, Debug, Default)]
pub struct Carried {
    /// The folder that the entries are in, as the node sees it.
    pub config_path: String,
    /// The plan's revision.
    pub revision: i64,
    /// What became of the files.
    pub outcome: Outcome,
    /// What is known of each Mirror's host of the plan on this node, by name. A Registry that is away is away from all nodes alike, and
    /// says so itself: with each node telling it too, a cluster with many that are suspended would never be silent.
    pub hosts: Vec<HostFacts>,
    /// What a person must know of this runtime, after how many hosts stand.
    pub hint: Option<&'static str>,
}

/// What this process knows of one host of a Mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// The host.
    pub host: String,
    /// When this process wrote its files, if it did.
    pub written: Option<Time>,
    /// Whether it can be reached, or why not; nothing before it was tried.
    pub reachable: Option<Result<(), String>>,
    /// Whether the runtime has asked this process for something of it.
    pub used: bool,
}

/// The status that follows `old`. It equals `old` when there is nothing new to tell, because a condition keeps its
/// transition time until its status changes.
#[must_use]
pub fn next(
    old: &NodeRuntimeStatus,
    runtime: &str,
    state: State<'_>,
    local: &Local,
    generation: Option<i64>,
    now: Timestamp,
) -> NodeRuntimeStatus {
    let finding = |status, reason, message: String| Finding::new(READY, status, reason, message);
    let mut status = NodeRuntimeStatus { runtime: Some(runtime.to_owned()), ..NodeRuntimeStatus::default() };
    let ready = match state {
        State::NoPlan(why) => {
            // What an earlier agent carried out still stands: nothing was touched.
            status = NodeRuntimeStatus { runtime: status.runtime, ..old.clone() };
            finding(Status::Unknown, reason::PENDING, why.to_owned())
        }
        State::Unable(path, unable) => {
            status.config_path = path.map(str::to_owned);
            finding(Status::False, unable.reason, unable.message.clone())
        }
        State::CarriedOut(carried) => carried_out(&mut status, old, carried, now),
    };
    let (reason, message) = local.finding();
    let serves = if local.endpoint().is_some() { Status::True } else { Status::False };
    let endpoint = Finding::new(ENDPOINT_READY, serves, reason, message);
    status.conditions = conditions(&old.conditions, vec![ready, endpoint], generation, now);
    status
}

fn carried_out(status: &mut NodeRuntimeStatus, old: &NodeRuntimeStatus, carried: &Carried, now: Timestamp) -> Finding {
    let outcome = &carried.outcome;
    status.config_path = Some(carried.config_path.clone());
    // With more exceptions than are listed, nobody could tell which hosts are in order.
    let told = outcome.exceptions.len() <= MAX_EXCEPTIONS;
    status.plan_revision = if told { Some(carried.revision) } else { old.plan_revision };
    let unreachable: Vec<HostException> =
        carried.hosts.iter().filter_map(|host| unreachable(host, outcome, old)).collect();
    let troubles: Vec<&HostException> = outcome.exceptions.iter().chain(&unreachable).collect();
    let count = troubles.len();
    let standing = hosts(outcome.standing.len());
    let message = format!("{standing} as planned{}", carried.hint.map(|hint| format!("; {hint}")).unwrap_or_default());
    let finding = match troubles.as_slice() {
        [] => Finding::new(READY, Status::True, reason::CONFIGURED, message),
        [first, rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!(" (and {} more)", rest.len()) };
            let message = format!("{}: {}{more}", first.host, first.message);
            Finding::new(READY, Status::False, reason::EXCEPTIONS, message)
        }
    };
    status.exceptions = troubles.into_iter().take(MAX_EXCEPTIONS).cloned().collect();
    let mirrors: Vec<MirroredHost> = carried.hosts.iter().map(|host| mirrored(host, outcome, old, now)).collect();
    status.counts = Some(HostCounts {
        written: number(outcome.standing.len()),
        exceptions: number(count),
        mirrors: summary(&mirrors),
    });
    status.mirrors = mirrors.into_iter().take(MAX_MIRRORS).collect();
    finding
}

/// Why a host that stands cannot be reached, if it cannot. What was told before holds until it has been tried.
fn unreachable(host: &HostFacts, outcome: &Outcome, old: &NodeRuntimeStatus) -> Option<HostException> {
    if !outcome.standing.contains(&host.host) {
        return None;
    }
    let told = |exception: &&HostException| exception.host == host.host && exception.reason == reason::UNREACHABLE;
    match &host.reachable {
        Some(Ok(())) => None,
        Some(Err(why)) => Some(HostException {
            host: host.host.clone(),
            reason: reason::UNREACHABLE.to_owned(),
            message: why.clone(),
        }),
        None => old.exceptions.iter().find(told).cloned(),
    }
}

/// The facts of a Mirror's host. A fact of before holds for as long as the files that it is about.
fn mirrored(facts: &HostFacts, outcome: &Outcome, old: &NodeRuntimeStatus, now: Timestamp) -> MirroredHost {
    let host = facts.host.clone();
    if !outcome.standing.contains(&host) {
        return MirroredHost { host, written: None, reachable: false, used: false };
    }
    let old = old.mirrors.iter().find(|old| old.host == host);
    let before = old.and_then(|old| old.written.clone());
    let written = facts.written.clone().or_else(|| before.clone()).unwrap_or_else(|| to_the_second(now));
    let used = facts.used || (before.as_ref() == Some(&written) && old.is_some_and(|old| old.used));
    let reachable = facts.reachable.as_ref().map_or_else(|| old.is_some_and(|old| old.reachable), Result::is_ok);
    MirroredHost { host, written: Some(written), reachable, used }
}

/// A time as the API server gives it back.
#[must_use]
pub fn to_the_second(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

/// How many of the Mirrors' hosts are in use, of how many that stand.
fn summary(mirrors: &[MirroredHost]) -> Option<String> {
    let used = mirrors.iter().filter(|host| host.used).count();
    let written = mirrors.iter().filter(|host| host.written.is_some()).count();
    (!mirrors.is_empty()).then(|| format!("{used}/{written}"))
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn hosts(count: usize) -> String {
    if count == 1 { "1 host stands".to_owned() } else { format!("{count} hosts stand") }
}

/// The status of one node.
pub struct Reporter {
    api: Api<NodeRuntime>,
    name: String,
}

impl Reporter {
    /// The reporter of a node.
    #[must_use]
    pub fn new(client: Client, node: &str) -> Self {
        Self { api: Api::all(client), name: node.to_owned() }
    }

    /// Writes what a pass came to, if it is news. Returns whether it was.
    ///
    /// # Errors
    /// When the status cannot be read or written.
    pub async fn tell(&self, runtime: &str, state: State<'_>, local: &Local, now: Timestamp) -> Result<bool, Error> {
        let fail = |doing| move |source| Error::Call { doing, name: self.name.clone(), source };
        let found = limited(self.api.get_opt(&self.name)).await.map_err(fail("read"))?;
        let found = found.ok_or_else(|| Error::Missing(self.name.clone()))?;
        let old = found.status.unwrap_or_default();
        let status = next(&old, runtime, state, local, found.metadata.generation, now);
        if status == old {
            return Ok(false);
        }
        let patch = Patch::Apply(json!({
            "apiVersion": "wharf.dev/v1alpha1",
            "kind": "NodeRuntime",
            "metadata": { "name": self.name },
            "status": status,
        }));
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let patched = self.api.patch_status(&self.name, &parameters, &patch);
        limited(patched).await.map_err(fail("write"))?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
