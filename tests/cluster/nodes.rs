//! What Wharf does to nodes, and that it undoes it.

use crate::support::{Login, Namespace, eventually, get, helm_install, helm_uninstall, kubectl, on_node, tree};
use crate::turn::Alone;

const FOLDER: &str = "/etc/containerd";

#[test]
#[ignore = "needs cluster"]
fn uninstalling_leaves_nodes_as_they_were() {
    let _alone = Alone::new();
    let namespace = Namespace::new("uninstall");
    helm_uninstall();
    for node in [1, 2] {
        // A host file of the user's own, beside which Wharf has to live.
        on_node(node, &["mkdir", "-p", "/etc/containerd/certs.d/registry.example.com"]);
        on_node(
            node,
            &[
                "sh",
                "-c",
                "echo 'server = \"https://registry.example.com\"' > /etc/containerd/certs.d/registry.example.com/hosts.toml",
            ],
        );
    }
    let before = [tree(1, FOLDER), tree(2, FOLDER)];
    for node in [1, 2] {
        let ours = on_node(node, &["sh", "-c", &format!("grep -rl wharf.dev {FOLDER} || true")]);
        assert_eq!(ours, "", "without Wharf, nothing of Wharf's is on node {node}");
    }

    helm_install();
    namespace.ready_registry("team", "{}");
    let address = format!("team.{}.svc", namespace.name);
    for node in [1, 2] {
        let hosts = on_node(node, &["cat", &format!("{FOLDER}/certs.d/{address}/hosts.toml")]);
        assert!(hosts.contains("server = \"https://10.96."), "{hosts}");
    }
    let login = Login::new(&namespace, "team");
    login.push("app:1");
    helm_uninstall();
    assert_eq!([tree(1, FOLDER), tree(2, FOLDER)], before);
    // What ran goes on running: the registry still serves.
    login.digest("app:1").unwrap();

    helm_install();
    namespace.wait_for("team", "NodesConfigured", "True/AllNodes");
    namespace.pod("after", &login.reference("app:1"), "node1");
    for node in [1, 2] {
        on_node(node, &["rm", "-r", "/etc/containerd/certs.d/registry.example.com"]);
    }
}

#[test]
#[ignore = "needs cluster"]
fn a_users_own_host_file_is_left_alone_and_named() {
    let _alone = Alone::new();
    let namespace = Namespace::new("conflict");
    let address = format!("team.{}.svc", namespace.name);
    let folder = format!("{FOLDER}/certs.d/{address}");
    let file = format!("{folder}/hosts.toml");
    on_node(1, &["mkdir", "-p", &folder]);
    on_node(1, &["sh", "-c", &format!("echo '# mine' > {file}")]);
    namespace.registry("team", "{}");
    namespace.wait_for("team", "Ready", "True/Ready");
    let registry = namespace.wait_for("team", "NodesConfigured", "False/SomeNodes");
    assert_eq!(registry["status"]["nodes"]["summary"], "1/2");
    let runtime = get(&["noderuntime", "node1"]).unwrap();
    let exceptions = runtime.pointer("/status/exceptions").unwrap().to_string();
    assert!(exceptions.contains("Conflict") && exceptions.contains(&address), "{exceptions}");
    assert_eq!(on_node(1, &["cat", &file]), "# mine\n");
    // It heals by itself when the user takes his file away.
    on_node(1, &["rm", &file]);
    kubectl(&["rollout", "restart", "daemonset/wharf-agent", "-n", "wharf-system"]);
    namespace.wait_for("team", "NodesConfigured", "True/AllNodes");
    assert!(on_node(1, &["cat", &file]).contains("wharf.dev"));
    namespace.delete("registry", "team");
    eventually("the entry is gone, the user's folder is not", || {
        let left = on_node(1, &["ls", "-A", &folder]);
        left.trim().is_empty().then_some(())
    });
    on_node(1, &["rmdir", &folder]);
}

#[test]
#[ignore = "needs cluster"]
fn an_update_of_the_agent_keeps_the_files() {
    let _alone = Alone::new();
    let namespace = Namespace::new("agent-update");
    namespace.ready_registry("team", "{}");
    let folder = format!("{FOLDER}/certs.d/team.{}.svc", namespace.name);
    let inode = || on_node(2, &["stat", "-c", "%i %Y", &format!("{folder}/hosts.toml")]);
    let before = inode();
    kubectl(&["rollout", "restart", "daemonset/wharf-agent", "-n", "wharf-system"]);
    kubectl(&["rollout", "status", "daemonset/wharf-agent", "-n", "wharf-system", "--timeout=120s"]);
    namespace.wait_for("team", "NodesConfigured", "True/AllNodes");
    assert_eq!(inode(), before, "the very same file, not one written again");
}

#[test]
#[ignore = "needs cluster"]
fn every_node_reports_its_runtime() {
    let _namespace = Namespace::new("runtimes");
    for (node, version) in [("node1", "containerd://2.3"), ("node2", "containerd://1.6")] {
        let runtime = eventually("the agent reports", || {
            let runtime = get(&["noderuntime", node])?;
            runtime.pointer("/status/runtime").is_some().then_some(runtime)
        });
        let reported = runtime["status"]["runtime"].as_str().unwrap();
        assert!(reported.starts_with(version), "{reported}");
    }
}
