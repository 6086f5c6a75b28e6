//! What every controller of the operator shares. Values and handles; no logic.

use std::sync::Arc;

use jiff::Timestamp;
use kube::Client;
use kube::runtime::events::Recorder;
use tokio::sync::watch;

use super::apis::Apis;
use super::apply::{Applier, Contests};
use super::authority::Authority;
use super::backoff::Backoff;
use super::ca_bundle::Refusals;
use super::front::Fronts;
use super::images::Images;
use super::metrics::Metrics;
use super::mirror::deletion::Departures;
use super::mirror::reports::MirrorReports;
use super::settings::Settings;
use super::view::View;
use super::volume::Volumes;
use crate::plan::Plan;

/// What every controller shares.
pub struct Context {
    /// The client.
    pub client: Client,
    /// The caches.
    pub view: View,
    /// The administrator's settings.
    pub settings: Settings,
    /// The authority that signs certificates, as last read.
    pub authority: watch::Receiver<Arc<Authority>>,
    /// Which APIs of other projects there are, as last seen.
    pub apis: watch::Receiver<Apis>,
    /// The engine that writes children of Registries.
    pub applier: Applier,
    /// The node plan last written.
    pub plan: watch::Receiver<Arc<Plan>>,
    /// Writes events.
    pub recorder: Recorder,
    /// The metrics.
    pub metrics: Metrics,
    /// Failures in a row, by object.
    pub backoff: Backoff,
    /// What was written to service accounts.
    pub attachments: Contests,
    /// How full the Registries' volumes are.
    pub volumes: Volumes,
    /// What became of the proofs of fronts.
    pub fronts: Fronts,
    /// Where config maps with the certificates were refused.
    pub ca_refusals: Refusals,
    /// The engine that writes children of Mirrors.
    pub mirror_applier: Applier,
    /// What the pods of Mirrors tell.
    pub mirror_reports: MirrorReports,
    /// What the nodes have to confirm before Mirrors go.
    pub departures: Departures,
    /// What images pods run.
    pub images: Images,
    /// The clock.
    pub clock: fn() -> Timestamp,
}
