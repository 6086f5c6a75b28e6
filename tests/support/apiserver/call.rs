//! Requests as the API server understands them, and what it answers.
//! It must never know of connections or faults: here every request is answered, at once and in full.

use std::collections::BTreeMap;

use http::request::Parts;
use serde_json::{Value, json};

use super::kinds::{Kind, discovered};
use super::ownership::{self, Manager};
use super::refusal::{Refusal, conflict, invalid, not_found, refuse};
use super::selection::Selection;
use super::store::{Key, Store, Write, set};

/// One request.
pub(super) struct Call {
    /// The verb as roles name it: `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`.
    pub(super) verb: &'static str,
    /// `None` if the path leads nowhere.
    pub(super) kind: Option<Kind>,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) subresource: String,
    pub(super) query: BTreeMap<String, String>,
    pub(super) body: Value,
    content_type: String,
    /// Whether only the metadata is asked for.
    pub(super) metadata_only: bool,
    /// The answer, if what is asked is which kinds there are.
    discovery: Option<Value>,
}

impl Call {
    pub(super) fn read(kinds: &[Kind], parts: &Parts, body: &[u8]) -> Self {
        let header =
            |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let steps: Vec<&str> = parts.uri.path().trim_matches('/').split('/').collect();
        let (api_version, mut rest) = match steps.as_slice() {
            ["api", version, rest @ ..] => ((*version).to_owned(), rest),
            ["apis", group, version, rest @ ..] => (format!("{group}/{version}"), rest),
            _ => (String::new(), &[][..]),
        };
        let discovery = match steps.as_slice() {
            ["apis"] => discovered(kinds, None),
            ["apis", group, version] => discovered(kinds, Some(&format!("{group}/{version}"))),
            _ => None,
        };
        let mut namespace = "";
        if let ["namespaces", within, inner @ ..] = rest
            && !matches!(inner, [] | ["status" | "finalize", ..])
        {
            (namespace, rest) = (within, inner);
        }
        let step = |index: usize| rest.get(index).copied().unwrap_or_default();
        let served = |kind: &&Kind| {
            kind.api_version == api_version
                && kind.plural == step(0)
                && (kind.namespaced || namespace.is_empty())
                && (step(2).is_empty() || (step(2) == "status" && kind.has_status))
        };
        let query = decode_query(parts.uri.query().unwrap_or_default());
        let watches = matches!(query.get("watch").map(String::as_str), Some("true" | "1"));
        let verb = match parts.method.as_str() {
            "GET" if discovery.is_some() => "get",
            "GET" if watches => "watch",
            "GET" if step(1).is_empty() => "list",
            "GET" => "get",
            "POST" => "create",
            "PUT" => "update",
            "PATCH" => "patch",
            "DELETE" if step(1).is_empty() => "deletecollection",
            _ => "delete",
        };
        Self {
            verb,
            kind: kinds.iter().find(served).cloned(),
            namespace: namespace.to_owned(),
            name: step(1).to_owned(),
            subresource: step(2).to_owned(),
            query,
            body: serde_json::from_slice(body).unwrap_or_default(),
            content_type: header("content-type"),
            metadata_only: header("accept").contains("as=PartialObjectMetadata"),
            discovery,
        }
    }

