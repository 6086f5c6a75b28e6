//! Pull-through as a configuration has it: the registries that are mirrored, made ready to be asked, and kept in step with the
//! configuration and with the files that it names. What can no longer be used must never take away what could.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use thiserror::Error;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::ServeError;
use super::cache::fill::{self, Fills, Underway};
use super::cache::freshness::Settings;
use super::cache::metrics::Figures;
use super::cache::store::{Bounds, CacheStore, Protected};
use super::cache::{Cache, Metrics, Mirror, Mirrors};
use super::config::{self, Config};
use super::credentials::{self, InvalidCredential};
use super::http;
use super::http::target::Names;
use super::pins::{Demands, Pins, Wanted};
use super::report;
use super::upstream::{Basic, InvalidSettings, Upstream};
use crate::mirror_report::MirrorReport;
use crate::oci::digest::InvalidDigest;
use crate::oci::{Digest, RegistryHost};

/// How long the store may take to be left in order.
const SETTLING: Duration = Duration::from_secs(5);

/// Why a file about mirrors cannot be used. A credential is never repeated.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// There is no credential in it.
    #[error(transparent)]
    Credential(#[from] InvalidCredential),
    /// It is not a list of digests.
    #[error("{path}, line {line}: {source}")]
    Digest {
        /// Which one.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong in it.
        source: InvalidDigest,
    },
    /// What is said of a registry cannot be used.
    #[error("the mirror {host} cannot be used: {source}")]
    Settings {
        /// Which one.
        host: RegistryHost,
        /// What is wrong.
        source: InvalidSettings,
    },
}

/// What is said of one mirror: by the document, and by the files that it names.
#[derive(Clone, PartialEq, Eq)]
struct Said {
    mirror: config::Mirror,
    credential: Option<Basic>,
    authorities: Option<Vec<u8>>,
    closed_ranges: Vec<IpNet>,
}

/// What is said of all mirrors.
#[derive(Clone, PartialEq, Eq)]
pub struct Described {
    mirrors: Vec<Said>,
    cache: config::Cache,
    names: Names,
}

impl Described {
    /// Reads the files that a configuration names.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn read(config: &Config) -> Result<Self, FileError> {
        let said = |mirror: &config::Mirror| {
            Ok::<_, FileError>(Said {
                mirror: mirror.clone(),
                credential: mirror
                    .credentials
                    .as_deref()
                    .map(|path| credentials::read(path, &mirror.host))
                    .transpose()?,
                authorities: mirror.authorities.as_deref().map(read).transpose()?,
                closed_ranges: config.cache.closed_ranges.clone(),
            })
        };
        let mirrors = config.mirrors.iter().map(said).collect::<Result<_, _>>()?;
        Ok(Self { mirrors, cache: config.cache.clone(), names: names(config) })
    }
}

/// Whether all that a configuration says of mirrors, and the files that it names, can be used.
///
/// # Errors
/// When something cannot.
pub fn check(config: &Config) -> Result<(), FileError> {
    mirrors(&Described::read(config)?, None, "wharf")?;
    protected(config).map(|_| ())
}

/// What of the cache is to stay, as the files of a configuration say.
///
/// # Errors
/// When one of them cannot be used.
pub fn protected(config: &Config) -> Result<Protected, FileError> {
    let listed = |path: &Option<PathBuf>| path.as_deref().map(digests).transpose().map(Option::unwrap_or_default);
    let in_use = listed(&config.cache.in_use)?.into_iter().collect();
    let platforms = config.cache.platforms.clone();
    Ok(Protected { in_use, pinned: listed(&config.cache.pinned)?, platforms })
}

/// What is to be fetched ahead.
fn wanted(cache: &config::Cache) -> Wanted {
    let size = cache.size.bytes();
    Wanted { images: cache.pin.clone(), platforms: cache.platforms.clone(), share: size - size / 5 }
}

/// The names by which requests are told apart.
fn names(config: &Config) -> Names {
    let default = config.mirrors.iter().find(|mirror| mirror.default).map(|mirror| mirror.host.clone());
    let mirrors = config.mirrors.iter().map(|mirror| mirror.host.clone()).collect();
    let meant = config.mirrors.iter().map(|mirror| (mirror.host.clone(), mirror.repositories.clone()));
    let local = config.local_names.iter().cloned().collect();
    Names { mirrors, default, local, meant: meant.collect() }
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    std::fs::read(path).map_err(|source| FileError::Read { path: path.to_owned(), source })
}

