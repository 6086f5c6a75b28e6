//! Passes against a few objects and a real folder.

mod faults;
mod mirrors;

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::agent::fake::{Api as Fake, Local as FakeEndpoint};
use crate::agent::files::disk::Disk;
use crate::agent::local::Local;
use crate::agent::runtime::ROOT;
use crate::plan::{Entry, INDEX_KEY, INDEX_NAME, Owner, SHARD_KEY, render};

const HOSTS_FILE: &str = "certs.d/team.platform.svc/hosts.toml";
const NODE_PATH: &str = "/api/v1/nodes/node-1";
const RUNTIME_PATH: &str = "/apis/wharf.dev/v1alpha1/noderuntimes/node-1";

struct World {
    fake: Fake,
    root: TempDir,
    endpoint: FakeEndpoint,
    bind: watch::Sender<Option<Bound<FakeEndpoint>>>,
    agent: Agent<FakeEndpoint>,
}

impl World {
    fn new(runtime: &str) -> Self {
        let fake = Fake::default();
        let root = tempfile::tempdir().unwrap();
        let node = json!({
            "metadata": {"name": "node-1", "labels": {"zone": "a"}},
            "status": {"nodeInfo": {
                "architecture": "", "bootID": "", "containerRuntimeVersion": runtime, "kernelVersion": "",
                "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "operatingSystem": "", "osImage": "",
                "systemUUID": "",
            }},
        });
        fake.put(NODE_PATH.into(), node);
        let object = json!({
            "apiVersion": "wharf.dev/v1alpha1", "kind": "NodeRuntime", "metadata": {"name": "node-1"}, "spec": {},
        });
        fake.put(RUNTIME_PATH.into(), object);
        let endpoint = FakeEndpoint::default();
        let serving = Bound { local: Local::Serving(endpoint.describe()), endpoint: Some(endpoint.clone()) };
        let bind = watch::Sender::new(Some(serving));
        let agent = new_agent(&fake, root.path(), &bind);
        Self { fake, root, endpoint, bind, agent }
    }

    /// Another process takes over: nothing is remembered.
    fn restart(&mut self) {
        self.endpoint = FakeEndpoint::default();
        let local = Local::Serving(self.endpoint.describe());
        self.bind.send_replace(Some(Bound { local, endpoint: Some(self.endpoint.clone()) }));
        self.agent = new_agent(&self.fake, self.root.path(), &self.bind);
    }

    /// A plan of Registries, and of Mirrors where a host does not lie in the cluster.
    fn put_plan(&self, revision: i64, hosts: &[&str]) {
        self.put_entries(revision, hosts.iter().map(|host| ((*host).to_owned(), entry(host, revision))).collect());
    }

    fn put_entries(&self, revision: i64, hosts: BTreeMap<String, Entry>) {
        let (index, documents) = render(&Plan { revision, authority: "PEM".into(), authority_since: 1, hosts });
        let put = |name: &str, key: &str, document: &str| {
            let path = format!("/api/v1/namespaces/wharf-nodes/configmaps/{name}");
            self.fake.put(path, json!({"metadata": {"name": name}, "data": {key: document}}));
        };
        for (name, document) in &documents {
            put(name, SHARD_KEY, document);
        }
        put(INDEX_NAME, INDEX_KEY, &serde_json::to_string(&index).unwrap());
    }

    async fn pass(&mut self) -> Verdict {
        self.agent.pass(&CancellationToken::new()).await
    }

    fn written(&self) -> bool {
        self.root.path().join(HOSTS_FILE).exists()
    }

    fn status(&self) -> Value {
        self.fake.get(RUNTIME_PATH).unwrap()["status"].clone()
    }

    fn reason(&self) -> String {
        self.status()["conditions"][0]["reason"].as_str().unwrap_or_default().to_owned()
    }
}

fn entry(host: &str, since: i64) -> Entry {
    let (kind, namespace) = if host.rsplit('.').next() == Some("svc") {
        (OwnerKind::Registry, "a".into())
    } else {
        (OwnerKind::Mirror, String::new())
    };
    let owner = Owner { kind, namespace, name: "b".into(), uid: "c".into() };
    Entry { backends: vec!["https://10.0.0.1".into()], owner, nodes: None, since }
}

fn new_agent(fake: &Fake, root: &Path, bind: &watch::Sender<Option<Bound<FakeEndpoint>>>) -> Agent<FakeEndpoint> {
    let options = Options {
        node_name: "node-1".into(),
        namespace: "wharf-nodes".into(),
        daemon_set: "wharf-agent".into(),
        plan_namespace: "wharf-nodes".into(),
        containerd_root: root.to_owned(),
        containers_root: None,
        local_port: 17443,
        local_plain_http: false,
        state_folder: root.to_owned(),
        mirror_token: root.to_owned(),
        listen: ([127, 0, 0, 1], 0).into(),
        worker: true,
    };
    let disks = Disks { containerd: Disk::new(root.to_owned(), ROOT), containers: None };
    Agent::new(fake.client(), &options, disks, bind.subscribe(), Probes::default(), Metrics::default())
}

