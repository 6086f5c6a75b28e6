//! Measures registry engines side by side in one run, on loopback. `make bench` runs it.
//! It must never assert that anything is fast: it prints what it measured beside the goals, and writes it as JSON.
//!
//! | Left over when this program is killed | Until |
//! |---|---|
//! | `target/bench/registry/`, `/dev/shm/wharf-bench` | the next run |
//! | a control group `wharf-bench-PID` without processes | the machine starts anew |

#![allow(clippy::restriction, reason = "a benchmark ends by panicking")]
#![allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
#![allow(missing_docs, reason = "a program")]

mod engines;
mod figures;
mod growth;
mod load;
mod paced;
mod push;
#[path = "../support/mod.rs"]
mod support;
mod volume;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use engines::{ENGINES, Engine, Server};
use figures::Figures;
use load::{Load, Readers};
use paced::Paced;
use push::Pusher;
use support::client::Client;
use support::content::{Blob, Image, Large};
use support::folder::Folder;
use support::setting;
use volume::{Slow, Stuck};

/// How many connections readers of manifests and small blobs have.
pub const CONNECTIONS: usize = 16;
/// How many readers others are, while one hangs.
const OTHERS: u32 = 4;
/// How many readers of a large blob hang.
const HANGING: usize = 64;
const LARGE: usize = 256 << 20;
/// How many large blobs all readers together take while one figure is measured.
const LARGE_READS: usize = 16;
const SMALL: usize = 64 << 10;
const LAYER: usize = 16 << 10;
/// How many images are pushed in a round, and how many large blobs.
const IMAGES: u64 = 30;
const LARGE_PUSHES: u64 = 3;
/// How many times an engine is started in a round to see how long it takes.
const STARTS: usize = 5;
/// How long a process is left alone before its memory is looked at.
const SETTLE: Duration = Duration::from_secs(2);
const REPOSITORY: &str = "bench/app";

fn main() {
    let rounds = setting("WHARF_BENCH_RUNS", 3);
    let folder = Folder::make("registry");
    certify(&folder.0);
    let bench = Bench::new(&folder.0);
    let mut figures = Figures::default();
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        for number in 0..ENGINES.len() {
            // Whoever is first in one round is not in the next.
            let engine = &ENGINES[(number + round) % ENGINES.len()];
            bench.measure(engine, round as u64, &mut figures);
        }
    }
    figures.print(rounds);
    figures.write(rounds);
    growth::measure(&folder.0);
}

/// A certificate for those who serve HTTPS.
fn certify(folder: &Path) {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("tls.crt"), certified.cert.pem()).unwrap();
    std::fs::write(folder.join("tls.key"), certified.signing_key.serialize_pem()).unwrap();
}

struct Bench<'a> {
    folder: &'a Path,
    image: Image,
    small: Blob,
    all_large: Large,
    large: Blob,
}

impl<'a> Bench<'a> {
    fn new(folder: &'a Path) -> Self {
        let layers = (0..20).map(|number| Blob::random(LAYER, number)).collect();
        let all_large = Large::new(LARGE);
        let (small, large) = (Blob::random(SMALL, 100), all_large.number(0));
        Self { folder, image: Image::of(layers), small, all_large, large }
    }

    fn measure(&self, engine: &Engine, round: u64, figures: &mut Figures) {
        eprintln!("  {}", engine.name);
        let root = self.folder.join("root");
        std::fs::create_dir_all(&root).unwrap();
        if !engine.takes_pushes {
            self.write_files(&root);
        }
        {
            let server = engine.start(self.folder, &root, false);
            std::thread::sleep(SETTLE);
            figures.memory(engine.name, "idle", server.memory());
            if engine.takes_pushes {
                self.pushes(engine, &server, round, figures);
            }
            self.reads(engine, &server, figures);
            self.plain_large_reads(engine, &server, figures);
            std::thread::sleep(SETTLE);
            figures.memory(engine.name, "loaded", server.memory());
            self.beside_hanging(engine, &server, figures);
        }
        self.beside_slow(engine, &root, figures);
        if engine.takes_pushes {
            self.beside_stuck(engine, &root, figures);
        }
        for _ in 0..STARTS {
            figures.add(engine.name, "start", engine.start(self.folder, &root, false).started_after);
        }
        self.tls_large_reads(engine, &engine.start(self.folder, &root, true), figures);
        std::fs::remove_dir_all(&root).unwrap();
    }

