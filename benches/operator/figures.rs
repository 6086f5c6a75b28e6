//! The figures: what was measured, beside the goals. It must never show a number that was not measured in this run.

use serde_json::json;

use crate::process::Memory;
use crate::support::table::{Line, Of, line};
use crate::support::values::{Values, machine, range, write};

/// `few` stands for the Registries with pods, `many` for those of the large part.
const TABLE: &[Line] = &[
    line("apply to Ready, few one after another, p50", "ready_one_by_one", Of::Middle, "s", None),
    line("apply to Ready, few one after another, p95", "ready_one_by_one", Of::NinetyFifth, "s", None),
    line("apply to every node can pull, one after another, p95", "nodes_one_by_one", Of::NinetyFifth, "s", None),
    line("apply to Ready, few at once, p50", "ready_at_once", Of::Middle, "s", None),
    line("apply to Ready, few at once, p95", "ready_at_once", Of::NinetyFifth, "s", None),
    line(
        "operator's writes a Registry to converge, one after another",
        "operator_writes_one_by_one",
        Of::Middle,
        "",
        None,
    ),
    line(
        "operator's reads a Registry to converge, one after another",
        "operator_reads_one_by_one",
        Of::Middle,
        "",
        None,
    ),
    line("operator's writes a Registry to converge, at once", "operator_writes_at_once", Of::Middle, "", None),
    line("operator's reads a Registry to converge, at once", "operator_reads_at_once", Of::Middle, "", None),
    line("agents' requests a Registry, one after another: reads", "agent_reads_one_by_one", Of::Middle, "", None),
    line("agents' requests a Registry, one after another: writes", "agent_writes_one_by_one", Of::Middle, "", None),
    line("writes a pass after convergence", "pass_writes", Of::Largest, "", Some(0.0)),
    line("reads a pass after convergence", "pass_reads", Of::Largest, "", Some(1.0)),
    line("many converged after", "many_converged", Of::Middle, "s", None),
    line("operator's processor time for it", "many_processor", Of::Middle, "s", None),
    line("requests in a minute at rest with many: leases", "minute_leases", Of::Largest, "", None),
    line("requests in a minute at rest with many: watches", "minute_watches", Of::Largest, "", None),
    line("requests in a minute at rest with many: anything else", "minute_other", Of::Largest, "", Some(0.0)),
    line("operator's processor time in that minute", "minute_processor", Of::Largest, "s", None),
    line("operator's memory, idle", "operator_idle", Of::Largest, "MiB", Some(20.0)),
    line("operator's memory with many, started with them", "operator_many", Of::Largest, "MiB", Some(40.0)),
    line("operator's memory with many, grown with them", "operator_many_grown", Of::Largest, "MiB", Some(40.0)),
    line("operator's peak while starting with many", "operator_many peak", Of::Largest, "MiB", None),
    line("operator's memory with many and 100 more nodes", "operator_many_nodes", Of::Largest, "MiB", None),
    line("agent's memory, idle", "agent_idle", Of::Largest, "MiB", Some(12.0)),
    line("agent's memory with few", "agent_few", Of::Largest, "MiB", Some(12.0)),
    line("agent's memory with many, started with them", "agent_many", Of::Largest, "MiB", Some(12.0)),
    line("agent's memory with many, grown with them", "agent_many_grown", Of::Largest, "MiB", Some(12.0)),
    line("operator's start with many to the first pass", "start_first_pass", Of::Largest, "s", Some(2.0)),
    line("operator's start with many to a pass over each", "start_all_passes", Of::Largest, "s", None),
    line("100 nodes report once: passes over Registries", "reports_passes", Of::Middle, "", None),
    line("100 nodes report once: operator's processor time", "reports_processor", Of::Middle, "s", None),
    line("100 nodes report once: operator's requests", "reports_requests", Of::Middle, "", Some(0.0)),
];

/// Everything measured so far.
pub struct Figures {
    many: usize,
    suspended: bool,
    values: Values,
}

impl Figures {
    pub fn new(many: usize, suspended: bool) -> Self {
        Self { many, suspended, values: Values::default() }
    }

    pub fn add(&mut self, figure: &str, value: f64) {
        self.values.add(figure, value);
    }

    pub fn memory(&mut self, figure: &str, memory: Memory) {
        self.values.memory(figure, memory);
    }

    /// A table in Markdown, so that it can stand in the documentation as it is.
    pub fn print(&self) {
        let kind = if self.suspended { "suspended, without pods" } else { "with pods" };
        println!("few = 20 Registries with pods; many = {} Registries, {kind}. {}\n", self.many, machine());
        println!("| Figure | Goal | Measured | Range |\n|---|---|---|---|");
        for line in TABLE {
            let Some(values) = self.values.get(line.figure) else { continue };
            let goal = line.goal.map_or(String::new(), |goal| format!("<= {goal} {}", line.unit));
            let (low, high) = range(values);
            let shown = line.of.shown(values);
            let missed = if line.goal.is_some_and(|goal| shown > goal) { " **missed**" } else { "" };
            println!("| {} | {} | {shown:.2} {}{missed} | {low:.2} to {high:.2} |", line.what, goal.trim(), line.unit);
        }
    }

    /// All values, so that another program can compare runs.
    pub fn write(&self) {
        let document = json!({
            "machine": machine(),
            "many": self.many,
            "manyAreSuspended": self.suspended,
            "values": self.values.to_json(),
        });
        write("operator", &document);
    }
}
