use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use super::{digest, image, name, open, put, reference};
use crate::oci::{Digest, Manifest, ManifestType, Reference, Tag};
use crate::serve::repository::{Error, MissingContent, Repositories};

/// What the referrers tag of a subject lists.
async fn listed(repositories: &Repositories, subject: &Digest) -> Option<BTreeSet<Digest>> {
    let tag = Reference::Tag(Tag::of_referrers(subject));
    match repositories.manifest(&name("a/b"), &tag).await {
        Ok(found) => {
            Some(Manifest::parse(&found.bytes).unwrap().children.into_iter().map(|child| child.digest).collect())
        }
        Err(Error::ManifestUnknown(_)) => None,
        Err(error) => panic!("{error}"),
    }
}

async fn push(repositories: &Arc<Repositories>, by: &str, manifest: &Bytes, kind: ManifestType) -> Digest {
    let mut put = put(&name("a/b"), by, manifest);
    put.content_type = kind.as_str().to_owned();
    repositories.put_manifest(put).await.unwrap().digest
}

fn set<const N: usize>(digests: [&Digest; N]) -> BTreeSet<Digest> {
    digests.into_iter().cloned().collect()
}

#[tokio::test]
async fn referrers_are_tagged_as_engines_without_their_api_need_it() {
    let root = tempfile::tempdir().unwrap();
    let repositories = open(root.path(), MissingContent::Allow);
    let subject = digest(b"subject");
    let [one, two] = [b"1", b"2"].map(|config| image(&digest(config), &[], Some(&subject)));
    let one = push(&repositories, digest(&one).as_str(), &one, ManifestType::OciImage).await;
    let two = push(&repositories, digest(&two).as_str(), &two, ManifestType::OciImage).await;
    assert_eq!(listed(&repositories, &subject).await, None);
    assert_eq!(repositories.tag_referrers().await.unwrap(), 1);
    assert_eq!(listed(&repositories, &subject).await, Some(set([&one, &two])));
    let tag = reference(Tag::of_referrers(&subject).as_str());
    let index = repositories.manifest(&name("a/b"), &tag).await.unwrap();
    let text: serde_json::Value = serde_json::from_slice(&index.bytes).unwrap();
    assert_eq!(text["manifests"][0]["artifactType"], "application/vnd.example+json");
    // What is right stays as it is.
    assert_eq!(repositories.tag_referrers().await.unwrap(), 0);
    for gone in [&one, &two] {
        repositories.delete_manifest(&name("a/b"), &Reference::Digest(gone.clone())).await.unwrap();
    }
    assert_eq!(repositories.tag_referrers().await.unwrap(), 1);
    assert_eq!(listed(&repositories, &subject).await, None);
}

#[tokio::test]
async fn what_clients_have_tagged_stays_as_far_as_it_is_there() {
    let root = tempfile::tempdir().unwrap();
    let repositories = open(root.path(), MissingContent::Allow);
    let (subject, other) = (digest(b"subject"), digest(b"other"));
    let describe = |digest: &Digest| json!({"mediaType": "x", "digest": digest.as_str(), "size": 1});
    let loose = image(&digest(b"1"), &[], None);
    let loose = push(&repositories, digest(&loose).as_str(), &loose, ManifestType::OciImage).await;
    let index = json!({
        "schemaVersion": 2,
        "mediaType": ManifestType::OciIndex.as_str(),
        "manifests": [describe(&loose), describe(&digest(b"never pushed"))],
    });
    let tag = Tag::of_referrers(&subject);
    push(&repositories, tag.as_str(), &index.to_string().into(), ManifestType::OciIndex).await;
    let added = image(&digest(b"2"), &[], Some(&subject));
    let added = push(&repositories, digest(&added).as_str(), &added, ManifestType::OciImage).await;
    // A tag of that form which is no index is somebody's image.
    let kept = image(&digest(b"3"), &[], Some(&other));
    push(&repositories, Tag::of_referrers(&other).as_str(), &kept, ManifestType::OciImage).await;

    assert_eq!(repositories.tag_referrers().await.unwrap(), 1);
    assert_eq!(listed(&repositories, &subject).await, Some(set([&loose, &added])));
    let found = repositories.manifest(&name("a/b"), &reference(Tag::of_referrers(&other).as_str())).await.unwrap();
    assert_eq!(found.bytes, kept);
}
