//! Brings one Mirror to what its spec asks for: observe, validate, issue, build, apply, status.
//! Nothing but `apply`, the status, the finalizer and the removal of an outgrown `StatefulSet` writes, and no stage waits.
//!
//! | left by a crash | who moves it | what the next pass does |
//! |---|---|---|
//! | Services without the rest | this controller | reads their addresses, issues the certificate, goes on |
//! | certificate without `StatefulSet` | this controller | keeps the certificate, makes the `StatefulSet` |
//! | some claims grown, others not | this controller | grows the others, then makes the `StatefulSet` again |
//! | pods without their `StatefulSet`, which was outgrown | this controller | makes it again; it takes its pods over |
//! | finalizer, Mirror being deleted | this controller | goes on to wait for nodes, takes the finalizer off |

mod build;
mod certificate;
pub mod deletion;
#[cfg(test)]
pub(crate) mod fixture;
pub mod names;
pub mod observe;
mod place;
pub mod precedence;
pub mod reports;
mod status;
mod upstreams;
mod validate;

pub use status::{Reach, lacks_reports};

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ObjectMeta, Preconditions, PropagationPolicy};
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use serde_json::json;

use self::build::Inputs;
use self::names::Names;
use self::observe::{Observed, Observer};
use self::upstreams::{Own, Upstreams, upstreams};
use super::apply::Contest;
use super::authority::Authority;
use super::call::{Action as Request, CallError, Target, call};
use super::context::Context;
use super::metrics::PassOutcome;
use super::registry::PassError;
use super::registry::leaf::Leaf;
use super::registry::mint::MintError;
use super::statuses::{apply, event, on_transition, publish, report_malformed};
use crate::api::{Mirror, MirrorStatus, condition, reason};

/// The field manager of a Mirror's children.
pub const MANAGER: &str = "wharf/mirror";
/// The field manager of a Mirror's status.
const STATUS_MANAGER: &str = "wharf/mirror-status";
/// How soon a pass looks again while something is missing that no watch tells of, such as a Secret.
const RECHECK: Duration = Duration::from_secs(15);
/// How often a pass looks again when all is well, before jitter.
const RESYNC: Duration = Duration::from_secs(600);

/// What a pass came to.
struct Done {
    outcome: PassOutcome,
    /// When to look again at the latest.
    within: Option<Duration>,
}

/// One pass over one Mirror.
///
/// # Errors
/// When a request failed; what could be done was done, and the status says so.
pub async fn reconcile(guarded: Arc<DeserializeGuard<Mirror>>, context: Arc<Context>) -> Result<Action, PassError> {
    let pass = context.metrics.start_pass("mirror");
    let result = match &guarded.0 {
        Ok(mirror) => Box::pin(reconcile_readable(mirror, &context)).await,
        Err(invalid) if invalid.metadata.deletion_timestamp.is_some() => finish(&invalid.metadata, &[], &context).await,
        Err(invalid) => report_malformed::<Mirror>(invalid, STATUS_MANAGER, &context)
            .await
            .map(|()| Done { outcome: PassOutcome::Stalled, within: None })
            .map_err(PassError::from),
    };
    match &result {
        Ok(done) => pass.end(done.outcome),
        Err(error) if error.is_conflict() => pass.end(PassOutcome::Waiting),
        Err(_) => pass.end(PassOutcome::Failed),
    }
    result.map(|done| {
        let longest = if done.outcome == PassOutcome::Completed { RESYNC } else { RECHECK };
        let longest = longest.mul_f64(rand::random_range(0.8..1.2));
        Action::requeue(done.within.map_or(longest, |within| longest.min(within)))
    })
}

async fn reconcile_readable(mirror: &Mirror, context: &Context) -> Result<Done, PassError> {
    let names = Names::new(&context.settings.namespace, mirror.name_any());
    if mirror.metadata.deletion_timestamp.is_some() {
        let hosts: Vec<String> = mirror.spec.upstreams.iter().map(|upstream| upstream.host.clone()).collect();
        return finish(&mirror.metadata, &hosts, context).await;
    }
    let finalizer = deletion::keep_finalizer(mirror, context).await;
    let plan = context.plan.borrow().clone();
    let looks = Observer {
        client: &context.client,
        view: &context.view,
        settings: &context.settings,
        plan: &plan,
        reports: &context.mirror_reports,
        images: &context.images,
        metrics: &context.metrics,
    };
    let observed = match Box::pin(looks.observe(mirror, &names)).await {
        Ok(observed) => observed,
        Err(error) => {
            let next = status::unobserved(mirror, &error, (context.clock)());
            write_status(mirror, &next, context).await?;
            return Err(error.into());
        }
    };

    let own = Own { names: &names, cluster_domain: &context.settings.cluster_domain };
    let told = upstreams(&mirror.spec, &observed, &own);
    let mut problems = validate::obstacles(&names, &observed);
    let mut failures: Vec<CallError> = finalizer.err().into_iter().collect();
    let mut due = None;
    // Without the finalizer, nodes could be left with what is gone.
    if problems.is_empty() && failures.is_empty() {
        let written = write_children(mirror, &names, &observed, &told, context).await?;
        due = written.due;
        failures.extend(written.failures);
        problems.extend(written.contests.iter().map(validate::contested));
    }
    problems.extend(told.problems);
    problems.extend(validate::shortcomings(mirror, &observed));

    let outcome = status::Outcome { mirror, observed: &observed, problems: &problems, failures: &failures };
    let now = (context.clock)();
    let next = status::next(&outcome, now);
    let outcome = pass_outcome(&next);
    write_status(mirror, &next, context).await?;
    match failures.into_iter().next() {
        Some(failure) => Err(failure.into()),
        None => Ok(Done { outcome, within: due.map(|due| due.duration_since(now).unsigned_abs()) }),
    }
}

