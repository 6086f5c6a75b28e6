//! Runs the controllers while this process leads: the caches, the Registry controller, and the loops beside it. It must never
//! let one change hold up another for long: changes that concern everything are gathered for a moment and handled once.

mod loops;
mod pace;
mod queue;
mod wakes;

use std::fmt::Display;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use kube::Client;
use kube::runtime::events::{Recorder, Reporter};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use self::loops::{
    api_loop, authority_loop, ca_bundle_loop, front_loop, image_loop, mirror_report_loop, node_loop, planner_loop,
    pull_secret_loop, volume_loop,
};
use self::wakes::{Wakes, dispatch};
use super::apis::{self, Apis};
use super::apply::{Applier, Contests, MANAGER};
use super::authority::{self, Authority, Keeper};
use super::backoff::{Backoff, delay};
use super::ca_bundle::{Publisher, Refusals};
use super::context::Context;
use super::front::Fronts;
use super::images::Images;
use super::metrics::Metrics;
use super::mirror::deletion::Departures;
use super::mirror::reports::MirrorReports;
use super::node_plan::Planner;
use super::settings::Settings;
use super::view::View;
use super::volume::Volumes;
use super::{mirror, registry};
use crate::plan::Plan;
use crate::telemetry::Health;

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

impl Controllers {
    /// Runs until `shutdown`, and ends when the running passes have ended.
    ///
    /// # Errors
    /// When a watch ended for good.
    pub async fn run(self, health: &Health, shutdown: &CancellationToken) -> Result<(), ControllersError> {
        let gate = health.gate("caches");
        let Some(apis) = self.apis(shutdown).await.map(watch::Sender::new) else {
            return Ok(());
        };
        let (view, watches, changes) = View::watch(&self.client, &apis.subscribe());
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
            let context = Arc::new(self.context(&view, &apis, &authority, plan));
            let planner = self.planner(&context, plan_sender);
            let publisher = self.publisher(&context);
            let keeper = self.keeper(&context, authority);
            tokio::join!(
                api_loop(&apis, &context, &wakes, shutdown),
                authority_loop(&keeper, &context, &wakes, shutdown),
                keeper.watch(&wakes.authority, shutdown),
                queue::run(
                    view.registries.clone(),
                    registry::reconcile,
                    context.clone(),
                    wakes.registries.clone(),
                    shutdown
                ),
                queue::run(view.mirrors.clone(), mirror::reconcile, context.clone(), wakes.mirrors.clone(), shutdown),
                planner_loop(&planner, context.clock, &wakes, shutdown),
                node_loop(&context, &wakes, shutdown),
                ca_bundle_loop(&publisher, &context, &wakes, shutdown),
                pull_secret_loop(&context, &wakes, shutdown),
                volume_loop(&context, &wakes, shutdown),
                front_loop(&context, &wakes, shutdown),
                mirror_report_loop(&context, &wakes, shutdown),
                image_loop(&context, &wakes, shutdown),
            );
            Ok(())
        };
        tokio::select! {
            result = work => result,
            () = watches => Err(ControllersError::Watch),
            () = dispatch(changes, &wakes, &view, &self.settings.limits) => Err(ControllersError::Watch),
        }
    }

    /// Which APIs there are; asked until there is an answer or the process stops.
    async fn apis(&self, shutdown: &CancellationToken) -> Option<Apis> {
        until_had(shutdown, "which APIs the cluster serves is not known", async || {
            apis::look(&self.client, &self.metrics).await
        })
        .await
    }

    /// The authority; tried until it can be had or the process stops.
    async fn authority(&self, shutdown: &CancellationToken) -> Option<Authority> {
        until_had(shutdown, "no Registry can be served without an authority", async || {
            authority::ensure(&self.client, &self.settings.namespace, &self.metrics, Timestamp::now()).await
        })
        .await
    }

    fn context(
        &self,
        view: &View,
        apis: &watch::Sender<Apis>,
        authority: &watch::Sender<Arc<Authority>>,
        plan: watch::Receiver<Arc<Plan>>,
    ) -> Context {
        let reporter = Reporter { controller: "wharf-operator".to_owned(), instance: Some(self.identity.clone()) };
        Context {
            client: self.client.clone(),
            view: view.clone(),
            settings: self.settings.clone(),
            authority: authority.subscribe(),
            apis: apis.subscribe(),
            applier: Applier::new(self.client.clone(), MANAGER, self.metrics.clone()),
            plan,
            recorder: Recorder::new(self.client.clone(), reporter),
            metrics: self.metrics.clone(),
            backoff: Backoff::default(),
            attachments: Contests::default(),
            volumes: Volumes::default(),
            fronts: Fronts::default(),
            ca_refusals: Refusals::default(),
            mirror_applier: Applier::new(self.client.clone(), mirror::MANAGER, self.metrics.clone()),
            mirror_reports: MirrorReports::default(),
            departures: Departures::default(),
            images: Images::default(),
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
            own_namespace: self.settings.namespace.clone(),
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

/// What the controllers cannot begin without; tried more and more seldom until it can be had or the process stops.
async fn until_had<T, E: Display>(
    shutdown: &CancellationToken,
    lack: &str,
    attempt: impl AsyncFn() -> Result<T, E>,
) -> Option<T> {
    let mut failures = 0;
    loop {
        match attempt().await {
            Ok(had) => return Some(had),
            Err(error) => tracing::error!(%error, "{lack}"),
        }
        failures += 1;
        tokio::select! {
            () = sleep(delay(failures, rand::random())) => {}
            () = shutdown.cancelled() => return None,
        }
    }
}
