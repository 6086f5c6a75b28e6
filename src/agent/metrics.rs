//! What the agent counts. Labels are a fixed set; no host, node or object name is ever one.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::telemetry::MetricsRegistry;

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum PassOutcome {
    /// All was done that can be done on this node.
    #[allow(non_camel_case_types, reason = "the variant's name is the label's value")]
    completed,
    /// Something has to be tried again.
    #[allow(non_camel_case_types, reason = "the variant's name is the label's value")]
    failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PassLabels {
    outcome: PassOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProbeLabels {
    outcome: ProbeOutcome,
}

/// What came of asking for a host through the node's own endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum ProbeOutcome {
    #[allow(non_camel_case_types, reason = "the variant's name is the label's value")]
    answered,
    #[allow(non_camel_case_types, reason = "the variant's name is the label's value")]
    failed,
}

/// How many hosts there are of each kind, and how the endpoint is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Hosts whose files stand as planned.
    pub written: usize,
    /// Hosts that are not in order.
    pub exceptions: usize,
    /// Hosts of Mirrors whose files stand as planned.
    pub mirrors_written: usize,
    /// Those of them that can be reached.
    pub mirrors_reachable: usize,
    /// The revision of the plan.
    pub revision: i64,
    /// The node's own endpoint serves.
    pub serving: bool,
}

/// The agent's metrics. Cloning shares them.
#[derive(Clone, Default)]
pub struct Metrics {
    passes: Family<PassLabels, Counter>,
    operations: Family<OperationLabels, Counter>,
    written: Gauge,
    exceptions: Gauge,
    mirrors_written: Gauge,
    mirrors_reachable: Gauge,
    revision: Gauge,
    serving: Gauge,
    probes: Family<ProbeLabels, Counter>,
}

impl Metrics {
    /// Registers the metrics.
    #[must_use]
    pub fn register(registry: &mut MetricsRegistry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("wharf_agent");
        registry.register("passes", "Comparisons of the node with the plan, by outcome", metrics.passes.clone());
        registry.register(
            "file_operations",
            "Changes made to files and folders of the node, by kind",
            metrics.operations.clone(),
        );
        registry.register("hosts_written", "Hosts whose files stand as planned", metrics.written.clone());
        registry.register("hosts_exceptions", "Hosts that are not in order", metrics.exceptions.clone());
        registry.register("plan_revision", "Revision of the plan in use", metrics.revision.clone());
        registry.register(
            "mirror_hosts_written",
            "Hosts of Mirrors whose files stand as planned",
            metrics.mirrors_written.clone(),
        );
        registry.register(
            "mirror_hosts_reachable",
            "Hosts of Mirrors that answer through the node's own endpoint",
            metrics.mirrors_reachable.clone(),
        );
        registry.register("endpoint_bound", "Whether the node's own endpoint has its port", metrics.serving.clone());
        registry.register("probes", "Attempts to reach a host, by outcome", metrics.probes.clone());
        for outcome in [ProbeOutcome::answered, ProbeOutcome::failed] {
            let _ = metrics.probes.get_or_create(&ProbeLabels { outcome });
        }
        for outcome in [PassOutcome::completed, PassOutcome::failed] {
            let _ = metrics.passes.get_or_create(&PassLabels { outcome });
        }
        metrics
    }

    /// Counts a pass.
    pub fn pass(&self, outcome: PassOutcome) {
        self.passes.get_or_create(&PassLabels { outcome }).inc();
    }

    /// Counts a change of a file or folder.
    pub fn operation(&self, kind: &'static str) {
        self.operations.get_or_create(&OperationLabels { kind }).inc();
    }

    /// Counts an attempt to reach a host.
    pub fn probe(&self, answered: bool) {
        let outcome = if answered { ProbeOutcome::answered } else { ProbeOutcome::failed };
        self.probes.get_or_create(&ProbeLabels { outcome }).inc();
    }

    /// Sets what the last pass found.
    pub fn set(&self, figures: Figures) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.written.set(number(figures.written));
        self.exceptions.set(number(figures.exceptions));
        self.mirrors_written.set(number(figures.mirrors_written));
        self.mirrors_reachable.set(number(figures.mirrors_reachable));
        self.revision.set(figures.revision);
        self.serving.set(i64::from(figures.serving));
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn metrics_have_their_documented_names() {
        let mut registry = MetricsRegistry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.pass(PassOutcome::completed);
        metrics.operation("write_hosts");
        metrics.probe(false);
        metrics.set(Figures {
            written: 3,
            exceptions: 1,
            mirrors_written: 2,
            mirrors_reachable: 1,
            revision: 7,
            serving: true,
        });
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "wharf_agent_passes_total{outcome=\"completed\"} 1",
            "wharf_agent_passes_total{outcome=\"failed\"} 0",
            "wharf_agent_file_operations_total{kind=\"write_hosts\"} 1",
            "wharf_agent_hosts_written 3",
            "wharf_agent_hosts_exceptions 1",
            "wharf_agent_plan_revision 7",
            "wharf_agent_mirror_hosts_written 2",
            "wharf_agent_mirror_hosts_reachable 1",
            "wharf_agent_endpoint_bound 1",
            "wharf_agent_probes_total{outcome=\"answered\"} 0",
            "wharf_agent_probes_total{outcome=\"failed\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }
}
