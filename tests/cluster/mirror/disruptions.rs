//! The promise, one disruption after the other: a pull that works without Wharf never fails, and never takes noticeably longer,
//! because of Wharf. Each is measured beside a pull that goes around Wharf under the same condition of the registry.

use std::time::Duration;

use serde_json::json;

use super::hub::{Hub, Pushed};
use super::pulls::{NODES, Pull, Way, forget_everywhere, pull_everywhere};
use super::stage::Stage;
use super::table::{Cost, Table};
use super::upstream::faults::{Fault, Place};
use crate::processes::{freeze_agent, kill_agent, kill_mirror};
use crate::support::{attempt, eventually, get, kubectl, on_node};
use crate::turn::{Alone, wharf_is_whole};
use crate::volumes::HandMade;

/// What Wharf may add.
const NOTICEABLE: Duration = Duration::from_secs(1);
/// What it may add where its agent hangs, until that is seen.
const FROZEN: Duration = Duration::from_millis(2500);
/// What it may add where the runtime fetches the rest itself: the Mirror goes on fetching beside it, and both share what bandwidth
/// the registry gives.
const SHARED: Duration = Duration::from_millis(2500);
/// What is done on a loaded machine is done again: what Wharf itself costs is in every attempt.
const ATTEMPTS: usize = 3;
/// After which a pull that hangs has hung long enough.
const SECONDS: u32 = 10;
/// How large an image is that is disturbed while it comes, and how fast it does: some seconds for two nodes.
const LARGE: usize = 8_000_000;
const SLOW: u64 = 8_000_000;

/// When it happens.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Before the pull.
    Before,
    /// When a quarter of the image has come.
    InMidBlob,
}

type Act = fn(&Stage);

struct Disruption {
    what: &'static str,
    limit: Duration,
    moment: Moment,
    /// What is the registry's doing, and befalls the pull without Wharf as well.
    upstream: fn(&Hub),
    /// What is not.
    begin: Act,
    /// Puts right what does not mend itself.
    end: Act,
}

const NONE: Disruption = Disruption {
    what: "nothing",
    limit: NOTICEABLE,
    moment: Moment::Before,
    upstream: |_| {},
    begin: |_| {},
    end: |_| {},
};

const DISRUPTIONS: &[Disruption] = &[
    NONE,
    Disruption { what: "mirror's pods deleted", begin: delete_pods, ..NONE },
    Disruption { what: "mirror's pods deleted in mid-blob", moment: Moment::InMidBlob, begin: delete_pods, ..NONE },
    Disruption {
        what: "mirror's process killed in mid-blob",
        limit: SHARED,
        moment: Moment::InMidBlob,
        begin: |stage| assert!(kill_mirror(&stage.name)),
        ..NONE
    },
    Disruption { what: "agent killed", begin: kill_agents, ..NONE },
    Disruption {
        what: "agent killed in mid-blob",
        limit: SHARED,
        moment: Moment::InMidBlob,
        begin: kill_agents,
        ..NONE
    },
    Disruption { what: "agent frozen", limit: FROZEN, begin: freeze_agents, ..NONE },
    Disruption {
        what: "agent frozen in mid-blob",
        limit: FROZEN,
        moment: Moment::InMidBlob,
        begin: freeze_agents,
        ..NONE
    },
    Disruption { what: "agent updated in mid-blob", moment: Moment::InMidBlob, begin: restart_agents, ..NONE },
    Disruption { what: "mirror's disk full", begin: |_| fill_disk(), end: |_| free_disk(), ..NONE },
    Disruption {
        what: "mirror's disk full in mid-blob",
        moment: Moment::InMidBlob,
        begin: |_| fill_disk(),
        end: |_| free_disk(),
        ..NONE
    },
    Disruption { what: "nodes cut off from the mirror", begin: cut_off, end: |_| reconnect(), ..NONE },
    Disruption {
        what: "nodes cut off from the mirror in mid-blob",
        limit: SHARED,
        moment: Moment::InMidBlob,
        begin: cut_off,
        end: |_| reconnect(),
        ..NONE
    },
    Disruption { what: "operator gone", begin: |_| scale_operator(0), end: |_| scale_operator(1), ..NONE },
    Disruption {
        what: "operator and the mirror's Services gone",
        begin: delete_services,
        end: |_| scale_operator(1),
        ..NONE
    },
    Disruption { what: "registry: 429 twice", upstream: |hub| hub.befall_first(2, &Fault::TooMany), ..NONE },
    Disruption { what: "registry: 429", upstream: |hub| hub.befall(&Fault::TooMany), ..NONE },
    Disruption { what: "registry: 500 once", upstream: |hub| hub.befall_first(1, &Fault::Internal), ..NONE },
    Disruption { what: "registry: 500", upstream: |hub| hub.befall(&Fault::Internal), ..NONE },
    Disruption { what: "registry: refuses connections", upstream: Hub::leave, ..NONE },
    Disruption { what: "registry: silent", upstream: |hub| hub.upstream.fall_silent(true), ..NONE },
    Disruption {
        what: "registry: wrong bytes once",
        upstream: |hub| hub.befall_first(1, &Fault::WrongBytes(Place::Middle)),
        ..NONE
    },
    Disruption { what: "registry: wrong bytes", upstream: |hub| hub.befall(&Fault::WrongBytes(Place::Middle)), ..NONE },
    Disruption { what: "registry: cuts connections", upstream: |hub| hub.befall_first(2, &Fault::CutInBody), ..NONE },
    Disruption {
        what: "Mirror deleted in mid-blob",
        moment: Moment::InMidBlob,
        begin: |stage| drop(kubectl(&["delete", "mirror", &stage.name, "--wait=false"])),
        end: make_again,
        ..NONE
    },
];

