//! The vocabulary of the OCI distribution protocol: names, digests, tags, media types, manifests, ranges, error codes and
//! paths. All of it is pure. It must never know how content is stored, who asks, or which status code an error has.

pub mod canary;
pub mod digest;
pub mod error_code;
pub mod host;
pub mod image;
pub mod manifest;
pub mod media_type;
pub mod name;
pub mod path;
pub mod platform;
pub mod range;
pub mod tag;

pub use digest::{Algorithm, Digest, Hasher};
pub use error_code::ErrorCode;
pub use host::RegistryHost;
pub use image::Image;
pub use manifest::{Child, Descriptor, Manifest, ReferrersIndex};
pub use media_type::ManifestType;
pub use name::RepositoryName;
pub use path::Endpoint;
pub use platform::Platform;
pub use tag::{Reference, Tag};
