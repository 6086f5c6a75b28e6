//! Measures registry engines side by side in one run, on loopback. `make bench` runs it.
//! It must never assert that anything is fast: it prints what it measured beside the goals, and writes it as JSON.
//!
//! | Left over when this program is killed | Until |
//! |---|---|
//! | `target/bench/registry/` | the next run |
//! | a control group `wharf-bench-PID` without processes | the machine starts anew |

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a benchmark ends by panicking"
)]
#![allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
#![allow(missing_docs, reason = "a program")]

mod content;
mod engines;
mod figures;
mod growth;
mod load;
mod push;
#[path = "../support/mod.rs"]
mod support;
mod volume;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use content::{Blob, Image};
use engines::{ENGINES, Engine, Server};
use figures::Figures;
use load::{Load, Readers};
use push::Pusher;
use support::setting;
use volume::Slow;

/// How many connections readers of manifests and small blobs have.
pub const CONNECTIONS: usize = 16;
/// How many readers others are, while one hangs.
const OTHERS: usize = 4;
/// How many readers of a large blob hang.
const HANGING: usize = 64;
const LARGE: usize = 256 << 20;
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

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let rounds = setting("WHARF_BENCH_RUNS", 3);
    let folder = Folder::make();
    if std::env::var_os("WHARF_BENCH_GROWTH").is_some() {
        growth::measure(&folder.0);
        return;
    }
    let bench = Bench::new(&folder.0);
    let mut figures = Figures::default();
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        for number in 0..ENGINES.len() {
            // Whoever is first in one round is not in the next.
            let engine = &ENGINES[(number + round) % ENGINES.len()];
            bench.measure(engine, round as u64, &mut figures).await;
        }
    }
    figures.print(rounds);
    figures.write(rounds);
}

/// Where everything of a run lies; it goes with the run.
struct Folder(PathBuf);

impl Folder {
    fn make() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/registry");
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(folder.join("tls.crt"), certified.cert.pem()).unwrap();
        std::fs::write(folder.join("tls.key"), certified.signing_key.serialize_pem()).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Bench<'a> {
    folder: &'a Path,
    image: Image,
    small: Blob,
    large: Blob,
}

impl<'a> Bench<'a> {
    fn new(folder: &'a Path) -> Self {
        let layers = (0..20).map(|number| Blob::random(LAYER, number)).collect();
        Self { folder, image: Image::of(layers), small: Blob::random(SMALL, 100), large: Blob::random(LARGE, 101) }
    }

    async fn measure(&self, engine: &Engine, round: u64, figures: &mut Figures) {
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
                self.pushes(engine, &server, round, figures).await;
            }
            self.reads(engine, &server, figures);
            self.large_reads(engine, &server, "plain", figures);
            std::thread::sleep(SETTLE);
            figures.memory(engine.name, "loaded", server.memory());
            self.beside_hanging(engine, &server, figures);
        }
        self.beside_slow(engine, &root, figures);
        for _ in 0..STARTS {
            figures.add(engine.name, "start", engine.start(self.folder, &root, false).started_after);
        }
        self.large_reads(engine, &engine.start(self.folder, &root, true), "tls", figures);
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
    async fn pushes(&self, engine: &Engine, server: &Server, round: u64, figures: &mut Figures) {
        let pusher = Pusher::new(server, REPOSITORY);
        pusher.image(&self.image, ["latest", "stable"]).await;
        pusher.blob(&self.small).await;
        pusher.blob(&self.large).await;
        for number in 0..LARGE_PUSHES {
            let blob = Blob::random(LARGE, 1000 + round * 1000 + number);
            let (before, started) = (server.processor(), Instant::now());
            pusher.blob(&blob).await;
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
            let seconds = pusher.image(image, ["pushed", "again"]).await;
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

    fn large_reads(&self, engine: &Engine, server: &Server, how: &str, figures: &mut Figures) {
        for connections in [1, 4] {
            let load = self.get(server, connections, &blob(&self.large));
            tell(&format!("{how} {connections}"), &load);
            figures.add(engine.name, &format!("{how} {connections} wall"), load.gigabytes_per_second());
            figures.add(engine.name, &format!("{how} {connections} processor"), load.gigabytes_per_processor_second());
        }
    }

    fn others(&self, server: &Server) -> Load {
        self.get(server, OTHERS, &manifest("latest"))
    }

    /// Readers that ask for a large blob and take none of it.
    fn beside_hanging(&self, engine: &Engine, server: &Server, figures: &mut Figures) {
        figures.add(engine.name, "others alone", self.others(server).p99);
        let hanging: Vec<TcpStream> = (0..HANGING).map(|_| ask(server, &blob(&self.large))).collect();
        std::thread::sleep(Duration::from_millis(500));
        figures.add(engine.name, "others beside hanging", self.others(server).p99);
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
        self.others(&server);
        volume::forget(&engine.file(root, REPOSITORY, &self.large));
        slow.hold(&server);
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut stream = ask(&server, &blob(&self.large));
                let mut bytes = vec![0; 1 << 16];
                while !ended.load(Ordering::Relaxed) {
                    if stream.read(&mut bytes).map_or(true, |length| length == 0) {
                        break;
                    }
                }
            });
            std::thread::sleep(Duration::from_millis(500));
            figures.add(engine.name, "others beside slow", self.others(&server).p99);
            ended.store(true, Ordering::Relaxed);
        });
    }
}

fn manifest(reference: &str) -> String {
    format!("/v2/{REPOSITORY}/manifests/{reference}")
}

fn blob(blob: &Blob) -> String {
    format!("/v2/{REPOSITORY}/blobs/{}", blob.digest)
}

/// Asks without reading.
fn ask(server: &Server, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    stream
}

/// Shows which side was busy, so that a table of the client's speed is not taken for one of the server's.
fn tell(what: &str, load: &Load) {
    let (server, client) = (load.server / load.seconds, load.client / load.seconds);
    eprintln!("    {what}: processors busy: server {server:.2}, client {client:.2}");
}
