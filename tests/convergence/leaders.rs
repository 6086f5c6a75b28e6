//! C8: several operators that want the lease, on clocks that are years apart, over a network that delays requests and drops
//! them for a while. Whoever writes holds the lease in that moment. The election counts on a monotonic clock that no test
//! can move, so its durations are a tenth of the real ones here.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use http::Request;
use jiff::{SignedDuration, Timestamp};
use k8s_controller::LeaderElection;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::apiserver::Server;
use crate::world::seeds;

const LEASE: &str = "wharf-operator";
/// How long one run goes on, at least.
const RUN: Duration = Duration::from_secs(6);
/// When a run ends in which nobody has led yet, as on a machine that has no time for it.
const LONGEST_RUN: Duration = Duration::from_secs(120);

/// One operator's way to the API server, and its clock.
struct Candidate {
    name: &'static str,
    skew: SignedDuration,
    random: Rc<RefCell<StdRng>>,
    /// Until when its requests go nowhere.
    cut_until: Rc<RefCell<Instant>>,
}

impl Candidate {
    /// A client whose requests are late, or never arrive, and whose timestamps are wrong.
    fn client(&self, server: &Server) -> Client {
        let (sender, mut requests) = tokio::sync::mpsc::unbounded_channel::<(Request<kube::client::Body>, _)>();
        let (inner, skew) = (server.client(), self.skew);
        let (random, cut_until) = (self.random.clone(), self.cut_until.clone());
        // What decides on delays stays on this thread, which a client's futures need not.
        tokio::task::spawn_local(async move {
            while let Some((request, answer)) = requests.recv().await {
                let delay = Duration::from_millis(random.borrow_mut().random_range(5..200));
                let (inner, cut_until) = (inner.clone(), cut_until.clone());
                tokio::task::spawn_local(async move {
                    let mut answer: tokio::sync::oneshot::Sender<_> = answer;
                    let exchange = async {
                        sleep(delay).await;
                        while Instant::now() < *cut_until.borrow() {
                            sleep(Duration::from_millis(20)).await;
                        }
                        let (parts, body) = request.into_parts();
                        let body = shifted(&body.collect_bytes().await.unwrap(), skew);
                        inner.send(Request::from_parts(parts, body.into())).await
                    };
                    tokio::select! {
                        // Who does not wait for the answer any more has not sent the request: it is dropped with its future.
                        () = answer.closed() => {}
                        result = exchange => drop(answer.send(result)),
                    }
                });
            }
        });
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let (answer, received) = tokio::sync::oneshot::channel();
            let sent = sender.send((request, answer));
            async move {
                sent.map_err(|_| std::io::Error::other("the network is gone"))?;
                received.await.map_err(std::io::Error::other)?.map_err(std::io::Error::other)
            }
        });
        Client::new(service, "default")
    }
}

/// The times in a lease as a clock that is wrong would have written them.
fn shifted(body: &[u8], skew: SignedDuration) -> Vec<u8> {
    let Ok(mut object) = serde_json::from_slice::<Value>(body) else { return body.to_vec() };
    for field in ["renewTime", "acquireTime"] {
        let written = object["spec"][field].as_str().and_then(|text| text.parse::<Timestamp>().ok());
        if let Some(time) = written {
            object["spec"][field] = json!((time + skew).to_string());
        }
    }
    object.to_string().into_bytes()
}

/// One term after the other: wait for the lease, and write as long as it is held.
async fn lead(candidate: &Candidate, server: &Server) {
    let client = candidate.client(server);
    let election = LeaderElection::new(client.clone(), "default", LEASE, candidate.name)
        .with_lease_duration(Duration::from_millis(1500))
        .with_renew_deadline(Duration::from_millis(1000))
        .with_retry_period(Duration::from_millis(200));
    let api: Api<ConfigMap> = Api::namespaced(client, "default");
    loop {
        election
            .with_lease(async {
                loop {
                    let patch = Patch::Merge(json!({"data": {"writer": candidate.name}}));
                    let _ = api.patch("work", &PatchParams::default(), &patch).await;
                    sleep(Duration::from_millis(10)).await;
                }
            })
            .await
            .unwrap_or(());
    }
}

/// What one run saw: who wrote while another held the lease, and who ever led.
async fn run(seed: u64) -> (Vec<String>, Vec<String>) {
    let server = Server::new();
    server.add(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "work", "namespace": "default"}}));
    let history: Arc<Mutex<(Vec<String>, Vec<String>)>> = Arc::default();
    let (observer, noted) = (server.clone(), history.clone());
    server.on_request(move |request| {
        if request.resource == "configmaps" && request.is_mutation() {
            let lease = observer.get("Lease", "default", LEASE).unwrap_or_default();
            let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
            let writer = request.body["data"]["writer"].as_str().unwrap_or_default().to_owned();
            let mut noted = noted.lock().unwrap();
            if holder != writer {
                noted.0.push(format!("{writer} wrote while {holder} held the lease"));
            }
            if noted.1.last() != Some(&writer) {
                noted.1.push(writer);
            }
        }
        None
    });
    let random = Rc::new(RefCell::new(StdRng::seed_from_u64(seed)));
    let hours = |hours| SignedDuration::from_hours(hours);
    let candidates = [("a", hours(0)), ("b", hours(24 * 365)), ("c", hours(-24 * 3650))].map(|(name, skew)| {
        Candidate { name, skew, random: random.clone(), cut_until: Rc::new(RefCell::new(Instant::now())) }
    });
    let troubles = async {
        loop {
            let (pause, length, place) = {
                let mut random = random.borrow_mut();
                (random.random_range(200..900), random.random_range(100..2500), random.random_range(0..3_usize))
            };
            sleep(Duration::from_millis(pause)).await;
            *candidates[place].cut_until.borrow_mut() = Instant::now() + Duration::from_millis(length);
        }
    };
    tokio::select! {
        _ = join_all(candidates.iter().map(|candidate| lead(candidate, &server))) => {}
        () = troubles => {}
        () = has_led(&history) => {}
    }
    history.lock().unwrap().clone()
}

/// Waits until a run has gone on for long enough.
async fn has_led(history: &Mutex<(Vec<String>, Vec<String>)>) {
    let began = Instant::now();
    sleep(RUN).await;
    while history.lock().unwrap().1.is_empty() && began.elapsed() < LONGEST_RUN {
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn c8_nobody_writes_while_another_holds_the_lease() {
    let local = tokio::task::LocalSet::new();
    let seeds = seeds(8);
    let runs = seeds.iter().map(|seed| local.run_until(run(*seed)));
    let runs: Vec<_> = join_all(runs).await;
    let mut changes = 0;
    for (seed, (violations, leaders)) in seeds.iter().zip(runs) {
        assert!(violations.is_empty(), "WHARF_TEST_SEED={seed}: {violations:?}");
        assert!(!leaders.is_empty(), "WHARF_TEST_SEED={seed}: nobody ever led");
        changes += leaders.len() - 1;
    }
    assert!(changes > 0, "the lease never changed hands");
    println!("{} runs, {changes} changes of the leader", seeds.len());
}
