//! Measures pull-through beside another mirror, in one run, on loopback, against an upstream of its own. `make bench` runs it.
//! It must never assert that anything is fast: it prints what it measured beside the goals, and writes it as JSON.
//!
//! | Left over when this program is killed | Until |
//! |---|---|
//! | `target/bench/mirror/` | the next run |

#![allow(clippy::restriction, reason = "a benchmark ends by panicking")]
#![allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
#![allow(missing_docs, reason = "a program")]

mod crowd;
mod engines;
mod figures;
mod plain;
mod pull;
#[path = "../support/mod.rs"]
mod support;
mod upstream;

use std::path::Path;
use std::time::{Duration, Instant};

use engines::{ENGINES, Engine};
use figures::{Figures, NONE, REFERENCE};
use plain::Plain;
use pull::{Pulled, Puller};
use support::client::Client;
use support::content::{Blob, Image, Large};
use support::folder::Folder;
use support::server::Server;
use support::setting;
use support::values::percentile;
use upstream::{Manner, Upstream};

const MEBIBYTE: usize = 1 << 20;
const LARGE: usize = 200 * MEBIBYTE;
/// Bytes a second of a connection to an upstream that is far away.
const RATE: u64 = 40_000_000;
const ROUND_TRIP: Duration = Duration::from_millis(20);
/// How many blobs are pulled in a round to see how fast a miss is.
const MISSES: usize = 3;
const CLIENTS: usize = 20;
/// How many cached pulls are made in a round for one figure.
const PULLS: usize = 300;
/// And on how many connections.
const CONNECTIONS: usize = 20;
/// How many pulls are told apart once the upstream refuses: those that find it out.
const FIRST: usize = 10;
/// How long tags are good where they are good for the whole of a measurement.
const MINUTES: u32 = 600;
/// The same where they are to be so no longer soon after.
const SECONDS: u32 = 3;
/// How long a process is left alone before it is looked at.
const SETTLE: Duration = Duration::from_millis(500);
const REPOSITORY: &str = "bench/app";

fn main() {
    let rounds = setting("WHARF_BENCH_RUNS", 3);
    let folder = Folder::make("mirror");
    let mut bench = Bench::new(&folder.0);
    let mut figures = Figures::default();
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        bench.measure(round, &mut figures);
    }
    figures.print(rounds);
    figures.write(rounds);
}

struct Bench<'a> {
    folder: &'a Path,
    upstream: Upstream,
    /// Of one large layer each.
    large: Vec<Image>,
    /// For many clients.
    medium: Image,
    /// Of five objects, twice.
    five: [Image; 2],
    /// Of six objects.
    six: Image,
}

/// An image of layers of a size, whose numbers begin at one.
fn image(first: u64, layers: u64, size: usize) -> Image {
    Image::of((first..first + layers).map(|number| Blob::random(size, number)).collect())
}

impl<'a> Bench<'a> {
    fn new(folder: &'a Path) -> Self {
        let large = Large::new(LARGE);
        let bench = Self {
            folder,
            upstream: Upstream::start(),
            large: (0..MISSES as u64).map(|number| Image::of(vec![large.number(number)])).collect(),
            medium: image(100, 3, 16 * MEBIBYTE),
            five: [image(200, 3, 64 << 10), image(300, 3, 64 << 10)],
            six: image(400, 4, 64 << 10),
        };
        for (number, image) in bench.large.iter().enumerate() {
            bench.upstream.put(&format!("large{number}"), image);
        }
        bench.upstream.put("medium", &bench.medium);
        bench.upstream.put("five0", &bench.five[0]);
        bench.upstream.put("five1", &bench.five[1]);
        bench.upstream.put("six", &bench.six);
        bench
    }

    fn measure(&mut self, round: usize, figures: &mut Figures) {
        self.cold(round, figures);
        self.far(round, figures);
        self.misses(round, figures);
        for engine in engines(round) {
            self.few_requests(engine, figures);
            self.twenty(engine, figures);
            self.cached(engine, figures);
            self.refusing(engine, figures);
            // Whoever does not answer then takes its time to do so, each time the same.
            if round == 0 || engine.keeps_tags {
                self.silent(engine, figures);
            }
            crowd::measure(self.folder, &self.upstream, engine, figures);
        }
    }

    fn start(&self, engine: &Engine, tag_seconds: u32) -> Server {
        engine.start(self.folder, &self.upstream, tag_seconds)
    }

    fn pull_large(&self, puller: &mut Puller) -> Pulled {
        puller.pull("large0", &self.large[0]).unwrap()
    }

