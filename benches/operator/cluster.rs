//! What the benchmark does to the cluster, as an administrator: namespaces, Registries, reports of nodes, restarts.
//! It must never leave a namespace of its own behind, because later figures would include it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Config, ResourceExt};
use serde_json::json;
use wharf::api::{NodeRuntime, Registry};

use crate::process::{Memory, Process};

/// A bound against hanging, not an expectation.
const PATIENCE: Duration = Duration::from_secs(900);

/// Wharf's own namespace.
const SYSTEM: &str = "wharf-system";

/// The cluster that `dev/install` made.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
}

impl Cluster {
    pub async fn connect() -> Self {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/target/cluster/kubeconfig");
        let kubeconfig = Kubeconfig::read_from(file).expect("dev/install started the cluster");
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        Self { client: Client::try_from(config).unwrap() }
    }

    pub fn registries(&self, namespace: &str) -> Api<Registry> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub async fn make_namespace(&self, name: &str) {
        self.remove_namespace(name).await;
        let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        let api = Api::<Namespace>::all(self.client.clone());
        api.create(&PostParams::default(), &namespace).await.unwrap();
    }

    /// Deletes a namespace and waits until it is gone.
    pub async fn remove_namespace(&self, name: &str) {
        let api = Api::<Namespace>::all(self.client.clone());
        let _ = api.delete(name, &DeleteParams::default()).await;
        until("the namespace is gone", async || api.get_opt(name).await.unwrap().is_none()).await;
    }

    pub async fn make_registry(&self, namespace: &str, name: &str, suspend: bool) {
        let registry = json!({
            "apiVersion": "wharf.dev/v1alpha1",
            "kind": "Registry",
            "metadata": {"name": name},
            "spec": {"suspend": suspend, "storage": {"claim": {"size": "1Gi"}}},
        });
        // As `kubectl apply` does it.
        let parameters = PatchParams::apply("bench");
        self.registries(namespace).patch(name, &parameters, &Patch::Apply(&registry)).await.unwrap();
    }

    /// When each Registry of a namespace was first seen as `wanted` says, once `count` have been.
    pub async fn reached(
        &self,
        namespace: &str,
        count: usize,
        wanted: impl Fn(&Registry) -> bool,
    ) -> BTreeMap<String, Instant> {
        let mut reached = BTreeMap::new();
        let mut changes = std::pin::pin!(
            watcher(self.registries(namespace), watcher::Config::default()).default_backoff().applied_objects()
        );
        let all = async {
            while reached.len() < count {
                if let Ok(Some(registry)) = changes.try_next().await
                    && wanted(&registry)
                {
                    reached.entry(registry.name_any()).or_insert_with(Instant::now);
                }
            }
        };
        tokio::time::timeout(PATIENCE, all).await.expect("the Registries converge");
        reached
    }