fn spec() -> serde_json::Value {
    // Each pull asks for its tag, so that all of the registry's state is felt.
    json!({"cache": {"size": "256Mi", "storageClassName": "wharf-test-disrupted", "tagMaxAge": "0s"}})
}

fn delete_pods(stage: &Stage) {
    let pods = format!("app.kubernetes.io/name=mirror,app.kubernetes.io/instance={}", stage.name);
    kubectl(&["delete", "pods", "-n", "wharf-system", "-l", &pods, "--grace-period=0", "--force", "--wait=false"]);
}

fn kill_agents(_: &Stage) {
    assert!(NODES.into_iter().all(kill_agent));
}

fn freeze_agents(_: &Stage) {
    assert!(NODES.into_iter().all(freeze_agent));
}

fn restart_agents(_: &Stage) {
    kubectl(&["rollout", "restart", "daemonset/wharf-agent", "-n", "wharf-system"]);
}

fn fill_disk() {
    on_node(1, &["sh", "-c", "cat /dev/zero >/var/lib/wharf-test-disrupted/ballast 2>/dev/null; true"]);
}

fn free_disk() {
    on_node(1, &["rm", "-f", "/var/lib/wharf-test-disrupted/ballast"]);
}

/// What a node sends to a pod of the Mirror is lost, and nobody is told.
fn cut_off(stage: &Stage) {
    let pod = get(&["pod", &stage.pod(0), "-n", "wharf-system"]).unwrap();
    let address = pod["status"]["podIP"].as_str().unwrap().to_owned();
    for node in NODES {
        on_node(node, &["iptables", "-w", "10", "-N", "TEST-CUT"]);
        on_node(node, &["iptables", "-w", "10", "-A", "TEST-CUT", "-d", &address, "-j", "DROP"]);
        on_node(node, &["iptables", "-w", "10", "-I", "OUTPUT", "-j", "TEST-CUT"]);
    }
}

fn reconnect() {
    for node in NODES {
        let script = "iptables -w 10 -D OUTPUT -j TEST-CUT; iptables -w 10 -F TEST-CUT; iptables -w 10 -X TEST-CUT";
        let _ = attempt("dev/cluster/node", &[&node.to_string(), "sh", "-c", script], "");
    }
}

fn scale_operator(replicas: u8) {
    let count = format!("--replicas={replicas}");
    kubectl(&["scale", "deployment/wharf-operator", "-n", "wharf-system", &count]);
    eventually("so many operators are there", || {
        let pods = get(&["pods", "-n", "wharf-system", "-l", "app.kubernetes.io/component=operator"])?;
        (pods["items"].as_array()?.len() == usize::from(replicas)).then_some(())
    });
}

