//! Further names, the certificates in other namespaces, and the network policy, on the real cluster.

use serde_json::Value;

use crate::support::{Login, Namespace, client, condition, eventually, get, kubectl, refusal};

const HOST: &str = "images.example.com";

#[test]
#[ignore = "needs cluster"]
fn a_pod_on_each_node_pulls_by_a_further_name_that_passes_on() {
    let namespace = Namespace::new("hosts");
    namespace.ready_registry("first", &format!("{{hosts: [{HOST}]}}"));
    let login = Login::new(&namespace, "first");
    login.push("app:1");
    // No DNS server knows the name: the nodes are told where it leads.
    for node in ["node1", "node2"] {
        namespace.pod(&format!("by-name-{node}"), &format!("{HOST}/app:1"), node);
    }
    // An upload goes on under the name by which it began.
    let address = namespace.get("service", "first").unwrap()["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let secret = namespace.get("secret", "first-registry-credentials").unwrap();
    let text = |key: &str| String::from_utf8(crate::support::decoded(secret["data"][key].as_str().unwrap())).unwrap();
    let answer = client(&[
        "curl",
        "-sS",
        "-D-",
        "-o/dev/null",
        "-XPOST",
        "--cacert",
        &login.path("ca.crt"),
        "-u",
        &format!("{}:{}", text("username"), text("password")),
        "--connect-to",
        &format!("{HOST}:443:{address}:443"),
        &format!("https://{HOST}/v2/app/blobs/uploads/"),
    ])
    .unwrap();
    let location = answer.lines().find(|line| line.to_lowercase().starts_with("location:")).unwrap_or_default();
    let (_, location) = location.split_once(": ").unwrap_or_default();
    let path = location.strip_prefix(&format!("https://{HOST}")).unwrap_or(location);
    assert!(path.starts_with("/v2/app/blobs/uploads/"), "{answer}");

    // The younger one goes without, until the older one goes.
    namespace.registry("second", &format!("{{hosts: [{HOST}, refused.example.org]}}"));
    let second = namespace.wait_for("second", "HostsReady", "False/HostNotAllowed");
    let message = second["status"]["conditions"].to_string();
    assert!(message.contains(&format!("{}/first", namespace.name)), "{message}");
    namespace.wait_for("second", "Available", "True/PodReady");
    namespace.registry("second", &format!("{{hosts: [{HOST}]}}"));
    namespace.wait_for("second", "HostsReady", "False/HostTaken");
    namespace.delete("registry", "first");
    namespace.wait_for("second", "HostsReady", "True/HostsGranted");
    namespace.wait_for("second", "Ready", "True/Ready");
    namespace.wait_for("second", "NodesConfigured", "True/AllNodes");
    Login::new(&namespace, "second").push("other:1");
    namespace.pod("passed-on", &format!("{HOST}/other:1"), "node1");
}

#[test]
#[ignore = "needs cluster"]
fn a_labelled_namespace_has_the_certificates_and_loses_them_again() {
    let namespace = Namespace::new("bundles");
    let clients = Namespace::new("bundles-clients");
    let bundle = || clients.get("configmap", "wharf-ca.crt").map(|found| found["data"]["ca.crt"].clone());
    namespace.registry("team", "{caBundle: {namespaceSelector: {matchLabels: {wharf-test: clients}}}}");
    namespace.wait_for("team", "CaBundlesReady", "True/Published");
    assert_eq!(bundle(), None);
    // Somebody else's stays, and gives way only by itself.
    kubectl(&["create", "configmap", "wharf-ca.crt", "-n", &clients.name, "--from-literal=ca.crt=theirs"]);
    kubectl(&["label", "namespace", &clients.name, "wharf-test=clients"]);
    namespace.wait_for("team", "CaBundlesReady", "False/NameTaken");
    assert_eq!(bundle(), Some(Value::from("theirs")));
    kubectl(&["delete", "configmap", "wharf-ca.crt", "-n", &clients.name]);
    let authority = || namespace.get("configmap", "team-ca").map(|found| found["data"]["ca.crt"].clone());
    eventually("the namespace has the certificates", || (bundle().is_some() && bundle() == authority()).then_some(()));
    namespace.wait_for("team", "CaBundlesReady", "True/Published");
    // The policy is an object that the API server takes; who enforces it is the network's plugin, which the test cluster lacks.
    let policy = namespace.get("networkpolicy", "team-registry").expect("there is a network policy");
    assert_eq!(policy["spec"]["ingress"][0]["ports"][0]["port"], 5000);
    namespace.registry(
        "team",
        "{networkPolicy: {mode: None}, caBundle: {namespaceSelector: {matchLabels: {wharf-test: clients}}}}",
    );
    eventually("the policy is gone", || namespace.get("networkpolicy", "team-registry").is_none().then_some(()));
    let team = get(&["registry", "team", "-n", &namespace.name]).unwrap();
    assert!(condition(&team, "CaBundlesReady").is_some());
    // It goes with the label, and with the Registry.
    kubectl(&["label", "namespace", &clients.name, "wharf-test-"]);
    eventually("the certificates are gone with the label", || bundle().is_none().then_some(()));
    kubectl(&["label", "namespace", &clients.name, "wharf-test=clients"]);
    eventually("they are back", bundle);
    namespace.delete("registry", "team");
    eventually("they are gone with the Registry", || bundle().is_none().then_some(()));
    let said = refusal(&format!(
        "apiVersion: wharf.dev/v1alpha1\nkind: Registry\nmetadata: {{name: team, namespace: {}}}\nspec: {{hosts: \
         [team.other.svc], caBundle: {{namespaceSelector: {{matchExpressions: [{{key: a, operator: In}}]}}}}}}\n",
        namespace.name
    ));
    assert!(said.contains("names of Services are given out by the cluster itself"), "{said}");
    assert!(said.contains("In and NotIn need values"), "{said}");
}
