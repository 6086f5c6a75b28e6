//! Caches that are too small: clients get their bytes all the same, and the size holds.

use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::faults::{REPOSITORY, TAG};
use super::pull::Outcome;
use super::served::{Mirror, bytes_below, entry};
use super::upstream::Upstream;
use super::upstream::content::Index;
use crate::process::free_address;

const MEBIBYTE: u64 = 1024 * 1024;

/// Ten images, of which three find room.
async fn many() -> (Vec<Index>, Upstream) {
    let images: Vec<Index> = (0..10).map(|seed| Index::of_seed(seed, &[40_000, 1_000_000])).collect();
    let upstream = Upstream::with([]).await;
    for (number, index) in images.iter().enumerate() {
        upstream.put(&format!("library/n{number}"), index.is_tagged(TAG));
    }
    (images, upstream)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_pulls_at_once_from_a_cache_that_has_room_for_few_all_succeed() {
    let (images, upstream) = many().await;
    let mirror = Mirror::start(&entry("one.example", &upstream, ""), "cache: {size: 4Mi}\n");
    let puller = mirror.puller();
    let mut random = StdRng::seed_from_u64(1);
    let numbers: Vec<usize> = (0..200).map(|_| random.random_range(0..images.len())).collect();
    let pulls = numbers.into_iter().map(|number| {
        let (puller, index) = (puller.clone(), &images[number]);
        async move { puller.pull(&format!("library/n{number}"), TAG, index, 0).await }
    });
    for outcome in join_all(pulls).await {
        assert_eq!(outcome, Outcome::Right);
    }
    let kept = bytes_below(&mirror.root().join("wharf/cache"));
    assert!(kept <= 4 * MEBIBYTE + MEBIBYTE / 2, "{kept}");
    assert!(mirror.unlinked().len() <= 1, "{:?}", mirror.unlinked());
}

#[tokio::test]
async fn what_is_larger_than_the_cache_passes_through() {
    let index = Index::of_seed(1, &[3_000_000]);
    let upstream = Upstream::with([(REPOSITORY, index.is_tagged(TAG))]).await;
    let mirror = Mirror::start(&entry("one.example", &upstream, ""), "cache: {size: 1Mi}\n");
    let puller = mirror.puller();
    for round in 1..=2 {
        assert_eq!(puller.pull(REPOSITORY, TAG, &index, 0).await, Outcome::Right);
        assert_eq!(upstream.sent(&index.images[0].layers[0].digest).len(), round);
    }
    let layer = &index.images[0].layers[0];
    assert_eq!(puller.part(REPOSITORY, layer, 2_000_000, None).await, Outcome::Right);
    assert!(bytes_below(&mirror.root().join("wharf/cache")) < MEBIBYTE);
}

/// A file system of its own, gone with the value.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(folder: &std::path::Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let target = folder.to_str().unwrap();
        crate::programs::run("mount", ["-t", "tmpfs", "-o", "size=3m", "tmpfs", target]);
        Self(folder.to_owned())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// The volume is full long before the cache is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "mounts a small volume: dev/test-engines"]
async fn a_disk_that_fills_during_fills_costs_no_client_its_bytes() {
    let (images, upstream) = many().await;
    let volume = tempfile::tempdir().unwrap();
    let _small = Small::mount(&volume.path().join("root"));
    let mirrors = format!("mirrors:\n{}", entry("one.example", &upstream, ""));
    let mirror = Mirror::on(volume.path(), free_address(), &mirrors, tempfile::tempdir().unwrap());
    let puller = mirror.puller();
    for _ in 0..2 {
        let pulls = images.iter().enumerate().map(|(number, index)| {
            let puller = puller.another();
            async move { puller.pull(&format!("library/n{number}"), TAG, index, 0).await }
        });
        for outcome in join_all(pulls).await {
            assert_eq!(outcome, Outcome::Right, "{}", mirror.log());
        }
    }
    let large = Index::of_seed(77, &[8_000_000]);
    upstream.put("library/large", large.is_tagged(TAG));
    assert_eq!(puller.pull("library/large", TAG, &large, 0).await, Outcome::Right);
}
