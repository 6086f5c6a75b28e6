//! Nodes that come and go.

use serde_json::json;

use super::hub::is_node;
use super::pulls::{Way, forget, pull};
use super::stage::Stage;
use crate::support::{attempt, checkout, eventually, get, on_node, run};
use crate::turn::Alone;

/// A third node, which goes with this.
struct Third;

impl Third {
    fn add() -> Self {
        let archive = checkout().join("target/dev/images/wharf.test-wharf-dev.tar").display().to_string();
        let number = run("dev/cluster/add-node", &[&archive]);
        assert_eq!(number.trim(), "3");
        Self
    }
}

impl Drop for Third {
    fn drop(&mut self) {
        let gone = attempt("dev/cluster/remove-node", &[], "");
        assert!(gone.is_ok() || std::thread::panicking(), "{gone:?}");
    }
}

#[test]
#[ignore = "needs cluster"]
fn a_new_node_pulls_through_the_mirror_and_one_that_left_is_in_no_status() {
    let _alone = Alone::new();
    let stage = Stage::new("growing", &json!({}));
    let pushed = stage.hub.push("grown", &[100_000]);
    let counted = |total: u8| {
        eventually(&format!("{total} nodes are counted"), || {
            let nodes = stage.get()?["status"]["nodes"].clone();
            (nodes["total"] == total && nodes["able"] == total).then_some(())
        });
    };
    counted(2);
    let third = Third::add();
    // Until its agent has come, it pulls as it would without Wharf; each pull is good.
    let mut around = 0;
    eventually("the node's own pulls go through the Mirror", || {
        stage.hub.upstream.forget_seen();
        let pulled = pull(3, Way::Configured, &pushed.reference, 20);
        assert!(pulled.problem.is_none() && pulled.took.as_secs() < 3, "{pulled:?}");
        forget(3);
        around += usize::from(stage.hub.asked().iter().any(is_node));
        let written = on_node(3, &["sh", "-c", "cat /etc/containerd/certs.d/docker.io/hosts.toml 2>/dev/null || true"]);
        (written.contains("wharf.dev") && !stage.hub.asked().iter().any(is_node)).then_some(())
    });
    counted(3);
    let owner = get(&["noderuntime", "node3"]).unwrap()["metadata"]["ownerReferences"][0].clone();
    assert_eq!((&owner["kind"], &owner["name"]), (&json!("Node"), &json!("node3")));
    drop(third);
    eventually("nothing tells of it", || get(&["noderuntime", "node3"]).is_none().then_some(()));
    counted(2);
    let status = stage.get().unwrap()["status"].to_string();
    assert!(!status.contains("node3"), "{status}");
}
