//! Media types of manifests, and of the layers that a registry need not have.

/// What a manifest may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ManifestType {
    /// One image or artifact.
    OciImage,
    /// A list of manifests.
    OciIndex,
    /// Docker's image, schema 2.
    DockerImage,
    /// Docker's list of manifests.
    DockerList,
}

impl ManifestType {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::OciImage, Self::OciIndex, Self::DockerImage, Self::DockerList];

    /// As it is written in `Content-Type` and `mediaType`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OciImage => "application/vnd.oci.image.manifest.v1+json",
            Self::OciIndex => "application/vnd.oci.image.index.v1+json",
            Self::DockerImage => "application/vnd.docker.distribution.manifest.v2+json",
            Self::DockerList => "application/vnd.docker.distribution.manifest.list.v2+json",
        }
    }

    /// The type that is written so; parameters after a `;` do not count.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let essence = text.split(';').next().unwrap_or_default().trim();
        Self::ALL.into_iter().find(|known| known.as_str().eq_ignore_ascii_case(essence))
    }

    /// Whether it lists manifests, rather than layers.
    #[must_use]
    pub fn is_index(self) -> bool {
        matches!(self, Self::OciIndex | Self::DockerList)
    }
}

/// Whether a layer of this type lies elsewhere by its licence, so that no registry need have it.
#[must_use]
pub fn is_nondistributable(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.oci.image.layer.nondistributable.")
        || media_type.starts_with("application/vnd.docker.image.rootfs.foreign.")
}

#[cfg(test)]
mod tests {
    use super::{ManifestType, is_nondistributable};

    #[test]
    fn a_type_is_read_as_it_is_written() {
        for known in ManifestType::ALL {
            assert_eq!(ManifestType::parse(known.as_str()), Some(known));
            assert_eq!(ManifestType::parse(&format!("{}; charset=utf-8", known.as_str())), Some(known));
        }
        for unknown in ["", "application/json", "application/vnd.docker.distribution.manifest.v1+prettyjws"] {
            assert_eq!(ManifestType::parse(unknown), None);
        }
    }

    #[test]
    fn foreign_layers_are_known() {
        assert!(is_nondistributable("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"));
        assert!(is_nondistributable("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"));
        assert!(!is_nondistributable("application/vnd.oci.image.layer.v1.tar+gzip"));
    }
}
