mod checkpoints;
mod interleavings;
mod referrers_tags;

use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream;
use serde_json::json;

use super::{Chunk, Error, MissingContent, PutManifest, Repositories, Settings, UploadId};
use crate::oci::{Algorithm, Digest, ManifestType, Reference, RepositoryName};
use crate::serve::store::Filesystem;

type Piece = Result<Bytes, Box<dyn std::error::Error + Send + Sync>>;

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

fn open(root: &Path, missing_content: MissingContent) -> Arc<Repositories> {
    reserving(root, missing_content, 0)
}

fn reserving(root: &Path, missing_content: MissingContent, reserve_percent: u8) -> Arc<Repositories> {
    let settings = Settings { missing_content, manifest_memory: 1024 * 1024, open_uploads: 3, reserve_percent };
    Repositories::new(Arc::new(Filesystem::open(root).unwrap()), settings)
}

fn body(pieces: &[&[u8]]) -> impl super::Body + use<> {
    let pieces: Vec<Piece> = pieces.iter().map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    stream::iter(pieces)
}

fn chunk(pieces: &[&[u8]]) -> Chunk<impl super::Body + use<>> {
    Chunk { range: None, body: body(pieces) }
}

fn id(number: u128) -> UploadId {
    UploadId::from_random(number)
}

async fn push_blob(repositories: &Arc<Repositories>, repository: &RepositoryName, bytes: &[u8]) -> Digest {
    let (id, digest) = (id(rand::random()), digest(bytes));
    repositories.begin_upload(repository, id.clone(), Algorithm::Sha256).await.unwrap();
    repositories.finish_upload(repository, &id, chunk(&[bytes]), &digest).await.unwrap();
    digest
}

async fn blob(repositories: &Repositories, repository: &RepositoryName, digest: &Digest) -> Option<Vec<u8>> {
    let content = match repositories.blob(repository, digest).await {
        Ok(blob) => blob.content,
        Err(Error::BlobUnknown(_)) => return None,
        Err(error) => panic!("{error}"),
    };
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < content.length() {
        bytes.extend_from_slice(&content.read(bytes.len() as u64..content.length(), BytesMut::new()).await.unwrap());
    }
    Some(bytes)
}

fn image(config: &Digest, layers: &[&Digest], subject: Option<&Digest>) -> Bytes {
    let layers: Vec<_> = layers
        .iter()
        .map(|digest| json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest.as_str(), "size": 1}))
        .collect();
    let mut value = json!({
        "schemaVersion": 2,
        "mediaType": ManifestType::OciImage.as_str(),
        "config": {"mediaType": "application/vnd.example+json", "digest": config.as_str(), "size": 1},
        "layers": layers,
    });
    if let Some(subject) = subject {
        value["subject"] = json!({"mediaType": ManifestType::OciImage.as_str(), "digest": subject.as_str(), "size": 1});
    }
    value.to_string().into()
}

fn put(repository: &RepositoryName, by: &str, bytes: &Bytes) -> PutManifest {
    PutManifest {
        repository: repository.clone(),
        reference: reference(by),
        tags: Vec::new(),
        content_type: ManifestType::OciImage.as_str().to_owned(),
        bytes: bytes.clone(),
    }
}

