//! Where a registry is asked, and what is said of that. An endpoint must never have a credential in it.

use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;
use thiserror::Error;
use url::{Host, Url};

use crate::oci::{RegistryHost, RepositoryName};

use super::Basic;
use super::authority::{Authority, InvalidHostName, NamedHost};
use super::transport::Proxies;

/// Why a text is not an endpoint. The text itself is not repeated where a password may stand in it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidEndpoint {
    /// It is not a URL of the protocol.
    #[error("an endpoint is a URL that begins with https:// (or with http://, without TLS), such as https://ghcr.io")]
    Scheme,
    /// It has a user name or a password in it.
    #[error("an endpoint has no user name and no password in it: name a file with them in `credentials`")]
    Credential,
    /// Its host is neither a name nor an address.
    #[error("the host {0:?} of an endpoint is neither a name nor an address")]
    Host(String),
    /// It has a query or a fragment.
    #[error("an endpoint has no `?` and no `#` in it")]
    Query,
    /// Its path cannot begin those of the protocol.
    #[error("the path {0:?} of an endpoint is not made of parts with letters, digits and `.`, `_`, `~`, `-`")]
    Path(String),
    /// What stands behind `/v2/` is not the beginning of a repository's name.
    #[error("{0:?}, which stands behind /v2/ in an endpoint, cannot begin the name of a repository")]
    Repository(String),
}

/// Where a registry is asked: a scheme, a host and a port. A path before `/v2` is kept as it is; what stands behind it begins
/// the names of all repositories, as for a project of Harbor.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    base: Url,
    root: String,
    within: Option<RepositoryName>,
    authority: Authority,
}

impl Endpoint {
    /// Reads one.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, InvalidEndpoint> {
        let mut base: Url = text.parse().map_err(|_| InvalidEndpoint::Scheme)?;
        if !base.username().is_empty() || base.password().is_some() || text.contains('@') {
            return Err(InvalidEndpoint::Credential);
        }
        let authority = Authority::of(&base).ok_or(InvalidEndpoint::Scheme)?;
        if base.query().is_some() || base.fragment().is_some() {
            return Err(InvalidEndpoint::Query);
        }
        if let Host::Domain(name) = &authority.host
            && !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        {
            return Err(InvalidEndpoint::Host(name.clone()));
        }
        let path = base.path().trim_end_matches('/').to_owned();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
        if !path.split('/').skip(1).all(|part| !part.is_empty() && part.bytes().all(plain)) {
            return Err(InvalidEndpoint::Path(path));
        }
        let (before, within) = match format!("{path}/").split_once("/v2/") {
            Some((before, within)) => (before.to_owned(), within.trim_end_matches('/').to_owned()),
            None => (path.clone(), String::new()),
        };
        let within = match within.as_str() {
            "" => None,
            name => Some(name.parse().map_err(|_| InvalidEndpoint::Repository(within.clone()))?),
        };
        base.set_path(&path);
        Ok(Self { base, root: format!("{before}/v2"), within, authority })
    }

    /// Where a registry is asked that nothing is configured for.
    #[must_use]
    pub fn default_of(host: &RegistryHost) -> Vec<Self> {
        // A host is always the beginning of a URL.
        Self::parse(&format!("https://{}", host.server())).into_iter().collect()
    }

    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The name that a repository has there.
    pub(super) fn repository(&self, name: &RepositoryName) -> Option<RepositoryName> {
        match &self.within {
            None => Some(name.clone()),
            Some(within) => format!("{within}/{name}").parse().ok(),
        }
    }

    /// The URL of something in a repository; `rest` begins behind its name, and needs no encoding.
    pub(super) fn url(&self, repository: &RepositoryName, rest: &str, query: &[(&str, &str)]) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/{repository}/{rest}", self.root));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        Self::parse(text)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.base.as_str().trim_end_matches('/'))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// How a registry is asked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which one, as it stands in references.
    pub host: RegistryHost,
    /// Where, in this order.
    pub endpoints: Vec<Endpoint>,
    /// As whom, where a request is made as ourselves.
    pub credential: Option<Basic>,
    /// Authorities, in PEM, that are believed besides the public ones.
    pub authorities: Option<Vec<u8>>,
    /// The proxy that all requests go through. Without it, those that the environment names.
    pub proxy: Option<String>,
    /// Hosts that credentials may go to for a token, with a port or for each.
    pub token_realms: Vec<String>,
    /// Hosts that may be redirected to wherever they are, with a port or for each.
    pub redirect_hosts: Vec<String>,
    /// Ranges that no redirect and no realm leads to, besides those that are closed everywhere.
    pub closed_ranges: Vec<IpNet>,
}

