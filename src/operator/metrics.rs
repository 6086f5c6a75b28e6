//! The operator's metrics. Labels come from closed sets; the name of an object must never be a label, because a label
//! set is kept for as long as the process lives.

use std::time::Instant;

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::telemetry::MetricsRegistry;

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassOutcome {
    /// Everything is as wanted.
    Completed,
    /// Something in the cluster has to happen first.
    Waiting,
    /// A user has to act first.
    Stalled,
    /// A request failed; the pass is tried again.
    Failed,
    /// The pass was cancelled: leadership lost, or the process stops.
    Abandoned,
}

impl PassOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Waiting => "waiting",
            Self::Stalled => "stalled",
            Self::Failed => "failed",
            Self::Abandoned => "abandoned",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    action: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PassLabels {
    controller: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLabel {
    certificate: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ControllerLabel {
    controller: &'static str,
}

/// The operator's metrics. Cloning shares them.
#[derive(Clone)]
pub struct Metrics {
    calls: Family<CallLabels, Counter>,
    passes: Family<PassLabels, Counter>,
    durations: Family<ControllerLabel, Histogram, fn() -> Histogram>,
    proofs: Family<ReasonLabel, Counter>,
    leader: Gauge,
    plan_revision: Gauge,
    plan_hosts: Gauge,
    certificate_ends: Family<CertificateLabel, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            calls: Family::default(),
            passes: Family::default(),
            durations: Family::new_with_constructor(pass_histogram),
            proofs: Family::default(),
            leader: Gauge::default(),
            plan_revision: Gauge::default(),
            plan_hosts: Gauge::default(),
            certificate_ends: Family::default(),
        }
    }
}

/// A pass without writes takes milliseconds, one against a slow API server its whole bound.
fn pass_histogram() -> Histogram {
    Histogram::new([0.001, 0.01, 0.05, 0.25, 1.0, 5.0, 30.0])
}

impl Metrics {
    /// Makes the metrics visible under the prefix `wharf_operator_`.
    pub fn register(&self, registry: &mut MetricsRegistry) {
        let registry = registry.sub_registry_with_prefix("wharf_operator");
        registry.register("api_calls", "Requests to the API server inside passes", self.calls.clone());
        registry.register("passes", "Reconcile passes by how they ended", self.passes.clone());
        registry.register("pass_duration_seconds", "Time a reconcile pass took", self.durations.clone());
        registry.register("front_proofs", "Uploads tried through fronts, by what became of them", self.proofs.clone());
        registry.register("leader", "1 while this process holds the lease", self.leader.clone());
        registry.register("node_plan_revision", "Revision of the node plan last written", self.plan_revision.clone());
        registry.register("node_plan_hosts", "Hosts in the node plan", self.plan_hosts.clone());
        registry.register(
            "certificate_end_timestamp_seconds",
            "Unix time at which the first certificate of its kind ends",
            self.certificate_ends.clone(),
        );
    }

    /// Counts a request by words from closed sets.
    pub(super) fn count_call(&self, action: &'static str, outcome: &'static str) {
        self.calls.get_or_create(&CallLabels { action, outcome }).inc();
    }

    /// Counts a proof of a front by its documented reason.
    pub(super) fn count_proof(&self, reason: &'static str) {
        self.proofs.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(super) fn set_leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    pub(super) fn set_plan(&self, revision: i64, hosts: usize) {
        self.plan_revision.set(revision);
        self.plan_hosts.set(i64::try_from(hosts).unwrap_or(i64::MAX));
    }

    /// Tells when the signing authority ends, and the first of the registries' certificates.
    pub(super) fn set_certificate_ends(&self, authority: Timestamp, registries: Option<Timestamp>) {
        let gauge = |certificate| self.certificate_ends.get_or_create_owned(&CertificateLabel { certificate });
        gauge("authority").set(authority.as_second());
        match registries {
            Some(first) => {
                gauge("registry").set(first.as_second());
            }
            None => {
                self.certificate_ends.remove(&CertificateLabel { certificate: "registry" });
            }
        }
    }

    /// Starts measuring a pass. A guard that is dropped without [`PassGuard::end`] counts as abandoned.
    #[must_use]
    pub fn start_pass(&self, controller: &'static str) -> PassGuard {
        PassGuard { metrics: self.clone(), controller, started: Instant::now(), outcome: PassOutcome::Abandoned }
    }
}

/// A pass in progress.
pub struct PassGuard {
    metrics: Metrics,
    controller: &'static str,
    started: Instant,
    outcome: PassOutcome,
}

impl PassGuard {
    /// Ends the pass.
    pub fn end(mut self, outcome: PassOutcome) {
        self.outcome = outcome;
    }
}

impl Drop for PassGuard {
    fn drop(&mut self) {
        let labels = PassLabels { controller: self.controller, outcome: self.outcome.as_str() };
        self.metrics.passes.get_or_create(&labels).inc();
        self.metrics
            .durations
            .get_or_create(&ControllerLabel { controller: self.controller })
            .observe(self.started.elapsed().as_secs_f64());
    }
}
