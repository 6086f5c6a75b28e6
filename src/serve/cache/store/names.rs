//! What manifests name, as the index keeps it. Pure. It must never take for a manifest what is none.

use crate::oci::{Child, Digest, Manifest, Platform};

/// What a manifest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    /// Of an image: its configuration and the layers that a registry must have.
    Blobs(Box<[Digest]>),
    /// Of an index: its manifests.
    Manifests(Box<[Child]>),
}

impl Names {
    /// What these bytes name, if they are a manifest.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let manifest = Manifest::parse(bytes).ok()?;
        let is_index = manifest.kind.is_index();
        Some(if is_index { Self::Manifests(manifest.children.into()) } else { Self::Blobs(manifest.blobs.into()) })
    }

    /// What is named for these platforms; all where there are none.
    pub fn for_platforms<'a>(&'a self, platforms: &'a [Platform]) -> impl Iterator<Item = &'a Digest> {
        let (blobs, children): (&[Digest], &[Child]) = match self {
            Self::Blobs(blobs) => (blobs, &[]),
            Self::Manifests(children) => (&[], children),
        };
        let children = children.iter().filter(move |child| child.is_for(platforms)).map(|child| &child.digest);
        blobs.iter().chain(children)
    }
}
