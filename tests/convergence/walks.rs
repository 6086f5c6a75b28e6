//! C6: walks over valid specs. Whatever a Registry was asked for on the way, in the end its children are those of a Registry
//! that was asked for the last spec alone; what nobody wants any more is gone; the images' claim is the same all along.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};

use crate::apiserver::Server;
use crate::world::{Process, cluster, seeds, state};

/// How many specs a walk goes through.
const STEPS: usize = 5;

/// Where the images are. It cannot change, so a walk keeps it.
#[derive(Clone, Copy, Debug)]
enum Place {
    Claim,
    Given,
    Bucket,
}

/// A valid spec that may follow one whose claim asks for `size`, in Gi.
fn spec(random: &mut StdRng, place: Place, size: &mut u32) -> Value {
    let mut spec = json!({});
    match place {
        Place::Claim => {
            if random.random_bool(0.3) {
                *size += random.random_range(1..10);
            }
            let policy = if random.random_bool(0.5) { "Retain" } else { "Delete" };
            spec["storage"] = json!({"claim": {"size": format!("{size}Gi")}, "deletionPolicy": policy});
        }
        Place::Given => spec["storage"] = json!({"existingClaimName": "given"}),
        Place::Bucket => {
            spec["replicas"] = json!(random.random_range(1..4));
            let mut store = json!({"bucket": "images", "prefix": "team/"});
            if random.random_bool(0.5) {
                store["endpoint"] = json!("https://minio.storage.svc:9000");
                store["caConfigMapRef"] = json!({"name": "authority"});
            }
            if random.random_bool(0.5) {
                store["credentialsSecretRef"] = json!({"name": "credentials"});
            }
            spec["storage"] = json!({"s3": store});
            spec["engine"] = json!("Distribution");
        }
    }
    if !matches!(place, Place::Bucket) {
        spec["engine"] = json!(if random.random_bool(0.5) { "Wharf" } else { "Distribution" });
    }
    if random.random_bool(0.2) {
        spec["suspend"] = json!(true);
    }
    if random.random_bool(0.6) {
        let accounts: Vec<&str> =
            ["default", "builder", "deployer"].into_iter().filter(|_| random.random_bool(0.5)).collect();
        spec["pullSecrets"] = json!({"serviceAccounts": accounts});
    }
    if random.random_bool(0.5) {
        spec["serviceAccount"] =
            json!({"annotations": {"example.com/role": format!("role-{}", random.random_range(0..2))}});
    }
    if random.random_bool(0.5) {
        spec["networkPolicy"] = json!({"mode": if random.random_bool(0.5) { "Ports" } else { "None" }});
    }
    if random.random_bool(0.4) {
        let hosts: Vec<&str> =
            ["images.example.com", HOSTS[0]].into_iter().filter(|_| random.random_bool(0.6)).collect();
        spec["hosts"] = json!(hosts);
    }
    if random.random_bool(0.6) {
        spec["expose"] = expose(random);
    }
    if random.random_bool(0.5) {
        let labels = [json!({}), json!({"team": "blue"}), json!({"team": "red"})];
        spec["caBundle"] = json!({"namespaceSelector": {"matchLabels": labels[random.random_range(0..3_usize)]}});
    }
    spec["podTemplate"] = pod_template(random);
    spec
}

/// Hosts of Ingresses; the last one is somebody else's.
const HOSTS: [&str; 3] = ["front.example.com", "other.example.com", "theirs.example.com"];

/// An Ingress, a Service, a Gateway or several of them, by which a Registry is reached from beyond the cluster.
fn expose(random: &mut StdRng) -> Value {
    let mut expose = json!({});
    let which = random.random_range(0..3);
    if which != 0 {
        let mut ingress = json!({"host": HOSTS[random.random_range(0..HOSTS.len())]});
        if random.random_bool(0.5) {
            // One of them is not there.
            ingress["className"] = json!(["nginx", "traefik", "missing"][random.random_range(0..3_usize)]);
        }
        if random.random_bool(0.3) {
            ingress["preset"] = json!(["nginx", "traefik", "haproxy", "none"][random.random_range(0..4_usize)]);
        }
        if random.random_bool(0.3) {
            ingress["annotations"] = json!({"example.com/zone": "outer"});
        }
        expose["ingress"] = ingress;
        if random.random_bool(0.4) {
            expose["tls"] = json!({"secretRef": {"name": "front"}});
        }
    }
    if which != 1 {
        let kind = if random.random_bool(0.5) { "LoadBalancer" } else { "NodePort" };
        expose["service"] = json!({"type": kind});
        if random.random_bool(0.4) {
            expose["service"]["annotations"] = json!({"example.com/zone": "outer"});
        }
    }
    if random.random_bool(0.3) {
        let parents = match random.random_range(0..3) {
            0 => json!([{"name": "front"}]),
            1 => json!([{"name": "front", "namespace": "infra", "sectionName": "https"}]),
            _ => json!([{"name": "front"}, {"name": "other", "namespace": "infra"}]),
        };
        expose["gateway"] = json!({"host": HOSTS[random.random_range(0..HOSTS.len())], "parentRefs": parents});
    }
    expose
}

