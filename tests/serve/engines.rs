//! The real engine whose layout the store has: what one has written, the other serves. Run by
//! `dev/test-engines`, which builds the programs.

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use http::Method;

use super::client::{Client, digest};
use super::process::{Process, free_address};
use super::programs::{run, tool};

/// CNCF distribution on a root.
fn distribution(folder: &Path, root: &Path) -> (Process, PathBuf) {
    let address = free_address();
    let config = folder.join("distribution.yaml");
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\n\
         http: {{addr: \"{address}\"}}\n",
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
