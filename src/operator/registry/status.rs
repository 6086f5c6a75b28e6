//! Derives a Registry's status from what was observed and done. Pure: the time is an argument.
//! It must never turn "could not look" into "all is well".

mod ca_bundle;
mod exposed;
mod storage;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::names::Names;
use super::observe::Observed;
use super::pods;
use super::precedence::PlannedHost;
use crate::api::condition::{self, Finding, Status, conditions};
use crate::api::node_runtime::HostException;
use crate::api::registry::{ConfigMapReference, NodeCounts, RegistryStatus};
use crate::api::{NodeRuntimeStatus, Registry, reason};
use crate::operator::ca_bundle::Standing;
use crate::operator::call::CallError;
use crate::operator::problem::{Problem, reason_of};
use crate::operator::pull_secret::Attachment;

/// How many nodes a message names.
const NAMED_NODES: usize = 3;
/// What to do where there are more Registries than a namespace may hold.
const QUOTA_REMEDY: &str = "Delete it or an older one, or have an administrator raise the operator's setting \
                            registriesPerNamespace";

/// What a pass found and did.
pub struct Outcome<'a> {
    /// The Registry as read.
    pub registry: &'a Registry,
    /// Its children's names.
    pub names: &'a Names,
    /// What was observed before anything was written.
    pub observed: &'a Observed,
    /// What stands in the way.
    pub problems: &'a [Problem],
    /// Requests that failed.
    pub failures: &'a [CallError],
    /// The service accounts that should use the pull secret.
    pub attachments: &'a [Attachment],
    /// The quota of its namespace, if it is beyond that.
    pub beyond_quota: Option<u32>,
}

/// The status after a pass.
#[must_use]
pub fn next(outcome: &Outcome<'_>, now: Timestamp) -> RegistryStatus {
    let old: &[Condition] = outcome.registry.status.as_ref().map_or(&[], |status| &status.conditions);
    let mut parts = vec![storage::finding(outcome), available(outcome), pull_secrets(outcome)];
    parts.extend(hosts(outcome));
    let mut findings = overall(outcome, &parts);
    let observed = outcome.observed;
    let (counts, nodes) = nodes(&observed.nodes, &observed.planned);
    findings.extend(parts);
    findings.extend(exposed::finding(outcome));
    findings.push(nodes);
    findings.extend(observed.ca_bundles.as_ref().map(ca_bundle::finding));
    RegistryStatus {
        observed_generation: outcome.registry.metadata.generation,
        address: Some(outcome.names.address()),
        ca_config_map_ref: Some(ConfigMapReference { name: outcome.names.authority() }),
        storage: storage::volume(outcome),
        usage: storage::usage(outcome),
        external_addresses: exposed::addresses(outcome),
        nodes: Some(counts),
        conditions: conditions(old, findings, outcome.registry.metadata.generation, now),
    }
}

/// The status when the cluster could not be looked at: what was known stays, but readiness is unknown.
#[must_use]
pub fn unobserved(registry: &Registry, error: &CallError, now: Timestamp) -> RegistryStatus {
    let mut status = registry.status.clone().unwrap_or_default();
    let finding = Finding::new(condition::READY, Status::Unknown, reason::RETRYING, error.to_string());
    let generation = registry.metadata.generation;
    let fresh = conditions(&status.conditions, vec![finding], generation, now);
    status.conditions.retain(|old| old.type_ != condition::READY);
    status.conditions.splice(0..0, fresh);
    status
}

/// The status of a Registry that is one too many in its namespace and was never begun: nothing of it was looked at.
#[must_use]
pub fn beyond_quota(registry: &Registry, quota: u32, now: Timestamp) -> RegistryStatus {
    let old = registry.status.clone().unwrap_or_default();
    let message = format!("{}: Wharf does nothing for this one. {QUOTA_REMEDY}", full_namespace(quota));
    let findings = vec![
        Finding::new(condition::READY, Status::False, reason::QUOTA_EXCEEDED, message.clone()),
        Finding::new(condition::STALLED, Status::True, reason::QUOTA_EXCEEDED, message),
    ];
    let generation = registry.metadata.generation;
    RegistryStatus {
        observed_generation: generation,
        conditions: conditions(&old.conditions, findings, generation, now),
        storage: None,
        nodes: None,
        ..old
    }
}

