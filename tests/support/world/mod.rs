//! A cluster with two nodes and a Registry, the operator's passes over it, and what everybody else in a cluster does.
//! It must never use more of the operator than its controllers' passes: what they leave behind is what is judged.

mod caches;
mod others;
mod state;

use std::cell::Cell;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use kube::runtime::events::{Recorder, Reporter};
use serde_json::{Value, json};
use tokio::sync::watch;
use wharf::operator::apis::{self, Apis};
use wharf::operator::apply::{Applier, Contests, MANAGER};
use wharf::operator::authority::{Authority, Keeper};
use wharf::operator::backoff::Backoff;
use wharf::operator::ca_bundle::{Publisher, Refusals};
use wharf::operator::context::Context;
use wharf::operator::front::Fronts;
use wharf::operator::images::Images;
use wharf::operator::limits::Limits;
use wharf::operator::metrics::Metrics;
use wharf::operator::mirror::{self, deletion::Departures, reports::MirrorReports};
use wharf::operator::node_plan::Planner;
use wharf::operator::pull_secret::Attacher;
use wharf::operator::settings::Settings;
use wharf::operator::view::View;
use wharf::operator::volume::Volumes;
use wharf::operator::{authority, node_runtimes, registry};
use wharf::plan::Plan;

use self::caches::view;
pub use self::state::state;
use crate::apiserver::{Connection, Server};

/// See `Settings::certificate_overlap`.
pub const OVERLAP: Duration = Duration::from_secs(14 * 24 * 3600);
/// More rounds than any run needs.
const ROUNDS: usize = 40;

pub const KINDS: [&str; 17] = [
    "Registry",
    "Mirror",
    "StatefulSet",
    "Service",
    "Deployment",
    "PersistentVolumeClaim",
    "ConfigMap",
    "Secret",
    "ServiceAccount",
    "PodDisruptionBudget",
    "Ingress",
    "HTTPRoute",
    "BackendTLSPolicy",
    "NetworkPolicy",
    "NodeRuntime",
    "Node",
    "Pod",
];

/// Whether the long versions of the suites are asked for: `WHARF_TEST_LONG=1`, as `make test-long` sets it.
pub fn is_long() -> bool {
    std::env::var_os("WHARF_TEST_LONG").is_some()
}

/// Which of so many moments a suite looks at: all of them when long, or else one of every `stride`, each run beginning at another.
/// Where it began is printed, and `WHARF_TEST_SEED` lets it begin there again.
pub fn moments(count: usize, stride: usize) -> impl Iterator<Item = usize> {
    let seed = std::env::var("WHARF_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed: usize = seed.unwrap_or_else(|| usize::from(rand::random::<u8>()));
    let (first, stride) = if is_long() { (0, 1) } else { (seed % stride, stride) };
    println!("WHARF_TEST_SEED={seed}: moments {first}, {}, … of {count}", first + stride);
    (first..count).step_by(stride)
}

/// The seeds of a suite that walks at random: `few`, a hundred times as many when long, or the one of `WHARF_TEST_SEED`.
pub fn seeds(few: u64) -> Vec<u64> {
    match std::env::var("WHARF_TEST_SEED").ok().and_then(|text| text.parse().ok()) {
        Some(seed) => vec![seed],
        None => (0..if is_long() { 100 * few } else { few }).collect(),
    }
}

/// A cluster before the operator's first pass.
pub fn cluster(spec: &Value) -> Server {
    let server = Server::new();
    for name in ["platform", "wharf-system", "wharf-nodes"] {
        server.add(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
    }
    server.add(&json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "platform"}}));
    server.add(&json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "example.com/disk",
        "allowVolumeExpansion": true,
    }));
    for name in ["a", "b"] {
        server.add(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/os": "linux"}}}));
    }
    add_registry(&server, spec);
    server
}

pub fn add_registry(server: &Server, spec: &Value) {
    add_named_registry(server, "team", spec);
}

pub fn add_named_registry(server: &Server, name: &str, spec: &Value) {
    server.add(&json!({
        "apiVersion": "wharf.dev/v1alpha1",
        "kind": "Registry",
        "metadata": {"name": name, "namespace": "platform"},
        "spec": spec,
    }));
}

/// One life of the operator's process: what it remembers dies with it.
pub struct Process {
    client: Client,
    /// What the caches are filled through.
    reader: Client,
    plan: watch::Sender<Arc<Plan>>,
    /// Which APIs there are, once they were looked for.
    apis: Mutex<Option<Apis>>,
    metrics: Metrics,
    registries: Applier,
    node_plan: Applier,
    node_runtimes: Applier,
    ca_bundles: Applier,
    attachments: Contests,
    pub volumes: Volumes,
    limits: Limits,
    ca_refusals: Refusals,
    mirrors: Applier,
    pub mirror_reports: MirrorReports,
    /// What the nodes confirmed of Mirrors that go.
    pub departures: Departures,
    pub images: Images,
}

