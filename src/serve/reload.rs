//! Files that are taken up when they change: certificates, users, what is said of mirrors, and the configuration itself.
//! Kubernetes changes what it mounts by renamed links, which no notice of a folder tells reliably, so the contents are compared.
//! What is malformed is told once and must never be taken up.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::ServeError;
use super::access::{Access, Files, Rights, Users};
use super::cache;
use super::cache::store::Protected;
use super::config::{Config, Tls};
use super::listen::Certificate;
use super::pull_through::{self, Described, PullThrough};

/// The configuration in force.
pub type Current = watch::Receiver<Arc<Config>>;

/// How often files are looked at.
const INTERVAL: Duration = Duration::from_secs(5);

/// Looks at files again and again, and takes up what has changed.
async fn follow<T: PartialEq, E: Display>(
    what: &'static str,
    mut last: T,
    read: impl Fn() -> Result<T, E>,
    take_up: impl Fn(&T) -> Result<(), E>,
    stop: CancellationToken,
) {
    let mut told = None;
    while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
        let result = match read() {
            Ok(found) if found == last => Ok(()),
            Ok(found) => {
                let result = take_up(&found);
                if result.is_ok() {
                    tracing::info!(what, "changed files are taken up");
                    last = found;
                }
                result
            }
            Err(error) => Err(error),
        };
        let problem = result.err().map(|error| error.to_string());
        if let Some(problem) = problem.as_ref().filter(|_| told != problem) {
            tracing::warn!(what, problem, "changed files are not taken up");
        }
        told = problem;
    }
}

fn read_tls(tls: &Tls) -> Result<(Vec<u8>, Vec<u8>), ServeError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| ServeError::Tls { path: path.to_owned(), problem: error.to_string() })
    };
    Ok((read(&tls.certificate)?, read(&tls.key)?))
}

fn parse_tls(tls: &Tls, certificate: &[u8], key: &[u8]) -> Result<Arc<rustls::ServerConfig>, ServeError> {
    let fail = |path: &Path, problem: String| ServeError::Tls { path: path.to_owned(), problem };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|error| fail(&tls.certificate, error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| fail(&tls.key, error.to_string()))?;
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
    let mut config = config.map_err(|error| fail(&tls.certificate, error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// What the files of a certificate say now, and which they are.
type CertificateFiles = (Tls, (Vec<u8>, Vec<u8>));

fn read_certificate(config: &Config) -> Result<Option<CertificateFiles>, ServeError> {
    config.tls.clone().map(|tls| read_tls(&tls).map(|found| (tls, found))).transpose()
}

fn parse_certificate(files: Option<&CertificateFiles>) -> Result<Option<Arc<rustls::ServerConfig>>, ServeError> {
    files.map(|(tls, (certificate, key))| parse_tls(tls, certificate, key)).transpose()
}

/// The certificate in force, and a task that follows its files.
///
/// # Errors
/// When the files cannot be used now.
pub fn certificate(current: Current, stop: CancellationToken) -> Result<Certificate, ServeError> {
    let found = read_certificate(&current.borrow())?;
    let (sender, receiver) = watch::channel(parse_certificate(found.as_ref())?);
    tokio::spawn(async move {
        let take_up = |found: &Option<CertificateFiles>| {
            sender.send_replace(parse_certificate(found.as_ref())?);
            Ok::<(), ServeError>(())
        };
        follow("certificate", found, || read_certificate(&current.borrow()), take_up, stop).await;
    });
    Ok(receiver)
}

/// What the anonymous may do, what the files of users say now, and which they are.
type UserFiles = (Rights, Option<(Files, (String, Option<String>))>);

fn read_users(config: &Config) -> Result<UserFiles, ServeError> {
    let files = config.access.files().map(|files| files.read().map(|found| (files, found))).transpose()?;
    Ok((config.access.anonymous_rights(), files))
}

fn parse_users((_, files): &UserFiles) -> Result<Option<Users>, ServeError> {
    let parse = |(files, (users, writers)): &(Files, (String, Option<String>))| files.parse(users, writers.as_deref());
    Ok(files.as_ref().map(parse).transpose()?)
}

/// Who may do what, and a task that follows the files of users. `key` is random and of this process alone.
///
/// # Errors
/// When the files cannot be used now.
pub fn access(current: Current, key: &[u8; 32], stop: CancellationToken) -> Result<Arc<Access>, ServeError> {
    let found = read_users(&current.borrow())?;
    let access = Arc::new(Access::new(found.0, parse_users(&found)?, key));
    let told = access.clone();
    tokio::spawn(async move {
        let take_up = |found: &UserFiles| {
            told.replace(found.0, parse_users(found)?);
            Ok::<(), ServeError>(())
        };
        follow("users", found, || read_users(&current.borrow()), take_up, stop).await;
    });
    Ok(access)
}

/// Pull-through over a store under the root, and tasks that follow what is said of it.
///
/// # Errors
/// When that, or the store, cannot be used now.
pub fn pull_through(
    current: Current,
    metrics: cache::Metrics,
    stop: CancellationToken,
) -> Result<Arc<PullThrough>, ServeError> {
    let config = current.borrow().clone();
    let (found, protected) = (Described::read(&config)?, pull_through::protected(&config)?);
    let running = Arc::new(PullThrough::open(&config.root, &found, metrics, rand::random())?);
    running.protect(protected.clone());
    let (mirrors, content) = (running.clone(), running.clone());
    let (described, listed, stopped) = (current.clone(), current, stop.clone());
    tokio::spawn(async move {
        let read = || Described::read(&described.borrow());
        follow("mirrors", found, read, |found| mirrors.change(found), stopped).await;
    });
    tokio::spawn(async move {
        let take_up = |found: &Protected| {
            content.protect(found.clone());
            Ok(())
        };
        follow("what is pinned and in use", protected, || pull_through::protected(&listed.borrow()), take_up, stop)
            .await;
    });
    Ok(running)
}

/// Follows the file of the configuration itself. A change is taken up whole, if all files that it names can be used; the tasks
/// above see it next.
pub async fn configuration(
    file: PathBuf,
    current: watch::Sender<Arc<Config>>,
    take_up: impl Fn(&Config),
    stop: CancellationToken,
) {
    let read = || Config::read(&file).map_err(ServeError::from);
    let take_up = |found: &Config| {
        let (config, kept) = found.clone().within(&current.borrow());
        parse_users(&read_users(&config)?)?;
        parse_certificate(read_certificate(&config)?.as_ref())?;
        pull_through::check(&config)?;
        if !kept.is_empty() {
            tracing::warn!(
                ?kept,
                "these parts of the configuration change with the next start only; the rest is taken up"
            );
        }
        take_up(&config);
        current.send_replace(Arc::new(config));
        Ok::<(), ServeError>(())
    };
    let last = Config::clone(&current.borrow());
    follow("configuration", last, read, take_up, stop).await;
}
