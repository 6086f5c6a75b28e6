//! Runs the controllers while this process leads: the caches, the Registry controller, and the loops that keep the
//! authority, the node plan, the `NodeRuntime`s, the pull secrets and the certificates in namespaces in step. It must never let one change hold up another for long: changes
//! that concern everything are gathered for a moment and handled once.

use std::fmt::Display;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::Controller;
use kube::runtime::controller::{self, Action};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::ObjectRef;
use kube::{Client, ResourceExt};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::apply::{Applier, MANAGER};
use super::authority::{self, Authority, Keeper, Rotation};
use super::backoff::{Backoff, delay};
use super::ca_bundle::{self, Publisher, Refusals};
use super::context::Context;
use super::front::{self, Fronts};
use super::limits::Limits;
use super::metrics::{Metrics, PassOutcome};
use super::node_plan::Planner;
use super::node_runtimes;
use super::pending::Pending;
use super::pull_secret::Attacher;
use super::registry::precedence::{Precedence, planned};
use super::registry::{PassError, lacks_bundles, lacks_reports, reconcile};
use super::rivals::Rivals;
use super::settings::Settings;
use super::view::{Change, View};
use super::volume::{Inquirer, Volumes};
use crate::api::Registry;
use crate::plan::Plan;
use crate::telemetry::Health;

/// How many Registries are worked on at once.
const CONCURRENCY: u16 = 8;
/// How long changes of one Registry are gathered before a pass.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// How long changes that concern the node plan are gathered.
const PLAN_DEBOUNCE: Duration = Duration::from_millis(200);
/// How long reports of nodes are gathered: each set of them costs a look at every Registry.
const NODE_DEBOUNCE: Duration = Duration::from_secs(2);
/// How often the loops look without being told.
const RESYNC: Duration = Duration::from_secs(600);
/// How often a rotation is looked at: what moves it on is a report of a node or a Registry's pass.
const ROTATION_INTERVAL: Duration = Duration::from_secs(60);

/// The controllers ended without being told to.
#[derive(Debug, thiserror::Error)]
pub enum ControllersError {
    /// A watch ended for good.
    #[error("a watch ended before its cache was filled")]
    Watch,
}

/// What the controllers are made from.
pub struct Controllers {
    /// The client.
    pub client: Client,
    /// The administrator's settings.
    pub settings: Settings,
    /// A name that no other replica has.
    pub identity: String,
    /// The metrics.
    pub metrics: Metrics,
}

/// Wakes the loops.
#[derive(Clone, Default)]
struct Wakes {
    registries: Arc<Pending<Key>>,
    authority: Arc<Notify>,
    plan: Arc<Notify>,
    nodes: Arc<Notify>,
    ca_bundles: Arc<Notify>,
    /// Namespaces whose service accounts are to be looked at.
    pull_secrets: Arc<Pending<String>>,
}

type Key = ObjectRef<DeserializeGuard<Registry>>;

impl Wakes {
    fn look_again_at(&self, keys: Vec<ObjectRef<Registry>>) {
        let guarded = |key: ObjectRef<Registry>| Key::new(&key.name).within(&key.namespace.unwrap_or_default());
        self.registries.add(keys.into_iter().map(guarded));
    }
}

