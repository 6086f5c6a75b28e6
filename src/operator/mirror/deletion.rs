//! The finalizer of a Mirror: nodes are told first, and what they pull through goes last.
//! It must never keep a Mirror for ever: after a minute it goes, whatever nodes say. What is left on a node is harmless, since its
//! runtime asks the registry itself where nobody answers, and the node's agent removes it when it comes back.
//!
//! The planner takes the hosts of a Mirror that is being deleted out of the node plan. Then each node confirms by its report: of a
//! plan without these hosts, and without any of them. Nodes whose kubelet has been silent for a while are not waited for.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use kube::api::{Api, ListParams, ObjectMeta, PartialObjectMeta};
use kube::runtime::events::EventType;

use crate::api::{Mirror, NodeRuntimeStatus, labels, reason};
use crate::operator::call::{Action, CallError, Target, call, read};
use crate::operator::context::Context;
use crate::operator::finalizer;
use crate::operator::statuses::{event, publish};
use crate::plan::Plan;

/// How long nodes have, from the deletion on.
const PATIENCE: SignedDuration = SignedDuration::from_secs(60);
/// How often it is looked whether all have confirmed.
const LOOK: Duration = Duration::from_secs(2);
/// The namespace of the kubelets' leases, each named as its node.
const LEASES: &str = "kube-node-lease";
/// A lease that was renewed so long ago is of a node that does not answer; Kubernetes thinks so too.
const FRESH: SignedDuration = SignedDuration::from_secs(40);
/// How many leases are asked for at once.
const PAGE: u32 = 500;
/// How many nodes an event names.
const NAMED: usize = 10;

/// Which revision of the node plan was the first that was seen without the hosts of a Mirror that is being deleted, by its UID.
/// Cloning shares it. An operator that has just started takes a later one, which proves as much.
#[derive(Clone, Default)]
pub struct Departures(Arc<Mutex<HashMap<String, i64>>>);

impl Departures {
    /// The revision from which on a node has none of the Mirror's entries; `None` while the plan has one.
    fn revision(&self, uid: &str, plan: &Plan) -> Option<i64> {
        if plan.revision == 0 || plan.hosts.values().any(|entry| entry.owner.uid == uid) {
            return None;
        }
        Some(*self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(uid.to_owned()).or_insert(plan.revision))
    }

    fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

/// Puts the finalizer on a Mirror that is not being deleted.
///
/// # Errors
/// When the API server refused, or could not be asked.
pub(super) async fn keep_finalizer(mirror: &Mirror, context: &Context) -> Result<(), CallError> {
    finalizer::set::<Mirror>(&mirror.metadata, labels::RESTORE_NODES, true, context).await
}

/// Goes on with the deletion of a Mirror, of which `hosts` may be unknown. Returns when to look again; `None` when the finalizer is
/// off.
///
/// # Errors
/// When the API server refused, or could not be asked.
pub(super) async fn finish(
    metadata: &ObjectMeta,
    hosts: &[String],
    context: &Context,
) -> Result<Option<Duration>, CallError> {
    let uid = metadata.uid.as_deref().unwrap_or_default();
    let Some(since) =
        metadata.deletion_timestamp.as_ref().filter(|_| finalizer::is_on(metadata, labels::RESTORE_NODES))
    else {
        context.departures.forget(uid);
        return Ok(None);
    };
    let (now, plan) = ((context.clock)(), context.plan.borrow().clone());
    let revision = context.departures.revision(uid, &plan);
    let gone: Vec<&String> = hosts.iter().filter(|host| !plan.hosts.contains_key(*host)).collect();
    let lagging = lagging(&context.view.node_reports(), revision, &gone);
    let rest = (since.0 + PATIENCE).duration_since(now);
    if rest.is_positive() && !lagging.is_empty() && (revision.is_none() || answers_one_of(&lagging, context, now).await)
    {
        return Ok(Some(LOOK.min(rest.unsigned_abs())));
    }
    let_go(metadata, &lagging, context).await?;
    context.departures.forget(uid);
    Ok(None)
}

/// The nodes whose agents have reported at some time and do not confirm, by name. `revision` is the first without the Mirror's hosts,
/// if there is one yet, and `gone` those of its hosts that nobody has now.
fn lagging(reports: &[(String, NodeRuntimeStatus)], revision: Option<i64>, gone: &[&String]) -> Vec<String> {
    let lags = |status: &NodeRuntimeStatus| {
        let is_older = |done: i64| revision.is_none_or(|needed| done < needed);
        status.plan_revision.is_some_and(is_older) || status.mirrors.iter().any(|found| gone.contains(&&found.host))
    };
    let mut nodes: Vec<String> =
        reports.iter().filter(|(_, status)| lags(status)).map(|(node, _)| node.clone()).collect();
    nodes.sort_unstable();
    nodes
}

/// Whether the kubelet of one of these nodes answers. Where that cannot be known, it may.
async fn answers_one_of(nodes: &[String], context: &Context, now: Timestamp) -> bool {
    match answering(context, now).await {
        Ok(answering) => nodes.iter().any(|node| answering.contains(node)),
        Err(error) => {
            tracing::warn!(%error, "which nodes answer is not known, so that all of them are waited for");
            true
        }
    }
}

/// The nodes whose kubelets have renewed their leases lately.
async fn answering(context: &Context, now: Timestamp) -> Result<BTreeSet<String>, CallError> {
    let api = Api::<Lease>::namespaced(context.client.clone(), LEASES);
    let mut parameters = ListParams::default().limit(PAGE);
    let mut nodes = BTreeSet::new();
    loop {
        let target = Target::new("leases", LEASES, "");
        let page = call(&context.metrics, Action::List, target, api.list(&parameters)).await?;
        nodes.extend(page.items.iter().filter(|lease| is_fresh(lease, now)).map(ResourceExt::name_any));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters.continue_token = Some(token),
            None => return Ok(nodes),
        }
    }
}

