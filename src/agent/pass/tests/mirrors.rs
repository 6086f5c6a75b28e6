//! Passes with hosts of Mirrors: what the endpoint is told and when, which nodes are meant, and what is told of the hosts.

use super::*;

const MIRRORED: &str = "certs.d/docker.io/hosts.toml";

impl World {
    fn has(&self, path: &str) -> bool {
        self.root.path().join(path).exists()
    }

    fn mirror(&self, host: &str) -> Value {
        let mirrors = self.status()["mirrors"].clone();
        mirrors.as_array().into_iter().flatten().find(|mirror| mirror["host"] == host).cloned().unwrap_or_default()
    }

    fn endpoint_is(&self, local: Local) {
        self.bind.send_replace(Some(Bound { local, endpoint: None }));
    }

    fn label(&self, zone: &str) {
        let mut node = self.fake.get(NODE_PATH).unwrap();
        node["metadata"]["labels"]["zone"] = json!(zone);
        self.fake.put(NODE_PATH.into(), node);
    }
}

fn hosts(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn a_host_is_served_before_files_lead_to_it_and_until_none_does() {
    let mut world = World::new("containerd://2.3.4");
    world.put_plan(7, &["docker.io", "team.platform.svc"]);
    assert_eq!(world.pass().await, Verdict::AtRest);
    assert!(world.has(MIRRORED) && world.written());
    assert_eq!(world.endpoint.routes(), [hosts(&["docker.io", "team.platform.svc"])]);
    assert_eq!(world.endpoint.noted(), ["docker.io"], "use counts from here, and for Mirrors alone");
    let mirror = world.mirror("docker.io");
    assert!(mirror["written"].is_string() && mirror["used"] == false, "{mirror}");
    assert_eq!(world.status()["counts"], json!({"written": 2, "exceptions": 0, "mirrors": "0/1"}));

    world.put_plan(8, &["team.platform.svc"]);
    assert_eq!(world.pass().await, Verdict::AtRest);
    assert!(!world.has(MIRRORED));
    let routes = world.endpoint.routes();
    assert_eq!(routes[1..], [hosts(&["docker.io", "team.platform.svc"]), hosts(&["team.platform.svc"])]);
    world.put_plan(9, &[]);
    assert_eq!(world.pass().await, Verdict::AtRest);
    assert_eq!(std::fs::read_dir(world.root.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_file_that_cannot_be_removed_keeps_its_route() {
    let mut world = World::new("containerd://2.3.4");
    world.put_plan(7, &["docker.io"]);
    world.pass().await;
    // A leftover that cannot be removed, because there is something of somebody's in it.
    let stuck = world.root.path().join("certs.d/docker.io/.wharf-x.tmp");
    std::fs::create_dir_all(&stuck).unwrap();
    std::fs::write(stuck.join("thing"), "").unwrap();
    world.put_plan(8, &[]);
    assert_eq!(world.pass().await, Verdict::Again);
    assert_eq!(world.endpoint.routes().last(), Some(&hosts(&["docker.io"])));
    std::fs::remove_file(stuck.join("thing")).unwrap();
    assert_eq!(world.pass().await, Verdict::AtRest);
    assert_eq!(world.endpoint.routes().last(), Some(&hosts(&[])));
}

#[tokio::test]
async fn an_entry_is_for_the_nodes_whose_labels_it_names_as_they_are_now() {
    let mut world = World::new("containerd://2.3.4");
    let mut chosen = entry("docker.io", 7);
    chosen.nodes = Some(serde_json::from_value(json!({"matchLabels": {"zone": "a"}})).unwrap());
    world.put_entries(7, [("docker.io".to_owned(), chosen)].into());
    world.pass().await;
    assert!(world.has(MIRRORED));
    world.label("b");
    assert_eq!(world.pass().await, Verdict::AtRest);
    assert!(!world.has(MIRRORED));
    assert_eq!((world.status()["mirrors"].clone(), world.endpoint.routes().last()), (Value::Null, Some(&vec![])));
    assert_eq!(world.status()["planRevision"], json!(7));
    world.label("a");
    world.pass().await;
    assert!(world.has(MIRRORED));
}

#[tokio::test]
async fn without_the_endpoint_there_is_no_mirrors_entry_until_it_serves() {
    let mut world = World::new("containerd://2.3.4");
    let serving = world.bind.borrow().clone();
    world.endpoint_is(Local::PortInUse("127.0.0.1:17443 is taken".into()));
    world.put_plan(7, &["docker.io", "team.platform.svc"]);
    assert_eq!(world.pass().await, Verdict::AtRest);
    assert!(!world.has(MIRRORED) && world.written());
    assert_eq!(world.status()["exceptions"][0]["reason"], json!(reason::PORT_IN_USE));
    assert_eq!(world.status()["conditions"][1]["reason"], json!(reason::PORT_IN_USE));
    assert_eq!(world.mirror("docker.io")["written"], Value::Null);
    world.bind.send_replace(serving);
    assert_eq!(world.pass().await, Verdict::AtRest);
    assert!(world.has(MIRRORED));
    assert_eq!(world.reason(), reason::CONFIGURED);
    assert_eq!(world.status()["conditions"][1]["reason"], json!(reason::SERVING));
}

#[tokio::test]
async fn what_was_written_and_used_outlives_the_process_and_not_the_files() {
    let mut world = World::new("containerd://2.3.4");
    world.put_plan(7, &["docker.io"]);
    world.pass().await;
    world.endpoint.use_host("docker.io");
    world.pass().await;
    assert_eq!(world.mirror("docker.io")["used"], json!(true));
    let mut status = world.status();
    // As if it had been written long ago.
    status["mirrors"][0]["written"] = json!("2026-01-01T00:00:00Z");
    let mut object = world.fake.get(RUNTIME_PATH).unwrap();
    object["status"] = status.clone();
    world.fake.put(RUNTIME_PATH.into(), object);
    world.restart();
    world.fake.forget_requests();
    assert_eq!(world.pass().await, Verdict::AtRest);
    assert!(world.fake.requests().iter().all(|request| request.starts_with("GET ")), "{:?}", world.fake.requests());
    assert_eq!(world.status(), status);

    std::fs::remove_file(world.root.path().join(MIRRORED)).unwrap();
    world.pass().await;
    let mirror = world.mirror("docker.io");
    assert_eq!(mirror["used"], json!(false));
    assert_ne!(mirror["written"], status["mirrors"][0]["written"]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_reached_is_told() {
    let mut world = World::new("containerd://2.3.4");
    world.put_plan(7, &["docker.io"]);
    world.endpoint.refuse("docker.io");
    let (news, stop) = (std::sync::Arc::new(tokio::sync::Notify::new()), CancellationToken::new());
    let probes = world.agent.probes.clone();
    tokio::spawn(probes.run(world.endpoint.clone(), news.clone(), Metrics::default(), stop.clone()));
    world.pass().await;
    assert_eq!(world.reason(), reason::CONFIGURED, "nothing is said before it was tried often enough");
    news.notified().await;
    world.pass().await;
    assert_eq!(world.status()["exceptions"][0]["reason"], json!(reason::UNREACHABLE));
    assert_eq!(world.status()["exceptions"][0]["message"], json!("docker.io is away"));
    world.endpoint.allow("docker.io");
    news.notified().await;
    world.pass().await;
    assert_eq!((world.reason().as_str(), &world.mirror("docker.io")["reachable"]), (reason::CONFIGURED, &json!(true)));
    stop.cancel();
}
