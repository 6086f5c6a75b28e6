//! Field ownership: the `managedFields` of objects, and the merge of server-side apply.
//! It must never let one manager change or remove what another owns unless it is told to force it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use kube::core::response::StatusCause;
use serde_json::{Map, Value, json};

use super::kinds::{Kind, Merge, item_name, merge_of};
use super::refusal::{Refusal, refuse, with_causes};

/// The steps to a field, each spelled as in `managedFields`: `f:name`, `k:{"uid":"…"}`, `v:"…"`.
type Path = Vec<String>;

/// Who wrote: the key of an entry of `managedFields`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Manager {
    pub(super) name: String,
    /// `Apply` or `Update`. The two never share an entry, not even under one name.
    pub(super) operation: String,
    pub(super) subresource: String,
}

/// What each manager owns.
pub(super) type Ownership = BTreeMap<Manager, BTreeSet<Path>>;

/// Fields of the metadata that the server sets, so that nobody owns them.
pub(super) const SERVER_FIELDS: [&str; 11] = [
    "name",
    "namespace",
    "generateName",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
];

/// The part of an object that a write to the subresource is about.
fn scope(kind: &Kind, subresource: &str, object: &Value) -> Value {
    if subresource == "status" {
        return json!({"status": object["status"]});
    }
    let mut scoped = object.clone();
    if let Some(fields) = scoped.as_object_mut() {
        fields.retain(|name, _| name != "apiVersion" && name != "kind" && !(kind.has_status && name == "status"));
    }
    if let Some(metadata) = scoped["metadata"].as_object_mut() {
        metadata.retain(|name, _| !SERVER_FIELDS.contains(&name.as_str()));
    }
    scoped
}

/// Every path of `value` that can be owned, with what stands there.
fn leaves(kind: &Kind, value: &Value) -> BTreeMap<Path, Value> {
    fn walk(kind: &Kind, path: &mut Path, value: &Value, found: &mut BTreeMap<Path, Value>) {
        match (value, merge_of(kind, path, value)) {
            (Value::Object(fields), Merge::Fields)
                if !fields.is_empty() || path.is_empty() || *path == ["f:metadata"] =>
            {
                for (name, field) in fields {
                    path.push(format!("f:{name}"));
                    walk(kind, path, field, found);
                    path.pop();
                }
            }
            (Value::Array(items), merge @ (Merge::Set | Merge::Keyed(_))) => {
                for item in items {
                    path.extend(item_name(merge, item));
                    found.insert(path.clone(), Value::Null);
                    if item.is_object() {
                        walk(kind, path, item, found);
                    }
                    path.pop();
                }
            }
            (Value::Null, _) => {}
            _ => drop(found.insert(path.clone(), value.clone())),
        }
    }
    let mut found = BTreeMap::new();
    walk(kind, &mut Vec::new(), value, &mut found);
    found
}

/// A field of `value` that its type does not know, as the server reports it.
pub(super) fn unknown_field(kind: &Kind, value: &Value, decoded: &Value) -> Option<String> {
    let known = leaves(kind, decoded);
    leaves(kind, value).into_keys().find(|path| !known.contains_key(path)).map(|path| display(&path))
}

/// Who owns what after a write that is not an apply: the writer owns what it changed, and nobody owns what is gone.
pub(super) fn update(kind: &Kind, before: &Value, after: &Value, manager: Manager) -> Ownership {
    let old = leaves(kind, &scope(kind, &manager.subresource, before));
    let new = leaves(kind, &scope(kind, &manager.subresource, after));
    let changed: BTreeSet<Path> =
        new.iter().filter(|(path, value)| old.get(*path) != Some(value)).map(|(path, _)| path.clone()).collect();
    let mut ownership = read(before);
    for paths in ownership.values_mut() {
        paths.retain(|path| !changed.contains(path) && (new.contains_key(path) || !old.contains_key(path)));
    }
    ownership.entry(manager).or_default().extend(changed);
    ownership.retain(|_, paths| !paths.is_empty());
    ownership
}

/// The object after `manager` applied `intent` to it, and who owns what then.
pub(super) fn apply(
    kind: &Kind,
    live: &Value,
    intent: &Value,
    manager: &Manager,
    force: bool,
) -> Result<(Value, Ownership), Refusal> {
    let intent = scope(kind, &manager.subresource, intent);
    let mut merged = live.clone();
    merge(kind, &mut Vec::new(), &mut merged, &intent);
    let old = leaves(kind, live);
    let new = leaves(kind, &merged);
    let mut ownership = read(live);
    let previous = ownership.remove(manager).unwrap_or_default();
    let mut causes = Vec::new();
    for (other, paths) in &mut ownership {
        for path in paths.clone().into_iter().filter(|path| new.contains_key(path) && new.get(path) != old.get(path)) {
            paths.remove(&path);
            let message = format!("conflict with \"{}\"", other.name);
            causes.push(StatusCause { reason: "FieldManagerConflict".to_owned(), message, field: display(&path) });
        }
    }
    if !force && !causes.is_empty() {
        let message = format!("Apply failed with {} conflicts: {causes:?}", causes.len());
        return Err(with_causes(refuse(409, "Conflict", &message), causes));
    }
    let wanted: BTreeSet<Path> = leaves(kind, &intent).into_keys().collect();
    let kept: BTreeSet<&Path> = wanted.iter().chain(ownership.values().flatten()).collect();
    let is_kept = |path: &[String]| kept.iter().any(|kept| kept.starts_with(path));
    for path in previous.iter().filter(|path| !is_kept(path)) {
        // A field in which nobody owns anything any more goes with all that is in it, be it a default that nobody owned.
        // The name and the identity, which nobody owns, are no defaults.
        let from = if path[0] == "f:metadata" { 2 } else { 1 };
        let is_field = |depth: &usize| *depth == path.len() || path[depth - 1].starts_with("f:");
        let depth = (from..=path.len()).filter(is_field).find(|depth| !is_kept(&path[..*depth]));
        remove(&mut merged, &path[..depth.unwrap_or(path.len())]);
    }
    ownership.insert(manager.clone(), wanted);
    ownership.retain(|_, paths| !paths.is_empty());
    Ok((merged, ownership))
}

