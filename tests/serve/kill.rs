//! The server is killed at random moments while clients push, move tags and delete. Whatever it has acknowledged must be
//! there afterwards, byte for byte; what was under way may be there or not, but never half.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::client::{Client, digest, image};
use super::process::Process;

const WORKERS: usize = 6;

/// What one client knows of its own repository.
#[derive(Default)]
struct Ledger {
    repository: String,
    blobs: HashMap<String, Bytes>,
    manifests: HashMap<String, Bytes>,
    tags: BTreeMap<String, String>,
    /// What was asked for and not answered.
    pending: Option<Pending>,
}

#[derive(Clone, Debug)]
enum Pending {
    Tag { tag: String, digest: String, manifest: Bytes },
    DeleteTag(String),
    DeleteManifest(String),
}

async fn work(client: Client, ledger: Arc<Mutex<Ledger>>, seed: u64) -> Option<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let repository = ledger.lock().unwrap().repository.clone();
    loop {
        let tag = format!("t{}", random.random_range(0..4));
        match random.random_range(0..8) {
            0 => {
                ledger.lock().unwrap().pending = Some(Pending::DeleteTag(tag.clone()));
                let target = format!("/v2/{repository}/manifests/{tag}");
                client.send(Method::DELETE, &target, &[], Bytes::new()).await?;
                let mut ledger = ledger.lock().unwrap();
                ledger.pending = None;
                ledger.tags.remove(&tag);
            }
            1 => {
                let Some(old) = ledger.lock().unwrap().manifests.keys().next().cloned() else { continue };
                ledger.lock().unwrap().pending = Some(Pending::DeleteManifest(old.clone()));
                let target = format!("/v2/{repository}/manifests/{old}");
                client.send(Method::DELETE, &target, &[], Bytes::new()).await?;
                let mut ledger = ledger.lock().unwrap();
                ledger.pending = None;
                ledger.manifests.remove(&old);
                ledger.tags.retain(|_, digest| *digest != old);
            }
            _ => {
                let mut layer = vec![0; random.random_range(1..400_000)];
                random.fill(&mut layer[..]);
                let blobs: [&[u8]; 2] = [&layer[..layer.len().min(40)], &layer];
                for blob in blobs {
                    let answer = client.push_blob(&repository, blob).await?;
                    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
                    ledger.lock().unwrap().blobs.insert(digest(blob), Bytes::copy_from_slice(blob));
                }
                let manifest = image(&blobs);
                let digest = digest(&manifest);
                let pending = Pending::Tag { tag: tag.clone(), digest: digest.clone(), manifest: manifest.clone() };
                ledger.lock().unwrap().pending = Some(pending);
                let answer = client.put_manifest(&repository, &tag, &manifest).await?;
                assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
                let mut ledger = ledger.lock().unwrap();
                ledger.pending = None;
                ledger.manifests.insert(digest.clone(), manifest);
                ledger.tags.insert(tag, digest);
            }
        }
    }
}

/// Compares what is there with what was acknowledged, and takes over what was under way.
async fn check(client: &Client, ledger: &mut Ledger) {
    let repository = ledger.repository.clone();
    for (digest, bytes) in &ledger.blobs {
        let answer = client.get(&format!("/v2/{repository}/blobs/{digest}")).await;
        assert!(answer.status == 200 && answer.body == *bytes, "blob {digest} of {repository}: {}", answer.status);
    }
    let pending = ledger.pending.take();
    let mut manifests = ledger.manifests.clone();
    if let Some(Pending::Tag { digest, manifest, .. }) = &pending {
        manifests.insert(digest.clone(), manifest.clone());
    }
    let mut found_tags = BTreeMap::new();
    for tag in (0..4).map(|number| format!("t{number}")) {
        let answer = client.get(&format!("/v2/{repository}/manifests/{tag}")).await;
        if answer.status == 200 {
            let found = digest(&answer.body);
            assert_eq!(manifests.get(&found), Some(&answer.body), "{repository}:{tag} is nothing that was pushed");
            found_tags.insert(tag, found);
        }
    }
    let mut after = ledger.tags.clone();
    match &pending {
        Some(Pending::Tag { tag, digest, .. }) => drop(after.insert(tag.clone(), digest.clone())),
        Some(Pending::DeleteTag(tag)) => drop(after.remove(tag)),
        Some(Pending::DeleteManifest(digest)) => after.retain(|_, found| found != digest),
        None => {}
    }
    // The tags of a manifest that is being deleted go one after the other.
    let between = matches!(pending, Some(Pending::DeleteManifest(_)))
        && found_tags.iter().all(|(tag, digest)| ledger.tags.get(tag) == Some(digest))
        && after.iter().all(|(tag, digest)| found_tags.get(tag) == Some(digest));
    assert!(
        found_tags == ledger.tags || found_tags == after || between,
        "{:?}, {pending:?}: {found_tags:?}",
        ledger.tags
    );
    for (digest, bytes) in &manifests {
        let answer = client.get(&format!("/v2/{repository}/manifests/{digest}")).await;
        let may_be_gone = match &pending {
            Some(Pending::DeleteManifest(gone) | Pending::Tag { digest: gone, .. }) => gone == digest,
            _ => false,
        };
        assert!(answer.status == 200 && answer.body == *bytes || may_be_gone && answer.status == 404, "{digest}");
        if answer.status == 200 {
            ledger.manifests.insert(digest.clone(), bytes.clone());
        } else {
            ledger.manifests.remove(digest);
        }
    }
    let listed = client.get(&format!("/v2/{repository}/tags/list")).await;
    if listed.status == 200 {
        let listed: serde_json::Value = serde_json::from_slice(&listed.body).unwrap();
        let expected: Vec<&String> = found_tags.keys().collect();
        assert_eq!(listed["tags"], serde_json::to_value(expected).unwrap());
    }
    ledger.tags = found_tags;
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9() {
    let rounds: u64 = if std::env::var_os("WHARF_TEST_LONG").is_some() { 500 } else { 20 };
    let root = tempfile::tempdir().unwrap();
    let ledgers: Vec<Arc<Mutex<Ledger>>> = (0..WORKERS)
        .map(|number| Arc::new(Mutex::new(Ledger { repository: format!("worker/{number}"), ..Ledger::default() })))
        .collect();
    let mut random = StdRng::seed_from_u64(7);
    let pushed = || ledgers.iter().map(|ledger| ledger.lock().unwrap().blobs.len()).sum::<usize>();
    // A slow machine pushes little before each kill: it has more rounds.
    for round in (0..10 * rounds).take_while(|round| *round < rounds || pushed() <= 2 * WORKERS) {
        let process = Process::serve(root.path());
        let workers: Vec<_> = ledgers
            .iter()
            .zip(0..)
            .map(|(ledger, worker)| tokio::spawn(work(process.client(), ledger.clone(), round * 100 + worker)))
            .collect();
        tokio::time::sleep(Duration::from_millis(random.random_range(20..400))).await;
        process.kill();
        for worker in workers {
            worker.await.unwrap();
        }
        let process = Process::serve(root.path());
        // It listens before it has cleaned up, and answers afterwards.
        assert_eq!(process.client().get("/v2/").await.status, StatusCode::OK);
        assert!(is_empty(&root.path().join("wharf/tmp")));
        for ledger in &ledgers {
            let mut taken = std::mem::take(&mut *ledger.lock().unwrap());
            check(&process.client(), &mut taken).await;
            *ledger.lock().unwrap() = taken;
        }
        process.kill();
    }
    assert!(pushed() > WORKERS, "next to nothing was pushed: {}", pushed());
}
