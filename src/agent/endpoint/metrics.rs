//! What the endpoint counts. Labels are a fixed set; what a client names is never one.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::telemetry::MetricsRegistry;

/// The bounds of [`Metrics::waited`], in seconds.
const WAITS: [f64; 9] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// A server's answer was passed on.
    #[allow(non_camel_case_types, reason = "the variant's name is the label's value")]
    passed,
    /// It asks for nothing that the endpoint has.
    #[allow(non_camel_case_types, reason = "the variant's name is the label's value")]
    refused,
    /// No server could answer, and the runtime was sent elsewhere.
    #[allow(non_camel_case_types, reason = "the variant's name is the label's value")]
    unavailable,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: Outcome,
}

/// The endpoint's metrics. Cloning shares them.
#[derive(Clone)]
pub struct Metrics {
    requests: Family<OutcomeLabel, Counter>,
    bytes: Counter,
    resumed: Counter,
    cut: Counter,
    lost: Counter,
    waits: Histogram,
    connections: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let (requests, bytes, resumed, cut, lost, connections) = Default::default();
        Self { requests, bytes, resumed, cut, lost, waits: Histogram::new(WAITS), connections }
    }
}

impl Metrics {
    /// Registers the metrics.
    #[must_use]
    pub fn register(registry: &mut MetricsRegistry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("wharf_endpoint");
        registry.register("requests", "Requests of the container runtime, by outcome", metrics.requests.clone());
        registry.register("bytes", "Bytes of bodies that were passed on", metrics.bytes.clone());
        registry.register("resumed", "Bodies whose rest came from another server", metrics.resumed.clone());
        registry.register("cut", "Bodies that were cut off", metrics.cut.clone());
        registry.register("servers_lost", "Times that a server was found not to answer", metrics.lost.clone());
        registry.register("headers_seconds", "Time until a server's headers were passed on", metrics.waits.clone());
        registry.register("connections", "Connections of clients", metrics.connections.clone());
        for outcome in [Outcome::passed, Outcome::refused, Outcome::unavailable] {
            let _ = metrics.requests.get_or_create(&OutcomeLabel { outcome });
        }
        metrics
    }

    pub(super) fn answered(&self, outcome: Outcome) {
        self.requests.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    pub(super) fn passed(&self, bytes: u64) {
        self.bytes.inc_by(bytes);
    }

    pub(super) fn resumed(&self) {
        self.resumed.inc();
    }

    pub(super) fn cut(&self) {
        self.cut.inc();
    }

    pub(super) fn lost(&self) {
        self.lost.inc();
    }

    pub(super) fn waited(&self, time: Duration) {
        self.waits.observe(time.as_secs_f64());
    }

    pub(super) fn connected(&self, change: i64) {
        self.connections.inc_by(change);
    }
}
