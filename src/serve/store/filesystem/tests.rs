use std::fs;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use bytes::{Bytes, BytesMut};

use super::{Filesystem, OpenError, Operation, layout};
use crate::oci::{Algorithm, Digest, Hasher, RepositoryName};
use crate::serve::store::{Condition, Link, Listing, Store, Usage};

const REPOSITORIES: &str = "docker/registry/v2/repositories";

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

fn hasher() -> Hasher {
    Hasher::new(Algorithm::Sha256)
}

async fn read(store: &Filesystem, digest: &Digest) -> Option<Vec<u8>> {
    let content = store.open(digest).await.unwrap()?;
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < content.length() {
        bytes.extend_from_slice(&content.read(bytes.len() as u64..content.length(), BytesMut::new()).await.unwrap());
    }
    Some(bytes)
}

/// A read that hangs is a FIFO that nobody writes to: the system stops whoever opens it.
#[tokio::test]
async fn a_volume_that_hangs_holds_only_those_who_want_something_of_it() {
    let root = tempfile::tempdir().unwrap();
    let store = Filesystem::open(root.path()).unwrap();
    store.put(&digest(b"there"), Bytes::from_static(b"there")).await.unwrap();
    let (there, hangs) = (digest(b"there"), digest(b"hangs"));
    let stuck = root.path().join(layout::content(&hangs).file);
    fs::create_dir_all(stuck.parent().unwrap()).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &stuck, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    // Should the test's only thread hang, this lets it go, and the order below is wrong.
    let (answered, ended) = std::sync::mpsc::channel::<()>();
    let release = std::thread::spawn(move || {
        let in_time = ended.recv_timeout(std::time::Duration::from_secs(60)).is_ok();
        drop(fs::File::options().write(true).open(&stuck).unwrap());
        in_time
    });
    let (hanging, ()) = tokio::join!(store.open(&hangs), async {
        assert_eq!(read(&store, &there).await.unwrap(), b"there");
        let link = Link::Layer(name("a/b"), there.clone());
        assert_eq!(store.link(&link).await.unwrap(), None);
        store.write_link(&link, &there, Condition::Always).await.unwrap();
        assert_eq!(store.length(&there).await.unwrap(), Some(5));
        answered.send(()).unwrap();
    });
    assert_eq!(hanging.unwrap().map(|content| content.length()), Some(0));
    assert!(release.join().unwrap(), "others waited for the volume");
}

/// As many as wait for the disk at the most leave room for a push.
#[tokio::test]
async fn readers_that_hang_leave_threads_for_writers() {
    let readers = super::reading::Readers::default();
    let (gate, waiting) = (Arc::new((Mutex::new(false), Condvar::new())), Arc::new(Mutex::new(0)));
    let hanging: Vec<_> = (0..1000)
        .map(|_| {
            let (readers, gate, waiting) = (readers.clone(), gate.clone(), waiting.clone());
            tokio::spawn(async move {
                let work = move || {
                    *waiting.lock().unwrap() += 1;
                    drop(gate.1.wait_while(gate.0.lock().unwrap(), |open| !*open).unwrap());
                    Ok(())
                };
                readers.run(work).await
            })
        })
        .collect();
    while *waiting.lock().unwrap() < super::reading::AT_ONCE {
        tokio::task::yield_now().await;
    }
    let root = tempfile::tempdir().unwrap();
    let store = Filesystem::open(root.path()).unwrap();
    store.put(&digest(b"pushed"), Bytes::from_static(b"pushed")).await.unwrap();
    let held = *waiting.lock().unwrap();
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    for task in hanging {
        task.await.unwrap().unwrap();
    }
    assert_eq!(held, super::reading::AT_ONCE);
}

#[tokio::test]
async fn a_large_read_uses_the_memory_that_it_is_given() {
    let root = tempfile::tempdir().unwrap();
    let store = Filesystem::open(root.path()).unwrap();
    let large: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    store.put(&digest(&large), large.clone().into()).await.unwrap();
    let content = store.open(&digest(&large)).await.unwrap().unwrap();
    let first = content.read(0..800_000, BytesMut::new()).await.unwrap();
    let (memory, length) = (first.as_ptr(), first.len());
    assert_eq!(first, large[..length]);
    let second = content.read(length as u64..800_000, first.try_into_mut().unwrap()).await.unwrap();
    assert_eq!((second.as_ptr(), &second[..]), (memory, &large[length..length + second.len()]));
    // Past what a file turned out to have there is an error, not an endless answer.
    assert!(content.read(800_000..800_001, BytesMut::new()).await.is_err());
}

