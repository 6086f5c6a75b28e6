//! Runtimes and tools that pull through a mirror, each by its own settings of one. Run by `dev/test-engines`, which builds or
//! installs the programs.

use std::path::{Path, PathBuf};
use std::process::Command;

use http::Method;

use super::faults::{REPOSITORY, TAG};
use super::served::{Mirror, entry};
use super::upstream::Upstream;
use super::upstream::content::Index;
use super::upstream::faults::{Fault, Kind, Place, Rule};
use crate::clients::{Containerd, generations};
use crate::programs::{run, run_command, tool};

const SIZES: [usize; 2] = [20_000, 2_000_000];

async fn one(seed: u64) -> (Index, Upstream, Mirror) {
    let index = Index::of_seed(seed, &SIZES);
    let upstream = Upstream::with([(REPOSITORY, index.is_tagged(TAG))]).await;
    let mirror = Mirror::of(&upstream);
    (index, upstream, mirror)
}

/// That the layers of one platform were fetched, once, and no others.
fn only_one_platform(index: &Index, upstream: &Upstream) {
    let asked = upstream.asked();
    for blob in &index.images[1].layers {
        assert!(asked.iter().all(|(_, reference)| *reference != blob.digest), "{asked:?}");
    }
    for blob in index.images[0].blobs() {
        assert_eq!(upstream.sent(&blob.digest).len(), 1, "{asked:?}");
    }
    assert_eq!(upstream.problems(), Vec::<String>::new());
}

/// The folder of containerd's own settings: a mirror, and an origin that nobody listens at.
fn hosts(folder: &Path, mirror: &Mirror) -> PathBuf {
    let hosts = folder.join("hosts");
    let of_one = hosts.join("one.example");
    std::fs::create_dir_all(&of_one).unwrap();
    let address = mirror.address;
    let text = format!(
        "server = \"http://127.0.0.1:9\"\n[host.\"http://{address}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
    );
    std::fs::write(of_one.join("hosts.toml"), text).unwrap();
    hosts
}

fn fetch(containerd: &Containerd, hosts: &Path) -> Result<String, String> {
    let hosts = hosts.display().to_string();
    let image = format!("one.example/{REPOSITORY}:{TAG}");
    let arguments = ["content", "fetch", "--platform", "linux/amd64", "--hosts-dir", &hosts, &image];
    let output = containerd.client(&arguments).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(text) } else { Err(text) }
}

