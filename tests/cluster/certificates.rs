//! Certificates on a real cluster: what a renewal costs with each engine, and a rotation of the authority during which clients and
//! both container runtimes go on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Login, Namespace, client, decoded, eventually, get, kubectl, on_node};
use crate::turn::Alone;

const SECRET: [&str; 4] = ["secret", "wharf-authority", "-n", "wharf-system"];

/// What one call came to: when it ended, in milliseconds, and curl's exit code.
#[derive(Clone, Copy, Debug)]
struct Call {
    at: u64,
    code: u8,
}

/// A client that calls all the time, with a certificate file that somebody else keeps.
struct Caller {
    stop: tempfile::TempPath,
    thread: std::thread::JoinHandle<Vec<Call>>,
}

impl Caller {
    fn start(login: &Login) -> Self {
        let stop = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let script = format!(
            "while [ -e {} ]; do curl -s -o /dev/null --max-time 2 --cacert {} https://{}/; echo $? $(date +%s%3N); sleep 0.02; done",
            stop.display(),
            login.path("ca.crt"),
            login.address
        );
        let thread = std::thread::spawn(move || {
            let said = client(&["sh", "-c", &script]).expect("the caller runs");
            let call = |line: &str| {
                let (code, at) = line.split_once(' ')?;
                Some(Call { at: at.parse().ok()?, code: code.parse().ok()? })
            };
            said.lines().filter_map(call).collect()
        });
        Self { stop, thread }
    }

    fn calls(self) -> Vec<Call> {
        drop(self.stop);
        self.thread.join().expect("the caller ends")
    }
}

/// curl's code for a call that took too long.
const TIMED_OUT: u8 = 28;

/// The times without a server: from the last good call before to the first good one after. One call that only took too long
/// tells of a busy machine.
fn gaps(calls: &[Call]) -> Vec<Duration> {
    let mut gaps = Vec::new();
    let mut last_good = None;
    let mut failing: Vec<u8> = Vec::new();
    for call in calls {
        if call.code != 0 {
            failing.push(call.code);
            continue;
        }
        if let (false, Some(last)) = (failing.is_empty() || failing == [TIMED_OUT], last_good) {
            gaps.push(Duration::from_millis(call.at - last));
        }
        (failing, last_good) = (Vec::new(), Some(call.at));
    }
    gaps
}

/// The certificate as it is stored.
fn leaf(namespace: &Namespace) -> Option<String> {
    namespace.get("secret", "team-registry-tls")?.pointer("/data/tls.crt").and_then(Value::as_str).map(str::to_owned)
}

/// The pod that serves, once it is the only one and ready.
fn serving_pod(namespace: &Namespace) -> Option<String> {
    let pods = get(&["pods", "-n", &namespace.name, "-l", "app.kubernetes.io/name=registry"])?;
    let [pod] = pods["items"].as_array()?.as_slice() else { return None };
    let ready =
        pod["status"]["containerStatuses"][0]["ready"] == true && pod["metadata"]["deletionTimestamp"].is_null();
    ready.then(|| pod["metadata"]["name"].as_str().unwrap().to_owned())
}

/// The certificate that the registry shows.
fn shown(login: &Login) -> Option<String> {
    let url = format!("https://{}/", login.address);
    let said =
        client(&["curl", "-s", "-o", "/dev/null", "--cacert", &login.path("ca.crt"), "-w", "%{certs}", &url]).ok()?;
    let (_, first) = said.split_once("-----BEGIN CERTIFICATE-----")?;
    Some(first.split_once("-----END")?.0.split_whitespace().collect())
}

/// The certificate as it is stored, in the same form.
fn stored(namespace: &Namespace) -> Option<String> {
    let text = String::from_utf8(decoded(&leaf(namespace)?)).ok()?;
    let (_, first) = text.split_once("-----BEGIN CERTIFICATE-----")?;
    Some(first.split_once("-----END")?.0.split_whitespace().collect())
}

#[test]
#[ignore = "needs cluster"]
fn a_renewal_costs_nothing() {
    let namespace = Namespace::new("renewal");
    namespace.ready_registry("team", "{engine: Wharf}");
    let login = Login::new(&namespace, "team");
    let (before, pod) = (leaf(&namespace), eventually("a pod serves", || serving_pod(&namespace)));
    let caller = Caller::start(&login);
    kubectl(&["delete", "secret", "team-registry-tls", "-n", &namespace.name]);
    eventually("another certificate is shown", || {
        (leaf(&namespace)? != before.clone()? && shown(&login)? == stored(&namespace)?).then_some(())
    });
    std::thread::sleep(Duration::from_secs(1));
    let calls = caller.calls();
    assert_eq!(serving_pod(&namespace), Some(pod), "the same pod serves");
    assert!(calls.len() > 10 && calls.iter().all(|call| call.code == 0 || call.code == TIMED_OUT), "{calls:?}");
    assert!(gaps(&calls).is_empty(), "calls were refused: {:?}", gaps(&calls));
}

