//! The requests of Wharf's accounts in the audit log of `dev/cluster`, also those that a library makes by itself.
//! It must never take a part of the log for the whole: the run's beginning must be in it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use jiff::Timestamp;
use serde_json::Value;

use crate::rules::Request;

const ACCOUNTS: &str = "system:serviceaccount:wharf-system:";

/// What the log says about Wharf.
pub struct Log {
    /// Those that were allowed, each once.
    pub requests: Vec<Request>,
    /// Those that no role allows.
    pub refused: BTreeSet<String>,
}

/// Everything since `WHARF_TEST_SINCE`, when the tests of this run began, or else the whole log.
pub fn read() -> Log {
    let since: Timestamp = std::env::var("WHARF_TEST_SINCE")
        .map_or(Timestamp::MIN, |text| text.parse().expect("WHARF_TEST_SINCE is a time"));
    let mut log = (BTreeSet::new(), BTreeSet::new());
    let mut oldest = Timestamp::MAX;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/cluster/logs");
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for file in files.map(|file| file.unwrap().path()) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        // A full log is kept as audit-<time>.log.
        if !name.starts_with("audit") || file.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        for line in BufReader::new(File::open(&file).unwrap()).lines() {
            // The last line may be half written.
            let Ok(event) = serde_json::from_str::<Value>(&line.unwrap()) else { continue };
            let received: Timestamp = event["requestReceivedTimestamp"].as_str().unwrap().parse().unwrap();
            oldest = oldest.min(received);
            if received < since {
                continue;
            }
            let refused = event["annotations"]["authorization.k8s.io/decision"] == "forbid";
            for request in requests(&event) {
                if refused {
                    log.1.insert(request.to_string());
                } else {
                    log.0.insert(request);
                }
            }
        }
    }
    assert!(since == Timestamp::MIN || oldest <= since, "the log begins at {oldest}, after the tests: {since}");
    Log { requests: log.0.into_iter().collect(), refused: log.1 }
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
