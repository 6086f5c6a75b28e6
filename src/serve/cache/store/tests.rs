mod crashes;
mod evicting;
mod model;

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use serde_json::json;

use super::index::{Named, Names};
use super::{Bounds, CacheStore, CachedManifest, CachedTag, Scope, layout};
use crate::oci::{Algorithm, Digest, Hasher, ManifestType};
use crate::serve::store::Content;
use crate::serve::store::filesystem::{Hook, Operation};

pub fn digest(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

pub fn scope(repository: &str) -> Scope {
    Scope { upstream: "docker.io".parse().unwrap(), repository: repository.parse().unwrap() }
}

pub fn open(root: &Path, size: u64) -> CacheStore {
    CacheStore::open(root, Bounds::of(size)).unwrap()
}

pub fn open_hooked(root: &Path, size: u64, hook: Hook) -> CacheStore {
    CacheStore::open_with(root, Bounds::of(size), SystemTime::now(), Some(hook)).unwrap()
}

/// An image of these blobs, the first of which is its configuration.
pub fn image(blobs: &[&[u8]]) -> (Digest, CachedManifest) {
    let named: Vec<_> =
        blobs.iter().map(|bytes| json!({"digest": digest(bytes).as_str(), "size": bytes.len()})).collect();
    let text = json!({"schemaVersion": 2, "config": named[0], "layers": named[1..]}).to_string();
    (digest(text.as_bytes()), CachedManifest { media_type: ManifestType::OciImage, bytes: text.into() })
}

pub fn index_of(children: &[&Digest]) -> (Digest, CachedManifest) {
    let named: Vec<_> = children.iter().map(|digest| json!({"digest": digest.as_str(), "size": 1})).collect();
    let text = json!({"schemaVersion": 2, "manifests": named}).to_string();
    (digest(text.as_bytes()), CachedManifest { media_type: ManifestType::OciIndex, bytes: text.into() })
}

pub async fn put(store: &CacheStore, scopes: &[Scope], bytes: &[u8]) -> Option<Digest> {
    let digest = digest(bytes);
    let mut partial = store.begin(&digest, store.reserve(bytes.len() as u64).await?).await.unwrap();
    let hasher = Hasher::new(Algorithm::Sha256);
    let hasher = partial.append(vec![Bytes::copy_from_slice(bytes)], hasher).await.unwrap();
    assert_eq!(hasher.finish(), digest);
    partial.commit(scopes).await.unwrap();
    Some(digest)
}

pub async fn all(content: &dyn Content) -> Vec<u8> {
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < content.length() {
        bytes.extend_from_slice(&content.read(bytes.len() as u64..content.length(), BytesMut::new()).await.unwrap());
    }
    bytes
}

pub async fn blob(store: &CacheStore, scope: &Scope, digest: &Digest) -> Option<Vec<u8>> {
    let content = store.blob(scope, digest).await.unwrap()?;
    Some(all(&*content).await)
}

pub fn cache(root: &Path) -> PathBuf {
    root.join(layout::FOLDER)
}

pub fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return BTreeSet::new() };
    let mut found = BTreeSet::new();
    for entry in entries.map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(files(&entry));
        } else {
            found.insert(entry);
        }
    }
    found
}

/// The index says what is on the disk, and the sums are right.
pub fn agree(store: &CacheStore, root: &Path) {
    let index = store.0.tree.index();
    assert!(index.is_complete());
    let mut expected = BTreeSet::new();
    let mut bytes = 0;
    for (digest, content) in index.contents() {
        let path = cache(root).join(layout::content(digest));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), content.length);
        assert_eq!(content.links as usize, index.links_to(digest).len());
        bytes += content.length;
        expected.insert(path);
    }
    let mut entries = index.contents().len() + index.scopes().len();
    for (scope, repository) in index.scopes() {
        let links = repository.links.keys().map(|named| layout::link(scope, named));
        let tags = repository.tags.keys().map(|tag| layout::tag(scope, tag));
        let public = repository.public.map(|_| layout::public(scope));
        entries += repository.links.len() + repository.tags.len();
        expected.extend(links.chain(tags).chain(public).map(|path| cache(root).join(path)));
        for (digest, count) in &repository.named {
            let names = |named: &&Named| match named {
                Named::Manifest(manifest) => match index.contents()[manifest].names.as_deref() {
                    Some(Names::Blobs(blobs)) => blobs.contains(digest),
                    _ => false,
                },
                Named::Blob(_) => false,
            };
            assert_eq!(*count as usize, repository.links.keys().filter(names).count());
        }
        for (named, link) in &repository.links {
            let counted = repository.named.get(named.digest()).filter(|_| matches!(named, Named::Blob(_)));
            assert_eq!(link.named, counted.copied().unwrap_or_default());
        }
    }
    assert_eq!((index.total(), index.entries()), (Some(bytes), entries));
    let kept = [layout::CONTENT, layout::REGISTRIES].map(|folder| files(&cache(root).join(folder)));
    assert_eq!(kept.into_iter().flatten().collect::<BTreeSet<_>>(), expected);
}

