//! What pull-through counts, and what its parts tell of themselves. Labels come from closed sets: the registries that are
//! configured and their endpoints. What a client names must never be one.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric, LabelValueEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;

use super::{fill, store};
use crate::oci::RegistryHost;
use crate::serve::upstream::{self, BreakerState, EndpointHealth};
use crate::telemetry::MetricsRegistry;

/// A configured registry as a label's value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Host(RegistryHost);

impl EncodeLabelValue for Host {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.0.as_str().encode(encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamLabel {
    upstream: Host,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabels {
    upstream: Host,
    endpoint: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    upstream: Host,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

fn of(host: &RegistryHost) -> UpstreamLabel {
    UpstreamLabel { upstream: Host(host.clone()) }
}

/// Why a request for another registry's content is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It names a registry that is not configured.
    UnknownRegistry,
    /// What it names as a registry is no name of one, or two names contradict each other.
    MalformedRegistry,
    /// It has been through this server already.
    Loop,
    /// It would change something.
    NotReadOnly,
    /// It brings no credential, and needs one.
    Unauthorized,
    /// Its caller may not have it.
    Denied,
    /// The upstream does not answer, and nothing that is kept will do.
    Away,
    /// The upstream's bytes were not those of their digest, or what it said cannot be true.
    Wrong,
    /// It is not an agent's, and only those are answered.
    NoAgent,
    /// Whether it is an agent's cannot be said, because the API server cannot be asked.
    UnknowableAgent,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::UnknownRegistry,
        Self::MalformedRegistry,
        Self::Loop,
        Self::NotReadOnly,
        Self::Unauthorized,
        Self::Denied,
        Self::Away,
        Self::Wrong,
        Self::NoAgent,
        Self::UnknowableAgent,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::UnknownRegistry => "unknown_registry",
            Self::MalformedRegistry => "malformed_registry",
            Self::Loop => "loop",
            Self::NotReadOnly => "not_read_only",
            Self::Unauthorized => "unauthorized",
            Self::Denied => "denied",
            Self::Away => "away",
            Self::Wrong => "wrong",
            Self::NoAgent => "no_agent",
            Self::UnknowableAgent => "unknowable_agent",
        }
    }
}

/// What pull-through counts where it happens. Cloning shares the counters.
#[derive(Clone)]
pub struct Metrics {
    hits: Family<UpstreamLabel, Counter>,
    misses: Family<UpstreamLabel, Counter>,
    joins: Family<UpstreamLabel, Counter>,
    served: Family<UpstreamLabel, Counter>,
    stale: Family<UpstreamLabel, Histogram, fn() -> Histogram>,
    refusals: Family<ReasonLabel, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            hits: Family::default(),
            misses: Family::default(),
            joins: Family::default(),
            served: Family::default(),
            stale: Family::new_with_constructor(ages),
            refusals: Family::default(),
        }
    }
}

/// From just behind the default age of a tag to what is served of a dead upstream at most by default.
fn ages() -> Histogram {
    Histogram::new([60.0, 600.0, 3600.0, 6.0 * 3600.0, 86_400.0, 3.0 * 86_400.0, 7.0 * 86_400.0])
}

impl Metrics {
    /// Makes the metrics known to a registry of metrics, and with them what `figures` tells whenever somebody looks.
    pub fn register(
        registry: &mut MetricsRegistry,
        figures: impl Fn() -> Option<Figures> + Send + Sync + 'static,
    ) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("wharf_cache");
        registry.register("hits", "Requests answered from what is kept", metrics.hits.clone());
        registry.register("misses", "Requests for which an upstream's bytes were fetched", metrics.misses.clone());
        registry.register("joins", "Requests answered from a fetch that another began", metrics.joins.clone());
        registry.register("served_bytes", "Bytes of answers, as announced", metrics.served.clone());
        let help = "Age of what was served although its upstream could not be asked, in seconds";
        registry.register("stale_age_seconds", help, metrics.stale.clone());
        registry.register("refusals", "Requests for upstreams' content that were refused", metrics.refusals.clone());
        registry.register_collector(Box::new(Told(Box::new(figures))));
        for reason in Reason::ALL {
            let _ = metrics.refusals.get_or_create(&ReasonLabel { reason: reason.as_str() });
        }
        metrics
    }

    /// Shows the counters of these registries, also while they are 0.
    pub fn show<'a>(&self, hosts: impl IntoIterator<Item = &'a RegistryHost>) {
        for label in hosts.into_iter().map(of) {
            for family in [&self.hits, &self.misses, &self.joins, &self.served] {
                let _ = family.get_or_create(&label);
            }
            let _ = self.stale.get_or_create(&label);
        }
    }

    /// A request was answered from what is kept.
    pub fn hit(&self, host: &RegistryHost) {
        self.hits.get_or_create(&of(host)).inc();
    }

    /// Bytes had to be fetched for a request.
    pub fn miss(&self, host: &RegistryHost) {
        self.misses.get_or_create(&of(host)).inc();
    }

    /// A request was answered from a fetch that another one began.
    pub fn joined(&self, host: &RegistryHost) {
        self.joins.get_or_create(&of(host)).inc();
    }

    /// An answer has so many bytes.
    pub fn served(&self, host: &RegistryHost, bytes: u64) {
        self.served.get_or_create(&of(host)).inc_by(bytes);
    }

    /// Something was served that is older than it should be, because the upstream could not be asked.
    pub fn stale(&self, host: &RegistryHost, age: Duration) {
        self.stale.get_or_create(&of(host)).observe(age.as_secs_f64());
    }

    /// A request was refused.
    pub fn refused(&self, reason: Reason) {
        self.refusals.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc();
    }
}

