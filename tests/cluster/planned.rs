//! The node plan as it stands in the cluster, and what nodes have of it.
//! It must never ask Wharf: the plan's objects and the nodes' files are what is compared.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::{get, on_node};

/// The hosts of the node plan, by its index.
pub fn hosts() -> BTreeSet<String> {
    let document = |name: &str, key: &str| -> Option<Value> {
        let object = get(&["configmap", name, "-n", "wharf-nodes"])?;
        serde_json::from_str(object["data"][key].as_str()?).ok()
    };
    let index = document("wharf-node-plan", "index.json").unwrap();
    let shards = index["shards"].as_array().cloned().unwrap_or_default();
    let hosts = shards.iter().filter_map(|shard| document(shard["name"].as_str()?, "hosts.json"));
    hosts.flat_map(|shard| shard["hosts"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()).collect()
}

/// The hosts that a node's runtime has a folder for.
pub fn folders(node: u8) -> BTreeSet<String> {
    on_node(node, &["ls", "/etc/containerd/certs.d"]).lines().map(str::to_owned).collect()
}