#[tokio::test]
async fn a_node_follows_the_plan_and_then_writes_nothing_more() {
    let mut world = World::new("containerd://2.3.4");
    world.put_plan(7, &["team.platform.svc"]);
    assert_eq!(world.pass().await, Verdict::AtRest);
    assert!(world.written());
    assert_eq!((world.reason().as_str(), &world.status()["planRevision"]), (reason::CONFIGURED, &json!(7)));

    world.fake.forget_requests();
    assert_eq!(world.pass().await, Verdict::AtRest);
    assert!(world.fake.requests().iter().all(|request| request.starts_with("GET ")), "{:?}", world.fake.requests());

    world.put_plan(8, &[]);
    assert_eq!(world.pass().await, Verdict::AtRest);
    assert_eq!(std::fs::read_dir(world.root.path()).unwrap().count(), 0);
    assert_eq!(world.status()["planRevision"], json!(8));
}

#[tokio::test]
async fn what_cannot_be_read_leaves_the_files() {
    let mut world = World::new("containerd://2.3.4");
    world.put_plan(7, &["team.platform.svc"]);
    world.pass().await;
    let index = format!("/api/v1/namespaces/wharf-nodes/configmaps/{INDEX_NAME}");

    // The index is gone: with a plan in memory, and after a restart without one.
    world.fake.remove(&index);
    assert_eq!(world.pass().await, Verdict::AtRest);
    assert!(world.written());
    world.restart();
    assert!(!world.agent.has_looked());
    assert_eq!(world.pass().await, Verdict::AtRest);
    assert!(world.written() && world.agent.has_looked());
    assert_eq!((world.reason().as_str(), &world.status()["planRevision"]), (reason::PENDING, &json!(7)));

    // A form of the plan that this agent does not know.
    let config_map = json!({"metadata": {"name": INDEX_NAME}, "data": {INDEX_KEY: "{\"version\": 9}"}});
    world.fake.put(index, config_map);
    assert_eq!(world.pass().await, Verdict::Again);
    assert!(world.written());

    // The API server is away.
    world.fake.fail(503);
    assert_eq!(world.pass().await, Verdict::Again);
    world.restart();
    assert_eq!(world.pass().await, Verdict::Again);
    assert!(world.written() && !world.agent.has_looked());
}

#[tokio::test]
async fn files_are_done_also_when_nobody_can_be_told() {
    let mut world = World::new("containerd://2.3.4");
    world.put_plan(7, &["team.platform.svc"]);
    world.fake.remove(RUNTIME_PATH);
    assert_eq!(world.pass().await, Verdict::Again);
    assert!(world.written());
}

#[tokio::test]
async fn a_node_that_cannot_be_configured_is_a_condition_and_no_loop() {
    let mut world = World::new("docker://27.0.1");
    world.put_plan(7, &["team.platform.svc"]);
    assert_eq!(world.pass().await, Verdict::AtRest);
    assert_eq!(world.reason(), reason::UNSUPPORTED);
    assert!(!world.written());

    // The configuration is read in each pass.
    let mut world = World::new("containerd://1.7.27");
    world.put_plan(7, &["team.platform.svc"]);
    assert_eq!(world.pass().await, Verdict::AtRest);
    assert_eq!(world.reason(), reason::CONFIG_PATH_UNSET);
    let configuration =
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n";
    std::fs::write(world.root.path().join("config.toml"), configuration).unwrap();
    assert_eq!(world.pass().await, Verdict::AtRest);
    assert_eq!(world.reason(), reason::CONFIGURED);
    assert!(world.written());

    // A configuration that cannot be understood for a while leaves the entries.
    std::fs::write(world.root.path().join("config.toml"), "version = ").unwrap();
    assert_eq!(world.pass().await, Verdict::AtRest);
    assert_eq!(world.reason(), reason::CONFIGURATION_UNREADABLE);
    assert!(world.written());
}

#[tokio::test]
async fn a_stopped_pass_says_so() {
    let mut world = World::new("containerd://2.3.4");
    let stop = CancellationToken::new();
    stop.cancel();
    assert_eq!(world.agent.pass(&stop).await, Verdict::Stopped);
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_tried_again_and_told() {
    let mut world = World::new("containerd://2.3.4");
    world.put_plan(7, &["team.platform.svc"]);
    // A leftover that cannot be removed, because there is something of somebody's in it.
    let stuck = world.root.path().join("certs.d/team.platform.svc/.wharf-x.tmp");
    std::fs::create_dir_all(&stuck).unwrap();
    std::fs::write(stuck.join("thing"), "").unwrap();
    assert_eq!(world.pass().await, Verdict::Again);
    assert_eq!(world.reason(), reason::EXCEPTIONS);
    assert_eq!(world.status()["exceptions"][0]["reason"], json!(reason::WRITE_FAILED));
    std::fs::remove_file(stuck.join("thing")).unwrap();
    assert_eq!(world.pass().await, Verdict::AtRest);
    assert_eq!(world.reason(), reason::CONFIGURED);
}
