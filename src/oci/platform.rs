//! Platforms: for which machines an image is. Pure.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde_json::Value;
use thiserror::Error;

/// Why a text is not a platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a platform is written linux/amd64, or with a variant linux/arm/v7")]
pub struct InvalidPlatform;

/// A kind of machine, such as `linux/arm64` or `linux/arm/v7`. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Platform(Arc<str>);

impl Platform {
    /// What a manifest says of an image; none where it says nothing that can be understood.
    #[must_use]
    pub fn of(described: &Value) -> Option<Self> {
        let part = |name: &str| described.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let variant = part("variant").map(|variant| format!("/{variant}")).unwrap_or_default();
        format!("{}/{}{variant}", part("os")?, part("architecture")?).parse().ok()
    }

    /// Whether an image that is said to be for `other` runs on this one. Where one of the two does not say which variant it is, it
    /// may be the other's.
    #[must_use]
    pub fn runs(&self, other: &Self) -> bool {
        let ((own, own_variant), (other, other_variant)) = (self.parts(), other.parts());
        let variant = match (own_variant, other_variant) {
            (Some(own), Some(other)) => own == other || (version(other).is_some() && version(other) <= version(own)),
            _ => true,
        };
        own == other && variant
    }

    /// Operating system with architecture, and the variant.
    fn parts(&self) -> (&str, Option<&str>) {
        let second = self.0.match_indices('/').nth(1).map(|(at, _)| at);
        let (machine, rest) = self.0.split_at(second.unwrap_or(self.0.len()));
        (machine, rest.strip_prefix('/'))
    }
}

/// The number of a variant: those of a lower one run too.
fn version(variant: &str) -> Option<u32> {
    variant.strip_prefix('v')?.parse().ok()
}

impl FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        let mut parts = text.split('/');
        let is_one = matches!(parts.clone().count(), 2 | 3) && parts.all(|part| !part.is_empty());
        if is_one { Ok(Self(text.into())) } else { Err(InvalidPlatform) }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Platform;

    #[test]
    fn a_platform_is_read_as_it_is_written() {
        for text in ["linux/amd64", "linux/arm/v7", "windows/amd64"] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
        for text in ["", "linux", "linux/", "/amd64", "linux/arm/", "linux/arm/v7/x"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
        let described = json!({"os": "linux", "architecture": "arm", "variant": "v7", "os.version": "1"});
        assert_eq!(Platform::of(&described).unwrap().to_string(), "linux/arm/v7");
        for described in
            [json!({"os": "linux"}), json!("linux/amd64"), json!({"os": 1, "architecture": "x"}), json!(null)]
        {
            assert_eq!(Platform::of(&described), None, "{described}");
        }
    }

    #[test]
    fn images_run_on_their_platform_and_on_later_variants_of_it() {
        for (machine, image, expected) in [
            ("linux/amd64", "linux/amd64", true),
            ("linux/amd64", "linux/arm64", false),
            ("linux/amd64", "windows/amd64", false),
            ("linux/amd64", "unknown/unknown", false),
            ("linux/arm64", "linux/arm64/v8", true),
            ("linux/arm64/v8", "linux/arm64", true),
            ("linux/arm/v7", "linux/arm/v6", true),
            ("linux/arm/v6", "linux/arm/v7", false),
            ("linux/arm/v7", "linux/arm/hard", false),
        ] {
            let (machine, image): (Platform, Platform) = (machine.parse().unwrap(), image.parse().unwrap());
            assert_eq!(machine.runs(&image), expected, "{machine} {image}");
        }
    }
}