impl Controllers {
    /// Runs until `shutdown`, and ends when the running passes have ended.
    ///
    /// # Errors
    /// When a watch ended for good.
    pub async fn run(self, health: &Health, shutdown: &CancellationToken) -> Result<(), ControllersError> {
        let gate = health.gate("caches");
        let (view, watches, changes) = View::watch(&self.client);
        let (plan_sender, plan) = watch::channel(Arc::new(Plan::default()));
        let wakes = Wakes::default();

        let work = async {
            let Some(authority) = self.authority(shutdown).await else {
                return Ok(());
            };
            view.wait_until_ready().await.map_err(|_| ControllersError::Watch)?;
            gate.open();
            tracing::info!("caches filled");
            let authority = watch::Sender::new(Arc::new(authority));
            let context = Arc::new(self.context(&view, &authority, plan));
            let planner = self.planner(&context, plan_sender);
            let publisher = self.publisher(&context);
            let keeper = self.keeper(&context, authority);
            tokio::join!(
                authority_loop(&keeper, &context, &wakes, shutdown),
                keeper.watch(&wakes.authority, shutdown),
                registry_controller(context.clone(), wakes.registries.clone(), shutdown),
                planner_loop(&planner, context.clock, &wakes, shutdown),
                node_loop(&context, &wakes, shutdown),
                ca_bundle_loop(&publisher, &context, &wakes, shutdown),
                pull_secret_loop(&context, &wakes, shutdown),
                volume_loop(&context, &wakes, shutdown),
                front_loop(&context, &wakes, shutdown),
            );
            Ok(())
        };
        tokio::select! {
            result = work => result,
            () = watches => Err(ControllersError::Watch),
            () = dispatch(changes, &wakes, &view, &self.settings.limits) => Err(ControllersError::Watch),
        }
    }

    /// The authority; tried until it can be had or the process stops.
    async fn authority(&self, shutdown: &CancellationToken) -> Option<Authority> {
        let mut failures = 0;
        loop {
            match authority::ensure(&self.client, &self.settings.namespace, &self.metrics, Timestamp::now()).await {
                Ok(authority) => return Some(authority),
                Err(error) => tracing::error!(%error, "no Registry can be served without an authority"),
            }
            failures += 1;
            tokio::select! {
                () = sleep(delay(failures, rand::random())) => {}
                () = shutdown.cancelled() => return None,
            }
        }
    }

    fn context(
        &self,
        view: &View,
        authority: &watch::Sender<Arc<Authority>>,
        plan: watch::Receiver<Arc<Plan>>,
    ) -> Context {
        let reporter = Reporter { controller: "wharf-operator".to_owned(), instance: Some(self.identity.clone()) };
        Context {
            client: self.client.clone(),
            view: view.clone(),
            settings: self.settings.clone(),
            authority: authority.subscribe(),
            applier: Applier::new(self.client.clone(), MANAGER, self.metrics.clone()),
            plan,
            recorder: Recorder::new(self.client.clone(), reporter),
            metrics: self.metrics.clone(),
            backoff: Backoff::default(),
            volumes: Volumes::default(),
            fronts: Fronts::default(),
            ca_refusals: Refusals::default(),
            clock: Timestamp::now,
        }
    }

    fn planner(&self, context: &Context, plan: watch::Sender<Arc<Plan>>) -> Planner {
        Planner {
            client: self.client.clone(),
            view: context.view.clone(),
            applier: Applier::new(self.client.clone(), "wharf/node-plan", self.metrics.clone()),
            metrics: self.metrics.clone(),
            namespace: self.settings.plan_namespace.clone(),
            limits: self.settings.limits.clone(),
            authority: context.authority.clone(),
            plan,
        }
    }

    fn publisher(&self, context: &Context) -> Publisher {
        Publisher {
            view: context.view.clone(),
            applier: Applier::new(self.client.clone(), "wharf/ca-bundle", self.metrics.clone()),
            limits: self.settings.limits.clone(),
            authority: context.authority.clone(),
            refusals: context.ca_refusals.clone(),
        }
    }

    fn keeper(&self, context: &Context, authority: watch::Sender<Arc<Authority>>) -> Keeper {
        Keeper {
            client: self.client.clone(),
            view: context.view.clone(),
            metrics: self.metrics.clone(),
            recorder: context.recorder.clone(),
            namespace: self.settings.namespace.clone(),
            overlap: self.settings.certificate_overlap,
            plan: context.plan.clone(),
            authority,
            warned: Mutex::default(),
        }
    }
}

