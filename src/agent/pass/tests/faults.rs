//! The fault suites for the agent: each call fails in each way, the process ends at each call, the plan that is read is an
//! old one. Whatever happens, the node ends as an undisturbed pass leaves it, and no entry is lost on the way.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::agent::fake::Fault;

const FAULTS: [Fault; 9] = [
    Fault::Status(409),
    Fault::Status(422),
    Fault::Status(429),
    Fault::Status(500),
    Fault::Status(503),
    Fault::Status(403),
    Fault::Hang,
    Fault::Reset,
    Fault::ApplyThenLose,
];
/// One call that is never answered, and room for the others.
const LONGEST_PASS: Duration = Duration::from_secs(15);

/// Every file below the node's folder, with its content.
fn files(world: &World) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![world.root.path().to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else {
                let name = path.strip_prefix(world.root.path()).unwrap().to_owned();
                found.insert(name, std::fs::read_to_string(path).unwrap());
            }
        }
    }
    found
}

/// A node with an entry, and a plan in which it stays while others come: what must never be missing on the way.
async fn before_a_change() -> World {
    let mut world = World::new("containerd://2.3.4");
    world.put_plan(7, &["team.platform.svc", "old.platform.svc", "docker.io", "old.io"]);
    assert_eq!(world.pass().await, Verdict::AtRest);
    world.put_plan(8, &["team.platform.svc", "new.platform.svc", "docker.io", "new.io:5000"]);
    // A new process, so that nothing is remembered.
    world.restart();
    world.fake.forget_requests();
    world
}

async fn undisturbed() -> (BTreeMap<PathBuf, String>, Value, Vec<String>) {
    let mut world = before_a_change().await;
    assert_eq!(world.pass().await, Verdict::AtRest);
    (files(&world), without_times(world.status()), world.fake.requests())
}

fn without_times(mut status: Value) -> Value {
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        condition["lastTransitionTime"] = Value::Null;
    }
    for host in status["mirrors"].as_array_mut().into_iter().flatten() {
        host["written"] = Value::Null;
    }
    status
}

async fn ends_well(world: &mut World, expected: &(BTreeMap<PathBuf, String>, Value, Vec<String>), what: &str) {
    let mirrored = world.root.path().join("certs.d/docker.io/hosts.toml");
    assert!(world.written() && mirrored.exists(), "{what}: an entry that was to stay is gone");
    assert_eq!(world.pass().await, Verdict::AtRest, "{what}");
    assert_eq!(files(world), expected.0, "{what}");
    assert_eq!(without_times(world.status()), expected.1, "{what}");
}

#[tokio::test(start_paused = true)]
async fn c4_each_call_fails_in_each_way() {
    let expected = undisturbed().await;
    assert_eq!(expected.2.len(), 5, "{:?}", expected.2);
    for (ordinal, request) in expected.2.iter().enumerate() {
        for fault in FAULTS {
            let what = format!("{fault:?} at {request}");
            let mut world = before_a_change().await;
            world.fake.strike(ordinal, fault);
            let began = Instant::now();
            assert_eq!(world.pass().await, Verdict::Again, "{what}");
            assert!(began.elapsed() < LONGEST_PASS, "{what}: {:?}", began.elapsed());
            ends_well(&mut world, &expected, &what).await;
        }
    }
}

#[tokio::test]
async fn c1_the_process_ends_at_each_call() {
    let expected = undisturbed().await;
    for (ordinal, request) in expected.2.iter().enumerate() {
        for (fault, when) in [(Fault::Hang, "before"), (Fault::ApplyThenHang, "after")] {
            let mut world = before_a_change().await;
            world.fake.strike(ordinal, fault);
            let fake = world.fake.clone();
            // Whatever of it hangs is dropped, as the process is.
            tokio::select! {
                verdict = world.pass() => panic!("{when} {request}: the pass went on, {verdict:?}"),
                () = fake.hangs() => {}
            }
            world.restart();
            ends_well(&mut world, &expected, &format!("the process ended {when} {request}")).await;
        }
    }
}

/// An API server that is behind shows the plan of before, to a new process too.
#[tokio::test]
async fn c2_an_old_plan_is_followed_by_the_new_one() {
    let expected = undisturbed().await;
    for restarts in [false, true] {
        let mut world = before_a_change().await;
        world.pass().await;
        world.put_plan(7, &["team.platform.svc", "old.platform.svc", "docker.io", "old.io"]);
        if restarts {
            world.restart();
        }
        world.pass().await;
        assert!(world.written());
        world.put_plan(8, &["team.platform.svc", "new.platform.svc", "docker.io", "new.io:5000"]);
        ends_well(&mut world, &expected, &format!("with a restart: {restarts}")).await;
    }
}

#[tokio::test]
async fn c5_after_convergence_nothing_is_written() {
    let mut world = before_a_change().await;
    world.pass().await;
    let (before, status) = (files(&world), world.status());
    let touched = |world: &World| std::fs::metadata(world.root.path().join(HOSTS_FILE)).unwrap().modified().unwrap();
    let written = touched(&world);
    world.fake.forget_requests();
    for restart in [false, false, true, false, true] {
        if restart {
            world.restart();
        }
        assert_eq!(world.pass().await, Verdict::AtRest);
    }
    assert!(world.fake.requests().iter().all(|request| request.starts_with("GET ")), "{:?}", world.fake.requests());
    assert_eq!((files(&world), world.status(), touched(&world)), (before, status, written));
}
