//! A random walk over Registries under pushes and pulls, while processes of ours are killed, the API server stands still, a node
//! loses its power and a volume is full. It must never check more than what is promised: an acknowledged image is there for as
//! long as its claim has to be, what is wanted is there in the end, what is not wanted is not.
//!
//! `WHARF_TEST_SEED` repeats the walk of a failure, as far as the world plays along; `WHARF_TEST_CHAOS_ROUNDS` makes it longer.

mod clients;
mod faults;
mod seat;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use self::faults::Faults;
use self::seat::{Seat, Spec};
use crate::audit::come_to_rest;
use crate::planned;
use crate::support::{Namespace, announce, condition, eventually, get, on_node};
use crate::turn::{Alone, wharf_is_whole};
use crate::volumes::HandMade;

const NAMESPACES: [&str; 2] = ["chaos-a", "chaos-b"];
/// The registries of each namespace that come, change and go.
const NAMES: [&str; 2] = ["left", "right"];
/// The one registry that stays, whose volume is filled from time to time.
const FULL: &str = "full";

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is a number: {text}")))
}

#[test]
#[ignore = "needs cluster"]
fn what_was_acknowledged_is_there_after_chaos() {
    let seed = number("WHARF_TEST_SEED").unwrap_or_else(rand::random);
    let rounds = number("WHARF_TEST_CHAOS_ROUNDS").unwrap_or(15);
    let _alone = Alone::new();
    announce(&format!("chaos: {rounds} rounds, WHARF_TEST_SEED={seed}"));
    let namespaces = NAMESPACES.map(Namespace::new);
    let volume = HandMade::new("chaos", "1Gi", &json!({}), "ReadWriteOnce");
    on_node(1, &["sh", "-c", &format!("mount -t tmpfs -o size=256m,mode=777 tmpfs {}", volume.folder())]);
    namespaces[0]
        .registry(FULL, &format!("{{storage: {{claim: {{size: 1Gi, storageClassName: {}}}}}}}", volume.class()));
    let full = Seat::that_stays(&namespaces[0].name, FULL);
    let seats: Vec<Seat> = namespaces
        .iter()
        .flat_map(|namespace| NAMES.map(|name| Seat::new(&namespace.name, name)))
        .chain([full])
        .collect();

    let wrong = Mutex::new(Vec::new());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let end = clients::End(&over);
        for number in 0..2 {
            let (seats, wrong, over) = (&seats, &wrong, &over);
            scope.spawn(move || clients::push_all_the_time(number, seats, over));
            scope.spawn(move || clients::pull_all_the_time(seats, over, wrong));
        }
        walk(&mut StdRng::seed_from_u64(seed), rounds, &seats, &volume);
        drop(end);
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{wrong:#?}");
    settle(&seats);
    // Not longer: how full a volume is may be told at any time, as it is a folder of the machine's disk.
    come_to_rest();
    nothing_is_left_over(&seats);
    every_image_is_there(&seats);
}

fn walk(random: &mut StdRng, rounds: u64, seats: &[Seat], volume: &HandMade) {
    let mut faults = Faults::new(volume);
    for round in 0..rounds {
        let seat = seats.choose(random).unwrap();
        let what = seat.step(random);
        let fault = faults.strike(round, random, seats);
        announce(&format!("chaos: round {round}: {} {what}; {fault}", seat.host()));
        std::thread::sleep(Duration::from_millis(random.random_range(0..2500)));
        claims_are_kept(seats);
    }
    faults.end();
    wharf_is_whole();
}

/// No claim goes but by the policy `Delete`.
fn claims_are_kept(seats: &[Seat]) {
    let claims = get(&["pvc", "-A"]).unwrap();
    for seat in seats {
        seat.compare_claim(claims["items"].as_array().unwrap());
    }
}

/// Whatever exists is started, and converges.
fn settle(seats: &[Seat]) {
    for seat in seats {
        seat.resume();
    }
    for seat in seats.iter().filter(|seat| seat.exists()) {
        eventually(&format!("{} converges", seat.host()), || {
            let registry = get(&["registry", &seat.name, "-n", &seat.namespace])?;
            let is = |kind: &str, expected: &str| condition(&registry, kind).as_deref() == Some(expected);
            (is("Ready", "True/Ready") && is("NodesConfigured", "True/AllNodes")).then_some(())
        });
    }
}

/// Of a Registry that is gone nothing is left but a claim that is kept; the nodes know what the plan has, and no more.
fn nothing_is_left_over(seats: &[Seat]) {
    let kinds = "registries,services,deployments,replicasets,configmaps,secrets,serviceaccounts,networkpolicies,poddisruptionbudgets,pods";
    for namespace in NAMESPACES.map(|name| format!("test-{name}")) {
        eventually(&format!("nothing is left of Registries of {namespace} that are gone"), || {
            let all = get(&[kinds, "-n", &namespace])?;
            let gone = |seat: &&Seat| seat.namespace == namespace && !seat.exists();
            let of = |seat: &Seat, item: &Value| {
                let name = item["metadata"]["name"].as_str().unwrap();
                name == seat.name || name.starts_with(&format!("{}-", seat.name))
            };
            let items = all["items"].as_array()?;
            (!seats.iter().filter(gone).any(|seat| items.iter().any(|item| of(seat, item)))).then_some(())
        });
    }
    let claims = get(&["pvc", "-A"]).unwrap();
    for seat in seats {
        seat.compare_claim(claims["items"].as_array().unwrap());
        seat.deleted_claim_is_gone(claims["items"].as_array().unwrap());
    }
    let expected: BTreeSet<String> = seats.iter().filter(|seat| seat.exists()).map(Seat::host).collect();
    let here = |host: &String| host.contains("test-chaos-");
    assert_eq!(planned::hosts().into_iter().filter(here).collect::<BTreeSet<_>>(), expected);
    for node in [1, 2] {
        let there: BTreeSet<String> = planned::folders(node).into_iter().filter(here).collect();
        assert_eq!(there, expected, "node {node}");
    }
}

/// Also those in claims of Registries that are gone: such a Registry is made again, and has them.
fn every_image_is_there(seats: &[Seat]) {
    for seat in seats.iter().filter(|seat| !seat.exists() && !seat.images().is_empty()) {
        seat.create(Spec::default());
    }
    settle(seats);
    let checked: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = seats.iter().map(|seat| scope.spawn(|| clients::check_images(seat))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    announce(&format!("chaos: {checked} acknowledged images are there, byte for byte"));
    assert!(checked > 0, "nothing was pushed at all");
}
