//! What an end without order, a damaged file, and a clock that jumps leave behind. The loss of power at every step is among the
//! tests of the server.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{agree, all, blob, cache, digest, files, image, open, open_hooked, put, reopen, scope};
use crate::oci::Digest;
use crate::serve::cache::store::index::Named;
use crate::serve::cache::store::{Bounds, CacheStore, CachedTag, layout};
use crate::serve::store::filesystem::Operation;

const SIZE: u64 = 10_000;

fn spoil(root: &Path, name: &Digest) {
    let path = cache(root).join(layout::content(name));
    let (length, stamp) = (fs::metadata(&path).unwrap().len(), fs::metadata(&path).unwrap().modified().unwrap());
    fs::write(&path, vec![0; usize::try_from(length).unwrap()]).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(stamp).unwrap();
}

#[tokio::test]
async fn what_has_no_checkpoint_is_hashed_once_before_it_is_used() {
    let root = tempfile::tempdir().unwrap();
    let (a, b) = (scope("a"), scope("b"));
    let (settled, right, wrong) = (digest(b"settled"), digest(b"right"), digest(b"wrong"));
    {
        let store = open(root.path(), SIZE);
        put(&store, std::slice::from_ref(&a), b"settled").await.unwrap();
        store.checkpoint().await.unwrap();
        for bytes in [&b"right"[..], b"wrong"] {
            put(&store, &[a.clone(), b.clone()], bytes).await.unwrap();
        }
    }
    spoil(root.path(), &wrong);
    // Also where it is only asked whether it is all there.
    for early in [true, false] {
        let copy = tempfile::tempdir().unwrap();
        copy_tree(&cache(root.path()), &cache(copy.path()));
        let store = if early { open(copy.path(), SIZE) } else { reopen(copy.path(), SIZE).await };
        // Once for all who ask at the same time.
        let (one, other) = tokio::join!(blob(&store, &a, &right), blob(&store, &b, &right));
        assert_eq!((one.unwrap(), other.unwrap()), (b"right".to_vec(), b"right".to_vec()));
        for _ in 0..2 {
            assert_eq!(blob(&store, &a, &right).await.unwrap(), b"right");
            assert_eq!(blob(&store, &a, &settled).await.unwrap(), b"settled");
            assert!(blob(&store, &a, &wrong).await.is_none());
            assert!(blob(&store, &b, &wrong).await.is_none());
        }
        assert_eq!((store.figures().rehashed, store.figures().damaged), (2, 1));
        assert!(!store.has(&wrong).await.unwrap());
        // What comes anew in its place is right, and seen where it is linked.
        if early {
            store.build().await.unwrap();
        }
        put(&store, std::slice::from_ref(&b), b"wrong").await.unwrap();
        assert_eq!(blob(&store, &b, &wrong).await.unwrap(), b"wrong");
        assert!(blob(&store, &a, &wrong).await.is_none());
        agree(&store, copy.path());
        // After another crash it is hashed again, unless there was a checkpoint.
        drop(store);
        let store = reopen(copy.path(), SIZE).await;
        assert_eq!(blob(&store, &a, &right).await.unwrap(), b"right");
        assert_eq!(store.figures().rehashed, 1);
        store.prove_all().await.unwrap();
        store.checkpoint().await.unwrap();
        drop(store);
        let store = reopen(copy.path(), SIZE).await;
        assert_eq!(blob(&store, &a, &right).await.unwrap(), b"right");
        assert_eq!(store.figures().rehashed, 0);
    }
}

/// Until all is hashed, a checkpoint would say of what was not that it is durable.
#[tokio::test]
async fn there_is_no_checkpoint_before_all_is_hashed() {
    let root = tempfile::tempdir().unwrap();
    let within = scope("a");
    {
        let store = open(root.path(), SIZE);
        put(&store, std::slice::from_ref(&within), b"old").await.unwrap();
    }
    {
        let store = reopen(root.path(), SIZE).await;
        put(&store, std::slice::from_ref(&within), b"new").await.unwrap();
        store.checkpoint().await.unwrap();
        store.end().await.unwrap();
    }
    spoil(root.path(), &digest(b"old"));
    spoil(root.path(), &digest(b"new"));
    let store = open(root.path(), SIZE);
    assert!(blob(&store, &within, &digest(b"old")).await.is_none());
    assert!(blob(&store, &within, &digest(b"new")).await.is_none());
}

