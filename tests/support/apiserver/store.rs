//! The stored objects and the rules of writing them.
//! It must never change an object in any other way than by `commit`, which is what counts versions and feeds watches.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::RecordedRequest;
use super::admission::admit;
use super::kinds::{Kind, served};
use super::ownership::{self, Manager, Ownership, SERVER_FIELDS};
use super::refusal::{Refusal, about, already_exists, conflict, invalid, not_found, refuse};

/// Resource, namespace (empty for the cluster's own) and name.
pub(super) type Key = (String, String, String);

/// One change of one object.
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) key: Key,
    pub(super) before: Option<Value>,
    pub(super) after: Option<Value>,
}

/// What a write is about, and on whose behalf.
pub(super) struct Write<'a> {
    pub(super) kind: &'a Kind,
    pub(super) key: Key,
    pub(super) manager: Manager,
    pub(super) dry_run: bool,
    /// Whether status may be written along with the rest, which only the harness does.
    pub(super) with_status: bool,
}

/// Everything the server remembers.
pub(super) struct Store {
    pub(super) kinds: Vec<Kind>,
    /// Resources whose definition is gone.
    pub(super) withdrawn: Vec<String>,
    pub(super) objects: BTreeMap<Key, Value>,
    pub(super) history: Vec<Change>,
    pub(super) version: u64,
    /// Watches cannot start from a version older than this.
    pub(super) oldest: u64,
    pub(super) now: String,
    pub(super) requests: Vec<RecordedRequest>,
    /// How many identities were given out: the source of uids, generated names and addresses.
    issued: u64,
    /// Wakes watches after a change.
    pub(super) changed: watch::Sender<()>,
}

impl Store {
    pub(super) fn new() -> Self {
        Self {
            kinds: served(),
            withdrawn: Vec::new(),
            objects: BTreeMap::new(),
            history: Vec::new(),
            version: 1,
            oldest: 0,
            now: "2030-01-01T00:00:00Z".to_owned(),
            requests: Vec::new(),
            issued: 0,
            changed: watch::Sender::new(()),
        }
    }

    /// The kinds that can be asked for.
    pub(super) fn served(&self) -> Vec<Kind> {
        self.kinds.iter().filter(|kind| !self.withdrawn.contains(&kind.resource())).cloned().collect()
    }

    /// The same objects at the same version, without the past.
    pub(super) fn snapshot(&self) -> Self {
        Self {
            kinds: self.kinds.clone(),
            objects: self.objects.clone(),
            version: self.version,
            oldest: self.version,
            now: self.now.clone(),
            issued: self.issued,
            ..Self::new()
        }
    }

