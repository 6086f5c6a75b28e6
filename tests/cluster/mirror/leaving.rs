//! What Wharf does to nodes for Mirrors, it undoes; and what users wrote there, it leaves.

use serde_json::json;

use super::hub::is_node;
use super::pulls::{NODES, Way, forget_everywhere, pull_everywhere};
use super::stage::Stage;
use crate::support::{attempt, eventually, get, helm_install, helm_uninstall, on_node, tree};
use crate::turn::Alone;

const OWN: &str = "/etc/containerd/certs.d/ghcr.io";

/// A file of hosts that a user wrote on node 1, for a host that a Mirror has too.
struct OwnFile;

impl OwnFile {
    fn write() -> Self {
        let script = format!("mkdir -p {OWN} && echo '# my own' >{OWN}/hosts.toml");
        on_node(1, &["sh", "-c", &script]);
        Self
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        let _ = attempt("dev/cluster/node", &["1", "rm", "-rf", OWN], "");
    }
}

/// Everything that a runtime reads, and what the agent keeps.
fn files() -> Vec<String> {
    let folders = ["/etc", "/var/lib/wharf"];
    NODES.into_iter().flat_map(|node| folders.map(|folder| tree(node, folder))).collect()
}

#[test]
#[ignore = "needs cluster"]
fn nodes_are_as_they_were_when_mirrors_go_and_when_all_of_wharf_does() {
    let _alone = Alone::new();
    helm_uninstall();
    let _own = OwnFile::write();
    let before = files();
    helm_install();
    let upstreams = |hosts: &[&str]| {
        let all: Vec<_> =
            hosts.iter().map(|host| json!({"host": host, "caSecretRef": {"name": "test-internet"}})).collect();
        json!({"upstreams": all})
    };
    let stage = Stage::begin("leaving");
    stage.make(&upstreams(&["docker.io", "ghcr.io"]));
    eventually("the user's own file is told of", || {
        let told = get(&["noderuntime", "node1"])?["status"]["exceptions"].to_string();
        (told.contains("Conflict") && told.contains("ghcr.io") && told.contains(OWN)).then_some(())
    });
    stage.wait_for("NodesConfigured", "False/SomeNodes");
    assert_eq!(on_node(1, &["cat", &format!("{OWN}/hosts.toml")]), "# my own\n");
    // What is not the user's is Wharf's all the same.
    stage.serves_all_nodes();
    for node in NODES {
        let hosts = on_node(node, &["cat", "/etc/containerd/certs.d/docker.io/hosts.toml"]);
        assert!(hosts.contains("wharf.dev: Mirror leaving"), "{hosts}");
    }
    // With the Mirror there: the uninstallation ends it before it ends itself.
    helm_uninstall();
    assert!(get(&["mirror", "leaving"]).is_none());
    for (now, before) in files().iter().zip(&before) {
        assert!(now == before, "{}", difference(before, now));
    }
    let pushed = stage.hub.push("left", &[]);
    let pulls = pull_everywhere(Way::Configured, [&pushed.reference; 2], 20);
    assert!(pulls.iter().all(|pull| pull.problem.is_none()), "{pulls:?}");
    assert!(stage.hub.asked().iter().all(is_node));
    forget_everywhere();
    helm_install();
}

fn difference(before: &str, now: &str) -> String {
    let only = |one: &str, other: &str, sign: &str| {
        let lines = one.lines().filter(|line| !other.lines().any(|known| known == *line));
        lines.fold(String::new(), |text, line| text + sign + line + "\n")
    };
    only(before, now, "-") + &only(now, before, "+")
}
