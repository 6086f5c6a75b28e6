//! Evictions as they happen: on the disk, beside readers, and many at once.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use jiff::Timestamp;

use super::{agree, all, blob, cache, digest, files, image, open, put, scope};
use crate::oci::{Digest, ManifestType};
use crate::serve::cache::store::{Bounds, CacheStore, CachedManifest, CachedTag, Protected, Scope};

async fn put_image(store: &CacheStore, within: &Scope, tag: &str, blobs: &[&[u8]]) -> Option<Digest> {
    let (name, manifest) = image(blobs);
    if !store.put_manifest(within, &name, &manifest).await.unwrap() {
        return None;
    }
    let tagged = CachedTag { digest: name.clone(), checked: Timestamp::UNIX_EPOCH };
    store.put_tag(within, &tag.parse().unwrap(), &tagged).await.unwrap();
    for bytes in blobs {
        if !store.link_blob(within, &digest(bytes)).await.unwrap() {
            put(store, std::slice::from_ref(within), bytes).await?;
        }
    }
    Some(name)
}

#[tokio::test(start_paused = true)]
async fn the_image_that_was_used_longest_ago_goes_with_its_repository() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path(), 500_000);
    let (old, new) = (scope("old/deep"), scope("old"));
    // Too large to be in memory once they are open.
    let [one, two, three] = [1, 2, 3].map(|number| vec![number; 100_000]);
    let first = put_image(&store, &old, "1", &[&one, &two]).await.unwrap();
    store.put_public(&old, Some(Timestamp::UNIX_EPOCH)).await.unwrap();
    let content = store.blob(&old, &digest(&one)).await.unwrap().unwrap();
    tokio::time::advance(Duration::from_millis(10)).await;
    let second = put_image(&store, &new, "1", &[&two, &three]).await.unwrap();
    tokio::time::advance(Duration::from_millis(10)).await;
    let large = store.reserve(250_000).await.unwrap();
    assert_eq!(store.figures().evicted_images, 1);
    assert!(store.manifest(&old, &first).await.unwrap().is_none());
    assert!(store.tag(&old, &"1".parse().unwrap()).await.unwrap().is_none());
    assert!(store.public(&old).await.unwrap().is_none());
    assert!(!store.link_blob(&new, &digest(&one)).await.unwrap());
    assert!(blob(&store, &old, &digest(&two)).await.is_none());
    assert!(store.is_complete(&new, &second).await.unwrap());
    assert!(!cache(root.path()).join("registries/docker.io/old/deep").exists());
    // Whoever had it open has it still.
    assert_eq!(all(&*content).await, one);
    agree(&store, root.path());
    // What is bigger than the whole takes nothing away, nor what would be with what is reserved.
    assert!(store.reserve(500_001).await.is_none());
    assert!(store.reserve(250_001).await.is_none());
    assert!(store.is_complete(&new, &second).await.unwrap());
    drop(large);
    assert!(store.reserve(500_000).await.is_some());
    assert_eq!(store.figures().bytes, Some(0));
    assert!(files(&cache(root.path()).join("content")).is_empty());
    assert!(!cache(root.path()).join("registries/docker.io").exists());
}

#[tokio::test(start_paused = true)]
async fn what_is_in_use_goes_last_and_is_counted_and_pins_stay() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path(), 10_000);
    let within = scope("a");
    let mut images = Vec::new();
    for number in 0..3_u8 {
        images.push(put_image(&store, &within, "1", &[&[number; 2_000]]).await.unwrap());
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    let (in_use, pinned) = (HashSet::from([images[1].clone()]), vec![images[0].clone()]);
    store.protect(Protected { in_use: in_use.clone(), pinned, platforms: Vec::new() });
    drop(store.reserve(5_000).await.unwrap());
    assert!(store.manifest(&within, &images[2]).await.unwrap().is_none());
    assert_eq!(store.figures().in_use_evicted, 0);
    drop(store.reserve(7_000).await.unwrap());
    assert!(store.manifest(&within, &images[1]).await.unwrap().is_none());
    assert_eq!(store.figures().in_use_evicted, 1);
    assert!(store.reserve(9_000).await.is_none());
    assert!(store.is_complete(&within, &images[0]).await.unwrap());
    assert!(store.figures().pins_refused.is_empty());
    // A size that is made smaller holds, and with it what may be pinned of it.
    store.change(Bounds::of(2_000));
    store.shrink().await.unwrap();
    assert_eq!((store.figures().bytes, store.figures().pins_refused), (Some(0), vec![]));
    agree(&store, root.path());
}