#[tokio::test]
async fn an_upload_goes_on_where_it_stopped_also_after_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let large: Vec<u8> = (0..500_000_u32).flat_map(u32::to_be_bytes).collect();
    let (a, digest) = (name("a"), Digest::of(Algorithm::Sha512, &large));
    {
        let repositories = open(root.path(), MissingContent::Reject);
        let progress = repositories.begin_upload(&a, id(1), Algorithm::Sha256).await.unwrap();
        assert_eq!(progress.length, 0);
        // The client goes away after some pieces: they count.
        let pieces: Vec<Piece> = vec![
            Ok(Bytes::copy_from_slice(&large[..400_000])),
            Ok(Bytes::copy_from_slice(&large[400_000..700_001])),
            Err("connection reset".into()),
        ];
        let cut = Chunk { range: None, body: stream::iter(pieces) };
        assert!(matches!(repositories.append(&a, &id(1), cut).await, Err(Error::Receive(_))));
        assert_eq!(repositories.upload_progress(&a, &id(1)).await.unwrap().length, 700_001);
    }
    let repositories = open(root.path(), MissingContent::Reject);
    assert_eq!(repositories.upload_progress(&a, &id(1)).await.unwrap().length, 700_001);
    let early = Chunk { range: Some(700_000..800_000), body: body(&[&large[700_000..800_000]]) };
    let error = repositories.append(&a, &id(1), early).await.unwrap_err();
    assert!(matches!(error, Error::OutOfOrder { offered: 700_000, ref progress } if progress.length == 700_001));
    let right = Chunk { range: Some(700_001..800_000), body: body(&[&large[700_001..800_000]]) };
    assert_eq!(repositories.append(&a, &id(1), right).await.unwrap().length, 800_000);
    repositories.finish_upload(&a, &id(1), chunk(&[&large[800_000..]]), &digest).await.unwrap();
    assert_eq!(blob(&repositories, &a, &digest).await.unwrap(), large);
    assert!(matches!(repositories.upload_progress(&a, &id(1)).await, Err(Error::UploadUnknown)));
}

/// How full the disk of this test is does not matter: a reserve of 100 % is always touched.
#[tokio::test]
async fn in_the_reserve_nothing_is_taken_and_all_else_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let a = name("a");
    let there = {
        let repositories = open(root.path(), MissingContent::Reject);
        repositories.begin_upload(&a, id(1), Algorithm::Sha256).await.unwrap();
        repositories.append(&a, &id(1), chunk(&[b"one"])).await.unwrap();
        push_blob(&repositories, &a, b"there").await
    };
    let repositories = reserving(root.path(), MissingContent::Reject, 100);
    let refused = |error: &Error| matches!(error, Error::Store(error) if error.is_full());
    let error = repositories.begin_upload(&a, id(2), Algorithm::Sha256).await.unwrap_err();
    assert!(refused(&error), "{error}");
    let error = repositories.append(&a, &id(1), chunk(&[b"two"])).await.unwrap_err();
    assert!(refused(&error), "{error}");
    assert_eq!(blob(&repositories, &a, &there).await.unwrap(), b"there");
    // What is there is finished.
    repositories.finish_upload(&a, &id(1), chunk(&[]), &digest(b"one")).await.unwrap();
    repositories.put_manifest(put(&a, "1", &image(&there, &[&digest(b"one")], None))).await.unwrap();
    drop(repositories);
    // There is room again.
    push_blob(&open(root.path(), MissingContent::Reject), &a, b"more").await;
}

#[tokio::test]
async fn a_chunk_that_contradicts_itself_does_not_count() {
    let root = tempfile::tempdir().unwrap();
    let repositories = open(root.path(), MissingContent::Reject);
    let a = name("a");
    repositories.begin_upload(&a, id(1), Algorithm::Sha256).await.unwrap();
    repositories.append(&a, &id(1), chunk(&[b"one"])).await.unwrap();
    let large = vec![7; 1_000_000];
    for pieces in [&[b"two".as_slice()][..], &[&large, &large], &[]] {
        let lying = Chunk { range: Some(3..1_000_003), body: body(pieces) };
        let error = repositories.append(&a, &id(1), lying).await.unwrap_err();
        assert!(matches!(error, Error::ChunkLength { announced: 1_000_000 }), "{error}");
        assert_eq!(repositories.upload_progress(&a, &id(1)).await.unwrap().length, 3);
    }
    repositories.finish_upload(&a, &id(1), chunk(&[b"!"]), &digest(b"one!")).await.unwrap();
    assert_eq!(blob(&repositories, &a, &digest(b"one!")).await.unwrap(), b"one!");
}

