//! Finds Wharf's processes: the test cluster's nodes run on this machine, so `/proc` shows them.
//! It must never take a process of another cluster for ours: a process is found by the UID of its pod.

use std::process::Command;

use jiff::Timestamp;

use crate::support::process::seconds;
pub use crate::support::process::{Memory, Process};

impl Process {
    /// The processes of Wharf in the pod of that UID: an agent has a supervisor and a worker.
    pub fn of_pod(uid: &str) -> Vec<Self> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let of_it = entries.filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let groups = std::fs::read_to_string(entry.path().join("cgroup")).ok()?;
            let command = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
            (groups.contains(uid) && command.starts_with("/usr/bin/wharf")).then_some(Self { pid })
        });
        of_it.collect()
    }

    /// When it started, to a hundredth of a second.
    pub fn started(&self) -> Timestamp {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = uptime.split_whitespace().next().unwrap().parse().unwrap();
        let age = uptime - seconds(self.stat()[19]);
        Timestamp::now() - jiff::SignedDuration::from_secs_f64(age)
    }

    /// The process's metrics, asked for from inside its own network. The API server's proxy would be later: it waits for
    /// the kubelet to report the pod's address.
    pub fn metrics(&self, port: u16) -> Option<String> {
        let pid = self.pid.to_string();
        let url = format!("http://127.0.0.1:{port}/metrics");
        let output = Command::new("nsenter").args(["-t", &pid, "-n", "curl", "-s", "-m", "2", &url]).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// How many passes over Registries the operator has ended.
    pub fn passes(&self) -> u64 {
        let text = self.metrics(8080).unwrap_or_default();
        text.lines()
            .filter(|line| line.starts_with("wharf_operator_passes_total{controller=\"registry\""))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }
}
