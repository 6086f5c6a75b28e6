//! The figures: each engine's, side by side, beside the goals. Ratios count, because both sides of one are from the same
//! run; absolute numbers are of this machine.

use serde_json::{Value, json};

use crate::engines::ENGINES;
use crate::support::values::{Values, machine, percentile, range, short, write};

/// The engine that goals are for, and the one that it is compared with.
const SUBJECT: &str = "wharf";
const PEER: &str = "distribution";

/// How much a figure may differ from one that it should equal, for the noise of a shared machine.
const NOISE: f64 = 1.5;

/// What the subject should reach.
#[derive(Clone, Copy)]
enum Goal {
    None,
    AtMost(f64),
    /// Of the peer's, in the same run.
    AtMostTimes(f64),
    AtLeastTimes(f64),
    /// As another figure of its own.
    As(&'static str),
}

/// A line of the table.
struct Line {
    what: &'static str,
    figure: &'static str,
    /// Which of the values is shown: the smallest that this share, in percent, does not exceed.
    percent: usize,
    unit: &'static str,
    goal: Goal,
}

const fn middle(what: &'static str, figure: &'static str, unit: &'static str, goal: Goal) -> Line {
    Line { what, figure, percent: 50, unit, goal }
}

/// The goals that design beside zot are given beside distribution here, by what the two differed when measured together.
const TABLE: &[Line] = &[
    middle("manifest by tag", "tag requests", "requests/s", Goal::AtLeastTimes(7.8)),
    middle("manifest by tag, CPU each", "tag processor", "µs", Goal::AtMost(20.0)),
    middle("manifest by digest", "digest requests", "requests/s", Goal::None),
    middle("manifest by digest, CPU each", "digest processor", "µs", Goal::AtMost(20.0)),
    middle("64 KiB blob", "small requests", "requests/s", Goal::None),
    middle("64 KiB blob, CPU each", "small processor", "µs", Goal::AtMost(25.0)),
    middle("256 MiB blob, 1 client", "plain 1 wall", "GB/s", Goal::None),
    middle("256 MiB blob, 1 client, per CPU second", "plain 1 processor", "GB", Goal::None),
    middle("256 MiB blob, 4 clients", "plain 4 wall", "GB/s", Goal::None),
    middle("256 MiB blob, 4 clients, per CPU second", "plain 4 processor", "GB", Goal::AtLeastTimes(1.75)),
    middle("256 MiB blob, TLS, 1 client", "tls 1 wall", "GB/s", Goal::None),
    middle("256 MiB blob, TLS, 1 client, per CPU second", "tls 1 processor", "GB", Goal::None),
    middle("256 MiB blob, TLS, 4 clients", "tls 4 wall", "GB/s", Goal::None),
    middle("256 MiB blob, TLS, 4 clients, per CPU second", "tls 4 processor", "GB", Goal::None),
    middle("push of 256 MiB, CPU", "push large processor", "s", Goal::AtMostTimes(0.75)),
    middle("push of 256 MiB, wall", "push large wall", "s", Goal::AtMostTimes(1.1)),
    middle("push of 20 layers of 16 KiB and a re-tag, p50", "push image wall", "ms", Goal::AtMostTimes(1.0)),
    Line {
        what: "push of 20 layers of 16 KiB and a re-tag, p99",
        figure: "push image wall",
        percent: 99,
        unit: "ms",
        goal: Goal::AtMostTimes(1.0),
    },
    middle("push of 20 layers of 16 KiB and a re-tag, CPU", "push image processor", "ms", Goal::None),
    middle("memory, idle", "idle", "MiB", Goal::AtMost(12.0)),
    middle("memory, after load", "loaded", "MiB", Goal::AtMost(32.0)),
    middle("memory, at most", "loaded peak", "MiB", Goal::None),
    middle("start to first answer", "start", "s", Goal::AtMost(0.05)),
    middle("manifest by tag, 400 a second, p99", "others alone", "ms", Goal::None),
    middle(
        "the same while 64 readers of 256 MiB take nothing",
        "others beside hanging",
        "ms",
        Goal::As("others alone"),
    ),
    middle("never answered", "others beside hanging unanswered", "requests", Goal::AtMost(0.0)),
    middle("the same while one reads from a slow volume", "others beside slow", "ms", Goal::As("others alone")),
    middle("never answered", "others beside slow unanswered", "requests", Goal::AtMost(0.0)),
    middle("the same while 64 wait for a volume that hangs", "others beside stuck", "ms", Goal::As("others alone")),
    middle("never answered", "others beside stuck unanswered", "requests", Goal::AtMost(0.0)),
];

/// Everything measured so far.
#[derive(Default)]
pub struct Figures {
    values: Values,
}

impl Figures {
    pub fn add(&mut self, engine: &str, figure: &str, value: f64) {
        self.values.add(&format!("{engine}: {figure}"), value);
    }

