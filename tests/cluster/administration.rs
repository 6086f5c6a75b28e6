//! What an administrator relies on: pulls without the operator, more than one replica, and silence at rest.

use std::time::Duration;

use serde_json::Value;

use crate::support::{Login, Namespace, eventually, get, kubectl, leader, run};
use crate::turn::Alone;

pub fn scale(replicas: u8) {
    let number = format!("--replicas={replicas}");
    kubectl(&["scale", "deployment/wharf-operator", "-n", "wharf-system", &number]);
    eventually("the operator's pods are as many as asked for", || {
        let deployment = get(&["deployment", "wharf-operator", "-n", "wharf-system"])?;
        let status = &deployment["status"];
        let ready = status["readyReplicas"].as_u64().unwrap_or(0);
        // A Deployment does not count a pod that is ending, which may still be in the middle of a pass.
        let pods = get(&["pods", "-n", "wharf-system", "-l", "app.kubernetes.io/component=operator"])?;
        let all = pods["items"].as_array()?.len();
        (ready == u64::from(replicas) && all == usize::from(replicas)).then_some(())
    });
}

#[test]
#[ignore = "needs cluster"]
fn images_are_pulled_while_no_operator_runs() {
    let _alone = Alone::new();
    let namespace = Namespace::new("no-operator");
    namespace.ready_registry("team", "{}");
    let login = Login::new(&namespace, "team");
    login.push("app:1");
    scale(0);
    // Nobody has to wait for a lease of somebody who stopped in order.
    let lease = get(&["lease", "wharf-operator", "-n", "wharf-system"]).unwrap();
    assert!(lease.pointer("/spec/holderIdentity").is_none_or(|holder| holder == ""), "{lease}");
    login.push("app:2");
    namespace.pod("one", &login.reference("app:1"), "node1");
    namespace.pod("two", &login.reference("app:2"), "node2");
    // A Registry made meanwhile says that nobody has looked at it.
    namespace.registry("later", "{}");
    let later = namespace.get("registry", "later").unwrap();
    assert_eq!(crate::support::condition(&later, "Ready").as_deref(), Some("Unknown/Pending"));
    // As on the first day: whoever comes first makes the lease.
    kubectl(&["delete", "lease", "wharf-operator", "-n", "wharf-system"]);
    scale(1);
    namespace.wait_for("later", "Ready", "True/Ready");
}

#[test]
#[ignore = "needs cluster"]
fn another_replica_takes_over_when_the_leader_ends() {
    let _alone = Alone::new();
    let namespace = Namespace::new("leaders");
    scale(2);
    let first = leader();
    kubectl(&["delete", "pod", &first, "-n", "wharf-system", "--wait=false"]);
    eventually("somebody else leads", || (leader() != first).then_some(()));
    namespace.ready_registry("team", "{}");
    scale(1);
}

#[test]
#[ignore = "needs cluster"]
fn nothing_is_written_once_all_is_as_wanted() {
    let _alone = Alone::new();
    let namespace = Namespace::new("silence");
    namespace.ready_registry("team", "{}");
    let versions = || -> Vec<(String, Value)> {
        let mut all = Vec::new();
        for arguments in [
            &["registries,services,deployments,configmaps,secrets,serviceaccounts,pvc", "-n", &namespace.name][..],
            &["configmaps", "-n", "wharf-nodes"],
            &["noderuntimes"],
        ] {
            let list = get(arguments).unwrap();
            for item in list["items"].as_array().unwrap() {
                let name = format!("{} {}", item["kind"], item["metadata"]["name"]);
                all.push((name, item["metadata"]["resourceVersion"].clone()));
            }
        }
        all
    };
    // Registries of earlier tests that go change the node plan.
    eventually("this is the only Registry", || {
        let all = get(&["registries", "-A"])?;
        (all["items"].as_array()?.len() == 1).then_some(())
    });
    // Readiness settles in several steps; from then on, nothing.
    let mut before = versions();
    eventually("the objects come to rest", || {
        std::thread::sleep(Duration::from_secs(3));
        let now = versions();
        let still = now == before;
        before = now;
        still.then_some(())
    });
    let old = leader();
    kubectl(&["rollout", "restart", "deployment/wharf-operator", "daemonset/wharf-agent", "-n", "wharf-system"]);
    kubectl(&["rollout", "status", "deployment/wharf-operator", "-n", "wharf-system", "--timeout=120s"]);
    kubectl(&["rollout", "status", "daemonset/wharf-agent", "-n", "wharf-system", "--timeout=120s"]);
    eventually("the new operator leads", || (leader() != old).then_some(()));
    // Time for what must not happen: the new leader's first passes over everything.
    std::thread::sleep(Duration::from_secs(10));
    assert_eq!(versions(), before, "a restart of operator and agents writes nothing");
}

