//! What others do for Mirrors: Kubernetes with stateful sets and their claims, agents with their hosts.

use serde_json::{Value, json};

use super::set;
use crate::apiserver::Server;

/// Pods and claims of stateful sets: claims are made and kept as the template says, and go with their ordinal.
pub fn stateful_sets(server: &Server) {
    for set_of_pods in server.list("StatefulSet") {
        let (metadata, spec) = (&set_of_pods["metadata"], &set_of_pods["spec"]);
        let (namespace, name) = (metadata["namespace"].as_str().unwrap(), metadata["name"].as_str().unwrap());
        let owner = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": name, "uid": metadata["uid"]}]);
        let replicas = spec["replicas"].as_i64().unwrap();
        for template in spec["volumeClaimTemplates"].as_array().into_iter().flatten() {
            let prefix = format!("{}-{name}-", template["metadata"]["name"].as_str().unwrap());
            for ordinal in 0..replicas {
                let claim = format!("{prefix}{ordinal}");
                match server.get("PersistentVolumeClaim", namespace, &claim) {
                    None => drop(server.add(&json!({
                        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": template["spec"],
                        "metadata": {"name": claim, "namespace": namespace, "labels": template["metadata"]["labels"], "ownerReferences": owner},
                    }))),
                    Some(found) if found["metadata"]["ownerReferences"] != owner => {
                        server.set("PersistentVolumeClaim", namespace, &claim, |found| {
                            found["metadata"]["ownerReferences"] = owner.clone();
                        });
                    }
                    Some(_) => {}
                }
            }
            for claim in server.list("PersistentVolumeClaim") {
                let claim = claim["metadata"]["name"].as_str().unwrap();
                let ordinal = claim.strip_prefix(&prefix).and_then(|ordinal| ordinal.parse::<i64>().ok());
                if ordinal.is_some_and(|ordinal| ordinal >= replicas) {
                    server.remove("PersistentVolumeClaim", namespace, claim);
                }
            }
        }
        set(server, "StatefulSet", &set_of_pods, |object| {
            object["status"] = json!({
                "observedGeneration": metadata["generation"], "availableReplicas": replicas, "updatedReplicas": replicas,
                "readyReplicas": replicas, "replicas": replicas,
            });
        });
    }
}

/// What an agent reports of the hosts of Mirrors in the node plan.
pub fn mirrored(server: &Server) -> Vec<Value> {
    let shards = server
        .list("ConfigMap")
        .into_iter()
        .filter_map(|config_map| serde_json::from_str::<Value>(config_map["data"]["hosts.json"].as_str()?).ok());
    let hosts = shards.flat_map(|shard| shard["hosts"].as_object().cloned().unwrap_or_default());
    let of_mirrors = hosts.filter(|(_, entry)| entry["owner"]["kind"] == "Mirror");
    let mut mirrors: Vec<Value> = of_mirrors
        .map(|(host, _)| json!({"host": host, "written": "2026-06-01T00:00:00Z", "reachable": true, "used": false}))
        .collect();
    mirrors.sort_by_key(|mirror| mirror["host"].to_string());
    mirrors
}