    /// The content as files where their addresses say.
    fn write_files(&self, root: &Path) {
        let write = |path: String, blob: &Blob| {
            let file = root.join(path.trim_start_matches('/'));
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, &blob.bytes).unwrap();
        };
        write(manifest("latest"), &self.image.manifest);
        write(manifest(&self.image.manifest.digest), &self.image.manifest);
        write(blob(&self.small), &self.small);
        write(blob(&self.large), &self.large);
    }

    /// The content that is read later, and then what is measured. The bytes are made before each is timed.
    fn pushes(&self, engine: &Engine, server: &Server, round: u64, figures: &mut Figures) {
        let mut pusher = Pusher::new(server, REPOSITORY);
        pusher.image(&self.image, ["latest", "stable"]);
        pusher.blob(&self.small);
        pusher.blob(&self.large);
        for number in 0..LARGE_PUSHES {
            let blob = self.all_large.number(1 + round * LARGE_PUSHES + number);
            let (before, started) = (server.processor(), Instant::now());
            pusher.blob(&blob);
            figures.add(engine.name, "push large wall", started.elapsed().as_secs_f64());
            figures.add(engine.name, "push large processor", server.processor() - before);
        }
        let image = |number: u64| {
            let first = 100_000 + (round * IMAGES + number) * 20;
            Image::of((first..first + 20).map(|layer| Blob::random(LAYER, layer)).collect())
        };
        let images: Vec<Image> = (0..IMAGES).map(image).collect();
        let before = server.processor();
        for image in &images {
            let seconds = pusher.image(image, ["pushed", "again"]);
            figures.add(engine.name, "push image wall", seconds * 1000.0);
        }
        let each = (server.processor() - before) * 1000.0 / images.len() as f64;
        figures.add(engine.name, "push image processor", each);
    }

    /// Load for three seconds.
    fn get(&self, server: &Server, connections: usize, path: &str) -> Load {
        Readers { server, folder: self.folder, connections, seconds: 3 }.get(path)
    }

    fn reads(&self, engine: &Engine, server: &Server, figures: &mut Figures) {
        let small = [
            ("tag", manifest("latest")),
            ("digest", manifest(&self.image.manifest.digest)),
            ("small", blob(&self.small)),
        ];
        for (figure, path) in small {
            let load = self.get(server, CONNECTIONS, &path);
            tell(figure, &load);
            figures.add(engine.name, &format!("{figure} requests"), load.requests_per_second());
            figures.add(engine.name, &format!("{figure} processor"), load.microseconds_each());
        }
    }

    /// A fixed number of bytes, so that the processor's time is that of whole transfers.
    fn plain_large_reads(&self, engine: &Engine, server: &Server, figures: &mut Figures) {
        for connections in [1, 4] {
            let (before, started) = (server.processor(), Instant::now());
            std::thread::scope(|scope| {
                for _ in 0..connections {
                    scope.spawn(|| {
                        let mut client = Client::new(server.address);
                        for _ in 0..LARGE_READS / connections {
                            let answer = client.get(&blob(&self.large)).unwrap();
                            assert_eq!((answer.status, answer.length), (200, self.large.bytes.len() as u64));
                        }
                    });
                }
            });
            let gigabytes = (LARGE_READS * self.large.bytes.len()) as f64 / 1e9;
            let (seconds, processor) = (started.elapsed().as_secs_f64(), server.processor() - before);
            figures.add(engine.name, &format!("plain {connections} wall"), gigabytes / seconds);
            figures.add(engine.name, &format!("plain {connections} processor"), gigabytes / processor);
        }
    }

    fn tls_large_reads(&self, engine: &Engine, server: &Server, figures: &mut Figures) {
        for connections in [1, 4] {
            let load = self.get(server, connections, &blob(&self.large));
            tell(&format!("tls {connections}"), &load);
            figures.add(engine.name, &format!("tls {connections} wall"), load.gigabytes_per_second());
            figures.add(engine.name, &format!("tls {connections} processor"), load.gigabytes_per_processor_second());
        }
    }

    fn others(server: &Server, engine: &Engine, how: &str, figures: &mut Figures) {
        add_others(engine, how, &paced::ask(server, &manifest("latest"), OTHERS, 3), figures);
    }

    /// Readers that ask for a large blob and take none of it.
    fn beside_hanging(&self, engine: &Engine, server: &Server, figures: &mut Figures) {
        Self::others(server, engine, "alone", figures);
        let hanging: Vec<Client> = (0..HANGING).map(|_| ask(server, &blob(&self.large))).collect();
        // Until the system's buffers are full.
        std::thread::sleep(SETTLE);
        Self::others(server, engine, "beside hanging", figures);
        drop(hanging);
    }

    /// One reader that takes all it gets, from a volume that gives one MiB a second.
    fn beside_slow(&self, engine: &Engine, root: &Path, figures: &mut Figures) {
        let Some(slow) = Slow::make(root) else {
            eprintln!("    the volume cannot be made slow here: that needs root and the control group for disks");
            return;
        };
        let server = engine.start(self.folder, root, false);
        // What others read is in memory, as it would be.
        Client::new(server.address).get(&manifest("latest")).unwrap();
        volume::forget(&engine.file(root, REPOSITORY, &self.large));
        slow.hold(&server);
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut client = ask(&server, &blob(&self.large));
                client.wait_at_most(Duration::from_secs(10));
                client.take_while(|| !ended.load(Ordering::Relaxed));
            });
            std::thread::sleep(Duration::from_millis(500));
            Self::others(&server, engine, "beside slow", figures);
            ended.store(true, Ordering::Relaxed);
        });
    }

    /// Readers of a blob that the volume does not give at all.
    fn beside_stuck(&self, engine: &Engine, root: &Path, figures: &mut Figures) {
        let lost = Blob::new(b"stuck".to_vec());
        let stuck = Stuck::make(root, REPOSITORY, &lost);
        let server = engine.start(self.folder, root, false);
        Client::new(server.address).get(&manifest("latest")).unwrap();
        let mut waiting: Vec<Client> = (0..HANGING).map(|_| ask(&server, &blob(&lost))).collect();
        std::thread::sleep(Duration::from_millis(500));
        let paced = paced::ask(&server, &manifest("latest"), OTHERS, 3);
        let hung = waiting.iter_mut().filter_map(|client| {
            client.wait_at_most(Duration::from_millis(1));
            client.answer(false).err()
        });
        if hung.count() == HANGING {
            add_others(engine, "beside stuck", &paced, figures);
        } else {
            eprintln!("    {} answers without opening the blob: there is nothing to compare", engine.name);
        }
        drop(stuck);
    }
}

fn add_others(engine: &Engine, how: &str, paced: &Paced, figures: &mut Figures) {
    figures.add(engine.name, &format!("others {how}"), paced.p99);
    figures.add(engine.name, &format!("others {how} unanswered"), paced.unanswered as f64);
}

fn manifest(reference: &str) -> String {
    format!("/v2/{REPOSITORY}/manifests/{reference}")
}

fn blob(blob: &Blob) -> String {
    format!("/v2/{REPOSITORY}/blobs/{}", blob.digest)
}

/// Asks without reading.
fn ask(server: &Server, path: &str) -> Client {
    let mut client = Client::new(server.address);
    client.ask("GET", path, "application/octet-stream", &[]).unwrap();
    client
}

/// Shows which side was busy, so that a table of the client's speed is not taken for one of the server's.
fn tell(what: &str, load: &Load) {
    let (server, client) = (load.server / load.seconds, load.client / load.seconds);
    eprintln!("    {what}: processors busy: server {server:.2}, client {client:.2}");
}
