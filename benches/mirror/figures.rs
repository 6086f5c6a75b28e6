//! The figures: each mirror's beside the other's, the goals beside them. It must never show a number that was not measured in
//! this run; what compares two of them compares them within one round.

use serde_json::json;

use crate::engines::ENGINES;
use crate::support::values::{Values, machine, percentile, range, short, write};

/// What the first of the mirrors should reach.
#[derive(Clone, Copy)]
enum Goal {
    None,
    AtMost(f64),
    AtLeast(f64),
}

/// A line of the table.
struct Line {
    what: &'static str,
    figure: &'static str,
    unit: &'static str,
    goal: Goal,
}

const fn line(what: &'static str, figure: &'static str, unit: &'static str, goal: Goal) -> Line {
    Line { what, figure, unit, goal }
}

const TABLE: &[Line] = &[
    line("cold pull of 200 MiB at 40 MB/s: headers of the layer", "cold headers", "s", Goal::AtMost(0.03)),
    line("the same: total", "cold total", "s", Goal::None),
    line("the same: total, against direct", "cold against direct", "times", Goal::AtMost(1.02)),
    line(
        "cold pull through tokens, redirects, 20 ms round trips: headers of the layer",
        "far headers",
        "s",
        Goal::None,
    ),
    line("the same: total", "far total", "s", Goal::None),
    line("the same: more than direct", "far against direct", "ms", Goal::AtMost(50.0)),
    line("upstream requests for 5 objects, tokens warm", "requests", "requests", Goal::AtMost(6.0)),
    line("20 clients, cold: upstream bytes / unique bytes", "twenty bytes", "times", Goal::AtMost(1.0)),
    line("the same: the slowest client", "twenty total", "s", Goal::None),
    line("miss of 200 MiB, fast upstream", "miss rate", "MB/s", Goal::None),
    line("the same: share of a plain loop", "miss share", "times", Goal::AtLeast(0.8)),
    line("the same: processor time", "miss processor", "s per GB", Goal::None),
    line("cached pull of 6 objects, p50", "healthy p50", "ms", Goal::AtMost(3.0)),
    line("cached pull of 6 objects, p99", "healthy p99", "ms", Goal::None),
    line("upstream requests of 300 such pulls", "healthy requests", "requests", Goal::AtMost(0.0)),
    line("upstream refuses: the first ten pulls, slowest", "refusing first", "ms", Goal::None),
    line("upstream refuses: then, p50", "refusing p50", "ms", Goal::None),
    line("the same, against healthy", "refusing against healthy", "times", Goal::AtMost(1.1)),
    line("upstream is silent: the first pull", "silent first", "ms", Goal::None),
    line("upstream is silent: then, p50", "silent p50", "ms", Goal::None),
    line("the same, against healthy", "silent against healthy", "times", Goal::AtMost(1.1)),
    line("memory, idle", "idle", "MiB", Goal::None),
    line("memory, 100 fills with 1,000 readers, at most", "crowd peak", "MiB", Goal::AtMost(64.0)),
    line("the same: allocated of it", "crowd allocated", "MiB", Goal::None),
    line("the same: the slowest reader", "crowd total", "s", Goal::None),
];

/// What stands where nothing was served at all.
pub const NONE: f64 = f64::INFINITY;

/// Everything measured so far.
#[derive(Default)]
pub struct Figures(Values);

impl Figures {
    pub fn add(&mut self, engine: &str, figure: &str, value: f64) {
        eprintln!("    {engine}: {figure}: {}", short(value));
        self.0.add(&format!("{engine}: {figure}"), value);
    }

    /// A table in Markdown, so that it can stand in the documentation as it is.
    pub fn print(&self, rounds: usize) {
        println!("{} Rounds: {rounds}. {}\n", machine(), how());
        let names = ENGINES.iter().map(|engine| engine.name).chain([REFERENCE]).collect::<Vec<_>>();
        println!("| Figure | {} | Goal |\n|---|{}---|", names.join(" | "), "---|".repeat(names.len()));
        for line in TABLE {
            let cells = names.iter().map(|name| self.cell(name, line)).collect::<Vec<_>>();
            println!("| {}, {} | {} | {} |", line.what, line.unit, cells.join(" | "), self.goal(line));
        }
    }

    fn values(&self, engine: &str, line: &Line) -> Option<&[f64]> {
        self.0.get(&format!("{engine}: {}", line.figure))
    }

    /// The middle of the values, and how they spread.
    fn cell(&self, engine: &str, line: &Line) -> String {
        let Some(values) = self.values(engine, line) else { return String::new() };
        let (low, high) = range(values);
        let middle = percentile(values, 50);
        if middle == NONE {
            return "none in 30 s".to_owned();
        }
        format!("{} ({} to {})", short(middle), short(low), short(high))
    }

    fn goal(&self, line: &Line) -> String {
        // As it is shown.
        let rounded = |values| (percentile(values, 50) * 100.0).round() / 100.0;
        let shown = self.values(ENGINES[0].name, line).map(rounded);
        let (text, reached) = match line.goal {
            Goal::None => return String::new(),
            Goal::AtMost(most) => (format!("≤ {most}"), shown.map(|shown| shown <= most)),
            Goal::AtLeast(least) => (format!("≥ {least}"), shown.map(|shown| shown >= least)),
        };
        format!("{text}{}", if reached == Some(false) { " **missed**" } else { "" })
    }

    /// All values, so that another program can compare runs.
    pub fn write(&self, rounds: usize) {
        let values = self.0.to_json();
        write("mirror", &json!({"machine": machine(), "how": how(), "rounds": rounds, "values": values}));
    }
}

/// What stands beside the mirrors: pulls without one, and the plain loop.
pub const REFERENCE: &str = "without a mirror";

fn how() -> String {
    "Loopback; the upstream, the mirror and its clients share the processors. The upstream is this program, and counts what it \
     is asked and sends; 20 ms round trips are waits of it where a connection begins and before each answer. Without a \
     mirror: the client at the upstream, and for misses a loop of receive, hash, write and send. Middle of the values, range \
     in parentheses."
        .to_owned()
}
