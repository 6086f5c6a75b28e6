//! Random requests, such as the operator makes them and such as go wrong: few objects, few fields and few managers, so that
//! they meet.

use std::fmt;

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Map, Value, json};

/// A request. `$uid` and `$version` in its body stand for what the side last saw of the object.
pub struct Asked {
    pub method: &'static str,
    collection: String,
    name: String,
    query: String,
    pub content_type: &'static str,
    pub body: Value,
    /// The object that it is about.
    pub object: String,
    /// Whether the side takes no note of the answer, so that what it knows is out of date.
    pub looks_away: bool,
}

impl Asked {
    pub fn path(&self) -> String {
        let slash = if self.name.is_empty() { "" } else { "/" };
        format!("{}{slash}{}?{}", self.collection, self.name, self.query)
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} {} {}", self.method, self.path(), self.content_type, self.body)
    }
}

const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";
const STEPS: &str = "application/json-patch+json";
const JSON: &str = "application/json";

/// The kinds that are asked for: version, kind, plural.
const KINDS: [(&str, &str, &str); 4] = [
    ("v1", "ConfigMap", "configmaps"),
    ("v1", "ServiceAccount", "serviceaccounts"),
    ("v1", "Service", "services"),
    ("apps/v1", "Deployment", "deployments"),
];

pub fn next(random: &mut StdRng, namespace: &str) -> Asked {
    let (version, kind, plural) = KINDS[random.random_range(0..KINDS.len())];
    let root = if version.contains('/') { "apis" } else { "api" };
    let collection = format!("/{root}/{version}/namespaces/{namespace}/{plural}");
    let name = either(random, ["a", "b"]);
    let manager = either(random, ["one", "two"]);
    let mut object = object(random, version, kind, name);
    let parameters = format!("fieldManager={manager}");
    let (method, query, content_type, body) = match random.random_range(0..20) {
        0..2 => ("GET", String::new(), JSON, Value::Null),
        2..4 => ("POST", parameters, JSON, object),
        4..12 => {
            identify(random, &mut object);
            let force = if random.random_bool(0.5) { "&force=true" } else { "" };
            ("PATCH", format!("{parameters}{force}"), APPLY, object)
        }
        12..14 => {
            identify(random, &mut object);
            ("PUT", parameters, JSON, object)
        }
        14..16 => ("PATCH", parameters, MERGE, change(random)),
        16..18 => ("PATCH", parameters, STEPS, steps(random)),
        _ => ("DELETE", String::new(), JSON, preconditions(random)),
    };
    let named = method != "POST";
    Asked {
        method,
        object: format!("{plural}/{name}"),
        name: if named { name.to_owned() } else { String::new() },
        collection,
        query,
        content_type,
        body,
        looks_away: random.random_bool(0.2),
    }
}

fn either(random: &mut StdRng, two: [&'static str; 2]) -> &'static str {
    two[usize::from(random.random_bool(0.5))]
}

/// Some of these fields, with one of two values.
fn some(random: &mut StdRng, fields: &[&str]) -> Value {
    let mut map = Map::new();
    for field in fields {
        if random.random_bool(0.5) {
            map.insert((*field).to_owned(), json!(either(random, ["x", "y"])));
        }
    }
    Value::Object(map)
}

fn object(random: &mut StdRng, version: &str, kind: &str, name: &str) -> Value {
    let mut metadata = json!({"name": name});
    for field in ["labels", "annotations"] {
        let values = some(random, &["p", "q"]);
        if values != json!({}) {
            metadata[field] = values;
        }
    }
    let mut object = json!({"apiVersion": version, "kind": kind, "metadata": metadata});
    match kind {
        "ConfigMap" => object["data"] = data(random),
        "ServiceAccount" => {
            // An object of which nobody owns anything is not tracked any more.
            object["automountServiceAccountToken"] = json!(random.random_bool(0.5));
            if random.random_bool(0.5) {
                let secrets =
                    ["s", "t"].into_iter().filter(|_| random.random_bool(0.6)).map(|name| json!({"name": name}));
                let secrets: Vec<Value> = secrets.collect();
                if !secrets.is_empty() {
                    object["imagePullSecrets"] = json!(secrets);
                }
            }
        }
        "Service" => {
            let port = |number: u16| json!({"name": format!("p{number}"), "port": number, "targetPort": number});
            let mut ports = vec![port(80)];
            ports.extend((81..83).filter(|_| random.random_bool(0.3)).map(port));
            object["spec"] = json!({"ports": ports, "selector": {"app": either(random, ["x", "y"])}});
        }
        _ => {
            let mut container = json!({"name": "main", "image": either(random, ["i:1", "j:1"])});
            if random.random_bool(0.5) {
                container["env"] = json!([{"name": "E", "value": either(random, ["x", "y"])}]);
            }
            if random.random_bool(0.5) {
                container["resources"] = json!({"requests": {"cpu": "1000m", "memory": "1024Mi"}});
            }
            let template = json!({"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [container]}});
            object["spec"] = json!({"selector": {"matchLabels": {"app": "d"}}, "template": template});
            if random.random_bool(0.5) {
                object["spec"]["replicas"] = json!(random.random_range(0..3));
            }
        }
    }
    object
}

fn data(random: &mut StdRng) -> Value {
    let mut data = some(random, &["k", "l", "m"]);
    data["always"] = json!("x");
    data
}

/// Names the object or its version that is meant, or a wrong one, or none.
fn identify(random: &mut StdRng, object: &mut Value) {
    match random.random_range(0..10) {
        0 => object["metadata"]["uid"] = json!("$uid"),
        1 => object["metadata"]["uid"] = json!("00000000-0000-4000-8000-00000000dead"),
        2..5 => object["metadata"]["resourceVersion"] = json!("$version"),
        _ => {}
    }
}

fn change(random: &mut StdRng) -> Value {
    match random.random_range(0..4) {
        0 => json!({"metadata": {"labels": {"p": null, "r": "x"}}}),
        1 => json!({"metadata": {"annotations": {"q": "z"}}}),
        2 => json!({"metadata": {"resourceVersion": "$version", "labels": {"p": "z"}}}),
        _ => {
            json!({"metadata": {"finalizers": if random.random_bool(0.5) { json!(["example.com/f"]) } else { Value::Null }}})
        }
    }
}

fn steps(random: &mut StdRng) -> Value {
    match random.random_range(0..3) {
        0 => json!([{"op": "test", "path": "/metadata/resourceVersion", "value": "$version"},
            {"op": "add", "path": "/metadata/labels", "value": {"p": "w"}}]),
        1 => json!([{"op": "remove", "path": "/metadata/labels"}]),
        _ => json!([{"op": "add", "path": "/metadata/annotations", "value": {"q": "w", "s": "x"}}]),
    }
}

fn preconditions(random: &mut StdRng) -> Value {
    let preconditions = match random.random_range(0..4) {
        0 => json!({"uid": "$uid"}),
        1 => json!({"uid": "$uid", "resourceVersion": "$version"}),
        2 => json!({"uid": "00000000-0000-4000-8000-00000000dead"}),
        _ => return Value::Null,
    };
    json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": preconditions})
}
