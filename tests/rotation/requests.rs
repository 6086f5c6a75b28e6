//! Rotations that a person asks for: pace, silent nodes, damaged Secrets, and what people are told.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::apiserver::Server;
use crate::clients::{DAY, Habits, Outside, PROMPT, ask_for_rotation, authority, live, secret_text, step};
use crate::world::{OVERLAP, Process, add_named_registry, cluster, everybody_else, run_until_quiet};

async fn converged() -> Server {
    let server = cluster(&json!({}));
    run_until_quiet(&server, &server.connect()).await;
    server
}

/// What the events with this reason say.
fn told(server: &Server, reason: &str) -> Vec<String> {
    let requests = server.mutations();
    let events =
        requests.iter().filter(|request| request.resource == "events.events.k8s.io").map(|request| &request.body);
    events
        .filter(|event| event["reason"] == reason)
        .map(|event| event["note"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[tokio::test]
async fn a_rotation_on_request_goes_through_every_step_and_says_so() {
    let server = converged().await;
    let (process, mut outside) = (Process::start(server.client()), Outside::new(PROMPT));
    outside.act(&server);
    ask_for_rotation(&server);
    let mut days: BTreeMap<String, usize> = BTreeMap::new();
    for _day in 0..60 {
        live(&server, &process, &mut outside, DAY).await;
        *days.entry(step(&server)).or_default() += 1;
    }
    let overlap = usize::try_from(OVERLAP.as_secs() / DAY.as_secs()).unwrap();
    assert_eq!(days["Overlapping"], overlap, "{days:?}");
    assert!(days["Reissuing"] <= overlap && days["Retiring"] == overlap, "{days:?}");
    assert_eq!(step(&server), "");
    assert!(authority(&server)["metadata"]["annotations"]["wharf.dev/rotate"].is_null(), "done once");
    assert_eq!(outside.ever_published().len(), 2);
    let registry = server.get("Registry", "platform", "team").unwrap();
    assert_eq!(registry["status"]["conditions"][0]["status"], "True");
    assert_eq!(told(&server, "AuthorityRotation").len(), 5, "{:?}", told(&server, "AuthorityRotation"));
    // Within minutes of each other, events that differ in their note alone would be counted as one.
    let requests = server.mutations();
    let of_rotation = requests.iter().filter(|request| request.body["reason"] == "AuthorityRotation");
    let actions: std::collections::BTreeSet<String> =
        of_rotation.map(|request| request.body["action"].to_string()).collect();
    assert_eq!(actions.len(), 5, "{actions:?}");
    // Once done, nothing is written.
    let before = server.mutations().len();
    for _round in 0..3 {
        process.round().await;
        everybody_else(&server);
    }
    assert_eq!(server.mutations().len(), before);
}

#[tokio::test]
async fn pods_restart_a_few_at_a_time() {
    let spec = json!({"engine": "Distribution"});
    let server = cluster(&spec);
    for number in 0..24 {
        add_named_registry(&server, &format!("team-{number}"), &spec);
    }
    run_until_quiet(&server, &server.connect()).await;
    // Some are among the first to get a new certificate: a client that reads seldom must know its authority by then.
    let habits = Habits { reads_every: 13 * DAY, ..PROMPT };
    let (process, mut outside) = (Process::start(server.client()), Outside::new(habits));
    outside.act(&server);
    ask_for_rotation(&server);
    let mut most = 0;
    for _day in 0..35 {
        let before: usize = outside.starts.values().sum();
        live(&server, &process, &mut outside, DAY).await;
        most = most.max(outside.starts.values().sum::<usize>() - before);
    }
    assert_eq!(outside.starts.values().sum::<usize>(), 25, "each pod once");
    assert!((2..=6).contains(&most), "{most} pods within a day");
}

#[tokio::test]
async fn a_silent_node_is_waited_for_and_then_named() {
    let server = converged().await;
    let process = Process::start(server.client());
    // The last that it said was that it has the plan of before the rotation, with the entry of the Registry.
    let last_word = server.get("NodeRuntime", "", "b").unwrap()["status"]["planRevision"].clone();
    ask_for_rotation(&server);
    let silence = |server: &Server| {
        server.set("NodeRuntime", "", "b", |runtime| runtime["status"]["planRevision"] = last_word.clone());
    };
    let configured = |server: &Server| {
        let registry = server.get("Registry", "platform", "team").unwrap();
        let conditions = registry["status"]["conditions"].as_array().unwrap().clone();
        conditions.iter().find(|condition| condition["type"] == "NodesConfigured").unwrap()["reason"].clone()
    };
    let mut days = 0;
    while matches!(step(&server).as_str(), "" | "Publishing") {
        crate::world::set_now(crate::world::now() + DAY);
        process.round().await;
        everybody_else(&server);
        silence(&server);
        days += 1;
        assert!(days < 60, "waited for ever");
    }
    assert_eq!(days, 15, "the overlap, and the day on which it began");
    let said = told(&server, "AuthorityRotation").join("\n");
    assert!(said.contains("node b") && !said.contains("node a"), "{said}");
    // The node can pull until the next authority signs; from then on, the Registry says that it cannot.
    assert_eq!(configured(&server), "AllNodes");
    while step(&server) != "Reissuing" {
        crate::world::set_now(crate::world::now() + DAY);
        process.round().await;
        everybody_else(&server);
        silence(&server);
    }
    process.round().await;
    assert_eq!(configured(&server), "SomeNodes");
    everybody_else(&server);
    process.round().await;
    assert_eq!(configured(&server), "AllNodes");
}

#[tokio::test]
async fn a_damaged_secret_is_never_written_and_a_person_is_told() {
    for key in ["tls.key", "tls.crt"] {
        let server = converged().await;
        server.set("Secret", "wharf-system", "wharf-authority", |secret| {
            secret["data"].as_object_mut().unwrap().remove(key);
            secret["metadata"]["annotations"]["wharf.dev/rotate"] = json!("now");
        });
        let damaged = authority(&server);
        let leaf = server.get("Secret", "platform", "team-registry-tls");
        let process = Process::start(server.client());
        for _round in 0..3 {
            process.round().await;
            everybody_else(&server);
        }
        assert_eq!(authority(&server), damaged);
        assert_eq!(server.get("Secret", "platform", "team-registry-tls"), leaf);
    }
    // Damaged under a running process: the last step is taken back by hand, with half of it forgotten.
    let server = converged().await;
    ask_for_rotation(&server);
    let connection = server.connect();
    let spoiler = server.clone();
    let hits = std::sync::atomic::AtomicUsize::new(0);
    server.on_request(move |request| {
        let hit = request.verb == "get" && request.name == "wharf-authority";
        // Between the first read and the keeper's own.
        if hit && hits.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 1 {
            spoiler.set("Secret", "wharf-system", "wharf-authority", |secret| {
                secret["data"].as_object_mut().unwrap().remove("tls.key");
            });
        }
        None
    });
    Process::start(connection.client()).round().await;
    assert!(authority(&server)["data"].get("next.crt").is_none());
    let said = told(&server, "CertificateNotRenewed").join("\n");
    assert!(said.contains("wharf-authority is damaged") && !said.contains("BEGIN"), "{said}");
}

#[tokio::test]
async fn a_registry_that_cannot_be_renewed_is_told_of() {
    let server = converged().await;
    // Somebody else's object in the way: the Registry's children are not written any more.
    server.set("ServiceAccount", "platform", "team-registry", |account| {
        account["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "theirs", "uid": "theirs"}]);
    });
    let process = Process::start(server.client());
    let mut warned = false;
    for _month in 0..11 {
        crate::world::set_now(crate::world::now() + 30 * DAY);
        process.round().await;
        let warning = told(&server, "CertificateNotRenewed").join("\n");
        warned |= warning.contains("Secret platform/team-registry-tls");
    }
    assert!(warned, "nobody was told");
}

#[tokio::test]
async fn hands_off_what_a_person_keeps_in_the_secret() {
    let server = converged().await;
    server.set("Secret", "wharf-system", "wharf-authority", |secret| {
        secret["data"]["note"] = json!("aGVsbG8=");
        secret["metadata"]["annotations"]["example.com/backup"] = json!("nightly");
    });
    let (process, mut outside) = (Process::start(server.client()), Outside::new(PROMPT));
    outside.act(&server);
    ask_for_rotation(&server);
    for _day in 0..60 {
        live(&server, &process, &mut outside, DAY).await;
        let secret: Value = authority(&server);
        assert_eq!(secret_text(&secret, "note"), "hello");
        assert_eq!(secret["metadata"]["annotations"]["example.com/backup"], "nightly");
    }
    assert_eq!(outside.ever_published().len(), 2);
}

/// What to do when the key leaked: nothing of the old authority may be trusted any more, by anybody, at once.
#[tokio::test]
async fn a_deleted_authority_is_replaced_at_once_and_everywhere() {
    let server = converged().await;
    let old = secret_text(&authority(&server), "tls.crt");
    server.remove("Secret", "wharf-system", "wharf-authority");
    run_until_quiet(&server, &server.connect()).await;
    let mut outside = Outside::new(PROMPT);
    outside.act(&server);
    assert_eq!(outside.ever_published().len(), 1);
    assert!(!outside.ever_published().contains(old.trim()));
    assert_ne!(secret_text(&authority(&server), "tls.crt"), old);
    let plan = server.get("ConfigMap", "wharf-nodes", "wharf-node-plan").unwrap().to_string();
    assert_eq!(plan.matches("BEGIN CERTIFICATE").count(), 1);
}

/// What a version without rotation left: two keys and no annotation. It is taken as it is, and nothing is written.
#[tokio::test]
async fn an_authority_of_an_older_version_stays_and_no_pod_restarts() {
    let server = converged().await;
    let secret = authority(&server);
    let keys: Vec<&String> = secret["data"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["tls.crt", "tls.key"]);
    assert!(secret["metadata"]["annotations"].is_null(), "{secret}");
    let writes = server.writes();
    run_until_quiet(&server, &server.connect()).await;
    assert_eq!(server.writes(), writes);
    let published = server.get("ConfigMap", "platform", "team-ca").unwrap()["data"]["ca.crt"].clone();
    assert_eq!(published, secret_text(&secret, "tls.crt"));
}