fn full_namespace(quota: u32) -> String {
    format!("This namespace may hold {quota} Registries, and as many older ones are there")
}

/// Reasons that only a person can mend.
fn is_stalled(reason: &str) -> bool {
    matches!(
        reason,
        reason::NAME_TAKEN
            | reason::CONTESTED
            | reason::REFUSED
            | reason::CLAIM_NOT_OURS
            | reason::CLAIM_LOST
            | reason::CLAIM_MISSING
            | reason::STORAGE_TAKEN
            | reason::EXPANSION_UNSUPPORTED
            | reason::EXPANSION_FAILED
            | reason::FULL
            | reason::HOST_NOT_ALLOWED
            | reason::HOST_TAKEN
            | reason::STORAGE_CLASS_MISSING
            | reason::NO_DEFAULT_STORAGE_CLASS
    )
}

fn overall(outcome: &Outcome<'_>, parts: &[Finding]) -> Vec<Finding> {
    let stalled = parts.iter().find(|part| part.status != Status::True && is_stalled(part.reason));
    if let Some(part) = stalled {
        return vec![
            Finding::new(condition::READY, Status::False, part.reason, part.message.clone()),
            Finding::new(condition::STALLED, Status::True, part.reason, part.message.clone()),
        ];
    }
    if let Some(quota) = outcome.beyond_quota {
        let message = format!(
            "{}: Wharf goes on looking after this one, because it was there before. {}",
            full_namespace(quota),
            QUOTA_REMEDY
        );
        return vec![
            Finding::new(condition::READY, Status::False, reason::QUOTA_EXCEEDED, message.clone()),
            Finding::new(condition::STALLED, Status::True, reason::QUOTA_EXCEEDED, message),
        ];
    }
    if outcome.registry.spec.suspend {
        let message = "spec.suspend is true: the registry's pod is stopped, its images are kept";
        return vec![Finding::new(condition::READY, Status::False, reason::SUSPENDED, message)];
    }
    match parts.iter().find(|part| part.status != Status::True) {
        None => {
            let message = format!("Serving images at {}", outcome.names.address());
            vec![Finding::new(condition::READY, Status::True, reason::READY, message)]
        }
        Some(part) => vec![
            Finding::new(condition::READY, Status::False, part.reason, part.message.clone()),
            Finding::new(condition::RECONCILING, Status::True, part.reason, part.message.clone()),
        ],
    }
}

fn available(outcome: &Outcome<'_>) -> Finding {
    let kind = condition::AVAILABLE;
    let kinds =
        ["Service", "Deployment", "ConfigMap", "Secret", "ServiceAccount", "PodDisruptionBudget", "NetworkPolicy"];
    if let Some(finding) = hindrance(outcome, kind, &kinds) {
        return finding;
    }
    if outcome.registry.spec.suspend {
        return Finding::new(
            kind,
            Status::False,
            reason::SUSPENDED,
            "spec.suspend is true: the registry's pod is stopped",
        );
    }
    let Some(deployment) = outcome.observed.deployment.ours() else {
        return Finding::new(kind, Status::False, reason::PROGRESSING, "The registry's objects are being made");
    };
    if is_available(deployment) {
        return Finding::new(kind, Status::True, reason::POD_READY, answering(deployment));
    }
    let (reason, message) = pods::diagnosis("registry", &outcome.observed.pods, &outcome.observed.lost_nodes);
    Finding::new(kind, Status::False, reason, message)
}

fn answering(deployment: &Deployment) -> String {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let there = deployment.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
    if wanted == 1 {
        return "The registry's pod answers".to_owned();
    }
    format!("{there} of {wanted} pods of the registry answer")
}

