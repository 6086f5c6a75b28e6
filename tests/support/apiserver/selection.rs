//! Which objects a list or a watch is about, and the events of a watch.
//! It must never let a watch miss a change between the version it starts from and the next one that it reports.

use std::collections::BTreeMap;

use kube::core::{Expression, Selector, SelectorExt};
use serde_json::{Value, json};

use super::call::Call;
use super::refusal::{Refusal, refuse};
use super::store::{Change, Key, Store};

/// What a list or a watch asks for.
pub(super) struct Selection {
    resource: String,
    namespace: String,
    labels: Selector,
    /// A path into the object, the value wanted there, and whether it is wanted.
    fields: Vec<(String, String, bool)>,
}

impl Selection {
    pub(super) fn of(call: &Call) -> Result<Self, Refusal> {
        let kind = call.kind()?;
        let mut fields = Vec::new();
        for term in call.parameter("fieldSelector").split(',').filter(|term| !term.is_empty()) {
            let (field, value) = term.split_once('=').unwrap_or((term, ""));
            let wanted = !field.ends_with('!');
            let field = field.trim_end_matches('!');
            let known = match (kind.plural.as_str(), field) {
                (_, "metadata.name") | ("secrets", "type") | ("pods", "spec.nodeName" | "status.phase") => true,
                (_, "metadata.namespace") => kind.namespaced,
                _ => false,
            };
            if !known {
                return Err(refuse(400, "BadRequest", &format!("field label not supported: {field}")));
            }
            let path = format!("/{}", field.replace('.', "/"));
            fields.push((path, value.trim_start_matches('=').to_owned(), wanted));
        }
        let labels = parse_labels(call.parameter("labelSelector"));
        Ok(Self { resource: kind.resource(), namespace: call.namespace.clone(), labels, fields })
    }

    pub(super) fn selects(&self, key: &Key, object: &Value) -> bool {
        let labels: BTreeMap<String, String> =
            serde_json::from_value(object["metadata"]["labels"].clone()).unwrap_or_default();
        key.0 == self.resource
            && (self.namespace.is_empty() || self.namespace == key.1)
            && self.labels.matches(&labels)
            && self.fields.iter().all(|(path, value, wanted)| {
                (object.pointer(path).and_then(Value::as_str).unwrap_or_default() == value) == *wanted
            })
    }

    /// The event that a change is to this watch, which sees an object leave its selection as deleted.
    fn event(&self, change: &Change) -> Option<(&'static str, Value)> {
        let selected = |object: &Option<Value>| object.clone().filter(|object| self.selects(&change.key, object));
        match (selected(&change.before), selected(&change.after)) {
            (None, Some(after)) => Some(("ADDED", after)),
            (Some(_), Some(after)) => Some(("MODIFIED", after)),
            (Some(mut before), None) => {
                before["metadata"]["resourceVersion"] = json!(change.version.to_string());
                Some(("DELETED", before))
            }
            (None, None) => None,
        }
    }
}

/// A watch, and how far it has read the history.
pub(super) struct Watch {
    call: Call,
    selection: Selection,
    position: usize,
    /// Lines that are sent before any change.
    first: Vec<String>,
}

impl Watch {
    pub(super) fn start(call: Call, store: &Store) -> Result<Self, Refusal> {
        let selection = Selection::of(&call)?;
        let kind = call.kind()?.clone();
        let from: u64 = call.parameter("resourceVersion").parse().unwrap_or_default();
        let mut watch = Self { call, selection, position: store.history.len(), first: Vec::new() };
        let streams = watch.call.parameter("sendInitialEvents") == "true";
        if from == 0 || streams {
            let chosen = store.objects.iter().filter(|(key, object)| watch.selection.selects(key, object));
            watch.first = chosen.map(|(_, object)| watch.line("ADDED", object.clone())).collect();
            if streams {
                let metadata = json!({"resourceVersion": store.version.to_string(),
                    "annotations": {"k8s.io/initial-events-end": "true"}});
                let end = json!({"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata});
                watch.first.push(watch.line("BOOKMARK", end));
            }
        } else if from < store.oldest {
            watch.first.push(expired(from, store.oldest));
        } else {
            watch.position = store.history.partition_point(|change| change.version <= from);
        }
        watch.first.reverse();
        Ok(watch)
    }

    /// The next line for the client, if there is one already.
    pub(super) fn next(&mut self, store: &Store) -> Option<String> {
        if let Some(line) = self.first.pop() {
            return Some(line);
        }
        while let Some(change) = store.history.get(self.position) {
            self.position += 1;
            if let Some((event, object)) = self.selection.event(change) {
                return Some(self.line(event, object));
            }
        }
        None
    }

    /// What a client is told whose version is too old.
    pub(super) fn expire(&mut self) -> String {
        self.position = usize::MAX;
        expired(0, 0)
    }

    fn line(&self, event: &str, object: Value) -> String {
        format!("{}\n", json!({"type": event, "object": self.call.render(object)}))
    }
}

fn expired(from: u64, oldest: u64) -> String {
    let message = format!("too old resource version: {from} ({oldest})");
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": "Expired", "code": 410});
    format!("{}\n", json!({"type": "ERROR", "object": status}))
}

fn parse_labels(text: &str) -> Selector {
    let mut depth = 0;
    let terms = text.split(|c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    });
    let set = |values: &str| values.trim_matches(['(', ')']).split(',').map(|value| value.trim().to_owned()).collect();
    let own = |text: &str| text.trim().to_owned();
    terms
        .filter(|term| !term.trim().is_empty())
        .map(|term| match term.trim() {
            term if term.starts_with('!') => Expression::DoesNotExist(own(&term[1..])),
            term => {
                if let Some((key, values)) = term.split_once(" notin ") {
                    Expression::NotIn(own(key), set(values))
                } else if let Some((key, values)) = term.split_once(" in ") {
                    Expression::In(own(key), set(values))
                } else if let Some((key, value)) = term.split_once("!=") {
                    Expression::NotEqual(own(key), own(value))
                } else if let Some((key, value)) = term.split_once('=') {
                    Expression::Equal(own(key), own(value.trim_start_matches('=')))
                } else {
                    Expression::Exists(own(term))
                }
            }
        })
        .collect::<Vec<_>>()
        .into_iter()
        .collect()
}