#[tokio::test]
async fn the_number_of_entries_is_bounded_too() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path(), 1_000_000);
    store.change(Bounds { size: 1_000_000, entries: 50 });
    for number in 0..100 {
        let within = scope(&format!("a{number}"));
        let tag = CachedTag { digest: digest(b"not here"), checked: Timestamp::UNIX_EPOCH };
        store.put_public(&within, Some(Timestamp::UNIX_EPOCH)).await.unwrap();
        store.put_tag(&within, &"latest".parse().unwrap(), &tag).await.unwrap();
        let text = format!("{number}");
        put(&store, std::slice::from_ref(&within), text.as_bytes()).await.unwrap();
        assert_eq!(blob(&store, &within, &digest(text.as_bytes())).await.unwrap(), text.as_bytes());
        assert!(store.figures().entries <= 50, "{:?}", store.figures());
        agree(&store, root.path());
    }
}

/// Many put, link and read at once what does not fit: the size holds at each moment, and in the end all is as it is said.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_never_exceed_the_size_nor_get_anything_wrong() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path(), 20_000);
    let ended = Arc::new(AtomicBool::new(false));
    let watching = {
        let (store, ended) = (store.clone(), ended.clone());
        tokio::task::spawn_blocking(move || {
            while !ended.load(Ordering::SeqCst) {
                let figures = store.figures();
                assert!(figures.bytes.unwrap() + figures.reserved <= 20_000, "{figures:?}");
            }
        })
    };
    let tasks = (0..8_u8).map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            for round in 0..40_u8 {
                let number = round.wrapping_mul(7).wrapping_add(task) % 20;
                let within = scope(&format!("a{}", number % 3));
                let layers: [&[u8]; 2] = [&[number; 1_000], &[number / 2 + 100; 1_500]];
                put_image(&store, &within, "latest", &layers).await;
                for other in [&within, &scope("b")] {
                    if store.link_blob(other, &digest(layers[1])).await.unwrap()
                        && let Some(bytes) = blob(&store, other, &digest(layers[1])).await
                    {
                        assert_eq!(bytes, layers[1]);
                    }
                }
                store.link_manifest(&scope("b"), &image(&layers).0, ManifestType::OciImage).await.unwrap();
                let found: Option<CachedManifest> = store.manifest(&within, &image(&layers).0).await.unwrap();
                assert!(found.is_none_or(|found| found == image(&layers).1));
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    ended.store(true, Ordering::SeqCst);
    watching.await.unwrap();
    agree(&store, root.path());
    assert!(store.figures().evicted_images > 0 && store.figures().reserved == 0);
}

/// A file that grows where all that is kept has to go for it.
#[tokio::test]
async fn what_is_on_its_way_is_not_there_to_be_evicted() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path(), 1_000);
    let (within, bytes) = (scope("a"), [7; 600]);
    let mut partial = store.begin(&digest(&bytes), store.reserve(600).await.unwrap()).await.unwrap();
    let hasher = crate::oci::Hasher::new(crate::oci::Algorithm::Sha256);
    partial.append(vec![bytes[..].to_vec().into()], hasher).await.unwrap();
    put(&store, std::slice::from_ref(&within), b"other").await.unwrap();
    assert!(store.reserve(401).await.is_none());
    drop(store.reserve(400).await.unwrap());
    assert!(blob(&store, &within, &digest(b"other")).await.is_none());
    let reader = partial.reader();
    partial.commit(std::slice::from_ref(&within)).await.unwrap();
    drop(store.reserve(1_000).await.unwrap());
    assert!(blob(&store, &within, &digest(&bytes)).await.is_none());
    assert_eq!(reader.read(0..600, BytesMut::new()).await.unwrap(), bytes[..]);
}