/// Hands each change to whom it concerns.
async fn dispatch(mut changes: mpsc::Receiver<Change>, wakes: &Wakes, view: &View, limits: &Limits) {
    let mut rivals = Rivals::default();
    while let Some(change) = changes.recv().await {
        match change {
            Change::Registry(key) => wakes.registries.add([key]),
            Change::Stake(key, stake) => wakes.registries.add(rivals.concerned(&key, stake, view, limits)),
            Change::Plan => wakes.plan.notify_one(),
            Change::Node => wakes.nodes.notify_one(),
            Change::CaBundles => wakes.ca_bundles.notify_one(),
            Change::PullSecrets(namespace) => wakes.pull_secrets.add([namespace]),
        }
    }
}

async fn registry_controller(context: Arc<Context>, pending: Arc<Pending<Key>>, shutdown: &CancellationToken) {
    let stopped = shutdown.clone().cancelled_owned();
    let keys = futures::stream::unfold(pending, async |pending| {
        let keys = pending.next().await;
        Some((futures::stream::iter(keys), pending))
    });
    Controller::for_stream(futures::stream::pending(), context.view.registries.clone())
        .with_config(controller::Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE))
        .reconcile_on(keys.flatten())
        .graceful_shutdown_on(stopped)
        .run(reconcile_and_forget, error_policy, context)
        .for_each(async |result| match result {
            // A change of a Registry that is gone leaves nothing to do; failed passes are reported by the error policy.
            Ok(_) | Err(controller::Error::ObjectNotFound(_) | controller::Error::ReconcilerFailed(..)) => {}
            Err(error) => tracing::error!(%error, "the Registry controller's queue reported an error"),
        })
        .await;
}

async fn reconcile_and_forget(
    registry: Arc<DeserializeGuard<Registry>>,
    context: Arc<Context>,
) -> Result<Action, PassError> {
    let key = ObjectRef::from_obj(registry.as_ref()).to_string();
    let action = reconcile(registry, context.clone()).await?;
    context.backoff.forget(&key);
    Ok(action)
}

#[allow(clippy::needless_pass_by_value, reason = "the signature is kube's")]
fn error_policy(registry: Arc<DeserializeGuard<Registry>>, error: &PassError, context: Arc<Context>) -> Action {
    let key = ObjectRef::from_obj(registry.as_ref()).to_string();
    let wait = context.backoff.after_failure(&key, rand::random());
    if error.is_conflict() {
        tracing::info!(registry = %key, %error, "changed meanwhile; looking again");
    } else {
        tracing::warn!(registry = %key, %error, wait_seconds = wait.as_secs_f64(), "pass failed; it is tried again");
    }
    Action::requeue(wait)
}

/// Keeps the authority. What it changes concerns every Registry and the node plan.
async fn authority_loop(keeper: &Keeper, context: &Context, wakes: &Wakes, shutdown: &CancellationToken) {
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
        }
        let rotates = keeper.authority.borrow().rotation != Rotation::AtRest;
        let longest = if rotates { ROTATION_INTERVAL.min(keeper.overlap / 8).max(PLAN_DEBOUNCE) } else { RESYNC };
        let longest = due.map_or(longest, |due| longest.min(Duration::try_from(due - now).unwrap_or_default()));
        wait_at_most(longest, wakes.authority.notified(), PLAN_DEBOUNCE, failures, shutdown).await;
    }
}

async fn planner_loop(planner: &Planner, clock: fn() -> Timestamp, wakes: &Wakes, shutdown: &CancellationToken) {
    let mut failures = 0;
    while !shutdown.is_cancelled() {
        let before = planner.plan.borrow().revision;
        let guard = planner.metrics.start_pass("node-plan");
        match planner.pass(clock()).await {
            Ok(()) => {
                guard.end(PassOutcome::Completed);
                failures = 0;
            }
            Err(error) => {
                guard.end(PassOutcome::Failed);
                failures += 1;
                tracing::warn!(%error, "the node plan could not be written; it is tried again");
            }
        }
        if planner.plan.borrow().revision != before {
            wakes.nodes.notify_one();
        }
        wait(wakes.plan.notified(), PLAN_DEBOUNCE, failures, shutdown).await;
    }
}

