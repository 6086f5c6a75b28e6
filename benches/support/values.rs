//! The values that figures are made of. It must never show a number that was not measured in this run.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::process::Memory;

/// Everything measured so far, by the name of the figure.
#[derive(Default)]
pub struct Values(BTreeMap<String, Vec<f64>>);

impl Values {
    pub fn add(&mut self, figure: &str, value: f64) {
        self.0.entry(figure.to_owned()).or_default().push(value);
    }

    pub fn memory(&mut self, figure: &str, memory: Memory) {
        self.add(figure, memory.resident);
        self.add(&format!("{figure} allocated"), memory.allocated);
        self.add(&format!("{figure} peak"), memory.peak);
        eprintln!(
            "    {figure}: {:.1} MiB resident, {:.1} of it allocated, {:.1} at most",
            memory.resident, memory.allocated, memory.peak
        );
    }

    pub fn get(&self, figure: &str) -> Option<&[f64]> {
        self.0.get(figure).map(Vec::as_slice)
    }

    pub fn to_json(&self) -> Value {
        serde_json::to_value(&self.0).unwrap()
    }
}

/// The smallest value that this share of all, in percent, does not exceed.
pub fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() * percent).div_ceil(100) - 1]
}

/// The smallest and the largest.
pub fn range(values: &[f64]) -> (f64, f64) {
    (values.iter().copied().fold(f64::MAX, f64::min), values.iter().copied().fold(0.0, f64::max))
}

/// Three digits that mean something.
pub fn short(value: f64) -> String {
    match value {
        _ if value >= 100.0 => format!("{value:.0}"),
        _ if value >= 10.0 => format!("{value:.1}"),
        _ if value >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Writes `target/bench/NAME.json`, so that another program can compare runs.
pub fn write(name: &str, document: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench").join(name).with_extension("json");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, serde_json::to_string_pretty(document).unwrap()).unwrap();
    eprintln!("written to {}", path.display());
}

/// What the figures were measured on.
pub fn machine() -> String {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().expect("a usual program");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kibibytes: u64 = memory.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    format!("{} processors, {} GiB, Linux {}", said("nproc", &[]), kibibytes / 1024 / 1024, said("uname", &["-r"]))
}
