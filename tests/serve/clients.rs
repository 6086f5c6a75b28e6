//! Real clients, each pushing and pulling. Run by `dev/test-engines`, which builds or installs the programs.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::client::{IMAGE, digest, image};
use super::process::Process;
use super::programs::{Signer, run, run_command, run_in, tool};

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
        "mediaType": IMAGE, "digest": digest(&manifest), "size": manifest.len(),
        "annotations": {"org.opencontainers.image.ref.name": "latest"},
    }]});
    std::fs::write(layout.join("index.json"), index.to_string()).unwrap();
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    layout
}

/// A server that has one image, `skopeo/image:1`.
fn serve(folder: &Path) -> Process {
    let process = Process::serve(&folder.join("root"));
    let source = format!("oci:{}:latest", layout(folder).display());
    let target = format!("docker://{}/skopeo/image:1", process.address);
    run("skopeo", ["copy", "--dest-tls-verify=false", &source, &target]);
    process
}

#[tokio::test]
#[ignore = "needs skopeo and crane: dev/test-engines"]
async fn skopeo_and_crane_copy_tag_list_and_delete() {
    let folder = tempfile::tempdir().unwrap();
    let process = serve(folder.path());
    let address = process.address;
    let back = format!("oci:{}/back:latest", folder.path().display());
    run("skopeo", ["copy", "--src-tls-verify=false", &format!("docker://{address}/skopeo/image:1"), &back]);
    run("crane", ["copy", "--insecure", &format!("{address}/skopeo/image:1"), &format!("{address}/crane/image:2")]);
    run("crane", ["validate", "--insecure", "--remote", &format!("{address}/crane/image:2")]);
    run("crane", ["tag", "--insecure", &format!("{address}/crane/image:2"), "3"]);
    assert_eq!(run("crane", ["ls", "--insecure", &format!("{address}/crane/image")]), "2\n3\n");
    let digest = run("crane", ["digest", "--insecure", &format!("{address}/crane/image:3")]);
    run("crane", ["delete", "--insecure", &format!("{address}/crane/image@{}", digest.trim())]);
    assert_eq!(run("crane", ["ls", "--insecure", &format!("{address}/crane/image")]), "");
}

#[tokio::test]
#[ignore = "needs podman and buildah: dev/test-engines"]
async fn podman_and_buildah_build_push_and_pull() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::serve(&folder.path().join("root"));
    let address = process.address;
    // Copied files need neither a container nor a mount.
    let storage = |name: &str, arguments: &[&str]| {
        let at = |part: &str| folder.path().join(name).join(part).display().to_string();
        let own =
            ["--root".to_owned(), at("storage"), "--runroot".to_owned(), at("run"), "--storage-driver=vfs".to_owned()];
        let podman = [
            "--tmpdir".to_owned(),
            at("tmp"),
            "--events-backend=file".to_owned(),
            "--cgroup-manager=cgroupfs".to_owned(),
        ];
        let more = if name == "podman" { &podman[..] } else { &[] };
        let all = own.iter().chain(more).map(String::as_str).chain(arguments.iter().copied());
        run_in(folder.path(), name, all)
    };
    std::fs::write(folder.path().join("Containerfile"), "FROM scratch\nCOPY content /\n").unwrap();
    std::fs::write(folder.path().join("content"), "of the image").unwrap();
    let (built, pushed) = (format!("{address}/buildah/image:1"), format!("{address}/podman/image:2"));
    storage("buildah", &["bud", "--isolation=chroot", "--tag", &built, "."]);
    storage("buildah", &["push", "--tls-verify=false", &built]);
    storage("podman", &["pull", "--tls-verify=false", &built]);
    storage("podman", &["push", "--tls-verify=false", &built, &pushed]);
    storage("buildah", &["pull", "--tls-verify=false", &pushed]);
    run("crane", ["validate", "--insecure", "--remote", &pushed]);
}

#[tokio::test]
#[ignore = "needs oras and cosign: dev/test-engines"]
async fn oras_and_cosign_attach_and_find_what_refers_to_an_artifact() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::serve(&folder.path().join("root"));
    let artifact = format!("{}/oras/artifact:1", process.address);
    std::fs::write(folder.path().join("file"), "content").unwrap();
    run_in(folder.path(), "oras", ["push", "--plain-http", &artifact, "file:text/plain"]);
    let kind = "application/vnd.example.sbom";
    run_in(folder.path(), "oras", ["attach", "--plain-http", "--artifact-type", kind, &artifact, "file:text/plain"]);
    let signer = Signer::new(folder.path());
    signer.sign(&process, "oras/artifact:1");
    signer.verify(&process, "oras/artifact:1");
    let found = run("oras", ["discover", "--plain-http", "--format", "json", &artifact]);
    assert!(found.contains(kind) && found.contains(Signer::KIND), "{found}");
    // They know of the API by its answer, so that no tag lists them.
    assert_eq!(run("oras", ["repo", "tags", "--plain-http", &format!("{}/oras/artifact", process.address)]), "1\n");
    run_in(folder.path(), "oras", ["pull", "--plain-http", "--output", "back", &artifact]);
    assert_eq!(std::fs::read_to_string(folder.path().join("back/file")).unwrap(), "content");
}