#[test]
#[ignore = "needs cluster"]
fn the_kustomize_form_is_accepted_as_it_stands() {
    let _namespace = Namespace::new("kustomize");
    let said = kubectl(&["apply", "--dry-run=server", "--server-side", "--force-conflicts", "-k", "deploy"]);
    assert!(said.lines().count() > 15, "{said}");
    assert!(said.contains("daemonset.apps/wharf-agent") && said.contains("registries.wharf.dev"), "{said}");
}

#[test]
#[ignore = "needs cluster"]
fn the_processes_tell_how_they_are() {
    let namespace = Namespace::new("metrics");
    namespace.ready_registry("team", "{}");
    for (component, port, expected) in [
        ("operator", 8080, "wharf_operator_passes_total{controller=\"registry\",outcome=\"completed\"}"),
        ("agent", 17081, "wharf_agent_"),
    ] {
        let selector = format!("app.kubernetes.io/component={component}");
        let pods = get(&["pods", "-n", "wharf-system", "-l", &selector]).unwrap();
        let pod = pods["items"][0]["metadata"]["name"].as_str().expect("a pod runs").to_owned();
        let raw = |path: &str| {
            kubectl(&["get", "--raw", &format!("/api/v1/namespaces/wharf-system/pods/{pod}:{port}/proxy/{path}")])
        };
        assert_eq!(raw("healthz"), "ok\n");
        assert_eq!(raw("readyz"), "ok\n");
        let metrics = raw("metrics");
        assert!(metrics.contains(expected), "{metrics}");
    }
}

#[test]
#[ignore = "needs cluster"]
fn an_agent_reports_for_its_own_node_only() {
    let _namespace = Namespace::new("reports");
    let selector = ["-l", "app.kubernetes.io/component=agent", "--field-selector=spec.nodeName=node1"];
    let pods = get(&[&["pods", "-n", "wharf-system"], &selector[..]].concat()).unwrap();
    let pod = pods["items"][0]["metadata"]["name"].as_str().expect("node1 has an agent").to_owned();
    // The very token that the agent of node1 has.
    let bound = ["--bound-object-kind=Pod", &format!("--bound-object-name={pod}")];
    let token = kubectl(&[&["create", "token", "wharf-agent", "-n", "wharf-system"], &bound[..]].concat());
    let folder = tempfile::tempdir().unwrap();
    let headers = folder.path().join("headers");
    let content = "Content-Type: application/merge-patch+json";
    std::fs::write(&headers, format!("Authorization: Bearer {}\n{content}\n", token.trim())).unwrap();
    let server = kubectl(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"]);
    let report = |node: &str| {
        let url = format!("{server}/apis/wharf.dev/v1alpha1/noderuntimes/{node}/status?dryRun=All");
        let header = format!("@{}", headers.display());
        run("curl", &["-sk", "-X", "PATCH", "-H", &header, "-d", r#"{"status":{"planRevision":1}}"#, &url])
    };
    let said = report("node1");
    assert!(said.contains("\"kind\": \"NodeRuntime\""), "{said}");
    let said = report("node2");
    assert!(said.contains("the agent of node node1 may report for that node only, not for node2"), "{said}");
}