/// What containerd has of a digest.
fn has(containerd: &Containerd, digest: &str) -> bool {
    containerd.ctr(&["content", "ls", "--quiet"]).lines().any(|line| line == digest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs containerd 1.6 and 2: dev/test-engines"]
async fn both_generations_of_containerd_pull_one_platform_through() {
    for (number, (program, client)) in generations().into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let (index, upstream, mirror) = one(number as u64).await;
        let hosts = hosts(folder.path(), &mirror);
        let containerd = Containerd::start(&folder.path().join("containerd"), &program, &client);
        fetch(&containerd, &hosts).unwrap();
        only_one_platform(&index, &upstream);
        for blob in index.images[0].blobs() {
            assert!(has(&containerd, &blob.digest));
        }
        // From what is kept.
        mirror.settles().await;
        upstream.leave().await;
        let another = Containerd::start(&folder.path().join("another"), &program, &client);
        fetch(&another, &hosts).unwrap();
    }
}

/// A runtime takes a cut for a pause: it keeps what came and asks for the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs containerd 1.6 and 2: dev/test-engines"]
async fn after_a_wrong_fill_both_generations_of_containerd_pull_well_from_a_mirror_that_is() {
    for (number, (program, client)) in generations().into_iter().enumerate() {
        for place in [Place::First, Place::Middle, Place::Last] {
            let folder = tempfile::tempdir().unwrap();
            let (index, upstream, mirror) = one(10 + number as u64).await;
            let layer = &index.images[0].layers[1];
            // For as long as the first pull tries.
            upstream.rule(Rule::always(Kind::GetBlob, Fault::WrongBytes(place)).of(&layer.digest));
            let hosts = hosts(folder.path(), &mirror);
            let containerd = Containerd::start(&folder.path().join("containerd"), &program, &client);
            let name = format!("{}, {place:?}", program.display());
            let first = fetch(&containerd, &hosts);
            println!("{name}, first: {first:?} {:?}", upstream.sent(&layer.digest));
            assert!(first.is_err() && !has(&containerd, &layer.digest), "{name}");
            upstream.heal();
            let mut pulls = 0;
            while let Err(text) = fetch(&containerd, &hosts) {
                println!("{name}, again: {text} {:?}", upstream.sent(&layer.digest));
                pulls += 1;
                assert!(pulls < 5, "{name}: it does not heal: {text}");
                tokio::time::sleep(std::time::Duration::from_secs(2)).await;
            }
            println!("{name}: healed by pull {} {:?}", pulls + 1, upstream.sent(&layer.digest));
            assert!(has(&containerd, &layer.digest), "{name}");
        }
    }
}

/// The settings of podman, skopeo and CRI-O.
fn registries(folder: &Path, mirror: &Mirror) -> PathBuf {
    let file = folder.join("registries.conf");
    let text = format!(
        "unqualified-search-registries = []\n[[registry]]\nlocation = \"one.example\"\n[[registry.mirror]]\n\
         location = \"{}/one.example\"\ninsecure = true\n",
        mirror.address
    );
    std::fs::write(&file, text).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs podman: dev/test-engines"]
async fn podman_pulls_one_platform_through() {
    let folder = tempfile::tempdir().unwrap();
    let (index, upstream, mirror) = one(20).await;
    let at = |part: &str| folder.path().join(part).display().to_string();
    let image = format!("one.example/{REPOSITORY}:{TAG}");
    let mut command = Command::new(tool("podman"));
    command.args(["--root", &at("storage"), "--runroot", &at("run"), "--tmpdir", &at("tmp")]);
    command.args(["--storage-driver=vfs", "--events-backend=file", "--cgroup-manager=cgroupfs"]);
    command.args(["pull", "--arch", "amd64", &image]);
    run_command(command.env("CONTAINERS_REGISTRIES_CONF", registries(folder.path(), &mirror)));
    only_one_platform(&index, &upstream);
    let other = &index.images[1].manifest.digest;
    assert!(upstream.asked().iter().all(|(_, reference)| reference != other));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs skopeo: dev/test-engines"]
async fn skopeo_copies_one_platform_through() {
    let folder = tempfile::tempdir().unwrap();
    let (index, upstream, mirror) = one(21).await;
    let registries = registries(folder.path(), &mirror).display().to_string();
    let source = format!("docker://one.example/{REPOSITORY}:{TAG}");
    let target = format!("oci:{}:{TAG}", folder.path().join("layout").display());
    let arguments = ["--registries-conf", &registries, "--override-arch", "amd64", "copy", &source, &target];
    run("skopeo", arguments);
    only_one_platform(&index, &upstream);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs crane: dev/test-engines"]
async fn crane_pulls_one_platform_through_by_a_prefix_and_from_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let index = Index::of_seed(22, &SIZES);
    let upstream = Upstream::with([(REPOSITORY, index.is_tagged(TAG))]).await;
    let mirror = Mirror::start(&entry("one.example", &upstream, ", default: true"), "");
    let address = mirror.address;
    for name in [format!("{address}/one.example/{REPOSITORY}:{TAG}"), format!("{address}/{REPOSITORY}:{TAG}")] {
        let file = folder.path().join("image.tar").display().to_string();
        run("crane", ["pull", "--insecure", "--platform", "linux/amd64", &name, &file]);
        assert_eq!(run("crane", ["digest", "--insecure", &name]).trim(), index.manifest.digest);
    }
    only_one_platform(&index, &upstream);
    let listed = run("crane", ["ls", "--insecure", &format!("{address}/one.example/{REPOSITORY}")]);
    assert_eq!(listed.trim(), TAG);
    let came = mirror.puller().ask(Method::GET, "library/none/tags/list", &[]).await;
    assert_eq!(came.status, 404);
}
