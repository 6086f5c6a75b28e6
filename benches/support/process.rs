//! Looks at a running process from outside, through `/proc`. It must never change what it looks at.

use std::iter::Sum;
use std::path::PathBuf;

/// A running process.
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

/// Of several processes; pages that they share are counted in each.
impl Sum for Memory {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        let nothing = Self { resident: 0.0, allocated: 0.0, peak: 0.0 };
        all.fold(nothing, |sum, one| Self {
            resident: sum.resident + one.resident,
            allocated: sum.allocated + one.allocated,
            peak: sum.peak + one.peak,
        })
    }
}

impl Memory {
    /// Of processes of one program: its own pages, which all of them have, are counted once.
    #[allow(dead_code, reason = "each benchmark uses its part")]
    pub fn of_one_program(processes: &[Process]) -> Self {
        let all: Vec<Self> = processes.iter().map(Process::memory).collect();
        let sum: Self = all.iter().copied().sum();
        let shared = |memory: &Self| memory.resident - memory.allocated;
        let twice = all.iter().map(shared).sum::<f64>() - all.iter().map(shared).fold(0.0, f64::max);
        Self { resident: sum.resident - twice, peak: sum.peak - twice, ..sum }
    }
}

impl Process {
    pub fn file(&self, name: &str) -> PathBuf {
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
    pub fn stat(&self) -> Vec<u64> {
        let stat = std::fs::read_to_string(self.file("stat")).expect("the process runs");
        let fields = stat.rsplit(')').next().unwrap();
        fields.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect()
    }

    /// Seconds of processor time that it has used.
    pub fn processor(&self) -> f64 {
        let stat = self.stat();
        seconds(stat[11] + stat[12])
    }
}

/// Clock ticks as seconds; Linux shows 100 a second to every program.
pub fn seconds(ticks: u64) -> f64 {
    ticks as f64 / 100.0
}