#[tokio::test]
async fn uploads_belong_to_their_repository_end_once_and_are_bounded() {
    let root = tempfile::tempdir().unwrap();
    let repositories = open(root.path(), MissingContent::Reject);
    let (a, b) = (name("a"), name("b"));
    for number in 1..=3 {
        repositories.begin_upload(&a, id(number), Algorithm::Sha256).await.unwrap();
    }
    let fourth = repositories.begin_upload(&a, id(4), Algorithm::Sha256).await;
    assert!(matches!(fourth, Err(Error::TooManyUploads)));
    assert!(matches!(repositories.append(&b, &id(1), chunk(&[b"x"])).await, Err(Error::UploadUnknown)));
    let wrong = repositories.finish_upload(&a, &id(1), chunk(&[b"x"]), &digest(b"y")).await;
    assert!(matches!(wrong, Err(Error::WrongDigest { .. })));
    assert!(blob(&repositories, &a, &digest(b"x")).await.is_none());
    assert!(blob(&repositories, &a, &digest(b"y")).await.is_none());
    repositories.cancel_upload(&a, &id(2)).await.unwrap();
    for number in [1, 2, 4] {
        assert!(matches!(repositories.upload_progress(&a, &id(number)).await, Err(Error::UploadUnknown)), "{number}");
    }
    assert_eq!(repositories.cancel_idle_uploads(3600).await.unwrap(), 0);
    assert_eq!(repositories.open_uploads(), 1);
    assert_eq!(repositories.cancel_idle_uploads(0).await.unwrap(), 1);
    assert_eq!(repositories.open_uploads(), 0);
}

#[tokio::test]
async fn a_mount_needs_a_link_that_the_caller_may_pull() {
    let root = tempfile::tempdir().unwrap();
    let repositories = open(root.path(), MissingContent::Reject);
    let (a, b, c) = (name("a"), name("b"), name("c"));
    let digest = push_blob(&repositories, &a, b"layer").await;
    let all = |_: &RepositoryName| true;
    let not_a = |name: &RepositoryName| name.as_str() != "a";
    // The bytes are there, but neither source has them for this caller.
    assert!(!repositories.mount(&b, &digest, Some(&a), not_a).await.unwrap());
    assert!(!repositories.mount(&b, &digest, None, not_a).await.unwrap());
    assert!(!repositories.mount(&b, &super::tests::digest(b"unknown"), Some(&a), all).await.unwrap());
    assert!(blob(&repositories, &b, &digest).await.is_none());
    assert!(repositories.mount(&b, &digest, Some(&a), all).await.unwrap());
    assert!(repositories.mount(&c, &digest, None, all).await.unwrap());
    repositories.delete_blob(&a, &digest).await.unwrap();
    assert!(matches!(repositories.delete_blob(&a, &digest).await, Err(Error::BlobUnknown(_))));
    assert!(blob(&repositories, &a, &digest).await.is_none());
    assert!(!repositories.mount(&name("d"), &digest, Some(&a), |name| name.as_str() == "a").await.unwrap());
    assert_eq!(blob(&repositories, &c, &digest).await.unwrap(), b"layer");
}

#[tokio::test]
async fn a_small_blob_is_read_once_and_gone_when_it_is_deleted() {
    let root = tempfile::tempdir().unwrap();
    let repositories = open(root.path(), MissingContent::Reject);
    let (a, b) = (name("a"), name("b"));
    let digest = push_blob(&repositories, &a, b"configuration").await;
    assert_eq!(blob(&repositories, &a, &digest).await.unwrap(), b"configuration");
    let links = root.path().join("docker/registry/v2/repositories/a/_layers");
    std::fs::rename(&links, root.path().join("out of reach")).unwrap();
    assert_eq!(blob(&repositories, &a, &digest).await.unwrap(), b"configuration");
    assert!(blob(&repositories, &b, &digest).await.is_none());
    std::fs::rename(root.path().join("out of reach"), &links).unwrap();
    repositories.delete_blob(&a, &digest).await.unwrap();
    assert!(blob(&repositories, &a, &digest).await.is_none());
}

