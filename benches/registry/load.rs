//! The load of readers, made by wrk: one thread in C that does nothing per answer but count it, so that it is not the slow
//! part. It must never take a refused request for a fast one.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::engines::Server;

/// What wrk tells at its end; `os.clock` is the processor time of its process.
const REPORT: &str = r#"
done = function(summary, latency, requests)
  local e = summary.errors
  io.stderr:write(string.format(
    '{"seconds":%f,"requests":%d,"bytes":%d,"failed":%d,"p50":%f,"p99":%f,"client":%f}\n',
    summary.duration / 1e6, summary.requests, summary.bytes, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, os.clock()))
end
"#;

/// Requests for a random repository; COUNT stands for the number of repositories, SUFFIX for the end of the path.
const RANDOM: &str = r#"
request = function()
  return wrk.format("GET", string.format("/v2/growth/r%06d/SUFFIX", math.random(0, COUNT - 1)))
end
"#;

/// What readers did.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub seconds: f64,
    pub requests: f64,
    pub bytes: f64,
    /// Milliseconds, as the reader saw it.
    pub p99: f64,
    /// Seconds of processor time of the server.
    pub server: f64,
    /// Seconds of processor time of the readers.
    pub client: f64,
}

impl Load {
    pub fn microseconds_each(&self) -> f64 {
        self.server * 1e6 / self.requests
    }

    pub fn requests_per_second(&self) -> f64 {
        self.requests / self.seconds
    }

    /// Of bytes sent, per second of the server's processor time.
    pub fn gigabytes_per_processor_second(&self) -> f64 {
        self.bytes / 1e9 / self.server
    }

    pub fn gigabytes_per_second(&self) -> f64 {
        self.bytes / 1e9 / self.seconds
    }
}

/// Readers that ask again as soon as they have an answer, each on a connection of its own.
pub struct Readers<'a> {
    pub server: &'a Server,
    /// A folder for wrk's script.
    pub folder: &'a Path,
    pub connections: usize,
    pub seconds: usize,
}

impl Readers<'_> {
    pub fn get(&self, path: &str) -> Load {
        self.run(path, REPORT)
    }

    /// Of a random one of `count` repositories.
    pub fn get_random(&self, count: usize, suffix: &str) -> Load {
        let request = RANDOM.replace("COUNT", &count.to_string()).replace("SUFFIX", suffix);
        self.run("/v2/", &format!("{REPORT}{request}"))
    }

    fn run(&self, path: &str, script: &str) -> Load {
        let file = self.folder.join("wrk.lua");
        std::fs::write(&file, script).unwrap();
        let before = self.server.processor();
        // A runtime accepts the four types that are stored.
        let accept = "Accept: application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                      application/vnd.docker.distribution.manifest.v2+json";
        let output = Command::new("wrk")
            .args(["--threads", "1", "--connections", &self.connections.to_string()])
            .args(["--duration", &format!("{}s", self.seconds), "--timeout", "60s", "--header", accept, "--script"])
            .arg(&file)
            .arg(self.server.url(path))
            .output()
            .expect("dev/bench has wrk installed");
        let told = String::from_utf8_lossy(&output.stderr);
        let told = told.lines().find_map(|line| serde_json::from_str::<Value>(line).ok());
        let told = told.unwrap_or_else(|| panic!("wrk {path}: {output:?}"));
        let number = |key: &str| told[key].as_f64().unwrap();
        assert!(number("failed") == 0.0 && number("bytes") > 0.0, "GET {path} failed: {told}");
        Load {
            seconds: number("seconds"),
            requests: number("requests"),
            bytes: number("bytes"),
            p99: number("p99"),
            server: self.server.processor() - before,
            client: number("client"),
        }
    }
}
