//! Reading a manifest: its type follows from its bytes, and what it names is known. The bytes themselves are never
//! written anew; the one that is made here is the index of referrers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::digest::Digest;
use super::media_type::{ManifestType, is_nondistributable};
use super::platform::Platform;

/// The largest manifest that is read, in bytes; the protocol asks for at least this much.
pub const LARGEST: usize = 4 * 1024 * 1024;

/// What an index says of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The manifest's type.
    pub media_type: &'static str,
    /// Its digest.
    #[serde(serialize_with = "as_text")]
    pub digest: Digest,
    /// Its length.
    pub size: u64,
    /// What kind of artifact it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Its annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An index of manifests that refer to a subject, as the specification has it listed, by the API or under a tag.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReferrersIndex<'a> {
    schema_version: u32,
    media_type: &'static str,
    manifests: &'a [Descriptor],
}

impl<'a> ReferrersIndex<'a> {
    /// Of these.
    #[must_use]
    pub fn new(manifests: &'a [Descriptor]) -> Self {
        Self { schema_version: 2, media_type: ManifestType::OciIndex.as_str(), manifests }
    }
}

impl Descriptor {
    /// How long it is in an index, with the comma.
    #[must_use]
    pub fn written_length(&self) -> usize {
        serde_json::to_string(self).map_or(0, |text| text.len() + 1)
    }
}

fn as_text<S: serde::Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(digest.as_str())
}

/// What is known of a manifest once it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What it is.
    pub kind: ManifestType,
    /// Configuration and layers that a registry must have.
    pub blobs: Vec<Digest>,
    /// How long each of them is, as it says; 0 where it does not.
    pub lengths: Vec<u64>,
    /// The manifests of an index.
    pub children: Vec<Child>,
    /// The manifest that it refers to.
    pub subject: Option<Digest>,
    /// Its `artifactType`, or the type of its configuration.
    pub artifact_type: Option<String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// A manifest of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// Its digest.
    pub digest: Digest,
    /// For which machines it is, where that is said.
    pub platform: Option<Platform>,
}

impl Child {
    /// Whether it is for one of these machines, or may be; all of them are meant where none is named.
    #[must_use]
    pub fn is_for(&self, platforms: &[Platform]) -> bool {
        let of = |own: &Platform| platforms.iter().any(|wanted| wanted.runs(own));
        platforms.is_empty() || self.platform.as_ref().is_none_or(of)
    }
}