    /// One client, at an upstream that limits each connection.
    fn cold(&self, round: usize, figures: &mut Figures) {
        self.upstream.behave(Manner { rate: RATE, ..Manner::default() });
        let direct = self.pull_large(&mut Puller::direct(&self.upstream, REPOSITORY));
        figures.add(REFERENCE, "cold headers", direct.headers);
        figures.add(REFERENCE, "cold total", direct.seconds);
        for engine in engines(round) {
            let server = self.start(engine, MINUTES);
            let pulled = self.pull_large(&mut Puller::of(server.address, REPOSITORY));
            figures.add(engine.name, "cold headers", pulled.headers);
            figures.add(engine.name, "cold total", pulled.seconds);
            figures.add(engine.name, "cold against direct", pulled.seconds / direct.seconds);
        }
    }

    /// The same, where the upstream is as far away and as particular as large registries are.
    fn far(&self, round: usize, figures: &mut Figures) {
        // distribution asks when it starts, which is not what is measured.
        self.upstream.behave(Manner { rate: RATE, round_trip: ROUND_TRIP, guarded: true });
        let direct = self.pull_large(&mut Puller::direct(&self.upstream, REPOSITORY));
        figures.add(REFERENCE, "far headers", direct.headers);
        figures.add(REFERENCE, "far total", direct.seconds);
        for engine in engines(round) {
            let server = self.start(engine, MINUTES);
            let pulled = self.pull_large(&mut Puller::of(server.address, REPOSITORY));
            figures.add(engine.name, "far headers", pulled.headers);
            figures.add(engine.name, "far total", pulled.seconds);
            figures.add(engine.name, "far against direct", (pulled.seconds - direct.seconds) * 1000.0);
        }
    }

    /// Large blobs from an upstream that is as fast as it can be, one after the other, by each way in turn.
    fn misses(&self, round: usize, figures: &mut Figures) {
        self.upstream.behave(Manner::default());
        let gigabytes = LARGE as f64 / 1e9;
        let ways = engines(round).map(|engine| (engine, self.folder.join(engine.name)));
        let servers = ways.map(|(engine, folder)| {
            std::fs::create_dir_all(&folder).unwrap();
            (engine, engine.start(&folder, &self.upstream, MINUTES))
        });
        for (number, image) in self.large.iter().enumerate() {
            let blob = &image.blobs[0];
            let plain = Plain::start(self.upstream.address, blob.bytes.len(), self.folder.join("plain"));
            let limit = get(plain.address, blob);
            plain.join();
            figures.add(REFERENCE, "miss rate", gigabytes * 1000.0 / limit);
            for (engine, server) in &servers {
                // What it needs to know of the upstream, it knows from then on.
                Client::new(server.address).get(&format!("/v2/{REPOSITORY}/manifests/large{number}")).unwrap();
                let before = server.processor();
                let seconds = get(server.address, blob);
                // It may have something to do after the last byte.
                std::thread::sleep(SETTLE);
                figures.add(engine.name, "miss processor", (server.processor() - before) / gigabytes);
                figures.add(engine.name, "miss rate", gigabytes * 1000.0 / seconds);
                figures.add(engine.name, "miss share", limit / seconds);
            }
        }
        for (_, server) in servers {
            drop(server);
        }
        for engine in ENGINES {
            std::fs::remove_dir_all(self.folder.join(engine.name)).unwrap();
        }
    }

    fn few_requests(&self, engine: &Engine, figures: &mut Figures) {
        self.upstream.behave(Manner { guarded: true, ..Manner::default() });
        let server = self.start(engine, MINUTES);
        let mut puller = Puller::of(server.address, REPOSITORY);
        puller.pull("five0", &self.five[0]).unwrap();
        std::thread::sleep(SETTLE);
        self.upstream.behave(Manner::default());
        let before = self.upstream.counted();
        puller.pull("five1", &self.five[1]).unwrap();
        std::thread::sleep(SETTLE);
        figures.add(engine.name, "requests", self.upstream.since(before).requests as f64);
    }

