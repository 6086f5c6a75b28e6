//! What Wharf's accounts wrote, as the API server's audit log has it; by that, whether Wharf is at rest.
//! It must never count a lease: holding on to it is a leader's only write at rest.

use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{checkout, eventually};

/// A time without a write, from a place in the log on.
pub struct Rest {
    offset: u64,
    began: Instant,
}

impl Rest {
    fn from_now() -> Self {
        Self { offset: std::fs::metadata(log()).unwrap().len(), began: Instant::now() }
    }

    /// Whether nothing was written since it began; it must be so for a time in all.
    pub fn lasts(&self, time: Duration) {
        std::thread::sleep(time.saturating_sub(self.began.elapsed()));
        let writes = writes_since(self.offset);
        assert!(writes.is_empty(), "where nothing changes there is silence, but: {writes:#?}");
    }
}

/// Waits until Wharf has written nothing for ten seconds, which are part of the rest.
pub fn come_to_rest() -> Rest {
    let mut rest = Rest::from_now();
    eventually("Wharf comes to rest", || {
        std::thread::sleep(Duration::from_secs(1));
        if !writes_since(rest.offset).is_empty() {
            rest = Rest::from_now();
        }
        (rest.began.elapsed() >= Duration::from_secs(10)).then_some(())
    });
    rest
}

/// Each write since an offset of the log, with how it was answered.
fn writes_since(offset: u64) -> Vec<String> {
    let mut file = std::fs::File::open(log()).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    let mut writes = Vec::new();
    for line in BufReader::new(file).lines() {
        let Ok(event) = serde_json::from_str::<Value>(&line.unwrap()) else { continue };
        let by_wharf = event["user"]["username"]
            .as_str()
            .is_some_and(|user| user.starts_with("system:serviceaccount:wharf-system:"));
        let reads = matches!(event["verb"].as_str(), Some("get" | "list" | "watch"));
        let object = &event["objectRef"];
        if by_wharf && !reads && object["resource"] != "leases" {
            let part = object["subresource"].as_str().unwrap_or_default();
            writes.push(format!(
                "{} {}/{part} {}/{} -> {}",
                event["verb"], object["resource"], object["namespace"], object["name"], event["responseStatus"]["code"]
            ));
        }
    }
    writes
}

fn log() -> std::path::PathBuf {
    checkout().join("target/cluster/logs/audit.log")
}
