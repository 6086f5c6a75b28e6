//! A large cluster: many agents at the real API server, and many Registries in the node plan. What they ask at rest, what one
//! change of the plan costs to spread, and what the operator holds. It must never leave its Registries or reports behind.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::Config;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use serde_json::json;
use wharf::api::NodeRuntime;
use wharf::plan::{INDEX_KEY, INDEX_NAME, Index};

use crate::agents::Agents;
use crate::audit::{Mark, Request, summary};
use crate::cluster::{Cluster, condition, together};
use crate::figures::Figures;
use crate::forward::Forward;
use crate::support::setting;

const NAMESPACE: &str = "bench-scale";
/// The account that acts for the agents, and its role.
const ACTOR: &str = "wharf-bench";
/// How long requests are counted where nothing changes.
const REST: Duration = Duration::from_secs(30);
/// How often the plan is changed.
const CHANGES: usize = 3;
/// How many are made at once.
const AT_ONCE: usize = 20;

pub async fn measure(figures: &mut Figures) {
    let (nodes, registries) = (setting("WHARF_BENCH_AGENTS", 1000), setting("WHARF_BENCH_REGISTRIES", 500));
    let cluster = Cluster::connect().await;
    clean(&cluster).await;
    cluster.restart_operator().await;
    eprintln!("  {registries} Registries, suspended");
    cluster.make_namespace(NAMESPACE).await;
    make_registries(&cluster, registries).await;
    eprintln!("  {nodes} agents");
    let names: Vec<String> = (0..nodes).map(|number| format!("bench-{number}")).collect();
    for names in names.chunks(AT_ONCE) {
        together(names.iter().map(|name| make_report(&cluster, name))).await;
    }
    let config = config(&cluster).await;
    let forward = Forward::to(config.cluster_url.authority().unwrap().to_string()).await;
    let agents = Agents::start(&config, &forward, &names, revision(&cluster).await).await;
    at_rest(&cluster, &forward, nodes, figures).await;
    for number in 0..CHANGES {
        change(&cluster, &forward, &agents, nodes, number, figures).await;
    }
    figures.memory("operator", cluster.operator().await.memory());
    drop(agents);
    clean(&cluster).await;
}

async fn clean(cluster: &Cluster) {
    cluster.remove_reports().await;
    cluster.remove_namespace(NAMESPACE).await;
    let _ = Api::<ClusterRoleBinding>::all(cluster.client.clone()).delete(ACTOR, &DeleteParams::default()).await;
    let _ = Api::<ClusterRole>::all(cluster.client.clone()).delete(ACTOR, &DeleteParams::default()).await;
}

/// As who may act for agents. An administrator could as well, but is not in the audit log.
async fn config(cluster: &Cluster) -> Config {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/target/cluster/kubeconfig");
    let kubeconfig = Kubeconfig::read_from(file).expect("dev/install started the cluster");
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    // What the agents do when they are refused, they do themselves.
    config.default_retry = false;
    let client = &cluster.client;
    let role = json!({"metadata": {"name": ACTOR}, "rules": [
        {"apiGroups": [""], "resources": ["groups", "serviceaccounts"], "verbs": ["impersonate"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["userextras/authentication.kubernetes.io/node-name"],
            "verbs": ["impersonate"]},
    ]});
    let binding = json!({
        "metadata": {"name": ACTOR},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ACTOR},
        "subjects": [{"kind": "ServiceAccount", "name": ACTOR, "namespace": NAMESPACE}],
    });
    let new = PostParams::default();
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), NAMESPACE);
    accounts.create(&new, &serde_json::from_value(json!({"metadata": {"name": ACTOR}})).unwrap()).await.unwrap();
    Api::all(client.clone()).create(&new, &serde_json::from_value::<ClusterRole>(role).unwrap()).await.unwrap();
    let binding = serde_json::from_value::<ClusterRoleBinding>(binding).unwrap();
    Api::all(client.clone()).create(&new, &binding).await.unwrap();
    let request = serde_json::from_value(json!({"spec": {"audiences": [], "expirationSeconds": 7200}})).unwrap();
    let token = accounts.create_token_request(ACTOR, &new, &request).await.unwrap().status.unwrap().token;
    config.auth_info = AuthInfo { token: Some(token.into()), ..AuthInfo::default() };
    config
}