/// The digests in a file, one a line. Empty lines and those that begin with `#` do not count.
fn digests(path: &Path) -> Result<Vec<Digest>, FileError> {
    let text = read(path)?;
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().map(str::trim).enumerate().map(|(index, line)| (index + 1, line));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let digest = |(line, text): (usize, &str)| {
        text.parse().map_err(|source| FileError::Digest { path: path.to_owned(), line, source })
    };
    lines.map(digest).collect()
}

/// The registries that are described, ready to be asked. Those that `running` has under the same description are taken over
/// with their connections, tokens and breakers.
fn mirrors(
    described: &Described,
    running: Option<(&Described, &Mirrors)>,
    instance: &str,
) -> Result<Mirrors, FileError> {
    let mut by_host = BTreeMap::new();
    for said in &described.mirrors {
        let host = &said.mirror.host;
        let unchanged = running.filter(|(before, _)| before.mirrors.contains(said));
        let mirror = match unchanged.and_then(|(_, mirrors)| mirrors.by_host.get(host)) {
            Some(mirror) => mirror.clone(),
            None => Arc::new(said.mirror(instance)?),
        };
        by_host.insert(host.clone(), mirror);
    }
    let cache = &described.cache;
    let settings = Settings {
        tag_max_age: Duration::from_secs(cache.tag_max_age_seconds),
        stale_if_error: Duration::from_secs(cache.stale_if_error_seconds),
        right_stale_if_error: Duration::from_secs(cache.right_stale_if_error_seconds),
    };
    Ok(Mirrors { by_host, settings })
}

impl Said {
    fn mirror(&self, instance: &str) -> Result<Mirror, FileError> {
        let mut settings = self.mirror.settings();
        settings.credential.clone_from(&self.credential);
        settings.authorities.clone_from(&self.authorities);
        settings.closed_ranges.clone_from(&self.closed_ranges);
        let upstream = Upstream::new(settings, instance);
        let upstream = upstream.map_err(|source| FileError::Settings { host: self.mirror.host.clone(), source })?;
        if let Some(path) = self.mirror.credentials.as_deref().filter(|path| credentials::is_open(path)) {
            tracing::warn!(path = %path.display(), "everybody on this machine may read this credential");
        }
        Ok(Mirror::new(upstream, self.mirror.private_images))
    }
}

/// Pull-through while it runs.
pub struct PullThrough {
    store: CacheStore,
    fills: Arc<Fills>,
    cache: Arc<Cache>,
    /// What the edge knows of it.
    pub edge: Arc<http::Mirrors>,
    pins: Arc<Pins>,
    demands: Arc<Demands>,
    metrics: Metrics,
    instance: String,
    /// What it was last described as.
    described: Mutex<Described>,
}

impl PullThrough {
    /// Over a store under `root`. `random` is random and of this process alone.
    ///
    /// # Errors
    /// When the store cannot be opened, or a registry cannot be asked as it is described.
    pub fn open(root: &Path, described: &Described, metrics: Metrics, random: u128) -> Result<Self, ServeError> {
        let store = CacheStore::open(root, Bounds::of(described.cache.size.bytes()))?;
        let fills = Fills::new(Arc::new(store.clone()), fill::Bounds::default());
        let instance = format!("wharf-{random:032x}");
        let mirrors = mirrors(described, None, &instance)?;
        let cache = Arc::new(Cache::new(store.clone(), fills.clone(), mirrors, metrics.clone(), &rand::random()));
        metrics.show(&described.names.mirrors);
        let edge = http::Mirrors::new(cache.clone(), described.names.clone(), instance.clone(), metrics.clone());
        let demands = Arc::new(Demands::new(store.clone()));
        let pins = Pins::new(cache.clone(), store.clone(), wanted(&described.cache), demands.clone());
        let (described, edge, pins) = (Mutex::new(described.clone()), Arc::new(edge), Arc::new(pins));
        Ok(Self { store, fills, cache, edge, pins, demands, metrics, instance, described })
    }

    /// What is to stay, from now on.
    pub fn protect(&self, protected: Protected) {
        self.demands.listed(protected);
    }

    /// Keeps the store in order from now on.
    pub fn maintain(&self) -> Maintained {
        let end = CancellationToken::new();
        tokio::spawn(self.pins.clone().run(end.clone()));
        let task = tokio::spawn(self.store.clone().maintain(end.clone()));
        Maintained { end: end.drop_guard(), task }
    }

    /// What is on its way.
    pub fn under_way(&self) -> Vec<Underway> {
        self.fills.under_way()
    }

    /// What it tells of itself now.
    pub fn figures(&self) -> Figures {
        let mirrors = self.cache.mirrors();
        let health = |mirror: &Arc<Mirror>| mirror.upstream.health().endpoints;
        let endpoints = mirrors.by_host.iter().map(|(host, mirror)| (host.clone(), health(mirror))).collect();
        Figures { store: self.store.figures(), fills: self.fills.figures(), endpoints }
    }