/// Opens a store and looks through all of it.
pub async fn reopen(root: &Path, size: u64) -> CacheStore {
    let store = open(root, size);
    store.build().await.unwrap();
    agree(&store, root);
    store
}

#[tokio::test]
async fn a_blob_grows_is_read_meanwhile_and_is_seen_only_through_a_link() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path(), 4_000_000);
    let large: Vec<u8> = (0..700_000_u32).flat_map(u32::to_le_bytes).collect();
    let (name, [a, b]) = (digest(&large), ["library/a", "b"].map(scope));
    let reservation = store.reserve(2_800_000).await.unwrap();
    assert!(store.reserve(1_200_001).await.is_none());
    let mut partial = store.begin(&name, reservation).await.unwrap();
    let reader = partial.reader();
    let parts = large[..1_000_000].chunks(300_000).map(Bytes::copy_from_slice).collect();
    let hasher = partial.append(parts, Hasher::new(Algorithm::Sha256)).await.unwrap();
    assert_eq!(partial.length(), 1_000_000);
    assert_eq!(reader.read(999_990..1_000_000, BytesMut::new()).await.unwrap(), large[999_990..1_000_000]);
    assert!(!store.has(&name).await.unwrap());
    let hasher = partial.append(vec![Bytes::copy_from_slice(&large[1_000_000..])], hasher).await.unwrap();
    assert_eq!(hasher.finish(), name);
    partial.commit(std::slice::from_ref(&a)).await.unwrap();
    assert_eq!(reader.read(10..20, BytesMut::new()).await.unwrap(), large[10..20]);
    assert_eq!(blob(&store, &a, &name).await.unwrap(), large);
    assert!(store.has(&name).await.unwrap());
    for _ in 0..2 {
        assert!(store.blob(&b, &name).await.unwrap().is_none());
        assert!(store.manifest(&a, &name).await.unwrap().is_none());
    }
    assert!(store.link_blob(&b, &name).await.unwrap());
    assert_eq!(blob(&store, &b, &name).await.unwrap(), large);
    assert!(!store.link_blob(&b, &digest(b"none")).await.unwrap());
    let figures = store.figures();
    assert_eq!((figures.bytes, figures.reserved, figures.contents), (Some(2_800_000), 0, 1));
}

#[tokio::test]
async fn manifests_tags_and_times_are_kept_over_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let (a, b) = (scope("a"), scope("a/b"));
    let (config, layer) = (digest(b"config"), digest(b"layer"));
    let (name, manifest) = image(&[b"config", b"layer"]);
    let (listed, index) = index_of(&[&digest(b"absent"), &name]);
    let tag = CachedTag { digest: listed.clone(), checked: Timestamp::from_second(7).unwrap() };
    {
        let store = open(root.path(), 10_000);
        assert!(store.put_manifest(&a, &name, &manifest).await.unwrap());
        assert!(store.put_manifest(&a, &listed, &index).await.unwrap());
        assert!(store.link_manifest(&b, &name, manifest.media_type).await.unwrap());
        store.put_tag(&a, &"latest".parse().unwrap(), &tag).await.unwrap();
        store.put_tag(&a, &"gone".parse().unwrap(), &tag).await.unwrap();
        store.remove_tag(&a, &"gone".parse().unwrap()).await.unwrap();
        store.put_public(&a, Some(tag.checked)).await.unwrap();
        put(&store, std::slice::from_ref(&a), b"config").await.unwrap();
        assert!(!store.is_complete(&a, &listed).await.unwrap());
        put(&store, std::slice::from_ref(&a), b"layer").await.unwrap();
        assert!(store.is_complete(&a, &listed).await.unwrap());
        assert!(!store.is_complete(&b, &name).await.unwrap());
    }
    let store = open(root.path(), 10_000);
    assert!(store.is_complete(&a, &listed).await.unwrap());
    assert!(store.is_complete(&a, &name).await.unwrap());
    assert!(!store.is_complete(&b, &name).await.unwrap());
    assert!(!store.is_complete(&b, &listed).await.unwrap());
    assert_eq!(store.manifest(&a, &name).await.unwrap(), Some(manifest.clone()));
    assert_eq!(store.manifest(&a, &listed).await.unwrap(), Some(index));
    assert_eq!(store.manifest(&b, &name).await.unwrap(), Some(manifest));
    assert_eq!(store.manifest(&b, &listed).await.unwrap(), None);
    assert_eq!(store.tag(&a, &"latest".parse().unwrap()).await.unwrap(), Some(tag.clone()));
    assert_eq!(store.tag(&a, &"gone".parse().unwrap()).await.unwrap(), None);
    assert_eq!(store.tag(&b, &"latest".parse().unwrap()).await.unwrap(), None);
    assert_eq!(store.public(&a).await.unwrap(), Some(tag.checked));
    assert_eq!(store.public(&b).await.unwrap(), None);
    assert_eq!(blob(&store, &a, &layer).await.unwrap(), b"layer");
    assert!(store.blob(&a, &name).await.unwrap().is_none());
    assert!(store.blob(&b, &config).await.unwrap().is_none());
    // Nobody knows yet how much is there.
    assert!(store.reserve(1).await.is_none());
    store.build().await.unwrap();
    agree(&store, root.path());
    assert!(store.is_complete(&a, &listed).await.unwrap() && !store.is_complete(&b, &name).await.unwrap());
    assert_eq!(store.tag(&a, &"latest".parse().unwrap()).await.unwrap(), Some(tag));
    assert!(store.reserve(1).await.is_some());
}

