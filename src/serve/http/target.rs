//! Whose content a request is for: this server's own, or another registry's that is configured. What a client names is looked
//! up among what is configured, and must never be an address to go to. Pure.
//!
//! | Request | Goes to |
//! |---|---|
//! | no mirror is configured | local, whatever `ns` says |
//! | a repository of a mirror that is not meant | nobody: 404; without a registry's name, local |
//! | `?ns=` of a mirror | that mirror; if the path begins with a mirror's name, it is the same one and is taken off; a change: 405 |
//! | `?ns=` of a name of our own | local |
//! | `?ns=` of another name | 404; if it is no name, or stands there twice: 400 |
//! | `/v2/HOST/…` of a mirror | that mirror; a change: 403 |
//! | neither, a change, or HEAD of a blob | local |
//! | neither, reading | local where there is such a repository, else the default mirror, if there is one |

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::route::{Query, Route};
use crate::oci::name::InvalidName;
use crate::oci::{Digest, Reference, RegistryHost, RepositoryName};
use crate::serve::config::Repositories;

/// The names by which requests are told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Of the registries that are mirrored.
    pub mirrors: BTreeSet<RegistryHost>,
    /// Of that among them which serves clients that name none.
    pub default: Option<RegistryHost>,
    /// Of this server itself.
    pub local: BTreeSet<RegistryHost>,
    /// Which repositories of the mirrors are meant, where that is not all.
    pub meant: BTreeMap<RegistryHost, Repositories>,
}

/// What a mirror can be asked for: nothing that changes anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A blob.
    Blob(Digest),
    /// A manifest.
    Manifest(Reference),
    /// The tags behind one, at most so many.
    Tags(Option<String>, Option<usize>),
    /// What refers to a manifest: of one kind.
    Referrers(Digest, Option<String>),
}

/// Something of another registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirrored {
    /// Which registry.
    pub host: RegistryHost,
    /// Which repository of it.
    pub repository: RepositoryName,
    /// What of it.
    pub asked: Asked,
    /// The repository's name as the client wrote it, with the registry's before it or without.
    pub written: RepositoryName,
    /// Whether the client named the registry in the query.
    pub by_namespace: bool,
}

impl Mirrored {
    /// Whether the client said which registry it means.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.by_namespace || self.written != self.repository
    }
}

/// Whose content a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// This server's own.
    Local(Route),
    /// Another registry's.
    Mirror(Mirrored),
    /// This server's own, if it has the repository; else another registry's.
    Either(Route, Mirrored),
}

/// Why a request is for nobody's content.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TargetError {
    /// The query names no registry.
    #[error("the query's parameter ns is malformed or repeated: it names a registry as an image's reference does")]
    Namespace,
    /// The query and the path name different registries.
    #[error("the query is for {namespace}, and the path for the registry {prefix}")]
    Contradiction {
        /// The registry that the query names.
        namespace: RegistryHost,
        /// The registry that the path names.
        prefix: RegistryHost,
    },
    /// The registry is not configured.
    #[error("the registry {0} is not mirrored here")]
    UnknownRegistry(RegistryHost),
    /// The registry is configured, but not for this repository.
    #[error("the repository {repository} of the registry {host} is not mirrored here")]
    NotMeant {
        /// The registry.
        host: RegistryHost,
        /// The repository.
        repository: RepositoryName,
    },
    /// The path names a registry and nothing in it.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// It would change another registry.
    #[error("the registry {0} is mirrored here: what it has can be read and not changed")]
    ReadOnly(RegistryHost),
    /// It would make a local repository under a name that belongs to another registry.
    #[error("repositories that begin with {} are those of a registry that is mirrored here: push to another name", .0.as_prefix())]
    Taken(RegistryHost),
}

/// What the query says of the registry.
enum Namespace {
    Absent,
    Local(RegistryHost),
    Mirror(RegistryHost),
}

