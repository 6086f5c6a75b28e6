//! Loss of power and the end of the process, on paper, for what is kept of other registries: nothing of it need be there
//! afterwards, but what is given must be right, no more than the size may be kept, and what had a checkpoint is not lost.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use tokio_util::sync::CancellationToken;
use wharf::oci::{Algorithm, Digest, Hasher, ManifestType};
use wharf::serve::cache::store::{Bounds, CacheStore, CachedManifest, CachedTag, Scope};
use wharf::serve::store::filesystem::Operation;

use super::client::image;
use super::paper::{Left, Paper};

const SIZE: u64 = 2_500;
const CACHE: &str = "wharf/cache";

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fact {
    Blob(Scope, Digest),
    Manifest(Scope, Digest),
}

enum Event {
    Disk(Operation),
    /// A checkpoint covers all that was put so far.
    Checkpoint,
    Put(Fact),
}

struct Workload {
    store: CacheStore,
    log: Arc<Mutex<Vec<Event>>>,
}

fn scope(repository: &str) -> Scope {
    Scope { upstream: "docker.io".parse().unwrap(), repository: repository.parse().unwrap() }
}

impl Workload {
    fn say(&self, event: Event) {
        self.log.lock().unwrap().push(event);
    }

    async fn blob(&self, scope: &Scope, bytes: &[u8]) {
        let digest = Digest::of(Algorithm::Sha256, bytes);
        let reservation = self.store.reserve(bytes.len() as u64).await.unwrap();
        let mut partial = self.store.begin(&digest, reservation).await.unwrap();
        for part in bytes.chunks(100) {
            partial.append(vec![Bytes::copy_from_slice(part)], Hasher::new(Algorithm::Sha256)).await.unwrap();
        }
        partial.commit(std::slice::from_ref(scope)).await.unwrap();
        self.say(Event::Put(Fact::Blob(scope.clone(), digest)));
    }

