//! The mirrors that are measured. They must never be given different upstreams.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::server::{Server, free_address};
use crate::upstream::Upstream;

/// A mirror that is measured.
pub struct Engine {
    pub name: &'static str,
    program: &'static str,
    configuration: fn(&Place) -> Value,
    arguments: [&'static str; 2],
    /// Where the repository of the second name of the upstream is found, if the mirror has several.
    pub second: &'static str,
    /// Whether it serves a tag without asking for it, as long as it is told to.
    pub keeps_tags: bool,
}

pub const WHARF: &Engine = &Engine {
    name: "wharf",
    program: "target/dev/wharf/wharf",
    configuration: wharf,
    arguments: ["serve", "--config"],
    second: "two.example/bench/app",
    keeps_tags: true,
};

/// Each mirrors as it does without being told more than what is needed.
pub const ENGINES: [&Engine; 2] = [
    WHARF,
    &Engine {
        name: "distribution",
        program: "target/dev/bin/registry",
        configuration: distribution,
        arguments: ["serve", ""],
        second: "bench/app",
        keeps_tags: false,
    },
];

struct Place {
    root: PathBuf,
    address: SocketAddr,
    upstream: SocketAddr,
    tag_seconds: u32,
}

fn wharf(place: &Place) -> Value {
    let endpoint = format!("http://{}", place.upstream);
    let mirror = |host: &str, default: bool| {
        let redirects = [place.upstream.ip()];
        json!({"host": host, "endpoints": [endpoint], "redirectHosts": redirects, "default": default})
    };
    json!({
        "root": place.root,
        "listen": place.address,
        "mirrors": [mirror("one.example", true), mirror("two.example", false)],
        "cache": {"tagMaxAgeSeconds": place.tag_seconds},
    })
}

fn distribution(place: &Place) -> Value {
    json!({
        "version": "0.1",
        "log": {"level": "info", "formatter": "json"},
        "storage": {
            "cache": {"blobdescriptor": "inmemory"},
            "delete": {"enabled": true},
            "filesystem": {"rootdirectory": place.root},
        },
        "http": {"addr": place.address, "headers": {"X-Content-Type-Options": ["nosniff"]}},
        "proxy": {"remoteurl": format!("http://{}", place.upstream)},
    })
}

impl Engine {
    /// Starts it with nothing in it, and waits until it answers. Tags are good for so many seconds, where that can be told.
    pub fn start(&self, folder: &Path, upstream: &Upstream, tag_seconds: u32) -> Server {
        let root = folder.join("root");
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(&root).unwrap();
        let place = Place { root, address: free_address(), upstream: upstream.address, tag_seconds };
        // What is JSON is YAML too.
        let file = folder.join(format!("{}.yaml", self.name));
        std::fs::write(&file, (self.configuration)(&place).to_string()).unwrap();
        let mut arguments =
            self.arguments.iter().filter(|word| !word.is_empty()).map(ToString::to_string).collect::<Vec<_>>();
        arguments.push(file.display().to_string());
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(self.program);
        Server::start(self.name, &program, &arguments, folder, place.address, false)
    }
}
