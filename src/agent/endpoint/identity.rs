//! The key and the certificate by which a node's container runtime knows the node's endpoint from whatever else may bind its port.
//! They are made on the node and stay there: the key must never be readable by anybody but root, nor leave the node.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

/// The file with the certificate and the key.
const FILE: &str = "endpoint.pem";
/// How many years a certificate is valid. It is trusted on this node only, by a file of ours beside it.
const YEARS: i32 = 30;

/// Why the node has no identity.
#[derive(Debug, Error)]
pub enum Error {
    /// A file or folder cannot be used.
    #[error("cannot use {path}, which holds the key of the node's endpoint: {source}")]
    File {
        /// Which one.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The key or the certificate cannot be made.
    #[error("cannot make the certificate of the node's endpoint: {0}")]
    Make(#[from] rcgen::Error),
    /// TLS refuses what was made.
    #[error("cannot use the certificate of the node's endpoint: {0}")]
    Use(#[from] rustls::Error),
}

/// The node's identity.
pub struct Identity {
    /// The certificate, in PEM.
    pub certificate: String,
    /// How connections are accepted with it.
    pub config: Arc<rustls::ServerConfig>,
}

impl Identity {
    /// The identity kept in a folder; made anew where there is none, or none that can be used.
    ///
    /// # Errors
    /// When it can neither be read nor made.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => match std::str::from_utf8(&bytes).ok().and_then(Self::read) {
                Some(identity) => return Ok(identity),
                None => {
                    tracing::warn!(path = %path.display(), "the key of the node's endpoint is damaged: a new one is made");
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::File { path, source }),
        }
        let text = make()?;
        write(folder, &path, &text).map_err(|source| Error::File { path, source })?;
        Self::read(&text).ok_or(Error::Use(rustls::Error::General("its own key does not belong to it".to_owned())))
    }

    /// The identity that a file's text holds, if the two parts belong to each other.
    fn read(text: &str) -> Option<Self> {
        let certificate = CertificateDer::from_pem_slice(text.as_bytes()).ok()?;
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).ok()?;
        let end = "-----END CERTIFICATE-----\n";
        let pem = text.get(..text.find(end)? + end.len())?.to_owned();
        // This compares the two.
        let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key);
        let mut config = config.ok()?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Some(Self { certificate: pem, config: Arc::new(config) })
    }
}

/// Removes what is kept in a folder. What is not there is no error.
///
/// # Errors
/// When it cannot be removed.
pub fn forget(folder: &Path) -> io::Result<()> {
    for path in [folder.join(FILE), temporary(folder)] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// A certificate, signed by itself, and its key, in PEM. It signs nothing else: a client
/// that is given it as an authority believes it alone.
fn make() -> Result<String, rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut parameters = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, "wharf node endpoint");
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // A clock may be wrong while a node starts.
    parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(2020 + YEARS, 1, 1);
    let certificate = parameters.self_signed(&key)?;
    Ok(format!("{}{}", certificate.pem().replace("\r\n", "\n"), key.serialize_pem().replace("\r\n", "\n")))
}

fn temporary(folder: &Path) -> PathBuf {
    folder.join(".endpoint.tmp")
}

fn write(folder: &Path, path: &Path, text: &str) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let temporary = temporary(folder);
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn it_stays_the_same_and_is_made_anew_when_it_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let first = Identity::load(&state).unwrap().certificate;
        assert!(first.starts_with("-----BEGIN CERTIFICATE-----") && !first.contains("KEY"), "{first}");
        assert_eq!(Identity::load(&state).unwrap().certificate, first);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&state), mode(&state.join(FILE))), (0o700, 0o600));

        let whole = fs::read_to_string(state.join(FILE)).unwrap();
        let other = { make().unwrap() };
        let end = whole.find("-----BEGIN PRIVATE").unwrap();
        let mixed = format!("{}{}", &whole[..end], &other[other.find("-----BEGIN PRIVATE").unwrap()..]);
        for damaged in ["", &whole[..end], &whole[end..], &mixed, "nonsense"] {
            fs::write(state.join(FILE), damaged).unwrap();
            let anew = Identity::load(&state).unwrap().certificate;
            assert_ne!(anew, first);
            assert_eq!(Identity::load(&state).unwrap().certificate, anew);
        }
        forget(&state).unwrap();
        forget(&state).unwrap();
        assert_eq!(fs::read_dir(&state).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Identity::load(&file.join("state")).err().unwrap().to_string();
        assert!(error.contains("file/state") && error.contains("Not a directory"), "{error}");
    }
}