    /// Brings the number of the operator's replicas to `replicas`; does not wait.
    pub async fn scale_operator(&self, replicas: u8) {
        let api = Api::<Deployment>::namespaced(self.client.clone(), SYSTEM);
        let patch = json!({"spec": {"replicas": replicas}});
        api.patch_scale("wharf-operator", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }

    async fn pods(&self, component: &str) -> Vec<Pod> {
        let selector = format!("app.kubernetes.io/component={component}");
        let api = Api::<Pod>::namespaced(self.client.clone(), SYSTEM);
        api.list(&ListParams::default().labels(&selector)).await.unwrap().items
    }

    /// The running processes of a component, pod by pod.
    pub async fn processes(&self, component: &str) -> Vec<Vec<Process>> {
        let pods = self.pods(component).await;
        let each = pods.iter().filter_map(|pod| Some(Process::of_pod(pod.metadata.uid.as_ref()?)));
        each.filter(|processes| !processes.is_empty()).collect()
    }

    /// What each agent holds, its supervisor included.
    pub async fn memory_of_agents(&self) -> Vec<Memory> {
        let agents = self.processes("agent").await;
        agents.iter().map(|processes| Memory::of_one_program(processes)).collect()
    }

    /// Ends the operator in good order and starts another; gives back its process.
    pub async fn restart_operator(&self) -> Process {
        self.scale_operator(0).await;
        until("the operator has ended", async || self.pods("operator").await.is_empty()).await;
        self.scale_operator(1).await;
        self.operator().await
    }

    /// The operator's process, as soon as there is one.
    pub async fn operator(&self) -> Process {
        let mut found = None;
        until("the operator runs", async || {
            found = self.processes("operator").await.concat().pop();
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    /// Starts the agents anew and waits until they are ready.
    pub async fn restart_agents(&self) {
        let api = Api::<Pod>::namespaced(self.client.clone(), SYSTEM);
        let old: Vec<_> = self.pods("agent").await.iter().filter_map(ResourceExt::uid).collect();
        let agents = ListParams::default().labels("app.kubernetes.io/component=agent");
        api.delete_collection(&DeleteParams::default(), &agents).await.unwrap();
        until("the agents are ready", async || {
            let pods = self.pods("agent").await;
            pods.len() == old.len() && pods.iter().all(|pod| is_ready(pod) && !old.contains(&pod.uid().unwrap()))
        })
        .await;
    }

    /// Adds an annotation to a Registry, which wakes a pass and changes nothing that is wanted.
    pub async fn touch(&self, namespace: &str, name: &str, value: &str) {
        let patch = json!({"metadata": {"annotations": {"wharf.test/touched": value}}});
        self.registries(namespace).patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }

    /// Makes `count` reports of nodes that do not exist.
    pub async fn make_reports(&self, count: usize, revision: i64) {
        let api = Api::<NodeRuntime>::all(self.client.clone());
        for number in 0..count {
            let name = format!("bench-{number}");
            let runtime = json!({
                "apiVersion": "wharf.dev/v1alpha1", "kind": "NodeRuntime", "metadata": {"name": name}, "spec": {},
            });
            api.patch(&name, &PatchParams::apply("bench").force(), &Patch::Apply(&runtime)).await.unwrap();
            self.report(number, revision).await;
        }
    }

    /// One of those nodes reports that it has carried out a revision.
    pub async fn report(&self, number: usize, revision: i64) {
        let api = Api::<NodeRuntime>::all(self.client.clone());
        let status = json!({"status": {
            "planRevision": revision,
            "runtime": "containerd://2.3.4",
            "configPath": "/etc/containerd/certs.d",
            "counts": {"written": 200, "exceptions": 0},
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "Ready", "message": format!("revision {revision}"),
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        }});
        let name = format!("bench-{number}");
        api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    }

    /// Takes all made-up reports away.
    pub async fn remove_reports(&self) {
        let api = Api::<NodeRuntime>::all(self.client.clone());
        let all = api.list_metadata(&ListParams::default()).await.unwrap();
        for name in all.iter().map(ResourceExt::name_any).filter(|name| name.starts_with("bench-")) {
            api.delete(&name, &DeleteParams::default()).await.unwrap();
        }
    }

    /// The revision of the plan that the nodes report.
    pub async fn revision(&self) -> i64 {
        let api = Api::<NodeRuntime>::all(self.client.clone());
        let all = api.list(&ListParams::default()).await.unwrap();
        all.iter().filter_map(|runtime| runtime.status.as_ref()?.plan_revision).max().unwrap_or(0)
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// `status/reason` of a Registry's condition.
pub fn condition(registry: &Registry, kind: &str) -> Option<String> {
    let found = registry.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == kind)?;
    Some(format!("{}/{}", found.status, found.reason))
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < PATIENCE, "not within {} s: {what}", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Runs all of them at once.
pub async fn together(work: impl Iterator<Item = impl Future<Output = ()>>) {
    work.collect::<futures::stream::FuturesUnordered<_>>().collect::<Vec<()>>().await;
}