#[tokio::test]
async fn a_tag_waits_for_its_manifest_while_all_is_looked_through_and_one_that_lost_it_goes() {
    let root = tempfile::tempdir().unwrap();
    let within = scope("a");
    let (name, manifest) = image(&[b"config"]);
    let [new, lost] = ["new", "lost"].map(|tag| tag.parse().unwrap());
    let tag = CachedTag { digest: name.clone(), checked: Timestamp::from_second(7).unwrap() };
    {
        let store = reopen(root.path(), 10_000).await;
        assert!(store.put_manifest(&scope("b"), &name, &manifest).await.unwrap());
        store.put_tag(&within, &lost, &tag).await.unwrap();
    }
    let store = open(root.path(), 10_000);
    store.put_tag(&within, &new, &tag).await.unwrap();
    store.build().await.unwrap();
    assert!(store.link_manifest(&within, &name, manifest.media_type).await.unwrap());
    agree(&store, root.path());
    assert_eq!(store.tag(&within, &new).await.unwrap(), Some(tag));
    assert_eq!(store.tag(&within, &lost).await.unwrap(), None);
}

#[tokio::test]
async fn layers_that_lie_elsewhere_are_not_missing() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path(), 10_000);
    let foreign = json!({"digest": digest(b"foreign").as_str(), "size": 1, "urls": ["https://example.com/layer"]});
    let config = json!({"digest": digest(b"config").as_str(), "size": 6});
    let text = json!({"schemaVersion": 2, "config": config, "layers": [foreign]}).to_string();
    let (name, within) = (digest(text.as_bytes()), scope("a"));
    let manifest = CachedManifest { media_type: ManifestType::OciImage, bytes: text.into() };
    assert!(store.put_manifest(&within, &name, &manifest).await.unwrap());
    assert!(!store.is_complete(&within, &name).await.unwrap());
    // That it is linked elsewhere does not help.
    put(&store, &[scope("b")], b"config").await.unwrap();
    assert!(!store.is_complete(&within, &name).await.unwrap());
    assert!(store.link_blob(&within, &digest(b"config")).await.unwrap());
    assert!(store.is_complete(&within, &name).await.unwrap());
}