impl Names {
    /// Whose content a request is for. `head` says that the bytes are not wanted.
    ///
    /// # Errors
    /// When that is nobody's, with what is wrong.
    pub fn target(&self, route: Route, query: &Query, head: bool) -> Result<Target, TargetError> {
        if self.mirrors.is_empty() {
            return Ok(Target::Local(route));
        }
        let namespace = self.namespace(query)?;
        // Whether this is a registry is answered alike for all of them.
        let Some(written) = route.repository().cloned() else { return Ok(Target::Local(route)) };
        let prefix = self.prefix(&written);
        let (host, rest, by_namespace) = match (namespace, prefix) {
            (Namespace::Local(_), None) => return Ok(Target::Local(route)),
            (Namespace::Local(namespace), Some((prefix, _))) => {
                return Err(TargetError::Contradiction { namespace, prefix });
            }
            (Namespace::Mirror(namespace), Some((prefix, _))) if namespace != prefix => {
                return Err(TargetError::Contradiction { namespace, prefix });
            }
            (Namespace::Mirror(host), Some((_, rest))) => (host, rest, true),
            (Namespace::Mirror(host), None) => (host, written.as_str(), true),
            (Namespace::Absent, Some((host, rest))) => (host, rest, false),
            (Namespace::Absent, None) => return Ok(self.unnamed(route, written, head)),
        };
        let Some(asked) = asked(&route) else {
            return Err(if by_namespace { TargetError::ReadOnly(host) } else { TargetError::Taken(host) });
        };
        let repository = rest.parse::<RepositoryName>()?;
        if !self.mean(&host, &repository) {
            return Err(TargetError::NotMeant { host, repository });
        }
        Ok(Target::Mirror(Mirrored { host, repository, asked, written, by_namespace }))
    }

    fn mean(&self, host: &RegistryHost, repository: &RepositoryName) -> bool {
        self.meant.get(host).is_none_or(|meant| meant.mean(repository))
    }

    /// The registry that a query names, if it names one.
    fn namespace(&self, query: &Query) -> Result<Namespace, TargetError> {
        let Some(text) = query.one("ns").map_err(|_| TargetError::Namespace)? else { return Ok(Namespace::Absent) };
        let host: RegistryHost = text.parse().map_err(|_| TargetError::Namespace)?;
        if self.mirrors.contains(&host) {
            Ok(Namespace::Mirror(host))
        } else if self.local.contains(&host) {
            Ok(Namespace::Local(host))
        } else {
            Err(TargetError::UnknownRegistry(host))
        }
    }

    /// The mirrored registry that a repository's name begins with, and the rest of the name.
    fn prefix<'a>(&self, name: &'a RepositoryName) -> Option<(RegistryHost, &'a str)> {
        let (first, rest) = name.as_str().split_once('/').unwrap_or((name.as_str(), ""));
        let host = RegistryHost::of_prefix(first).ok()?;
        self.mirrors.contains(&host).then_some((host, rest))
    }

    /// Where a request goes that names no registry.
    fn unnamed(&self, route: Route, written: RepositoryName, head: bool) -> Target {
        let (Some(host), Some(asked)) = (&self.default, asked(&route)) else { return Target::Local(route) };
        // Who pushes asks so which blobs need not be sent; those that another registry has, need to be. Who pulls by this way
        // does not ask so.
        if (head && matches!(asked, Asked::Blob(_))) || !self.mean(host, &written) {
            return Target::Local(route);
        }
        let (host, repository) = (host.clone(), written.clone());
        Target::Either(route, Mirrored { host, repository, asked, written, by_namespace: false })
    }
}