/// What comes in place of what was spoiled is trusted, and what a manifest names is known from the right bytes.
#[tokio::test]
async fn what_was_spoiled_is_replaced_by_what_comes() {
    let root = tempfile::tempdir().unwrap();
    let within = scope("a");
    let (name, manifest) = image(&[b"config"]);
    {
        let store = open(root.path(), SIZE);
        put(&store, std::slice::from_ref(&within), b"config").await.unwrap();
        store.put_manifest(&within, &name, &manifest).await.unwrap();
    }
    spoil(root.path(), &name);
    let store = reopen(root.path(), SIZE).await;
    assert!(!store.is_complete(&within, &name).await.unwrap());
    put(&store, std::slice::from_ref(&within), &manifest.bytes).await.unwrap();
    assert_eq!(store.manifest(&within, &name).await.unwrap(), Some(manifest));
    assert!(store.is_complete(&within, &name).await.unwrap());
    assert_eq!(store.figures().rehashed, 0);
    agree(&store, root.path());
}

#[tokio::test]
async fn what_is_torn_counts_as_absent_and_is_swept() {
    let root = tempfile::tempdir().unwrap();
    let within = scope("a");
    let (name, manifest) = image(&[b"config"]);
    let tag = CachedTag { digest: name.clone(), checked: Timestamp::UNIX_EPOCH };
    {
        let store = open(root.path(), SIZE);
        for bytes in [&b"config"[..], b"empty", b"cut", b"longer", b"gone"] {
            put(&store, std::slice::from_ref(&within), bytes).await.unwrap();
        }
        store.put_manifest(&within, &name, &manifest).await.unwrap();
        for tag_name in ["good", "torn"] {
            store.put_tag(&within, &tag_name.parse().unwrap(), &tag).await.unwrap();
        }
        let nowhere = CachedTag { digest: digest(b"nowhere"), checked: Timestamp::UNIX_EPOCH };
        store.put_tag(&within, &"nowhere".parse().unwrap(), &nowhere).await.unwrap();
        // An orderly end, so that nothing is hashed because of a crash.
        store.end().await.unwrap();
    }
    let folder = cache(root.path());
    let link = |name: &[u8]| folder.join(layout::link(&within, &Named::Blob(digest(name))));
    fs::write(link(b"empty"), "").unwrap();
    fs::write(link(b"cut"), &fs::read(link(b"cut")).unwrap()[..7]).unwrap();
    fs::write(folder.join(layout::content(&digest(b"longer"))), "longer than it was").unwrap();
    fs::remove_file(folder.join(layout::content(&digest(b"gone")))).unwrap();
    fs::write(folder.join(layout::tag(&within, &"torn".parse().unwrap())), &name.as_str()[..20]).unwrap();
    fs::write(folder.join(layout::public(&within)), "").unwrap();
    fs::write(folder.join("partial/7"), "half").unwrap();
    let looked = async |store: &CacheStore| {
        for name in [&b"empty"[..], b"cut", b"longer", b"gone"] {
            assert!(store.blob(&within, &digest(name)).await.unwrap().is_none());
        }
        assert!(store.tag(&within, &"torn".parse().unwrap()).await.unwrap().is_none());
        assert_eq!(store.tag(&within, &"good".parse().unwrap()).await.unwrap(), Some(tag.clone()));
        assert_eq!(store.public(&within).await.unwrap(), None);
        assert!(store.is_complete(&within, &name).await.unwrap());
    };
    let store = open(root.path(), SIZE);
    assert!(files(&folder.join("partial")).is_empty());
    looked(&store).await;
    store.build().await.unwrap();
    looked(&store).await;
    agree(&store, root.path());
    assert!(store.tag(&within, &"nowhere".parse().unwrap()).await.unwrap().is_none());
    // Somebody changes what is known: it is gone when it is used.
    fs::write(folder.join(layout::content(&digest(b"config"))), "").unwrap();
    assert!(store.blob(&within, &digest(b"config")).await.unwrap().is_none());
    assert!(!store.is_complete(&within, &name).await.unwrap());
    agree(&store, root.path());
}

