//! What a Mirror that cannot be so gets: a refusal, or a condition that says what to do, while what can go on goes on.

use serde_json::{Value, json};

use super::pulls::{Way, forget_everywhere, pull, pull_everywhere};
use super::stage::{Stage, manifest};
use super::upstream::content::Readers;
use crate::support::{apply, attempt, condition, eventually, get, kubectl, on_node, refusal, run};
use crate::turn::Alone;

/// A further Mirror, gone with this.
struct Other(&'static str);

impl Other {
    fn new(name: &'static str, spec: &Value) -> Self {
        apply(&manifest(name, spec).to_string());
        Self(name)
    }

    fn message_of(&self, kind: &str, expected: &str) -> String {
        eventually(&format!("Mirror {}: {kind}={expected}", self.0), || {
            let mirror = get(&["mirror", self.0])?;
            if condition(&mirror, kind).as_deref() != Some(expected) {
                return None;
            }
            let conditions = mirror["status"]["conditions"].as_array()?.clone();
            let found = conditions.into_iter().find(|condition| condition["type"] == kind)?;
            Some(found["message"].as_str()?.to_owned())
        })
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ =
            attempt("kubectl", &["delete", "mirror", self.0, "--ignore-not-found", "--wait=true", "--timeout=90s"], "");
    }
}

#[test]
#[ignore = "needs cluster"]
fn what_no_host_can_be_is_refused() {
    let _namespace = crate::support::Namespace::new("mirror-input");
    for host in ["https://docker.io", "docker.io/library", "Docker.io", "docker io", "-x.io", ""] {
        let said = refusal(&manifest("bad", &json!({"upstreams": [{"host": host}]})).to_string());
        assert!(said.contains("spec.upstreams"), "{host}: {said}");
    }
    let twice = json!({"upstreams": [{"host": "docker.io"}, {"host": "docker.io"}]});
    assert!(refusal(&manifest("bad", &twice).to_string()).contains("Duplicate"));
    let said = refusal(&manifest("bad", &json!({"upstreams": []})).to_string());
    assert!(said.contains("upstreams"), "{said}");
}

#[test]
#[ignore = "needs cluster"]
fn what_only_the_cluster_can_tell_is_told_and_the_rest_goes_on() {
    let _alone = Alone::new();
    let stage = Stage::new("input", &json!({}));
    let hub = &stage.hub;

    // Two for one host: the older has it.
    let second = Other::new("second", &json!({"upstreams": [{"host": "docker.io"}]}));
    let said = second.message_of("Ready", "False/HostTaken");
    assert!(said.contains("docker.io") && said.contains("input"), "{said}");
    drop(second);

    // An endpoint that is the Mirror itself.
    let service = format!("https://{}.wharf-system.svc", stage.pod(0));
    let circle = Other::new("circle", &json!({"upstreams": [{"host": "ghcr.io", "endpoints": [service]}]}));
    let said = circle.message_of("Ready", "False/Loop");
    assert!(said.contains("ghcr.io"), "{said}");
    drop(circle);

    // A credential that the registry rejects: it is told, and public images go on.
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "test-wrong", "namespace": "wharf-system"},
        "type": "kubernetes.io/basic-auth", "stringData": {"username": "mirror", "password": "wrong"},
    });
    apply(&secret.to_string());
    let upstream = json!({
        "host": "docker.io", "caSecretRef": {"name": "test-internet"}, "credentialsSecretRef": {"name": "test-wrong"},
    });
    stage.make(&json!({"upstreams": [upstream], "privateImages": "Shared"}));
    stage.is_ready();
    let public = hub.push("public", &[]);
    let _private = hub.push_for("hidden", &[], Readers::Only(vec!["mirror".to_owned()]));
    eventually("it is told that the credential is rejected", || {
        let pulls = pull_everywhere(Way::Configured, [&public.reference; 2], 20);
        assert!(pulls.iter().all(|pull| pull.problem.is_none()), "{pulls:?}");
        forget_everywhere();
        let mirror = stage.get()?;
        (condition(&mirror, "UpstreamsReachable").as_deref() == Some("False/CredentialsRejected")).then_some(())
    });
    kubectl(&["delete", "secret", "test-wrong", "-n", "wharf-system"]);

    // A blob that is larger than the size: it passes, and that is told.
    stage.remove();
    stage.make(&json!({"cache": {"size": "8Mi"}}));
    stage.wait_for("NodesConfigured", "True/AllNodes");
    let large = hub.push("large", &[12_000_000]);
    let pulled = pull(1, Way::Configured, &large.reference, 30);
    assert!(pulled.problem.is_none(), "{pulled:?}");
    stage.wait_for("CacheHealthy", "False/BlobTooLarge");
    forget_everywhere();
}

#[test]
#[ignore = "needs cluster"]
fn a_runtime_that_reads_no_hosts_is_told_with_what_to_write() {
    let _alone = Alone::new();
    let stage = Stage::new("unread", &json!({}));
    let _restored = Configuration::without_folder();
    run("kubectl", &["rollout", "restart", "daemonset/wharf-agent", "-n", "wharf-system"]);
    let runtime = eventually("the node says that its runtime reads no files of hosts", || {
        let runtime = get(&["noderuntime", "node2"])?;
        let told = condition(&runtime, "Ready")?;
        told.starts_with("False/").then_some(runtime)
    });
    let told = runtime["status"]["conditions"].to_string();
    assert!(told.contains("config_path"), "{told}");
    stage.wait_for("NodesConfigured", "False/SomeNodes");
}

/// The configuration of node 2's runtime as it was, when this is dropped.
struct Configuration;

const CONFIGURATION: &str = "/etc/containerd/config.toml";

impl Configuration {
    fn without_folder() -> Self {
        let script = format!("cp -p {CONFIGURATION} /run/test-config.toml && sed -i '/config_path/d' {CONFIGURATION}");
        on_node(2, &["sh", "-c", &script]);
        Self
    }
}

impl Drop for Configuration {
    fn drop(&mut self) {
        let _ = attempt("dev/cluster/node", &["2", "cp", "-p", "/run/test-config.toml", CONFIGURATION], "");
        let _ = attempt("kubectl", &["rollout", "restart", "daemonset/wharf-agent", "-n", "wharf-system"], "");
    }
}
