//! What there is in a cluster, so that two runs can be compared.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wharf::api::labels;

use super::KINDS;
use crate::apiserver::Server;

/// Everything in the cluster, without what differs between two undisturbed runs: identities, times and secrets. Of what is
/// secret, and of hashes of it, only the presence is kept.
pub fn state(server: &Server) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for object in KINDS.iter().flat_map(|kind| server.list(kind).into_iter().map(move |object| (kind, object))) {
        let (kind, mut object) = object;
        let name = format!(
            "{kind} {}/{}",
            object["metadata"]["namespace"].as_str().unwrap_or(""),
            object["metadata"]["name"].as_str().unwrap()
        );
        mask(&mut object, *kind == "Secret");
        all.insert(without_digest(&name), object);
    }
    all
}

/// A shard's name is made from its content, which has UIDs and addresses in it.
fn without_digest(name: &str) -> String {
    match name.strip_prefix("ConfigMap wharf-nodes/wharf-node-plan-") {
        Some(_) => "ConfigMap wharf-nodes/wharf-node-plan-<digest>".to_owned(),
        None => name.to_owned(),
    }
}

fn mask(value: &mut Value, secret: bool) {
    match value {
        Value::Object(fields) => {
            fields.remove("managedFields");
            for (key, field) in fields {
                let masked = matches!(
                    key.as_str(),
                    "uid"
                        | "resourceVersion"
                        | "creationTimestamp"
                        | "lastTransitionTime"
                        | "clusterIP"
                        | "clusterIPs"
                        | "generation"
                        | "observedGeneration"
                        | "planRevision"
                        | "ca.crt"
                        | "index.json"
                        | "hosts.json"
                ) || key == labels::INTENT
                    || key == labels::CONTENT
                    || key == labels::REGISTRY_UID;
                if masked {
                    *field = Value::String("<masked>".into());
                } else if secret && key == "data" {
                    let keys: Vec<String> = field.as_object().unwrap().keys().cloned().collect();
                    *field = json!(keys);
                } else if key == "name" && field.as_str().is_some_and(|name| name.starts_with("wharf-node-plan-")) {
                    *field = Value::String("<masked>".into());
                } else {
                    mask(field, secret);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|element| mask(element, secret)),
        _ => {}
    }
}
