//! The requests of Wharf's accounts in the audit log of `dev/cluster`, also those that a library makes by itself.
//! It must never take a part of the log for the whole: what the API server has thrown away is missed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::Value;

use crate::rules::Request;

const ACCOUNTS: &str = "system:serviceaccount:wharf-system:";
/// How many files the API server keeps, with the one that it writes to. With fewer, none was thrown away.
const KEPT: usize = 10;

/// What the log says about Wharf.
#[derive(Default)]
pub struct Log {
    /// Those that were allowed since the tests began, each once.
    pub requests: BTreeSet<Request>,
    /// Those that were allowed before. A cluster that was there already saw Wharf take its first steps then.
    pub earlier: BTreeSet<Request>,
    /// Those since the tests began that no role allows.
    pub refused: BTreeSet<Request>,
}

/// The log of the cluster since it was started. The tests began at `WHARF_TEST_SINCE`, or with the cluster.
pub fn read() -> Log {
    let since: Timestamp = std::env::var("WHARF_TEST_SINCE")
        .map_or(Timestamp::MIN, |text| text.parse().expect("WHARF_TEST_SINCE is a time"));
    let mut log = Log::default();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/cluster/logs");
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    // A full one is kept as audit-<time>.log.
    let is_audit = |file: &PathBuf| {
        file.file_name().unwrap().to_string_lossy().starts_with("audit")
            && file.extension().is_some_and(|extension| extension == "log")
    };
    let files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).filter(is_audit).collect();
    assert!(files.len() < KEPT, "{} may have lost its beginning; start the cluster anew", folder.display());
    for file in files {
        for line in BufReader::new(File::open(&file).unwrap()).lines() {
            // The last line may be half written.
            let Ok(event) = serde_json::from_str::<Value>(&line.unwrap()) else { continue };
            let received: Timestamp = event["requestReceivedTimestamp"].as_str().unwrap().parse().unwrap();
            let refused = event["annotations"]["authorization.k8s.io/decision"] == "forbid";
            match (received < since, refused) {
                (false, false) => log.requests.extend(requests(&event)),
                (false, true) => log.refused.extend(requests(&event)),
                (true, false) => log.earlier.extend(requests(&event)),
                (true, true) => {}
            }
        }
    }
    log
}

fn requests(event: &Value) -> Vec<Request> {
    let object = &event["objectRef"];
    let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
    // Discovery and health are open to everybody, and no roles of ours.
    let account = event["user"]["username"].as_str().and_then(|user| user.strip_prefix(ACCOUNTS));
    let (Some(account), true) = (account, object["resource"].is_string()) else { return Vec::new() };
    let (verb, mut resource) = (event["verb"].as_str().unwrap_or_default(), text("resource"));
    if object["subresource"].is_string() {
        resource = format!("{resource}/{}", text("subresource"));
    }
    let seen = |verb: &str| Request {
        account: account.to_owned(),
        verb: verb.to_owned(),
        group: text("apiGroup"),
        resource: resource.clone(),
        namespace: text("namespace"),
        name: text("name"),
    };
    let mut all = vec![seen(verb)];
    // An apply that makes the object needs both rights.
    if verb == "patch" && event["responseStatus"]["code"] == 201 {
        all.push(seen("create"));
    }
    all
}