/// Why bytes are not a manifest.
#[derive(Debug, Error)]
pub enum InvalidManifest {
    /// They are not JSON, or not of the shape of a manifest.
    #[error("the manifest cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// They are not UTF-8, of which a reader of JSON may see nothing in parts that it skips.
    #[error("the manifest is not UTF-8: {0}")]
    Encoding(#[from] std::str::Utf8Error),
    /// `schemaVersion` is not 2.
    #[error("the manifest's schemaVersion is not 2")]
    Schema,
    /// The type in the bytes is none of the four.
    #[error("the manifest's mediaType {0:?} is not one that a registry keeps")]
    Unknown(String),
    /// Neither `mediaType` nor the fields say what it is.
    #[error("the manifest has no mediaType, and is neither an OCI image nor an OCI index by its fields")]
    Untyped,
    /// A field that its type needs is missing, or one of the other type is there.
    #[error("the manifest's fields are not those of its type")]
    Fields,
    /// It was announced as something else.
    #[error("the manifest is of type {found}, but its Content-Type is {announced:?}")]
    Announced {
        /// What the bytes say.
        found: &'static str,
        /// What the request says.
        announced: String,
    },
    /// It names content by a digest that is not one.
    #[error("the manifest names content by {0:?}, which is not a digest")]
    Digest(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    config: Option<Named>,
    #[serde(default)]
    layers: Option<Vec<Named>>,
    #[serde(default)]
    manifests: Option<Vec<Named>>,
    #[serde(default)]
    subject: Option<Named>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    urls: Option<Vec<String>>,
    /// Whatever stands there: what cannot be understood says nothing.
    #[serde(default)]
    size: Value,
    #[serde(default)]
    platform: Value,
}

impl Named {
    fn digest(&self) -> Result<Digest, InvalidManifest> {
        self.digest.parse().map_err(|_| InvalidManifest::Digest(self.digest.clone()))
    }

    fn child(&self) -> Result<Child, InvalidManifest> {
        Ok(Child { digest: self.digest()?, platform: Platform::of(&self.platform) })
    }

    fn is_elsewhere(&self) -> bool {
        is_nondistributable(&self.media_type) || self.urls.as_ref().is_some_and(|urls| !urls.is_empty())
    }
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// When the bytes are not a manifest whose type follows from them.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidManifest> {
        let fields: Fields = serde_json::from_slice(bytes)?;
        if fields.schema_version != 2 {
            return Err(InvalidManifest::Schema);
        }
        let kind = kind(&fields)?;
        let mut manifest = Self {
            kind,
            blobs: Vec::new(),
            lengths: Vec::new(),
            children: Vec::new(),
            subject: fields.subject.as_ref().map(Named::digest).transpose()?,
            artifact_type: fields.artifact_type.filter(|text| !text.is_empty()),
            annotations: fields.annotations.unwrap_or_default(),
        };
        match (&fields.config, &fields.layers, &fields.manifests) {
            (Some(config), Some(layers), None) if !kind.is_index() => {
                let kept = std::iter::once(config).chain(layers.iter().filter(|layer| !layer.is_elsewhere()));
                manifest.lengths = kept.clone().map(|blob| blob.size.as_u64().unwrap_or_default()).collect();
                manifest.blobs = kept.map(Named::digest).collect::<Result<_, _>>()?;
                if manifest.artifact_type.is_none() && !config.media_type.is_empty() {
                    manifest.artifact_type = Some(config.media_type.clone());
                }
            }
            (None, None, Some(children)) if kind.is_index() => {
                manifest.children = children.iter().map(Named::child).collect::<Result<_, _>>()?;
            }
            _ => return Err(InvalidManifest::Fields),
        }
        Ok(manifest)
    }

    /// Reads a manifest that was announced as `content_type`.
    ///
    /// # Errors
    /// As [`Manifest::parse`], and when it is not UTF-8 or was announced as something else than it is.
    pub fn parse_announced(bytes: &[u8], content_type: &str) -> Result<Self, InvalidManifest> {
        std::str::from_utf8(bytes)?;
        let manifest = Self::parse(bytes)?;
        if ManifestType::parse(content_type) != Some(manifest.kind) {
            let (found, announced) = (manifest.kind.as_str(), content_type.to_owned());
            return Err(InvalidManifest::Announced { found, announced });
        }
        Ok(manifest)
    }

    /// How an index describes this manifest.
    #[must_use]
    pub fn descriptor(&self, digest: Digest, size: u64) -> Descriptor {
        let (artifact_type, annotations) = (self.artifact_type.clone(), self.annotations.clone());
        Descriptor { media_type: self.kind.as_str(), digest, size, artifact_type, annotations }
    }
}

fn kind(fields: &Fields) -> Result<ManifestType, InvalidManifest> {
    match &fields.media_type {
        Some(text) => ManifestType::parse(text).ok_or_else(|| InvalidManifest::Unknown(text.clone())),
        None if fields.manifests.is_some() => Ok(ManifestType::OciIndex),
        None if fields.config.is_some() && fields.layers.is_some() => Ok(ManifestType::OciImage),
        None => Err(InvalidManifest::Untyped),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{InvalidManifest, Manifest};
    use crate::oci::{ManifestType, Platform};

    fn digest(fill: &str) -> String {
        format!("sha256:{}", fill.repeat(64))
    }

    fn image() -> Value {
        json!({
            "schemaVersion": 2,
            "mediaType": ManifestType::OciImage.as_str(),
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest("0"), "size": 2},
            "layers": [
                {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest("1"), "size": 1},
                {"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar", "digest": digest("2"), "size": 1},
            ],
        })
    }

    fn read(value: &Value) -> Result<Manifest, InvalidManifest> {
        Manifest::parse(value.to_string().as_bytes())
    }

    #[test]
    fn an_image_names_what_a_registry_must_have() {
        let manifest = read(&image()).unwrap();
        assert_eq!(manifest.kind, ManifestType::OciImage);
        let blobs: Vec<&str> = manifest.blobs.iter().map(crate::oci::Digest::as_str).collect();
        assert_eq!(blobs, [digest("0"), digest("1")]);
        assert_eq!(manifest.artifact_type.as_deref(), Some("application/vnd.oci.image.config.v1+json"));
        assert_eq!(manifest.lengths, [2, 1]);
    }

    #[test]
    fn an_index_names_its_images_and_for_which_machines_they_are() {
        let child = |fill: &str, platform: Value| json!({"digest": digest(fill), "size": "much", "platform": platform});
        let linux = |architecture: &str| json!({"os": "linux", "architecture": architecture});
        let manifests = [child("1", linux("amd64")), child("2", linux("arm64")), child("3", json!("?"))];
        let index = read(&json!({"schemaVersion": 2, "manifests": manifests})).unwrap();
        let of = |platforms: &[&str]| {
            let platforms: Vec<Platform> = platforms.iter().map(|text| text.parse().unwrap()).collect();
            let wanted = index.children.iter().filter(|child| child.is_for(&platforms));
            wanted.map(|child| child.digest.hex()[..1].to_owned()).collect::<String>()
        };
        for (platforms, expected) in [
            (&[][..], "123"),
            (&["linux/amd64"], "13"),
            (&["linux/amd64", "linux/arm64/v8"], "123"),
            (&["linux/s390x"], "3"),
        ] {
            assert_eq!(of(platforms), expected, "{platforms:?}");
        }
    }

    #[test]
    fn the_type_follows_from_the_fields_where_it_is_not_said() {
        let mut value = image();
        value.as_object_mut().unwrap().remove("mediaType");
        assert_eq!(read(&value).unwrap().kind, ManifestType::OciImage);
        let index = json!({"schemaVersion": 2, "manifests": [{"digest": digest("3"), "size": 1}]});
        let manifest = read(&index).unwrap();
        assert_eq!((manifest.kind, manifest.children.len()), (ManifestType::OciIndex, 1));
        let text = index.to_string();
        assert!(Manifest::parse_announced(text.as_bytes(), ManifestType::OciIndex.as_str()).is_ok());
        let wrong = Manifest::parse_announced(text.as_bytes(), ManifestType::DockerList.as_str());
        assert!(matches!(wrong, Err(InvalidManifest::Announced { .. })));
    }

    #[test]
    fn what_is_not_a_manifest_is_refused() {
        type Spoil = fn(&mut Value);
        let table: [(Spoil, &str); 9] = [
            (|value| value["schemaVersion"] = json!(1), "schemaVersion"),
            (|value| value["mediaType"] = json!("application/json"), "is not one that a registry keeps"),
            (|value| value["mediaType"] = json!(ManifestType::OciIndex.as_str()), "not those of its type"),
            (|value| value["manifests"] = json!([]), "not those of its type"),
            (|value| value["layers"][0]["digest"] = json!("sha256:../../etc"), "not a digest"),
            (|value| value["subject"] = json!({"digest": "x"}), "not a digest"),
            (|value| value["config"] = json!(null), "not those of its type"),
            (|value| value["layers"] = json!({}), "cannot be read"),
            (|value| *value = json!({"schemaVersion": 2}), "neither an OCI image nor an OCI index"),
        ];
        for (spoil, expected) in table {
            let mut value = image();
            spoil(&mut value);
            let error = read(&value).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let skipped = image().to_string().replace("schemaVersion", "unknown\":\"\u{7f}\",\"schemaVersion");
        let skipped: Vec<u8> = skipped.bytes().map(|byte| if byte == 0x7f { 0xff } else { byte }).collect();
        let announced = Manifest::parse_announced(&skipped, ManifestType::OciImage.as_str());
        assert!(matches!(announced, Err(InvalidManifest::Encoding(_))), "{announced:?}");
        assert!(Manifest::parse(b"{").is_err());
        assert!(Manifest::parse(b"").is_err());
    }
}