#[tokio::test]
async fn content_that_another_engine_has_lost_can_be_pushed_again() {
    let root = tempfile::tempdir().unwrap();
    let (a, digest) = (name("a"), Digest::of(Algorithm::Sha512, b"content"));
    // distribution keeps sha512 under sha256, and its collector takes that for garbage.
    let folder = root.path().join("docker/registry/v2/repositories/a/_layers/sha512").join(digest.hex());
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("link"), super::tests::digest(b"content").as_str()).unwrap();
    let repositories = open(root.path(), MissingContent::Reject);
    assert!(blob(&repositories, &a, &digest).await.is_none());
    repositories.begin_upload(&a, id(1), Algorithm::Sha512).await.unwrap();
    repositories.finish_upload(&a, &id(1), chunk(&[b"content"]), &digest).await.unwrap();
    assert_eq!(blob(&repositories, &a, &digest).await.unwrap(), b"content");
}

#[tokio::test]
async fn a_manifest_is_kept_as_the_policy_says_and_byte_for_byte() {
    for (policy, image_refused, index_refused) in [
        (MissingContent::Reject, true, true),
        (MissingContent::IndexOnly, true, false),
        (MissingContent::Allow, false, false),
    ] {
        let root = tempfile::tempdir().unwrap();
        let repositories = open(root.path(), policy);
        let (a, b) = (name("a"), name("b"));
        let (config, layer) = (push_blob(&repositories, &a, b"{}").await, push_blob(&repositories, &a, b"1").await);
        let manifest = image(&config, &[&layer], Some(&digest(b"no such subject")));
        // Elsewhere the bytes exist, but there is no link to them.
        let refused = repositories.put_manifest(put(&b, "latest", &manifest)).await;
        assert_eq!(matches!(refused, Err(Error::MissingContent(_))), image_refused, "{policy:?}");
        let index = json!({
            "schemaVersion": 2,
            "mediaType": ManifestType::OciIndex.as_str(),
            "manifests": [{"digest": digest(&manifest).as_str(), "size": manifest.len()}],
        });
        let index = Bytes::from(index.to_string());
        let mut put_index = put(&name("c"), "latest", &index);
        put_index.content_type = ManifestType::OciIndex.as_str().to_owned();
        let refused = repositories.put_manifest(put_index).await;
        assert_eq!(matches!(refused, Err(Error::MissingContent(_))), index_refused, "{policy:?}");

        let mut tagged = put(&a, digest(&manifest).as_str(), &manifest);
        tagged.tags = vec!["one".parse().unwrap(), "two".parse().unwrap()];
        let accepted = repositories.put_manifest(tagged).await.unwrap();
        assert_eq!(accepted.subject, Some(digest(b"no such subject")));
        for by in ["one", "two", accepted.digest.as_str()] {
            let found = repositories.manifest(&a, &reference(by)).await.unwrap();
            assert_eq!((&found.bytes, found.kind), (&manifest, ManifestType::OciImage));
            assert_eq!(found.digest, accepted.digest);
        }
    }
}

#[tokio::test]
async fn a_manifest_that_is_not_what_it_says_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let repositories = open(root.path(), MissingContent::Allow);
    let a = name("a");
    let manifest = image(&digest(b"{}"), &[], None);
    let wrong = repositories.put_manifest(put(&a, digest(b"other").as_str(), &manifest)).await;
    assert!(matches!(wrong, Err(Error::WrongDigest { .. })));
    let mut denied = put(&a, "latest", &manifest);
    denied.content_type = ManifestType::DockerImage.as_str().to_owned();
    assert!(matches!(repositories.put_manifest(denied).await, Err(Error::ManifestInvalid(_))));
    let unknown = repositories.tags(&a, None, 9).await;
    assert!(matches!(unknown, Err(Error::RepositoryUnknown(_))));
}