fn write(root: &Path, path: &str, text: &str) {
    let file = root.join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

#[tokio::test]
async fn an_upload_grows_by_parts_survives_a_restart_and_becomes_content() {
    let root = tempfile::tempdir().unwrap();
    let large: Vec<u8> = (0..700_000_u32).flat_map(u32::to_le_bytes).collect();
    let digest = digest(&large);
    {
        let store = Filesystem::open(root.path()).unwrap();
        store.begin("id1", &name("a/b")).await.unwrap();
        let parts = large[..1_000_000].chunks(300_000).map(Bytes::copy_from_slice).collect();
        store.part("id1", 0, parts, hasher()).await.unwrap();
    }
    let store = Filesystem::open(root.path()).unwrap();
    let upload = store.upload("id1").await.unwrap().unwrap();
    assert_eq!((upload.repository, upload.length), (name("a/b"), 1_000_000));
    assert_eq!(store.received("id1", 10..20).await.unwrap(), large[10..20]);
    store.part("id1", 1_000_000, vec![Bytes::copy_from_slice(&large[1_000_000..])], hasher()).await.unwrap();
    assert_eq!(store.length(&digest).await.unwrap(), None);
    store.finish("id1", 2_800_000, &digest).await.unwrap();
    assert_eq!(store.length(&digest).await.unwrap(), Some(2_800_000));
    assert_eq!(read(&store, &digest).await.unwrap(), large);
    assert_eq!(store.upload("id1").await.unwrap(), None);
    // The same content once more does not disturb what is there.
    store.begin("id2", &name("a/b")).await.unwrap();
    store.part("id2", 0, vec![Bytes::from(large.clone())], hasher()).await.unwrap();
    store.finish("id2", 2_800_000, &digest).await.unwrap();
    assert_eq!(read(&store, &digest).await.unwrap(), large);
    assert!(fs::read_dir(root.path().join("wharf/uploads")).unwrap().next().is_none());
}

#[tokio::test]
async fn what_a_failed_part_left_behind_does_not_count() {
    let root = tempfile::tempdir().unwrap();
    let store = Filesystem::open(root.path()).unwrap();
    store.begin("id", &name("a")).await.unwrap();
    let parts = vec![Bytes::from_static(b"content"), Bytes::from_static(b" and more")];
    let hashed = store.part("id", 0, parts, hasher()).await.unwrap();
    assert_eq!(hashed.finish(), digest(b"content and more"));
    store.finish("id", 7, &digest(b"content")).await.unwrap();
    assert_eq!(read(&store, &digest(b"content")).await.unwrap(), b"content");
}

#[tokio::test]
async fn content_that_was_cut_short_is_replaced_by_the_whole() {
    let root = tempfile::tempdir().unwrap();
    let store = Filesystem::open(root.path()).unwrap();
    let digest = digest(b"whole");
    write(root.path(), &format!("docker/registry/v2/blobs/sha256/{}/{}/data", &digest.hex()[..2], digest.hex()), "who");
    store.put(&digest, Bytes::from_static(b"whole")).await.unwrap();
    assert_eq!(read(&store, &digest).await.unwrap(), b"whole");
}

#[tokio::test]
async fn links_are_written_read_listed_and_removed() {
    let root = tempfile::tempdir().unwrap();
    let store = Filesystem::open(root.path()).unwrap();
    let (one, two) = (digest(b"1"), digest(b"2"));
    let long = Digest::of(Algorithm::Sha512, b"1");
    let tag = |tag: &str| Link::Tag(name("a"), tag.parse().unwrap());
    assert_eq!(store.list(&Listing::Tags(name("a")), None, 9).await.unwrap(), None);
    for link in [tag("x"), Link::Layer(name("a"), one.clone()), Link::Revision(name("a"), long.clone())] {
        assert_eq!(store.link(&link).await.unwrap(), None);
        assert!(store.write_link(&link, &one, Condition::IfAbsent).await.unwrap());
        assert!(!store.write_link(&link, &two, Condition::IfAbsent).await.unwrap());
        assert_eq!(store.link(&link).await.unwrap(), Some(one.clone()));
        store.renew_link(&link).await.unwrap();
        assert!(store.write_link(&link, &two, Condition::Always).await.unwrap());
        assert_eq!(store.link(&link).await.unwrap(), Some(two.clone()));
    }
    for other in ["z", "y", "latest"] {
        store.write_link(&tag(other), &one, Condition::Always).await.unwrap();
    }
    let list = async |after, limit| store.list(&Listing::Tags(name("a")), after, limit).await.unwrap().unwrap();
    assert_eq!(list(None, 9).await, ["latest", "x", "y", "z"]);
    assert_eq!(list(Some("latest"), 2).await, ["x", "y"]);
    assert_eq!(list(Some("lb"), 1).await, ["x"]);
    let revisions = store.list(&Listing::Revisions(name("a")), None, 9).await.unwrap().unwrap();
    assert_eq!(revisions, [long.as_str()]);
    assert!(store.remove_link(&tag("x")).await.unwrap());
    assert!(!store.remove_link(&tag("x")).await.unwrap());
    assert_eq!(list(None, 9).await, ["latest", "y", "z"]);
    assert!(store.remove_link(&Link::Layer(name("a"), one.clone())).await.unwrap());
    assert_eq!(store.link(&Link::Layer(name("a"), one)).await.unwrap(), None);
}

#[tokio::test]
async fn a_tag_has_the_two_files_that_distribution_reads() {
    let root = tempfile::tempdir().unwrap();
    let store = Filesystem::open(root.path()).unwrap();
    let (one, two) = (digest(b"1"), digest(b"2"));
    let link = Link::Tag(name("a"), "latest".parse().unwrap());
    store.write_link(&link, &one, Condition::Always).await.unwrap();
    store.write_link(&link, &two, Condition::Always).await.unwrap();
    let folder = root.path().join(REPOSITORIES).join("a/_manifests/tags/latest");
    assert_eq!(fs::read_to_string(folder.join("current/link")).unwrap(), two.as_str());
    for digest in [one, two] {
        let entry = folder.join("index/sha256").join(digest.hex()).join("link");
        assert_eq!(fs::read_to_string(entry).unwrap(), digest.as_str());
    }
}

#[tokio::test]
async fn the_content_of_a_link_counts_and_what_is_half_there_is_absent() {
    let root = tempfile::tempdir().unwrap();
    let store = Filesystem::open(root.path()).unwrap();
    // distribution keeps what was uploaded as sha512 under sha256.
    let (long, short) = (Digest::of(Algorithm::Sha512, b"1"), digest(b"1"));
    let at = |rest: &str| format!("{REPOSITORIES}/a/{rest}");
    write(root.path(), &at(&format!("_layers/sha512/{}/link", long.hex())), short.as_str());
    assert_eq!(store.link(&Link::Layer(name("a"), long)).await.unwrap(), Some(short.clone()));
    write(root.path(), &at("_manifests/tags/empty/current/link"), "");
    write(root.path(), &at("_manifests/tags/malformed/current/link"), "sha256:../../..");
    fs::create_dir_all(root.path().join(at("_manifests/tags/bare/current"))).unwrap();
    fs::create_dir_all(root.path().join(at(&format!("_manifests/revisions/sha256/{}", short.hex())))).unwrap();
    for tag in ["empty", "malformed", "bare"] {
        let link = Link::Tag(name("a"), tag.parse().unwrap());
        assert_eq!(store.link(&link).await.unwrap(), None, "{tag}");
        assert!(store.write_link(&link, &short, Condition::IfAbsent).await.unwrap());
        assert_eq!(store.link(&link).await.unwrap(), Some(short.clone()));
    }
    let revision = Link::Revision(name("a"), short.clone());
    assert_eq!(store.link(&revision).await.unwrap(), None);
    assert!(!store.remove_link(&revision).await.unwrap());
    // A folder of that name may be there because another repository is below it.
    store.write_link(&Link::Layer(name("parent/child"), short.clone()), &short, Condition::Always).await.unwrap();
    assert_eq!(store.list(&Listing::Tags(name("parent")), None, 9).await.unwrap(), None);
    assert_eq!(store.list(&Listing::Tags(name("parent/child")), None, 9).await.unwrap(), Some(vec![]));
}

#[tokio::test]
async fn a_restart_removes_temporary_files_and_keeps_uploads() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "wharf/tmp/7/current/link", "half");
    write(root.path(), "wharf/tmp/8", "half");
    write(root.path(), "wharf/uploads/gone/repository", "a");
    let store = Filesystem::open(root.path()).unwrap();
    assert!(fs::read_dir(root.path().join("wharf/tmp")).unwrap().next().is_none());
    assert_eq!(store.upload("gone").await.unwrap(), None);
    for id in ["", "..", "../tmp", "a/b"] {
        assert_eq!(store.upload(id).await.unwrap(), None, "{id}");
        assert!(store.begin(id, &name("a")).await.is_err(), "{id}");
    }
    store.begin("new", &name("a")).await.unwrap();
    assert_eq!(store.abandon_idle(3600).await.unwrap(), 0);
    assert_eq!(store.abandon_idle(0).await.unwrap(), 2);
    assert_eq!(store.upload("new").await.unwrap(), None);
    store.begin("other", &name("a")).await.unwrap();
    store.abandon("other").await.unwrap();
    store.abandon("other").await.unwrap();
    assert_eq!(store.upload("other").await.unwrap(), None);
}