#[tokio::test]
#[ignore = "needs helm: dev/test-engines"]
async fn helm_pushes_and_pulls_charts() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::serve(&folder.path().join("root"));
    let registry = format!("oci://{}/charts", process.address);
    std::fs::create_dir(folder.path().join("back")).unwrap();
    run_in(folder.path(), "helm", ["create", "chart"]);
    run_in(folder.path(), "helm", ["package", "chart"]);
    run_in(folder.path(), "helm", ["push", "--plain-http", "chart-0.1.0.tgz", &registry]);
    let chart = format!("{registry}/chart");
    run_in(folder.path(), "helm", ["pull", "--plain-http", &chart, "--version", "0.1.0", "--destination", "back"]);
    let [pushed, pulled] =
        ["chart-0.1.0.tgz", "back/chart-0.1.0.tgz"].map(|file| std::fs::read(folder.path().join(file)));
    assert_eq!(pushed.unwrap(), pulled.unwrap());
}

/// containerd without its CRI plugins, all in one folder.
pub struct Containerd {
    process: Child,
    folder: PathBuf,
    client: PathBuf,
}

/// How long containerd may take to come up on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

impl Containerd {
    pub fn start(folder: &Path, containerd: &Path, client: &Path) -> Self {
        std::fs::create_dir(folder).unwrap();
        let config = folder.join("config.toml");
        // Of 1.6 and of 2: what is unknown is left alone.
        let off = [
            "grpc.v1.cri",
            "cri.v1.images",
            "cri.v1.runtime",
            "internal.v1.opt",
            "nri.v1.nri",
            "snapshotter.v1.btrfs",
            "snapshotter.v1.devmapper",
            "snapshotter.v1.zfs",
            "snapshotter.v1.aufs",
        ]
        .map(|name| format!("io.containerd.{name}"));
        let at = folder.display();
        let text = format!(
            "version = 2\nroot = \"{at}/root\"\nstate = \"{at}/state\"\ndisabled_plugins = {off:?}\n\
             [grpc]\naddress = \"{at}/socket\"\n[ttrpc]\naddress = \"{at}/socket.ttrpc\"\n"
        );
        std::fs::write(&config, text).unwrap();
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let mut command = Command::new(containerd);
        command.arg("--config").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let started = Self { process: command.spawn().unwrap(), folder: folder.to_owned(), client: client.to_owned() };
        let end = Instant::now() + PATIENCE;
        while !folder.join("socket").exists() {
            let log = || std::fs::read_to_string(folder.join("log")).unwrap();
            assert!(Instant::now() < end, "{}: {}", containerd.display(), log());
            std::thread::sleep(Duration::from_millis(20));
        }
        started
    }

    /// Its own client, with these arguments.
    pub fn client(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.client);
        command.arg("--address").arg(self.folder.join("socket")).args(arguments);
        command
    }

    pub fn ctr(&self, arguments: &[&str]) -> String {
        run_command(&mut self.client(arguments))
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Both generations of containerd, each with its client: the test cluster's, and that of the distribution.
pub fn generations() -> [(PathBuf, PathBuf); 2] {
    let both =
        [(tool("containerd"), tool("ctr"), " 2."), ("/usr/bin/containerd".into(), "/usr/bin/ctr".into(), " 1.6.")];
    both.map(|(containerd, client, version): (PathBuf, PathBuf, &str)| {
        let found = run(containerd.to_str().unwrap(), ["--version"]);
        assert!(found.contains(version), "{found}");
        (containerd, client)
    })
}

#[tokio::test]
#[ignore = "needs containerd 1.6 and 2, skopeo and crane: dev/test-engines"]
async fn both_generations_of_containerd_fetch_and_push() {
    for (containerd, client) in generations() {
        let folder = tempfile::tempdir().unwrap();
        let process = serve(folder.path());
        let containerd = Containerd::start(&folder.path().join("containerd"), &containerd, &client);
        let (fetched, pushed) =
            (format!("{}/skopeo/image:1", process.address), format!("{}/ctr/image:2", process.address));
        containerd.ctr(&["content", "fetch", "--plain-http", &fetched]);
        containerd.ctr(&["images", "tag", &fetched, &pushed]);
        containerd.ctr(&["images", "push", "--plain-http", &pushed]);
        run("crane", ["validate", "--insecure", "--remote", &pushed]);
    }
}
