//! Random work against a model that knows what was put where. What goes is up to the store, but only an eviction may take
//! anything; whatever happens, the size holds, nothing is seen without its link, and the acknowledged content beside it stays
//! as it is.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{agree, all, cache, digest, files, image, index_of, open, put, scope};
use crate::oci::{Digest, Tag};
use crate::serve::cache::store::index::Named;
use crate::serve::cache::store::{Bounds, CacheStore, CachedManifest, CachedTag, Protected, Scope, layout};

const STEPS: usize = 400;
const SCOPES: usize = 3;
const BLOBS: usize = 8;
const IMAGES: usize = 6;

struct World {
    root: tempfile::TempDir,
    store: CacheStore,
    size: u64,
    blobs: Vec<Vec<u8>>,
    manifests: Vec<(Digest, CachedManifest)>,
    /// What was put or linked and need not have gone.
    linked: BTreeSet<(Scope, Named)>,
    tags: BTreeMap<(Scope, Tag), CachedTag>,
    protected: Protected,
}

fn acknowledged(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let read = |path: PathBuf| (path.clone(), fs::read(path).unwrap());
    files(&root.join("docker")).into_iter().map(read).collect()
}

impl World {
    fn new(random: &mut StdRng) -> Self {
        let root = tempfile::tempdir().unwrap();
        let blobs: Vec<Vec<u8>> =
            (b'a'..).take(BLOBS).enumerate().map(|(number, letter)| vec![letter; 30 + 40 * number]).collect();
        let mut manifests = Vec::new();
        for _ in 0..IMAGES {
            let named: BTreeSet<usize> = (0..3).map(|_| random.random_range(0..BLOBS)).collect();
            let named: Vec<&[u8]> = named.into_iter().map(|number| blobs[number].as_slice()).collect();
            manifests.push(image(&named));
        }
        manifests.push(index_of(&[&manifests[0].0, &manifests[1].0]));
        for blob in &blobs {
            let path = root.path().join("docker/registry/v2/blobs/sha256").join(digest(blob).hex());
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("data"), blob).unwrap();
        }
        let (linked, tags, protected) = Default::default();
        let store = open(root.path(), 2_000);
        Self { root, store, size: 2_000, blobs, manifests, linked, tags, protected }
    }

    fn any_scope(random: &mut StdRng) -> Scope {
        scope(["a", "a/b", "c"][random.random_range(0..SCOPES)])
    }

    async fn put_manifest(&mut self, within: &Scope, number: usize) {
        let (name, manifest) = self.manifests[number].clone();
        if self.store.put_manifest(within, &name, &manifest).await.unwrap() {
            self.linked.insert((within.clone(), Named::Manifest(name)));
        }
    }

    async fn put_blob(&mut self, within: &Scope, number: usize) {
        if let Some(name) = put(&self.store, std::slice::from_ref(within), &self.blobs[number]).await {
            self.linked.insert((within.clone(), Named::Blob(name)));
        }
    }

    async fn step(&mut self, random: &mut StdRng) {
        let within = Self::any_scope(random);
        let (blob, manifest) = (random.random_range(0..BLOBS), random.random_range(0..self.manifests.len()));
        let blob_name = digest(&self.blobs[blob]);
        let (manifest_name, media_type) = (self.manifests[manifest].0.clone(), self.manifests[manifest].1.media_type);
        match random.random_range(0..100) {
            0..20 => self.put_blob(&within, blob).await,
            20..35 => self.put_manifest(&within, manifest).await,
            35..45 => {
                if self.store.link_blob(&within, &blob_name).await.unwrap() {
                    self.linked.insert((within, Named::Blob(blob_name)));
                }
            }
            45..50 => {
                if self.store.link_manifest(&within, &manifest_name, media_type).await.unwrap() {
                    self.linked.insert((within, Named::Manifest(manifest_name)));
                }
            }
            50..65 => {
                let found = self.store.blob(&within, &blob_name).await.unwrap();
                assert_eq!(found.is_some(), self.linked.contains(&(within, Named::Blob(blob_name))));
                if let Some(found) = found {
                    assert_eq!(all(&*found).await, self.blobs[blob]);
                }
            }
            65..72 => {
                let found = self.store.manifest(&within, &manifest_name).await.unwrap();
                assert_eq!(found.is_some(), self.linked.contains(&(within, Named::Manifest(manifest_name))));
                assert!(found.is_none_or(|found| found == self.manifests[manifest].1));
            }
            72..78 => {
                let tag: Tag = ["1", "latest"][random.random_range(0..2)].parse().unwrap();
                let cached = CachedTag { digest: manifest_name, checked: Timestamp::from_second(1).unwrap() };
                if random.random() {
                    self.store.put_tag(&within, &tag, &cached).await.unwrap();
                    self.tags.insert((within, tag), cached);
                } else {
                    self.store.remove_tag(&within, &tag).await.unwrap();
                    self.tags.remove(&(within, tag));
                }
            }
            78..84 => {
                let any = |random: &mut StdRng, names: &[Digest]| names[random.random_range(0..names.len())].clone();
                let names: Vec<Digest> = self.manifests.iter().map(|(name, _)| name.clone()).collect();
                let in_use = (0..2).map(|_| any(random, &names)).collect::<HashSet<_>>();
                self.protected = Protected { in_use, pinned: vec![any(random, &names)], platforms: Vec::new() };
                self.store.protect(self.protected.clone());
            }
            84..88 => drop(self.store.reserve(random.random_range(0..self.size + 100)).await),
            88..91 => {
                if let Some(reservation) = self.store.reserve(50).await {
                    drop(self.store.begin(&blob_name, reservation).await.unwrap());
                }
                while self.store.figures().reserved > 0 {
                    tokio::task::yield_now().await;
                }
            }
            91..94 => self.store.write_uses().await.unwrap(),
            94..96 => {
                self.size = random.random_range(1_000..2_500);
                self.store.change(Bounds::of(self.size));
                self.store.shrink().await.unwrap();
            }
            96..98 => self.restart(random.random_range(0..4) == 0).await,
            _ => tokio::time::advance(Duration::from_secs(random.random_range(0..100))).await,
        }
    }

    async fn restart(&mut self, is_orderly: bool) {
        if is_orderly {
            self.store.prove_all().await.unwrap();
            self.store.end().await.unwrap();
        }
        self.store = open(self.root.path(), self.size);
        self.store.protect(self.protected.clone());
        for (within, named) in &self.linked {
            let found = match named {
                Named::Blob(name) => self.store.blob(within, name).await.unwrap().is_some(),
                Named::Manifest(name) => self.store.manifest(within, name).await.unwrap().is_some(),
            };
            assert!(found, "{within:?} {named:?} is lost by a restart");
        }
        self.store.build().await.unwrap();
        // Tags of what is not here are not worth keeping.
        let linked = &self.linked;
        let is_here = |within: &Scope, name: &Digest| linked.contains(&(within.clone(), Named::Manifest(name.clone())));
        self.tags.retain(|(within, _), cached| is_here(within, &cached.digest));
    }

    /// Compares what is there with what may be; only an eviction may have taken something.
    fn check(&mut self, evicted: bool, pinned: &HashSet<Digest>) {
        agree(&self.store, self.root.path());
        let figures = self.store.figures();
        assert!(figures.bytes.unwrap() + figures.reserved <= self.size, "{figures:?}");
        let index = self.store.0.tree.index();
        let there: BTreeSet<(Scope, Named)> = index
            .scopes()
            .iter()
            .flat_map(|(within, found)| found.links.keys().map(move |named| (within.clone(), named.clone())))
            .collect();
        assert!(there.is_subset(&self.linked), "something is seen without its link");
        for (_, named) in self.linked.difference(&there) {
            assert!(evicted && !pinned.contains(named.digest()), "{named:?} has gone");
        }
        let tags: BTreeMap<(Scope, Tag), CachedTag> = index
            .scopes()
            .iter()
            .flat_map(|(within, found)| {
                found.tags.iter().map(move |(tag, cached)| ((within.clone(), tag.clone()), cached.clone()))
            })
            .collect();
        assert!(tags.iter().all(|(name, tag)| self.tags.get(name) == Some(tag)));
        assert!(evicted || tags == self.tags);
        drop(index);
        (self.linked, self.tags) = (there, tags);
        assert!(files(&cache(self.root.path()).join(layout::PARTIAL)).is_empty());
    }
}

async fn walk(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::new(&mut random);
    let beside = acknowledged(world.root.path());
    let mut evictions = 0;
    for step in 0..STEPS {
        let before = world.store.figures();
        // What is pinned when the step begins stays, unless the size or the pins change in it.
        let pinned = {
            let index = world.store.0.tree.index();
            super::super::eviction::pins(&index, &world.protected, world.size).0
        };
        let (size, protected) = (world.size, world.protected.clone());
        world.step(&mut random).await;
        let is_same = (size, &protected) == (world.size, &world.protected);
        let evicted = world.store.figures().evicted_images > before.evicted_images;
        evictions += usize::from(evicted);
        let pinned = if is_same { pinned } else { HashSet::new() };
        world.check(evicted, &pinned);
        assert!(step + 1 < STEPS || evictions > 10, "{evictions}");
    }
    assert_eq!(acknowledged(world.root.path()), beside);
}

#[tokio::test(start_paused = true)]
async fn random_work_keeps_to_the_size_and_shows_nothing_without_its_link() {
    let seed = std::env::var("WHARF_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seeds = seed.map_or(0..6, |seed| seed..seed + 1);
    for seed in seeds {
        println!("seed {seed}");
        walk(seed).await;
    }
}
