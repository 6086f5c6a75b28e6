//! Files that are taken up when they change: certificates and users. Kubernetes changes what it mounts by renamed links,
//! which no notice of a folder tells reliably, so the contents are compared. What is malformed is told once and must never
//! be taken up.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::ServeError;
use super::access::{Access, Files, Users};
use super::config::Tls;

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

/// The certificate in force, and a task that follows its files.
///
/// # Errors
/// When the files cannot be used now.
pub fn certificate(
    tls: Tls,
    stop: CancellationToken,
) -> Result<watch::Receiver<Option<Arc<rustls::ServerConfig>>>, ServeError> {
    let found = read_tls(&tls)?;
    let (sender, receiver) = watch::channel(Some(parse_tls(&tls, &found.0, &found.1)?));
    tokio::spawn(async move {
        let take_up = |(certificate, key): &(Vec<u8>, Vec<u8>)| {
            sender.send_replace(Some(parse_tls(&tls, certificate, key)?));
            Ok::<(), ServeError>(())
        };
        follow("certificate", found, || read_tls(&tls), take_up, stop).await;
    });
    Ok(receiver)
}

/// What follows the files of users, once there is an [`Access`] to tell.
pub struct UserFiles {
    files: Files,
    found: (String, Option<String>),
}

/// The users there are now, and what follows their files.
///
/// # Errors
/// When the files cannot be used now.
pub fn users(files: Files) -> Result<(Users, UserFiles), ServeError> {
    let found = files.read()?;
    let users = files.parse(&found.0, found.1.as_deref())?;
    Ok((users, UserFiles { files, found }))
}

impl UserFiles {
    /// Takes up the files when they change, until `stop` is cancelled.
    pub fn follow(self, access: Arc<Access>, stop: CancellationToken) {
        tokio::spawn(async move {
            let files = &self.files;
            let take_up = |(users, writers): &(String, Option<String>)| {
                access.replace(files.parse(users, writers.as_deref())?);
                Ok(())
            };
            follow("users", self.found, || files.read(), take_up, stop).await;
        });
    }
}
