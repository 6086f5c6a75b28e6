//! The loops beside the Registry controller, one for each thing that spans Registries: the authority, the node plan, the
//! `NodeRuntime`s, the certificates in namespaces, the pull secrets, what volumes hold, what is exposed and which APIs there are.
//! None must hold up another, and each gathers what wakes it before it acts once.

use std::future::pending;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::pace::{RESYNC, outcome, wait, wait_at_most};
use super::wakes::{Key, MirrorKey, Wakes, key_of};
use crate::api::Registry;
use crate::operator::apis::{self, Apis};
use crate::operator::apply::Applier;
use crate::operator::authority::{Keeper, Rotation};
use crate::operator::ca_bundle::{self, Publisher};
use crate::operator::context::Context;
use crate::operator::front;
use crate::operator::images::{self, Survey};
use crate::operator::mirror;
use crate::operator::node_plan::Planner;
use crate::operator::node_runtimes;
use crate::operator::pull_secret::Attacher;
use crate::operator::registry::precedence::{Precedence, planned};
use crate::operator::registry::{lacks_bundles, lacks_reports};
use crate::operator::volume::Inquirer;

/// How long changes that concern the node plan are gathered.
const PLAN_DEBOUNCE: Duration = Duration::from_millis(200);
/// How long reports of nodes are gathered: each set of them costs a look at every Registry.
const NODE_DEBOUNCE: Duration = Duration::from_secs(2);
/// How often a rotation is looked at: what moves it on is a report of a node or a Registry's pass.
const ROTATION_INTERVAL: Duration = Duration::from_secs(60);

/// Looks which APIs of other projects there are. One that came or went concerns the Registries that are exposed.
pub(super) async fn api_loop(
    apis: &watch::Sender<Apis>,
    context: &Context,
    wakes: &Wakes,
    shutdown: &CancellationToken,
) {
    let mut failures = 0;
    while !shutdown.is_cancelled() {
        wait_at_most(apis::INTERVAL, pending(), Duration::ZERO, failures, shutdown).await;
        let guard = context.metrics.start_pass("apis");
        let result = apis::look(&context.client, &context.metrics).await;
        failures = outcome(guard, failures, result.as_ref().err(), "which APIs the cluster serves could not be asked");
        let differs = |known: &mut Apis| result.is_ok_and(|found| std::mem::replace(known, found) != found);
        if apis.send_if_modified(differs) {
            tracing::info!(apis = ?*apis.borrow(), "APIs came or went");
            let live = context.view.live();
            wakes.registries.add(live.iter().filter(|registry| registry.spec.expose.is_some()).map(key_of));
        }
    }
}

/// Keeps the authority. What it changes concerns every Registry and the node plan.
pub(super) async fn authority_loop(keeper: &Keeper, context: &Context, wakes: &Wakes, shutdown: &CancellationToken) {
    let mut told = keeper.authority.subscribe();
    let mut failures = 0;
    while !shutdown.is_cancelled() {
        let now = (context.clock)();
        let guard = context.metrics.start_pass("authority");
        let result = keeper.pass(now).await;
        let due = result.as_ref().ok().copied().flatten();
        failures = outcome(guard, failures, result.err().as_ref(), "the authority could not be looked after");
        if told.has_changed().unwrap_or(false) {
            told.mark_unchanged();
            wakes.plan.notify_one();
            wakes.ca_bundles.notify_one();
            let registries = context.view.registries.state();
            wakes.registries.add(registries.iter().map(|registry| ObjectRef::from_obj(registry.as_ref())));
            let mirrors = context.view.mirrors.state();
            wakes.mirrors.add(mirrors.iter().map(|mirror| ObjectRef::from_obj(mirror.as_ref())));
        }
        let rotates = keeper.authority.borrow().rotation != Rotation::AtRest;
        let longest = if rotates { ROTATION_INTERVAL.min(keeper.overlap / 8).max(PLAN_DEBOUNCE) } else { RESYNC };
        let longest = due.map_or(longest, |due| longest.min(Duration::try_from(due - now).unwrap_or_default()));
        wait_at_most(longest, wakes.authority.notified(), PLAN_DEBOUNCE, failures, shutdown).await;
    }
}

pub(super) async fn planner_loop(
    planner: &Planner,
    clock: fn() -> Timestamp,
    wakes: &Wakes,
    shutdown: &CancellationToken,
) {
    let mut failures = 0;
    while !shutdown.is_cancelled() {
        let before = planner.plan.borrow().revision;
        let guard = planner.metrics.start_pass("node-plan");
        let result = planner.pass(clock()).await;
        failures = outcome(guard, failures, result.err().as_ref(), "the node plan could not be written");
        if planner.plan.borrow().revision != before {
            wakes.nodes.notify_one();
        }
        wait(wakes.plan.notified(), PLAN_DEBOUNCE, failures, shutdown).await;
    }
}

/// Keeps the `NodeRuntime`s in step, and lets each Registry that they concern count its nodes anew. Most reports concern
/// none: with many nodes and Registries, a pass over each Registry for each report would never end.
pub(super) async fn node_loop(context: &Context, wakes: &Wakes, shutdown: &CancellationToken) {
    let applier = Applier::new(context.client.clone(), "wharf/node-runtime", context.metrics.clone());
    let mut failures = 0;
    while !shutdown.is_cancelled() {
        let guard = context.metrics.start_pass("node-runtime");
        let report = node_runtimes::pass(&context.view, &applier).await;
        for contest in &report.contests {
            tracing::warn!("{contest}");
        }
        failures = outcome(guard, failures, report.failures.first(), "a NodeRuntime could not be made");
        wakes.registries.add(concerned(context));
        wakes.mirrors.add(mirrors_concerned(context));
        wait(wakes.nodes.notified(), NODE_DEBOUNCE, failures, shutdown).await;
    }
}

