//! Agents of nodes that do not exist: each has a connection of its own to the API server, watches the node plan, fetches what
//! changed and reports it, with the requests that `wharf agent` makes, under its account and with its node's name in the token's
//! place. It must never write a file: what nodes do with a plan is measured elsewhere.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Config};
use serde_json::json;
use tokio::sync::Notify;
use wharf::api::NodeRuntime;
use wharf::plan::{INDEX_KEY, INDEX_NAME, Index, SHARD_KEY, Shard};

use crate::forward::Forward;

/// As `wharf agent` spreads them.
const SPREAD: Duration = Duration::from_secs(2);
const PLAN_NAMESPACE: &str = "wharf-nodes";

/// Many agents.
pub struct Agents {
    told: Vec<Arc<AtomicI64>>,
    changed: Arc<Notify>,
    work: Vec<tokio::task::JoinHandle<()>>,
}

impl Agents {
    /// Starts an agent for each name, and waits until each has reported a revision that is not older than this one.
    pub async fn start(config: &Config, forward: &Forward, names: &[String], revision: i64) -> Self {
        let changed = Arc::new(Notify::new());
        let (mut told, mut work) = (Vec::new(), Vec::new());
        for name in names {
            let client = client(config, forward, name);
            let agent = Agent { client, name: name.clone(), told: Arc::default(), changed: changed.clone() };
            told.push(agent.told.clone());
            work.push(tokio::spawn(agent.run()));
            // Nodes do not start in the same moment either.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let agents = Self { told, changed, work };
        agents.all_told(revision).await;
        agents
    }

    /// Waits until all have reported a revision that is not older than this one.
    pub async fn all_told(&self, revision: i64) {
        loop {
            let changed = self.changed.notified();
            if self.told.iter().all(|told| told.load(Ordering::SeqCst) >= revision) {
                return;
            }
            tokio::time::timeout(Duration::from_secs(300), changed).await.expect("agents report");
        }
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        self.work.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// A client that the API server takes for the agent of a node.
fn client(config: &Config, forward: &Forward, node: &str) -> Client {
    let mut config = config.clone();
    config.cluster_url = format!("https://{}", forward.address).parse().unwrap();
    let account = "system:serviceaccount:wharf-system:wharf-agent";
    let extra = "Impersonate-Extra-authentication.kubernetes.io%2fnode-name";
    let groups = ["system:serviceaccounts", "system:serviceaccounts:wharf-system", "system:authenticated"];
    let headers = [("Impersonate-User", account), (extra, node)].into_iter();
    for (name, value) in headers.chain(groups.map(|group| ("Impersonate-Group", group))) {
        config.headers.push((name.parse().unwrap(), value.parse().unwrap()));
    }
    Client::try_from(config).unwrap()
}

struct Agent {
    client: Client,
    name: String,
    told: Arc<AtomicI64>,
    changed: Arc<Notify>,
}

impl Agent {
    async fn run(self) {
        let index: Api<PartialObjectMeta<ConfigMap>> = Api::namespaced(self.client.clone(), PLAN_NAMESPACE);
        let selector = watcher::Config::default().fields(&format!("metadata.name={INDEX_NAME}"));
        let mut events = std::pin::pin!(watcher(index, selector).default_backoff());
        let mut known = BTreeSet::new();
        while let Some(event) = events.next().await {
            let news = matches!(event, Ok(watcher::Event::Apply(_) | watcher::Event::InitDone));
            if !news {
                continue;
            }
            tokio::time::sleep(SPREAD.mul_f64(rand::random())).await;
            while self.pass(&mut known).await.is_err() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }

    /// Reads what changed, and says so.
    async fn pass(&self, known: &mut BTreeSet<String>) -> kube::Result<()> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), PLAN_NAMESPACE);
        let document = maps.get(INDEX_NAME).await?.data.unwrap_or_default().remove(INDEX_KEY).unwrap_or_default();
        let index: Index = serde_json::from_str(&document).expect("an index");
        for reference in &index.shards {
            if !known.contains(&reference.digest) {
                let mut data = maps.get(&reference.name).await?.data.unwrap_or_default();
                let shard: Shard = serde_json::from_str(&data.remove(SHARD_KEY).unwrap_or_default()).expect("a shard");
                assert!(!shard.hosts.is_empty());
                known.insert(reference.digest.clone());
            }
        }
        known.retain(|digest| index.shards.iter().any(|reference| reference.digest == *digest));
        self.tell(index.revision).await
    }

    async fn tell(&self, revision: i64) -> kube::Result<()> {
        let runtimes: Api<NodeRuntime> = Api::all(self.client.clone());
        let found = runtimes.get(&self.name).await?;
        if found.status.and_then(|status| status.plan_revision) < Some(revision) {
            let status = json!({
                "planRevision": revision,
                "runtime": "containerd://2.3.4",
                "configPath": "/etc/containerd/certs.d",
                "counts": {"written": 500, "exceptions": 0},
                "conditions": [{
                    "type": "Ready", "status": "True", "reason": "Configured", "message": "500 hosts stand as planned",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }],
            });
            let patch = json!({
                "apiVersion": "wharf.dev/v1alpha1", "kind": "NodeRuntime", "metadata": {"name": self.name},
                "status": status,
            });
            let parameters = PatchParams::apply("wharf/agent").force();
            runtimes.patch_status(&self.name, &parameters, &Patch::Apply(patch)).await?;
        }
        self.told.store(revision, Ordering::SeqCst);
        self.changed.notify_waiters();
        Ok(())
    }
}
