//! Makes the secrets of a Registry: its credential and its certificate. The only stage with randomness.
//! What exists and is whole is kept: a credential is made once, a certificate again only for a stated reason.

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Secret, Service};

use super::leaf::{self, Leaf, Rule, keep_or_issue};
use super::names::Names;
use super::observe::{Found, Observed};
use crate::operator::authority::Authority;
use crate::operator::certificate::{CertificateError, KeyedCertificate};
use crate::operator::settings::Settings;

/// The one user of a Registry until tokens come.
pub const USERNAME: &str = "wharf";
/// Keys of the Secret with the credential.
pub const USERNAME_KEY: &str = "username";
/// See [`USERNAME_KEY`].
pub const PASSWORD_KEY: &str = "password";
/// See [`USERNAME_KEY`]: the line that the engine reads.
pub const HTPASSWD_KEY: &str = "htpasswd";
/// Key of the same Secret: what the engine signs the state of uploads with, so that any of its pods, and the next one, goes
/// on with an upload.
pub const UPLOAD_SECRET_KEY: &str = "upload-secret";

/// The engine checks the hash at each request. The password has 256 random bits, which no number of guesses finds, so the
/// cheapest hash that bcrypt allows is as safe as a slow one.
const BCRYPT_COST: u32 = 4;

/// A user and password, and the line of the engine's file of users.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The user's name.
    pub username: String,
    /// The password.
    pub password: String,
    /// `user:bcrypt-hash`.
    pub htpasswd: String,
}

/// Never shows the password.
impl fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Credential").field("username", &self.username).finish_non_exhaustive()
    }
}

/// The secrets of a Registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Minted {
    /// The credential.
    pub credential: Credential,
    /// What the engine signs the state of uploads with.
    pub upload_secret: String,
    /// The server certificate; `None` until the Service has an address.
    pub leaf: Option<KeyedCertificate>,
    /// Why the certificate was made in this pass.
    pub issued_because: Option<&'static str>,
    /// When the certificate may be due, if a time alone can make it so.
    pub renew_at: Option<Timestamp>,
}

/// Never shows a secret.
impl fmt::Debug for Minted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Minted")
            .field("credential", &self.credential)
            .field("leaf", &self.leaf)
            .field("issued_because", &self.issued_because)
            .finish_non_exhaustive()
    }
}

/// A secret could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The certificate library refused.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The password could not be hashed.
    #[error("cannot hash the generated password: {0}")]
    Hash(#[from] bcrypt::BcryptError),
}

/// Takes what is stored and makes what is missing.
///
/// # Errors
/// When a secret cannot be made.
pub fn mint(
    names: &Names,
    uid: &str,
    settings: &Settings,
    observed: &Observed,
    authority: &Authority,
    now: Timestamp,
) -> Result<Minted, MintError> {
    let credential = match stored_credential(&observed.credentials) {
        Some(credential) => credential,
        None => new_credential(&rand::random())?,
    };
    let upload_secret = stored_upload_secret(&observed.credentials).unwrap_or_else(|| random_text(&rand::random()));
    let addresses = service_addresses(&observed.service);
    if addresses.is_empty() {
        return Ok(Minted { credential, upload_secret, leaf: None, issued_because: None, renew_at: None });
    }
    let subjects = certificate_names(names, &settings.cluster_domain, &addresses, &observed.hosts.granted);
    let rule = Rule { names: &subjects, uid, authority, overlap: settings.certificate_overlap };
    let stored = observed.certificate.ours().and_then(leaf::stored);
    let Leaf { pair, issued_because, renew_at } = keep_or_issue(stored, &rule, now)?;
    Ok(Minted { credential, upload_secret, leaf: Some(pair), issued_because, renew_at })
}

/// The cluster addresses of the Service; none before it exists.
#[must_use]
pub fn service_addresses(service: &Found<Service>) -> Vec<String> {
    let spec = service.ours().and_then(|service| service.spec.as_ref());
    let addresses = spec.and_then(|spec| spec.cluster_ips.clone()).unwrap_or_default();
    addresses.into_iter().filter(|address| !address.is_empty() && address != "None").collect()
}

/// Every name under which a client inside the cluster, or one that forwards a port, may call the registry, and its further
/// names.
#[must_use]
pub fn certificate_names(
    names: &Names,
    cluster_domain: &str,
    addresses: &[String],
    hosts: &[String],
) -> BTreeSet<String> {
    let (registry, namespace) = (names.registry(), names.namespace());
    let mut subjects: BTreeSet<String> = [
        registry.to_owned(),
        format!("{registry}.{namespace}"),
        names.address(),
        format!("{}.{cluster_domain}", names.address()),
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ]
    .into();
    subjects.extend(addresses.iter().chain(hosts).cloned());
    subjects
}

/// A stored credential counts only when it is whole; otherwise a new one is made.
fn stored_credential(secret: &Found<Secret>) -> Option<Credential> {
    let secret = secret.ours()?;
    let credential = Credential {
        username: text(secret, USERNAME_KEY)?,
        password: text(secret, PASSWORD_KEY)?,
        htpasswd: text(secret, HTPASSWD_KEY)?,
    };
    let whole =
        !credential.password.is_empty() && credential.htpasswd.starts_with(&format!("{}:$2", credential.username));
    whole.then_some(credential)
}

fn stored_upload_secret(secret: &Found<Secret>) -> Option<String> {
    text(secret.ours()?, UPLOAD_SECRET_KEY).filter(|text| !text.is_empty())
}

fn random_text(random: &[u8; 32]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random)
}

fn new_credential(random: &[u8; 32]) -> Result<Credential, MintError> {
    let password = random_text(random);
    let hash = bcrypt::hash(&password, BCRYPT_COST)?;
    Ok(Credential { username: USERNAME.to_owned(), htpasswd: format!("{USERNAME}:{hash}\n"), password })
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_is_for_every_name_of_the_registry() {
        let names = certificate_names(
            &Names::new("platform", "team"),
            "cluster.local",
            &["10.96.12.34".to_owned()],
            &["images.example.com".to_owned()],
        );
        for name in ["team", "team.platform", "team.platform.svc", "team.platform.svc.cluster.local", "localhost"] {
            assert!(names.contains(name), "{name}");
        }
        assert!(names.contains("10.96.12.34") && names.contains("images.example.com"));
    }
}
