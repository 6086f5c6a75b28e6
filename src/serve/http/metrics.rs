//! What the server counts. Labels come from closed sets: no name of a repository is ever one.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use hyper::Method;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::telemetry::MetricsRegistry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    status: u16,
}

/// The server's metrics. Cloning shares them.
#[derive(Clone)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    duration: Histogram,
    sent: Counter,
    /// Connections that are open.
    pub connections: Gauge<i64, AtomicI64>,
    /// Connections that were turned away because there were too many.
    pub turned_away: Counter,
}

impl Metrics {
    /// Makes the metrics known to a registry of metrics.
    pub fn register(registry: &mut MetricsRegistry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            duration: Histogram::new([0.000_1, 0.001, 0.01, 0.1, 1.0, 10.0]),
            sent: Counter::default(),
            connections: Gauge::default(),
            turned_away: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("wharf_serve");
        registry.register("requests", "Requests by method and status", metrics.requests.clone());
        let help = "Time from a request's headers to its answer's headers, in seconds";
        registry.register("request_duration_seconds", help, metrics.duration.clone());
        registry.register("sent_bytes", "Bytes of answers, as announced", metrics.sent.clone());
        registry.register("connections", "Open connections", metrics.connections.clone());
        registry.register("connections_turned_away", "Connections beyond the limit", metrics.turned_away.clone());
        metrics
    }

    pub(super) fn answered(&self, method: &Method, status: u16, length: u64, elapsed: Duration) {
        let known = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
        let names = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
        let method = known.iter().zip(names).find(|(known, _)| *known == method).map_or("other", |(_, name)| name);
        self.requests.get_or_create(&RequestLabels { method, status }).inc();
        self.duration.observe(elapsed.as_secs_f64());
        self.sent.inc_by(length);
    }
}
