//! What a request at the node's endpoint asks for, and how it is passed on: with the registry in the query, as servers of ours want
//! it. Pure. It must never make an address of what a client names: a registry is looked up in the plan.

use hyper::{Method, Uri};
use thiserror::Error;

use crate::oci::path::{self, decode};
use crate::oci::{Digest, Endpoint, Reference, RegistryHost, RepositoryName};

/// A request for something of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The registry, as it stands in images' references.
    pub host: RegistryHost,
    /// What of it; the repository's name is the registry's own, without a prefix.
    pub object: Endpoint,
    /// The path and query that are sent on.
    pub path_and_query: String,
    /// The client named the registry in the path: podman and CRI-O do, which cannot go elsewhere once they have a manifest.
    pub by_prefix: bool,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Whether this is a registry.
    Base,
    /// Something of a registry.
    Object(Wanted),
}

/// Why a request asks for nothing that the endpoint has.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// It would change something, or is of no method of the protocol.
    #[error("the endpoint of a node is for pulling: GET and HEAD are allowed")]
    Method,
    /// There is nothing at the path.
    #[error("{0}")]
    Path(String),
    /// The query names no registry, or several.
    #[error("the query's parameter ns is malformed or repeated: it names a registry as an image's reference does")]
    Namespace,
    /// Neither the query nor the path names a registry.
    #[error("neither the query's parameter ns nor the path names a registry")]
    Nameless,
    /// They name different ones.
    #[error("the query and the path name different registries")]
    Contradiction,
}

/// Takes a request apart. `known` says whether a registry is in the plan, without which no path begins with its name.
///
/// # Errors
/// When it asks for nothing that the endpoint has.
pub fn read(method: &Method, uri: &Uri, known: impl Fn(&RegistryHost) -> bool) -> Result<Asked, Malformed> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(Malformed::Method);
    }
    let unknown = |problem: &dyn std::fmt::Display| Malformed::Path(problem.to_string());
    let path = decode(uri.path(), false).ok_or_else(|| unknown(&"the path is not valid percent-encoded UTF-8"))?;
    let object = path::parse(&path).map_err(|problem| unknown(&problem))?;
    let (namespace, rest) = query(uri.query().unwrap_or_default())?;
    let Some(written) = object.repository() else { return Ok(Asked::Base) };
    let prefix = prefix(written).filter(|(host, _)| known(host));
    let (host, object, by_prefix) = match (namespace, prefix) {
        (Some(host), Some((prefix, name))) if host == prefix => (host, with_name(&object, name)?, true),
        (Some(_), Some(_)) => return Err(Malformed::Contradiction),
        (Some(host), None) => (host, readable(object)?, false),
        (None, Some((host, name))) => (host, with_name(&object, name)?, true),
        (None, None) => return Err(Malformed::Nameless),
    };
    let ns = format!("ns={}", host.as_str().replace(':', "%3A"));
    let query = if rest.is_empty() { ns } else { format!("{rest}&{ns}") };
    Ok(Asked::Object(Wanted { path_and_query: format!("{object}?{query}"), host, object, by_prefix }))
}

impl Wanted {
    /// What the replicas of a Mirror are ranked by, so that one of them fetches each object.
    #[must_use]
    pub fn key(&self) -> String {
        match &self.object {
            Endpoint::Blob(_, digest)
            | Endpoint::Manifest(_, Reference::Digest(digest))
            | Endpoint::Referrers(_, digest) => digest.to_string(),
            Endpoint::Manifest(name, Reference::Tag(tag)) => format!("{}/{name}:{tag}", self.host),
            other => format!("{}{other}", self.host),
        }
    }

    /// The blob that is asked for, if it is one.
    #[must_use]
    pub fn blob(&self) -> Option<&Digest> {
        match &self.object {
            Endpoint::Blob(_, digest) => Some(digest),
            _ => None,
        }
    }

    /// The repository, with its registry.
    #[must_use]
    pub fn repository(&self) -> String {
        self.object.repository().map_or_else(String::new, |name| format!("{}/{name}", self.host))
    }
}

/// The registry that a query names, and the rest of the query as it was written.
fn query(query: &str) -> Result<(Option<RegistryHost>, String), Malformed> {
    let (mut namespace, mut rest) = (None, Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=').unwrap_or((pair, "")) {
            ("ns", value) => {
                let host = decode(value, true).and_then(|host| host.parse().ok()).ok_or(Malformed::Namespace)?;
                if namespace.replace(host).is_some() {
                    return Err(Malformed::Namespace);
                }
            }
            _ => rest.push(pair),
        }
    }
    Ok((namespace, rest.join("&")))
}

