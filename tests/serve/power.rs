//! Loss of power, on paper: everything that reaches the disk is recorded, and for each moment the disk is built anew with
//! nothing but what was synced by then. What had been acknowledged must be there; what is there must be whole.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use futures::stream;
use wharf::oci::{Algorithm, Digest, Reference, RepositoryName};
use wharf::serve::repository::{Chunk, MissingContent, PutManifest, Repositories, Settings, UploadId};
use wharf::serve::store::Filesystem;
use wharf::serve::store::filesystem::Operation;

use super::client::{IMAGE, image};
use super::paper::{Left, Paper};

enum Event {
    Disk(Operation),
    Acknowledged(Fact),
}

/// What a client was told.
#[derive(Clone)]
enum Fact {
    Blob(RepositoryName, Digest),
    Manifest(RepositoryName, Reference, Bytes),
    NoTag(RepositoryName, Reference),
}

pub fn repositories(store: Filesystem) -> Arc<Repositories> {
    let settings =
        Settings { missing_content: MissingContent::Reject, manifest_memory: 0, open_uploads: 100, reserve_percent: 0 };
    Repositories::new(Arc::new(store), settings)
}

/// Clients that push, move tags and delete; what they were told goes into the log with what reached the disk.
async fn workload(repositories: &Arc<Repositories>, log: &Arc<Mutex<Vec<Event>>>) {
    let told = |fact| log.lock().unwrap().push(Event::Acknowledged(fact));
    for (round, repository) in ["a/b", "a/b", "c"].into_iter().enumerate() {
        let name: RepositoryName = repository.parse().unwrap();
        let blobs: Vec<Vec<u8>> = (0..2).map(|number| format!("blob {round} {number}").into_bytes()).collect();
        for (number, blob) in blobs.iter().enumerate() {
            let id = UploadId::from_random((round * 10 + number) as u128);
            let digest = Digest::of(Algorithm::Sha256, blob);
            repositories.begin_upload(&name, id.clone(), Algorithm::Sha256).await.unwrap();
            let half = blob.len() / 2;
            let chunk = |bytes: &[u8]| Chunk { range: None, body: stream::iter([Ok(Bytes::copy_from_slice(bytes))]) };
            repositories.append(&name, &id, chunk(&blob[..half])).await.unwrap();
            repositories.finish_upload(&name, &id, chunk(&blob[half..]), &digest).await.unwrap();
            told(Fact::Blob(name.clone(), digest));
        }
        let manifest = image(&blobs.iter().map(Vec::as_slice).collect::<Vec<_>>());
        for reference in ["latest", &format!("v{round}")] {
            let reference: Reference = reference.parse().unwrap();
            let put = PutManifest {
                repository: name.clone(),
                reference: reference.clone(),
                tags: Vec::new(),
                content_type: IMAGE.to_owned(),
                bytes: manifest.clone(),
            };
            let accepted = repositories.put_manifest(put).await.unwrap();
            told(Fact::Manifest(name.clone(), reference, manifest.clone()));
            told(Fact::Manifest(name.clone(), Reference::Digest(accepted.digest), manifest.clone()));
        }
    }
    let (name, gone): (RepositoryName, Reference) = ("a/b".parse().unwrap(), "v0".parse().unwrap());
    repositories.delete_manifest(&name, &gone).await.unwrap();
    told(Fact::NoTag(name, gone));
    let (from, to): (RepositoryName, RepositoryName) = ("c".parse().unwrap(), "mounted/here".parse().unwrap());
    let digest = Digest::of(Algorithm::Sha256, b"blob 2 0");
    assert!(repositories.mount(&to, &digest, Some(&from), |_| true).await.unwrap());
    told(Fact::Blob(to, digest));
}

/// The facts that hold at the end of a log: later ones replace earlier ones about the same name.
fn facts(log: &[Event]) -> Vec<Fact> {
    let mut facts: BTreeMap<String, Fact> = BTreeMap::new();
    for event in log {
        let Event::Acknowledged(fact) = event else { continue };
        let key = match fact {
            Fact::Blob(name, digest) => format!("blob {name} {digest}"),
            Fact::Manifest(name, reference, _) | Fact::NoTag(name, reference) => format!("manifest {name} {reference}"),
        };
        facts.insert(key, fact.clone());
    }
    facts.into_values().collect()
}

