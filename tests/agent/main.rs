//! The agent as processes: what watches and what is watched. A port of an agent that does not turn must be refused, because what
//! accepts and never answers holds up every pull of its node.

#![allow(clippy::restriction, reason = "a test ends by panicking")]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;

/// How long a process may take to come up on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the port of an agent that does not turn may go on accepting, with a busy machine's share.
const REFUSED: Duration = Duration::from_secs(6);

/// An agent on a node that is a few empty folders, with an API server that is away.
struct Agent {
    supervisor: Child,
    endpoint: SocketAddr,
    _folder: TempDir,
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Agent {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        let text = "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
            contexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {token: t}}]\n\
            clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\n";
        std::fs::write(&kubeconfig, text).unwrap();
        let (endpoint, listen) = (free_address(), free_address());
        let place = |name: &str| {
            let place = folder.path().join(name);
            std::fs::create_dir(&place).unwrap();
            place
        };
        // As container runtimes start it.
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -Sn 1024 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_wharf")]);
        command.args(["--log", "warn", "agent", "--node-name", "n", "--namespace", "wharf-system"]);
        command.arg("--local-port").arg(endpoint.port().to_string()).arg("--listen").arg(listen.to_string());
        command.arg("--state-folder").arg(place("state")).arg("--containerd-root").arg(place("containerd"));
        command.env("KUBECONFIG", kubeconfig).stdin(Stdio::null()).stdout(Stdio::null());
        let supervisor = command.spawn().unwrap();
        let agent = Self { supervisor, endpoint, _folder: folder };
        agent.until_it_accepts();
        agent
    }

    fn id(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.supervisor.id()).unwrap()).unwrap()
    }

    fn until_it_accepts(&self) {
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(self.endpoint).is_err() {
            assert!(Instant::now() < end, "nothing listens at {}", self.endpoint);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// How long it takes until the port is refused.
    fn until_it_is_refused(&self) -> Duration {
        let began = Instant::now();
        while TcpStream::connect(self.endpoint).is_ok() {
            assert!(began.elapsed() < PATIENCE, "{} goes on accepting", self.endpoint);
            std::thread::sleep(Duration::from_millis(20));
        }
        began.elapsed()
    }

    /// The one child of the process that was started.
    fn worker(&self) -> Pid {
        let id = self.supervisor.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        Pid::from_raw(children.trim().parse().unwrap()).unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.supervisor.kill();
        let _ = self.supervisor.wait();
    }
}

fn until_it_has_ended(process: Pid) {
    let end = Instant::now() + PATIENCE;
    while test_kill_process(process).is_ok() {
        assert!(Instant::now() < end, "{process:?} lives on");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_port_of_a_frozen_worker_is_refused_and_another_one_takes_over() {
    let agent = Agent::start();
    let frozen = agent.worker();
    // It has told that it turns, so that its silence counts.
    std::thread::sleep(Duration::from_secs(1));
    kill_process(frozen, Signal::STOP).unwrap();
    let time = agent.until_it_is_refused();
    assert!(time < REFUSED, "{time:?}");
    agent.until_it_accepts();
    assert_ne!(agent.worker(), frozen);
}

#[test]
fn a_worker_that_is_killed_is_started_again() {
    let agent = Agent::start();
    let killed = agent.worker();
    kill_process(killed, Signal::KILL).unwrap();
    until_it_has_ended(killed);
    agent.until_it_accepts();
    assert_ne!(agent.worker(), killed);
}

#[test]
fn a_worker_ends_with_who_watches_it() {
    let mut agent = Agent::start();
    let worker = agent.worker();
    agent.supervisor.kill().unwrap();
    agent.supervisor.wait().unwrap();
    let time = agent.until_it_is_refused();
    assert!(time < REFUSED, "{time:?}");
    until_it_has_ended(worker);
}

#[test]
fn a_worker_is_told_to_stop_and_waited_for() {
    let mut agent = Agent::start();
    let worker = agent.worker();
    kill_process(agent.id(), Signal::TERM).unwrap();
    let status = agent.supervisor.wait().unwrap();
    assert!(status.success(), "{status}");
    assert!(test_kill_process(worker).is_err(), "{worker:?} lives on");
}

#[test]
fn a_frozen_worker_does_not_keep_its_port_while_the_agent_stops() {
    let mut agent = Agent::start();
    let worker = agent.worker();
    kill_process(worker, Signal::STOP).unwrap();
    kill_process(agent.id(), Signal::TERM).unwrap();
    let time = agent.until_it_is_refused();
    assert!(time < Duration::from_secs(10), "{time:?}");
    agent.supervisor.wait().unwrap();
    until_it_has_ended(worker);
}

#[test]
fn a_worker_may_open_as_many_files_as_it_has_connections() {
    let agent = Agent::start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", agent.worker().as_raw_nonzero())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let soft: u64 = files.split_whitespace().nth(3).unwrap().parse().unwrap();
    assert!(soft >= 4096, "{files}");
}