fn pod_template(random: &mut StdRng) -> Value {
    let fields = [
        ("labels", json!({"team": "blue"})),
        ("annotations", json!({"example.com/scrape": "true"})),
        ("nodeSelector", json!({"disk": "fast"})),
        ("resources", json!({"requests": {"cpu": "1500m", "memory": "1024Mi"}, "limits": {"memory": "2Gi"}})),
        ("priorityClassName", json!("important")),
        ("imagePullSecrets", json!([{"name": "hub"}])),
        ("tolerations", json!([{"key": "dedicated", "operator": "Exists"}])),
        (
            "topologySpreadConstraints",
            json!([{
                "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {"app.kubernetes.io/instance": "team"}},
            }]),
        ),
    ];
    let chosen = fields.into_iter().filter(|_| random.random_bool(0.4));
    Value::Object(chosen.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
}

/// The cluster that a walk goes through, with a namespace whose label says `team`.
fn world(spec: &Value, team: &str) -> Server {
    let server = cluster(spec);
    for (name, team) in [("apps", team), ("others", "green")] {
        let metadata = json!({"name": name, "labels": {"team": team}});
        server.add(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}));
    }
    for (name, controller) in [("nginx", "k8s.io/ingress-nginx"), ("traefik", "traefik.io/ingress-controller")] {
        let is_default = (name == "traefik").to_string();
        let annotations = json!({"ingressclass.kubernetes.io/is-default-class": is_default});
        server.add(&json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
            "metadata": {"name": name, "annotations": annotations}, "spec": {"controller": controller}}));
    }
    server.add(&json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": "web", "namespace": "others"}, "spec": {"rules": [{"host": HOSTS[2]}]}}));
    for name in ["builder", "deployer"] {
        let metadata = json!({"name": name, "namespace": "platform"});
        server.add(&json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}));
    }
    server.add(&json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "given", "namespace": "platform"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}},
    }));
    server
}

/// An empty list or map and none at all are the same.
fn without_empties(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(without_empties);
            fields.retain(|_, field| !field.is_null() && *field != json!({}) && *field != json!([]));
        }
        Value::Array(items) => items.iter_mut().for_each(without_empties),
        _ => {}
    }
}

fn comparable(server: &Server) -> BTreeMap<String, Value> {
    let mut all = state(server);
    all.values_mut().for_each(without_empties);
    all
}

fn claim(server: &Server) -> Value {
    server.get("PersistentVolumeClaim", "platform", "team-registry").unwrap_or_default()
}

async fn walk(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let place = [Place::Claim, Place::Given, Place::Bucket][random.random_range(0..3_usize)];
    let mut size = 20;
    let first = spec(&mut random, place, &mut size);
    let teams = ["blue", "red", "green"];
    let mut team = teams[random.random_range(0..3_usize)];
    let server = world(&first, team);
    let mut process = Process::start(server.client());
    process.until_quiet(&server).await;
    let uid = claim(&server)["metadata"]["uid"].clone();
    let mut walked = vec![first.clone()];
    for step in 0..STEPS {
        let mut next = spec(&mut random, place, &mut size);
        if step + 1 == STEPS {
            // Back to where it began; only a volume does not shrink again.
            next.clone_from(&first);
            if matches!(place, Place::Claim) {
                next["storage"]["claim"]["size"] = json!(format!("{size}Gi"));
            }
        }
        walked.push(next.clone());
        server.set("Registry", "platform", "team", |registry| {
            registry["spec"] = next;
            registry["metadata"]["generation"] = json!(registry["metadata"]["generation"].as_i64().unwrap_or(1) + 1);
        });
        if random.random_bool(0.3) {
            team = teams[random.random_range(0..3_usize)];
            server.set("Namespace", "", "apps", |apps| apps["metadata"]["labels"]["team"] = json!(team));
        }
        match random.random_range(0..3) {
            // The next change comes before this one is done.
            0 if step + 1 < STEPS => drop(process.round().await),
            1 => {
                process = Process::start(server.client());
                process.until_quiet(&server).await;
            }
            _ => process.until_quiet(&server).await,
        }
    }
    process.until_quiet(&server).await;
    let what = format!("WHARF_TEST_SEED={seed}, {place:?}, in the end {team}: {walked:#?}");
    assert_eq!(claim(&server)["metadata"]["uid"], uid, "{what}\nthe claim is another one");
    let straight = world(walked.last().unwrap(), team);
    Process::start(straight.client()).until_quiet(&straight).await;
    let (expected, found) = (comparable(&straight), comparable(&server));
    for (name, object) in &expected {
        assert_eq!(found.get(name), Some(object), "{what}\n{name}");
    }
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{what}");
}

#[tokio::test]
async fn c6_a_walk_ends_where_the_straight_way_ends() {
    let seeds = seeds(24);
    for seed in &seeds {
        walk(*seed).await;
    }
    println!("{} walks of {STEPS} steps", seeds.len());
}
