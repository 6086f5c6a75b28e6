//! References of images, as they stand in a pod: a registry, a repository, and a tag or a digest. Pure.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::host::RegistryHost;
use super::name::RepositoryName;
use super::tag::Reference;

/// Why a text is not an image's reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an image is written with its registry, as docker.io/library/postgres:17, and with a tag or a digest")]
pub struct InvalidImage;

/// An image of a registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Image {
    /// Which registry.
    pub host: RegistryHost,
    /// Which repository of it.
    pub repository: RepositoryName,
    /// Which manifest there.
    pub reference: Reference,
}

impl FromStr for Image {
    type Err = InvalidImage;

    fn from_str(text: &str) -> Result<Self, InvalidImage> {
        let (host, rest) = text.split_once('/').ok_or(InvalidImage)?;
        let (name, digest) = rest.split_once('@').map_or((rest, None), |(name, digest)| (name, Some(digest)));
        let (name, tag) = name.split_once(':').map_or((name, None), |(name, tag)| (name, Some(tag)));
        // With both, the digest counts.
        let reference = digest.or(tag).unwrap_or("latest");
        // As Docker writes the images that are in nobody's name.
        let is_short = host == "docker.io" && !name.contains('/');
        let name = if is_short { format!("library/{name}") } else { name.to_owned() };
        Ok(Self {
            host: host.parse().map_err(|_| InvalidImage)?,
            repository: name.parse().map_err(|_| InvalidImage)?,
            reference: reference.parse().map_err(|_| InvalidImage)?,
        })
    }
}

impl fmt::Display for Image {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joint = if matches!(self.reference, Reference::Tag(_)) { ':' } else { '@' };
        write!(formatter, "{}/{}{joint}{}", self.host, self.repository, self.reference)
    }
}

#[cfg(test)]
mod tests {
    use super::Image;

    #[test]
    fn an_image_is_read_as_it_stands_in_a_pod() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (text, expected) in [
            ("docker.io/library/postgres:17".to_owned(), "docker.io/library/postgres:17".to_owned()),
            ("docker.io/postgres:17".to_owned(), "docker.io/library/postgres:17".to_owned()),
            ("docker.io/postgres".to_owned(), "docker.io/library/postgres:latest".to_owned()),
            ("r.example.com:5000/a/b:1".to_owned(), "r.example.com:5000/a/b:1".to_owned()),
            (format!("ghcr.io/a/b@{digest}"), format!("ghcr.io/a/b@{digest}")),
            (format!("ghcr.io/a/b:1@{digest}"), format!("ghcr.io/a/b@{digest}")),
        ] {
            assert_eq!(text.parse::<Image>().unwrap().to_string(), expected);
        }
        for text in
            ["", "postgres", "docker.io/", "docker.io/A", "Docker.io/a", "docker.io/a:", "docker.io/a@sha256:0", "a//b"]
        {
            assert!(text.parse::<Image>().is_err(), "{text}");
        }
    }
}