#[tokio::test]
async fn tags_move_are_listed_in_pages_and_go_with_their_manifest() {
    let root = tempfile::tempdir().unwrap();
    let repositories = open(root.path(), MissingContent::Allow);
    let a = name("a");
    let (one, two) = (image(&digest(b"1"), &[], None), image(&digest(b"2"), &[], None));
    for tag in ["c", "a", "B", "b"] {
        repositories.put_manifest(put(&a, tag, &one)).await.unwrap();
    }
    repositories.put_manifest(put(&a, "b", &two)).await.unwrap();
    let list = async |last, limit| {
        let (tags, more) = repositories.tags(&a, last, limit).await.unwrap();
        (tags.iter().map(ToString::to_string).collect::<Vec<_>>(), more)
    };
    assert_eq!(list(None, 9).await, (vec!["B".into(), "a".into(), "b".into(), "c".into()], false));
    assert_eq!(list(Some("B"), 2).await, (vec!["a".into(), "b".into()], true));
    assert_eq!(list(Some("a"), 2).await, (vec!["b".into(), "c".into()], false));
    assert_eq!(list(None, 0).await, (vec![], true));
    assert_eq!(repositories.manifest(&a, &reference("b")).await.unwrap().bytes, two);
    repositories.delete_manifest(&a, &reference("c")).await.unwrap();
    let gone = repositories.delete_manifest(&a, &reference("c")).await;
    assert!(matches!(gone, Err(Error::ManifestUnknown(_))));
    repositories.delete_manifest(&a, &Reference::Digest(digest(&one))).await.unwrap();
    assert_eq!(list(None, 9).await, (vec!["b".into()], false));
    for by in ["a", "B", "c", digest(&one).as_str()] {
        assert!(matches!(repositories.manifest(&a, &reference(by)).await, Err(Error::ManifestUnknown(_))), "{by}");
    }
    // The same manifest once more does not bring back its tags.
    repositories.put_manifest(put(&a, digest(&one).as_str(), &one)).await.unwrap();
    assert_eq!(list(None, 9).await, (vec!["b".into()], false));
}

#[tokio::test]
async fn referrers_are_found_filtered_and_forgotten_also_after_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let (a, subject) = (name("a"), digest(b"subject"));
    let (one, two) = (image(&digest(b"1"), &[], Some(&subject)), image(&digest(b"2"), &[], Some(&subject)));
    let other = image(&digest(b"1"), &[], Some(&digest(b"other")));
    let listed = async |repositories: &Repositories, kind: Option<&str>| {
        let (descriptors, more) = repositories.referrers(&a, &subject, kind, None).await.unwrap();
        assert!(!more);
        let mut found: Vec<Digest> = descriptors.into_iter().map(|descriptor| descriptor.digest).collect();
        found.sort();
        found
    };
    let mut both = vec![digest(&one), digest(&two)];
    both.sort();
    {
        let repositories = open(root.path(), MissingContent::Allow);
        assert!(listed(&repositories, None).await.is_empty());
        for manifest in [&one, &other, &two] {
            repositories.put_manifest(put(&a, digest(manifest).as_str(), manifest)).await.unwrap();
        }
        assert_eq!(listed(&repositories, None).await, both);
    }
    let repositories = open(root.path(), MissingContent::Allow);
    assert_eq!(listed(&repositories, None).await, both);
    assert_eq!(listed(&repositories, Some("application/vnd.example+json")).await, both);
    assert!(listed(&repositories, Some("application/other")).await.is_empty());
    let (rest, _) = repositories.referrers(&a, &subject, None, Some(&both[0])).await.unwrap();
    assert_eq!((rest.len(), &rest[0].digest), (1, &both[1]));
    repositories.delete_manifest(&a, &Reference::Digest(digest(&one))).await.unwrap();
    assert_eq!(listed(&repositories, None).await, [digest(&two)]);
}