async fn make_registries(cluster: &Cluster, count: usize) {
    let names: Vec<String> = (0..count).map(|number| format!("registry-{number}")).collect();
    for names in names.chunks(AT_ONCE) {
        together(names.iter().map(|name| cluster.make_registry(NAMESPACE, name, true))).await;
    }
    let done =
        |registry: &wharf::api::Registry| condition(registry, "NodesConfigured").as_deref() == Some("True/AllNodes");
    cluster.reached(NAMESPACE, count, done).await;
}

async fn make_report(cluster: &Cluster, name: &str) {
    let api = Api::<NodeRuntime>::all(cluster.client.clone());
    let runtime = json!({
        "apiVersion": "wharf.dev/v1alpha1", "kind": "NodeRuntime", "metadata": {"name": name}, "spec": {},
    });
    api.patch(name, &PatchParams::apply("bench").force(), &Patch::Apply(&runtime)).await.unwrap();
}

async fn index(cluster: &Cluster) -> Index {
    let maps = Api::<ConfigMap>::namespaced(cluster.client.clone(), "wharf-nodes");
    let data = maps.get(INDEX_NAME).await.unwrap().data.unwrap();
    serde_json::from_str(&data[INDEX_KEY]).unwrap()
}

async fn revision(cluster: &Cluster) -> i64 {
    index(cluster).await.revision
}

/// What all ask while nothing happens, a minute.
async fn at_rest(cluster: &Cluster, forward: &Forward, nodes: usize, figures: &mut Figures) {
    eprintln!("  at rest");
    // The reports have been read, and statuses written.
    tokio::time::sleep(Duration::from_secs(15)).await;
    let operator = cluster.operator().await;
    let (mark, before, processor) = (Mark::now(), forward.counted(), operator.processor());
    tokio::time::sleep(REST).await;
    let (requests, after) = (mark.requests(), forward.counted());
    let minutes = REST.as_secs_f64() / 60.0;
    let count =
        |counts: &dyn Fn(&Request) -> bool| requests.iter().filter(|request| counts(request)).count() as f64 / minutes;
    let other = |request: &Request| !request.is_lease() && !request.is_watch();
    figures.add("rest agents watches", count(&|request| request.component == "agent" && request.is_watch()));
    figures.add("rest agents other", count(&|request| request.component == "agent" && other(request)));
    figures.add("rest operator other", count(&|request| request.component == "operator" && other(request)));
    figures.add("rest writes", count(&Request::is_write));
    figures.add("rest processor", (operator.processor() - processor) / minutes);
    let bytes = after.to_agents + after.from_agents - before.to_agents - before.from_agents;
    figures.add("rest bytes", bytes as f64 / minutes / nodes as f64);
    let what = summary(requests.iter().filter(|request| other(request)));
    eprintln!("    neither leases nor watches: {}", if what.is_empty() { "none" } else { &what });
}

/// One Registry more, until every agent has reported the plan that has it.
async fn change(
    cluster: &Cluster,
    forward: &Forward,
    agents: &Agents,
    nodes: usize,
    number: usize,
    figures: &mut Figures,
) {
    eprintln!("  a change of the plan");
    let operator = cluster.operator().await;
    let (old, mark, before, processor) =
        (revision(cluster).await, Mark::now(), forward.counted(), operator.processor());
    let started = Instant::now();
    cluster.make_registry(NAMESPACE, &format!("one-more-{number}"), true).await;
    let written = loop {
        let now = revision(cluster).await;
        if now > old {
            figures.add("change written", started.elapsed().as_secs_f64());
            break now;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    agents.all_told(written).await;
    figures.add("change told", started.elapsed().as_secs_f64());
    // What goes on after the last report belongs to it.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let after = forward.counted();
    let each = nodes as f64 * 1024.0;
    figures.add("change bytes to", (after.to_agents - before.to_agents) as f64 / each);
    figures.add("change bytes from", (after.from_agents - before.from_agents) as f64 / each);
    figures.add("change bytes all", (after.to_agents - before.to_agents) as f64 / f64::from(1 << 20));
    figures.add("change processor", operator.processor() - processor);
    let requests = mark.requests();
    let of_agents = requests.iter().filter(|request| request.component == "agent" && !request.is_watch());
    figures.add("change requests", of_agents.count() as f64 / nodes as f64);
    for component in ["agent", "operator"] {
        let own = requests.iter().filter(|request| request.component == component && !request.is_lease());
        eprintln!("    {component}: {}", summary(own));
    }
}
