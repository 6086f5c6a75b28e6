//! The engines that are measured, and how each is told what to serve. They must never do more or less than each other where
//! they are compared.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::content::Blob;
pub use crate::support::server::Server;
use crate::support::server::free_address;

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
        let address = free_address();
        let place = Place { folder: folder.to_owned(), root: root.to_owned(), address, tls };
        let arguments = (self.arguments)(&place);
        Server::start(self.name, &self.program(), &arguments, folder, address, tls)
    }
}
