//! Brings one Registry to what its spec asks for: observe, validate, mint, build, apply, status.
//! Nothing but `apply`, the pull secret patch, the status and the deletion policy writes, and no stage waits.
//!
//! | left by a crash | who moves it | what the next pass does |
//! |---|---|---|
//! | Service without the rest | this controller | reads its address, issues the certificate, goes on |
//! | credential without pull secret | this controller | makes the pull secret from the stored credential |
//! | certificate without Deployment | this controller | keeps the certificate, makes the Deployment |
//! | new certificate, pod with the old one | this controller | the Deployment's content differs: makes a new pod |
//! | finalizer, policy back to `Retain` | this controller | takes the finalizer off, keeps the claim |
//! | finalizer, claim already deleted | this controller | takes the finalizer off |

pub(super) mod build;
mod deletion;
mod events;
#[cfg(test)]
pub(crate) mod fixture;
pub mod hosts;
pub mod leaf;
pub mod mint;
pub mod names;
pub mod observe;
pub mod place;
pub(super) mod pods;
pub mod precedence;
mod status;
mod validate;

pub use status::{lacks_bundles, lacks_reports};

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::core::DeserializeGuard;
use kube::core::error_boundary::InvalidObject;
use kube::runtime::controller::Action;
use serde_json::json;

use self::build::Inputs;
use self::names::Names;
use self::observe::Observer;
use self::precedence::Precedence;
use super::apply::{Contest, Desired};
use super::authority::Authority;
use super::call::{CallError, Class};
use super::context::Context;
use super::metrics::PassOutcome;
use super::problem::Problem;
use super::pull_secret::{Attacher, Attachment};
use crate::api::condition;
use crate::api::registry::RegistryStatus;
use crate::api::{Registry, reason};

/// The field manager of a Registry's status.
const STATUS_MANAGER: &str = "wharf/registry-status";
/// How soon a pass looks again while something is missing that no watch tells of.
const RECHECK: Duration = Duration::from_secs(15);
/// How often a pass looks again when all is well, before jitter.
const RESYNC: Duration = Duration::from_secs(600);

/// A pass failed and is tried again.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// Requests failed; the first of them.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A secret could not be made.
    #[error(transparent)]
    Mint(#[from] mint::MintError),
}

impl PassError {
    /// Whether somebody changed an object meanwhile: no failure, only a reason to look again at once.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Call(error) if error.class() == Class::Conflict)
    }
}

/// One pass over one Registry.
///
/// # Errors
/// When a request failed; what could be done was done, and the status says so.
pub async fn reconcile(guarded: Arc<DeserializeGuard<Registry>>, context: Arc<Context>) -> Result<Action, PassError> {
    let pass = context.metrics.start_pass("registry");
    let result = match &guarded.0 {
        Ok(registry) => Box::pin(reconcile_readable(registry, &context)).await,
        Err(invalid) => report_malformed(invalid, &context).await,
    };
    match &result {
        Ok(done) => pass.end(done.outcome),
        Err(error) if error.is_conflict() => pass.end(PassOutcome::Waiting),
        Err(_) => pass.end(PassOutcome::Failed),
    }
    result.map(|done| {
        let longest = if done.outcome == PassOutcome::Completed { RESYNC } else { RECHECK };
        let longest = longest.mul_f64(rand::random_range(0.8..1.2));
        let until_due = done.due.map(|due| due.duration_since((context.clock)()).unsigned_abs());
        Action::requeue(until_due.map_or(longest, |due| longest.min(due)))
    })
}

/// What a pass came to.
struct Done {
    outcome: PassOutcome,
    /// When the certificate may be due, or it is known who came first.
    due: Option<Timestamp>,
}

impl From<PassOutcome> for Done {
    fn from(outcome: PassOutcome) -> Self {
        Self { outcome, due: None }
    }
}

async fn reconcile_readable(registry: &Registry, context: &Context) -> Result<Done, PassError> {
    let names = Names::new(registry.namespace().unwrap_or_default(), registry.name_any());
    if registry.metadata.deletion_timestamp.is_some() {
        deletion::finish(registry, &names, context).await?;
        return Ok(PassOutcome::Completed.into());
    }
    let live = context.view.live();
    let winners = Precedence::of(live.iter(), &context.settings.limits);
    let quota = context.settings.limits.registries_per_namespace;
    let beyond_quota = winners.is_beyond_quota(registry).then_some(quota);
    // A quota that shrank lets nobody new in; what is there already is looked after as ever.
    if beyond_quota.is_some() && !observe::is_begun(registry, &names, &context.view) {
        let next = status::beyond_quota(registry, quota, (context.clock)());
        write_status(registry, &next, context).await?;
        return Ok(PassOutcome::Stalled.into());
    }
    if let Some(until) = place::undecided_until(registry, (context.clock)()) {
        return Ok(Done { outcome: PassOutcome::Waiting, due: Some(until) });
    }
    let finalizer = deletion::keep_finalizer_in_step(registry, context).await;
    let plan = context.plan.borrow().clone();
    let authority = context.authority.borrow().clone();
    let looks = Observer {
        client: &context.client,
        view: &context.view,
        precedence: &winners,
        plan: &plan,
        volumes: &context.volumes,
        fronts: &context.fronts,
        apis: *context.apis.borrow(),
        authority: &authority,
        ca_refusals: &context.ca_refusals,
        metrics: &context.metrics,
    };
    let observed = match Box::pin(looks.observe(registry, &names)).await {
        Ok(observed) => observed,
        Err(error) => {
            let next = status::unobserved(registry, &error, (context.clock)());
            write_status(registry, &next, context).await?;
            return Err(error.into());
        }
    };

    let mut problems = validate::obstacles(registry, &names, &observed);
    let mut failures: Vec<CallError> = finalizer.err().into_iter().collect();
    let mut renew_at = None;
    if problems.is_empty() {
        let written = write_children(registry, &names, &observed, &authority, context).await?;
        renew_at = written.renew_at;
        failures.extend(written.failures);
        problems.extend(written.contests.iter().map(|contest| validate::contested(&names, contest)));
    }
    let attachments = attach_pull_secrets(registry, &names, &problems, context, &mut failures).await;
    problems.extend(validate::shortcomings(registry, &observed));

    let outcome = status::Outcome {
        registry,
        names: &names,
        observed: &observed,
        problems: &problems,
        failures: &failures,
        attachments: &attachments,
        beyond_quota,
    };
    let next = status::next(&outcome, (context.clock)());
    let outcome = pass_outcome(&next);
    write_status(registry, &next, context).await?;
    match failures.into_iter().next() {
        Some(failure) => Err(failure.into()),
        None => Ok(Done { outcome, due: renew_at }),
    }
}

