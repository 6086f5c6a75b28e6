//! Counts requests by the API server's own audit log: every request of Wharf's accounts stands there, also those that a
//! library makes by itself. It must never count a request twice: a watch is logged when it begins and when it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::Value;

/// A request of one of Wharf's processes.
#[derive(Clone, Debug)]
pub struct Request {
    /// `operator` or `agent`.
    pub component: String,
    pub verb: String,
    /// `secrets`, `registries/status`.
    pub resource: String,
}

impl Request {
    pub fn is_lease(&self) -> bool {
        self.resource == "leases"
    }

    pub fn is_watch(&self) -> bool {
        self.verb == "watch"
    }

    pub fn is_write(&self) -> bool {
        !self.is_lease() && !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    pub fn is_read(&self) -> bool {
        matches!(self.verb.as_str(), "get" | "list") && !self.is_lease()
    }
}

/// A moment in the log.
#[derive(Clone, Debug)]
pub struct Mark {
    file: PathBuf,
    offset: u64,
    at: Timestamp,
}

impl Mark {
    /// Now.
    pub fn now() -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/cluster/logs/audit.log");
        let offset = std::fs::metadata(&file).map_or(0, |metadata| metadata.len());
        Self { file, offset, at: Timestamp::now() }
    }

    /// The requests that the API server received since.
    pub fn requests(&self) -> Vec<Request> {
        let length = std::fs::metadata(&self.file).map_or(0, |metadata| metadata.len());
        // A full log is put aside, and goes on in a new file.
        let parts = if length >= self.offset {
            vec![(self.file.clone(), self.offset)]
        } else {
            vec![(self.put_aside(), self.offset), (self.file.clone(), 0)]
        };
        let mut seen = BTreeSet::new();
        let mut requests = Vec::new();
        for (path, offset) in parts {
            let mut file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            file.seek(SeekFrom::Start(offset)).unwrap();
            for line in BufReader::new(file).lines() {
                // The last line may be half written.
                let Ok(event) = serde_json::from_str::<Value>(&line.unwrap()) else { continue };
                let received: Timestamp = event["requestReceivedTimestamp"].as_str().unwrap().parse().unwrap();
                if received >= self.at
                    && let Some(request) = request(&event)
                    && seen.insert(event["auditID"].to_string())
                {
                    requests.push(request);
                }
            }
        }
        requests
    }

    /// The file that was full last: they are named by the time.
    fn put_aside(&self) -> PathBuf {
        let folder = std::fs::read_dir(self.file.parent().unwrap()).unwrap();
        let files = folder.map(|entry| entry.unwrap().path());
        files.filter(|path| path.display().to_string().contains("/audit-")).max().expect("a log that was put aside")
    }
}

fn request(event: &Value) -> Option<Request> {
    // Benchmarks act for agents that are not there.
    let user = event["impersonatedUser"]["username"].as_str().or(event["user"]["username"].as_str())?;
    let component = user.strip_prefix("system:serviceaccount:wharf-system:wharf-")?.to_owned();
    let object = &event["objectRef"];
    let resource = object["resource"].as_str().unwrap_or_else(|| event["requestURI"].as_str().unwrap_or_default());
    let resource = match object["subresource"].as_str() {
        Some(part) => format!("{resource}/{part}"),
        None => resource.to_owned(),
    };
    Some(Request { component, verb: event["verb"].as_str()?.to_owned(), resource })
}

/// `patch secrets 60, get services 20`, most frequent first.
pub fn summary<'a>(requests: impl Iterator<Item = &'a Request>) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for request in requests {
        *counts.entry(format!("{} {}", request.verb, request.resource)).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.iter().map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join(", ")
}
