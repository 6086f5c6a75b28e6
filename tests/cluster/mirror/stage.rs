//! A Mirror of the scripted registries, and what tests do with it.
//! It must never leave a Mirror, its claims, or an image of its registries on a node.

use serde_json::{Value, json};

use super::hub::{Hub, authority, is_node};
use super::pulls::{Way, forget_everywhere, pull_everywhere};
use crate::support::{apply, attempt, condition, eventually, get, kubectl};

/// The Secret in the operator's namespace with the authority that signs for the scripted registries.
const AUTHORITY: &str = "test-internet";

pub struct Stage {
    // Goes last, as the Mirror may want it to the end.
    pub name: String,
    pub hub: Hub,
}

impl Stage {
    /// A Mirror of docker.io by that name, with this beside the upstreams in its spec; ready, and known to each node.
    pub fn new(name: &str, spec: &Value) -> Self {
        let stage = Self::begin(name);
        stage.make(spec);
        stage.is_ready();
        stage
    }

    /// Without a Mirror yet.
    pub fn begin(name: &str) -> Self {
        let stage = Self { name: name.to_owned(), hub: Hub::start() };
        // What a run before this may have left.
        stage.remove();
        forget_everywhere();
        stage
    }

    /// Makes or changes the Mirror.
    pub fn make(&self, spec: &Value) {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": AUTHORITY, "namespace": "wharf-system"},
            "stringData": {"ca.crt": authority().certificate},
        });
        apply(&secret.to_string());
        let mut all = json!({
            "upstreams": [{"host": "docker.io", "caSecretRef": {"name": AUTHORITY}}],
            "cache": {"size": "1Gi"},
        });
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        apply(&manifest(&self.name, &all).to_string());
    }

    pub fn get(&self) -> Option<Value> {
        get(&["mirror", &self.name])
    }

    /// Waits until a condition of the Mirror is `status/reason`.
    pub fn wait_for(&self, kind: &str, expected: &str) -> Value {
        eventually(&format!("Mirror {}: {kind}={expected}", self.name), || {
            self.get().filter(|mirror| condition(mirror, kind).as_deref() == Some(expected))
        })
    }

    pub fn is_ready(&self) -> Value {
        self.wait_for("Ready", "True/Ready");
        self.wait_for("NodesConfigured", "True/AllNodes")
    }

    /// Waits until each node pulls through the Mirror what nobody has pulled before.
    pub fn serves_all_nodes(&self) {
        eventually("each node pulls through the Mirror", || {
            self.hub.upstream.forget_seen();
            let fresh = [self.hub.push_new("settled-1", &[]), self.hub.push_new("settled-2", &[])];
            let pulls = pull_everywhere(Way::Configured, [&fresh[0].reference, &fresh[1].reference], 30);
            forget_everywhere();
            let around = self.hub.asked().iter().any(is_node);
            (pulls.iter().all(|pull| pull.problem.is_none()) && !around).then_some(())
        });
        self.hub.upstream.forget_seen();
    }

    /// The pod with this ordinal.
    pub fn pod(&self, ordinal: u8) -> String {
        format!("mirror-{}-{ordinal}", self.name)
    }

    pub fn remove(&self) {
        kubectl(&["delete", "mirror", &self.name, "--ignore-not-found", "--wait=true", "--timeout=120s"]);
        let claims = format!("app.kubernetes.io/name=mirror,app.kubernetes.io/instance={}", self.name);
        kubectl(&["delete", "pvc", "-n", "wharf-system", "-l", &claims, "--wait=true", "--timeout=60s"]);
        let _ = attempt("kubectl", &["delete", "secret", AUTHORITY, "-n", "wharf-system", "--ignore-not-found"], "");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.hub.upstream.heal();
        self.hub.upstream.limit(0);
        self.hub.come_back();
        if std::thread::panicking() {
            let _ = attempt("kubectl", &["delete", "mirror", &self.name, "--ignore-not-found", "--wait=false"], "");
            return;
        }
        self.remove();
        forget_everywhere();
    }
}

pub fn manifest(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "wharf.dev/v1alpha1", "kind": "Mirror", "metadata": {"name": name}, "spec": spec})
}