async fn check(repositories: &Repositories, fact: &Fact, next: Option<&Fact>) -> Result<(), String> {
    match fact {
        Fact::Blob(name, digest) => {
            let blob = repositories.blob(name, digest).await.map_err(|error| error.to_string())?;
            let bytes = blob
                .content
                .read(0..blob.content.length(), BytesMut::new())
                .await
                .map_err(|error| error.to_string())?;
            let whole = Digest::of(Algorithm::Sha256, &bytes) == *digest;
            whole.then_some(()).ok_or(format!("{digest} is damaged"))
        }
        Fact::Manifest(name, reference, bytes) => match repositories.manifest(name, reference).await {
            Ok(found) if found.bytes == *bytes => Ok(()),
            // A tag may be at what was asked for next, which nobody was told yet.
            Ok(found) => match next {
                Some(Fact::Manifest(_, _, next)) if *next == found.bytes => Ok(()),
                _ => Err(format!("{name} {reference} is something else")),
            },
            Err(_) if matches!(next, Some(Fact::NoTag(of, tag)) if of == name && tag == reference) => Ok(()),
            Err(error) => Err(error.to_string()),
        },
        Fact::NoTag(name, reference) => match repositories.manifest(name, reference).await {
            Ok(_) => Err(format!("{name} {reference} is back")),
            Err(_) => Ok(()),
        },
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_loss_of_power_at_any_moment() {
    let log = Arc::new(Mutex::new(Vec::new()));
    {
        let root = tempfile::tempdir().unwrap();
        let written = log.clone();
        let hook = move |operation: &Operation| {
            written.lock().unwrap().push(Event::Disk(operation.clone()));
            Ok(())
        };
        let store = Filesystem::open_with(root.path(), Some(Arc::new(hook))).unwrap();
        workload(&repositories(store), &log).await;
    }
    let log = Arc::into_inner(log).unwrap().into_inner().unwrap();
    let mut paper = Paper::new(&["wharf", "wharf/tmp", "wharf/uploads"]);
    for moment in 0..=log.len() {
        for left in [Left::Synced, Left::SyncedAndNames] {
            let root = tempfile::tempdir().unwrap();
            paper.build(root.path(), left);
            let repositories = repositories(Filesystem::open(root.path()).unwrap());
            let next = log[moment..].iter().find_map(|event| match event {
                Event::Acknowledged(fact) => Some(fact),
                Event::Disk(_) => None,
            });
            for fact in facts(&log[..moment]) {
                if let Err(problem) = check(&repositories, &fact, next).await {
                    panic!("power lost at step {moment} of {}, {left:?} is left: {problem}", log.len());
                }
            }
        }
        if let Some(Event::Disk(operation)) = log.get(moment) {
            paper.apply(operation);
        }
    }
    assert!(log.len() > 200, "{}", log.len());
}

#[tokio::test]
async fn a_full_disk_is_told_and_whatever_was_there_stays() {
    let allowed = Arc::new(Mutex::new(usize::MAX));
    let hook = {
        let allowed = allowed.clone();
        move |_: &Operation| {
            let mut allowed = allowed.lock().unwrap();
            *allowed = allowed.checked_sub(1).ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(())
        }
    };
    let root = tempfile::tempdir().unwrap();
    let repositories = repositories(Filesystem::open_with(root.path(), Some(Arc::new(hook))).unwrap());
    let name: RepositoryName = "a".parse().unwrap();
    let latest: Reference = "latest".parse().unwrap();
    let push = async |content: &[u8], number: u128| {
        let (id, digest) = (UploadId::from_random(number), Digest::of(Algorithm::Sha256, content));
        let chunk = Chunk { range: None, body: stream::iter([Ok(Bytes::copy_from_slice(content))]) };
        repositories.begin_upload(&name, id.clone(), Algorithm::Sha256).await?;
        if let Err(error) = repositories.finish_upload(&name, &id, chunk, &digest).await {
            let _ = repositories.cancel_upload(&name, &id).await;
            return Err(error);
        }
        let (repository, reference, content_type) = (name.clone(), latest.clone(), IMAGE.to_owned());
        let put = PutManifest { repository, reference, tags: Vec::new(), content_type, bytes: image(&[content]) };
        repositories.put_manifest(put).await.map(drop)
    };
    push(b"old", 0).await.unwrap();
    let mut refusals = 0;
    for count in 0.. {
        *allowed.lock().unwrap() = count;
        let pushed = push(b"new", 1000 + count as u128).await;
        *allowed.lock().unwrap() = usize::MAX;
        let found = repositories.manifest(&name, &latest).await.unwrap().bytes.clone();
        let expected =
            if pushed.is_ok() { [image(&[b"new"]), image(&[b"new"])] } else { [image(&[b"old"]), image(&[b"new"])] };
        assert!(expected.contains(&found), "after {count} operations");
        check(&repositories, &Fact::Blob(name.clone(), Digest::of(Algorithm::Sha256, b"old")), None).await.unwrap();
        match pushed {
            Ok(()) => break,
            Err(wharf::serve::repository::Error::Store(error)) => assert!(error.is_full(), "{error}"),
            Err(error) => panic!("{error}"),
        }
        refusals += 1;
    }
    assert!(refusals > 20, "{refusals}");
}