impl Process {
    pub fn start(client: Client) -> Self {
        Self::reading(client.clone(), client)
    }

    pub fn with_limits(client: Client, limits: Limits) -> Self {
        Self { limits, ..Self::start(client) }
    }

    /// A process whose caches show what `reader` sees, while it writes and reads afresh through `client`.
    pub fn reading(reader: Client, client: Client) -> Self {
        let metrics = Metrics::default();
        let applier = |manager| Applier::new(client.clone(), manager, metrics.clone());
        Self {
            reader,
            plan: watch::channel(Arc::new(Plan::default())).0,
            apis: Mutex::default(),
            registries: applier(MANAGER),
            node_plan: applier("wharf/node-plan"),
            node_runtimes: applier("wharf/node-runtime"),
            attachments: Contests::default(),
            volumes: Volumes::default(),
            limits: Limits { allowed_hosts: vec!["*.example.com".parse().unwrap()], registries_per_namespace: 0 },
            ca_bundles: applier("wharf/ca-bundle"),
            ca_refusals: Refusals::default(),
            mirrors: applier(mirror::MANAGER),
            mirror_reports: MirrorReports::default(),
            departures: Departures::default(),
            images: Images::default(),
            client,
            metrics,
        }
    }

    /// Every controller looks once at everything. Failures are left to the next round, as in the real process; they are
    /// given back.
    pub async fn round(&self) -> Vec<String> {
        let mut failures = Vec::new();
        match apis::look(&self.client, &self.metrics).await {
            Ok(found) => *self.apis.lock().unwrap() = Some(found),
            Err(error) => failures.push(error.to_string()),
        }
        let Some(apis) = *self.apis.lock().unwrap() else { return failures };
        let Some(view) = view(&self.reader, apis).await else { return vec!["the caches cannot be filled".to_owned()] };
        let authority = match authority::ensure(&self.client, "wharf-system", &self.metrics, now()).await {
            Ok(authority) => authority,
            Err(error) => return vec![error.to_string()],
        };
        let authority = watch::Sender::new(Arc::new(authority));
        let reporter = Reporter { controller: "wharf-operator".into(), instance: None };
        let recorder = Recorder::new(self.client.clone(), reporter);
        let keeper = Keeper {
            client: self.client.clone(),
            view: view.clone(),
            metrics: self.metrics.clone(),
            recorder: recorder.clone(),
            namespace: "wharf-system".into(),
            overlap: OVERLAP,
            plan: self.plan.subscribe(),
            authority: authority.clone(),
            warned: Mutex::default(),
        };
        failures.extend(keeper.pass(now()).await.err().map(|error| error.to_string()));
        let report = node_runtimes::pass(&view, &self.node_runtimes).await;
        failures.extend(report.failures.iter().map(ToString::to_string));
        let planner = Planner {
            client: self.client.clone(),
            view: view.clone(),
            applier: self.node_plan.clone(),
            metrics: self.metrics.clone(),
            namespace: "wharf-nodes".into(),
            own_namespace: "wharf-system".into(),
            limits: self.limits.clone(),
            authority: authority.subscribe(),
            plan: self.plan.clone(),
        };
        failures.extend(planner.pass(now()).await.err().map(|error| error.to_string()));
        let publisher = Publisher {
            view: view.clone(),
            applier: self.ca_bundles.clone(),
            limits: self.limits.clone(),
            authority: authority.subscribe(),
            refusals: self.ca_refusals.clone(),
        };
        failures.extend(publisher.pass(now()).await.failure.map(|error| error.to_string()));
        let context = Arc::new(self.context(&view, apis, &authority, recorder));
        for object in view.registries.state() {
            let result = registry::reconcile(object, context.clone()).await;
            failures.extend(result.err().map(|error| error.to_string()));
        }
        for object in view.mirrors.state() {
            let result = mirror::reconcile(object, context.clone()).await;
            failures.extend(result.err().map(|error| error.to_string()));
        }
        let attacher =
            Attacher { client: &self.client, view: &view, metrics: &self.metrics, contests: &self.attachments };
        failures.extend(attacher.sweep("platform").await.err().map(|error| error.to_string()));
        failures
    }

    /// What the controllers share, with what the caches show now.
    pub async fn fresh_context(&self) -> Context {
        let apis = Apis::default();
        let view = view(&self.reader, apis).await.expect("the caches can be filled");
        let authority = authority::ensure(&self.client, "wharf-system", &self.metrics, now()).await.unwrap();
        let reporter = Reporter { controller: "wharf-operator".into(), instance: None };
        let recorder = Recorder::new(self.client.clone(), reporter);
        self.context(&view, apis, &watch::Sender::new(Arc::new(authority)), recorder)
    }

