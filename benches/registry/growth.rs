//! How figures change with the number of repositories and blobs. One tree in distribution's layout grows, and each engine
//! that takes pushes serves it in turn. The tree is written directly: pushing it would take hours.
//! It must never count what is missing: a repository that an engine does not find fails the run.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::content::{Blob, Image};
use crate::engines::{ENGINES, Engine};
use crate::load::Readers;
use crate::support::setting;
use crate::support::values::{Values, machine, percentile, write};

const STARTS: usize = 3;
/// The tags of each repository.
const TAGS: [&str; 3] = ["1.0", "1.1", "latest"];

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
    let tree = Tree::new(folder.join("root"));
    let mut values = Values::default();
    let mut sizes = Vec::new();
    let mut repositories = 0;
    for size in [10, 1_000, most] {
        eprintln!("{size} repositories");
        tree.add_repositories(repositories, size);
        repositories = size;
        sizes.push(format!("{size} repositories"));
        measure_engines(folder, &tree, size, sizes.last().unwrap(), &mut values);
    }
    eprintln!("{blobs} blobs");
    tree.add_blobs(blobs);
    sizes.push(format!("{most} repositories, {blobs} blobs"));
    measure_engines(folder, &tree, most, sizes.last().unwrap(), &mut values);
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
    let readers = Readers { server: &server, folder, connections: 4, seconds: 10 };
    values.add(&format!("{label}: tag"), readers.get_random(repositories, "manifests/latest").p99);
    values.add(&format!("{label}: list"), readers.get_random(repositories, "tags/list").p99);
    values.memory(&format!("{label}: loaded"), server.memory());
}

fn print(sizes: &[String], values: &Values) {
    println!("{} One tree in distribution's layout, {} tags a repository.\n", machine(), TAGS.len());
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
        let tree = Self { root, image: Image::of(vec![Blob::random(1024, 1)]) };
        tree.image.blobs.iter().chain([&tree.image.manifest]).for_each(|blob| tree.write_blob(blob));
        tree
    }

    fn write_blob(&self, blob: &Blob) {
        let hex = blob.hex();
        let folder = self.root.join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("data"), &blob.bytes).unwrap();
    }

    fn add_repositories(&self, from: usize, to: usize) {
        let manifest = &self.image.manifest;
        for number in from..to {
            let repository = self.root.join(format!("docker/registry/v2/repositories/growth/r{number:06}"));
            for blob in &self.image.blobs {
                link(&repository.join("_layers/sha256").join(blob.hex()), blob);
            }
            link(&repository.join("_manifests/revisions/sha256").join(manifest.hex()), manifest);
            for tag in TAGS {
                let tag = repository.join("_manifests/tags").join(tag);
                link(&tag.join("current"), manifest);
                link(&tag.join("index/sha256").join(manifest.hex()), manifest);
            }
        }
    }

    /// Blobs that no repository has: what remains after deletes, before garbage collection.
    fn add_blobs(&self, count: usize) {
        for number in 0..count {
            self.write_blob(&Blob::random(64, 1_000_000 + number as u64));
        }
    }
}

fn link(folder: &Path, target: &Blob) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("link"), &target.digest).unwrap();
}
