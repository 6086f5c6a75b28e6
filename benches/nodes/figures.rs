//! The figures: what was measured, beside the goals. It must never show a number that was not measured in this run.

use serde_json::json;

use crate::support::process::Memory;
use crate::support::table::{Line, Of, line};
use crate::support::values::{Values, machine, range, short, write};

const ENDPOINT: &[Line] = &[
    line(
        "through the endpoint, TLS on both sides: agent's processor time",
        "tls processor",
        Of::Middle,
        "s per GB",
        Some(1.5),
    ),
    line("the same: bytes", "tls rate", Of::Middle, "MB/s", None),
    line(
        "the same, plain on both sides: agent's processor time",
        "plain processor",
        Of::Middle,
        "s per GB",
        Some(0.35),
    ),
    line("the same: bytes", "plain rate", Of::Middle, "MB/s", None),
    line("agent's memory, idle", "agent idle", Of::Largest, "MiB", None),
    line("agent's memory, after load", "agent loaded", Of::Largest, "MiB", Some(16.0)),
    line("the same: allocated of it", "agent loaded allocated", Of::Largest, "MiB", None),
    line("agent's memory, at most", "agent loaded peak", Of::Largest, "MiB", None),
    line("a manifest from the mirror itself, p50", "direct p50", Of::Middle, "ms", None),
    line("a manifest from the mirror itself, p99", "direct p99", Of::Middle, "ms", None),
    line("a manifest through the endpoint, p50", "through p50", Of::Middle, "ms", None),
    line("a manifest through the endpoint, p99", "through p99", Of::Middle, "ms", None),
    line("the endpoint adds, p50", "added p50", Of::Middle, "ms", Some(1.0)),
    line("the endpoint adds, p99", "added p99", Of::Middle, "ms", Some(3.0)),
    line("1 pull: bytes from the upstream, of the image's", "bytes of 1", Of::Largest, "times", Some(1.0)),
    line("3 pulls at once, on three nodes: the same", "bytes of 3", Of::Largest, "times", Some(1.0)),
    line("10 pulls at once, on three nodes: the same", "bytes of 10", Of::Largest, "times", Some(1.0)),
];

const CLUSTER: &[Line] = &[
    line("pod from 200 MiB at 20 MB/s, no Mirror: until it runs", "pod direct", Of::Middle, "s", None),
    line("the same through a Mirror that has nothing", "pod first", Of::Middle, "s", None),
    line("the same, against no Mirror", "pod first against direct", Of::Middle, "times", Some(1.05)),
    line("the same on a second node", "pod second", Of::Middle, "s", None),
    line("the same: bytes from the upstream, of the image's", "pod second bytes", Of::Largest, "times", Some(0.0)),
    line("at rest, a minute: agents begin to watch", "rest agents watches", Of::Largest, "", None),
    line("at rest, a minute: agents ask anything else", "rest agents other", Of::Largest, "", Some(0.0)),
    line(
        "at rest, a minute: operator asks anything but leases and watches",
        "rest operator other",
        Of::Largest,
        "",
        None,
    ),
    line("at rest, a minute: writes of all", "rest writes", Of::Largest, "", Some(0.0)),
    line("at rest, a minute: bytes an agent", "rest bytes", Of::Largest, "bytes", None),
    line("at rest, a minute: operator's processor time", "rest processor", Of::Largest, "s", None),
    line("a change: from apply until the plan is written", "change written", Of::Middle, "s", None),
    line("a change: from apply until every agent has reported it", "change told", Of::Middle, "s", None),
    line("a change: requests an agent", "change requests", Of::Middle, "", None),
    line("a change: bytes to an agent", "change bytes to", Of::Middle, "KiB", None),
    line("a change: bytes from an agent", "change bytes from", Of::Middle, "KiB", None),
    line("a change: bytes to all agents", "change bytes all", Of::Middle, "MiB", None),
    line("a change: operator's processor time", "change processor", Of::Middle, "s", None),
    line("operator's memory then", "operator", Of::Largest, "MiB", None),
    line("operator's peak", "operator peak", Of::Largest, "MiB", None),
];

/// Everything measured so far.
#[derive(Default)]
pub struct Figures(Values);

impl Figures {
    pub fn add(&mut self, figure: &str, value: f64) {
        eprintln!("    {figure}: {}", short(value));
        self.0.add(figure, value);
    }

    pub fn memory(&mut self, figure: &str, memory: Memory) {
        self.0.memory(figure, memory);
    }

    /// Tables in Markdown, so that they can stand in the documentation as they are.
    pub fn print(&self) {
        println!("{}. Middle of the values, range in parentheses; memory at its largest.\n", machine());
        for table in [ENDPOINT, CLUSTER] {
            let lines: Vec<String> = table.iter().filter_map(|line| self.row(line)).collect();
            if !lines.is_empty() {
                println!("| Figure | Measured | Goal |\n|---|---|---|\n{}\n", lines.join("\n"));
            }
        }
    }

    fn row(&self, line: &Line) -> Option<String> {
        let values = self.0.get(line.figure)?;
        let shown = line.of.shown(values);
        let (low, high) = range(values);
        let spread = if values.len() > 1 { format!(" ({} to {})", short(low), short(high)) } else { String::new() };
        // As it is shown: rounded.
        let missed = |goal: f64| if (shown * 100.0).round() / 100.0 > goal { " **missed**" } else { "" };
        let goal = line.goal.map_or(String::new(), |goal| format!("≤ {goal}{}", missed(goal)));
        let unit = if line.unit.is_empty() { String::new() } else { format!(", {}", line.unit) };
        Some(format!("| {}{unit} | {}{spread} | {goal} |", line.what, short(shown)))
    }

    /// All values, so that another program can compare runs.
    pub fn write(&self) {
        write("nodes", &json!({"machine": machine(), "values": self.0.to_json()}));
    }
}
