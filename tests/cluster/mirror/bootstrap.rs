//! A cluster that starts from nothing while the registries are gone: as far as the cache reaches, everything starts.

use serde_json::json;

use super::everyday::run_pods;
use super::pulls::{Way, forget_everywhere, pull_everywhere};
use super::stage::Stage;
use crate::support::{Namespace, eventually, get, kubectl, run};
use crate::turn::{Alone, wharf_is_whole};

#[test]
#[ignore = "needs cluster"]
fn a_cold_start_without_the_registry_goes_as_far_as_the_cache() {
    let _alone = Alone::new();
    let namespace = Namespace::new("bootstrap");
    let stage = Stage::new("bootstrap", &json!({}));
    let pushed = stage.hub.push("cold", &[100_000]);
    let pulls = pull_everywhere(Way::Configured, [&pushed.reference; 2], 20);
    assert!(pulls.iter().all(|pull| pull.problem.is_none()), "{pulls:?}");
    forget_everywhere();
    stage.hub.leave();
    for node in ["node1", "node2"] {
        run("dev/cluster/kill", &[node]);
    }
    for node in ["node1", "node2"] {
        run("dev/cluster/start", &[node]);
    }
    // Neither Wharf nor what nodes need to start depends on Wharf.
    wharf_is_whole();
    for (kind, name) in
        [("deployment/coredns", "kube-system"), (&*format!("statefulset/mirror-{}", stage.name), "wharf-system")]
    {
        kubectl(&["rollout", "status", kind, "-n", name, "--timeout=120s"]);
    }
    run_pods(&namespace, "cold", &pushed.reference, 4);
    eventually("the Mirror says that the registry is away, and is of use all the same", || {
        let mirror = get(&["mirror", &stage.name])?;
        (mirror["status"]["nodes"]["able"] == 2).then_some(())
    });
    stage.hub.come_back();
    stage.is_ready();
}
