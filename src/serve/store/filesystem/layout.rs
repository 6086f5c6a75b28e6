//! Where everything lies under the root: content in CNCF distribution's layout, the rest under `wharf/`. Pure.

use std::path::{Path, PathBuf};

use crate::oci::{Algorithm, Digest, RepositoryName};
use crate::serve::store::{Link, Listing};

const CONTENT: &str = "docker/registry/v2";

/// The folder of all repositories.
pub const REPOSITORIES: &str = "docker/registry/v2/repositories";
/// In a repository's folder: its manifests and tags.
pub const MANIFESTS: &str = "_manifests";

/// What one process holds while it serves the root.
pub const LOCK: &str = "wharf/lock";
/// Files and folders before they are renamed to their place.
pub const TEMPORARY: &str = "wharf/tmp";
/// Says that the root was served since referrers were last tagged.
pub const SERVED: &str = "wharf/served";
/// One folder an upload.
pub const UPLOADS: &str = "wharf/uploads";
/// In an upload's folder: its bytes.
pub const UPLOAD_DATA: &str = "data";
/// In an upload's folder: the name of its repository.
pub const UPLOAD_REPOSITORY: &str = "repository";
/// In an upload's folder: a note about it.
pub const UPLOAD_NOTE: &str = "note";

/// A file's place, and its nearest folder that is never removed.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// An ancestor of the file.
    pub permanent: PathBuf,
}

/// The folder in which content of one algorithm lies, in folders by the start of its digest.
pub fn contents(algorithm: Algorithm) -> PathBuf {
    Path::new(CONTENT).join("blobs").join(algorithm.as_str())
}

/// What is in every repository's folder once something was pushed to it, at least one of both.
pub const PARTS: [&str; 2] = ["_layers", MANIFESTS];

/// The folder of one name under a folder that is never removed.
fn below(permanent: PathBuf, name: &str, file: &str) -> Place {
    Place { file: permanent.join(name).join(file), permanent }
}

/// Where content lies.
pub fn content(digest: &Digest) -> Place {
    let start = digest.hex().get(..2).unwrap_or_default();
    let permanent = contents(digest.algorithm()).join(start);
    below(permanent, digest.hex(), "data")
}

/// Where a repository lies.
pub fn repository(name: &RepositoryName) -> PathBuf {
    Path::new(REPOSITORIES).join(name.as_str())
}

fn revisions(name: &RepositoryName, algorithm: Algorithm) -> PathBuf {
    repository(name).join("_manifests/revisions").join(algorithm.as_str())
}

fn tags(name: &RepositoryName) -> PathBuf {
    repository(name).join("_manifests/tags")
}

/// Where the link lies that says what a name stands for.
pub fn link(link: &Link) -> Place {
    match link {
        Link::Layer(name, digest) => {
            let layers = repository(name).join("_layers").join(digest.algorithm().as_str());
            below(layers, digest.hex(), "link")
        }
        Link::Revision(name, digest) => below(revisions(name, digest.algorithm()), digest.hex(), "link"),
        Link::Tag(name, tag) => below(tags(name), tag.as_str(), "current/link"),
    }
}

/// Within a tag's folder: the entry for one digest that it has stood for.
pub fn tag_entry(target: &Digest) -> PathBuf {
    Path::new("index").join(target.algorithm().as_str()).join(target.hex()).join("link")
}

/// The folders whose entries a listing names, each with what stands before the names. Repositories lie in no such folder:
/// each may be below another.
pub fn listing(listing: &Listing) -> Vec<(PathBuf, String)> {
    match listing {
        Listing::Repositories => Vec::new(),
        Listing::Tags(name) => vec![(tags(name), String::new())],
        Listing::Revisions(name) => Algorithm::ALL
            .into_iter()
            .map(|algorithm| (revisions(name, algorithm), format!("{}:", algorithm.as_str())))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::{content, link, tag_entry};
    use crate::oci::Digest;
    use crate::serve::store::Link;

    #[test]
    fn content_lies_where_distribution_looks_for_it() {
        for (algorithm, length) in [("sha256", 64), ("sha512", 128)] {
            let hex = "ab12".repeat(length / 4);
            let digest: Digest = format!("{algorithm}:{hex}").parse().unwrap();
            let name: crate::oci::RepositoryName = "library/nginx".parse().unwrap();
            let blobs = format!("docker/registry/v2/blobs/{algorithm}/ab");
            assert_eq!(content(&digest).permanent.to_str(), Some(blobs.as_str()));
            assert_eq!(content(&digest).file.to_str(), Some(format!("{blobs}/{hex}/data").as_str()));
            let repository = "docker/registry/v2/repositories/library/nginx";
            for (found, expected) in [
                (Link::Layer(name.clone(), digest.clone()), format!("_layers/{algorithm}/{hex}/link")),
                (Link::Revision(name.clone(), digest.clone()), format!("_manifests/revisions/{algorithm}/{hex}/link")),
                (Link::Tag(name.clone(), "1.2".parse().unwrap()), "_manifests/tags/1.2/current/link".to_owned()),
            ] {
                let place = link(&found);
                assert_eq!(place.file.to_str(), Some(format!("{repository}/{expected}").as_str()));
                assert!(place.file.starts_with(&place.permanent));
            }
            assert_eq!(tag_entry(&digest).to_str(), Some(format!("index/{algorithm}/{hex}/link").as_str()));
        }
    }
}