/// The order of the last uses is that of the uses, whatever the system's clock said of them.
#[tokio::test(start_paused = true)]
async fn last_uses_survive_a_restart_and_a_clock_that_is_set_back() {
    let root = tempfile::tempdir().unwrap();
    let within = scope("a");
    let names = ["one", "two", "three"];
    let at = |day: u64| {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(day * 86_400);
        CacheStore::open_with(root.path(), Bounds::of(13), now, None).unwrap()
    };
    {
        let store = at(1_000);
        for name in names {
            put(&store, std::slice::from_ref(&within), name.as_bytes()).await.unwrap();
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        store.end().await.unwrap();
    }
    for (day, used) in [(10, "one"), (900, "two"), (5_000, "three"), (20, "two"), (0, "one")] {
        let store = at(day);
        store.build().await.unwrap();
        tokio::time::advance(Duration::from_millis(10)).await;
        assert!(store.blob(&within, &digest(used.as_bytes())).await.unwrap().is_some());
        store.write_uses().await.unwrap();
        // A crash, after which nothing but the tree is known.
    }
    let store = at(30);
    store.build().await.unwrap();
    for (bytes, gone) in [(3, "three"), (8, "two")] {
        drop(store.reserve(bytes).await.unwrap());
        assert!(!store.has(&digest(gone.as_bytes())).await.unwrap(), "{gone}");
    }
    assert!(store.has(&digest(b"one")).await.unwrap());
}

/// All of it at work: an orderly end leaves nothing to hash, and what is there is known at the next start at once.
#[tokio::test(start_paused = true)]
async fn an_orderly_end_is_taken_up_at_once() {
    let root = tempfile::tempdir().unwrap();
    let within = scope("a");
    let large: Vec<u8> = (0..1_000_u32).flat_map(u32::to_le_bytes).collect();
    for round in 0..3 {
        let store = open(root.path(), SIZE);
        let stop = CancellationToken::new();
        let maintained = tokio::spawn(store.clone().maintain(stop.clone()));
        if round > 0 {
            assert_eq!(store.figures().bytes, Some(4_000));
            assert!(store.reserve(6_000).await.is_some());
            assert!(store.reserve(6_001).await.is_none());
        }
        while !store.figures().index_complete {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if round == 0 {
            put(&store, std::slice::from_ref(&within), &large).await.unwrap();
        }
        let content = store.blob(&within, &digest(&large)).await.unwrap().unwrap();
        assert_eq!(all(&*content).await, large);
        tokio::time::sleep(Duration::from_secs(100)).await;
        stop.cancel();
        maintained.await.unwrap();
        assert_eq!((store.figures().rehashed, store.figures().bytes), (0, Some(4_000)));
        assert!(!cache(root.path()).join(layout::UNSETTLED).exists());
        // What comes after the end is as after a crash.
        if round == 2 {
            put(&store, std::slice::from_ref(&within), b"late").await.unwrap();
            assert!(cache(root.path()).join(layout::UNSETTLED).exists());
        }
    }
    let store = open(root.path(), SIZE);
    assert_eq!(store.figures().bytes, None);
    assert_eq!(blob(&store, &within, &digest(b"late")).await.unwrap(), b"late");
    assert_eq!(store.figures().rehashed, 1);
}

/// What comes while the end makes all durable that came before has to be made durable too.
#[tokio::test]
async fn an_orderly_end_covers_what_comes_meanwhile() {
    let root = tempfile::tempdir().unwrap();
    let (within, syncs) = (scope("a"), Arc::new(Mutex::new(0)));
    let (begun, go_on) = (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
    let (counted, begins, waits) = (syncs.clone(), begun.0, Mutex::new(go_on.1));
    let hook = move |operation: &Operation| {
        if *operation == Operation::SyncVolume {
            *counted.lock().unwrap() += 1;
            if *counted.lock().unwrap() == 1 {
                begins.send(()).unwrap();
                waits.lock().unwrap().recv().unwrap();
            }
        }
        Ok(())
    };
    let store = open_hooked(root.path(), SIZE, Arc::new(hook));
    let ending = tokio::spawn({
        let store = store.clone();
        async move { store.end().await }
    });
    tokio::task::spawn_blocking(move || begun.1.recv().unwrap()).await.unwrap();
    put(&store, std::slice::from_ref(&within), b"meanwhile").await.unwrap();
    go_on.0.send(()).unwrap();
    ending.await.unwrap().unwrap();
    assert_eq!(*syncs.lock().unwrap(), 2);
    assert!(!cache(root.path()).join(layout::UNSETTLED).exists());
}

fn copy_tree(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&file, &target).unwrap();
        let stamp = fs::metadata(&file).unwrap().modified().unwrap();
        fs::File::options().write(true).open(&target).unwrap().set_modified(stamp).unwrap();
    }
}