async fn finish(metadata: &ObjectMeta, hosts: &[String], context: &Context) -> Result<Done, PassError> {
    let within = deletion::finish(metadata, hosts, context).await?;
    let outcome = if within.is_some() { PassOutcome::Waiting } else { PassOutcome::Completed };
    Ok(Done { outcome, within })
}

/// What became of the children.
struct Written {
    failures: Vec<CallError>,
    contests: Vec<Contest>,
    due: Option<Timestamp>,
}

/// Issues the certificate, builds the children and applies them. What failed comes back as a value: the status needs it.
async fn write_children(
    mirror: &Mirror,
    names: &Names,
    observed: &Observed,
    told: &Upstreams,
    context: &Context,
) -> Result<Written, PassError> {
    let authority = context.authority.borrow().clone();
    let leaf = issue(mirror, names, observed, &authority, context).await?;
    let bundle = authority.bundle();
    let inputs = Inputs {
        mirror,
        names,
        settings: &context.settings,
        observed,
        upstreams: told,
        leaf: leaf.as_ref().map(|leaf| &leaf.pair),
        bundle: &bundle,
    };
    let desired = build::build(&inputs);
    let mut report = context.mirror_applier.apply(&desired).await;
    // What is not built yet is wanted all the same.
    if let Some(leaf) = leaf.as_ref().filter(|_| report.is_complete()) {
        if let Some(why) = leaf.issued_because {
            let note = format!("Issued the server certificate: {why}");
            publish(mirror, event(EventType::Normal, reason::CERTIFICATE_ISSUED, note), context).await;
        }
        let pruned = context.mirror_applier.prune(mirror, observed.inventory.clone(), &desired).await;
        report.failures.extend(pruned.failures);
        report.failures.extend(replace_outgrown(mirror, observed, context).await.err());
    }
    Ok(Written { failures: report.failures, contests: report.contests, due: leaf.and_then(|leaf| leaf.renew_at) })
}

async fn issue(
    mirror: &Mirror,
    names: &Names,
    observed: &Observed,
    authority: &Authority,
    context: &Context,
) -> Result<Option<Leaf>, PassError> {
    let (uid, now) = (mirror.uid().unwrap_or_default(), (context.clock)());
    match certificate::certificate(names, &uid, observed, &context.settings, authority, now) {
        Ok(leaf) => Ok(leaf),
        Err(error) => {
            let note = format!("The mirror's certificate could not be made: {error}");
            publish(mirror, event(EventType::Warning, reason::CERTIFICATE_NOT_RENEWED, note), context).await;
            Err(PassError::Mint(MintError::Certificate(error)))
        }
    }
}

/// Removes the `StatefulSet` whose claims have grown, and leaves its pods running: its template of claims cannot change. The
/// next pass makes it again.
async fn replace_outgrown(mirror: &Mirror, observed: &Observed, context: &Context) -> Result<(), CallError> {
    let Some(live) = observed.stateful_set.ours().filter(|live| live.metadata.deletion_timestamp.is_none()) else {
        return Ok(());
    };
    if !build::growth::outgrew(live, &observed.claims, &mirror.spec.cache.size) {
        return Ok(());
    }
    let (namespace, name) = (live.namespace().unwrap_or_default(), live.name_any());
    let api = Api::<StatefulSet>::namespaced(context.client.clone(), &namespace);
    let parameters = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Orphan),
        preconditions: Some(Preconditions { uid: live.uid(), resource_version: None }),
        ..DeleteParams::default()
    };
    let target = Target::new("StatefulSet", namespace, &name);
    match call(&context.metrics, Request::Delete, target.clone(), api.delete(&name, &parameters)).await {
        Ok(_) => {
            tracing::info!(%target, "removed without its pods, to be made again with larger claims");
            Ok(())
        }
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

fn pass_outcome(status: &MirrorStatus) -> PassOutcome {
    let is_true =
        |kind: &str| condition::find(&status.conditions, kind).is_some_and(|condition| condition.status == "True");
    if is_true(condition::READY) {
        PassOutcome::Completed
    } else if is_true(condition::STALLED) {
        PassOutcome::Stalled
    } else {
        PassOutcome::Waiting
    }
}

/// Writes the status when it differs, and tells of what a user would want to be told.
async fn write_status(mirror: &Mirror, next: &MirrorStatus, context: &Context) -> Result<(), CallError> {
    if mirror.status.as_ref() == Some(next) {
        return Ok(());
    }
    apply::<Mirror>(&mirror.metadata, &json!(next), STATUS_MANAGER, context).await?;
    let old = mirror.status.as_ref().map_or(&[][..], |status| &status.conditions);
    on_transition(mirror, old, &next.conditions, context).await;
    Ok(())
}