#[test]
fn one_process_has_the_root() {
    let root = tempfile::tempdir().unwrap();
    let store = Filesystem::open(root.path()).unwrap();
    assert!(matches!(Filesystem::open(root.path()), Err(OpenError::Locked(_))));
    drop(store);
    assert!(Filesystem::open(root.path()).is_ok());
}

#[tokio::test]
async fn what_is_refused_leaves_nothing_half_and_works_later() {
    let root = tempfile::tempdir().unwrap();
    let allowed = Arc::new(Mutex::new(usize::MAX));
    let hook = {
        let allowed = allowed.clone();
        move |_: &Operation| {
            let mut allowed = allowed.lock().unwrap();
            *allowed = allowed.checked_sub(1).ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(())
        }
    };
    let store = Filesystem::open_with(root.path(), Some(Arc::new(hook))).unwrap();
    let (old, new) = (digest(b"old"), digest(b"new"));
    let link = Link::Tag(name("a"), "latest".parse().unwrap());
    store.write_link(&link, &old, Condition::Always).await.unwrap();
    let mut refused = 0;
    for count in 0.. {
        *allowed.lock().unwrap() = count;
        let written = async {
            store.put(&new, Bytes::from_static(b"new")).await?;
            store.write_link(&link, &new, Condition::Always).await
        };
        let written = written.await;
        *allowed.lock().unwrap() = usize::MAX;
        let found = store.link(&link).await.unwrap().unwrap();
        assert!(found == old || found == new);
        if let Some(bytes) = read(&store, &new).await {
            assert_eq!(bytes, b"new");
        }
        match written {
            Ok(_) => break,
            Err(error) => assert!(error.is_full(), "{error}"),
        }
        refused += 1;
    }
    assert!(refused > 20, "{refused}");
    assert_eq!(store.link(&link).await.unwrap(), Some(new.clone()));
    assert_eq!(read(&store, &new).await.unwrap(), b"new");
    // A full disk also refuses to remove what was half made; the next start does.
    drop(store);
    Filesystem::open(root.path()).unwrap();
    assert!(fs::read_dir(root.path().join("wharf/tmp")).unwrap().next().is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_there_is_counted_once_and_what_comes_is_added() {
    let root = tempfile::tempdir().unwrap();
    let usage = |bytes, repositories| Some(Usage { bytes, repositories });
    {
        let store = Filesystem::open(root.path()).unwrap();
        store.put(&digest(b"seven.."), Bytes::from_static(b"seven..")).await.unwrap();
        store.put(&Digest::of(Algorithm::Sha512, b"two"), Bytes::from_static(b"two")).await.unwrap();
        for repository in ["a", "a/b/c"] {
            let link = Link::Layer(name(repository), digest(b"seven.."));
            assert!(store.write_link(&link, &digest(b"seven.."), Condition::Always).await.unwrap());
        }
    }
    // What is no content and no repository.
    write(root.path(), "docker/registry/v2/blobs/sha256/ab/abcd/data", "not a digest");
    write(root.path(), &format!("{REPOSITORIES}/a/_uploads/id/data"), "an upload of the other engine");
    write(root.path(), &format!("{REPOSITORIES}/A/_layers/link"), "not a name");

    let store = Filesystem::open(root.path()).unwrap();
    assert_eq!(store.usage(), None);
    // Before the count, and of it.
    store.put(&digest(b"early"), Bytes::from_static(b"early")).await.unwrap();
    store.put(&digest(b"seven.."), Bytes::from_static(b"seven..")).await.unwrap();
    store.count().await.unwrap();
    assert_eq!(store.usage(), usage(7 + 3 + 5, 2));

    for _twice in 0..2 {
        store.begin("id", &name("new")).await.unwrap();
        store.part("id", 0, vec![Bytes::from_static(b"later")], Hasher::new(Algorithm::Sha256)).await.unwrap();
        store.finish("id", 5, &digest(b"later")).await.unwrap();
        let link = Link::Tag(name("new"), "1".parse().unwrap());
        store.write_link(&link, &digest(b"later"), Condition::Always).await.unwrap();
    }
    assert_eq!(store.usage(), usage(7 + 3 + 5 + 5, 3));
    // A restart comes to the same.
    drop(store);
    let store = Filesystem::open(root.path()).unwrap();
    store.count().await.unwrap();
    assert_eq!(store.usage(), usage(20, 3));
}