fn is_available(deployment: &Deployment) -> bool {
    let Some(status) = deployment.status.as_ref() else {
        return false;
    };
    // An available pod of the old template says nothing of the new one.
    status.observed_generation >= deployment.metadata.generation
        && status.available_replicas.unwrap_or(0) > 0
        && status.updated_replicas.unwrap_or(0) > 0
}

fn pull_secrets(outcome: &Outcome<'_>) -> Finding {
    let kind = condition::PULL_SECRETS_READY;
    if let Some(finding) = hindrance(outcome, kind, &[]) {
        return finding;
    }
    let secret = outcome.names.pull_secret();
    if outcome.observed.pull_secret.ours().is_none() {
        return Finding::new(kind, Status::False, reason::PROGRESSING, format!("Secret {secret} is being made"));
    }
    let (mut missing, mut contests) = (Vec::new(), Vec::new());
    for attachment in outcome.attachments {
        match attachment {
            Attachment::Attached => {}
            Attachment::Missing(name) => missing.push(name.as_str()),
            Attachment::Contested(contest) => contests.push(contest.to_string()),
        }
    }
    if !contests.is_empty() {
        return Finding::new(kind, Status::False, reason::CONTESTED, contests.join(". "));
    }
    if !missing.is_empty() {
        return Finding::new(
            kind,
            Status::False,
            reason::SERVICE_ACCOUNT_MISSING,
            format!(
                "ServiceAccount {} of spec.pullSecrets.serviceAccounts does not exist; Secret {secret} is attached when it does",
                missing.join(", ")
            ),
        );
    }
    let message = match outcome.attachments.len() {
        0 => format!("Secret {secret} exists; no service account is to use it"),
        1 => format!("1 service account uses Secret {secret}"),
        count => format!("{count} service accounts use Secret {secret}"),
    };
    Finding::new(kind, Status::True, reason::ATTACHED, message)
}

/// `None` where no further name is asked for.
fn hosts(outcome: &Outcome<'_>) -> Option<Finding> {
    let kind = condition::HOSTS_READY;
    let asked = &outcome.registry.spec.hosts;
    if asked.is_empty() {
        return None;
    }
    let granted =
        || Finding::new(kind, Status::True, reason::HOSTS_GRANTED, format!("Also known as {}", asked.join(", ")));
    Some(hindrance(outcome, kind, &[]).unwrap_or_else(granted))
}

/// A problem or a failed request that concerns a condition.
fn hindrance(outcome: &Outcome<'_>, kind: &'static str, kinds: &[&str]) -> Option<Finding> {
    if let Some(problem) = outcome.problems.iter().find(|problem| problem.condition == kind) {
        return Some(Finding::new(kind, Status::False, problem.reason, problem.message.clone()));
    }
    let pull_secret = outcome.names.pull_secret();
    let failure =
        outcome.failures.iter().filter(|failure| !exposed::concerns(outcome.names, failure)).find(|failure| {
            let of_pull_secrets = failure.target.name == pull_secret || !is_child(outcome.names, failure);
            if kind == condition::PULL_SECRETS_READY {
                of_pull_secrets
            } else {
                !of_pull_secrets && kinds.contains(&failure.target.kind.as_str())
            }
        })?;
    Some(Finding::new(kind, Status::False, reason_of(failure), failure.to_string()))
}

/// Service accounts that only use the pull secret are not children.
fn is_child(names: &Names, failure: &CallError) -> bool {
    failure.target.kind != "ServiceAccount" || failure.target.name == names.service_account()
}

/// Whether a Registry's status does not say yet what the nodes report. `planned` are the names by which they pull from it.
#[must_use]
pub fn lacks_reports(registry: &Registry, reports: &[(String, NodeRuntimeStatus)], planned: &[PlannedHost]) -> bool {
    let (counts, finding) = nodes(reports, planned);
    let Some(status) = &registry.status else {
        return true;
    };
    !is_refused(status) && (!says(&status.conditions, &finding) || status.nodes.as_ref() != Some(&counts))
}

