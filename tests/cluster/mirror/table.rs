//! The table of what disruptions cost: measured by its test, written below `target/`, and into the documentation where that is
//! asked for. It must never say what was not measured.

use std::fmt::Write as _;
use std::time::Duration;

use super::pulls::Pull;
use crate::support::{announce, checkout};

/// What stands around the table in the documentation.
const BEGIN: &str = "<!-- measured -->";
const END: &str = "<!-- end -->";

/// What was measured on one node.
#[derive(Clone, Debug)]
pub struct Cost {
    pub direct: Pull,
    pub configured: Pull,
}

impl Cost {
    /// What Wharf added to a pull that works without it; `None` where none does.
    pub fn added(&self) -> Option<f64> {
        let works = self.direct.problem.is_none();
        works.then_some(self.configured.took.as_secs_f64() - self.direct.took.as_secs_f64())
    }

    /// Whether nobody is worse off: no pull fails that works without Wharf, and it takes little more.
    pub fn is_within(&self, limit: Duration) -> bool {
        match self.added() {
            Some(added) => self.configured.problem.is_none() && added <= limit.as_secs_f64(),
            None => self.configured.took <= self.direct.took + limit,
        }
    }
}

#[derive(Default)]
pub struct Table {
    rows: String,
}

impl Table {
    pub fn add(&mut self, what: &str, costs: &[Cost; 2]) {
        let time = |pull: &Pull| {
            let took = format!("{:.2}", pull.took.as_secs_f64());
            if pull.problem.is_some() { format!("fails, {took}") } else { took }
        };
        write!(self.rows, "| {what} |").unwrap();
        for cost in costs {
            let added = cost.added().map_or("–".to_owned(), |added| format!("{added:+.2}"));
            write!(self.rows, " {} | {} | {added} |", time(&cost.direct), time(&cost.configured)).unwrap();
        }
        self.rows.push('\n');
        announce(self.rows.lines().last().unwrap());
    }

    /// Writes it down.
    pub fn finish(&self) {
        let table = format!(
            "| | 2.3: direct | with Mirror | added | 1.6: direct | with Mirror | added |\n|---|---|---|---|---|---|---|\n{}",
            self.rows
        );
        std::fs::write(checkout().join("target/nodes-disruptions.md"), &table).unwrap();
        if std::env::var_os("WHARF_WRITE_TABLE").is_some() {
            let path = checkout().join("docs/nodes-disruptions.md");
            let text = std::fs::read_to_string(&path).unwrap();
            let (before, rest) = text.split_once(BEGIN).unwrap();
            let (_, after) = rest.split_once(END).unwrap();
            std::fs::write(path, format!("{before}{BEGIN}\n{table}{END}{after}")).unwrap();
        }
    }
}
