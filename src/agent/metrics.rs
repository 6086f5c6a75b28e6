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

/// The agent's metrics. Cloning shares them.
#[derive(Clone, Default)]
pub struct Metrics {
    passes: Family<PassLabels, Counter>,
    operations: Family<OperationLabels, Counter>,
    written: Gauge,
    exceptions: Gauge,
    revision: Gauge,
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

    /// Sets what the last pass found.
    pub fn hosts(&self, written: usize, exceptions: usize, revision: i64) {
        self.written.set(i64::try_from(written).unwrap_or(i64::MAX));
        self.exceptions.set(i64::try_from(exceptions).unwrap_or(i64::MAX));
        self.revision.set(revision);
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
        metrics.hosts(3, 1, 7);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "wharf_agent_passes_total{outcome=\"completed\"} 1",
            "wharf_agent_passes_total{outcome=\"failed\"} 0",
            "wharf_agent_file_operations_total{kind=\"write_hosts\"} 1",
            "wharf_agent_hosts_written 3",
            "wharf_agent_hosts_exceptions 1",
            "wharf_agent_plan_revision 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }
}
