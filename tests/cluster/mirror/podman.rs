//! podman, whose library is CRI-O's, on a node: it pulls through what the agent wrote for it.

use serde_json::json;

use super::hub::is_node;
use super::stage::Stage;
use crate::processes::kill_mirror;
use crate::support::{Outcome, attempt, eventually, on_node};
use crate::turn::Alone;

/// podman's own store on a node, which goes with this.
struct Store(u8);

impl Store {
    fn podman(&self, arguments: &[&str]) -> Outcome {
        let number = self.0.to_string();
        let own =
            ["podman", "--root", "/run/test-podman", "--runroot", "/run/test-podman-state", "--storage-driver", "vfs"];
        attempt(
            "dev/cluster/node",
            &[&[&number[..], "timeout", "60"], &own[..], &["--events-backend=none"], arguments].concat(),
            "",
        )
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let number = self.0.to_string();
        let _ = attempt("dev/cluster/node", &[&number, "rm", "-rf", "/run/test-podman", "/run/test-podman-state"], "");
    }
}

#[test]
#[ignore = "needs cluster"]
fn podman_pulls_through_the_mirror_also_when_it_fails_halfway() {
    let _alone = Alone::new();
    let stage = Stage::new("podman", &json!({}));
    stage.serves_all_nodes();
    let hub = &stage.hub;
    let store = Store(1);
    let files = on_node(1, &["sh", "-c", "cat /etc/containers/registries.conf.d/*wharf*"]);
    assert!(files.contains("docker.io"), "{files}");
    let whole = hub.push("podman", &[100_000]);
    store.podman(&["pull", "-q", &whole.reference]).unwrap();
    assert!(!hub.asked().iter().any(is_node), "it came through the Mirror");
    assert_eq!(hub.upstream.bytes_sent(), whole.bytes());

    let halved = hub.push("halved", &[8_000_000]);
    hub.upstream.limit(4_000_000);
    std::thread::scope(|scope| {
        let pulled = scope.spawn(|| store.podman(&["pull", "-q", &halved.reference]));
        let layer = &halved.image.layers[1].digest;
        eventually("a quarter of it has come", || {
            hub.upstream.sent(layer).first().is_some_and(|part| part.end > 2_000_000).then_some(())
        });
        assert!(kill_mirror(&stage.name));
        pulled.join().unwrap().unwrap();
    });
    hub.upstream.limit(0);
    stage.wait_for("Ready", "True/Ready");
}
