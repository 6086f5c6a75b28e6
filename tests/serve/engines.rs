//! The real engine whose layout the store has: what one has written, the other serves, referrers too. Run by
//! `dev/test-engines`, which builds the programs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use http::Method;

use super::client::{Client, digest};
use super::process::{Process, free_address};
use super::programs::{Signer, run, run_in, tool};

/// CNCF distribution on a root.
pub fn distribution(folder: &Path, root: &Path) -> (Process, PathBuf) {
    distribution_with(folder, root, "")
}

/// With more in its configuration.
pub fn distribution_with(folder: &Path, root: &Path, more: &str) -> (Process, PathBuf) {
    let address = free_address();
    let config = folder.join("distribution.yaml");
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\n\
         http: {{addr: \"{address}\"}}\n{more}",
        root.display()
    );
    std::fs::write(&config, text).unwrap();
    (Process::start(Command::new(tool("registry")).arg("serve").arg(&config), address), config)
}

async fn is_whole(client: &Client, repository: &str, tag: &str, manifest: &Bytes, blobs: &[&[u8]]) {
    for reference in [tag, &digest(manifest)] {
        let target = format!("/v2/{repository}/manifests/{reference}");
        let answer =
            client.send(Method::GET, &target, &[("accept", super::client::IMAGE)], Bytes::new()).await.unwrap();
        assert_eq!((answer.status.as_u16(), &answer.body), (200, manifest), "{repository} {reference}");
    }
    for blob in blobs {
        let answer = client.get(&format!("/v2/{repository}/blobs/{}", digest(blob))).await;
        assert!(answer.status == 200 && answer.body == *blob, "{repository}");
    }
}

#[tokio::test]
#[ignore = "needs the registry program: dev/test-engines"]
async fn each_engine_serves_what_the_other_has_written() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let large = vec![7_u8; 3_000_000];
    let (ours, theirs): ([&[u8]; 2], [&[u8]; 2]) = ([b"{}", &large], [b"{ }", b"their layer"]);
    let wharf = Process::serve(&root);
    let first = wharf.client().push_image("a/b", "first", &ours).await;
    wharf.client().push_image("a/b", "gone", &[b"{  }"]).await;
    let target = "/v2/a/b/manifests/gone";
    assert_eq!(wharf.client().send(Method::DELETE, target, &[], Bytes::new()).await.unwrap().status, 202);
    assert!(wharf.stop().success());

    let (registry, config) = distribution(folder.path(), &root);
    is_whole(&registry.client(), "a/b", "first", &first, &ours).await;
    assert_eq!(registry.client().get("/v2/a/b/tags/list").await.body, "{\"name\":\"a/b\",\"tags\":[\"first\"]}\n");
    let second = registry.client().push_image("a/b", "second", &theirs).await;
    registry.client().push_image("c", "moved", &ours).await;
    let moved = registry.client().push_image("c", "moved", &theirs).await;
    registry.stop();
    run("registry", ["garbage-collect", config.to_str().unwrap()]);

    let wharf = Process::serve(&root);
    is_whole(&wharf.client(), "a/b", "first", &first, &ours).await;
    is_whole(&wharf.client(), "a/b", "second", &second, &theirs).await;
    is_whole(&wharf.client(), "c", "moved", &moved, &theirs).await;
    let listed = wharf.client().get("/v2/a/b/tags/list").await.body;
    assert_eq!(listed, "{\"name\":\"a/b\",\"tags\":[\"first\",\"second\"]}");
    let third = wharf.client().push_image("c", "third", &ours).await;
    assert!(wharf.stop().success());

    let (registry, _) = distribution(folder.path(), &root);
    is_whole(&registry.client(), "c", "third", &third, &ours).await;
    is_whole(&registry.client(), "c", "moved", &moved, &theirs).await;
}

/// What refers to an image, as oras finds it: digests with their kinds.
fn referrers(registry: &Process, image: &str) -> BTreeMap<String, String> {
    let image = format!("{}/{image}", registry.address);
    let found = run("oras", ["discover", "--plain-http", "--format", "json", &image]);
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let found = found["referrers"].as_array().unwrap().iter();
    found.map(|referrer| (text(&referrer["digest"]), text(&referrer["artifactType"]))).collect()
}

fn kinds_of_referrers(registry: &Process, image: &str) -> BTreeSet<String> {
    referrers(registry, image).into_values().collect()
}

fn attach(folder: &Path, registry: &Process, image: &str, kind: &str) {
    std::fs::write(folder.join("attached"), kind).unwrap();
    let image = format!("{}/{image}", registry.address);
    run_in(folder, "oras", ["attach", "--plain-http", "--artifact-type", kind, &image, "attached:text/plain"]);
}

fn set<const N: usize>(kinds: [&str; N]) -> BTreeSet<String> {
    kinds.into_iter().map(str::to_owned).collect()
}

#[tokio::test]
#[ignore = "needs the registry program, oras and cosign: dev/test-engines"]
async fn referrers_are_listed_on_either_engine_after_the_other_had_the_root() {
    let (sbom, test, signature) = ("application/vnd.example.sbom", "application/vnd.example.test", Signer::KIND);
    let folder = tempfile::tempdir().unwrap();
    let (root, image) = (folder.path().join("root"), "a/b:1");
    let signer = Signer::new(folder.path());
    let collect = |config: &Path, all: &[&str]| {
        let config = [config.to_str().unwrap()];
        run("registry", ["garbage-collect"].iter().chain(all).chain(&config));
    };
    // Distribution has no referrers API: the clients keep the tag that lists them.
    let (registry, config) = distribution(folder.path(), &root);
    registry.client().push_image("a/b", "1", &[b"{}", b"layer"]).await;
    attach(folder.path(), &registry, image, sbom);
    signer.sign(&registry, image);
    // cosign describes its signature there by the type of its configuration.
    let pushed: Vec<String> = referrers(&registry, image).into_keys().collect();
    registry.stop();
    collect(&config, &[]);

    // Wharf has one: the clients leave the tag alone.
    let wharf = Process::serve(&root);
    let found = referrers(&wharf, image);
    assert_eq!(found.keys().cloned().collect::<Vec<_>>(), pushed);
    assert_eq!(found.values().cloned().collect::<BTreeSet<_>>(), set([sbom, signature]));
    signer.verify(&wharf, image);
    attach(folder.path(), &wharf, image, test);
    let gone = found.iter().find(|(_, kind)| *kind == sbom).unwrap().0;
    let target = format!("/v2/a/b/manifests/{gone}");
    assert_eq!(wharf.client().send(Method::DELETE, &target, &[], Bytes::new()).await.unwrap().status, 202);
    assert_eq!(kinds_of_referrers(&wharf, image), set([test, signature]));
    assert!(wharf.stop().success());
    let tag = || run(env!("CARGO_BIN_EXE_wharf"), ["tag-referrers", "--root", root.to_str().unwrap()]);
    tag();

    let (registry, config) = distribution(folder.path(), &root);
    assert_eq!(kinds_of_referrers(&registry, image), set([test, signature]));
    signer.verify(&registry, image);
    attach(folder.path(), &registry, image, sbom);
    registry.stop();
    // Whatever no tag leads to goes, and nothing else.
    collect(&config, &["--delete-untagged"]);
    tag();
    let (registry, _) = distribution(folder.path(), &root);
    assert_eq!(kinds_of_referrers(&registry, image), set([sbom, test, signature]));
    signer.verify(&registry, image);
    registry.stop();

    let wharf = Process::serve(&root);
    assert_eq!(kinds_of_referrers(&wharf, image), set([sbom, test, signature]));
    signer.verify(&wharf, image);
}
