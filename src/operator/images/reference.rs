//! What a container's status says of its image: which content it is, and of which registry. Pure.
//! It must never guess a registry: content without a name is of none.
//!
//! The kubelet passes on what the container runtime says, and each says it in its own way:
//!
//! | runtime | `imageID` |
//! |---|---|
//! | containerd, all versions | `docker.io/library/busybox@sha256:…`: the digest that was pulled, of the index where there is one |
//! | containerd, an image that was imported without a name by digest | `sha256:…`: of the image's configuration |
//! | CRI-O | as containerd, or the bare hexadecimal digits of the configuration's digest |
//! | Docker | `docker-pullable://busybox@sha256:…`, or `docker://sha256:…` of the configuration |
//!
//! Where several names lead to the same content, containerd says the first of them, which need not be the one that was pulled.

use crate::oci::{Digest, RegistryHost};

/// The registry of names that say none, and its other name.
const DOCKER_HUB: [&str; 2] = ["docker.io", "index.docker.io"];

/// The image that a container runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningImage {
    /// Its content: an index, a manifest or a configuration.
    pub digest: Digest,
    /// The registries that its names say, each once: mostly one.
    pub hosts: Vec<RegistryHost>,
    /// Whether the runtime has a name for this very content: without one, nobody pulled it here, or the runtime does not tell.
    pub is_named: bool,
}

impl RunningImage {
    /// From the fields of a container's status; `None` where they name no content, as before the image was pulled.
    #[must_use]
    pub fn of(image: &str, image_id: &str) -> Option<Self> {
        let id = image_id.split_once("://").map_or(image_id, |(_, id)| id);
        let (name, digest) = id.rsplit_once('@').unwrap_or(("", id));
        let digest = digest.parse().ok().or_else(|| bare(digest))?;
        let mut hosts: Vec<RegistryHost> = [name, image].into_iter().filter_map(host_of).collect();
        hosts.dedup();
        Some(Self { digest, hosts, is_named: !name.is_empty() })
    }
}

/// The registry that a reference names, as Docker and the container runtimes read it. `None` where it is no name.
#[must_use]
pub fn host_of(reference: &str) -> Option<RegistryHost> {
    if reference.is_empty() || reference.parse::<Digest>().is_ok() || bare(reference).is_some() {
        return None;
    }
    let host = match reference.split_once('/') {
        Some((first, _)) if first == "localhost" || first.contains(['.', ':']) => first,
        _ => DOCKER_HUB[0],
    };
    if host == DOCKER_HUB[1] { DOCKER_HUB[0] } else { host }.parse().ok()
}

/// The digest that these hexadecimal digits alone mean.
fn bare(text: &str) -> Option<Digest> {
    format!("sha256:{text}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_runtimes_way_of_naming_an_image_is_read() {
        let hex = "5e".repeat(32);
        let digest = format!("sha256:{hex}");
        for (image, image_id, hosts) in [
            // containerd 1.6 and 2.3, pulled.
            ("docker.io/library/busybox:1.36", format!("docker.io/library/busybox@{digest}"), vec!["docker.io"]),
            ("registry.k8s.io/pause:3.9", format!("registry.k8s.io/pause@{digest}"), vec!["registry.k8s.io"]),
            ("example.com:5000/a/b:1", format!("example.com:5000/a/b@{digest}"), vec!["example.com:5000"]),
            // Pulled by its digest, and with both.
            ("docker.io/library/busybox@sha256:0", format!("docker.io/library/busybox@{digest}"), vec!["docker.io"]),
            // The same content under two names, of which the runtime says one each.
            ("quay.io/a/b:1", format!("docker.io/a/b@{digest}"), vec!["docker.io", "quay.io"]),
            // Imported.
            ("docker.io/library/wharf:1", digest.clone(), vec!["docker.io"]),
            (digest.as_str(), digest.clone(), vec![]),
            ("", digest.clone(), vec![]),
            // CRI-O.
            ("quay.io/a/b:1", hex.clone(), vec!["quay.io"]),
            (hex.as_str(), hex.clone(), vec![]),
            // Docker.
            ("busybox:latest", format!("docker-pullable://busybox@{digest}"), vec!["docker.io"]),
            ("a/b", format!("docker://{digest}"), vec!["docker.io"]),
        ] {
            let found = RunningImage::of(image, &image_id).expect(&image_id);
            let names: Vec<_> = found.hosts.iter().map(RegistryHost::as_str).collect();
            assert_eq!((found.digest.as_str(), names), (digest.as_str(), hosts), "{image} {image_id}");
            assert_eq!(found.is_named, image_id.contains('@'), "{image_id}");
        }
    }

    #[test]
    fn what_names_no_content_is_no_image() {
        for image_id in ["", "busybox", "docker.io/library/busybox:1", "docker.io/a@sha256:xyz", "sha256:", "a@", "://"]
        {
            assert_eq!(RunningImage::of("busybox", image_id), None, "{image_id}");
        }
    }

    #[test]
    fn a_name_without_a_registry_is_of_docker_hub() {
        for (reference, host) in [
            ("busybox", Some("docker.io")),
            ("busybox:1.36", Some("docker.io")),
            ("bitnami/redis", Some("docker.io")),
            ("index.docker.io/library/busybox", Some("docker.io")),
            ("docker.io/busybox", Some("docker.io")),
            ("localhost/a", Some("localhost")),
            ("localhost:5000/a", Some("localhost:5000")),
            ("ghcr.io/a/b:1", Some("ghcr.io")),
            ("team.platform.svc/a", Some("team.platform.svc")),
            // No host as Mirrors name it.
            ("EXAMPLE.com/a", None),
            ("[::1]:5000/a", None),
            ("", None),
        ] {
            assert_eq!(host_of(reference).as_ref().map(RegistryHost::as_str), host, "{reference}");
        }
    }
}