/// What the parts of pull-through tell of themselves at one moment.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// What is kept.
    pub store: store::Figures,
    /// What is on its way, by upstream.
    pub fills: BTreeMap<RegistryHost, fill::Figures>,
    /// How the endpoints are doing, by upstream.
    pub endpoints: BTreeMap<RegistryHost, Vec<EndpointHealth>>,
}

/// Writes figures when somebody looks.
struct Told(Box<dyn Fn() -> Option<Figures> + Send + Sync>);

impl fmt::Debug for Told {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Told")
    }
}

impl Collector for Told {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(figures) = (self.0)() else { return Ok(()) };
        encode_store(&mut encoder, &figures.store)?;
        encode_fills(&mut encoder, &figures.fills)?;
        encode_endpoints(&mut encoder, &figures.endpoints)
    }
}

/// The name of a counter, what it counts, and where that stands.
type Counted<T> = (&'static str, &'static str, fn(&T) -> u64);

fn gauge(value: u64) -> ConstGauge {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

fn encode_store(encoder: &mut DescriptorEncoder<'_>, store: &store::Figures) -> fmt::Result {
    for (name, help, value) in [
        ("bytes", "Bytes that are kept", store.bytes.unwrap_or_default()),
        ("size_bytes", "Bytes that may be kept", store.size),
        ("refused_pins", "Pins beyond their share of the size", store.pins_refused.len() as u64),
        (
            "index_complete",
            "1 once all that is kept is known, so that something may be evicted",
            store.index_complete.into(),
        ),
    ] {
        gauge(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
    }
    for (name, help, value) in [
        ("evictions", "Images and loose blobs that were evicted", store.evicted_images),
        ("evicted_bytes", "Bytes that were evicted", store.evicted_bytes),
        ("in_use_evictions", "Images that were evicted although they were in use", store.in_use_evicted),
        ("damaged", "Contents that were not what they should have been", store.damaged),
    ] {
        ConstCounter::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
    }
    Ok(())
}

fn encode_fills(encoder: &mut DescriptorEncoder<'_>, fills: &BTreeMap<RegistryHost, fill::Figures>) -> fmt::Result {
    let help = "Blobs that are being fetched";
    let mut family = encoder.encode_descriptor("fills", help, None, MetricType::Gauge)?;
    for (host, fill) in fills {
        gauge(fill.in_flight).encode(family.encode_family(&of(host))?)?;
    }
    let counted: [Counted<fill::Figures>; 3] = [
        ("fetched_bytes", "Bytes of blobs that came from upstreams", |fill| fill.upstream_bytes),
        ("resumed_fills", "Times that a fetch went on behind a cut", |fill| fill.resumed),
        ("passed_through", "Requests answered without keeping anything, for want of room", |fill| fill.passed_through),
    ];
    for (name, help, count) in counted {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (host, fill) in fills {
            ConstCounter::new(count(fill)).encode(family.encode_family(&of(host))?)?;
        }
    }
    let help = "Fetches that came to nothing";
    let mut family = encoder.encode_descriptor("failed_fills", help, None, MetricType::Counter)?;
    for (host, fill) in fills {
        for (reason, count) in &fill.failed {
            let labels = FailureLabels { upstream: Host(host.clone()), reason: reason.as_str() };
            ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn encode_endpoints(
    encoder: &mut DescriptorEncoder<'_>,
    endpoints: &BTreeMap<RegistryHost, Vec<EndpointHealth>>,
) -> fmt::Result {
    let all = || endpoints.iter().flat_map(|(host, all)| all.iter().map(move |health| (labels(host, health), health)));
    let help = "1 while an endpoint is not asked, because it did not answer";
    let mut family = encoder.encode_descriptor("endpoint_away", help, None, MetricType::Gauge)?;
    for (labels, health) in all() {
        let away = u64::from(health.breaker != BreakerState::Closed);
        gauge(away).encode(family.encode_family(&labels)?)?;
    }
    let help = "Requests that an endpoint still grants, as it last said";
    let mut family = encoder.encode_descriptor("endpoint_rate_limit_remaining", help, None, MetricType::Gauge)?;
    for (labels, limit) in all().filter_map(|(labels, health)| Some((labels, health.rate_limit?))) {
        gauge(limit.remaining).encode(family.encode_family(&labels)?)?;
    }
    let counted: [Counted<upstream::Figures>; 4] = [
        ("endpoint_requests", "Requests, with those for tokens and to redirects' targets", |found| found.requests),
        ("endpoint_failures", "Questions that found an endpoint away", |found| found.away),
        ("endpoint_wrong_answers", "Answers that could not be used, refused redirects among them", |found| found.wrong),
        ("endpoint_credentials_rejected", "Refusals of the configured credential", |found| found.credentials_rejected),
    ];
    for (name, help, count) in counted {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, health) in all() {
            ConstCounter::new(count(&health.figures)).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn labels(host: &RegistryHost, health: &EndpointHealth) -> EndpointLabels {
    EndpointLabels { upstream: Host(host.clone()), endpoint: health.endpoint.clone() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus_client::encoding::text::encode;

    use super::super::{fill, store};
    use super::{BreakerState, EndpointHealth, Figures, Metrics, Reason};
    use crate::oci::RegistryHost;
    use crate::serve::upstream::{self, RateLimit};
    use crate::telemetry::MetricsRegistry;

    #[test]
    fn what_is_counted_and_told_is_shown_by_upstream() {
        let mut registry = MetricsRegistry::default();
        let host: RegistryHost = "docker.io".parse().unwrap();
        let endpoint = |name: &str, breaker, remaining: Option<u64>| EndpointHealth {
            endpoint: name.to_owned(),
            breaker,
            problem: None,
            rate_limit: remaining.map(|remaining| RateLimit { limit: None, remaining, window: None }),
            figures: upstream::Figures { wrong: 3, ..upstream::Figures::default() },
        };
        let endpoints = vec![
            endpoint("https://a", BreakerState::Open, None),
            endpoint("https://b", BreakerState::Closed, Some(97)),
        ];
        let failed = [(fill::FailedBy::Wrong, 4)].into();
        let filling = fill::Figures { in_flight: 1, upstream_bytes: 11, failed, ..fill::Figures::default() };
        let kept = store::Figures { bytes: Some(7), size: 9, evicted_images: 2, ..store::Figures::default() };
        let (fills, endpoints) = ([(host.clone(), filling)].into(), [(host.clone(), endpoints)].into());
        let figures = Figures { store: kept, fills, endpoints };
        let metrics = Metrics::register(&mut registry, move || Some(figures.clone()));
        metrics.show([&host]);
        metrics.hit(&host);
        metrics.served(&host, 5);
        metrics.stale(&host, Duration::from_secs(100));
        metrics.refused(Reason::Loop);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "wharf_cache_hits_total{upstream=\"docker.io\"} 1",
            "wharf_cache_misses_total{upstream=\"docker.io\"} 0",
            "wharf_cache_served_bytes_total{upstream=\"docker.io\"} 5",
            "wharf_cache_stale_age_seconds_bucket{le=\"600.0\",upstream=\"docker.io\"} 1",
            "wharf_cache_refusals_total{reason=\"loop\"} 1",
            "wharf_cache_refusals_total{reason=\"away\"} 0",
            "wharf_cache_bytes 7",
            "wharf_cache_size_bytes 9",
            "wharf_cache_fills{upstream=\"docker.io\"} 1",
            "wharf_cache_failed_fills_total{upstream=\"docker.io\",reason=\"wrong\"} 4",
            "wharf_cache_endpoint_wrong_answers_total{upstream=\"docker.io\",endpoint=\"https://b\"} 3",
            "wharf_cache_fetched_bytes_total{upstream=\"docker.io\"} 11",
            "wharf_cache_evictions_total 2",
            "wharf_cache_endpoint_away{upstream=\"docker.io\",endpoint=\"https://a\"} 1",
            "wharf_cache_endpoint_away{upstream=\"docker.io\",endpoint=\"https://b\"} 0",
            "wharf_cache_endpoint_rate_limit_remaining{upstream=\"docker.io\",endpoint=\"https://b\"} 97",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }
}
