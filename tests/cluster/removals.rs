//! People take away by hand what Wharf works with: its definition, its finalizer. What they asked for happens, images stay unless
//! the policy `Delete` was carried out, and the operator goes on.

use serde_json::Value;

use crate::administration::scale;
use crate::audit::come_to_rest;
use crate::planned;
use crate::processes::kill_operator;
use crate::support::{Login, Namespace, eventually, get, helm_install, kubectl, leader};
use crate::turn::Alone;

/// How often the operator's container has been started again.
fn restarts() -> Option<u64> {
    let pod = get(&["pod", &leader(), "-n", "wharf-system"])?;
    pod.pointer("/status/containerStatuses/0/restartCount")?.as_u64()
}

fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap()
}

/// Deletes the definition, and with it the Registry `team`; its claim stays.
fn delete_definition(namespace: &Namespace, claim: &Value) {
    kubectl(&["delete", "crd", "registries.wharf.dev", "--wait=true", "--timeout=120s"]);
    let kinds = "services,deployments,configmaps,secrets,serviceaccounts,pods";
    eventually("the children are gone", || {
        let left = get(&[kinds, "-n", &namespace.name, "-l", "app.kubernetes.io/managed-by=wharf"])?;
        left["items"].as_array()?.is_empty().then_some(())
    });
    let left = namespace.get("pvc", "team-registry").expect("the claim is kept");
    assert_eq!(uid(&left), uid(claim));
    assert!(left["metadata"]["deletionTimestamp"].is_null(), "{left}");
}

#[test]
#[ignore = "needs cluster"]
fn a_definition_that_is_deleted_takes_the_registries_and_no_images() {
    let _alone = Alone::new();
    let namespace = Namespace::new("definition");
    namespace.ready_registry("team", "{}");
    let login = Login::new(&namespace, "team");
    login.push("app:1");
    let before = login.digest("app:1").unwrap();
    let claim = namespace.get("pvc", "team-registry").unwrap();
    let started = restarts();

    delete_definition(&namespace, &claim);
    eventually("the nodes have forgotten it", || {
        (!planned::folders(1).contains(&login.address) && !planned::folders(2).contains(&login.address)).then_some(())
    });
    helm_install();
    namespace.ready_registry("team", "{}");
    assert_eq!(Login::new(&namespace, "team").digest("app:1").unwrap(), before);
    assert_eq!(restarts(), started, "the operator has gone on");

    // An operator that starts without the definition waits for it.
    delete_definition(&namespace, &claim);
    assert!(kill_operator(), "the operator runs");
    eventually("the operator runs again", || {
        let pods = get(&["pods", "-n", "wharf-system", "-l", "app.kubernetes.io/component=operator"])?;
        let status = pods["items"][0].pointer("/status/containerStatuses/0")?.clone();
        (status["restartCount"].as_u64() > started && status["state"]["running"].is_object()).then_some(())
    });
    helm_install();
    namespace.ready_registry("team", "{}");
    assert_eq!(Login::new(&namespace, "team").digest("app:1").unwrap(), before);
    assert_eq!(restarts(), started.map(|number| number + 1), "it was started once");
}

/// Passes over Registries that have failed, as the leader counts them.
fn failed_passes() -> String {
    let path = format!("/api/v1/namespaces/wharf-system/pods/{}:8080/proxy/metrics", leader());
    let metrics = kubectl(&["get", "--raw", &path]);
    let failed = "wharf_operator_passes_total{controller=\"registry\",outcome=\"failed\"}";
    metrics.lines().find_map(|line| line.strip_prefix(failed)).unwrap_or_default().to_owned()
}

#[test]
#[ignore = "needs cluster"]
fn a_finalizer_that_is_taken_off_by_hand_keeps_the_claim() {
    let _alone = Alone::new();
    let namespace = Namespace::new("finalizer");
    namespace.ready_registry("team", "{storage: {deletionPolicy: Delete}}");
    let claim = namespace.get("pvc", "team-registry").unwrap();
    let take_off = || {
        let patch = r#"[{"op": "remove", "path": "/metadata/finalizers"}]"#;
        kubectl(&["patch", "registry", "team", "-n", &namespace.name, "--type=json", "-p", patch]);
    };
    take_off();
    eventually("the operator puts it on again", || {
        namespace.get("registry", "team")?["metadata"]["finalizers"].is_array().then_some(())
    });

    scale(0);
    kubectl(&["delete", "registry", "team", "-n", &namespace.name, "--wait=false"]);
    assert!(namespace.get("registry", "team").is_some(), "it waits for the operator");
    take_off();
    eventually("it is gone", || namespace.get("registry", "team").is_none().then_some(()));
    scale(1);
    leader();
    let rest = come_to_rest();
    let failed = failed_passes();
    // Nobody was there to carry the policy out, so that the claim stays.
    let left = namespace.get("pvc", "team-registry").expect("the claim is kept");
    assert_eq!(uid(&left), uid(&claim));
    rest.lasts(std::time::Duration::from_secs(12));
    assert_eq!(failed_passes(), failed, "nothing is tried again and again");

    namespace.ready_registry("team", "{storage: {deletionPolicy: Delete}}");
    assert_eq!(uid(&namespace.get("pvc", "team-registry").unwrap()), uid(&claim));
    namespace.delete("registry", "team");
    eventually("the claim is gone", || namespace.get("pvc", "team-registry").is_none().then_some(()));
}
