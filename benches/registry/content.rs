//! The content that is pushed and pulled: bytes that do not compress, the same in each run, and manifests of them.
//! It must never be made while something is measured: hashing takes the processor.

use std::fmt::Write;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use sha2::{Digest, Sha256};

pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Bytes and their digest.
#[derive(Clone)]
pub struct Blob {
    pub bytes: Bytes,
    pub digest: String,
}

impl Blob {
    pub fn new(bytes: Vec<u8>) -> Self {
        let mut digest = "sha256:".to_owned();
        for byte in Sha256::digest(&bytes) {
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
