//! Images that are fetched ahead.

use serde_json::json;

use super::pulls::{Way, forget_everywhere, pull_everywhere};
use super::stage::Stage;
use super::upstream::faults::Fault;
use crate::support::eventually;
use crate::turn::Alone;

#[test]
#[ignore = "needs cluster"]
fn a_pinned_image_is_told_until_it_is_there_and_needs_no_registry_then() {
    let _alone = Alone::new();
    let stage = Stage::begin("pins");
    let pushed = stage.hub.push("pinned", &[100_000]);
    stage.hub.befall(&Fault::Internal);
    stage.make(&json!({"cache": {"size": "1Gi", "pin": [pushed.reference, "docker.io/library/nowhere:1"]}}));
    stage.wait_for("Available", "True/PodReady");
    let pins =
        || Some(stage.get()?["status"]["pins"].as_array()?.iter().map(|pin| pin["image"].clone()).collect::<Vec<_>>());
    eventually("both are told to be missing", || {
        (pins()? == [json!("docker.io/library/nowhere:1"), json!(pushed.reference)]
            || pins()? == [json!(pushed.reference), json!("docker.io/library/nowhere:1")])
        .then_some(())
    });
    stage.hub.upstream.heal();
    eventually("the one that exists is there", || (pins()? == [json!("docker.io/library/nowhere:1")]).then_some(()));
    stage.hub.leave();
    stage.wait_for("NodesConfigured", "True/AllNodes");
    let pulls = pull_everywhere(Way::Configured, [&pushed.reference; 2], 20);
    assert!(pulls.iter().all(|pull| pull.problem.is_none()), "{pulls:?}");
    forget_everywhere();
    stage.hub.come_back();
}
