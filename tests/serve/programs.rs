//! Programs of others, each run as a person would run it, with all that it keeps in a folder of the test's.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::Process;

/// A program that `dev/test-engines` has built, or one that is installed.
pub fn tool(name: &str) -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/dev/bin").join(name);
    if built.exists() { built } else { name.into() }
}

/// Runs a program; what it prints.
pub fn run<S: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = S>) -> String {
    run_command(Command::new(tool(name)).args(arguments))
}

/// As [`run`], in a folder.
pub fn run_in<S: AsRef<OsStr>>(folder: &Path, name: &str, arguments: impl IntoIterator<Item = S>) -> String {
    run_command(Command::new(tool(name)).args(arguments).current_dir(folder))
}

pub fn run_command(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Signs images with cosign and a key of its own, without any service beside the registry.
pub struct Signer {
    folder: PathBuf,
}

impl Signer {
    /// What kind of manifest its signatures are.
    pub const KIND: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

    pub fn new(folder: &Path) -> Self {
        let signer = Self { folder: folder.join("cosign") };
        std::fs::create_dir(&signer.folder).unwrap();
        // Nobody is asked which authorities to trust: there is none.
        let trusted = r#"{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}"#;
        std::fs::write(signer.folder.join("trusted.json"), trusted).unwrap();
        signer.cosign(&["generate-key-pair"]);
        signer
    }

    fn cosign(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(tool("cosign"));
        command.args(arguments).current_dir(&self.folder).env("HOME", &self.folder).env("COSIGN_PASSWORD", "");
        run_command(&mut command)
    }

    /// Puts a signature beside an image, as a manifest that refers to it.
    pub fn sign(&self, registry: &Process, image: &str) {
        let image = format!("{}/{image}", registry.address);
        let options =
            ["--yes", "--key", "cosign.key", "--tlog-upload=false", "--new-bundle-format", "--allow-http-registry"];
        self.cosign(&[&["sign"], &options[..], &[&image]].concat());
    }

    /// Finds the signature by the image, and checks it.
    pub fn verify(&self, registry: &Process, image: &str) {
        let image = format!("{}/{image}", registry.address);
        let options = ["--key", "cosign.pub", "--insecure-ignore-tlog", "--new-bundle-format", "--allow-http-registry"];
        let trusted = ["--trusted-root", "trusted.json"];
        let text = self.cosign(&[&["verify"], &options[..], &trusted, &[&image]].concat());
        assert!(text.contains("docker-manifest-digest"), "{text}");
    }
}