/// Whether a Registry's status does not say yet how it stands with the certificates in the namespaces that it selects.
#[must_use]
pub fn lacks_bundles(registry: &Registry, standing: &Standing) -> bool {
    let Some(status) = &registry.status else {
        return true;
    };
    !is_refused(status) && !says(&status.conditions, &ca_bundle::finding(standing))
}

/// Whether nothing is done for a Registry, because it is beyond its namespace's quota.
fn is_refused(status: &RegistryStatus) -> bool {
    let ready = condition::find(&status.conditions, condition::READY);
    status.nodes.is_none() && ready.is_some_and(|ready| ready.reason == reason::QUOTA_EXCEEDED)
}

fn says(conditions: &[Condition], finding: &Finding) -> bool {
    condition::find(conditions, finding.kind).is_some_and(|old| {
        old.status == finding.status.as_str() && old.reason == finding.reason && old.message == finding.message
    })
}

/// A node counts when it can pull by every name.
fn nodes(reports: &[(String, NodeRuntimeStatus)], planned: &[PlannedHost]) -> (NodeCounts, Finding) {
    let kind = condition::NODES_CONFIGURED;
    let total = reports.len();
    let entries: Option<Vec<(&str, i64)>> =
        planned.iter().map(|planned| planned.since.map(|since| (planned.host.as_str(), since))).collect();
    let mut unable: Vec<String> = reports
        .iter()
        .filter_map(|(node, status)| {
            entries.iter().flatten().find_map(|(host, since)| inability(node, status, host, *since))
        })
        .collect();
    let able = if entries.is_some() { total - unable.len() } else { 0 };
    let counts = NodeCounts { able: count(able), total: count(total), summary: format!("{able}/{total}") };
    let finding = if total == 0 {
        Finding::new(
            kind,
            Status::Unknown,
            reason::NO_AGENTS,
            "No node reports to Wharf; without the agent, nodes cannot pull from this registry by its address",
        )
    } else if entries.is_none() {
        Finding::new(kind, Status::False, reason::PROGRESSING, "The nodes are about to be told of this registry")
    } else if unable.is_empty() {
        Finding::new(kind, Status::True, reason::ALL_NODES, format!("{total} of {total} nodes can pull"))
    } else {
        unable.sort();
        let more = unable.len().saturating_sub(NAMED_NODES);
        unable.truncate(NAMED_NODES);
        let suffix = if more > 0 { format!(" and {more} more") } else { String::new() };
        let message = format!("{able} of {total} nodes can pull; not yet: {}{suffix}", unable.join("; "));
        Finding::new(kind, Status::False, reason::SOME_NODES, message)
    };
    (counts, finding)
}

/// Why a node cannot pull from a host; `None` when it can.
fn inability(node: &str, status: &NodeRuntimeStatus, host: &str, since: i64) -> Option<String> {
    // Whether the registry answers is another question: a node that does not reach it is configured all the same.
    let is_reached = |exception: &&HostException| exception.reason != reason::UNREACHABLE;
    if let Some(exception) = status.exceptions.iter().filter(is_reached).find(|exception| exception.host == host) {
        return Some(format!("{node} ({}: {})", exception.reason, exception.message));
    }
    let ready = condition::find(&status.conditions, condition::READY);
    if status.plan_revision.is_none_or(|revision| revision < since) {
        return Some(match ready {
            Some(ready) if ready.status == "False" => format!("{node} ({}: {})", ready.reason, ready.message),
            _ => node.to_owned(),
        });
    }
    // The list of exceptions is cut: a node with more than it lists may lack this host too. Those that are only out of reach
    // come last.
    let hidden = status.counts.as_ref().map_or(0, |counts| counts.exceptions);
    let listed = count(status.exceptions.len());
    (hidden > listed && status.exceptions.iter().all(|exception| is_reached(&exception)))
        .then(|| format!("{node} (has more exceptions than it lists)"))
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