#[tokio::test]
async fn what_is_dropped_or_does_not_fit_leaves_nothing_behind() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path(), 100);
    let (name, within) = (digest(b"content"), [scope("a")]);
    let mut partial = store.begin(&name, store.reserve(3).await.unwrap()).await.unwrap();
    let hasher = Hasher::new(Algorithm::Sha256);
    let hasher = partial.append(vec![Bytes::from_static(b"con")], hasher).await.unwrap();
    // More than was announced takes more room.
    let hasher = partial.append(vec![Bytes::from_static(b"tent")], hasher).await.unwrap();
    assert_eq!(store.figures().reserved, 7);
    let other = store.reserve(93).await.unwrap();
    let error = partial.append(vec![Bytes::from_static(b"!")], hasher).await.err().unwrap();
    assert!(error.is_full(), "{error}");
    assert_eq!(partial.length(), 7);
    let reader = partial.reader();
    drop(partial);
    while store.figures().reserved > 93 {
        tokio::task::yield_now().await;
    }
    assert!(files(&cache(root.path()).join("partial")).is_empty());
    assert_eq!(reader.read(0..7, BytesMut::new()).await.unwrap(), "content");
    drop(other);
    // The same content twice at the same time counts once, and both are told that it is there.
    let mut both = Vec::new();
    for _ in 0..2 {
        let mut partial = store.begin(&name, store.reserve(7).await.unwrap()).await.unwrap();
        partial.append(vec![Bytes::from_static(b"content")], Hasher::new(Algorithm::Sha256)).await.unwrap();
        both.push(partial);
    }
    let file = cache(root.path()).join(layout::content(&name));
    let mut inodes = BTreeSet::new();
    for partial in both {
        partial.commit(&within).await.unwrap();
        inodes.insert(std::fs::metadata(&file).unwrap().ino());
    }
    assert_eq!(inodes.len(), 1, "content that was there was replaced");
    agree(&store, root.path());
    assert_eq!((store.figures().bytes, store.figures().reserved), (Some(7), 0));
    assert!(files(&cache(root.path()).join("partial")).is_empty());
}

#[tokio::test]
async fn what_cannot_be_linked_can_be_opened_by_who_has_the_right() {
    let root = tempfile::tempdir().unwrap();
    let is_full = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let told = is_full.clone();
    let hook: Hook = Arc::new(move |operation| match operation {
        Operation::Write(..) if told.load(std::sync::atomic::Ordering::SeqCst) => {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        _ => Ok(()),
    });
    let store = open_hooked(root.path(), 1000, hook);
    let digest = put(&store, &[scope("a/a")], b"content").await.unwrap();
    is_full.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(store.link_blob(&scope("a/b"), &digest).await.unwrap_err().is_full());
    assert!(store.blob(&scope("a/b"), &digest).await.unwrap().is_none());
    let content = store.blob_without_link(&digest).await.unwrap().unwrap();
    assert_eq!(content.read(0..7, BytesMut::new()).await.unwrap(), "content");
    assert!(store.blob_without_link(&Digest::of(Algorithm::Sha256, b"other")).await.unwrap().is_none());
}

/// Whichever operation the disk refuses, it is told, nothing stays reserved, and later it works.
#[tokio::test]
async fn what_the_disk_refuses_leaves_nothing_reserved_and_works_later() {
    for refused in 0..40 {
        let root = tempfile::tempdir().unwrap();
        let left = Arc::new(Mutex::new(None));
        let hook = {
            let left = left.clone();
            move |operation: &Operation| {
                let mut left = left.lock().unwrap();
                match &mut *left {
                    // What is removed makes room.
                    Some(0) if !matches!(operation, Operation::Remove(_)) => {
                        Err(std::io::ErrorKind::StorageFull.into())
                    }
                    Some(count) if *count > 0 => {
                        *count -= 1;
                        Ok(())
                    }
                    _ => Ok(()),
                }
            }
        };
        let store = open_hooked(root.path(), 1_000, Arc::new(hook));
        let within = scope("a");
        let (name, manifest) = image(&[b"config"]);
        let pull = async || {
            let mut partial = store.begin(&digest(b"config"), store.reserve(6).await.unwrap()).await?;
            partial.append(vec![Bytes::from_static(b"config")], Hasher::new(Algorithm::Sha256)).await?;
            partial.commit(std::slice::from_ref(&within)).await?;
            assert!(store.put_manifest(&within, &name, &manifest).await?);
            let tag = CachedTag { digest: name.clone(), checked: Timestamp::UNIX_EPOCH };
            store.put_tag(&within, &"latest".parse().unwrap(), &tag).await?;
            store.put_public(&within, Some(Timestamp::UNIX_EPOCH)).await
        };
        *left.lock().unwrap() = Some(refused);
        let first = pull().await;
        *left.lock().unwrap() = None;
        while store.figures().reserved > 0 {
            tokio::task::yield_now().await;
        }
        assert!(files(&cache(root.path()).join("partial")).is_empty(), "{refused}");
        agree(&store, root.path());
        match first {
            Err(error) => assert!(error.is_full(), "{error}"),
            Ok(()) => {
                assert!(refused > 20, "{refused}");
                return;
            }
        }
        pull().await.unwrap();
        assert!(store.is_complete(&within, &name).await.unwrap());
        agree(&store, root.path());
    }
    panic!("there were more operations than were refused");
}
