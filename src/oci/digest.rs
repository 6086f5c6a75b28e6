//! Digests, and the hashes that make them. A digest that does not look like one never becomes a [`Digest`], so that it may
//! be part of a file's name.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sha2::digest::common::hazmat::{SerializableState as _, SerializedState};
use sha2::{Digest as _, Sha256, Sha512};
use thiserror::Error;

/// A hash that content may be named by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// The protocol's canonical one.
    Sha256,
    /// The other registered one.
    Sha512,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// Its name before the colon.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn hex_length(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// Why a text is not a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidDigest {
    /// The part before the colon is not a known algorithm.
    #[error("a digest begins with sha256: or sha512:")]
    Algorithm,
    /// The part after the colon is not that algorithm's.
    #[error("a digest ends in 64 (sha256) or 128 (sha512) lower-case hexadecimal digits")]
    Hex,
}

/// What names content: an algorithm and the hash of the bytes. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    text: Arc<str>,
}

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Its algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The whole, such as `sha256:ab…`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The part after the colon.
    #[must_use]
    pub fn hex(&self) -> &str {
        self.text.split_once(':').map_or("", |(_, hex)| hex)
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let (name, hex) = text.split_once(':').ok_or(InvalidDigest::Algorithm)?;
        let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.as_str() == name);
        let algorithm = algorithm.ok_or(InvalidDigest::Algorithm)?;
        let lower = hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if hex.len() != algorithm.hex_length() || !lower {
            return Err(InvalidDigest::Hex);
        }
        Ok(Self { algorithm, text: text.into() })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// A hash under way.
#[derive(Clone)]
pub enum Hasher {
    /// For [`Algorithm::Sha256`].
    Sha256(Sha256),
    /// For [`Algorithm::Sha512`].
    Sha512(Sha512),
}

impl Hasher {
    /// One that has seen nothing yet.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    /// Which hash it computes.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    /// Its state after the bytes taken, for [`Hasher::resume`].
    #[must_use]
    pub fn state(&self) -> Vec<u8> {
        match self {
            Self::Sha256(hash) => hash.serialize().to_vec(),
            Self::Sha512(hash) => hash.serialize().to_vec(),
        }
    }

    /// One that goes on from a state; None if it cannot be one of this hash.
    #[must_use]
    pub fn resume(algorithm: Algorithm, state: &[u8]) -> Option<Self> {
        match algorithm {
            Algorithm::Sha256 => {
                let state: &SerializedState<Sha256> = state.try_into().ok()?;
                Sha256::deserialize(state).ok().map(Self::Sha256)
            }
            Algorithm::Sha512 => {
                let state: &SerializedState<Sha512> = state.try_into().ok()?;
                Sha512::deserialize(state).ok().map(Self::Sha512)
            }
        }
    }

    /// The digest of all bytes taken.
    #[must_use]
    pub fn finish(self) -> Digest {
        let algorithm = self.algorithm();
        let mut text = String::with_capacity(7 + algorithm.hex_length());
        text.push_str(algorithm.as_str());
        text.push(':');
        match self {
            Self::Sha256(hash) => push_hex(&mut text, &hash.finalize()),
            Self::Sha512(hash) => push_hex(&mut text, &hash.finalize()),
        }
        Digest { algorithm, text: text.into() }
    }
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Algorithm, Digest, Hasher, InvalidDigest};

    #[test]
    fn only_lower_case_hashes_of_known_algorithms_are_digests() {
        let (short, long) = ("ab".repeat(32), "0f".repeat(64));
        for text in [format!("sha256:{short}"), format!("sha512:{long}")] {
            let digest: Digest = text.parse().unwrap();
            assert_eq!(digest.as_str(), text);
            assert_eq!(text, format!("{}:{}", digest.algorithm().as_str(), digest.hex()));
        }
        for (text, expected) in [
            (short.clone(), InvalidDigest::Algorithm),
            (format!("md5:{short}"), InvalidDigest::Algorithm),
            (format!("SHA256:{short}"), InvalidDigest::Algorithm),
            (format!("sha256:{long}"), InvalidDigest::Hex),
            (format!("sha512:{short}"), InvalidDigest::Hex),
            (format!("sha256:{}", short.to_uppercase()), InvalidDigest::Hex),
            (format!("sha256:../{}", "a".repeat(61)), InvalidDigest::Hex),
            ("sha256:".to_owned(), InvalidDigest::Hex),
            (String::new(), InvalidDigest::Algorithm),
        ] {
            assert_eq!(text.parse::<Digest>(), Err(expected), "{text}");
        }
    }

    #[test]
    fn a_hash_goes_on_from_its_state() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1000).collect();
        for algorithm in Algorithm::ALL {
            for cut in [0, 1, 63, 64, 128, 999, 1000] {
                let mut hasher = Hasher::new(algorithm);
                hasher.update(&bytes[..cut]);
                let mut resumed = Hasher::resume(algorithm, &hasher.state()).unwrap();
                resumed.update(&bytes[cut..]);
                assert_eq!(resumed.finish(), Digest::of(algorithm, &bytes), "{cut}");
            }
            let state = Hasher::new(algorithm).state();
            assert!(Hasher::resume(algorithm, &state[1..]).is_none());
        }
    }

    #[test]
    fn hashes_are_those_of_the_standard() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(Algorithm::Sha256, b"").as_str(), empty);
        let abc = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                   2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
        assert_eq!(Digest::of(Algorithm::Sha512, b"abc").as_str(), abc);
    }
}