    /// Stores a new object. `ownership` is given if an apply makes it.
    pub(super) fn create(
        &mut self,
        write: &Write,
        mut object: Value,
        owned: Option<Ownership>,
    ) -> Result<Value, Refusal> {
        let kind = write.kind;
        let (resource, namespace, mut name) = write.key.clone();
        if !object["metadata"]["resourceVersion"].is_null() {
            return Err(refuse(500, "", "resourceVersion should not be set on objects to be created"));
        }
        self.issued += 1;
        if name.is_empty() {
            let prefix = object["metadata"]["generateName"].as_str().unwrap_or_default();
            if prefix.is_empty() {
                return Err(invalid(
                    kind,
                    "",
                    "metadata.name",
                    "FieldValueRequired",
                    "Required value: name is required",
                ));
            }
            name = format!("{prefix}{:05}", self.issued);
        }
        let key = (resource, namespace.clone(), name.clone());
        if kind.namespaced && self.namespace(&namespace).is_none() {
            return Err(refuse(404, "NotFound", &format!("namespaces \"{namespace}\" not found")));
        }
        if self.is_terminating(&namespace) {
            let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
            return Err(about(refuse(403, "Forbidden", &why), kind, &name));
        }
        if self.objects.contains_key(&key) {
            return Err(already_exists(kind, &name));
        }
        keep(&mut object, &Value::Null, &SERVER_FIELDS[3..]);
        object["metadata"]["name"] = json!(name);
        if kind.namespaced {
            object["metadata"]["namespace"] = json!(namespace);
        }
        object["metadata"]["uid"] = json!(format!("00000000-0000-4000-8000-{:012}", self.issued));
        object["metadata"]["creationTimestamp"] = json!(self.now);
        if kind.counts_generations() {
            object["metadata"]["generation"] = json!(1);
        }
        if kind.has_status && !write.with_status {
            set(&mut object, "status", Value::Null);
        }
        match kind.plural.as_str() {
            "services" if object["spec"]["clusterIP"].is_null() && object["spec"]["type"] != "ExternalName" => {
                object["spec"]["clusterIP"] = json!(format!("10.96.{}.{}", self.issued / 250, self.issued % 250 + 1));
            }
            "persistentvolumeclaims" if object["status"].is_null() => object["status"] = json!({"phase": "Pending"}),
            "namespaces" => {
                object["status"] = json!({"phase": "Active"});
                object["spec"]["finalizers"] = json!(["kubernetes"]);
            }
            _ => {}
        }
        if kind.plural == "services" && !object["spec"]["clusterIP"].is_null() {
            object["spec"]["clusterIPs"] = json!([object["spec"]["clusterIP"]]);
        }
        admit(kind, None, &mut object)?;
        let owned = owned.unwrap_or_else(|| {
            // What the server gave a Service by itself is nobody's.
            let mut theirs = object.clone();
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                set(&mut theirs["spec"], field, Value::Null);
            }
            let theirs = if kind.plural == "services" { &theirs } else { &object };
            ownership::update(kind, &Value::Null, theirs, write.manager.clone())
        });
        ownership::write(kind, &mut object, &owned);
        Ok(self.commit(kind, &key, object, write.dry_run))
    }

    /// Replaces the object `before` by what a client made of it. `owned` is given if an apply did.
    pub(super) fn update(
        &mut self,
        write: &Write,
        before: &Value,
        mut object: Value,
        owned: Option<Ownership>,
    ) -> Result<Value, Refusal> {
        let (kind, name) = (write.kind, &write.key.2);
        let stated = |field: &str| object["metadata"][field].as_str().filter(|text| !text.is_empty());
        if stated("uid").is_some_and(|uid| before["metadata"]["uid"] != uid) {
            return Err(conflict(
                kind,
                name,
                "Precondition failed: UID in precondition differs from UID in object meta",
            ));
        }
        if stated("resourceVersion").is_some_and(|version| before["metadata"]["resourceVersion"] != version) {
            let why = "the object has been modified; please apply your changes to the latest version and try again";
            return Err(conflict(kind, name, why));
        }
        if write.manager.subresource == "status" {
            let status = object["status"].take();
            object = before.clone();
            set(&mut object, "status", status);
        } else if kind.has_status && !write.with_status {
            set(&mut object, "status", before["status"].clone());
        }
        keep(&mut object, before, &SERVER_FIELDS);
        admit(kind, Some(before), &mut object)?;
        let owned = owned.unwrap_or_else(|| ownership::update(kind, before, &object, write.manager.clone()));
        ownership::write(kind, &mut object, &owned);
        Ok(self.commit(kind, &write.key, object, write.dry_run))
    }

    /// Stores what another actor made of an object, without any of the checks on a client's write.
    pub(super) fn overwrite(&mut self, kind: &Kind, key: &Key, before: &Value, mut object: Value, manager: Manager) {
        let owned = ownership::update(kind, before, &object, manager);
        ownership::write(kind, &mut object, &owned);
        self.commit(kind, key, object, false);
    }

    /// Deletes an object, or marks it deleted while finalizers hold it.
    pub(super) fn delete(&mut self, kind: &Kind, key: &Key, options: &Value, dry_run: bool) -> Result<Value, Refusal> {
        let name = &key.2;
        let Some(mut object) = self.objects.get(key).cloned() else { return Err(not_found(kind, name)) };
        for (field, label) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
            let (wanted, found) = (&options["preconditions"][field], &object["metadata"][field]);
            if !wanted.is_null() && wanted != found {
                let why =
                    format!("Precondition failed: {label} in precondition: {wanted}, {label} in object meta: {found}");
                return Err(conflict(kind, name, &why));
            }
        }
        if object["metadata"]["deletionTimestamp"].is_null() {
            object["metadata"]["deletionTimestamp"] = json!(self.now);
            object["metadata"]["deletionGracePeriodSeconds"] = json!(0);
            if let Some(generation) = object["metadata"]["generation"].as_i64() {
                object["metadata"]["generation"] = json!(generation + 1);
            }
            if kind.plural == "namespaces" {
                object["status"]["phase"] = json!("Terminating");
            }
        }
        let uid = object["metadata"]["uid"].clone();
        if options["propagationPolicy"] == "Orphan" && !dry_run {
            self.let_go_of(&uid);
        }
        let held = is_held(&object);
        let marked = self.commit(kind, key, object, dry_run);
        let details = json!({"name": name, "group": kind.group, "kind": kind.plural, "uid": uid});
        let done = json!({"kind": "Status", "apiVersion": "v1", "status": "Success", "details": details});
        Ok(if held { marked } else { done })
    }

    /// Takes an owner off everything that it has, as the garbage collector does before the owner goes.
    fn let_go_of(&mut self, owner: &Value) {
        for (key, mut object) in self.objects.clone() {
            let Some(owners) = object["metadata"]["ownerReferences"].as_array_mut() else { continue };
            let before = owners.len();
            owners.retain(|reference| reference["uid"] != *owner);
            let is_changed = owners.len() < before;
            if owners.is_empty() {
                set(&mut object["metadata"], "ownerReferences", Value::Null);
            }
            if is_changed {
                self.commit(&self.kind_of(&key), &key, object, false);
            }
        }
    }

    /// Deletes what has no living owner or lies in a namespace that is being deleted, until nothing more is to delete.
    pub(super) fn collect_garbage(&mut self) {
        loop {
            let version = self.version;
            let doomed: Vec<Key> = self.objects.keys().filter(|key| self.is_garbage(key)).cloned().collect();
            for key in doomed {
                let _ = self.delete(&self.kind_of(&key), &key, &Value::Null, false);
            }
            let is_empty = |namespace: &str| !self.objects.keys().any(|key| key.1 == namespace);
            let is_done = |key: &&Key| key.0 == "namespaces" && self.is_terminating(&key.2) && is_empty(&key.2);
            let done: Vec<Key> = self.objects.keys().filter(is_done).cloned().collect();
            for key in done {
                let mut object = self.objects[&key].clone();
                set(&mut object["spec"], "finalizers", Value::Null);
                self.commit(&self.kind_of(&key), &key, object, false);
            }
            if self.version == version {
                return;
            }
        }
    }

    fn is_garbage(&self, key: &Key) -> bool {
        let owners = self.objects[key]["metadata"]["ownerReferences"].as_array().map_or(&[][..], Vec::as_slice);
        // An owner in another namespace counts as absent.
        let lives = |uid: &Value| {
            let mut near = self.objects.iter().filter(|(owner, _)| owner.1.is_empty() || owner.1 == key.1);
            near.any(|(_, candidate)| candidate["metadata"]["uid"] == *uid)
        };
        self.is_terminating(&key.1) || (!owners.is_empty() && !owners.iter().any(|owner| lives(&owner["uid"])))
    }

    fn namespace(&self, name: &str) -> Option<&Value> {
        self.objects.get(&("namespaces".to_owned(), String::new(), name.to_owned()))
    }

    fn is_terminating(&self, namespace: &str) -> bool {
        self.namespace(namespace).is_some_and(|found| !found["metadata"]["deletionTimestamp"].is_null())
    }

    fn kind_of(&self, key: &Key) -> Kind {
        self.kinds.iter().find(|kind| kind.resource() == key.0).cloned().expect("only served kinds are stored")
    }

    /// The one place where an object changes. A write that changes nothing gets no new version, as in a real server.
    fn commit(&mut self, kind: &Kind, key: &Key, mut object: Value, dry_run: bool) -> Value {
        let before = self.objects.get(key).cloned();
        if before.as_ref() == Some(&object) {
            return object;
        }
        let intent = |object: &Value| {
            let mut intent = object.clone();
            set(&mut intent, "status", Value::Null);
            // A Deployment counts changes of its annotations too.
            let annotations = intent["metadata"]["annotations"].take();
            set(&mut intent, "metadata", if kind.plural == "deployments" { annotations } else { Value::Null });
            intent
        };
        if let Some(old) = before.as_ref().filter(|old| kind.counts_generations() && intent(old) != intent(&object)) {
            object["metadata"]["generation"] = json!(old["metadata"]["generation"].as_i64().unwrap_or_default() + 1);
        }
        if dry_run {
            return object;
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let gone = !object["metadata"]["deletionTimestamp"].is_null() && !is_held(&object);
        if gone {
            self.objects.remove(key);
        } else {
            self.objects.insert(key.clone(), object.clone());
        }
        let after = (!gone).then(|| object.clone());
        self.history.push(Change { version: self.version, key: key.clone(), before, after });
        self.changed.send_replace(());
        object
    }
}

/// Whether finalizers keep a deleted object. Those in the spec are the namespaces' own.
fn is_held(object: &Value) -> bool {
    [&object["metadata"]["finalizers"], &object["spec"]["finalizers"]]
        .iter()
        .any(|finalizers| finalizers.as_array().is_some_and(|list| !list.is_empty()))
}

/// Sets a field, or removes it if the value is null.
pub(super) fn set(object: &mut Value, field: &str, value: Value) {
    match object.as_object_mut() {
        Some(fields) if value.is_null() => drop(fields.remove(field)),
        Some(fields) => drop(fields.insert(field.to_owned(), value)),
        None => {}
    }
}

/// Gives the metadata the values that the server set before, whatever a client says.
fn keep(object: &mut Value, before: &Value, fields: &[&str]) {
    for field in fields {
        set(&mut object["metadata"], field, before["metadata"][field].clone());
    }
}