    fn context(
        &self,
        view: &View,
        apis: Apis,
        authority: &watch::Sender<Arc<Authority>>,
        recorder: Recorder,
    ) -> Context {
        Context {
            client: self.client.clone(),
            view: view.clone(),
            settings: Settings { limits: self.limits.clone(), ..settings() },
            authority: authority.subscribe(),
            apis: watch::Sender::new(apis).subscribe(),
            applier: self.registries.clone(),
            plan: self.plan.subscribe(),
            recorder,
            metrics: self.metrics.clone(),
            backoff: Backoff::default(),
            attachments: self.attachments.clone(),
            volumes: self.volumes.clone(),
            fronts: Fronts::default(),
            ca_refusals: self.ca_refusals.clone(),
            mirror_applier: self.mirrors.clone(),
            mirror_reports: self.mirror_reports.clone(),
            departures: self.departures.clone(),
            images: self.images.clone(),
            clock: now,
        }
    }
}

/// The administrator's settings.
pub fn settings() -> Settings {
    Settings {
        namespace: "wharf-system".into(),
        plan_namespace: "wharf-nodes".into(),
        cluster_domain: "cluster.local".into(),
        wharf_image: "example.com/wharf:1".into(),
        volume_interval: std::time::Duration::from_secs(60),
        distribution_image: "example.com/registry:3".into(),
        certificate_overlap: OVERLAP,
        limits: Limits::default(),
        mirror_service_account: "wharf-mirror".into(),
        agent_service_account: "wharf-agent".into(),
        closed_ranges: Vec::new(),
    }
}

thread_local! {
    static NOW: Cell<Timestamp> = Cell::new("2026-06-01T00:00:00Z".parse().unwrap());
}

/// The operator's clock. Each test has one of its own, because each runs on one thread.
pub fn now() -> Timestamp {
    NOW.get()
}

pub fn set_now(time: Timestamp) {
    NOW.set(time);
}

/// Rounds of the operator and of everybody else until nothing changes any more, or the process crashed.
pub async fn run_until_quiet(server: &Server, connection: &Connection) {
    let process = Process::start(connection.client());
    tokio::select! {
        () = process.until_quiet(server) => {}
        () = connection.crashed() => {}
    }
}

impl Process {
    /// Rounds of this process and of everybody else until nothing changes any more.
    pub async fn until_quiet(&self, server: &Server) {
        for _ in 0..ROUNDS {
            let before = versions(server);
            self.round().await;
            everybody_else(server);
            if versions(server) == before {
                return;
            }
        }
        panic!("not quiet after {ROUNDS} rounds: {:#?}", server.list("Registry"));
    }
}

fn versions(server: &Server) -> Vec<Value> {
    KINDS
        .iter()
        .flat_map(|kind| server.list(kind))
        .map(|object| object["metadata"]["resourceVersion"].clone())
        .collect()
}

/// What Kubernetes and the agents do: bind claims, start pods, report from nodes, collect garbage.
pub fn everybody_else(server: &Server) {
    for claim in server.list("PersistentVolumeClaim") {
        set(server, "PersistentVolumeClaim", &claim, |object| {
            let size = &claim["spec"]["resources"]["requests"]["storage"];
            object["status"] = json!({"phase": "Bound", "capacity": {"storage": size}});
        });
    }
    for deployment in server.list("Deployment") {
        let replicas = deployment["spec"]["replicas"].clone();
        let generation = deployment["metadata"]["generation"].clone();
        set(server, "Deployment", &deployment, |object| {
            object["status"] = json!({
                "observedGeneration": generation, "availableReplicas": replicas, "updatedReplicas": replicas,
                "readyReplicas": replicas, "replicas": replicas,
            });
        });
    }
    others::stateful_sets(server);
    let index = server.get("ConfigMap", "wharf-nodes", "wharf-node-plan");
    if let Some(text) = index.as_ref().and_then(|index| index["data"]["index.json"].as_str()) {
        let revision = serde_json::from_str::<Value>(text).unwrap()["revision"].clone();
        let mirrors = others::mirrored(server);
        for runtime in server.list("NodeRuntime") {
            set(server, "NodeRuntime", &runtime, |object| {
                object["status"] =
                    json!({"planRevision": revision, "conditions": [], "counts": {"written": 1, "exceptions": 0}});
                if !mirrors.is_empty() {
                    object["status"]["mirrors"] = json!(mirrors);
                }
            });
        }
    }
    server.collect_garbage();
}

/// Writes only what differs, as every good controller does.
fn set(server: &Server, kind: &str, object: &Value, change: impl Fn(&mut Value)) {
    let mut changed = object.clone();
    change(&mut changed);
    if changed["status"] != object["status"] {
        let metadata = &object["metadata"];
        let namespace = metadata["namespace"].as_str().unwrap_or_default();
        server.set(kind, namespace, metadata["name"].as_str().unwrap(), change);
    }
}