#[test]
#[ignore = "needs cluster"]
fn a_renewal_costs_one_short_gap_with_distribution() {
    let namespace = Namespace::new("renewal-restart");
    namespace.ready_registry("team", "{engine: Distribution}");
    let login = Login::new(&namespace, "team");
    let mut measured = Vec::new();
    for _renewal in 0..3 {
        let (before, pod) = (leaf(&namespace), eventually("a pod serves", || serving_pod(&namespace)));
        let caller = Caller::start(&login);
        std::thread::sleep(Duration::from_secs(1));
        // What is gone is issued anew, in the same way as what is due.
        kubectl(&["delete", "secret", "team-registry-tls", "-n", &namespace.name]);
        eventually("a pod with another certificate serves", || {
            (leaf(&namespace)? != before.clone()? && serving_pod(&namespace)? != pod).then_some(())
        });
        std::thread::sleep(Duration::from_secs(2));
        let calls = caller.calls();
        assert!(calls.iter().all(|call| call.code != 60), "a client refused the certificate");
        let gaps = gaps(&calls);
        assert_eq!(gaps.len(), 1, "one gap: {gaps:?}");
        measured.extend(gaps);
    }
    println!("renewal: without an answer for {measured:?}");
}

/// The step of the rotation; empty at rest.
fn step() -> String {
    let secret = get(&SECRET).expect("there is an authority");
    let text = secret.pointer("/metadata/annotations/wharf.dev~1rotation").and_then(Value::as_str).unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn authority() -> Value {
    get(&SECRET).expect("there is an authority")["data"]["tls.crt"].clone()
}

/// How many certificates the node's runtime trusts for the registry.
fn trusted_on(node: u8, login: &Login) -> usize {
    let file = format!("/etc/containerd/certs.d/{}/wharf-ca.crt", login.address);
    on_node(node, &["cat", &file]).matches("-----BEGIN CERTIFICATE-----").count()
}

#[test]
#[ignore = "needs cluster"]
fn clients_and_nodes_go_on_while_the_authority_is_replaced() {
    let _alone = Alone::new();
    let namespace = Namespace::new("rotation");
    namespace.ready_registry("team", "{engine: Wharf}");
    namespace.ready_registry("other", "{engine: Distribution}");
    let (login, other) = (Login::new(&namespace, "team"), Login::new(&namespace, "other"));
    login.push("app:1");
    let first = authority();
    let (caller, other_caller) = (Caller::start(&login), Caller::start(&other));
    let mut steps: Vec<String> = Vec::new();
    let mut bundles = Vec::new();
    let done = AtomicBool::new(false);
    kubectl(&["annotate", "secret", "wharf-authority", "-n", "wharf-system", "wharf.dev/rotate=now"]);
    std::thread::scope(|scope| {
        // A client that reads what is published every six seconds, where the overlap is twenty.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_secs(6));
                login.read_authority(&namespace);
                other.read_authority(&namespace);
            }
        });
        let started = Instant::now();
        let mut round = 0;
        loop {
            let now = step();
            if steps.last() != Some(&now) {
                steps.push(now.clone());
            }
            if now.is_empty() && steps.len() > 2 {
                break;
            }
            assert!(started.elapsed() < Duration::from_secs(400), "the rotation does not end: {steps:?}");
            round += 1;
            let image = format!("app:round-{round}");
            login
                .crane(&["copy", &login.reference("app:1"), &login.reference(&image)])
                .unwrap_or_else(|said| panic!("crane cannot push:\n{said}"));
            for node in ["node1", "node2"] {
                namespace.pod(&format!("{node}-{round}"), &login.reference(&image), node);
            }
            bundles.push([trusted_on(1, &login), trusted_on(2, &login)]);
        }
        done.store(true, Ordering::Relaxed);
    });
    std::thread::sleep(Duration::from_secs(5));
    let (calls, other_calls) = (caller.calls(), other_caller.calls());
    steps.retain(|step| !step.is_empty());
    // A step may be over before it was seen, but the two long ones may not.
    assert!(steps.contains(&"Overlapping".to_owned()) && steps.contains(&"Retiring".to_owned()), "{steps:?}");
    assert_ne!(authority(), first);
    assert!(bundles.contains(&[2, 2]), "both runtimes pulled with two authorities: {bundles:?}");
    eventually("the nodes trust one authority again", || {
        (trusted_on(1, &login) == 1 && trusted_on(2, &login) == 1).then_some(())
    });
    assert!(calls.iter().chain(&other_calls).all(|call| call.code != 60), "a client refused the certificate");
    println!(
        "rotation: {} calls, without an answer for {:?}, with Distribution for {:?}; {} pushes and {} pulls",
        calls.len(),
        gaps(&calls),
        gaps(&other_calls),
        bundles.len(),
        2 * bundles.len()
    );
    assert!(gaps(&calls).is_empty(), "no restart");
    assert_eq!(gaps(&other_calls).len(), 1, "one restart");
    // And with what is published in the end.
    login.read_authority(&namespace);
    login.digest("app:1").expect("a client with the new authority is answered");
    namespace.wait_for("team", "NodesConfigured", "True/AllNodes");
}
