//! How figures change with the number of repositories and blobs. One tree in distribution's layout grows, and each engine
//! that takes pushes serves it in turn. The tree is written directly and in memory: pushing it would take hours, and a disk
//! would need a block for each of millions of folders. Links that say the same are one file under several names.
//! It must never count what is missing: a repository that an engine does not find fails the run.

use std::fs;
use std::path::{Path, PathBuf};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::engines::{ENGINES, Engine};
use crate::load::Readers;
use crate::support::content::{Blob, Image};
use crate::support::setting;
use crate::support::values::{Values, machine, percentile, write};

const STARTS: usize = 3;
/// The tag of each repository.
const TAG: &str = "latest";
/// How many repositories there are beside many blobs.
const FEW: usize = 1_000;
/// Where the tree lies.
const ROOT: &str = "/dev/shm/wharf-bench";

const TABLE: &[(&str, &str)] = &[
    ("start", "start to first answer, s"),
    ("idle", "memory, idle, MiB"),
    ("tag", "manifest by tag, random repository, p99, ms"),
    ("list", "tag list, random repository, p99, ms"),
    ("loaded", "memory, after load, MiB"),
];

/// Measures the tree at each size, and prints a table.
pub fn measure(folder: &Path) {
    let most = setting("WHARF_BENCH_REPOSITORIES", 100_000);
    let blobs = setting("WHARF_BENCH_BLOBS", 1_000_000);
    let tree = Tree::new(PathBuf::from(ROOT));
    let mut values = Values::default();
    let mut sizes = Vec::new();
    let mut repositories = 0;
    for size in [10, FEW, most] {
        eprintln!("{size} repositories");
        tree.add_repositories(repositories, size);
        repositories = size;
        sizes.push(format!("{size} repositories"));
        measure_engines(folder, &tree, size, sizes.last().unwrap(), &mut values);
    }
    // Names are counted, and so many of both would be more than the system keeps in memory.
    drop(tree);
    eprintln!("{FEW} repositories, {blobs} blobs");
    let tree = Tree::new(PathBuf::from(ROOT));
    tree.add_repositories(0, FEW);
    tree.add_blobs(blobs);
    sizes.push(format!("{FEW} repositories, {blobs} blobs"));
    measure_engines(folder, &tree, FEW, sizes.last().unwrap(), &mut values);
    print(&sizes, &values);
    write("growth", &json!({"machine": machine(), "values": values.to_json()}));
}

fn measure_engines(folder: &Path, tree: &Tree, repositories: usize, size: &str, values: &mut Values) {
    for engine in ENGINES.iter().filter(|engine| engine.takes_pushes) {
        measure_engine(engine, folder, tree, repositories, &format!("{}, {size}", engine.name), values);
    }
}

fn measure_engine(engine: &Engine, folder: &Path, tree: &Tree, repositories: usize, label: &str, values: &mut Values) {
    for _ in 0..STARTS {
        values.add(&format!("{label}: start"), engine.start(folder, &tree.root, false).started_after);
    }
    let server = engine.start(folder, &tree.root, false);
    values.memory(&format!("{label}: idle"), server.memory());
    let readers = Readers { server: &server, folder, connections: 4, seconds: 5 };
    values.add(&format!("{label}: tag"), readers.get_random(repositories, "manifests/latest").p99);
    values.add(&format!("{label}: list"), readers.get_random(repositories, "tags/list").p99);
    values.memory(&format!("{label}: loaded"), server.memory());
}

fn print(sizes: &[String], values: &Values) {
    println!("\n{} One tree in distribution's layout, in memory, one tag a repository.\n", machine());
    println!("| Engine | Figure | {} |\n|---|---|{}", sizes.join(" | "), "---|".repeat(sizes.len()));
    for engine in ENGINES.iter().filter(|engine| engine.takes_pushes) {
        for (figure, what) in TABLE {
            let shown = |size: &String| {
                let values = values.get(&format!("{}, {size}: {figure}", engine.name)).unwrap();
                format!("{:.3}", percentile(values, 50))
            };
            let cells = sizes.iter().map(shown).collect::<Vec<_>>();
            println!("| {} | {what} | {} |", engine.name, cells.join(" | "));
        }
    }
}

/// Content in distribution's layout.
struct Tree {
    root: PathBuf,
    image: Image,
}

impl Tree {
    /// With the blobs of the one image that each repository has.
    fn new(root: PathBuf) -> Self {
        let _ = fs::remove_dir_all(&root);
        let tree = Self { root, image: Image::of(vec![Blob::random(1024, 1)]) };
        for blob in tree.blobs() {
            let folder = tree.content(blob.hex());
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("data"), &blob.bytes).unwrap();
            fs::write(tree.root.join(blob.hex()), &blob.digest).unwrap();
        }
        tree
    }

    fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.image.blobs.iter().chain([&self.image.manifest])
    }

    fn content(&self, hex: &str) -> PathBuf {
        self.root.join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex)
    }

    fn add_repositories(&self, from: usize, to: usize) {
        let manifest = &self.image.manifest;
        for number in from..to {
            let repository = self.root.join(format!("docker/registry/v2/repositories/growth/r{number:06}"));
            for blob in &self.image.blobs {
                self.link(&repository.join("_layers/sha256").join(blob.hex()), blob);
            }
            self.link(&repository.join("_manifests/revisions/sha256").join(manifest.hex()), manifest);
            let tag = repository.join("_manifests/tags").join(TAG);
            self.link(&tag.join("current"), manifest);
            self.link(&tag.join("index/sha256").join(manifest.hex()), manifest);
        }
    }

    fn link(&self, folder: &Path, target: &Blob) {
        fs::create_dir_all(folder).unwrap();
        let linked = fs::hard_link(self.root.join(target.hex()), folder.join("link"));
        linked.expect("fewer of WHARF_BENCH_REPOSITORIES fit");
    }

    /// Blobs that no repository has: what remains after deletes, before garbage collection. Nobody reads them.
    fn add_blobs(&self, count: usize) {
        let data = self.content(self.image.manifest.hex()).join("data");
        let mut random = SmallRng::seed_from_u64(2);
        for _ in 0..count {
            let parts = [random.next_u64(), random.next_u64(), random.next_u64(), random.next_u64()];
            let folder = self.content(&parts.map(|part| format!("{part:016x}")).concat());
            fs::create_dir_all(&folder).unwrap();
            fs::hard_link(&data, folder.join("data")).expect("fewer of WHARF_BENCH_BLOBS fit");
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}