/// The Registries whose status does not say yet what the nodes report.
fn concerned(context: &Context) -> Vec<Key> {
    let (reports, plan) = (context.view.node_reports(), context.plan.borrow().clone());
    let older_suffices = context.authority.borrow().older_suffices();
    let live = context.view.live();
    let winners = Precedence::of(live.iter(), &context.settings.limits);
    live.iter()
        .filter(|registry| {
            let granted = winners.hosts(registry).granted;
            lacks_reports(registry, &reports, &planned(registry, &granted, &plan, older_suffices))
        })
        .map(key_of)
        .collect()
}

/// The Mirrors whose status does not say yet what the nodes report.
fn mirrors_concerned(context: &Context) -> Vec<MirrorKey> {
    let (view, plan) = (&context.view, context.plan.borrow().clone());
    let live = view.live_mirrors();
    let lacking = live.iter().filter(|found| {
        let hosts = mirror::observe::hosts(found, view, &context.settings);
        let nodes = mirror::observe::selected(found, view);
        let bypassed = context.images.bypassed(&hosts.granted, &nodes);
        let planned = mirror::observe::planned(found, &plan);
        let bypassed = bypassed.as_deref();
        let reach = mirror::Reach { granted: &hosts.granted, planned: &planned, nodes: &nodes, bypassed };
        mirror::lacks_reports(found, &reach)
    });
    lacking.map(|found| MirrorKey::new(&found.name_any())).collect()
}

/// Keeps the certificates in the selected namespaces, and lets each Registry whose status does not say so yet say it.
pub(super) async fn ca_bundle_loop(
    publisher: &Publisher,
    context: &Context,
    wakes: &Wakes,
    shutdown: &CancellationToken,
) {
    let mut failures = 0;
    while !shutdown.is_cancelled() {
        let guard = context.metrics.start_pass("ca-bundle");
        let report = publisher.pass((context.clock)()).await;
        failures =
            outcome(guard, failures, report.failure.as_ref(), "a config map with certificates could not be written");
        let bundle = context.authority.borrow().bundle();
        let live = context.view.live();
        let lacks = |registry: &&Registry| {
            ca_bundle::standing(registry, &context.view, &bundle, &context.ca_refusals)
                .is_some_and(|standing| lacks_bundles(registry, &standing))
        };
        wakes.registries.add(live.iter().filter(lacks).map(key_of));
        let longest = report.again.unwrap_or(RESYNC);
        wait_at_most(longest, wakes.ca_bundles.notified(), PLAN_DEBOUNCE, failures, shutdown).await;
    }
}

/// Keeps pull secrets at service accounts, and lets the Registries of a namespace say what is in dispute there.
pub(super) async fn pull_secret_loop(context: &Context, wakes: &Wakes, shutdown: &CancellationToken) {
    let attacher = Attacher {
        client: &context.client,
        view: &context.view,
        metrics: &context.metrics,
        contests: &context.attachments,
    };
    let mut failures = 0;
    while !shutdown.is_cancelled() {
        let guard = context.metrics.start_pass("pull-secret");
        let due = wakes.pull_secrets.take();
        let results = join_all(due.iter().map(|namespace| attacher.sweep(namespace))).await;
        let mut failed = Vec::new();
        for (namespace, result) in due.iter().zip(&results) {
            match result {
                Ok(contests) if contests.is_empty() => {}
                Ok(_) => wakes.registries.add(context.view.live_registries_in(namespace).iter().map(key_of)),
                Err(error) => failed.push((namespace, error)),
            }
        }
        let first = failed.first().map(|(_, error)| error);
        failures = outcome(guard, failures, first, "a pull secret could not be attached or taken off");
        wakes.pull_secrets.add(failed.iter().map(|(namespace, _)| (*namespace).clone()));
        wait(wakes.pull_secrets.added(), PLAN_DEBOUNCE, failures, shutdown).await;
    }
}

/// Asks how full the volumes are. No request goes to the API server for it.
pub(super) async fn volume_loop(context: &Context, wakes: &Wakes, shutdown: &CancellationToken) {
    let inquirer = Inquirer::default();
    let changed = |keys| wakes.look_again_at(keys);
    tokio::select! {
        () = inquirer.run(&context.view, &context.volumes, context.settings.volume_interval, changed) => {}
        () = shutdown.cancelled() => {}
    }
}

/// Proves that what is exposed can be reached. A proof never holds up a pass.
pub(super) async fn front_loop(context: &Context, wakes: &Wakes, shutdown: &CancellationToken) {
    tokio::select! {
        () = front::run(context, |keys| wakes.look_again_at(keys)) => {}
        () = shutdown.cancelled() => {}
    }
}

/// Asks the pods of Mirrors how they do.
pub(super) async fn mirror_report_loop(context: &Context, wakes: &Wakes, shutdown: &CancellationToken) {
    tokio::select! {
        () = mirror::reports::run(context, |keys| wakes.look_again_at_mirrors(keys)) => {}
        () = shutdown.cancelled() => {}
    }
}

/// Looks which images pods run.
pub(super) async fn image_loop(context: &Context, wakes: &Wakes, shutdown: &CancellationToken) {
    let survey = Survey::new(Applier::new(context.client.clone(), images::MANAGER, context.metrics.clone()));
    tokio::select! {
        () = survey.run(context, |keys| wakes.look_again_at_mirrors(keys)) => {}
        () = shutdown.cancelled() => {}
    }
}