    /// What it tells the operator now.
    pub fn report(&self) -> MirrorReport {
        let mirrors = self.cache.mirrors();
        let upstreams = mirrors.by_host.values().map(|mirror| report::upstream(mirror)).collect();
        let mut cache = report::cache(self.store.figures());
        cache.pins_exceed |= self.pins.exceed();
        MirrorReport { upstreams, cache, pins: self.pins.report() }
    }

    /// Takes up what is described now. What is asked as before keeps its connections, tokens and breakers.
    ///
    /// # Errors
    /// When a registry cannot be asked as it is described; all stays as it was then.
    pub fn change(&self, described: &Described) -> Result<(), FileError> {
        let mut before = self.described.lock().unwrap_or_else(PoisonError::into_inner);
        let running = (&*before, &*self.cache.mirrors());
        self.cache.change(mirrors(described, Some(running), &self.instance)?);
        self.store.change(Bounds::of(described.cache.size.bytes()));
        self.pins.want(wanted(&described.cache));
        self.metrics.show(&described.names.mirrors);
        self.edge.change(described.names.clone());
        before.clone_from(described);
        Ok(())
    }
}

/// A store that is kept in order. Dropped, it is left as it is.
pub struct Maintained {
    end: DropGuard,
    task: JoinHandle<()>,
}

impl Maintained {
    /// Leaves the store so that the next start finds all of it, once nobody asks any more.
    pub async fn end(self) {
        drop(self.end);
        if tokio::time::timeout(SETTLING, self.task).await.is_err() {
            tracing::warn!(
                "what is kept of other registries could not be left in order; the next start looks at it again"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::{Described, FileError, PullThrough, check, protected};
    use crate::serve::cache::Metrics;
    use crate::serve::config::Config;

    fn config(rest: &str) -> Config {
        Config::parse(Path::new("x"), &format!("root: /data\nlisten: 127.0.0.1:5000\n{rest}")).unwrap()
    }

    #[test]
    fn files_that_cannot_be_used_are_told_without_what_they_hold() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().display();
        let write = |text: &str| std::fs::write(folder.path().join("file"), text).unwrap();
        for (rest, text, expected) in [
            (format!("mirrors: [{{host: a, credentials: {place}/file}}]\n"), "secret", "one line"),
            (format!("mirrors: [{{host: a, credentials: {place}/none}}]\n"), "", "cannot read"),
            (format!("mirrors: [{{host: a, authorities: {place}/file}}]\n"), "secret", "the mirror a cannot be used"),
            (format!("cache: {{pinned: {place}/file}}\n"), "# one\n\nsecret\n", "line 3"),
        ] {
            write(text);
            let error = check(&config(&rest)).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("secret"), "{error}");
        }
        let digest = format!("sha256:{}", "0".repeat(64));
        write(&format!("# pinned\n{digest}\n\n"));
        let protected = protected(&config(&format!("cache: {{pinned: {place}/file}}\n"))).unwrap();
        assert_eq!(protected.pinned, [digest.parse().unwrap()]);
    }

    #[tokio::test]
    async fn what_is_described_as_before_is_asked_as_before() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let described = |rest: &str| Described::read(&config(rest)).unwrap();
        let first = described("mirrors: [{host: a}, {host: b}]\n");
        let running = PullThrough::open(folder.path(), &first, Metrics::default(), 7).unwrap();
        let mirror = |host: &str| running.cache.mirrors().by_host.get(&host.parse().unwrap()).cloned();
        let (a, b) = (mirror("a").unwrap(), mirror("b").unwrap());
        running
            .change(&described("mirrors: [{host: c}, {host: b, proxy: 'http://p'}, {host: a}]\ncache: {size: 1Ki}\n"))
            .unwrap();
        assert!(Arc::ptr_eq(&a, &mirror("a").unwrap()) && !Arc::ptr_eq(&b, &mirror("b").unwrap()));
        assert_eq!((mirror("c").is_some(), running.figures().store.size), (true, 1024));
        // What cannot be used changes nothing.
        let mut wrong = described("mirrors: [{host: d}]\n");
        wrong.mirrors[0].authorities = Some(b"no certificate".to_vec());
        assert!(matches!(running.change(&wrong), Err(FileError::Settings { .. })));
        assert!(Arc::ptr_eq(&a, &mirror("a").unwrap()) && mirror("d").is_none());
        running.change(&described("mirrors: [{host: a}]\n")).unwrap();
        assert!(Arc::ptr_eq(&a, &mirror("a").unwrap()) && mirror("b").is_none());
    }
}
