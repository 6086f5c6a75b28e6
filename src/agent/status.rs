//! What the agent tells about its node: the `NodeRuntime`'s status, derived from what a pass found, and written only
//! when it says something new. The operator makes the object; the agent never does.

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use thiserror::Error;

use super::call::{self, limited};
use super::files::Outcome;
use super::runtime::{ConfigPath, Unable};
use crate::api::condition::{Finding, READY, Status, conditions};
use crate::api::node_runtime::{HostCounts, MAX_EXCEPTIONS};
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
    /// Entries would have no effect, or their folder cannot be used.
    Unable(Option<&'a ConfigPath>, &'a Unable),
    /// The plan of this revision was carried out.
    CarriedOut(&'a ConfigPath, i64, &'a Outcome),
}

/// The status that follows `old`. It equals `old` when there is nothing new to tell, because a condition keeps its
/// transition time until its status changes.
#[must_use]
pub fn next(
    old: &NodeRuntimeStatus,
    runtime: &str,
    state: State<'_>,
    generation: Option<i64>,
    now: Timestamp,
) -> NodeRuntimeStatus {
    let finding = |status, reason, message: String| Finding::new(READY, status, reason, message);
    let mut status = NodeRuntimeStatus { runtime: Some(runtime.to_owned()), ..NodeRuntimeStatus::default() };
    let finding = match state {
        State::NoPlan(why) => {
            // What an earlier agent carried out still stands: nothing was touched.
            status = NodeRuntimeStatus { runtime: status.runtime, ..old.clone() };
            finding(Status::Unknown, reason::PENDING, why.to_owned())
        }
        State::Unable(path, unable) => {
            status.config_path = path.map(|path| path.as_str().to_owned());
            finding(Status::False, unable.reason, unable.message.clone())
        }
        State::CarriedOut(path, revision, outcome) => {
            status.config_path = Some(path.as_str().to_owned());
            // With more exceptions than are listed, nobody could tell which hosts are in order.
            let told = outcome.exceptions.len() <= MAX_EXCEPTIONS;
            status.plan_revision = if told { Some(revision) } else { old.plan_revision };
            status.exceptions = outcome.exceptions.iter().take(MAX_EXCEPTIONS).cloned().collect();
            status.counts =
                Some(HostCounts { written: number(outcome.written), exceptions: number(outcome.exceptions.len()) });
            match outcome.exceptions.as_slice() {
                [] => finding(Status::True, reason::CONFIGURED, format!("{} stand as planned", hosts(outcome.written))),
                [first, rest @ ..] => {
                    let more = if rest.is_empty() { String::new() } else { format!(" (and {} more)", rest.len()) };
                    let message = format!("{}: {}{more}", first.host, first.message);
                    finding(Status::False, reason::EXCEPTIONS, message)
                }
            }
        }
    };
    status.conditions = conditions(&old.conditions, vec![finding], generation, now);
    status
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn hosts(count: usize) -> String {
    if count == 1 { "1 host".to_owned() } else { format!("{count} hosts") }
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
    pub async fn tell(&self, runtime: &str, state: State<'_>, now: Timestamp) -> Result<bool, Error> {
        let fail = |doing| move |source| Error::Call { doing, name: self.name.clone(), source };
        let found = limited(self.api.get_opt(&self.name)).await.map_err(fail("read"))?;
        let found = found.ok_or_else(|| Error::Missing(self.name.clone()))?;
        let old = found.status.unwrap_or_default();
        let status = next(&old, runtime, state, found.metadata.generation, now);
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