    async fn image(&self, scope: &Scope, number: u8) {
        let blobs = [vec![number; 150], vec![number; 300]];
        let bytes = image(&blobs.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        let manifest = CachedManifest { media_type: ManifestType::OciImage, bytes };
        assert!(self.store.put_manifest(scope, &digest, &manifest).await.unwrap());
        self.say(Event::Put(Fact::Manifest(scope.clone(), digest.clone())));
        let tag = CachedTag { digest, checked: jiff::Timestamp::from_second(number.into()).unwrap() };
        self.store.put_tag(scope, &"latest".parse().unwrap(), &tag).await.unwrap();
        self.store.put_public(scope, Some(tag.checked)).await.unwrap();
        for blob in &blobs {
            self.blob(scope, blob).await;
        }
    }

    async fn run(&self) {
        let (a, b) = (scope("library/a"), scope("b"));
        self.image(&a, 1).await;
        let shared = Digest::of(Algorithm::Sha256, &[1; 300]);
        assert!(self.store.link_blob(&b, &shared).await.unwrap());
        self.say(Event::Put(Fact::Blob(b.clone(), shared.clone())));
        tokio::time::sleep(Duration::from_secs(11)).await;
        self.say(Event::Checkpoint);
        // A use is written down later.
        assert!(self.store.blob(&b, &shared).await.unwrap().is_some());
        self.image(&b, 2).await;
        let unfinished = self.store.begin(&shared, self.store.reserve(5).await.unwrap()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        self.say(Event::Checkpoint);
        // From here on others have to go.
        self.image(&a, 3).await;
        self.image(&b, 4).await;
        assert!(self.store.figures().evicted_images > 0);
        drop(unfinished);
    }
}

async fn record() -> Vec<Event> {
    let log = Arc::new(Mutex::new(Vec::new()));
    let root = tempfile::tempdir().unwrap();
    let written = log.clone();
    let hook = move |operation: &Operation| {
        written.lock().unwrap().push(Event::Disk(operation.clone()));
        Ok(())
    };
    let now = SystemTime::now();
    let store = CacheStore::open_with(root.path(), Bounds::of(SIZE), now, Some(Arc::new(hook))).unwrap();
    let stop = CancellationToken::new();
    let maintained = tokio::spawn(store.clone().maintain(stop.clone()));
    Workload { store, log: log.clone() }.run().await;
    stop.cancel();
    maintained.await.unwrap();
    std::mem::take(&mut *log.lock().unwrap())
}

/// What is given of these facts. Wrong bytes are never.
async fn given(store: &CacheStore, facts: &BTreeSet<Fact>) -> BTreeSet<Fact> {
    let mut given = BTreeSet::new();
    for fact in facts {
        let (digest, bytes) = match fact {
            Fact::Blob(scope, digest) => {
                let Some(content) = store.blob(scope, digest).await.unwrap() else { continue };
                (digest, content.read(0..content.length(), BytesMut::new()).await.unwrap())
            }
            Fact::Manifest(scope, digest) => {
                let Some(manifest) = store.manifest(scope, digest).await.unwrap() else { continue };
                (digest, manifest.bytes)
            }
        };
        assert_eq!(Digest::of(Algorithm::Sha256, &bytes), *digest, "wrong bytes");
        given.insert(fact.clone());
    }
    given
}

fn bytes_in(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let length = |entry: std::fs::DirEntry| match entry.metadata().unwrap() {
        found if found.is_dir() => bytes_in(&entry.path()),
        found => found.len(),
    };
    entries.map(|entry| length(entry.unwrap())).sum()
}

async fn complete(store: &CacheStore) -> (CancellationToken, tokio::task::JoinHandle<()>) {
    let stop = CancellationToken::new();
    let maintained = tokio::spawn(store.clone().maintain(stop.clone()));
    while !store.figures().index_complete {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (stop, maintained)
}

/// Opens what is left. Some look before all is known, others after; there may be an orderly end.
async fn check(root: &Path, facts: &BTreeSet<Fact>, settled: &BTreeSet<Fact>, ends: bool) {
    let store = CacheStore::open(root, Bounds::of(SIZE)).unwrap();
    assert_eq!(bytes_in(&root.join(CACHE).join("partial")), 0);
    let early = given(&store, facts).await;
    assert!(early.is_superset(settled), "what had a checkpoint is lost");
    let (stop, maintained) = complete(&store).await;
    assert_eq!(given(&store, facts).await, early);
    let figures = store.figures();
    assert_eq!(figures.bytes, Some(bytes_in(&root.join(CACHE).join("content"))));
    assert!(figures.bytes.is_some_and(|bytes| bytes <= SIZE) && figures.reserved == 0, "{figures:?}");
    if !ends {
        maintained.abort();
        return;
    }
    // Time to hash what nobody asked for.
    tokio::time::sleep(Duration::from_secs(11)).await;
    stop.cancel();
    maintained.await.unwrap();
    drop(store);
    let store = CacheStore::open(root, Bounds::of(SIZE)).unwrap();
    assert_eq!(store.figures().bytes, Some(bytes_in(&root.join(CACHE).join("content"))));
    assert_eq!(given(&store, facts).await, early);
    assert_eq!(store.figures().rehashed, 0);
}

#[tokio::test(start_paused = true)]
async fn whatever_a_crash_leaves_what_is_given_is_right() {
    let log = record().await;
    let mut paper = Paper::new(&["wharf", CACHE]);
    let (mut facts, mut settled, mut evicting) = (BTreeSet::new(), BTreeSet::new(), false);
    for (moment, event) in log.iter().enumerate() {
        match event {
            Event::Put(fact) => drop(facts.insert(fact.clone())),
            Event::Checkpoint => settled.clone_from(&facts),
            Event::Disk(operation) => {
                // Once content goes, it need not be there.
                evicting |= matches!(operation, Operation::Remove(path) if path.starts_with("registries"));
                paper.apply(&within(operation));
            }
        }
        if evicting {
            settled.clear();
        }
        // Between these, nothing is seen that was not before.
        let is_seen = match event {
            Event::Put(_) | Event::Checkpoint => true,
            Event::Disk(operation) => matches!(
                operation,
                Operation::Rename(..) | Operation::Remove(_) | Operation::SyncVolume | Operation::SyncFolder(_)
            ),
        };
        if !is_seen && moment % 8 > 0 {
            continue;
        }
        for left in [Left::Synced, Left::SyncedAndNames, Left::SyncedNamesAndLengths, Left::All] {
            let root = tempfile::tempdir().unwrap();
            paper.build(root.path(), left);
            check(root.path(), &facts, &settled, moment % 20 == 0).await;
        }
    }
    assert!(log.len() > 200 && evicting, "{}", log.len());
}

/// The operation as seen from the root.
fn within(operation: &Operation) -> Operation {
    let at = |path: &Path| Path::new(CACHE).join(path);
    match operation {
        Operation::CreateFolder(path) => Operation::CreateFolder(at(path)),
        Operation::CreateFile(path) => Operation::CreateFile(at(path)),
        Operation::Write(path, offset, bytes) => Operation::Write(at(path), *offset, bytes.clone()),
        Operation::Truncate(path, length) => Operation::Truncate(at(path), *length),
        Operation::Stamp(path, time) => Operation::Stamp(at(path), *time),
        Operation::SyncFile(path) => Operation::SyncFile(at(path)),
        Operation::SyncFolder(path) => Operation::SyncFolder(at(path)),
        Operation::SyncVolume => Operation::SyncVolume,
        Operation::Rename(from, to) => Operation::Rename(at(from), at(to)),
        Operation::Remove(path) => Operation::Remove(at(path)),
    }
}
