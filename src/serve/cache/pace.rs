//! How often an upstream is asked to prove a right: whoever invents credentials must not use up what the upstream grants to all.
//! It must never hold anybody up: who comes too early is told so.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many at once, after a rest.
const BURST: u32 = 200;
/// The time in which one more becomes possible.
const EACH: Duration = Duration::from_millis(20);

/// A bucket that fills with time (the generic cell rate algorithm of ITU-T I.371): all it knows is when it will be full.
#[derive(Default)]
pub struct Pace {
    full_at: Mutex<Option<Instant>>,
}

impl Pace {
    /// Takes one, if it can be had at this time.
    pub fn take(&self, now: Instant) -> bool {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let next = full_at.map_or(now, |full_at| full_at.max(now)) + EACH;
        let possible = next <= now + EACH * BURST;
        if possible {
            *full_at = Some(next);
        }
        possible
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{BURST, EACH, Pace};

    #[test]
    fn a_burst_is_followed_by_a_steady_pace() {
        let (pace, start) = (Pace::default(), Instant::now());
        let take = |after: Duration| (0..1000).take_while(|_| pace.take(start + after)).count();
        assert_eq!(take(Duration::ZERO), BURST as usize);
        assert_eq!(take(EACH / 2), 0);
        assert_eq!(take(EACH), 1);
        assert_eq!(take(EACH * 11), 10);
        assert_eq!(take(EACH * 10_000), BURST as usize);
    }
}
