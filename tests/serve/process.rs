//! `wharf serve` as a process of its own.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::client::Client;

/// How long a process may take to come up on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that ends with the test.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
}

/// An address that nobody listens on, and that no other test was given.
pub fn free_address() -> SocketAddr {
    static GIVEN: Mutex<BTreeSet<SocketAddr>> = Mutex::new(BTreeSet::new());
    loop {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        if GIVEN.lock().unwrap().insert(address) {
            return address;
        }
    }
}

impl Process {
    /// Starts the server on a root, and waits until it answers.
    pub fn serve(root: &Path) -> Self {
        Self::serve_with(root, &[])
    }

    pub fn serve_with(root: &Path, arguments: &[&str]) -> Self {
        let address = free_address();
        let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
        command.args(["--log", "warn", "serve", "--root"]).arg(root).args(["--listen", &address.to_string()]);
        Self::start(command.args(arguments), address)
    }

    /// As [`Process::serve`], with its log in a file, a JSON object a line.
    pub fn serve_logged(root: &Path, log: &Path) -> Self {
        let address = free_address();
        let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
        command.args(["--log-format", "json", "serve", "--root"]).arg(root).args(["--listen", &address.to_string()]);
        Self::start(command.stderr(std::fs::File::create(log).unwrap()), address)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Starts a program, and waits until it listens.
    pub fn start(command: &mut Command, address: SocketAddr) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let process = Self { child, address };
        let end = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(address).is_err() {
            assert!(Instant::now() < end, "{command:?} does not listen on {address}");
            std::thread::sleep(Duration::from_millis(20));
        }
        process
    }

    pub fn client(&self) -> Client {
        Client::new(&self.address.to_string())
    }

    /// Ends the process at once, as `kill -9` does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks the process to stop, and waits.
    pub fn stop(mut self) -> std::process::ExitStatus {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
