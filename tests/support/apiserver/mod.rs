//! A Kubernetes API server in this process, for tests of what happens when requests fail, hang, conflict or are lost.
//! It must never act by itself: time, other actors and garbage collection move only when a test says so.

#![allow(dead_code, reason = "each suite uses its own part of the server")]
#![allow(clippy::restriction, reason = "a test ends by panicking")]

mod admission;
mod call;
mod connection;
mod kinds;
mod ownership;
mod refusal;
mod selection;
mod store;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::Client;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use call::Call;
pub use connection::Connection;
use kinds::Kind;
use ownership::Manager;
use store::{Key, Store, Write};

/// What goes wrong with one request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The server answers with this error, without carrying the request out.
    Status { code: u16, reason: &'static str, retry_after: Option<u32> },
    /// The request is not carried out and not answered as long as the client's process lives.
    Hang,
    /// The connection breaks before the request is carried out.
    Reset,
    /// The request is carried out, but the connection breaks before the answer.
    ApplyThenLose,
    /// The client's process ends before the request is carried out.
    CrashBefore,
    /// The client's process ends after the request was carried out, without seeing the answer.
    CrashAfter,
}

/// What goes wrong with one event of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventFault {
    /// The event never comes; those after it do.
    Lose,
    /// The watch ends before it.
    Cut,
    /// The watch is told that its version is too old.
    Expire,
}

/// One request that reached the server.
#[derive(Clone, Debug)]
pub struct RecordedRequest {
    /// Counts the requests to this server from 0.
    pub ordinal: usize,
    /// The verb as roles name it.
    pub verb: &'static str,
    /// The resource, such as `configmaps` or `deployments.apps`; empty if the server has none of that name.
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub body: Value,
    /// Whether only the object's metadata was asked for.
    pub metadata_only: bool,
    /// Whether it changed what is stored.
    pub wrote: bool,
    /// The code of the answer; `None` if the client got none.
    pub outcome: Option<u16>,
}

impl RecordedRequest {
    /// Whether its verb is one that changes objects, whatever came of it.
    pub fn is_mutation(&self) -> bool {
        !matches!(self.verb, "get" | "list" | "watch")
    }
}

type EventHook = Arc<dyn Fn(usize, &str) -> Option<EventFault> + Send + Sync>;
type Hook = Arc<dyn Fn(&RecordedRequest) -> Option<Fault> + Send + Sync>;

/// The server. Clones are the same server.
#[derive(Clone)]
pub struct Server {
    store: Arc<Mutex<Store>>,
    hook: Arc<Mutex<Option<Hook>>>,
    event_hook: Arc<Mutex<(usize, Option<EventHook>)>>,
    /// Changes when all watches are to end.
    cut: watch::Sender<u64>,
}

impl Server {
    /// A server that holds nothing but the namespaces `default` and `kube-system`.
    pub fn new() -> Self {
        let store = Arc::new(Mutex::new(Store::new()));
        let server = Self::of(store);
        for name in ["default", "kube-system"] {
            server.add(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
        }
        server
    }

    /// The connection of a new process.
    pub fn connect(&self) -> Connection {
        Connection::new(self.clone())
    }

    /// A client of a process that never crashes.
    pub fn client(&self) -> Client {
        self.connect().client()
    }

    /// Asks `hook` about each request from now on. It may use the server, as another actor would.
    pub fn on_request(&self, hook: impl Fn(&RecordedRequest) -> Option<Fault> + Send + Sync + 'static) {
        *self.hook.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(hook));
    }

    /// Lets all requests pass from now on.
    pub fn heal(&self) {
        *self.hook.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Every request since the start, or since they were forgotten.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.store().requests.clone()
    }

    /// The requests with a verb that changes objects, whatever came of them.
    pub fn mutations(&self) -> Vec<RecordedRequest> {
        self.requests().into_iter().filter(RecordedRequest::is_mutation).collect()
    }

    /// How many requests changed what is stored.
    pub fn writes(&self) -> usize {
        self.requests().iter().filter(|request| request.wrote).count()
    }

    /// Sets the server's clock, as an RFC 3339 timestamp in whole seconds of UTC.
    pub fn set_time(&self, now: &str) {
        now.clone_into(&mut self.store().now);
    }

    /// Stores a new object with its status, as another actor.
    pub fn add(&self, object: &impl Serialize) -> Value {
        let object = json!(object);
        let mut store = self.store();
        let kind =
            store.kinds.iter().find(|kind| object["apiVersion"] == *kind.api_version && object["kind"] == *kind.name);
        let kind = kind.cloned().expect("the object is of a kind that the server serves");
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let key = (kind.resource(), text("namespace"), text("name"));
        let write = Write { kind: &kind, key, manager: another_actor(), dry_run: false, with_status: true };
        store.create(&write, object, None).unwrap_or_else(|refusal| panic!("{refusal}"))
    }

