//! Which digests an upstream has given wrong bytes for, lately. A client that has some of them may ask for the rest alone, and
//! would glue good bytes to bad. It must never grow without bound.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::oci::Digest;

/// How long it is remembered.
const REMEMBERED: Duration = Duration::from_secs(600);
/// How many are remembered; beyond that the oldest is forgotten.
const MOST: usize = 1024;

/// Digests and when they were last wrong.
#[derive(Default)]
pub struct Wrong(HashMap<Digest, Instant>);

impl Wrong {
    /// Remembers one.
    pub fn note(&mut self, digest: &Digest, now: Instant) {
        self.0.retain(|_, noted| is_fresh(*noted, now));
        self.0.insert(digest.clone(), now);
        if self.0.len() > MOST {
            let oldest = self.0.iter().min_by_key(|(_, noted)| **noted).map(|(digest, _)| digest.clone());
            oldest.and_then(|digest| self.0.remove(&digest));
        }
    }

    /// Whether one was wrong lately.
    pub fn contains(&self, digest: &Digest, now: Instant) -> bool {
        self.0.get(digest).is_some_and(|noted| is_fresh(*noted, now))
    }
}

fn is_fresh(noted: Instant, now: Instant) -> bool {
    now.saturating_duration_since(noted) < REMEMBERED
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::{MOST, REMEMBERED, Wrong};
    use crate::oci::{Algorithm, Digest};

    fn digest(number: usize) -> Digest {
        Digest::of(Algorithm::Sha256, &number.to_be_bytes())
    }

    #[test]
    fn a_wrong_digest_is_remembered_for_its_time() {
        let (mut wrong, start) = (Wrong::default(), Instant::now());
        wrong.note(&digest(1), start);
        assert!(wrong.contains(&digest(1), start + REMEMBERED / 2));
        assert!(!wrong.contains(&digest(1), start + REMEMBERED));
        assert!(!wrong.contains(&digest(2), start));
        wrong.note(&digest(1), start + REMEMBERED / 2);
        assert!(wrong.contains(&digest(1), start + REMEMBERED));
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let (mut wrong, start) = (Wrong::default(), Instant::now());
        let at = |number: usize| start + REMEMBERED / 10_000 * u32::try_from(number).unwrap();
        for number in 0..MOST + 10 {
            wrong.note(&digest(number), at(number));
            assert!(wrong.0.len() <= MOST);
        }
        let now = at(MOST + 10);
        assert!(!wrong.contains(&digest(9), now));
        assert!(wrong.contains(&digest(10), now));
        assert!(wrong.contains(&digest(MOST + 9), now));
        wrong.note(&digest(0), now + REMEMBERED);
        assert_eq!(wrong.0.len(), 1);
    }
}
