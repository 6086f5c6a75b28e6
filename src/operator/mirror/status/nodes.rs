//! The condition `NodesConfigured` of a Mirror, and its counts: what the agents report, never what they should. Pure.

use std::collections::BTreeSet;

use super::as_before;
use crate::api::condition::{self, Finding, PENDING, Status};
use crate::api::mirror::MirrorNodeCounts;
use crate::api::node_runtime::MirroredHost;
use crate::api::{Mirror, MirrorStatus, NodeRuntimeStatus, reason};
use crate::operator::mirror::observe::Observed;

/// How many nodes a message names.
const NAMED: usize = 3;

/// What is known of the nodes' ways to a Mirror.
pub struct Reach<'a> {
    /// The hosts that are this Mirror's.
    pub granted: &'a [String],
    /// Those that the node plan has.
    pub planned: &'a BTreeSet<String>,
    /// What the selected nodes report.
    pub nodes: &'a [(String, NodeRuntimeStatus)],
    /// Those whose runtime passes it by; `None` while that is not known.
    pub bypassed: Option<&'a [String]>,
}

impl<'a> Reach<'a> {
    /// As it was observed.
    #[must_use]
    pub fn of(observed: &'a Observed) -> Self {
        Self {
            granted: &observed.hosts.granted,
            planned: &observed.planned,
            nodes: &observed.nodes,
            bypassed: observed.bypassed.as_deref(),
        }
    }
}

/// Whether a Mirror's status does not say yet what the nodes report.
#[must_use]
pub fn lacks_reports(mirror: &Mirror, reach: &Reach<'_>) -> bool {
    let Some(status) = &mirror.status else {
        return true;
    };
    let (counts, finding) = nodes(reach, status);
    let said = condition::find(&status.conditions, finding.kind).is_some_and(|old| {
        old.status == finding.status.as_str() && old.reason == finding.reason && old.message == finding.message
    });
    !said || status.nodes.as_ref() != Some(&counts)
}

/// A node counts when it can pull from every host. Who passes the Mirror by stays told while it is not known anew: an operator that
/// has just started knows no better.
pub(super) fn nodes(reach: &Reach<'_>, old: &MirrorStatus) -> (MirrorNodeCounts, Finding) {
    let with_agents: Vec<_> = reach.nodes.iter().filter(|(_, status)| has_an_agent(status)).collect();
    let unable: Vec<String> =
        with_agents.iter().filter_map(|(node, status)| inability(node, status, reach.granted)).collect();
    let total = with_agents.len();
    let able = if reach.granted.is_empty() { 0 } else { total - unable.len() };
    let used = with_agents.iter().filter(|(_, status)| uses(status, reach.granted)).count();
    let told = old.nodes.as_ref().map_or(0, |nodes| nodes.bypassed);
    let counts = MirrorNodeCounts {
        able: count(able),
        total: count(total),
        used: count(used),
        bypassed: reach.bypassed.map_or(told, |nodes| count(nodes.len())),
        summary: format!("{able}/{total}"),
    };
    (counts, finding(reach, total, able, &unable, old))
}

fn finding(reach: &Reach<'_>, total: usize, able: usize, unable: &[String], old: &MirrorStatus) -> Finding {
    let kind = condition::NODES_CONFIGURED;
    let found = |status, reason, message: String| Finding::new(kind, status, reason, message);
    if total == 0 {
        let message = "None of the nodes that spec.nodes.selector chooses runs Wharf's agent; without it, nodes pull from the \
                       registries themselves";
        return found(Status::Unknown, reason::NO_AGENTS, message.to_owned());
    }
    if reach.granted.is_empty() {
        let message = "Nodes are told of no host: none is this Mirror's".to_owned();
        return found(Status::False, reason::HOST_TAKEN, message);
    }
    if reach.granted.iter().any(|host| !reach.planned.contains(host)) {
        return found(Status::False, reason::PROGRESSING, "The nodes are about to be told of this mirror".to_owned());
    }
    if !unable.is_empty() {
        let message = format!("{able} of {total} nodes pull through it; not yet: {}", some_of(unable, "; "));
        return found(Status::False, reason::SOME_NODES, message);
    }
    let Some(bypassed) = reach.bypassed else {
        let all = || found(Status::True, reason::ALL_NODES, all_of(total));
        return as_before(&old.conditions, kind, &[reason::BYPASSED]).unwrap_or_else(all);
    };
    if !bypassed.is_empty() {
        let message = format!(
            "{total} of {total} nodes are configured, but pods started on {} with images of these hosts and the runtime never asked \
             for any: it does not read what the agent wrote, or the images were there before. kubectl describe noderuntime tells \
             where that is",
            some_of(bypassed, ", ")
        );
        return found(Status::False, reason::BYPASSED, message);
    }
    found(Status::True, reason::ALL_NODES, all_of(total))
}

