//! Children that somebody changes or deletes by hand: the next pass puts right what Wharf has an opinion on, and leaves
//! alone what it has none on.

use serde_json::{Value, json};

use crate::apiserver::Server;
use crate::world::{KINDS, Process, cluster, everybody_else, run_until_quiet, state};

/// What somebody does to a child that Wharf wants otherwise; by kind, for every child of that kind.
type Edit = (&'static str, &'static str, fn(&mut Value));

const EDITS: [Edit; 21] = [
    ("Service", "a port", |service| service["spec"]["ports"][0]["port"] = json!(444)),
    ("Service", "another selector", |service| service["spec"]["selector"] = json!({"app": "theirs"})),
    ("Service", "a second port", |service| {
        let ports = service["spec"]["ports"].as_array_mut().unwrap();
        ports.push(json!({"name": "theirs", "port": 8080, "protocol": "TCP", "targetPort": 8080}));
    }),
    ("Deployment", "no pod", |deployment| deployment["spec"]["replicas"] = json!(0)),
    ("Deployment", "an image", |deployment| {
        deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!("example.com/theirs:1");
    }),
    ("Deployment", "less security", |deployment| {
        deployment["spec"]["template"]["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] =
            json!(false);
    }),
    ("Deployment", "a volume left out", |deployment| {
        deployment["spec"]["template"]["spec"]["volumes"].as_array_mut().unwrap().remove(0);
    }),
    ("ConfigMap", "other data", |map| map["data"]["ca.crt"] = json!("theirs")),
    ("ConfigMap", "no data", |map| map["data"] = Value::Null),
    ("Secret", "other data", |secret| {
        let data = secret["data"].as_object_mut().unwrap();
        let key = data.keys().next_back().unwrap().clone();
        data.insert(key, json!("dGhlaXJz"));
    }),
    ("ServiceAccount", "a token", |account| account["automountServiceAccountToken"] = json!(true)),
    ("PodDisruptionBudget", "a looser budget", |budget| budget["spec"]["maxUnavailable"] = json!(16)),
    ("PersistentVolumeClaim", "no mark", |claim| claim["metadata"]["annotations"] = Value::Null),
    ("Ingress", "another host", |ingress| ingress["spec"]["rules"][0]["host"] = json!("theirs.example.com")),
    ("HTTPRoute", "another host", |route| route["spec"]["hostnames"] = json!(["theirs.example.com"])),
    ("HTTPRoute", "another Gateway", |route| route["spec"]["parentRefs"][0]["name"] = json!("theirs")),
    ("HTTPRoute", "no requests", |route| route["spec"]["rules"][0]["backendRefs"][0]["weight"] = json!(0)),
    ("BackendTLSPolicy", "another authority", |policy| {
        policy["spec"]["validation"]["caCertificateRefs"][0]["name"] = json!("theirs");
    }),
    ("BackendTLSPolicy", "another name", |policy| policy["spec"]["validation"]["hostname"] = json!("theirs")),
    ("NodeRuntime", "no labels", |runtime| runtime["metadata"]["labels"] = Value::Null),
    // The caches select on our labels: without them a child is in none.
    ("*", "no labels", |object| {
        object["metadata"]["labels"].as_object_mut().unwrap().remove("app.kubernetes.io/managed-by");
    }),
];

/// The children that the operator made, by kind, namespace and name. The claim without its labels counts as somebody
/// else's, on purpose: images are never taken for ours by their name.
fn children(server: &Server) -> Vec<(&'static str, String, String)> {
    let mut found = Vec::new();
    for (kind, object) in KINDS.iter().flat_map(|kind| server.list(kind).into_iter().map(move |object| (*kind, object)))
    {
        let metadata = &object["metadata"];
        if metadata["labels"]["app.kubernetes.io/managed-by"] == "wharf" {
            let text = |field: &str| metadata[field].as_str().unwrap_or_default().to_owned();
            found.push((kind, text("namespace"), text("name")));
        }
    }
    found
}

async fn converged() -> Server {
    let server = cluster(&json!({"engine": "Distribution", "replicas": 2, "storage": {"s3": {"bucket": "images"}}}));
    let exposed = json!({
        "ingress": {"host": "images.example.com"},
        "gateway": {"host": "images.example.com", "parentRefs": [{"name": "front"}]},
    });
    crate::world::add_named_registry(&server, "second", &json!({ "expose": exposed }));
    run_until_quiet(&server, &server.connect()).await;
    server
}

#[tokio::test]
async fn each_edit_is_put_right_in_one_pass() {
    let base = converged().await;
    let expected = state(&base);
    let mut seen = 0;
    for (kind, namespace, name) in children(&base) {
        for (_, what, edit) in
            EDITS.iter().filter(|(of, _, _)| *of == kind || (*of == "*" && kind != "PersistentVolumeClaim"))
        {
            let server = base.snapshot();
            server.set(kind, &namespace, &name, edit);
            let edited = server.get(kind, &namespace, &name).unwrap();
            assert_ne!(Some(&edited), base.get(kind, &namespace, &name).as_ref(), "{what} changes no {kind}");
            let failures = Process::start(server.client()).round().await;
            assert!(failures.is_empty(), "{kind} {name}, {what}: {failures:?}");
            // A shard that nobody can read any more is replaced by one of another name.
            let is_plan = kind == "ConfigMap" && namespace == "wharf-nodes";
            let found = server.get(kind, &namespace, &name);
            let found = if is_plan { found.unwrap_or(edited.clone()) } else { found.unwrap() };
            assert_eq!(found["metadata"]["uid"], edited["metadata"]["uid"], "{kind} {name}, {what}: made again");
            let held = |object: &Value| ["data", "spec"].map(|field| object[field].clone());
            if *what == "other data" && kind == "Secret" {
                // A secret that was spoilt is made anew, and whole.
                assert_eq!(state(&server).keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
            } else if *what == "a second port" {
                // An element of a list of named elements is somebody else's, and stays.
                assert_eq!(found["spec"]["ports"], edited["spec"]["ports"], "{name}");
            } else if !is_plan {
                assert_eq!(held(&found), held(&base.get(kind, &namespace, &name).unwrap()), "{kind} {name}, {what}");
            }
            run_until_quiet(&server, &server.connect()).await;
            let ready = |server: &Server| {
                server.get("Registry", "platform", "team").unwrap()["status"]["conditions"][0].clone()
            };
            assert_eq!(ready(&server)["status"], "True", "{kind} {name}, {what}: {}", ready(&server));
            seen += 1;
        }
    }
    assert!(seen > 40, "only {seen} edits");
    println!("{seen} edits");
}

#[tokio::test]
async fn each_deleted_child_is_made_again() {
    let base = converged().await;
    let expected = state(&base);
    for (kind, namespace, name) in children(&base) {
        let server = base.snapshot();
        server.remove(kind, &namespace, &name);
        run_until_quiet(&server, &server.connect()).await;
        let found = state(&server);
        for (object, wanted) in &expected {
            // A Service that is made again has another address, and its certificate with it.
            assert_eq!(found.get(object), Some(wanted), "{kind} {name} was deleted: {object}");
        }
        assert_eq!(found.len(), expected.len(), "{kind} {name} was deleted: {:?}", found.keys());
    }
}

#[tokio::test]
async fn what_others_add_is_left_alone() {
    let server = converged().await;
    let all = children(&server);
    for (kind, namespace, name) in &all {
        server.set(kind, namespace, name, |object| {
            object["metadata"]["annotations"]["example.com/theirs"] = json!("stays");
            object["metadata"]["labels"]["theirs"] = json!("stays");
            object["metadata"]["finalizers"] = json!(["example.com/theirs"]);
            if *kind == "Deployment" {
                object["spec"]["template"]["spec"]["containers"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!({"name": "theirs", "image": "example.com/sidecar:1"}));
            }
        });
    }
    everybody_else(&server);
    let writes = server.writes();
    Process::start(server.client()).round().await;
    assert_eq!(server.writes(), writes, "{:#?}", server.mutations().last());
    // Also when Wharf has something to write.
    server.set("Registry", "platform", "team", |registry| registry["spec"]["podTemplate"]["labels"]["b"] = json!("c"));
    server.set("Registry", "platform", "second", |registry| registry["spec"]["suspend"] = json!(true));
    run_until_quiet(&server, &server.connect()).await;
    for (kind, namespace, name) in &all {
        // A shard of the node plan is replaced by another.
        let Some(object) =
            server.get(kind, namespace, name).filter(|object| object["metadata"]["deletionTimestamp"].is_null())
        else {
            continue;
        };
        assert_eq!(object["metadata"]["annotations"]["example.com/theirs"], "stays", "{kind} {name}");
        assert_eq!(object["metadata"]["labels"]["theirs"], "stays", "{kind} {name}");
        let containers = object["spec"]["template"]["spec"]["containers"].as_array().map_or(0, Vec::len);
        assert!(*kind != "Deployment" || containers >= 2, "{name} has {containers} containers");
    }
}

/// A person took the finalizer off: the images stay when the Registry goes meanwhile, and it comes back when it does not.
#[tokio::test]
async fn a_finalizer_taken_off_by_hand() {
    let server = cluster(&json!({"storage": {"deletionPolicy": "Delete"}}));
    run_until_quiet(&server, &server.connect()).await;
    let take_off =
        || server.set("Registry", "platform", "team", |registry| registry["metadata"]["finalizers"] = json!([]));
    take_off();
    Process::start(server.client()).round().await;
    let registry = server.get("Registry", "platform", "team").unwrap();
    assert_eq!(registry["metadata"]["finalizers"], json!(["wharf.dev/delete-storage"]));
    // This time the Registry is deleted while it is off.
    server.remove("Registry", "platform", "team");
    let process = Process::start(server.client());
    take_off();
    assert!(server.get("Registry", "platform", "team").is_none());
    process.until_quiet(&server).await;
    assert!(
        server.get("PersistentVolumeClaim", "platform", "team-registry").is_some(),
        "nobody may delete it any more"
    );
    assert!(server.get("Deployment", "platform", "team-registry").is_none());
}
