//! Starts and ends a server that is measured. It must never end a process that it did not start, and leaves none running, also
//! when a measurement fails.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::process::{Memory, Process};

/// A bound against hanging, not an expectation.
const PATIENCE: Duration = Duration::from_secs(120);

/// An address of this machine that nobody listens at.
pub fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// A server that runs; dropping it ends it.
pub struct Server {
    pub address: SocketAddr,
    pub tls: bool,
    child: Child,
    /// From the start of its process to its first answer, in seconds.
    pub started_after: f64,
}

impl Server {
    /// Starts a program that then listens at an address, and waits until it answers.
    pub fn start(
        name: &str,
        program: &Path,
        arguments: &[String],
        folder: &Path,
        address: SocketAddr,
        tls: bool,
    ) -> Self {
        let log = File::create(folder.join(format!("{name}.log"))).unwrap();
        // The server also ends when this program is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]).arg(program).args(arguments);
        command.env("OTEL_TRACES_EXPORTER", "none").stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let started = Instant::now();
        let child = command.spawn().unwrap_or_else(|error| panic!("starting {name}: {error}"));
        let mut server = Self { address, tls, child, started_after: 0.0 };
        while !server.answers() {
            let ended = server.child.try_wait().unwrap();
            let log = folder.join(format!("{name}.log"));
            assert!(ended.is_none(), "{name} ended: {}", std::fs::read_to_string(log).unwrap_or_default());
            assert!(started.elapsed() < PATIENCE, "{name} does not answer");
            std::thread::sleep(Duration::from_millis(1));
        }
        server.started_after = started.elapsed().as_secs_f64();
        server
    }

    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(self.address) else { return false };
        // A server that wants TLS closes the connection or says that it does, and either way it is there.
        let asked = stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        asked.is_ok() && stream.read(&mut [0; 64]).is_ok_and(|length| self.tls || length > 0)
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", if self.tls { "https" } else { "http" }, self.address)
    }

    /// Its process and those it started.
    pub fn processes(&self) -> Vec<Process> {
        let mut found = vec![Process { pid: self.child.id() }];
        let mut next = 0;
        while let Some(process) = found.get(next) {
            let children = std::fs::read_to_string(process.file(&format!("task/{}/children", process.pid)));
            let children = children.unwrap_or_default();
            found.extend(children.split_whitespace().map(|pid| Process { pid: pid.parse().unwrap() }));
            next += 1;
        }
        found
    }

    /// Seconds of processor time that it has used.
    pub fn processor(&self) -> f64 {
        self.processes().iter().map(Process::processor).sum()
    }

    /// What it holds in memory; pages that its processes share are counted in each.
    pub fn memory(&self) -> Memory {
        self.processes().iter().map(Process::memory).sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let processes = self.processes();
        let signal = |signal| {
            for process in &processes {
                // Those that the first one started may have ended with it.
                let _ = kill_process(Pid::from_raw(process.pid.cast_signed()).unwrap(), signal);
            }
        };
        // The first process ends the others in good order.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let asked = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if asked.elapsed() > Duration::from_secs(5) {
                signal(Signal::KILL);
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