/// Keeps the `NodeRuntime`s in step, and lets each Registry that they concern count its nodes anew. Most reports concern
/// none: with many nodes and Registries, a pass over each Registry for each report would never end.
async fn node_loop(context: &Context, wakes: &Wakes, shutdown: &CancellationToken) {
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

/// Keeps the certificates in the selected namespaces, and lets each Registry whose status does not say so yet say it.
async fn ca_bundle_loop(publisher: &Publisher, context: &Context, wakes: &Wakes, shutdown: &CancellationToken) {
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

fn key_of(registry: &Registry) -> Key {
    Key::new(&registry.name_any()).within(&registry.namespace().unwrap_or_default())
}

async fn pull_secret_loop(context: &Context, wakes: &Wakes, shutdown: &CancellationToken) {
    let limits = &context.settings.limits;
    let attacher = Attacher { client: &context.client, view: &context.view, metrics: &context.metrics, limits };
    let mut failures = 0;
    while !shutdown.is_cancelled() {
        let guard = context.metrics.start_pass("pull-secret");
        let due = wakes.pull_secrets.take();
        let results = join_all(due.iter().map(|namespace| attacher.sweep(namespace))).await;
        let failed: Vec<_> = due.iter().zip(&results).filter(|(_, result)| result.is_err()).collect();
        let first = failed.first().and_then(|(_, result)| result.as_ref().err());
        failures = outcome(guard, failures, first, "a pull secret could not be attached or taken off");
        wakes.pull_secrets.add(failed.iter().map(|(namespace, _)| (*namespace).clone()));
        wait(wakes.pull_secrets.added(), PLAN_DEBOUNCE, failures, shutdown).await;
    }
}

/// Asks how full the volumes are. No request goes to the API server for it.
async fn volume_loop(context: &Context, wakes: &Wakes, shutdown: &CancellationToken) {
    let inquirer = Inquirer::default();
    let changed = |keys| wakes.look_again_at(keys);
    tokio::select! {
        () = inquirer.run(&context.view, &context.volumes, context.settings.volume_interval, changed) => {}
        () = shutdown.cancelled() => {}
    }
}

/// Proves that what is exposed can be reached. A proof never holds up a pass.
async fn front_loop(context: &Context, wakes: &Wakes, shutdown: &CancellationToken) {
    tokio::select! {
        () = front::run(context, |keys| wakes.look_again_at(keys)) => {}
        () = shutdown.cancelled() => {}
    }
}

/// Ends the measurement of a loop's pass and counts failures in a row.
fn outcome(guard: super::metrics::PassGuard, failures: u32, error: Option<&impl Display>, what: &str) -> u32 {
    let Some(error) = error else {
        guard.end(PassOutcome::Completed);
        return 0;
    };
    guard.end(PassOutcome::Failed);
    tracing::warn!(%error, "{what}; it is tried again");
    failures + 1
}

/// Waits for the next pass of a loop: for a wake, or after failures for the back-off, at most until the resync.
async fn wait(wake: impl Future<Output = ()>, debounce: Duration, failures: u32, shutdown: &CancellationToken) {
    wait_at_most(RESYNC, wake, debounce, failures, shutdown).await;
}

async fn wait_at_most(
    longest: Duration,
    wake: impl Future<Output = ()>,
    debounce: Duration,
    failures: u32,
    shutdown: &CancellationToken,
) {
    let longest = if failures > 0 { delay(failures, rand::random()) } else { longest };
    tokio::select! {
        () = wake, if failures == 0 => {
            tokio::select! {
                () = sleep(debounce) => {}
                () = shutdown.cancelled() => {}
            }
        }
        () = sleep(longest) => {}
        () = shutdown.cancelled() => {}
    }
}