impl Settings {
    /// For a registry of which nothing else is said.
    #[must_use]
    pub fn of(host: RegistryHost) -> Self {
        Self {
            endpoints: Endpoint::default_of(&host),
            host,
            credential: None,
            authorities: None,
            proxy: None,
            token_realms: Vec::new(),
            redirect_hosts: Vec::new(),
            closed_ranges: Vec::new(),
        }
    }

    /// Whether they can be used, as far as that shows without the authorities and the environment.
    ///
    /// # Errors
    /// When they cannot, with the first of the reasons.
    pub fn check(&self) -> Result<(), InvalidSettings> {
        for name in self.token_realms.iter().chain(&self.redirect_hosts) {
            NamedHost::parse(name)?;
        }
        if self.proxy.is_some() {
            Proxies::of(self)?;
        }
        Ok(())
    }
}

/// Why an upstream cannot be asked in the way that is configured.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidSettings {
    /// There is nowhere to ask.
    #[error("no endpoint is given for {0}")]
    NoEndpoint(RegistryHost),
    /// A host of `token_realms` or `redirect_hosts` is none.
    #[error(transparent)]
    Host(#[from] InvalidHostName),
    /// The authorities cannot be read.
    #[error("the authorities for {host} cannot be read: {reason}")]
    Authorities {
        /// Whose.
        host: RegistryHost,
        /// What is wrong in them.
        reason: String,
    },
    /// The proxy is none.
    #[error("a proxy is a URL that begins with http:// or https://, without a user name, a password or a path")]
    Proxy,
    /// The instance's name cannot stand in a header.
    #[error("{0:?} cannot stand in a Via header")]
    Instance(String),
    /// The HTTP client cannot be built.
    #[error("the HTTP client for {host} cannot be built: {reason}")]
    Client {
        /// For whom.
        host: RegistryHost,
        /// What it says.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::{Endpoint, InvalidEndpoint, Settings};

    #[test]
    fn requests_go_beneath_an_endpoint() {
        for (endpoint, expected) in [
            ("https://ghcr.io", "https://ghcr.io/v2/a/b/tags/list?n=5"),
            ("https://ghcr.io/", "https://ghcr.io/v2/a/b/tags/list?n=5"),
            ("https://ghcr.io/v2/", "https://ghcr.io/v2/a/b/tags/list?n=5"),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5000/v2/a/b/tags/list?n=5"),
            ("https://[::1]:5000", "https://[::1]:5000/v2/a/b/tags/list?n=5"),
            ("https://harbor.example/v2/hub", "https://harbor.example/v2/hub/a/b/tags/list?n=5"),
            ("https://a.example/api/docker/hub/", "https://a.example/api/docker/hub/v2/a/b/tags/list?n=5"),
            ("https://a.example/api/v2/x/y", "https://a.example/api/v2/x/y/a/b/tags/list?n=5"),
        ] {
            let endpoint = Endpoint::parse(endpoint).unwrap();
            let name = endpoint.repository(&"a/b".parse().unwrap()).unwrap();
            assert_eq!(endpoint.url(&name, "tags/list", &[("n", "5")]).as_str(), expected);
        }
    }

    #[test]
    fn what_is_not_an_endpoint_is_refused_without_being_repeated() {
        for (text, expected) in [
            ("", InvalidEndpoint::Scheme),
            ("ghcr.io", InvalidEndpoint::Scheme),
            ("ghcr.io:443", InvalidEndpoint::Scheme),
            ("ftp://ghcr.io", InvalidEndpoint::Scheme),
            ("https://", InvalidEndpoint::Scheme),
            ("https://user:secret@ghcr.io", InvalidEndpoint::Credential),
            ("https://user@ghcr.io", InvalidEndpoint::Credential),
            ("https://@ghcr.io", InvalidEndpoint::Credential),
            ("https://ghcr.!o", InvalidEndpoint::Host("ghcr.!o".into())),
            ("https://ghcr.io?token=secret", InvalidEndpoint::Query),
            ("https://ghcr.io/#secret", InvalidEndpoint::Query),
            ("https://ghcr.io/a//b", InvalidEndpoint::Path("/a//b".into())),
            ("https://ghcr.io/a%2fb", InvalidEndpoint::Path("/a%2fb".into())),
            ("https://ghcr.io/v2/A", InvalidEndpoint::Repository("A".into())),
        ] {
            let found = Endpoint::parse(text).unwrap_err();
            assert_eq!(found, expected, "{text}");
            assert!(!found.to_string().contains("secret"), "{found}");
        }
    }

    #[test]
    fn a_registry_has_an_endpoint_by_default() {
        for (host, expected) in [
            ("docker.io", "https://registry-1.docker.io"),
            ("index.docker.io", "https://registry-1.docker.io"),
            ("ghcr.io", "https://ghcr.io"),
            ("registry.example.com:5000", "https://registry.example.com:5000"),
        ] {
            let endpoints = Settings::of(host.parse().unwrap()).endpoints;
            assert_eq!(endpoints.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
        }
    }
}
