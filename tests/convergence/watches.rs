//! C3: the operator's own controllers on real watches, of which one event is lost, or which end or expire at it; and a
//! definition that is taken away. Time moves by itself, as far as everybody waits.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use wharf::operator::controllers::Controllers;
use wharf::operator::metrics::Metrics;
use wharf::telemetry::Health;

use crate::apiserver::{EventFault, Server};
use crate::world::{add_named_registry, cluster, everybody_else, moments, run_until_quiet, set_now, settings, state};

/// A cache that was filled anew just before another one was, and a pass of each kind after that.
const LONGEST: Duration = Duration::from_secs(5400);
const STEP: Duration = Duration::from_secs(2);

/// A Registry that serves.
async fn converged() -> Server {
    set_now(Timestamp::now());
    let server = cluster(&json!({"expose": through("front")}));
    run_until_quiet(&server, &server.connect()).await;
    server
}

/// A way in through a Gateway. Its host is an address where nobody can answer, because the controllers call it.
fn through(gateway: &str) -> Value {
    json!({"gateway": {"host": "255.255.255.255", "parentRefs": [{"name": gateway}]}})
}

/// What happens while the watches run: objects come, change and go.
fn stir(server: &Server) {
    server.set("Registry", "platform", "team", |registry| {
        registry["spec"] = json!({"podTemplate": {"labels": {"a": "b"}}, "expose": through("other")});
        registry["metadata"]["generation"] = json!(2);
    });
    add_named_registry(server, "second", &json!({"pullSecrets": {"serviceAccounts": []}}));
    server.remove("Secret", "platform", "team-pull");
    server.remove("BackendTLSPolicy", "platform", "team-registry");
    server.set("Service", "platform", "team", |service| service["spec"]["selector"] = json!({"app": "theirs"}));
    server.remove("Node", "", "b");
    server.add(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "c", "labels": {"kubernetes.io/os": "linux"}}}));
}

/// The controllers run while `outside` does.
async fn with_controllers<T>(server: &Server, outside: impl Future<Output = T>) -> T {
    let controllers = Controllers {
        client: server.client(),
        settings: settings(),
        identity: "one".to_owned(),
        metrics: Metrics::default(),
    };
    let (health, shutdown) = (Health::default(), CancellationToken::new());
    tokio::select! {
        result = Box::pin(controllers.run(&health, &shutdown)) => panic!("the controllers ended: {result:?}"),
        value = Box::pin(outside) => value,
    }
}

/// Lets everybody act until the cluster is as expected; how long that took.
async fn until(server: &Server, expected: &BTreeMap<String, Value>, what: &str) -> Duration {
    let began = Instant::now();
    loop {
        for _ in 0..if began.elapsed() < 10 * STEP { 1 } else { 15 } {
            sleep(STEP).await;
            everybody_else(server);
        }
        let found = state(server);
        if found == *expected {
            return began.elapsed();
        }
        if began.elapsed() > LONGEST {
            for (name, object) in expected {
                assert_eq!(found.get(name), Some(object), "{what}: {name}");
            }
            panic!("{what}: {:?}", found.keys());
        }
    }
}

/// The cluster in the end, and how many events the watches told on the way.
async fn undisturbed(base: &Server) -> (BTreeMap<String, Value>, usize) {
    let server = base.snapshot();
    let events = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = events.clone();
    let end = with_controllers(&server, async {
        sleep(30 * STEP).await;
        server.on_event(move |ordinal, _| {
            counter.store(ordinal + 1, std::sync::atomic::Ordering::SeqCst);
            None
        });
        stir(&server);
        for _ in 0..200 {
            sleep(STEP).await;
            everybody_else(&server);
        }
        state(&server)
    });
    let end = end.await;
    assert_eq!(
        end["Registry platform/team"]["status"]["conditions"][0]["status"], "True",
        "{:#}",
        end["Registry platform/team"]
    );
    assert_eq!(end["Registry platform/second"]["status"]["conditions"][0]["status"], "True");
    (end, events.load(std::sync::atomic::Ordering::SeqCst))
}

#[tokio::test(start_paused = true)]
async fn c3_each_event_lost_cut_off_or_too_late() {
    let base = converged().await;
    let (expected, events) = undisturbed(&base).await;
    assert!(events > 30, "only {events} events");
    let (mut runs, mut longest) = (0, Duration::ZERO);
    for fault in [EventFault::Lose, EventFault::Cut, EventFault::Expire] {
        for event in moments(events, 10) {
            let server = base.snapshot();
            let what = format!("{fault:?} at event {event}");
            let took = with_controllers(&server, async {
                sleep(30 * STEP).await;
                server.on_event(move |ordinal, _| (ordinal == event).then_some(fault));
                stir(&server);
                until(&server, &expected, &what).await
            });
            longest = longest.max(took.await);
            runs += 1;
        }
    }
    println!("{events} events, {runs} disturbed runs, the longest {longest:?}");
}

/// Every watch is cut, over and over, and the history is forgotten.
#[tokio::test(start_paused = true)]
async fn c3_an_api_server_that_restarts_all_the_time() {
    let base = converged().await;
    let (expected, _) = undisturbed(&base).await;
    let server = base.snapshot();
    let took = with_controllers(&server, async {
        sleep(30 * STEP).await;
        stir(&server);
        for _ in 0..20 {
            server.compact();
            server.cut_watches();
            sleep(STEP).await;
            everybody_else(&server);
        }
        until(&server, &expected, "after restarts").await
    });
    println!("{:?}", took.await);
}

