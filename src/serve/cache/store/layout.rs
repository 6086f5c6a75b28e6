//! Where everything lies below the cache's own folder. Pure. No path that is made here leads out of it.

use std::path::{Path, PathBuf};

use super::Scope;
use super::index::Named;
use crate::oci::{Algorithm, Digest, RegistryHost, Tag};

/// The cache's folder within the root.
pub const FOLDER: &str = "wharf/cache";
/// What is not at its place yet.
pub const PARTIAL: &str = "partial";
/// Up to where content is durable.
pub const CHECKPOINT: &str = "checkpoint";
/// Says that content may be there which is not durable.
pub const UNSETTLED: &str = "unsettled";
/// The folder of all content.
pub const CONTENT: &str = "content";
/// The folder of all links.
pub const REGISTRIES: &str = "registries";

/// In a repository's folder: its links to blobs, its links to manifests, its tags, and when anybody could read it. No part of
/// a repository's name begins as these do.
pub const BLOBS: &str = "_blobs";
pub const MANIFESTS: &str = "_manifests";
pub const TAGS: &str = "_tags";
pub const PUBLIC: &str = "_public";

/// The folder in which content of one algorithm lies, in folders by the start of its digest.
pub fn contents(algorithm: Algorithm) -> PathBuf {
    Path::new(CONTENT).join(algorithm.as_str())
}

pub fn content(digest: &Digest) -> PathBuf {
    let start = digest.hex().get(..2).unwrap_or_default();
    contents(digest.algorithm()).join(start).join(digest.hex())
}

/// The folder of one registry's repositories.
pub fn registry(host: &RegistryHost) -> PathBuf {
    Path::new(REGISTRIES).join(host.as_prefix())
}

pub fn scope(scope: &Scope) -> PathBuf {
    registry(&scope.upstream).join(scope.repository.as_str())
}

pub fn link(within: &Scope, named: &Named) -> PathBuf {
    let (kind, digest) = match named {
        Named::Blob(digest) => (BLOBS, digest),
        Named::Manifest(digest) => (MANIFESTS, digest),
    };
    scope(within).join(kind).join(digest.algorithm().as_str()).join(digest.hex())
}

pub fn tag(within: &Scope, tag: &Tag) -> PathBuf {
    scope(within).join(TAGS).join(tag.as_str())
}

pub fn public(within: &Scope) -> PathBuf {
    scope(within).join(PUBLIC)
}

#[cfg(test)]
mod tests {
    use super::super::Scope;
    use super::super::index::Named;
    use super::{content, link, public, tag};

    #[test]
    fn every_kind_of_thing_has_its_own_place() {
        let scope = Scope {
            upstream: "registry.example.com:5000".parse().unwrap(),
            repository: "library/nginx".parse().unwrap(),
        };
        for (algorithm, length) in [("sha256", 64), ("sha512", 128)] {
            let hex = "ab12".repeat(length / 4);
            let digest: crate::oci::Digest = format!("{algorithm}:{hex}").parse().unwrap();
            let repository = "registries/registry.example.com_5000/library/nginx";
            for (path, expected) in [
                (content(&digest), format!("content/{algorithm}/ab/{hex}")),
                (link(&scope, &Named::Blob(digest.clone())), format!("{repository}/_blobs/{algorithm}/{hex}")),
                (link(&scope, &Named::Manifest(digest)), format!("{repository}/_manifests/{algorithm}/{hex}")),
                (tag(&scope, &"_1.2".parse().unwrap()), format!("{repository}/_tags/_1.2")),
                (public(&scope), format!("{repository}/_public")),
            ] {
                assert_eq!(path.to_str(), Some(expected.as_str()));
            }
        }
    }
}