fn delete_services(stage: &Stage) {
    scale_operator(0);
    let services = format!("app.kubernetes.io/name=mirror,app.kubernetes.io/instance={}", stage.name);
    kubectl(&["delete", "services", "-n", "wharf-system", "-l", &services, "--wait=true"]);
}

/// A Mirror takes its claim along, whose volume is nobody else's before somebody says so.
fn make_again(stage: &Stage) {
    let claim = format!("pvc/cache-{}", stage.pod(0));
    for gone in [&format!("mirror/{}", stage.name), &claim] {
        kubectl(&["wait", "--for=delete", gone, "-n", "wharf-system", "--timeout=120s"]);
    }
    let free = r#"[{"op": "remove", "path": "/spec/claimRef"}]"#;
    kubectl(&["patch", "pv", "wharf-test-disrupted", "--type=json", "--patch", free]);
    stage.make(&spec());
    stage.is_ready();
}

impl Disruption {
    /// An image for each node of which no other, and no cache, has anything.
    fn images(&self, stage: &Stage, way: Way) -> [Pushed; 2] {
        let sizes: &[usize] = if self.moment == Moment::Before { &[100_000] } else { &[LARGE] };
        NODES.map(|node| stage.hub.push_new(&format!("disrupted-{way:?}-{node}").to_lowercase(), sizes))
    }

    fn pulls(&self, stage: &Stage, way: Way) -> [Pull; 2] {
        let hub = &stage.hub;
        let images = self.images(stage, way);
        let references = [&images[0].reference[..], &images[1].reference[..]];
        (self.upstream)(hub);
        let pulls = match self.moment {
            Moment::Before => {
                if way == Way::Configured {
                    (self.begin)(stage);
                }
                pull_everywhere(way, references, SECONDS)
            }
            Moment::InMidBlob => {
                hub.upstream.limit(SLOW);
                std::thread::scope(|scope| {
                    let pulls = scope.spawn(|| pull_everywhere(way, references, SECONDS + 20));
                    let layer = |pushed: &Pushed| pushed.image.layers[1].digest.clone();
                    eventually("a quarter of both has come", || {
                        let has =
                            |pushed| hub.upstream.sent(&layer(pushed)).first().is_some_and(|part| part.end > 2_000_000);
                        images.iter().all(has).then_some(())
                    });
                    if way == Way::Configured {
                        (self.begin)(stage);
                    }
                    pulls.join().unwrap()
                })
            }
        };
        hub.upstream.limit(0);
        hub.upstream.heal();
        hub.come_back();
        forget_everywhere();
        pulls
    }

    fn costs(&self, stage: &Stage) -> [Cost; 2] {
        let direct = self.pulls(stage, Way::Direct);
        let configured = self.pulls(stage, Way::Configured);
        (self.end)(stage);
        wharf_is_whole();
        stage.serves_all_nodes();
        let [first, second] = direct;
        let [third, fourth] = configured;
        [Cost { direct: first, configured: third }, Cost { direct: second, configured: fourth }]
    }
}

#[test]
#[ignore = "needs cluster"]
fn no_disruption_makes_a_pull_fail_or_noticeably_longer() {
    let _alone = Alone::new();
    let _undone = Undone;
    let _volume = HandMade::new("disrupted", "256Mi", &json!({}), "ReadWriteOnce").in_memory(256);
    let stage = Stage::new("disrupted", &spec());
    stage.serves_all_nodes();
    let mut table = Table::default();
    let mut broken = Vec::new();
    let only = std::env::var("WHARF_TEST_DISRUPTION").unwrap_or_default();
    for disruption in DISRUPTIONS.iter().filter(|disruption| disruption.what.contains(&only)) {
        let mut best = disruption.costs(&stage);
        let within = |costs: &[Cost; 2]| costs.iter().all(|cost| cost.is_within(disruption.limit));
        for _ in 1..ATTEMPTS {
            if within(&best) {
                break;
            }
            best = disruption.costs(&stage);
        }
        table.add(disruption.what, &best);
        if !within(&best) {
            broken.push(format!("{}: {best:?}", disruption.what));
        }
    }
    table.finish();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// What a disruption did to the nodes and the operator is undone, however the test ends.
struct Undone;

impl Drop for Undone {
    fn drop(&mut self) {
        reconnect();
        let _ = attempt("kubectl", &["scale", "deployment/wharf-operator", "-n", "wharf-system", "--replicas=1"], "");
    }
}