/// Somebody deletes the definitions while the operator runs. Its caches keep what they had: nothing is deleted, and no node
/// loses its entry, because the operator cannot tell this from an API server that is ill. The images' claim stays.
#[tokio::test(start_paused = true)]
async fn a_definition_that_is_taken_away() {
    let base = converged().await;
    for kinds in [&["Registry"][..], &["NodeRuntime"], &["Registry", "NodeRuntime"]] {
        let server = base.snapshot();
        let kept = |server: &Server| {
            let claim = server.get("PersistentVolumeClaim", "platform", "team-registry").unwrap();
            let plan = server.get("ConfigMap", "wharf-nodes", "wharf-node-plan").unwrap();
            let pod = server.get("Deployment", "platform", "team-registry").unwrap();
            (claim["metadata"]["uid"].clone(), plan["data"].clone(), pod["metadata"]["uid"].clone())
        };
        let before = kept(&server);
        with_controllers(&server, async {
            sleep(30 * STEP).await;
            let registries = server.list("Registry");
            for kind in kinds {
                server.withdraw(kind);
            }
            sleep(Duration::from_secs(4000)).await;
            assert_eq!(kept(&server), before, "{kinds:?}");
            let deleted: Vec<_> = server.requests().into_iter().filter(|request| request.verb == "delete").collect();
            assert!(deleted.is_empty(), "{kinds:?}: {deleted:?}");
            // Put back with what was in it, as from a backup.
            server.serve_all();
            for mut registry in registries.into_iter().filter(|_| kinds.contains(&"Registry")) {
                registry["metadata"]
                    .as_object_mut()
                    .unwrap()
                    .retain(|field, _| field == "name" || field == "namespace");
                server.add(&registry);
            }
            server.collect_garbage();
            // A list that is empty wakes nobody; the loops look by themselves.
            for _ in 0..400 {
                sleep(STEP).await;
                everybody_else(&server);
            }
            let registry = server.get("Registry", "platform", "team").unwrap();
            assert_eq!(registry["status"]["conditions"][0]["status"], "True", "{kinds:?}: {registry:#}");
            assert_eq!(kept(&server).0, before.0, "{kinds:?}: the claim is another one");
            assert_eq!(server.list("NodeRuntime").len(), 2);
        })
        .await;
    }
}

/// The Gateway API is installed while the operator runs, taken away, and installed again: it is told, what it brings about is
/// made and goes with it, and nothing is asked of it while it is not there.
#[tokio::test(start_paused = true)]
async fn an_api_that_comes_goes_and_comes_again() {
    let server = converged().await;
    let made = |server: &Server| {
        ["HTTPRoute", "BackendTLSPolicy"].map(|kind| server.get(kind, "platform", "team-registry").is_some())
    };
    let told = |server: &Server| {
        let registry = server.get("Registry", "platform", "team").unwrap();
        let conditions = registry["status"]["conditions"].as_array().unwrap().clone();
        let reason_of = |kind: &str| {
            let found = conditions.iter().find(|condition| condition["type"] == kind).unwrap();
            found["reason"].as_str().unwrap().to_owned()
        };
        (reason_of("Ready"), reason_of("Exposed"))
    };
    let missing = ("Ready".to_owned(), "GatewayApiMissing".to_owned());
    let of_the_api = |server: &Server| {
        let requests = server.requests();
        requests.iter().filter(|request| request.outcome == Some(404) && request.resource.is_empty()).count()
    };
    for kinds in [&["HTTPRoute", "BackendTLSPolicy", "Gateway"][..], &["BackendTLSPolicy"]] {
        let server = server.snapshot();
        let withdraw = || {
            for kind in kinds {
                server.withdraw(kind);
            }
        };
        withdraw();
        with_controllers(&server, async {
            sleep(Duration::from_secs(600)).await;
            assert_eq!(told(&server), missing, "{kinds:?}");
            assert_eq!(of_the_api(&server), 0, "{kinds:?}");
            server.serve_all();
            sleep(Duration::from_secs(60)).await;
            assert_eq!(made(&server), [true, true], "{kinds:?}");
            assert_ne!(told(&server), missing, "{kinds:?}");
            withdraw();
            sleep(Duration::from_secs(60)).await;
            assert_eq!(told(&server), missing, "{kinds:?}");
            // What is wanted stays, as far as it is served.
            assert_eq!(made(&server), [kinds.len() == 1, false], "{kinds:?}");
            let before = of_the_api(&server);
            assert!(before < 30, "{kinds:?}: {before} requests until it was found out");
            sleep(Duration::from_secs(3600)).await;
            assert_eq!(of_the_api(&server), before, "{kinds:?}");
            server.serve_all();
            sleep(Duration::from_secs(60)).await;
            assert_eq!(made(&server), [true, true], "{kinds:?}");
            // It is watched again.
            server
                .set("HTTPRoute", "platform", "team-registry", |route| route["spec"]["hostnames"] = json!(["theirs"]));
            sleep(Duration::from_secs(10)).await;
            let route = server.get("HTTPRoute", "platform", "team-registry").unwrap();
            assert_eq!(route["spec"]["hostnames"], json!(["255.255.255.255"]), "{kinds:?}");
        })
        .await;
    }
}