    fn twenty(&self, engine: &Engine, figures: &mut Figures) {
        self.upstream.behave(Manner { rate: RATE, ..Manner::default() });
        let server = self.start(engine, MINUTES);
        let (before, started) = (self.upstream.counted(), Instant::now());
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| Puller::of(server.address, REPOSITORY).pull("medium", &self.medium).unwrap());
            }
        });
        figures.add(engine.name, "twenty total", started.elapsed().as_secs_f64());
        std::thread::sleep(SETTLE);
        let all = self.medium.blobs.iter().chain([&self.medium.manifest]);
        let unique = all.map(|blob| blob.bytes.len()).sum::<usize>() as f64;
        figures.add(engine.name, "twenty bytes", self.upstream.since(before).bytes as f64 / unique);
    }

    /// Many pulls, in milliseconds; none where one was not answered in time.
    fn pulls(&self, puller: &mut Puller, count: usize) -> Option<Vec<f64>> {
        let milliseconds = |pulled: Pulled| pulled.seconds * 1000.0;
        (0..count).map(|_| puller.pull("six", &self.six).map(milliseconds).ok()).collect()
    }

    /// Many pulls, on one connection after the other, so that the figure is not the luck of one.
    fn many(&self, server: &Server) -> Option<Vec<f64>> {
        let pulls = (0..CONNECTIONS)
            .map(|_| self.pulls(&mut Puller::of(server.address, REPOSITORY), PULLS / CONNECTIONS))
            .collect::<Option<Vec<_>>>();
        pulls.map(|pulls| pulls.concat())
    }

    fn cached(&self, engine: &Engine, figures: &mut Figures) {
        self.upstream.behave(Manner::default());
        let server = self.start(engine, MINUTES);
        let mut puller = Puller::of(server.address, REPOSITORY);
        self.pulls(&mut puller, FIRST).unwrap();
        std::thread::sleep(SETTLE);
        figures.add(engine.name, "idle", server.memory().resident);
        let before = self.upstream.counted();
        let pulls = self.many(&server).unwrap();
        figures.add(engine.name, "healthy p50", percentile(&pulls, 50));
        figures.add(engine.name, "healthy p99", percentile(&pulls, 99));
        figures.add(engine.name, "healthy requests", self.upstream.since(before).requests as f64);
    }

    /// A server with an image in it whose tag it would ask for at each pull, and how long a pull took before: from the same
    /// process, because two of them differ by more than what is looked for.
    fn asking(&mut self, engine: &Engine, go: impl FnOnce(&mut Upstream)) -> (Server, Puller, f64) {
        self.upstream.behave(Manner::default());
        let server = self.start(engine, SECONDS);
        let mut puller = Puller::of(server.address, REPOSITORY);
        self.pulls(&mut puller, FIRST).unwrap();
        let healthy = percentile(&self.many(&server).unwrap(), 50);
        go(&mut self.upstream);
        std::thread::sleep(Duration::from_secs(SECONDS.into()) + SETTLE);
        (server, puller, healthy)
    }

    fn refusing(&mut self, engine: &Engine, figures: &mut Figures) {
        let (server, mut puller, healthy) = self.asking(engine, Upstream::leave);
        let first = self.pulls(&mut puller, FIRST).unwrap();
        figures.add(engine.name, "refusing first", percentile(&first, 100));
        let p50 = percentile(&self.many(&server).unwrap(), 50);
        figures.add(engine.name, "refusing p50", p50);
        figures.add(engine.name, "refusing against healthy", p50 / healthy);
        drop(server);
        self.upstream.come_back();
    }

    fn silent(&mut self, engine: &Engine, figures: &mut Figures) {
        let (server, mut puller, healthy) = self.asking(engine, |upstream| upstream.fall_silent());
        let first = self.pulls(&mut puller, 1);
        figures.add(engine.name, "silent first", first.as_ref().map_or(NONE, |first| first[0]));
        // One that did not answer once is not asked hundreds of times.
        let pulls = first.and_then(|_| self.many(&server));
        let p50 = pulls.map_or(NONE, |pulls| percentile(&pulls, 50));
        figures.add(engine.name, "silent p50", p50);
        figures.add(engine.name, "silent against healthy", p50 / healthy);
        drop(server);
        self.upstream.come_back();
    }
}

/// Whoever is first in one round is not in the next.
fn engines(round: usize) -> [&'static Engine; 2] {
    let [one, other] = ENGINES;
    if round.is_multiple_of(2) { [one, other] } else { [other, one] }
}

/// How many seconds a blob takes.
fn get(address: std::net::SocketAddr, blob: &Blob) -> f64 {
    let (mut client, started) = (Client::new(address), Instant::now());
    let answer = client.get(&format!("/v2/{REPOSITORY}/blobs/{}", blob.digest)).unwrap();
    assert_eq!((answer.status, answer.length), (200, blob.bytes.len() as u64));
    started.elapsed().as_secs_f64()
}