fn all_of(total: usize) -> String {
    format!("{total} of {total} nodes pull through it")
}

/// Whether an agent has reported at all: the object itself is there for every node.
fn has_an_agent(status: &NodeRuntimeStatus) -> bool {
    status.plan_revision.is_some()
        || status.runtime.is_some()
        || status.conditions.iter().any(|condition| condition.reason != PENDING)
}

/// Why a node does not pull through the Mirror yet; `None` when it does.
fn inability(node: &str, status: &NodeRuntimeStatus, granted: &[String]) -> Option<String> {
    granted.iter().find_map(|host| {
        let entry = entry(status, host);
        if entry.is_some_and(|entry| entry.written.is_some() && entry.reachable) {
            return None;
        }
        if let Some(exception) = status.exceptions.iter().find(|exception| exception.host == *host) {
            return Some(format!("{node} ({}: {})", exception.reason, exception.message));
        }
        if entry.is_some_and(|entry| entry.written.is_some()) {
            return Some(format!("{node} (does not reach the mirror for {host})"));
        }
        let ready = condition::find(&status.conditions, condition::READY);
        Some(match ready.filter(|ready| ready.status == "False") {
            Some(ready) => format!("{node} ({}: {})", ready.reason, ready.message),
            None => node.to_owned(),
        })
    })
}

fn uses(status: &NodeRuntimeStatus, granted: &[String]) -> bool {
    granted.iter().any(|host| entry(status, host).is_some_and(|entry| entry.used))
}

fn entry<'a>(status: &'a NodeRuntimeStatus, host: &str) -> Option<&'a MirroredHost> {
    status.mirrors.iter().find(|entry| entry.host == host)
}

fn some_of(list: &[String], separator: &str) -> String {
    let mut sorted: Vec<&str> = list.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    let more = sorted.len().saturating_sub(NAMED);
    sorted.truncate(NAMED);
    let suffix = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{suffix}", sorted.join(separator))
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::api::condition::conditions;

    #[test]
    fn who_passes_it_by_stays_told_until_it_is_known_anew() {
        let mirrors = json!([{"host": "docker.io", "written": "2026-01-01T00:00:00Z", "reachable": true}]);
        let status = serde_json::from_value(json!({"planRevision": 1, "mirrors": mirrors})).unwrap();
        let (granted, nodes) = (["docker.io".to_owned()], [("a".to_owned(), status)]);
        let planned = BTreeSet::from(granted.clone());
        let told = |bypassed: Option<&[String]>, old: &MirrorStatus| {
            let reach = Reach { granted: &granted, planned: &planned, nodes: &nodes, bypassed };
            let (counts, finding) = super::nodes(&reach, old);
            let conditions = conditions(&old.conditions, vec![finding], None, Timestamp::UNIX_EPOCH);
            MirrorStatus { nodes: Some(counts), conditions, ..MirrorStatus::default() }
        };
        let said =
            |status: &MirrorStatus| (status.conditions[0].reason.clone(), status.nodes.as_ref().unwrap().bypassed);
        let known = told(Some(&["a".to_owned()]), &MirrorStatus::default());
        assert_eq!(said(&known), (reason::BYPASSED.to_owned(), 1));
        // An operator that has just started.
        assert_eq!(told(None, &known), known);
        assert_eq!(said(&told(None, &MirrorStatus::default())), (reason::ALL_NODES.to_owned(), 0));
        assert_eq!(said(&told(Some(&[]), &known)), (reason::ALL_NODES.to_owned(), 0));
    }
}
