//! The platforms of the cluster's nodes, as images name them. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::PartialObjectMeta;

use crate::operator::view::View;

/// The labels by which Kubernetes tells a node's operating system and architecture.
const LABELS: [&str; 2] = ["kubernetes.io/os", "kubernetes.io/arch"];

/// The platforms of the nodes on which Wharf's agent can run, such as `linux/amd64`: sorted, each once.
#[must_use]
pub fn platforms(view: &View) -> Vec<String> {
    let found: BTreeSet<String> = view.nodes.state().iter().filter_map(|node| platform(node)).collect();
    found.into_iter().collect()
}

fn platform(node: &PartialObjectMeta<Node>) -> Option<String> {
    let [system, architecture] = LABELS.map(|label| node.labels().get(label));
    let architecture = architecture?.as_str();
    // Images say the variant of an architecture where it has several; Kubernetes does not.
    let architecture = match architecture {
        "arm64" => "arm64/v8",
        "arm" => "arm/v7",
        other => other,
    };
    system.is_some_and(|system| system == "linux").then(|| format!("linux/{architecture}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_platform_of_a_linux_node_is_named_once_and_as_images_name_it() {
        let (view, mut writers) = View::empty();
        let labels = [
            json!({LABELS[0]: "linux", LABELS[1]: "arm64"}),
            json!({LABELS[0]: "linux", LABELS[1]: "amd64"}),
            json!({LABELS[0]: "linux", LABELS[1]: "amd64"}),
            json!({LABELS[0]: "linux", LABELS[1]: "arm"}),
            json!({LABELS[0]: "windows", LABELS[1]: "s390x"}),
            json!({LABELS[0]: "linux"}),
            json!({LABELS[1]: "s390x"}),
        ];
        for (index, labels) in labels.into_iter().enumerate() {
            let node = json!({"metadata": {"name": format!("node-{index}"), "labels": labels}});
            let node: PartialObjectMeta<Node> = serde_json::from_value(node).unwrap();
            writers.nodes.apply_watcher_event(&kube::runtime::watcher::Event::Apply(node));
        }
        assert_eq!(platforms(&view), ["linux/amd64", "linux/arm/v7", "linux/arm64/v8"]);
    }
}
