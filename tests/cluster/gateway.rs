//! The way in through a Gateway, with the definitions that the Gateway API publishes: without them, with them, and without them
//! again. No controller of Gateways runs here; what one would say is said by the test.

use serde_json::{Value, json};

use crate::support::{Namespace, attempt, eventually, kubectl, run};

const KINDS: [&str; 2] = ["httproute", "backendtlspolicy"];
const DEFINITIONS: [&str; 3] = ["httproutes", "backendtlspolicies", "gateways"];

/// The definitions, which go when the test ends. No other test uses them, and they disturb nobody.
struct Definitions;

impl Definitions {
    fn install() -> Self {
        let folder = run("dev/cluster/definitions", &[]).trim().to_owned();
        for plural in DEFINITIONS {
            let file = format!("{folder}/gateway.networking.k8s.io_{plural}.yaml");
            kubectl(&["apply", "--server-side", "-f", &file]);
        }
        let installed = Self;
        // The API server takes them up one after the other, and a kind that it does not name yet is an error.
        eventually("the API server names what was installed", || {
            DEFINITIONS.iter().all(|plural| attempt("kubectl", &["get", plural, "-A"], "").is_ok()).then_some(())
        });
        installed
    }

    fn remove() {
        let names = DEFINITIONS.map(|plural| format!("{plural}.gateway.networking.k8s.io"));
        let names = names.iter().map(String::as_str);
        let arguments: Vec<&str> =
            ["delete", "crd", "--ignore-not-found", "--timeout=120s"].into_iter().chain(names).collect();
        let _ = attempt("kubectl", &arguments, "");
    }
}

impl Drop for Definitions {
    fn drop(&mut self) {
        Self::remove();
    }
}

fn stored(namespace: &Namespace) -> Option<[Value; 2]> {
    Some([namespace.get(KINDS[0], "team-registry")?, namespace.get(KINDS[1], "team-registry")?])
}

/// What a controller would write.
fn say(namespace: &Namespace, kind: &str, name: &str, status: &Value) {
    let patch = json!({ "status": status }).to_string();
    kubectl(&["patch", kind, name, "-n", &namespace.name, "--subresource=status", "--type=merge", "-p", &patch]);
}

fn word(kind: &str, status: &str, reason: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": "said by the test", "observedGeneration": 1,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

/// The status of a route about which `words` were said.
fn of_route(parent: &Value, words: &[Value]) -> Value {
    json!({"parents": [{"parentRef": parent, "controllerName": "example.com/controller", "conditions": words}]})
}

fn told(registry: &Value) -> String {
    let conditions = registry["status"]["conditions"].as_array().unwrap();
    let exposed = conditions.iter().find(|condition| condition["type"] == "Exposed").unwrap();
    exposed["message"].as_str().unwrap().to_owned()
}

#[test]
#[ignore = "needs cluster"]
fn a_gateway_leads_to_a_registry_as_soon_as_the_cluster_has_the_api() {
    let namespace = Namespace::new("gateway");
    // A run that was killed may have left them.
    Definitions::remove();
    let name = &namespace.name;
    let spec = format!(
        "{{expose: {{gateway: {{host: images.example.com, parentRefs: [{{name: front, namespace: {name}, sectionName: https}}]}}}}}}"
    );
    namespace.registry("team", &spec);
    namespace.wait_for("team", "Exposed", "False/GatewayApiMissing");
    namespace.wait_for("team", "Ready", "True/Ready");

    let definitions = Definitions::install();
    let [route, policy] = eventually("the route and the policy are made", || stored(&namespace));
    let parent = json!({
        "group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": name, "name": "front", "sectionName": "https",
    });
    // All that was sent is stored, and nothing was added to it: no field is unknown to the definitions, and none is defaulted.
    let backend = json!({"group": "", "kind": "Service", "name": "team", "port": 443, "weight": 1});
    let matches = json!([{"path": {"type": "PathPrefix", "value": "/"}}]);
    let rule = json!({"matches": matches, "backendRefs": [backend]});
    assert_eq!(route["spec"], json!({"hostnames": ["images.example.com"], "parentRefs": [parent], "rules": [rule]}));
    let authority = json!([{"group": "", "kind": "ConfigMap", "name": "team-ca"}]);
    let validation = json!({"caCertificateRefs": authority, "hostname": format!("team.{name}.svc")});
    let target = json!([{"group": "", "kind": "Service", "name": "team"}]);
    assert_eq!(policy["spec"], json!({"targetRefs": target, "validation": validation}));
    assert!(namespace.get("configmap", "team-ca").unwrap()["data"]["ca.crt"].is_string());

    // Nobody acts on it, and the host resolves nowhere.
    let registry = namespace.wait_for("team", "Exposed", "False/RouteNotAccepted");
    assert!(
        told(&registry).contains(&format!("whether Gateway {name}/front (listener https) exists")),
        "{}",
        told(&registry)
    );
    say(
        &namespace,
        "httproute",
        "team-registry",
        &of_route(&parent, &[word("Accepted", "False", "NotAllowedByListeners")]),
    );
    eventually("the objection of the controller is told", || {
        let registry = namespace.wait_for("team", "Exposed", "False/RouteNotAccepted");
        told(&registry).contains("Accepted is False, NotAllowedByListeners: said by the test").then_some(())
    });

    // The Gateway answers where the registry does, whose own certificate is for other names: its address is the one called.
    let address = namespace.get("service", "team").unwrap()["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let listener = json!({
        "name": "https", "port": 443, "protocol": "HTTPS", "hostname": "*.example.com",
        "tls": {"certificateRefs": [{"name": "front"}]},
    });
    let gateway = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "front", "namespace": name},
        "spec": {"gatewayClassName": "none", "listeners": [listener]},
    });
    crate::support::apply(&gateway.to_string());
    say(&namespace, "gateway", "front", &json!({"addresses": [{"type": "IPAddress", "value": address}]}));
    let words = [word("Accepted", "True", "Accepted"), word("ResolvedRefs", "True", "ResolvedRefs")];
    say(&namespace, "httproute", "team-registry", &of_route(&parent, &words));
    let registry = namespace.wait_for("team", "Exposed", "False/CertificateNotTrusted");
    assert!(told(&registry).contains(&format!("at {address} is not trusted")), "{}", told(&registry));
    // What others said is theirs, and nothing was written again.
    let [again, _] = stored(&namespace).unwrap();
    assert_eq!(again["metadata"]["generation"], 1);
    assert_eq!(again["status"], of_route(&parent, &words));

    kubectl(&["patch", "registry", "team", "-n", name, "--type=merge", "-p", r#"{"spec":{"expose":null}}"#]);
    eventually("what is no longer wanted is gone", || {
        KINDS.iter().all(|kind| namespace.get(kind, "team-registry").is_none()).then_some(())
    });
    namespace.registry("team", &spec);
    eventually("the route and the policy are made again", || stored(&namespace));
    drop(definitions);
    namespace.wait_for("team", "Exposed", "False/GatewayApiMissing");
    namespace.wait_for("team", "Ready", "True/Ready");
}
