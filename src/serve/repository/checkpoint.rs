//! How far an upload was hashed when the server stopped, as it is written down beside the upload. Pure.

use crate::oci::{Algorithm, Hasher};

/// The hash of the first `length` bytes of an upload.
pub struct Checkpoint {
    pub length: u64,
    pub hasher: Hasher,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self { length: 0, hasher: Hasher::new(Algorithm::Sha256) }
    }
}

impl Checkpoint {
    /// The algorithm's name and the length in a line, then the hash's state.
    pub fn write(&self) -> Vec<u8> {
        let mut note = format!("{} {}\n", self.hasher.algorithm().as_str(), self.length).into_bytes();
        note.extend_from_slice(&self.hasher.state());
        note
    }

    /// None where that is not what [`Checkpoint::write`] writes.
    pub fn read(note: &[u8]) -> Option<Self> {
        let end = note.iter().position(|byte| *byte == b'\n')?;
        let (line, state) = note.split_at_checked(end)?;
        let (name, length) = std::str::from_utf8(line).ok()?.split_once(' ')?;
        let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)?;
        let hasher = Hasher::resume(algorithm, state.get(1..)?)?;
        Some(Self { length: length.parse().ok()?, hasher })
    }
}

#[cfg(test)]
mod tests {
    use super::Checkpoint;
    use crate::oci::{Algorithm, Hasher};

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        for algorithm in Algorithm::ALL {
            let mut hasher = Hasher::new(algorithm);
            hasher.update(b"\nbytes");
            let written = Checkpoint { length: 6, hasher: hasher.clone() }.write();
            let read = Checkpoint::read(&written).unwrap();
            assert_eq!((read.length, read.hasher.finish()), (6, hasher.finish()));
            for cut in 0..written.len() {
                assert!(Checkpoint::read(&written[..cut]).is_none(), "{cut}");
            }
        }
        assert!(Checkpoint::read(b"md5 6\n").is_none());
    }
}
