//! Many Registries at once, half of which go while the operator is killed again and again: what stays converges, nothing of
//! the others is left, and then there is silence.
//!
//! The Registries are suspended, which makes every object but the pods; `WHARF_TEST_SCALE_PODS` is how many have pods too.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::audit::come_to_rest;
use crate::planned;
use crate::processes::kill_operator;
use crate::support::{apply, attempt, condition, eventually, get, kubectl};
use crate::turn::Alone;

/// How many namespaces there are, each with [`EACH`] Registries.
const NAMESPACES: usize = 60;
const EACH: usize = 5;
/// The label of the test's namespaces.
const LABEL: &str = "wharf.test/scale";

/// How many Registries of the namespaces that stay have pods.
fn with_pods() -> usize {
    std::env::var("WHARF_TEST_SCALE_PODS").map_or(0, |text| text.parse().expect("WHARF_TEST_SCALE_PODS is a number"))
}

/// Names of namespaces: the even ones stay.
fn namespace(number: usize) -> String {
    format!("test-scale-{number}")
}

fn registry(namespace: &str, name: &str, suspend: bool) -> Value {
    json!({
        "apiVersion": "wharf.dev/v1alpha1",
        "kind": "Registry",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"suspend": suspend, "storage": {"claim": {"size": "1Gi"}}},
    })
}

/// Every namespace of the test, gone at the end, also when it fails.
struct Namespaces;

impl Namespaces {
    fn new() -> Self {
        kubectl(&["delete", "namespace", "-l", LABEL, "--wait=true", "--timeout=300s"]);
        let all: Vec<Value> = (0..NAMESPACES)
            .map(|number| {
                let metadata = json!({"name": namespace(number), "labels": {LABEL: (number % 2).to_string()}});
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
            })
            .collect();
        apply(&json!({"apiVersion": "v1", "kind": "List", "items": all}).to_string());
        Self
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // A test that needs rest waits for it.
        let _ = attempt("kubectl", &["delete", "namespace", "-l", LABEL, "--wait=false"], "");
    }
}

/// The objects of a kind that the Registries of the test's namespaces have, as `namespace/name`.
fn names(kind: &str) -> BTreeSet<String> {
    let all = get(&[kind, "-A"]).unwrap();
    let name = |item: &Value| {
        let metadata = &item["metadata"];
        let (namespace, name) = (metadata["namespace"].as_str()?, metadata["name"].as_str()?);
        (namespace.starts_with("test-scale-") && name.starts_with("team-")).then(|| format!("{namespace}/{name}"))
    };
    all["items"].as_array().unwrap().iter().filter_map(name).collect()
}

#[test]
#[ignore = "needs cluster"]
fn half_of_three_hundred_registries_go_while_the_operator_is_killed() {
    let _alone = Alone::new();
    let namespaces = Namespaces::new();
    let mut pods = with_pods();
    let mut all = Vec::new();
    for number in 0..NAMESPACES {
        for each in 0..EACH {
            let has_pod = number % 2 == 0 && pods > 0;
            pods -= usize::from(has_pod);
            all.push(registry(&namespace(number), &format!("team-{each}"), !has_pod));
        }
    }
    apply(&json!({"apiVersion": "v1", "kind": "List", "items": all}).to_string());
    // In the middle of its work, and once more when it is back.
    assert!(kill_operator(), "the operator ran");
    kubectl(&["delete", "namespace", "-l", &format!("{LABEL}=1"), "--wait=false"]);
    eventually("the operator is back and is killed again", || kill_operator().then_some(()));

    let staying: BTreeSet<String> = (0..NAMESPACES)
        .step_by(2)
        .flat_map(|number| (0..EACH).map(move |each| format!("{}/team-{each}", namespace(number))))
        .collect();
    eventually("the other namespaces are gone", || {
        let left = get(&["namespaces", "-l", &format!("{LABEL}=1")])?;
        left["items"].as_array()?.is_empty().then_some(())
    });
    let expected = |registry: &Value| {
        let ready = if registry["spec"]["suspend"] == true { "False/Suspended" } else { "True/Ready" };
        condition(registry, "Ready").as_deref() == Some(ready)
            && condition(registry, "NodesConfigured").as_deref() == Some("True/AllNodes")
    };
    eventually("every Registry that stays has converged", || {
        let all = get(&["registries", "-A"])?;
        let mine = |registry: &&Value| {
            registry["metadata"]["namespace"].as_str().is_some_and(|name| name.starts_with("test-scale-"))
        };
        let registries: Vec<&Value> = all["items"].as_array()?.iter().filter(mine).collect();
        (registries.len() == staying.len() && registries.iter().all(|registry| expected(registry))).then_some(())
    });

    let rest = come_to_rest();
    assert_eq!(names("registries"), staying);
    for (kind, suffixes) in [
        ("services", &[""][..]),
        ("deployments", &["-registry"]),
        ("persistentvolumeclaims", &["-registry"]),
        ("configmaps", &["-ca"]),
        ("serviceaccounts", &["-registry"]),
        ("secrets", &["-registry", "-registry-credentials", "-registry-tls", "-pull"]),
    ] {
        let wanted: BTreeSet<String> =
            staying.iter().flat_map(|name| suffixes.iter().map(move |suffix| format!("{name}{suffix}"))).collect();
        assert_eq!(names(kind), wanted, "{kind}");
    }
    let host = |name: &String| {
        let (namespace, registry) = name.split_once('/').unwrap();
        format!("{registry}.{namespace}.svc")
    };
    let hosts: BTreeSet<String> = planned::hosts().into_iter().filter(|host| host.contains("test-scale-")).collect();
    assert_eq!(hosts, staying.iter().map(host).collect());
    for node in [1, 2] {
        let folders: BTreeSet<String> =
            planned::folders(node).into_iter().filter(|host| host.contains("test-scale-")).collect();
        assert_eq!(folders, hosts, "node {node}");
    }

    rest.lasts(Duration::from_secs(60));
    drop(namespaces);
}