fn merge(kind: &Kind, path: &mut Path, live: &mut Value, intent: &Value) {
    match (&mut *live, intent, merge_of(kind, path, intent)) {
        (Value::Object(fields), Value::Object(wanted), Merge::Fields) => {
            for (name, value) in wanted.iter().filter(|(_, value)| !value.is_null()) {
                path.push(format!("f:{name}"));
                merge(kind, path, fields.entry(name).or_insert(Value::Null), value);
                path.pop();
            }
        }
        (Value::Array(items), Value::Array(wanted), strategy @ (Merge::Set | Merge::Keyed(_))) => {
            let mut rest: Vec<Option<Value>> = items.drain(..).map(Some).collect();
            let is_wanted = |item: &Value| wanted.iter().any(|w| item_name(strategy, w) == item_name(strategy, item));
            for want in wanted {
                let name = item_name(strategy, want);
                let is_it = |slot: &Option<Value>| slot.as_ref().and_then(|item| item_name(strategy, item)) == name;
                let found = rest.iter().position(is_it);
                let next = found.or_else(|| rest.iter().position(|slot| slot.as_ref().is_some_and(is_wanted)));
                // Items that only other managers want stay in front of the item that they stood in front of.
                let before = rest.iter_mut().take(next.unwrap_or(usize::MAX));
                items.extend(before.filter_map(|slot| slot.take_if(|item| !is_wanted(item))));
                let mut item = found.and_then(|place| rest[place].take()).unwrap_or_default();
                path.extend(name);
                merge(kind, path, &mut item, want);
                path.pop();
                items.push(item);
            }
            items.extend(rest.into_iter().flatten());
        }
        _ => *live = intent.clone(),
    }
}

/// Takes the field at `path` out of `value`, and the maps and lists that are empty without it.
fn remove(value: &mut Value, path: &[String]) {
    let Some((step, rest)) = path.split_first() else { return };
    let is_empty = |value: &Value| *value == json!({}) || *value == json!([]);
    match value {
        Value::Object(fields) => {
            let name = &step[2..];
            if let Some(child) = fields.get_mut(name) {
                remove(child, rest);
                if rest.is_empty() || is_empty(child) {
                    fields.remove(name);
                }
            }
        }
        Value::Array(items) => {
            let wanted: Value = serde_json::from_str(&step[2..]).unwrap_or_default();
            let is_item = |item: &Value| match &wanted {
                Value::Object(keys) => keys.iter().all(|(key, value)| {
                    item[key] == *value || (item[key].is_null() && key == "protocol" && *value == json!("TCP"))
                }),
                value => item == value,
            };
            for item in items.iter_mut().filter(|item| is_item(item)) {
                remove(item, rest);
            }
            items.retain(|item| !is_item(item) || !(rest.is_empty() || is_empty(item)));
        }
        _ => {}
    }
}

fn display(path: &[String]) -> String {
    path.iter()
        .map(|step| match step.split_at(2) {
            ("f:", name) => format!(".{name}"),
            ("k:", keys) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                format!("[{}]", keys.join(","))
            }
            (_, item) => format!("[={item}]"),
        })
        .collect()
}

/// Reads the ownership that an object's `managedFields` spell.
fn read(object: &Value) -> Ownership {
    fn walk(path: &mut Path, node: &Map<String, Value>, found: &mut BTreeSet<Path>) {
        if node.is_empty() || node.contains_key(".") {
            found.insert(path.clone());
        }
        for (step, child) in node.iter().filter(|(step, _)| *step != ".") {
            path.push(step.clone());
            child.as_object().into_iter().for_each(|child| walk(path, child, found));
            path.pop();
        }
    }
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    entries
        .map(|entry| {
            let mut paths = BTreeSet::new();
            entry["fieldsV1"].as_object().into_iter().for_each(|node| walk(&mut Vec::new(), node, &mut paths));
            let (name, operation) = (text(entry, "manager"), text(entry, "operation"));
            (Manager { name, operation, subresource: text(entry, "subresource") }, paths)
        })
        .collect()
}

/// Writes the ownership into the object's `managedFields`.
pub(super) fn write(kind: &Kind, object: &mut Value, ownership: &Ownership) {
    let entries = ownership.iter().map(|(manager, paths)| {
        let mut root = json!({});
        for path in paths {
            let node = path.iter().fold(&mut root, |node, step| {
                if node[step].is_null() {
                    node[step] = json!({});
                }
                &mut node[step]
            });
            // A dot marks a path that is owned itself and has owned paths below it, which sort right behind it.
            let mut behind = paths.range::<Path, _>((Bound::Excluded(path), Bound::Unbounded));
            if behind.next().is_some_and(|next| next.starts_with(path)) {
                node["."] = json!({});
            }
        }
        let mut entry = json!({"manager": manager.name, "operation": manager.operation, "fieldsType": "FieldsV1",
            "apiVersion": kind.api_version, "fieldsV1": root});
        if !manager.subresource.is_empty() {
            entry["subresource"] = json!(manager.subresource);
        }
        entry
    });
    object["metadata"]["managedFields"] = entries.collect();
}