    pub fn memory(&mut self, engine: &str, figure: &str, memory: crate::support::process::Memory) {
        self.values.memory(&format!("{engine}: {figure}"), memory);
    }

    fn values(&self, engine: &str, figure: &str) -> Option<&[f64]> {
        self.values.get(&format!("{engine}: {figure}"))
    }

    fn shown(&self, engine: &str, line: &Line) -> Option<f64> {
        Some(percentile(self.values(engine, line.figure)?, line.percent))
    }

    /// A table in Markdown, so that it can stand in the documentation as it is.
    pub fn print(&self, rounds: usize) {
        println!("{} Rounds: {rounds}. {}\n", machine(), how());
        let names = ENGINES.iter().map(|engine| engine.name).collect::<Vec<_>>();
        println!("| Figure | {} | {SUBJECT} / {PEER} | Goal |", names.join(" | "));
        println!("|---|{}---|---|", "---|".repeat(names.len()));
        for line in TABLE {
            let cells = names.iter().map(|name| self.cell(name, line)).collect::<Vec<_>>();
            let ratio = self.ratio(line).map_or(String::new(), |ratio| format!("{ratio:.2}"));
            println!("| {}, {} | {} | {ratio} | {} |", line.what, line.unit, cells.join(" | "), self.goal(line));
        }
    }

    /// What is shown of an engine's values, and how they spread.
    fn cell(&self, engine: &str, line: &Line) -> String {
        let Some(values) = self.values(engine, line.figure) else { return String::new() };
        let (low, high) = range(values);
        format!("{} ({} to {})", short(percentile(values, line.percent)), short(low), short(high))
    }

    fn ratio(&self, line: &Line) -> Option<f64> {
        let peer = self.shown(PEER, line).filter(|peer| *peer > 0.0)?;
        Some(self.shown(SUBJECT, line)? / peer)
    }

    fn goal(&self, line: &Line) -> String {
        let (text, reached) = match line.goal {
            Goal::None => return String::new(),
            Goal::AtMost(most) => {
                (format!("≤ {most} {}", line.unit), self.shown(SUBJECT, line).map(|shown| shown <= most))
            }
            Goal::AtMostTimes(most) => (format!("≤ {most} × {PEER}"), self.ratio(line).map(|ratio| ratio <= most)),
            Goal::AtLeastTimes(least) => (format!("≥ {least} × {PEER}"), self.ratio(line).map(|ratio| ratio >= least)),
            Goal::As(figure) => {
                let other = self.shown(SUBJECT, &Line { figure, ..*line });
                let reached = other.zip(self.shown(SUBJECT, line)).map(|(other, shown)| shown <= NOISE * other);
                (format!("unchanged (≤ {NOISE} ×)"), reached)
            }
        };
        format!("{text}{}", if reached == Some(false) { " **missed**" } else { "" })
    }

    /// All values, so that another program can compare runs.
    pub fn write(&self, rounds: usize) {
        let ratios: serde_json::Map<String, Value> = TABLE
            .iter()
            .filter_map(|line| Some((format!("{}, {}", line.what, line.unit), self.ratio(line)?.into())))
            .collect();
        let document = json!({
            "machine": machine(),
            "how": how(),
            "rounds": rounds,
            "ratiosToDistribution": ratios,
            "values": self.values.to_json(),
        });
        write("registry", &document);
    }
}

fn how() -> String {
    format!(
        "Loopback; client and server share the processors. Readers: wrk, one thread, {} connections where no other \
         number stands, and a client of 4 GiB in all for large blobs without TLS; pushes: 4 connections. CPU: the server's processes, from /proc. Middle of the values, range \
         in parentheses.",
        crate::CONNECTIONS
    )
}
