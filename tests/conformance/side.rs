//! One of the two servers, as a client sees it: what was last known of each object, and answers in a form that can be
//! compared. It must never hide a difference that a client could act on.

use std::collections::BTreeMap;

use http::Request;
use http_body_util::BodyExt;
use kube::Client;
use serde_json::{Value, json};

use crate::requests::Asked;

pub struct Side {
    client: Client,
    /// UID and version of each object as last seen, by path.
    known: BTreeMap<String, (String, String)>,
    /// UIDs in the order in which they were seen.
    uids: Vec<String>,
}

impl Side {
    pub fn new(client: Client) -> Self {
        Self { client, known: BTreeMap::new(), uids: Vec::new() }
    }

    pub async fn send(&mut self, method: &str, path: &str, content_type: &str, body: &Value) -> (u16, Value) {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder().method(method).uri(path).header("content-type", content_type);
        let response = self.client.send(request.body(bytes.into()).unwrap()).await.unwrap();
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// Asks, with what this side calls the identity and version that are meant.
    pub async fn ask(&mut self, asked: &Asked) -> Value {
        let (uid, version) = self.known.get(&asked.object).cloned().unwrap_or_else(|| ("none".into(), "1".into()));
        let text = asked.body.to_string().replace("$uid", &uid).replace("$version", &version);
        let body: Value = serde_json::from_str(&text).unwrap();
        let (code, mut answer) = self.send(asked.method, &asked.path(), asked.content_type, &body).await;
        let metadata = &answer["metadata"];
        if let (Some(uid), Some(version)) = (metadata["uid"].as_str(), metadata["resourceVersion"].as_str())
            && !asked.looks_away
        {
            self.known.insert(asked.object.clone(), (uid.to_owned(), version.to_owned()));
        }
        if answer["kind"] == "Status" {
            let details = &answer["details"];
            let mut causes: Vec<Value> = details["causes"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|cause| json!({"reason": cause["reason"], "field": cause["field"]}))
                .collect();
            causes.sort_by_key(ToString::to_string);
            // Only a conflict's causes are read by anybody; of what is invalid, the servers may find different things first.
            let causes = if answer["reason"] == "Conflict" { json!(causes) } else { Value::Null };
            answer = json!({"reason": answer["reason"], "name": details["name"], "causes": causes});
        }
        if asked.method == "DELETE" && code == 200 {
            // Some kinds answer with the object that is gone, others say that it is; nobody reads it.
            answer = Value::Null;
        }
        self.normalise(&mut answer);
        json!({"code": code, "body": answer})
    }

    fn normalise(&mut self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for field in ["resourceVersion", "creationTimestamp", "time", "selfLink", "clusterIP", "clusterIPs"] {
                    fields.remove(field);
                }
                if let Some(Value::String(uid)) = fields.get("uid").cloned() {
                    let place = self.uids.iter().position(|known| *known == uid).unwrap_or_else(|| {
                        self.uids.push(uid);
                        self.uids.len() - 1
                    });
                    fields.insert("uid".to_owned(), json!(place));
                }
                if let Some(entries) = fields.get_mut("managedFields").and_then(Value::as_array_mut) {
                    for entry in entries.iter_mut() {
                        without_dots(&mut entry["fieldsV1"]);
                    }
                    entries.retain(|entry| entry["fieldsV1"] != json!({}));
                    entries.sort_by_key(|entry| {
                        format!("{}{}{}", entry["manager"], entry["operation"], entry["subresource"])
                    });
                }
                fields.values_mut().for_each(|field| self.normalise(field));
                // A status that nobody has written is left out, or empty.
                let is_empty = |field: &Value| *field == json!({}) || *field == json!({"loadBalancer": {}});
                fields.retain(|name, field| {
                    let left_out =
                        (name == "status" && is_empty(field)) || (name == "managedFields" && *field == json!([]));
                    !field.is_null() && !left_out
                });
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.normalise(item)),
            _ => {}
        }
    }
}

/// A dot marks a map that its fields' owner made with them. Ours tells of fewer of those, and nobody reads them.
fn without_dots(node: &mut Value) {
    let Some(children) = node.as_object_mut() else { return };
    let maps = ["f:labels", "f:annotations", "f:data", "f:requests", "f:resources", "f:ports", "f:env", "f:containers"];
    children.retain(|name, child| {
        let dotted = child.as_object_mut().is_some_and(|fields| fields.remove(".").is_some());
        let leaf = child.as_object().is_some_and(serde_json::Map::is_empty);
        without_dots(child);
        let empty = child.as_object().is_some_and(serde_json::Map::is_empty);
        (leaf && !dotted && !maps.contains(&name.as_str())) || !empty
    });
}
