//! Ten minutes of pulls, faults and kills, on one folder and with a cache that is too small: afterwards memory, descriptors and
//! files are what they were before.

use std::time::{Duration, Instant};

use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::faults::{allow_many_descriptors, is_long};
use super::served::{Mirror, bytes_below, entry};
use super::walk::Walk;
use crate::operation::eventually;

const UPSTREAMS: u64 = 10;
const LENGTH: Duration = Duration::from_secs(600);
const CACHE: u64 = 4 * 1024 * 1024;

struct Figures {
    memory: u64,
    descriptors: usize,
}

async fn at_rest(mirror: &Mirror) -> Figures {
    eventually(async || mirror.is_clean()).await;
    // Connections to upstreams, and from clients, rest a while.
    tokio::time::sleep(Duration::from_secs(100)).await;
    Figures { memory: mirror.memory("VmRSS:"), descriptors: mirror.descriptors() }
}

async fn round(mirror: &Mirror, walks: &mut [Walk], seed: u64, kill: bool) {
    let mut random = StdRng::seed_from_u64(seed);
    for walk in walks.iter_mut() {
        walk.begin_anew(random.random());
    }
    let moment = Duration::from_millis(random.random_range(10..2_000));
    let killing = async {
        tokio::time::sleep(moment).await;
        if kill {
            tokio::task::block_in_place(|| mirror.kill_and_start());
        }
    };
    tokio::join!(join_all(walks.iter_mut().map(|walk| walk.walk(mirror, false))), killing);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_minutes_of_pulls_faults_and_kills_leave_nothing_behind() {
    if !is_long() {
        return;
    }
    allow_many_descriptors();
    let mut walks = Vec::new();
    for seed in 0..UPSTREAMS {
        walks.push(Walk::new(seed).await);
    }
    let redirects = ", redirectHosts: [\"127.0.0.1\"]";
    let mirrors: String = walks.iter().map(|walk| entry(&walk.host, &walk.upstream, redirects)).collect();
    let mirror = Mirror::start(&mirrors, &format!("cache: {{tagMaxAgeSeconds: 1, size: {CACHE}}}\n"));
    let begun = Instant::now();
    let mut number = 0;
    let mut before = None;
    // A process that has just begun has little: it is looked at when it has seen all kinds of things.
    for (until, kills) in [(LENGTH / 2, true), (LENGTH * 3 / 4, false), (LENGTH, false)] {
        while begun.elapsed() < until {
            number += 1;
            round(&mirror, &mut walks, number, kills && number % 3 == 0).await;
            println!("soak: round {number}, {} KiB", mirror.memory("VmRSS:"));
        }
        if !kills && before.is_none() {
            before = Some(at_rest(&mirror).await);
        }
    }
    let before = before.unwrap();
    let after = at_rest(&mirror).await;
    println!("{number} rounds: {} KiB before, {} KiB after", before.memory, after.memory);
    assert!(after.memory < before.memory + 24 * 1024, "{} KiB before, {} after", before.memory, after.memory);
    assert!(after.descriptors <= before.descriptors + 20, "{} before, {} after", before.descriptors, after.descriptors);
    assert!(bytes_below(&mirror.root().join("wharf/cache/content")) <= CACHE);
}
