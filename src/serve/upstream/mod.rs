//! Other registries, as this server asks them: by their configured endpoints, with credentials that go nowhere else.
//! It must never dial what a client named, and never pass on what an upstream says of an error.

pub mod addresses;
mod authority;
mod blobs;
pub mod breaker;
pub mod challenge;
mod client;
mod condition;
mod endpoints;
mod exchange;
mod health;
mod identity;
mod lists;
mod manifests;
mod rate_limit;
mod realms;
mod redirects;
mod tokens;
mod transport;
mod trouble;

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use thiserror::Error;

use crate::oci::{Digest, ManifestType, Reference, RegistryHost, RepositoryName};

pub use authority::InvalidHostName;
pub use breaker::BreakerState;
pub use client::Upstream;
pub use condition::Told;
pub use endpoints::{Endpoint, InvalidEndpoint, InvalidSettings, Settings};
pub use health::{EndpointHealth, Figures, Health};
pub use rate_limit::RateLimit;

/// A user name and a password. Neither is ever shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Basic {
    /// Whose.
    pub user: String,
    /// What proves it.
    pub password: String,
}

impl fmt::Debug for Basic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Basic(..)")
    }
}

/// As whom a request is made.
#[derive(Clone, Debug)]
pub enum Identity {
    /// As nobody.
    Anonymous,
    /// With the credential that is configured; as nobody where there is none.
    Own,
    /// With a client's credential.
    Client(Basic),
}

/// Something that a registry has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Object {
    /// A manifest.
    Manifest(RepositoryName, Reference),
    /// A blob.
    Blob(RepositoryName, Digest),
}

/// What an upstream says of an object without giving it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Its digest, where it was said.
    pub digest: Option<Digest>,
    /// Its length in bytes, where it was said.
    pub length: Option<u64>,
    /// Its type, where it is a manifest and that was said.
    pub media_type: Option<ManifestType>,
}

/// A manifest that was fetched; its digest is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedManifest {
    /// Its digest, computed from the bytes.
    pub digest: Digest,
    /// Its type.
    pub media_type: ManifestType,
    /// Its bytes, as they came.
    pub bytes: Bytes,
}

/// What is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    /// Tags behind one, at most so many.
    Tags(Option<String>, Option<usize>),
    /// What refers to a manifest, of one kind.
    Referrers(Digest, Option<String>),
}

/// A list, as it came: JSON of at most 4 MiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// The document.
    pub bytes: Bytes,
    /// Whether the upstream said that there is more, and what it is behind.
    pub more_behind: Option<String>,
    /// Whether referrers were filtered by kind.
    pub filtered: bool,
}

/// Why an upstream did not give what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Failure {
    /// It does not have it.
    #[error("{0} does not have it")]
    NotFound(RegistryHost),
    /// It does not give it to this identity. A token was granted or not wanted; or a client's credential was refused.
    #[error("{0} does not give it to this caller")]
    Denied(RegistryHost),
    /// It refuses the credential that is configured.
    #[error("{0} refuses the configured credential")]
    CredentialsRejected(RegistryHost),
    /// It does not answer, or says that it cannot: refused, silent, 429, 5xx, no name, no TLS, no token. What comes later may
    /// be another answer.
    #[error("{host} cannot be asked: {problem}")]
    Away {
        /// Which one.
        host: RegistryHost,
        /// What was tried, on which endpoint, and what came back; without any credential.
        problem: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// What it says cannot be true: a length, a type or a digest that its bytes deny, a realm or a redirect that may not be.
    #[error("{host} gave an answer that cannot be used: {problem}")]
    Wrong {
        /// Which one.
        host: RegistryHost,
        /// What is wrong with it.
        problem: String,
    },
    /// It is this server itself.
    #[error("{0} leads back to this server")]
    Loop(RegistryHost),
}

/// Bytes of a blob that begin to arrive.
pub struct Arriving {
    /// How long the whole blob is, where it was said.
    pub length: Option<u64>,
    /// The bytes, from the asked offset on.
    pub bytes: BoxStream<'static, Result<Bytes, Failure>>,
}

/// Where the bytes of one blob come from.
pub trait Source: Send + 'static {
    /// Asks for the bytes from an offset on. A second call goes on with the same content, from the same endpoint (`If-Range`
    /// and `Content-Range` say so), or fails.
    fn open(&mut self, offset: u64) -> BoxFuture<'_, Result<Arriving, Failure>>;
}
