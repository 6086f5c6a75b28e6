//! What stands in the small files: links, tags, when a repository was public, and the checkpoint. Pure. Each ends in a line
//! feed, so that one that was cut short is seen to be; what is not exactly as it is written counts as absent.

use std::str::FromStr;

use bytes::Bytes;
use jiff::Timestamp;

use super::CachedTag;
use crate::oci::ManifestType;

/// What a blob's link has where a manifest's has its type.
const BLOB: &str = "blob";

/// A link as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkRecord {
    /// None of a blob.
    pub media_type: Option<ManifestType>,
    /// How long the content is.
    pub length: u64,
    /// When it came.
    pub came: u64,
}

/// Up to where content is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Content of this generation and of those before is.
    pub generation: u64,
    /// How many bytes there were.
    pub bytes: u64,
    /// The last time that was given to a use.
    pub latest: u64,
}

/// The parts of a file that has so many, one line, and nothing else.
fn parts<const N: usize>(bytes: &[u8]) -> Option<[&str; N]> {
    let line = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let parts: Vec<&str> = line.split(' ').collect();
    parts.try_into().ok()
}

/// A number as it is written: without a sign or zeros in front.
fn number<T: FromStr + ToString>(text: &str) -> Option<T> {
    text.parse::<T>().ok().filter(|number| number.to_string() == text)
}

impl LinkRecord {
    pub fn write(&self) -> Bytes {
        let kind = self.media_type.map_or(BLOB, ManifestType::as_str);
        format!("{kind} {} {}\n", self.length, self.came).into()
    }

    pub fn read(bytes: &[u8]) -> Option<Self> {
        let [kind, length, came] = parts(bytes)?;
        let media_type = match kind {
            BLOB => None,
            kind => Some(ManifestType::ALL.into_iter().find(|known| known.as_str() == kind)?),
        };
        Some(Self { media_type, length: number(length)?, came: number(came)? })
    }
}

impl Checkpoint {
    pub fn write(&self) -> Bytes {
        format!("{} {} {}\n", self.generation, self.bytes, self.latest).into()
    }

    pub fn read(bytes: &[u8]) -> Option<Self> {
        let [generation, total, latest] = parts(bytes)?;
        Some(Self { generation: number(generation)?, bytes: number(total)?, latest: number(latest)? })
    }
}

pub fn write_tag(tag: &CachedTag) -> Bytes {
    format!("{} {}\n", tag.digest, tag.checked.as_millisecond()).into()
}

pub fn read_tag(bytes: &[u8]) -> Option<CachedTag> {
    let [digest, checked] = parts(bytes)?;
    let checked = Timestamp::from_millisecond(number(checked)?).ok()?;
    Some(CachedTag { digest: digest.parse().ok()?, checked })
}

pub fn write_time(time: Timestamp) -> Bytes {
    format!("{}\n", time.as_millisecond()).into()
}

pub fn read_time(bytes: &[u8]) -> Option<Timestamp> {
    let [time] = parts(bytes)?;
    Timestamp::from_millisecond(number(time)?).ok()
}

#[cfg(test)]
mod tests {
    use super::{Checkpoint, LinkRecord, read_tag, read_time, write_tag, write_time};
    use crate::oci::{Algorithm, Digest, ManifestType};
    use crate::serve::cache::store::CachedTag;

    /// Whatever a crash cuts off, nothing else is read.
    fn check<T: PartialEq + std::fmt::Debug>(value: &T, written: &[u8], read: impl Fn(&[u8]) -> Option<T>) {
        assert_eq!(read(written).as_ref(), Some(value));
        for cut in 0..written.len() {
            assert_eq!(read(&written[..cut]), None, "{cut}");
            let mut zeros = written.to_vec();
            zeros[cut..].fill(0);
            assert_eq!(read(&zeros), None, "{cut}");
        }
        assert_eq!(read(&[written, b"\n"].concat()), None);
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let types = ManifestType::ALL.into_iter().map(Some).chain([None]);
        for media_type in types {
            let link = LinkRecord { media_type, length: 1_234, came: 1_700_000_000_123 };
            check(&link, &link.write(), LinkRecord::read);
        }
        let checkpoint = Checkpoint { generation: 7, bytes: u64::MAX, latest: 3 };
        check(&checkpoint, &checkpoint.write(), Checkpoint::read);
        for algorithm in Algorithm::ALL {
            let checked = jiff::Timestamp::from_millisecond(-5).unwrap();
            let tag = CachedTag { digest: Digest::of(algorithm, b"1"), checked };
            check(&tag, &write_tag(&tag), read_tag);
            check(&checked, &write_time(checked), read_time);
        }
        for text in ["blob 01 2\n", "blob +1 2\n", "blob 1  2\n", "blob 1 2 3\n", "layer 1 2\n", "blob -1 2\n"] {
            assert_eq!(LinkRecord::read(text.as_bytes()), None, "{text}");
        }
    }
}