/// What became of the children.
struct Written {
    failures: Vec<CallError>,
    contests: Vec<Contest>,
    renew_at: Option<Timestamp>,
}

/// Makes the secrets, builds the children and applies them. What failed comes back as a value: the status needs it.
async fn write_children(
    registry: &Registry,
    names: &Names,
    observed: &observe::Observed,
    authority: &Authority,
    context: &Context,
) -> Result<Written, PassError> {
    let uid = registry.uid().unwrap_or_default();
    let minted = match mint::mint(names, &uid, &context.settings, observed, authority, (context.clock)()) {
        Ok(minted) => minted,
        Err(error) => {
            events::not_minted(registry, &error, context).await;
            return Err(error.into());
        }
    };
    let bundle = authority.bundle();
    let inputs = Inputs { registry, names, settings: &context.settings, observed, minted: &minted, bundle: &bundle };
    let desired: Desired = build::build(&inputs);
    let mut report = context.applier.apply(&desired).await;
    if report.is_complete() {
        events::after_apply(registry, observed, &minted, context).await;
        // What is not built yet for want of an address is wanted all the same.
        if minted.leaf.is_none() {
            return Ok(Written { failures: report.failures, contests: report.contests, renew_at: minted.renew_at });
        }
        let pruned = context.applier.prune(registry, observed.inventory.clone(), &desired).await;
        report.failures.extend(pruned.failures);
    }
    Ok(Written { failures: report.failures, contests: report.contests, renew_at: minted.renew_at })
}

async fn attach_pull_secrets(
    registry: &Registry,
    names: &Names,
    problems: &[Problem],
    context: &Context,
    failures: &mut Vec<CallError>,
) -> Vec<Attachment> {
    let mut attachments = Vec::new();
    // A Secret of somebody else must not become the pull secret of every pod here.
    if problems.iter().any(|problem| problem.condition == condition::PULL_SECRETS_READY) {
        return attachments;
    }
    let attacher = Attacher {
        client: &context.client,
        view: &context.view,
        metrics: &context.metrics,
        contests: &context.attachments,
    };
    for account in &registry.spec.pull_secrets.service_accounts {
        match attacher.attach(names.namespace(), account).await {
            Ok(attachment) => attachments.push(attachment),
            Err(error) => failures.push(error),
        }
    }
    attachments
}

fn pass_outcome(status: &RegistryStatus) -> PassOutcome {
    let is_true =
        |kind: &str| condition::find(&status.conditions, kind).is_some_and(|condition| condition.status == "True");
    let suspended =
        condition::find(&status.conditions, condition::READY).is_some_and(|ready| ready.reason == reason::SUSPENDED);
    // Nothing tells of a host that becomes free, or of an ingress class that appears.
    let exposed = condition::find(&status.conditions, condition::EXPOSED).is_none_or(|found| found.status == "True");
    if suspended || (is_true(condition::READY) && exposed) {
        PassOutcome::Completed
    } else if is_true(condition::STALLED) {
        PassOutcome::Stalled
    } else {
        PassOutcome::Waiting
    }
}

/// Writes the status when it differs, and tells of what a user would want to be told.
async fn write_status(registry: &Registry, next: &RegistryStatus, context: &Context) -> Result<(), CallError> {
    if registry.status.as_ref() == Some(next) {
        return Ok(());
    }
    super::statuses::apply::<Registry>(&registry.metadata, &json!(next), STATUS_MANAGER, context).await?;
    let old = registry.status.as_ref().map_or(&[][..], |status| &status.conditions);
    super::statuses::on_transition(registry, old, &next.conditions, context).await;
    Ok(())
}

/// A stored object that this version cannot read stops only itself.
async fn report_malformed(invalid: &InvalidObject, context: &Context) -> Result<Done, PassError> {
    super::statuses::report_malformed::<Registry>(invalid, STATUS_MANAGER, context).await?;
    Ok(PassOutcome::Stalled.into())
}