/// The registry with which a repository's name begins, and the name behind it.
fn prefix(written: &RepositoryName) -> Option<(RegistryHost, &str)> {
    let (first, rest) = written.as_str().split_once('/')?;
    Some((RegistryHost::of_prefix(first).ok()?, rest))
}

fn with_name(object: &Endpoint, name: &str) -> Result<Endpoint, Malformed> {
    let name: RepositoryName = name.parse().map_err(|problem| Malformed::Path(format!("{problem}")))?;
    readable(match object.clone() {
        Endpoint::Blob(_, digest) => Endpoint::Blob(name, digest),
        Endpoint::Manifest(_, reference) => Endpoint::Manifest(name, reference),
        Endpoint::Tags(_) => Endpoint::Tags(name),
        Endpoint::Referrers(_, digest) => Endpoint::Referrers(name, digest),
        other => other,
    })
}

/// The object, if it can be read.
fn readable(object: Endpoint) -> Result<Endpoint, Malformed> {
    match object {
        Endpoint::Uploads(_) | Endpoint::Upload(..) => Err(Malformed::Method),
        other => Ok(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &Method, uri: &str) -> Result<Asked, Malformed> {
        let known = |host: &RegistryHost| ["docker.io", "r.example.com:5000"].contains(&host.as_str());
        read(method, &uri.parse().unwrap(), known)
    }

    #[test]
    fn the_registry_is_taken_from_the_query_or_the_path_and_sent_on_in_the_query() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (uri, host, sent, by_prefix) in [
            ("/v2/a/b/manifests/1?ns=docker.io", "docker.io", "/v2/a/b/manifests/1?ns=docker.io", false),
            ("/v2/docker.io/a/b/manifests/1", "docker.io", "/v2/a/b/manifests/1?ns=docker.io", true),
            ("/v2/docker.io/a/manifests/1?ns=docker.io", "docker.io", "/v2/a/manifests/1?ns=docker.io", true),
            (
                "/v2/r.example.com_5000/a/tags/list?n=2&last=x%20y",
                "r.example.com:5000",
                "/v2/a/tags/list?n=2&last=x%20y&ns=r.example.com%3A5000",
                true,
            ),
            ("/v2/a/manifests/1?ns=else.where%3A1", "else.where:1", "/v2/a/manifests/1?ns=else.where%3A1", false),
            // A first part that is no registry of the plan belongs to the name.
            ("/v2/ghcr.io/a/manifests/1?ns=docker.io", "docker.io", "/v2/ghcr.io/a/manifests/1?ns=docker.io", false),
        ] {
            let Ok(Asked::Object(wanted)) = asked(&Method::GET, uri) else { panic!("{uri}") };
            assert_eq!((wanted.host.as_str(), wanted.path_and_query.as_str()), (host, sent), "{uri}");
            assert_eq!(wanted.by_prefix, by_prefix, "{uri}");
        }
        let blob = format!("/v2/docker.io/a/blobs/{digest}");
        let Ok(Asked::Object(wanted)) = asked(&Method::HEAD, &blob) else { panic!() };
        assert_eq!(wanted.blob().map(ToString::to_string), Some(digest.clone()));
        assert_eq!((wanted.key(), wanted.repository()), (digest, "docker.io/a".to_owned()));
        assert_eq!(asked(&Method::GET, "/v2/"), Ok(Asked::Base));
    }

    #[test]
    fn what_is_no_pull_or_names_no_registry_is_refused() {
        for (method, uri, expected) in [
            (Method::POST, "/v2/a/blobs/uploads/?ns=docker.io", Malformed::Method),
            (Method::GET, "/v2/a/blobs/uploads/?ns=docker.io", Malformed::Method),
            (Method::DELETE, "/v2/a/manifests/1?ns=docker.io", Malformed::Method),
            (Method::GET, "/v2/a/manifests/1", Malformed::Nameless),
            (Method::GET, "/v2/a/manifests/1?ns=", Malformed::Namespace),
            (Method::GET, "/v2/a/manifests/1?ns=a&ns=a", Malformed::Namespace),
            (Method::GET, "/v2/a/manifests/1?ns=http://a", Malformed::Namespace),
            (Method::GET, "/v2/docker.io/a/manifests/1?ns=ghcr.io", Malformed::Contradiction),
        ] {
            assert_eq!(asked(&method, uri), Err(expected), "{method} {uri}");
        }
        for uri in ["/", "/v1/", "/v2/%zz/manifests/1", "/v2/A/manifests/1?ns=docker.io"] {
            assert!(matches!(asked(&Method::GET, uri), Err(Malformed::Path(_))), "{uri}");
        }
    }
}
