//! Looks at Wharf's processes from outside: the test cluster's nodes run on this machine, so `/proc` shows them.
//! It must never take a process of another cluster for ours: a process is found by the UID of its pod.

use std::path::PathBuf;
use std::process::Command;

use jiff::Timestamp;

/// A running process of Wharf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
}

/// What a process holds in memory, in MiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// All that is resident, the program's own pages included.
    pub resident: f64,
    /// Of it, what the process allocated.
    pub allocated: f64,
    /// The most that was ever resident.
    pub peak: f64,
}

impl Process {
    /// The process of Wharf in the pod of that UID.
    pub fn of_pod(uid: &str) -> Option<Self> {
        let entries = std::fs::read_dir("/proc").ok()?;
        entries.flatten().find_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let groups = std::fs::read_to_string(entry.path().join("cgroup")).ok()?;
            let command = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
            (groups.contains(uid) && command.starts_with("/usr/bin/wharf")).then_some(Self { pid })
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }

    pub fn memory(&self) -> Memory {
        let status = std::fs::read_to_string(self.file("status")).expect("the process runs");
        let mebibytes = |key: &str| -> f64 {
            let line = status.lines().find(|line| line.starts_with(key)).expect("the kernel tells it");
            let kibibytes: u32 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
            f64::from(kibibytes) / 1024.0
        };
        Memory { resident: mebibytes("VmRSS:"), allocated: mebibytes("RssAnon:"), peak: mebibytes("VmHWM:") }
    }

    /// The fields of `/proc/PID/stat` after the program's name.
    fn stat(&self) -> Vec<u64> {
        let stat = std::fs::read_to_string(self.file("stat")).expect("the process runs");
        let fields = stat.rsplit(')').next().unwrap();
        fields.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect()
    }

    /// Seconds of processor time that it has used.
    pub fn processor(&self) -> f64 {
        let stat = self.stat();
        seconds(stat[11] + stat[12])
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

/// Clock ticks as seconds; Linux shows 100 a second to every program.
fn seconds(ticks: u64) -> f64 {
    ticks as f64 / 100.0
}
