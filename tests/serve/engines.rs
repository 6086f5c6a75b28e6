//! Real clients, and the real engine whose layout the store has: what one has written, the other serves.
//! Run by `dev/test-engines`, which builds the programs.

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use http::Method;

use super::client::{Client, digest, image};
use super::process::{Process, free_address};

pub fn tool(name: &str) -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/dev/bin").join(name);
    if built.exists() { built } else { name.into() }
}

fn run(name: &str, arguments: &[&str]) -> String {
    let output = Command::new(tool(name)).args(arguments).output().unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

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
    run("registry", &["garbage-collect", config.to_str().unwrap()]);

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

/// An image layout on disk, as skopeo reads it.
fn layout(folder: &Path) -> PathBuf {
    let layout = folder.join("layout");
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    // An empty archive.
    let layer = vec![0_u8; 1024];
    let rootfs = serde_json::json!({"type": "layers", "diff_ids": [digest(&layer)]});
    let config =
        serde_json::json!({"architecture": "amd64", "os": "linux", "rootfs": rootfs, "config": {}}).to_string();
    let manifest = image(&[config.as_bytes(), &layer]);
    for bytes in [config.as_bytes(), &layer, &manifest] {
        std::fs::write(blobs.join(digest(bytes).trim_start_matches("sha256:")), bytes).unwrap();
    }
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [{
        "mediaType": super::client::IMAGE, "digest": digest(&manifest), "size": manifest.len(),
        "annotations": {"org.opencontainers.image.ref.name": "latest"},
    }]});
    std::fs::write(layout.join("index.json"), index.to_string()).unwrap();
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    layout
}

#[tokio::test]
#[ignore = "needs skopeo and crane: dev/test-engines"]
async fn real_clients_push_and_pull() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::serve(&folder.path().join("root"));
    let source = format!("oci:{}:latest", layout(folder.path()).display());
    let address = process.address;
    let target = format!("docker://{address}/skopeo/image:1");
    run("skopeo", &["copy", "--dest-tls-verify=false", &source, &target]);
    let back = format!("oci:{}/back:latest", folder.path().display());
    run("skopeo", &["copy", "--src-tls-verify=false", &target, &back]);
    run("crane", &["copy", "--insecure", &format!("{address}/skopeo/image:1"), &format!("{address}/crane/image:2")]);
    run("crane", &["validate", "--insecure", "--remote", &format!("{address}/crane/image:2")]);
    run("crane", &["tag", "--insecure", &format!("{address}/crane/image:2"), "3"]);
    assert_eq!(run("crane", &["ls", "--insecure", &format!("{address}/crane/image")]), "2\n3\n");
    let digest = run("crane", &["digest", "--insecure", &format!("{address}/crane/image:3")]);
    run("crane", &["delete", "--insecure", &format!("{address}/crane/image@{}", digest.trim())]);
    assert_eq!(run("crane", &["ls", "--insecure", &format!("{address}/crane/image")]), "");
}
