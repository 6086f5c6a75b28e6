//! What the scripted upstream has: images made from a seed, with layers that a runtime can unpack.

use std::collections::BTreeMap;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

pub const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const BLOB: &str = "application/octet-stream";
pub const PLATFORMS: [&str; 2] = ["amd64", "arm64"];

pub fn digest(bytes: &[u8]) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, bytes);
    hash.as_ref().iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// An image of these blobs; the first is its configuration.
pub fn image(blobs: &[&[u8]]) -> Bytes {
    let describe = |blob: &&[u8]| json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest(blob), "size": blob.len()});
    let mut described: Vec<_> = blobs.iter().map(describe).collect();
    let mut config = described.remove(0);
    config["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
    json!({"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": described}).to_string().into()
}

/// Bytes with the digest that names them.
#[derive(Clone, Debug)]
pub struct Named {
    pub digest: String,
    pub bytes: Bytes,
}

impl Named {
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { digest: digest(&bytes), bytes }
    }
}

/// An image for one platform.
#[derive(Clone, Debug)]
pub struct Image {
    pub manifest: Named,
    pub config: Named,
    pub layers: Vec<Named>,
}

/// An index of images, one for each of [`PLATFORMS`].
#[derive(Clone, Debug)]
pub struct Index {
    pub manifest: Named,
    pub images: Vec<Image>,
}

/// An archive with one file of random bytes, so that it is about this large.
pub fn layer(random: &mut StdRng, size: usize) -> Named {
    let mut content = vec![0; size.saturating_sub(3 * 512).max(1)];
    random.fill(&mut content[..]);
    archive("file", &content)
}

/// An archive with one file that everybody may run.
pub fn archive(name: &str, content: &[u8]) -> Named {
    let length = content.len();
    let mut header = [0_u8; 512];
    let fields: [(usize, &str); 6] =
        [(0, name), (100, "0000755\0"), (108, "0000000\0"), (116, "0000000\0"), (136, "00000000000\0"), (156, "0")];
    for (at, text) in fields {
        header[at..at + text.len()].copy_from_slice(text.as_bytes());
    }
    header[124..136].copy_from_slice(format!("{length:011o}\0").as_bytes());
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    Named::new(archive)
}

impl Image {
    pub fn new(architecture: &str, layers: Vec<Named>) -> Self {
        let described: Vec<_> = layers.iter().map(|layer| &layer.digest).collect();
        let rootfs = json!({"type": "layers", "diff_ids": described});
        let config = json!({"architecture": architecture, "os": "linux", "rootfs": rootfs, "config": {}}).to_string();
        let config = Named::new(config);
        let blobs: Vec<&[u8]> = [&config].into_iter().chain(&layers).map(|blob| &blob.bytes[..]).collect();
        Self { manifest: Named::new(image(&blobs)), config, layers }
    }

    /// The configuration and the layers.
    pub fn blobs(&self) -> impl Iterator<Item = &Named> {
        [&self.config].into_iter().chain(&self.layers)
    }

    /// As a repository has it.
    pub fn is_tagged(&self, tag: &str) -> Repository {
        let mut repository = Repository::default();
        repository.add(self);
        repository.tags.insert(tag.to_owned(), self.manifest.digest.clone());
        repository
    }
}

impl Index {
    /// With layers of these sizes in each image.
    pub fn of_seed(seed: u64, sizes: &[usize]) -> Self {
        Self::of_sizes(seed, [sizes; 2])
    }

    /// With layers of these sizes in the first image and in the second.
    pub fn of_sizes(seed: u64, sizes: [&[usize]; 2]) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut layers = |sizes: &[usize]| sizes.iter().map(|size| layer(&mut random, *size)).collect();
        let images: Vec<Image> =
            PLATFORMS.iter().zip(sizes).map(|(platform, sizes)| Image::new(platform, layers(sizes))).collect();
        let describe = |(image, platform): (&Image, &str)| {
            let platform = json!({"architecture": platform, "os": "linux"});
            let (digest, size) = (&image.manifest.digest, image.manifest.bytes.len());
            json!({"mediaType": IMAGE, "digest": digest, "size": size, "platform": platform})
        };
        let described: Vec<_> = images.iter().zip(PLATFORMS).map(describe).collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": described}).to_string();
        Self { manifest: Named::new(manifest), images }
    }

    /// As a repository has it.
    pub fn is_tagged(&self, tag: &str) -> Repository {
        let mut repository = Repository::default();
        for image in &self.images {
            repository.add(image);
        }
        let manifest = (INDEX.to_owned(), self.manifest.bytes.clone());
        repository.manifests.insert(self.manifest.digest.clone(), manifest);
        repository.tags.insert(tag.to_owned(), self.manifest.digest.clone());
        repository
    }
}

/// Who may pull from a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Readers {
    #[default]
    Everybody,
    /// Users, by name.
    Only(Vec<String>),
}

#[derive(Clone, Debug, Default)]
pub struct Repository {
    pub readers: Readers,
    pub tags: BTreeMap<String, String>,
    /// Type and bytes, by digest.
    pub manifests: BTreeMap<String, (String, Bytes)>,
    pub blobs: BTreeMap<String, Bytes>,
}

impl Repository {
    pub fn add(&mut self, image: &Image) {
        let manifest = (IMAGE.to_owned(), image.manifest.bytes.clone());
        self.manifests.insert(image.manifest.digest.clone(), manifest);
        self.blobs.extend(image.blobs().map(|blob| (blob.digest.clone(), blob.bytes.clone())));
    }

    pub fn only_for(mut self, user: &str) -> Self {
        self.readers = Readers::Only(vec![user.to_owned()]);
        self
    }
}
