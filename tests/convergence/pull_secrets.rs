//! Which pull secrets a service account is given: those that Wharf made for its Registries and no other; and what becomes of
//! an account that somebody else keeps setting back.

use std::time::Duration;

use serde_json::json;
use tokio::time::advance;

use crate::apiserver::Server;
use crate::names::condition;
use crate::world::{Process, add_named_registry, cluster, everybody_else, run_until_quiet};

const MINUTE: Duration = Duration::from_secs(60);

/// The names in the account's list.
fn attached(server: &Server) -> Vec<String> {
    let account = server.get("ServiceAccount", "platform", "default").unwrap();
    let entries = account["imagePullSecrets"].as_array().cloned().unwrap_or_default();
    entries.iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_secret_of_somebody_else_is_attached_for_no_registry() {
    let server = cluster(&json!({}));
    server.add(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "other-pull", "namespace": "platform"},
        "type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "e30="},
    }));
    add_named_registry(&server, "other", &json!({}));
    run_until_quiet(&server, &server.connect()).await;
    assert_eq!(condition(&server, "other", "PullSecretsReady"), "False/NameTaken");
    assert_eq!(condition(&server, "team", "Ready"), "True/Ready");
    assert_eq!(attached(&server), ["team-pull"], "while team is looked at, too");
    server.remove("Secret", "platform", "other-pull");
    run_until_quiet(&server, &server.connect()).await;
    assert_eq!(condition(&server, "other", "Ready"), "True/Ready");
    assert_eq!(attached(&server).len(), 2);
}

/// Rounds a minute apart; the other writer is at work before each, unless it has the last word.
async fn fight(process: &Process, server: &Server, rounds: usize) {
    for _ in 0..rounds {
        if attached(server) != ["theirs"] {
            let theirs = json!([{"name": "theirs"}]);
            server.set("ServiceAccount", "platform", "default", |account| account["imagePullSecrets"] = theirs);
        }
        advance(MINUTE).await;
        process.round().await;
        everybody_else(server);
    }
}

#[tokio::test(start_paused = true)]
async fn an_account_that_is_kept_otherwise_is_left_alone_after_three_rounds() {
    let server = cluster(&json!({}));
    let process = Process::start(server.client());
    process.until_quiet(&server).await;
    fight(&process, &server, 6).await;
    let requests = server.mutations();
    let written = requests.iter().filter(|request| request.resource == "serviceaccounts" && request.name == "default");
    assert_eq!(written.count(), 3, "the first write, and the account set right twice");
    assert_eq!(condition(&server, "team", "PullSecretsReady"), "False/Contested");
    assert_eq!(condition(&server, "team", "Stalled"), "True/Contested");
    assert_eq!(condition(&server, "team", "Available"), "True/PodReady");
    let registry = server.get("Registry", "platform", "team").unwrap();
    let said = registry["status"]["conditions"][0]["message"].as_str().unwrap();
    assert!(
        said.starts_with("another-actor keeps changing imagePullSecrets of ServiceAccount platform/default."),
        "{said}"
    );
    // The other stops.
    for _minute in 0..11 {
        advance(MINUTE).await;
        process.round().await;
        everybody_else(&server);
    }
    assert_eq!(attached(&server), ["theirs", "team-pull"]);
    assert_eq!(condition(&server, "team", "Ready"), "True/Ready");
}