    pub(super) fn parameter(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    /// The kind, unless the path leads nowhere.
    pub(super) fn kind(&self) -> Result<&Kind, Refusal> {
        self.kind.as_ref().ok_or_else(|| refuse(404, "NotFound", "the server could not find the requested resource"))
    }

    /// Carries the request out: the code and the body of the answer.
    pub(super) fn execute(&self, store: &mut Store) -> Result<(u16, Value), Refusal> {
        if let Some(document) = &self.discovery {
            return Ok((200, document.clone()));
        }
        let kind = self.kind()?;
        let key: Key = (kind.resource(), self.namespace.clone(), self.name.clone());
        let live = || store.objects.get(&key).cloned();
        let found = || live().ok_or_else(|| not_found(kind, &self.name));
        let write = self.write(kind, &key);
        let dry_run = write.dry_run;
        match self.verb {
            "get" => Ok((200, self.render(found()?))),
            "list" => Ok((200, self.list(kind, store)?)),
            "create" => {
                let object = self.object(kind)?;
                let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                let write = Write { key: (key.0.clone(), key.1.clone(), name), ..write };
                store.create(&write, object, None).map(|made| (201, self.render(made)))
            }
            // An update makes a Service that is not there, unlike an object of most other kinds.
            "update" if kind.plural == "services" && live().is_none() => {
                let mut object = self.object(kind)?;
                set(&mut object["metadata"], "resourceVersion", Value::Null);
                store.create(&write, object, None).map(|made| (201, self.render(made)))
            }
            "update" => {
                let (before, object) = (found()?, self.object(kind)?);
                let unconditional = object["metadata"]["resourceVersion"].as_str().is_none_or(str::is_empty);
                if unconditional && (kind.custom || kind.plural == "leases") {
                    let why = "Invalid value: 0: must be specified for an update";
                    return Err(invalid(kind, &self.name, "metadata.resourceVersion", "FieldValueInvalid", why));
                }
                store.update(&write, &before, object, None).map(|after| (200, self.render(after)))
            }
            "patch" if self.content_type == "application/apply-patch+yaml" => {
                let before = live();
                self.apply(store, &write, before)
            }
            "patch" => {
                let before = found()?;
                let object = self.patched(&before)?;
                self.check_names(&object)?;
                self.check_identity(kind, &before, &object)?;
                store.update(&write, &before, object, None).map(|after| (200, self.render(after)))
            }
            "delete" => {
                let dry_run = dry_run || !self.body["dryRun"].is_null();
                store.delete(kind, &key, &self.body, dry_run).map(|body| (200, body))
            }
            _ => {
                Err(refuse(405, "MethodNotAllowed", "the server does not allow this method on the requested resource"))
            }
        }
    }

    fn write<'a>(&self, kind: &'a Kind, key: &Key) -> Write<'a> {
        let operation = if self.content_type == "application/apply-patch+yaml" { "Apply" } else { "Update" };
        // Without a name for itself, a client is known by its user agent; all of ours have the same.
        let name = Some(self.parameter("fieldManager")).filter(|name| !name.is_empty()).unwrap_or("unknown");
        let manager =
            Manager { name: name.to_owned(), operation: operation.to_owned(), subresource: self.subresource.clone() };
        Write { kind, key: key.clone(), manager, dry_run: self.parameter("dryRun") == "All", with_status: false }
    }

    /// The object in the body, if it can be the one that the path names.
    fn object(&self, kind: &Kind) -> Result<Value, Refusal> {
        let mut object = self.body.clone();
        drop_nulls(&mut object);
        if object["apiVersion"] != kind.api_version.as_str() || object["kind"] != kind.name.as_str() {
            let message = format!("the object provided is not a {} of {}", kind.name, kind.api_version);
            return Err(refuse(400, "BadRequest", &message));
        }
        self.check_names(&object)?;
        Ok(object)
    }

    fn check_names(&self, object: &Value) -> Result<(), Refusal> {
        let differs = |field: &str, wanted: &str| {
            object["metadata"][field].as_str().is_some_and(|text| !text.is_empty() && text != wanted)
        };
        if !self.name.is_empty() && differs("name", &self.name) {
            return Err(refuse(400, "BadRequest", "the name of the object does not match the name on the URL"));
        }
        if differs("namespace", &self.namespace) {
            let message = "the namespace of the provided object does not match the namespace sent on the request";
            return Err(refuse(400, "BadRequest", message));
        }
        Ok(())
    }

    /// Who patches an object of another identity is told that it is invalid, who replaces one that there is a conflict.
    fn check_identity(&self, kind: &Kind, before: &Value, object: &Value) -> Result<(), Refusal> {
        if object["metadata"]["uid"] == before["metadata"]["uid"] {
            return Ok(());
        }
        let why = "Invalid value: field is immutable";
        Err(invalid(kind, &self.name, "metadata.uid", "FieldValueInvalid", why))
    }

    fn patched(&self, before: &Value) -> Result<Value, Refusal> {
        let mut object = before.clone();
        match self.content_type.as_str() {
            "application/merge-patch+json" => json_patch::merge(&mut object, &self.body),
            "application/json-patch+json" => {
                let patch: json_patch::Patch = serde_json::from_value(self.body.clone())
                    .map_err(|error| refuse(400, "BadRequest", &error.to_string()))?;
                json_patch::patch(&mut object, &patch).map_err(|error| refuse(422, "Invalid", &error.to_string()))?;
            }
            _ => return Err(refuse(415, "UnsupportedMediaType", "the body of the request was in an unknown format")),
        }
        drop_nulls(&mut object);
        Ok(object)
    }

    fn apply(&self, store: &mut Store, write: &Write, live: Option<Value>) -> Result<(u16, Value), Refusal> {
        let kind = write.kind;
        let intent = self.object(kind)?;
        if self.parameter("fieldManager").is_empty() {
            let why = "Required value: is required for apply patch";
            return Err(invalid(kind, &self.name, "fieldManager", "FieldValueRequired", why));
        }
        if !intent["metadata"]["managedFields"].is_null() {
            return Err(refuse(400, "BadRequest", "metadata.managedFields must be nil"));
        }
        // An intent may leave out what the type requires: an apply of a status has no spec. Its fields are judged within
        // the object that is there.
        let mut whole = intent.clone();
        if let (Some(fields), Some(spec)) = (whole.as_object_mut(), live.as_ref().and_then(|live| live.get("spec"))) {
            fields.entry("spec").or_insert_with(|| spec.clone());
        }
        let decoded = (kind.decode)(whole).map_err(|error| refuse(400, "BadRequest", &error.to_string()))?;
        if let Some(field) = ownership::unknown_field(kind, &intent, &decoded) {
            let message = format!("failed to create typed patch object: {field}: field not declared in schema");
            return Err(refuse(500, "", &message));
        }
        let new = json!({"apiVersion": kind.api_version, "kind": kind.name, "metadata": {"name": self.name}});
        let force = self.parameter("force") == "true";
        let (mut object, owned) =
            ownership::apply(kind, live.as_ref().unwrap_or(&new), &intent, &write.manager, force)?;
        let identity = ["uid", "resourceVersion"].map(|field| intent["metadata"][field].as_str().unwrap_or_default());
        for (field, wanted) in
            ["uid", "resourceVersion"].into_iter().zip(identity).filter(|(_, wanted)| !wanted.is_empty())
        {
            object["metadata"][field] = json!(wanted);
        }
        match live {
            Some(before) => {
                self.check_identity(kind, &before, &object)?;
                store.update(write, &before, object, Some(owned)).map(|after| (200, self.render(after)))
            }
            None if !self.subresource.is_empty() => Err(not_found(kind, &self.name)),
            None if !identity[0].is_empty() => {
                let why = "uid mismatch: the provided object specified one, and no existing object was found";
                Err(conflict(kind, &self.name, why))
            }
            None => {
                // A version alone does not keep an apply from making the object anew.
                set(&mut object["metadata"], "resourceVersion", Value::Null);
                store.create(write, object, Some(owned)).map(|made| (201, self.render(made)))
            }
        }
    }

    fn list(&self, kind: &Kind, store: &Store) -> Result<Value, Refusal> {
        let selection = Selection::of(self)?;
        let chosen = store.objects.iter().filter(|(key, object)| selection.selects(key, object));
        // Where a page begins is told by how many objects come before it: objects that come or go between pages are not expected.
        let number = |parameter: &str| self.parameter(parameter).parse::<usize>().unwrap_or_default();
        let (before, limit) = (number("continue"), number("limit"));
        let limit = if limit == 0 { usize::MAX } else { limit };
        let following = chosen.clone().count().saturating_sub(before.saturating_add(limit));
        let items: Vec<Value> = chosen
            .skip(before)
            .take(limit)
            .map(|(_, object)| {
                let mut item = self.render(object.clone());
                if !kind.custom && !self.metadata_only {
                    // Items of typed lists do not repeat the list's type.
                    set(&mut item, "apiVersion", Value::Null);
                    set(&mut item, "kind", Value::Null);
                }
                item
            })
            .collect();
        let mut of = (kind.api_version.as_str(), format!("{}List", kind.name));
        if self.metadata_only {
            of = ("meta.k8s.io/v1", "PartialObjectMetadataList".to_owned());
        }
        let (api_version, name) = of;
        let mut metadata = json!({"resourceVersion": store.version.to_string()});
        if following > 0 {
            metadata["continue"] = json!((before + limit).to_string());
            metadata["remainingItemCount"] = json!(following);
        }
        Ok(json!({"apiVersion": api_version, "kind": name, "metadata": metadata, "items": items}))
    }

    /// An object as the client wants to see it.
    pub(super) fn render(&self, object: Value) -> Value {
        if self.metadata_only {
            let (api_version, kind) = ("meta.k8s.io/v1", "PartialObjectMetadata");
            return json!({"apiVersion": api_version, "kind": kind, "metadata": object["metadata"]});
        }
        object
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn decode_query(query: &str) -> BTreeMap<String, String> {
    let decode = |text: &str| {
        let mut bytes = text.bytes();
        let mut decoded = Vec::new();
        while let Some(byte) = bytes.next() {
            let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16)).unwrap_or_default();
            decoded.push(match byte {
                b'+' => b' ',
                b'%' => u8::try_from(digit() * 16 + digit()).unwrap_or_default(),
                byte => byte,
            });
        }
        String::from_utf8_lossy(&decoded).into_owned()
    };
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decode(name), decode(value))).collect()
}