fn is_fresh(lease: &Lease, now: Timestamp) -> bool {
    let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref());
    renewed.is_some_and(|renewed| now.duration_since(renewed.0) < FRESH)
}

/// Takes the finalizer off, if the Mirror is still the one that was looked at, and tells of nodes that did not confirm.
async fn let_go(metadata: &ObjectMeta, lagging: &[String], context: &Context) -> Result<(), CallError> {
    let name = metadata.name.clone().unwrap_or_default();
    let api = Api::<Mirror>::all(context.client.clone());
    let target = Target::new("Mirror", "", &name);
    let fresh = read(&context.metrics, target, api.get_metadata(&name)).await?;
    let Some(fresh) = fresh.filter(|fresh| is_same_and_going(fresh, metadata)) else {
        return Ok(());
    };
    finalizer::set::<Mirror>(&fresh.metadata, labels::RESTORE_NODES, false, context).await?;
    if !lagging.is_empty() {
        publish(&fresh, event(EventType::Warning, reason::NODES_NOT_CONFIRMED, note(lagging)), context).await;
    }
    Ok(())
}

fn is_same_and_going(fresh: &PartialObjectMeta<Mirror>, metadata: &ObjectMeta) -> bool {
    fresh.metadata.uid == metadata.uid && fresh.metadata.deletion_timestamp.is_some()
}

fn note(lagging: &[String]) -> String {
    let named = lagging.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = lagging.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!(
        "Removed although these nodes have not confirmed that they no longer pull through it: {named}{more}. They pull from the \
         registries themselves now, and their agents remove what is left when they come back"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::{Entry, Owner, OwnerKind};

    fn report(node: &str, revision: Option<i64>, mirrored: &[&str]) -> (String, NodeRuntimeStatus) {
        let mirrors: Vec<_> = mirrored.iter().map(|host| json!({ "host": host })).collect();
        let status = json!({"planRevision": revision, "mirrors": mirrors});
        (node.to_owned(), serde_json::from_value(status).unwrap())
    }

    #[test]
    fn a_node_confirms_by_a_later_plan_and_without_the_hosts() {
        let (docker, quay) = ("docker.io".to_owned(), "quay.io".to_owned());
        let reports = [
            report("older", Some(6), &[]),
            report("done", Some(7), &["quay.io"]),
            report("later", Some(9), &[]),
            report("still", Some(7), &["docker.io", "quay.io"]),
            report("never", None, &[]),
        ];
        assert_eq!(lagging(&reports, Some(7), &[&docker]), ["older", "still"]);
        // Another Mirror may have a host of this one.
        assert_eq!(lagging(&reports, Some(7), &[]), ["older"]);
        assert_eq!(lagging(&reports, Some(7), &[&docker, &quay]), ["done", "older", "still"]);
        // Nobody can have confirmed what is not planned yet.
        assert_eq!(lagging(&reports, None, &[]), ["done", "later", "older", "still"]);
    }

    #[test]
    fn the_first_plan_without_the_hosts_counts() {
        let entry = Entry {
            backends: vec!["https://10.0.0.1".into()],
            owner: Owner { kind: OwnerKind::Mirror, namespace: String::new(), name: "m".into(), uid: "uid".into() },
            nodes: None,
            since: 5,
        };
        let mut plan = Plan { revision: 5, hosts: [("docker.io".to_owned(), entry)].into(), ..Plan::default() };
        let departures = Departures::default();
        assert_eq!(departures.revision("uid", &plan), None);
        plan.hosts.clear();
        plan.revision = 6;
        assert_eq!(departures.revision("uid", &plan), Some(6));
        plan.revision = 9;
        assert_eq!(departures.revision("uid", &plan), Some(6));
        departures.forget("uid");
        assert_eq!(departures.revision("uid", &plan), Some(9));
        // A plan that is not known yet shows nothing.
        assert_eq!(departures.revision("other", &Plan::default()), None);
    }

    #[test]
    fn a_node_answers_while_its_lease_is_fresh() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        for (renewed, fresh) in [
            (json!("2026-01-01T00:00:59.000000Z"), true),
            (json!("2026-01-01T00:00:20.500000Z"), true),
            (json!("2026-01-01T00:00:20.000000Z"), false),
            (json!(null), false),
        ] {
            let lease: Lease = serde_json::from_value(json!({"metadata": {}, "spec": {"renewTime": renewed}})).unwrap();
            assert_eq!(is_fresh(&lease, now), fresh, "{renewed}");
        }
    }

    #[test]
    fn an_event_names_some_nodes_and_counts_the_others() {
        let nodes: Vec<String> = (0..12).map(|number| format!("node-{number:02}")).collect();
        let note = note(&nodes);
        assert!(
            note.contains("node-00, ") && note.contains("node-09 and 2 more.") && !note.contains("node-10"),
            "{note}"
        );
    }
}
