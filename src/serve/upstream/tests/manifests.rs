//! Manifests that are not what they are said to be.

use super::server::{Reply, Server};
use super::{MANIFEST, blob, is_wrong, manifest, repository, upstream};
use crate::oci::{Algorithm, Digest, ManifestType, Reference};
use crate::serve::upstream::{Failure, Identity, Object};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

#[tokio::test]
async fn a_manifest_is_what_its_bytes_say() {
    let (right, wrong) = (manifest().to_string(), blob().to_string());
    let long = Digest::of(Algorithm::Sha512, MANIFEST.as_bytes());
    let huge = "x".repeat(4 * 1024 * 1024 + 1);
    let (image, digest) = (ManifestType::OciImage.as_str(), "docker-content-digest");
    let first = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    for (headers, body, expected) in [
        (vec![("content-type", INDEX)], MANIFEST, Ok(manifest())),
        (vec![("content-type", INDEX), (digest, &*right)], MANIFEST, Ok(manifest())),
        (vec![("content-type", INDEX), (digest, long.as_str())], MANIFEST, Ok(long.clone())),
        (vec![("content-type", INDEX), (digest, "md5:0")], MANIFEST, Ok(manifest())),
        (vec![("content-type", INDEX), (digest, &*wrong)], MANIFEST, Err("should be")),
        (vec![("content-type", image)], MANIFEST, Err("another")),
        (vec![], MANIFEST, Err("another")),
        (vec![("content-type", INDEX)], "<html>", Err("not a manifest")),
        (vec![("content-type", INDEX)], &huge, Err("longer")),
        (vec![("content-type", INDEX), ("content-length", "4194305")], "", Err("longer")),
        (vec![("content-type", first)], "{}", Err("none")),
        (vec![("content-type", INDEX)], r#"{"schemaVersion":1}"#, Err("none")),
    ] {
        let said: Vec<(String, String)> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let answered = body.to_owned();
        let server = Server::new(move |_| {
            let headers: Vec<(&str, &str)> = said.iter().map(|(name, value)| (&**name, &**value)).collect();
            Reply::new(200, &headers, answered.as_bytes()).then_close()
        });
        let server = server.await;
        let found = super::tag(&upstream(&server), &Identity::Own).await;
        match expected {
            Ok(digest) => assert_eq!(found, Ok(digest), "{headers:?}"),
            Err("none") => assert!(matches!(found, Err(Failure::NotFound(_))), "{headers:?} {found:?}"),
            Err(with) => assert!(is_wrong(&found, with), "{headers:?} {found:?}"),
        }
    }
}

#[tokio::test]
async fn a_digest_gives_that_manifest_or_none() {
    let server = Server::new(super::content).await;
    let upstream = upstream(&server);
    for (asked, expected) in
        [(manifest(), true), (Digest::of(Algorithm::Sha512, MANIFEST.as_bytes()), true), (blob(), false)]
    {
        let found = upstream.manifest(&repository(), &Reference::Digest(asked.clone()), &Identity::Own).await;
        let found = found.map(|manifest| manifest.digest);
        assert!(if expected { found == Ok(asked) } else { is_wrong(&found, "should be") });
    }
}

#[tokio::test]
async fn a_head_says_what_its_headers_say() {
    let right = manifest().to_string();
    for (headers, expected) in [
        (vec![("docker-content-digest", &*right)], Ok(Some(manifest()))),
        (vec![("docker-content-digest", "md5:0")], Ok(None)),
        (vec![("content-type", "application/vnd.docker.distribution.manifest.v1+json")], Err(())),
    ] {
        let said: Vec<(&str, String)> = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let said: Vec<(String, String)> = said.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let server = Server::new(move |_| {
            let headers: Vec<(&str, &str)> = said.iter().map(|(name, value)| (&**name, &**value)).collect();
            Reply::new(200, &headers, MANIFEST.as_bytes())
        });
        let server = server.await;
        let upstream = upstream(&server);
        let tag = Object::Manifest(repository(), "latest".parse().unwrap());
        let found = upstream.head(&tag, &Identity::Own).await;
        assert_eq!(found.clone().map(|head| head.digest).map_err(|_| ()), expected);
        assert!(found.is_ok_and(|head| head.length == Some(MANIFEST.len() as u64)) || expected.is_err());
        let other = Object::Manifest(repository(), Reference::Digest(blob()));
        let found = upstream.head(&other, &Identity::Own).await.map(|_| manifest());
        assert!(expected != Ok(Some(manifest())) || is_wrong(&found, "said to be"));
    }
}
