//! The content that is pushed and pulled: bytes that do not compress, the same in each run, and manifests of them.
//! It must never be made while something is measured: hashing takes the processor.

use std::fmt::Write;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use ring::digest::{Context, SHA256};
use serde_json::json;

pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A hash that is quick without optimization too: what the benchmarks themselves do is not what they measure.
fn hash(bytes: &[u8]) -> Context {
    let mut hash = Context::new(&SHA256);
    hash.update(bytes);
    hash
}

/// Bytes and their digest.
#[derive(Clone)]
pub struct Blob {
    pub bytes: Bytes,
    pub digest: String,
}

impl Blob {
    pub fn new(bytes: Vec<u8>) -> Self {
        let hash = hash(&bytes);
        Self::hashed(bytes, hash)
    }

    fn hashed(bytes: Vec<u8>, hash: Context) -> Self {
        let mut digest = "sha256:".to_owned();
        for byte in hash.finish().as_ref() {
            write!(digest, "{byte:02x}").unwrap();
        }
        Self { bytes: bytes.into(), digest }
    }

    /// Another for each number.
    pub fn random(length: usize, number: u64) -> Self {
        let mut bytes = vec![0; length];
        SmallRng::seed_from_u64(number).fill_bytes(&mut bytes);
        Self::new(bytes)
    }

    pub fn hex(&self) -> &str {
        self.digest.trim_start_matches("sha256:")
    }

    fn descriptor(&self, media_type: &str) -> serde_json::Value {
        json!({"mediaType": media_type, "digest": self.digest, "size": self.bytes.len()})
    }
}

/// Large blobs that differ in their last bytes alone, so that only one has to be made and hashed whole.
pub struct Large {
    bytes: Vec<u8>,
    hash: Context,
}

impl Large {
    /// Of so many bytes, and a few more.
    pub fn new(length: usize) -> Self {
        let mut bytes = vec![0; length];
        SmallRng::seed_from_u64(101).fill_bytes(&mut bytes);
        let hash = hash(&bytes);
        Self { bytes, hash }
    }

    pub fn number(&self, number: u64) -> Blob {
        let (mut bytes, mut hash) = (self.bytes.clone(), self.hash.clone());
        bytes.extend_from_slice(&number.to_le_bytes());
        hash.update(&number.to_le_bytes());
        Blob::hashed(bytes, hash)
    }
}

/// An image: its manifest, and the blobs that the manifest names.
pub struct Image {
    pub blobs: Vec<Blob>,
    pub manifest: Blob,
}

impl Image {
    pub fn of(layers: Vec<Blob>) -> Self {
        let names: Vec<&str> = layers.iter().map(|layer| layer.digest.as_str()).collect();
        let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": names}});
        let config = Blob::new(config.to_string().into_bytes());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": config.descriptor(CONFIG_TYPE),
            "layers": layers.iter().map(|layer| layer.descriptor(LAYER_TYPE)).collect::<Vec<_>>(),
        });
        let manifest = Blob::new(manifest.to_string().into_bytes());
        let mut blobs = layers;
        blobs.push(config);
        Self { blobs, manifest }
    }
}
