//! Wharf in front of upstreams, as a process of its own with a folder of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::pull::Puller;
use super::upstream::Upstream;
use super::upstream::content::Image;
use crate::operation::{eventually, serve_at};
use crate::process::{Process, free_address};

/// An entry of `mirrors`, with whatever else is said of it.
pub fn entry(host: &str, upstream: &Upstream, more: &str) -> String {
    format!("- {{host: {host}, endpoints: [\"http://{}\"]{more}}}\n", upstream.address)
}

pub struct Mirror {
    pub folder: PathBuf,
    pub address: SocketAddr,
    process: Mutex<Option<Process>>,
    config: String,
    environment: Vec<(&'static str, String)>,
    _whole: tempfile::TempDir,
}

impl Mirror {
    /// Of these mirrors, with the rest of the configuration.
    pub fn start(mirrors: &str, rest: &str) -> Self {
        Self::start_at(free_address(), &format!("{rest}mirrors:\n{mirrors}"))
    }

    /// Where its own address is part of what it is told.
    pub fn start_at(address: SocketAddr, config: &str) -> Self {
        let whole = tempfile::tempdir().unwrap();
        let folder = whole.path().to_owned();
        Self::on(&folder, address, config, whole)
    }

    /// With this in its environment.
    pub fn start_with(mirrors: &str, rest: &str, environment: Vec<(&'static str, String)>) -> Self {
        Self::start_at_with(free_address(), &format!("{rest}mirrors:\n{mirrors}"), environment)
    }

    pub fn start_at_with(address: SocketAddr, config: &str, environment: Vec<(&'static str, String)>) -> Self {
        let whole = tempfile::tempdir().unwrap();
        let (folder, config) = (whole.path().to_owned(), config.to_owned());
        let process = Mutex::new(Some(serve_at(&folder, address, &config, &environment)));
        Self { folder, address, process, config, environment, _whole: whole }
    }

    /// On a folder that is there already.
    pub fn on(folder: &Path, address: SocketAddr, config: &str, whole: tempfile::TempDir) -> Self {
        let process = Mutex::new(Some(serve_at(folder, address, config, &[])));
        Self {
            folder: folder.to_owned(),
            address,
            process,
            config: config.to_owned(),
            environment: Vec::new(),
            _whole: whole,
        }
    }

    /// Of one upstream, `one.example`.
    pub fn of(upstream: &Upstream) -> Self {
        Self::start(&entry("one.example", upstream, ""), "")
    }

    /// A client of `one.example`.
    pub fn puller(&self) -> Puller {
        Puller::new(self.address, "one.example")
    }

    fn serve(&self) -> Process {
        serve_at(&self.folder, self.address, &self.config, &self.environment)
    }

    /// Starts it again with this in its environment.
    pub fn restart_with(&mut self, environment: Vec<(&'static str, String)>) {
        self.environment = environment;
        self.stop_and_start();
    }

    /// Ends it at once, and starts it again on what is there.
    pub fn kill_and_start(&self) {
        self.kill_with(|| ());
    }

    /// With something done in between.
    pub fn kill_with(&self, between: impl FnOnce()) {
        let mut process = self.process.lock().unwrap();
        process.take().unwrap().kill();
        between();
        *process = Some(self.serve());
    }

    pub fn stop_and_start(&self) {
        self.stop_with(|| ());
    }

    /// With something done in between.
    pub fn stop_with(&self, between: impl FnOnce()) {
        let mut process = self.process.lock().unwrap();
        assert!(process.take().unwrap().stop().success());
        between();
        *process = Some(self.serve());
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap()
    }

    pub fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    fn about(&self, what: &str) -> PathBuf {
        let process = self.process.lock().unwrap();
        Path::new("/proc").join(process.as_ref().unwrap().id().to_string()).join(what)
    }

    /// A line of its status, in KiB.
    pub fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(self.about("status")).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// How many descriptors the process has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(self.about("fd")).unwrap().count()
    }

    /// Files that the process holds and that no folder has any more.
    pub fn unlinked(&self) -> Vec<PathBuf> {
        let open = std::fs::read_dir(self.about("fd")).unwrap();
        let targets = open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        targets.filter(|target| target.to_string_lossy().ends_with(" (deleted)")).collect()
    }

    /// What was pulled is kept: readers have the end of a blob as soon as it is proven, a moment before.
    pub async fn settles(&self) {
        eventually(async || self.is_clean()).await;
    }

    /// Whether all blobs of an image are kept.
    pub fn has(&self, image: &Image) -> bool {
        let content = self.root().join("wharf/cache/content/sha256");
        image.blobs().all(|blob| {
            let hex = blob.digest.strip_prefix("sha256:").unwrap();
            content.join(&hex[..2]).join(hex).exists()
        })
    }

    /// Whether no fill has left anything.
    pub fn is_clean(&self) -> bool {
        let partial = self.root().join("wharf/cache/partial");
        self.unlinked().is_empty() && std::fs::read_dir(partial).is_ok_and(|mut entries| entries.next().is_none())
    }
}

/// How many bytes the files below a folder have, each name counted.
pub fn bytes_below(folder: &Path) -> u64 {
    crate::bad_input::files(folder).iter().filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
}
