//! The agent's endpoint between a container runtime and a mirror: what its bytes cost, what it holds, how much later a manifest comes,
//! and how often the upstream is asked. It must never measure anything but cached content where the endpoint is what is measured.

use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use crate::api::Api;
use crate::figures::Figures;
use crate::lab::{Mirror, Place, agent, get, pull};
use crate::support::content::{Blob, Image, Large};
use crate::support::folder::Folder;
use crate::support::process::Memory;
use crate::support::setting;
use crate::support::values::percentile;
use crate::upstream::{Manner, Upstream};

const MEBIBYTE: usize = 1 << 20;
const LARGE: usize = 256 * MEBIBYTE;
/// How often the large blob is pulled for one figure.
const PULLS: usize = 8;
/// How many clients pull it at once before memory is looked at.
const CROWD: usize = 10;
/// How many manifests are asked for each way, and how many in a row.
const MANIFESTS: usize = 4000;
const IN_A_ROW: usize = 100;
/// Bytes a second of a connection to an upstream that is far away.
const RATE: u64 = 40_000_000;
/// How long a process is left alone before it is looked at.
const SETTLE: Duration = Duration::from_secs(1);

pub fn measure(runtime: &Handle, figures: &mut Figures) {
    let upstream = Upstream::start();
    let large = Image::of(vec![Large::new(LARGE).number(0)]);
    upstream.put("large", &large);
    let images = [1, 3, 10].map(|pulls: u64| {
        let layers = (0..3).map(|layer| Blob::random(16 * MEBIBYTE, pulls * 10 + layer)).collect();
        (pulls, Image::of(layers))
    });
    for (pulls, image) in &images {
        upstream.put(&format!("of{pulls}"), image);
    }
    for round in 0..setting("WHARF_BENCH_RUNS", 2) {
        eprintln!("  round {}", round + 1);
        transfers(runtime, &upstream, &large, true, figures);
        transfers(runtime, &upstream, &large, false, figures);
        shared(runtime, &upstream, &images, figures);
    }
}

/// Bytes through one endpoint, with TLS on both of its sides or on neither.
fn transfers(runtime: &Handle, upstream: &Upstream, large: &Image, secure: bool, figures: &mut Figures) {
    upstream.behave(Manner::default());
    let folder = Folder::make("nodes");
    let mirror = Mirror::start(&folder.0, upstream, secure);
    let api = runtime.block_on(Api::start(&mirror.plan()));
    let agent = agent(&folder.0, &api, "node1", secure);
    let blob = &large.blobs[0];
    pull(&mut mirror.place.client(), "large", large);
    if secure {
        std::thread::sleep(SETTLE);
        figures.memory("agent idle", Memory::of_one_program(&agent.server.processes()));
        latency(&mirror.place, &agent, large, figures);
    }
    let (before, started) = (agent.server.processor(), Instant::now());
    let mut client = agent.client();
    for _ in 0..PULLS {
        get(&mut client, "blobs", &blob.digest, blob.bytes.len());
    }
    let seconds = started.elapsed().as_secs_f64();
    let gigabytes = (PULLS * blob.bytes.len()) as f64 / 1e9;
    std::thread::sleep(SETTLE);
    let name = if secure { "tls" } else { "plain" };
    figures.add(&format!("{name} processor"), (agent.server.processor() - before) / gigabytes);
    figures.add(&format!("{name} rate"), gigabytes * 1000.0 / seconds);
    if secure {
        std::thread::scope(|scope| {
            for _ in 0..CROWD {
                scope.spawn(|| get(&mut agent.client(), "blobs", &blob.digest, blob.bytes.len()));
            }
        });
        std::thread::sleep(SETTLE);
        figures.memory("agent loaded", Memory::of_one_program(&agent.server.processes()));
    }
}

/// A manifest by its tag, from the mirror itself and through the endpoint, in turns.
fn latency(mirror: &Place, agent: &Place, image: &Image, figures: &mut Figures) {
    let length = image.manifest.bytes.len();
    let mut clients = [("direct", mirror.client(), Vec::new()), ("through", agent.client(), Vec::new())];
    for turn in 0..MANIFESTS / IN_A_ROW {
        for (_, client, times) in &mut clients {
            for _ in 0..IN_A_ROW {
                let asked = Instant::now();
                get(client, "manifests", "large", length);
                // The first turn finds out what each has to know.
                if turn > 0 {
                    times.push(asked.elapsed().as_secs_f64() * 1000.0);
                }
            }
        }
    }
    let [(_, _, direct), (_, _, through)] = &clients;
    for percent in [50, 99] {
        let (direct, through) = (percentile(direct, percent), percentile(through, percent));
        figures.add(&format!("direct p{percent}"), direct);
        figures.add(&format!("through p{percent}"), through);
        figures.add(&format!("added p{percent}"), through - direct);
    }
}

/// Pulls at once, through the endpoints of three nodes, of images that nobody has.
fn shared(runtime: &Handle, upstream: &Upstream, images: &[(u64, Image)], figures: &mut Figures) {
    upstream.behave(Manner { rate: RATE, ..Manner::default() });
    let folder = Folder::make("nodes");
    let mirror = Mirror::start(&folder.0, upstream, true);
    let api = runtime.block_on(Api::start(&mirror.plan()));
    let agents = ["node1", "node2", "node3"].map(|node| agent(&folder.0, &api, node, true));
    for (pulls, image) in images {
        let before = upstream.counted();
        std::thread::scope(|scope| {
            for agent in agents.iter().cycle().take(usize::try_from(*pulls).unwrap()) {
                scope.spawn(move || pull(&mut agent.client(), &format!("of{pulls}"), image));
            }
        });
        let all = image.blobs.iter().chain([&image.manifest]);
        let unique = all.map(|blob| blob.bytes.len()).sum::<usize>() as f64;
        figures.add(&format!("bytes of {pulls}"), upstream.since(before).bytes as f64 / unique);
    }
}
