//! The engines that are measured, and starting and ending them. It must never end a process that it did not start, and
//! leaves none running, also when a measurement fails.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::content::Blob;
use crate::support::process::{Memory, Process};

/// A bound against hanging, not an expectation.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server that is measured.
pub struct Engine {
    pub name: &'static str,
    program: &'static str,
    /// Writes its configuration, if it has any, and gives back its arguments.
    arguments: fn(&Place) -> Vec<String>,
    /// Whether it takes pushes; otherwise its files are written for it.
    pub takes_pushes: bool,
}

/// Every engine of the run. They do what they do as Wharf's Registry runs them, access log included; nginx is the limit: it
/// only sends files, and logs nothing.
pub const ENGINES: &[Engine] = &[
    Engine { name: "wharf", program: "target/dev/wharf/wharf", arguments: wharf_arguments, takes_pushes: true },
    Engine {
        name: "distribution",
        program: "target/dev/bin/registry",
        arguments: distribution_arguments,
        takes_pushes: true,
    },
    Engine {
        name: "nginx",
        program: "target/dev/nginx/usr/sbin/nginx",
        arguments: nginx_arguments,
        takes_pushes: false,
    },
];

/// What an engine has to itself.
pub struct Place {
    /// Its folder, outside of what it serves.
    pub folder: PathBuf,
    /// What it serves.
    pub root: PathBuf,
    pub address: SocketAddr,
    pub tls: bool,
}

impl Place {
    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

fn wharf_arguments(place: &Place) -> Vec<String> {
    let tls = json!({"certificate": place.file("tls.crt"), "key": place.file("tls.key")});
    let mut configuration = json!({"root": place.root, "listen": place.address});
    if place.tls {
        configuration["tls"] = tls;
    }
    // What is JSON is YAML too.
    std::fs::write(place.folder.join("wharf.yaml"), configuration.to_string()).unwrap();
    vec!["serve".to_owned(), "--config".to_owned(), place.file("wharf.yaml")]
}

fn distribution_arguments(place: &Place) -> Vec<String> {
    let tls = json!({"certificate": place.file("tls.crt"), "key": place.file("tls.key"), "minimumtls": "tls1.2"});
    let configuration = json!({
        "version": "0.1",
        "log": {"level": "info", "formatter": "json"},
        "storage": {
            "cache": {"blobdescriptor": "inmemory"},
            "delete": {"enabled": true},
            "filesystem": {"rootdirectory": place.root},
            "redirect": {"disable": true},
        },
        "http": {
            "addr": place.address,
            "headers": {"X-Content-Type-Options": ["nosniff"]},
            "tls": if place.tls { tls } else { json!({}) },
        },
        "health": {"storagedriver": {"enabled": true, "interval": "10s", "threshold": 3}},
    });
    std::fs::write(place.folder.join("config.yml"), configuration.to_string()).unwrap();
    vec!["serve".to_owned(), place.file("config.yml")]
}

fn nginx_arguments(place: &Place) -> Vec<String> {
    let (folder, root, address) = (place.folder.display(), place.root.display(), place.address);
    let tls = if place.tls {
        format!("ssl_certificate {folder}/tls.crt; ssl_certificate_key {folder}/tls.key;")
    } else {
        String::new()
    };
    let ssl = if place.tls { " ssl" } else { "" };
    // Workers that keep root's user can read the checkout wherever it lies.
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {folder}/temporary-{what};"))
        .concat();
    let configuration = format!(
        "daemon off; worker_processes auto; pid {folder}/nginx.pid; {user}
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; open_file_cache max=1000; {paths}
  server {{
    listen {address}{ssl}; {tls}
    root {root}; default_type application/octet-stream;
    location = /v2/ {{ return 200; }}
  }}
}}
"
    );
    std::fs::write(place.folder.join("nginx.conf"), configuration).unwrap();
    vec!["-c".to_owned(), place.file("nginx.conf"), "-e".to_owned(), place.file("error.log")]
}

/// An engine that runs; dropping it ends it.
pub struct Server {
    pub address: SocketAddr,
    pub tls: bool,
    child: Child,
    /// From the start of its process to its first answer, in seconds.
    pub started_after: f64,
}

impl Engine {
    /// Where it keeps a blob.
    pub fn file(&self, root: &Path, repository: &str, blob: &Blob) -> PathBuf {
        if self.takes_pushes {
            // distribution's layout.
            let hex = blob.hex();
            root.join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
        } else {
            root.join("v2").join(repository).join("blobs").join(&blob.digest)
        }
    }

    fn program(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(self.program)
    }

    /// Starts it, and waits until it answers.
    pub fn start(&self, folder: &Path, root: &Path, tls: bool) -> Server {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let place = Place { folder: folder.to_owned(), root: root.to_owned(), address: port, tls };
        let arguments = (self.arguments)(&place);
        let log = File::create(folder.join(format!("{}.log", self.name))).unwrap();
        // The engine also ends when this program is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]).arg(self.program()).args(arguments);
        command.env("OTEL_TRACES_EXPORTER", "none").stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let started = Instant::now();
        let child = command.spawn().unwrap_or_else(|error| panic!("starting {}: {error}", self.name));
        let mut server = Server { address: place.address, tls, child, started_after: 0.0 };
        while !server.answers() {
            let ended = server.child.try_wait().unwrap();
            let log = folder.join(format!("{}.log", self.name));
            assert!(ended.is_none(), "{} ended: {}", self.name, std::fs::read_to_string(log).unwrap_or_default());
            assert!(started.elapsed() < PATIENCE, "{} does not answer", self.name);
            std::thread::sleep(Duration::from_millis(1));
        }
        server.started_after = started.elapsed().as_secs_f64();
        server
    }
}

impl Server {
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
        let all = self.processes().iter().map(Process::memory).collect::<Vec<_>>();
        Memory {
            resident: all.iter().map(|memory| memory.resident).sum(),
            allocated: all.iter().map(|memory| memory.allocated).sum(),
            peak: all.iter().map(|memory| memory.peak).sum(),
        }
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