    /// Changes an object in any way, as another actor. Only the server's own rules on versions and finalizers hold.
    pub fn set(&self, kind: &str, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) -> Value {
        let mut store = self.store();
        let (kind, key) = find(&store, kind, namespace, name);
        let before = store.objects.get(&key).cloned().expect("the object to change exists");
        let mut object = before.clone();
        change(&mut object);
        store.overwrite(&kind, &key, &before, object.clone(), another_actor());
        store.objects.get(&key).cloned().unwrap_or(object)
    }

    /// Deletes an object, as another actor. Finalizers hold it as they hold any.
    pub fn remove(&self, kind: &str, namespace: &str, name: &str) {
        let mut store = self.store();
        let (kind, key) = find(&store, kind, namespace, name);
        store.delete(&kind, &key, &Value::Null, false).expect("the object to delete exists");
    }

    /// An object as it is stored.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let store = self.store();
        store.objects.get(&find(&store, kind, namespace, name).1).cloned()
    }

    /// Every object of a kind as it is stored, by namespace and name.
    pub fn list(&self, kind: &str) -> Vec<Value> {
        let store = self.store();
        let resource = find(&store, kind, "", "").0.resource();
        store.objects.iter().filter(|(key, _)| key.0 == resource).map(|(_, object)| object.clone()).collect()
    }

    /// Deletes the dependants whose owners are all gone, and the content of namespaces that are being deleted.
    pub fn collect_garbage(&self) {
        self.store().collect_garbage();
    }

    /// Another server that holds what this one does now. What happens to one does not happen to the other.
    pub fn snapshot(&self) -> Self {
        let store = Arc::new(Mutex::new(self.store().snapshot()));
        Self::of(store)
    }

    fn of(store: Arc<Mutex<Store>>) -> Self {
        Self { store, hook: Arc::default(), event_hook: Arc::default(), cut: watch::Sender::new(0) }
    }

    /// Asks `hook` about each event of a watch from now on: which one it is, from 0, and what the client would read.
    pub fn on_event(&self, hook: impl Fn(usize, &str) -> Option<EventFault> + Send + Sync + 'static) {
        *self.event_hook.lock().unwrap_or_else(PoisonError::into_inner) = (0, Some(Arc::new(hook)));
    }

    fn fault_of(&self, line: &str) -> Option<EventFault> {
        let mut hook = self.event_hook.lock().unwrap_or_else(PoisonError::into_inner);
        let ordinal = hook.0;
        hook.0 += 1;
        hook.1.as_ref().and_then(|hook| hook(ordinal, line))
    }

    /// Serves a kind no longer, as when its definition is deleted: its objects are gone, and nothing tells the watches.
    pub fn withdraw(&self, kind: &str) {
        let resource = find(&self.store(), kind, "", "").0.resource();
        let mut store = self.store();
        store.objects.retain(|key, _| key.0 != resource);
        store.withdrawn.push(resource);
        drop(store);
        self.cut_watches();
    }

    /// Serves every kind again.
    pub fn serve_all(&self) {
        self.store().withdrawn.clear();
    }

    /// Forgets the history: a watch that starts from an older version than the present one is told that it expired.
    pub fn compact(&self) {
        let mut store = self.store();
        store.oldest = store.version;
    }

    /// Ends all watches, as a restart of the server does.
    pub fn cut_watches(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, call: &Call) -> RecordedRequest {
        let mut store = self.store();
        let record = RecordedRequest {
            ordinal: store.requests.len(),
            verb: call.verb,
            resource: call.kind.as_ref().map(Kind::resource).unwrap_or_default(),
            subresource: call.subresource.clone(),
            namespace: call.namespace.clone(),
            name: call.name.clone(),
            body: call.body.clone(),
            metadata_only: call.metadata_only,
            wrote: false,
            outcome: None,
        };
        store.requests.push(record.clone());
        record
    }
}

fn another_actor() -> Manager {
    Manager { name: "another-actor".to_owned(), operation: "Update".to_owned(), subresource: String::new() }
}

fn find(store: &Store, kind: &str, namespace: &str, name: &str) -> (Kind, Key) {
    let kind =
        store.kinds.iter().find(|candidate| candidate.name == kind).cloned().expect("a kind that the server serves");
    let key = (kind.resource(), namespace.to_owned(), name.to_owned());
    (kind, key)
}
