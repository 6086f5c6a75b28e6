//! An image that is nobody's: `wharf/canary`, which every server of ours answers for every registry that it serves, so that a node
//! can prove that it reaches one. Pure. Its bytes must never change: whoever asks knows them by their digests.

use super::media_type::ManifestType;

/// The repository; no other of this name can be reached.
pub const REPOSITORY: &str = "wharf/canary";
/// Its only tag.
pub const TAG: &str = "latest";
/// The path of the manifest by its tag.
pub const PATH: &str = "/v2/wharf/canary/manifests/latest";
/// The manifest: an image without layers.
pub const MANIFEST: &[u8] = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:e95c194ea373ef0eea53eecd0ff4502f2e5bf9c91b90df128a0f6b000a47a9ec","size":148},"layers":[]}"#;
/// Of which type it is.
pub const MANIFEST_TYPE: ManifestType = ManifestType::OciImage;
/// Its digest.
pub const MANIFEST_DIGEST: &str = "sha256:eb611beb49776ab34cb5c19c4ae77860dc8bd9e58b78e489ff3c5dea7496cba4";
/// The image's configuration, the one blob that the manifest names.
pub const CONFIG: &[u8] = br#"{"architecture":"amd64","os":"linux","config":{"Labels":{"org.opencontainers.image.title":"wharf canary"}},"rootfs":{"type":"layers","diff_ids":[]}}"#;
/// Its digest.
pub const CONFIG_DIGEST: &str = "sha256:e95c194ea373ef0eea53eecd0ff4502f2e5bf9c91b90df128a0f6b000a47a9ec";

#[cfg(test)]
mod tests {
    use super::{CONFIG, CONFIG_DIGEST, MANIFEST, MANIFEST_DIGEST, MANIFEST_TYPE, PATH, REPOSITORY, TAG};
    use crate::oci::{Algorithm, Digest, Endpoint, Manifest};

    #[test]
    fn it_is_an_image_and_of_its_digests() {
        for (bytes, digest) in [(MANIFEST, MANIFEST_DIGEST), (CONFIG, CONFIG_DIGEST)] {
            assert_eq!(Digest::of(Algorithm::Sha256, bytes).as_str(), digest);
        }
        let manifest = Manifest::parse(MANIFEST).unwrap();
        assert_eq!(manifest.kind, MANIFEST_TYPE);
        assert_eq!(manifest.blobs, [CONFIG_DIGEST.parse().unwrap()]);
        let path = Endpoint::Manifest(REPOSITORY.parse().unwrap(), TAG.parse().unwrap());
        assert_eq!(path.to_string(), PATH);
    }
}