/// What a route asks of a mirror; none where it would change something.
pub(super) fn asked(route: &Route) -> Option<Asked> {
    match route {
        Route::GetBlob(_, digest) => Some(Asked::Blob(digest.clone())),
        Route::GetManifest(_, reference) => Some(Asked::Manifest(reference.clone())),
        Route::Tags(_, last, limit) => Some(Asked::Tags(last.clone(), *limit)),
        Route::Referrers(_, digest, kind, _) => Some(Asked::Referrers(digest.clone(), kind.clone())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use hyper::Method;

    use std::collections::BTreeMap;

    use super::super::route::{Query, route};
    use super::{Asked, Names, Repositories, Target, TargetError};

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn names(mirrors: &[&str], default: Option<&str>, local: &[&str]) -> Names {
        let hosts = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        let default = default.map(|name| name.parse().unwrap());
        Names { mirrors: hosts(mirrors), default, local: hosts(local), meant: BTreeMap::new() }
    }

    fn target(names: &Names, method: &str, target: &str) -> Result<Target, TargetError> {
        let method = method.parse::<Method>().unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = Query::parse(query).unwrap();
        let route = route(&method, path, &query).unwrap_or_else(|error| panic!("{target}: {error}"));
        names.target(route, &query, method == Method::HEAD)
    }

    /// In one line: `local`, `docker.io library/nginx`, or with `local, else` before it.
    fn told(found: Target) -> String {
        match found {
            Target::Local(_) => "local".to_owned(),
            Target::Mirror(mirrored) => {
                assert!(mirrored.is_named());
                format!("{} {}", mirrored.host, mirrored.repository)
            }
            Target::Either(_, mirrored) if mirrored.is_named() => panic!("{mirrored:?}"),
            Target::Either(_, mirrored) => format!("local, else {} {}", mirrored.host, mirrored.repository),
        }
    }

    #[test]
    fn each_request_goes_to_one_registry() {
        let two = names(&["docker.io", "reg.example.com:5000"], None, &["team.platform.svc"]);
        let with_default = Names { default: Some("docker.io".parse().unwrap()), ..two.clone() };
        let none = names(&[], None, &[]);
        let blob = format!("/v2/library/nginx/blobs/{DIGEST}");
        for (names, method, asked, expected) in [
            // As containerd asks.
            (&two, "HEAD", "/v2/library/nginx/manifests/1?ns=docker.io", "docker.io library/nginx"),
            (&two, "GET", "/v2/a/b/manifests/1?ns=reg.example.com%3A5000", "reg.example.com:5000 a/b"),
            (&two, "GET", "/v2/a/b/manifests/1?ns=reg.example.com:5000", "reg.example.com:5000 a/b"),
            // As podman asks.
            (&two, "GET", "/v2/docker.io/library/nginx/manifests/1", "docker.io library/nginx"),
            (&two, "GET", "/v2/reg.example.com_5000/a/tags/list?n=1", "reg.example.com:5000 a"),
            // Both, as containerd with a path of its own.
            (&two, "GET", "/v2/docker.io/library/nginx/manifests/1?ns=docker.io", "docker.io library/nginx"),
            // What looks like a registry and is not configured is a repository.
            (&two, "GET", "/v2/ghcr.io/a/b/manifests/1", "local"),
            (&two, "GET", "/v2/reg.example.com/a/manifests/1", "local"),
            (&two, "GET", "/v2/ghcr.io/a/manifests/1?ns=docker.io", "docker.io ghcr.io/a"),
            (&two, "GET", "/v2/a/docker.io/b/manifests/1", "local"),
            // Names of our own.
            (&two, "GET", "/v2/app/manifests/1?ns=team.platform.svc", "local"),
            (&two, "POST", "/v2/app/blobs/uploads/?ns=team.platform.svc", "local"),
            (&two, "GET", "/v2/?ns=docker.io", "local"),
            (&two, "GET", "/v2/library/nginx/manifests/1", "local"),
            (&two, "GET", "/v2/library/nginx/manifests/1?ns=", "local"),
            (&none, "GET", "/v2/library/nginx/manifests/1?ns=docker.io", "local"),
            (&none, "GET", "/v2/app/manifests/1?ns=a&ns=%2F", "local"),
            (&none, "GET", "/v2/docker.io/library/nginx/manifests/1", "local"),
            // As Docker asks.
            (&with_default, "GET", "/v2/library/nginx/manifests/1", "local, else docker.io library/nginx"),
            (&with_default, "GET", &blob, "local, else docker.io library/nginx"),
            (&with_default, "HEAD", &blob, "local"),
            (&with_default, "GET", "/v2/a/manifests/1?ns=reg.example.com:5000", "reg.example.com:5000 a"),
            (&with_default, "GET", "/v2/reg.example.com_5000/a/manifests/1", "reg.example.com:5000 a"),
            (&with_default, "POST", "/v2/library/nginx/blobs/uploads/", "local"),
            (&with_default, "PUT", "/v2/library/nginx/manifests/1", "local"),
            (&with_default, "DELETE", "/v2/library/nginx/manifests/1", "local"),
            (&with_default, "GET", "/v2/", "local"),
        ] {
            let found = target(names, method, asked).unwrap_or_else(|error| panic!("{method} {asked}: {error}"));
            assert_eq!(told(found), expected, "{method} {asked}");
        }
    }

    #[test]
    fn repositories_that_are_not_meant_are_nobody_s() {
        let mut names = names(&["docker.io", "ghcr.io"], Some("docker.io"), &[]);
        let meant = Repositories { include: vec!["library/*".to_owned()], exclude: vec![] };
        names.meant = BTreeMap::from([("docker.io".parse().unwrap(), meant)]);
        for (asked, expected) in [
            ("/v2/library/nginx/manifests/1?ns=docker.io", Some("docker.io library/nginx")),
            ("/v2/team/app/manifests/1?ns=docker.io", None),
            ("/v2/docker.io/team/app/manifests/1", None),
            ("/v2/team/app/manifests/1?ns=ghcr.io", Some("ghcr.io team/app")),
            ("/v2/wharf/canary/manifests/latest?ns=docker.io", Some("docker.io wharf/canary")),
            ("/v2/library/nginx/manifests/1", Some("local, else docker.io library/nginx")),
            ("/v2/team/app/manifests/1", Some("local")),
        ] {
            let (host, repository) = ("docker.io".parse().unwrap(), "team/app".parse().unwrap());
            let found = target(&names, "GET", asked).map(told);
            let not_meant = Err(TargetError::NotMeant { host, repository });
            assert_eq!(found, expected.map(str::to_owned).map_or(not_meant, Ok), "{asked}");
        }
    }

    #[test]
    fn what_is_for_nobody_is_told() {
        let names = names(&["docker.io", "ghcr.io"], Some("docker.io"), &["team.platform.svc"]);
        let host = |name: &str| name.parse().unwrap();
        for ns in [
            "https://docker.io",
            "http%3A%2F%2Fdocker.io",
            "docker.io/library",
            "docker.io%2F..",
            "Docker.io",
            "docker.io&ns=docker.io",
            "docker.io&ns=ghcr.io",
            "user@docker.io",
            "docker.io:99999",
            "[::1]:80",
            "docker.io%00",
            ".",
        ] {
            let asked = format!("/v2/a/manifests/1?ns={ns}");
            assert_eq!(target(&names, "GET", &asked), Err(TargetError::Namespace), "{ns}");
        }
        // An address has the form of a name; it is one that nobody configured.
        for ns in ["169.254.169.254", "127.0.0.1:80", "metadata.internal", "index.docker.io", "localhost"] {
            for asked in [format!("/v2/a/manifests/1?ns={ns}"), format!("/v2/?ns={ns}")] {
                assert_eq!(target(&names, "GET", &asked), Err(TargetError::UnknownRegistry(host(ns))), "{asked}");
            }
        }
        let contradiction =
            |namespace, prefix| TargetError::Contradiction { namespace: host(namespace), prefix: host(prefix) };
        let upload = "blobs/uploads/0123456789abcdef0123456789abcdef";
        for (method, asked, expected) in [
            ("GET", "/v2/ghcr.io/a/manifests/1?ns=docker.io", contradiction("docker.io", "ghcr.io")),
            ("GET", "/v2/ghcr.io/a/manifests/1?ns=team.platform.svc", contradiction("team.platform.svc", "ghcr.io")),
            ("GET", "/v2/docker.io/manifests/1", TargetError::Name(crate::oci::name::InvalidName)),
            ("PUT", "/v2/docker.io/manifests/1", TargetError::Taken(host("docker.io"))),
            ("PUT", "/v2/docker.io/a/manifests/1", TargetError::Taken(host("docker.io"))),
            ("POST", "/v2/docker.io/a/blobs/uploads/", TargetError::Taken(host("docker.io"))),
            ("GET", &format!("/v2/docker.io/a/{upload}"), TargetError::Taken(host("docker.io"))),
            ("PATCH", &format!("/v2/a/{upload}?ns=docker.io"), TargetError::ReadOnly(host("docker.io"))),
            ("DELETE", "/v2/a/manifests/1?ns=docker.io", TargetError::ReadOnly(host("docker.io"))),
            ("DELETE", "/v2/docker.io/a/manifests/1?ns=docker.io", TargetError::ReadOnly(host("docker.io"))),
        ] {
            assert_eq!(target(&names, method, asked), Err(expected), "{method} {asked}");
        }
    }

    #[test]
    fn what_is_asked_and_how_it_was_written_is_kept() {
        let names = names(&["docker.io"], None, &[]);
        let query = "n=3&last=b&ns=docker.io";
        let found = target(&names, "GET", &format!("/v2/docker.io/library/nginx/tags/list?{query}")).unwrap();
        let Target::Mirror(mirrored) = found else { panic!("{found:?}") };
        assert_eq!(mirrored.asked, Asked::Tags(Some("b".to_owned()), Some(3)));
        assert_eq!((mirrored.written.as_str(), mirrored.by_namespace), ("docker.io/library/nginx", true));
        let referrers = format!("/v2/docker.io/a/referrers/{DIGEST}?artifactType=x%2Fy");
        let Target::Mirror(mirrored) = target(&names, "GET", &referrers).unwrap() else { panic!("no mirror") };
        assert_eq!(mirrored.asked, Asked::Referrers(DIGEST.parse().unwrap(), Some("x/y".to_owned())));
        assert!(!mirrored.by_namespace);
    }
}
