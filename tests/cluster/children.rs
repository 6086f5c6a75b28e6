//! Children of every kind that somebody keeps changing, and children of every kind that no Registry wants any more.
//! It must never name each of them: the kinds are what Wharf makes, and its rights are there for all of them.

use serde_json::Value;

use crate::support::{Namespace, apply, eventually, get, kubectl};

const KINDS: &str =
    "services,deployments,configmaps,secrets,serviceaccounts,poddisruptionbudgets,ingresses,networkpolicies";
/// Whose label Wharf wants and no watch selects by.
const LABEL: &str = "app.kubernetes.io/name";

/// With something of every kind but a claim. Its bucket is not there: nothing here needs its pods.
const WITH_EVERYTHING: &str = "{engine: Distribution, replicas: 2, storage: {s3: {bucket: images, credentialsSecretRef: {name: keys}}}, \
     expose: {ingress: {host: children.example.com, className: none}, service: {type: NodePort}}}";

/// The children that Wharf made in a namespace, as `kind/name`.
fn children(namespace: &Namespace, kinds: &str) -> Vec<String> {
    let all = get(&[kinds, "-n", &namespace.name, "-l", "app.kubernetes.io/managed-by=wharf"]).unwrap();
    let name =
        |object: &Value| format!("{}/{}", text(&object["kind"]).to_lowercase(), text(&object["metadata"]["name"]));
    all["items"].as_array().unwrap().iter().map(name).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// The first time, what was written last may not have reached the operator's cache; it reads the child itself to tell that from
/// another writer. After a restart it knows of no writing of its own, so that only the second time shows it.
#[test]
#[ignore = "needs cluster"]
fn a_child_that_is_changed_again_is_put_right_again() {
    let namespace = Namespace::new("again");
    namespace.registry("all", WITH_EVERYTHING);
    namespace.registry("claim", "{}");
    let kinds = format!("{KINDS},persistentvolumeclaims");
    let found = eventually("there is a child of every kind", || {
        let is_there = |kind: &str| !children(&namespace, kind).is_empty();
        kinds.split(',').all(is_there).then(|| children(&namespace, &kinds))
    });
    for _ in 0..2 {
        for child in &found {
            kubectl(&["label", child, "-n", &namespace.name, "--overwrite", &format!("{LABEL}=theirs")]);
        }
        // A node's own object has but one label.
        kubectl(&["label", "noderuntime", "node1", "--overwrite", "app.kubernetes.io/managed-by=theirs"]);
        eventually("every label is as it was", || {
            let theirs = get(&[&kinds, "-n", &namespace.name, "-l", &format!("{LABEL}=theirs")])?;
            let runtimes = get(&["noderuntimes", "-l", "app.kubernetes.io/managed-by=theirs"])?;
            [theirs, runtimes].iter().all(|list| list["items"].as_array().is_some_and(Vec::is_empty)).then_some(())
        });
    }
}

/// A child of a name that this version does not use, as another version of Wharf may leave it.
fn leftover(namespace: &Namespace, owner: &Value, (version, kind, rest): (&str, &str, &str)) -> String {
    format!(
        "apiVersion: {version}\nkind: {kind}\nmetadata:\n  name: team-of-another-version\n  namespace: {}\n  \
         labels: {{{LABEL}: registry, app.kubernetes.io/instance: team, app.kubernetes.io/managed-by: wharf}}\n  \
         ownerReferences: [{{apiVersion: wharf.dev/v1alpha1, kind: Registry, name: team, uid: {}, controller: true}}]\n{rest}\n---\n",
        namespace.name,
        text(&owner["metadata"]["uid"]),
    )
}

#[test]
#[ignore = "needs cluster"]
fn what_another_version_has_left_is_removed() {
    let namespace = Namespace::new("leftovers");
    let registry = namespace.ready_registry("team", "{}");
    let before = children(&namespace, KINDS);
    let leftovers = [
        ("v1", "Service", "spec: {ports: [{port: 80}]}"),
        ("v1", "ConfigMap", "data: {a: b}"),
        ("v1", "Secret", "stringData: {a: b}"),
        ("v1", "ServiceAccount", ""),
        (
            "apps/v1",
            "Deployment",
            "spec: {replicas: 0, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: b}]}}}",
        ),
        ("policy/v1", "PodDisruptionBudget", "spec: {maxUnavailable: 1, selector: {matchLabels: {a: b}}}"),
        ("networking.k8s.io/v1", "Ingress", "spec: {ingressClassName: none, rules: [{host: leftovers.example.com}]}"),
        ("networking.k8s.io/v1", "NetworkPolicy", "spec: {podSelector: {matchLabels: {a: b}}}"),
    ];
    assert_eq!(leftovers.len(), KINDS.split(',').count());
    apply(&leftovers.map(|object| leftover(&namespace, &registry, object)).concat());
    eventually("only what is wanted is left", || (children(&namespace, KINDS) == before).then_some(()));
    namespace.wait_for("team", "Ready", "True/Ready");
}
