//! A pod from a large image of a slow registry, on the real cluster: without a Mirror, through one that has nothing, and on a second
//! node. The registry is the scripted one that stands where docker.io is. It must never leave a Mirror or an image behind.

use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::runtime::Handle;
use wharf::api::Mirror;

use crate::cluster::{Cluster, until};
use crate::figures::Figures;
use crate::support::{checkout, setting};
use crate::world::hub::{Hub, Pushed, authority};

const NAMESPACE: &str = "bench-pods";
const SYSTEM: &str = "wharf-system";
/// The name of the Mirror, and of the Secret with who signs for the registry.
const NAME: &str = "bench";
const SIZE: usize = 200 << 20;
/// Bytes a second of all that the registry sends.
const RATE: u64 = 20_000_000;

pub fn measure(runtime: &Handle, figures: &mut Figures) {
    let hub = Hub::start();
    hub.upstream.limit(RATE);
    let bench = Bench { cluster: runtime.block_on(Cluster::connect()), runtime, hub };
    bench.clean();
    runtime.block_on(bench.cluster.make_namespace(NAMESPACE));
    let rounds = setting("WHARF_BENCH_RUNS", 2);
    let mut images = Vec::new();
    let direct: Vec<f64> = (0..rounds).map(|_| bench.run("node1", &bench.image(&mut images))).collect();
    for seconds in &direct {
        figures.add("pod direct", *seconds);
    }
    runtime.block_on(bench.make_mirror());
    for direct in direct {
        let reference = bench.image(&mut images);
        let first = bench.run("node1", &reference);
        figures.add("pod first", first);
        figures.add("pod first against direct", first / direct);
        let before = bench.hub.upstream.bytes_sent();
        figures.add("pod second", bench.run("node2", &reference));
        figures.add("pod second bytes", (bench.hub.upstream.bytes_sent() - before) as f64 / SIZE as f64);
    }
    bench.clean();
    for (node, reference) in ["1", "2"].iter().flat_map(|node| images.iter().map(move |image| (node, image))) {
        let script = checkout().join("dev/cluster/node");
        let _ = Command::new(script).args([*node, "ctr", "-n", "k8s.io", "images", "rm", "--sync", reference]).output();
    }
}

struct Bench<'a> {
    cluster: Cluster,
    runtime: &'a Handle,
    hub: Hub,
}

impl Bench<'_> {
    /// One that nobody has.
    fn image(&self, images: &mut Vec<String>) -> String {
        let Pushed { reference, .. } = self.hub.push(&format!("bench{}", images.len()), &[SIZE]);
        images.push(reference.clone());
        reference
    }

    /// Seconds until a pod of it runs.
    fn run(&self, node: &str, image: &str) -> f64 {
        eprintln!("    {image} on {node}");
        let name = format!("{}-{node}", image.rsplit('/').next().unwrap().replace(':', "-"));
        let pod = json!({
            "metadata": {"name": name},
            "spec": {
                "nodeName": node, "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "main", "image": image, "command": ["/bin/busybox", "sleep", "3600"]}],
            },
        });
        let pods = Api::<Pod>::namespaced(self.cluster.client.clone(), NAMESPACE);
        self.runtime.block_on(async {
            let started = Instant::now();
            pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
            until("the pod runs", async || {
                let status = pods.get(&name).await.unwrap().status.unwrap_or_default();
                status.phase.as_deref() == Some("Running")
            })
            .await;
            let seconds = started.elapsed().as_secs_f64();
            pods.delete(&name, &DeleteParams::default()).await.unwrap();
            seconds
        })
    }

    async fn make_mirror(&self) {
        let client = &self.cluster.client;
        let secret = json!({"metadata": {"name": NAME}, "stringData": {"ca.crt": authority().certificate}});
        let secrets = Api::<Secret>::namespaced(client.clone(), SYSTEM);
        secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
        let mirror = json!({
            "apiVersion": "wharf.dev/v1alpha1", "kind": "Mirror", "metadata": {"name": NAME},
            "spec": {
                "upstreams": [{"host": "docker.io", "caSecretRef": {"name": NAME}}],
                "cache": {"size": "4Gi"},
            },
        });
        let mirrors = Api::<Mirror>::all(client.clone());
        mirrors.patch(NAME, &PatchParams::apply("bench"), &Patch::Apply(mirror)).await.unwrap();
        until("all nodes pull through the Mirror", async || {
            let conditions = mirrors.get(NAME).await.unwrap().status.unwrap_or_default().conditions;
            ["Ready", "NodesConfigured"].iter().all(|wanted| {
                conditions.iter().any(|condition| condition.type_ == *wanted && condition.status == "True")
            })
        })
        .await;
        // The agents have looked whether it is there.
        tokio::time::sleep(Duration::from_secs(2)).await;
    }

    fn clean(&self) {
        let client = &self.cluster.client;
        self.runtime.block_on(async {
            let mirrors = Api::<Mirror>::all(client.clone());
            let _ = mirrors.delete(NAME, &DeleteParams::default()).await;
            until("the Mirror is gone", async || mirrors.get_opt(NAME).await.unwrap().is_none()).await;
            let claims = Api::<PersistentVolumeClaim>::namespaced(client.clone(), SYSTEM);
            let of_it = ListParams::default().labels(&format!("app.kubernetes.io/instance={NAME}"));
            claims.delete_collection(&DeleteParams::default(), &of_it).await.unwrap();
            let secrets = Api::<Secret>::namespaced(client.clone(), SYSTEM);
            let _ = secrets.delete(NAME, &DeleteParams::default()).await;
            self.cluster.remove_namespace(NAMESPACE).await;
        });
    }
}
