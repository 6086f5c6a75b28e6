//! How long somebody waits for an upstream's word on what could be given without it. It must never make anybody wait again for
//! one that has just kept others waiting, nor leave one that answers unheard.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longer than almost all upstreams take, and less than what is noticed of a pull.
pub const PATIENCE: Duration = Duration::from_millis(800);
/// For so long nobody waits for one that was waited for in vain and has not answered since.
const TRIED: Duration = Duration::from_secs(60);

/// How long one upstream is waited for.
#[derive(Default)]
pub struct Patience {
    tried: Mutex<Option<Instant>>,
}

impl Patience {
    fn tried(&self) -> MutexGuard<'_, Option<Instant>> {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long it is waited for now.
    pub fn left(&self, now: Instant) -> Duration {
        if is_late(*self.tried(), now) { Duration::ZERO } else { PATIENCE }
    }

    /// It was waited for in vain. That nobody waited for it because of that makes it no longer.
    pub fn is_tried(&self, now: Instant) {
        let mut tried = self.tried();
        if !is_late(*tried, now) {
            *tried = Some(now);
        }
    }

    /// It has answered.
    pub fn is_heard(&self) {
        *self.tried() = None;
    }
}

fn is_late(tried: Option<Instant>, now: Instant) -> bool {
    tried.is_some_and(|since| now.saturating_duration_since(since) < TRIED)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{PATIENCE, Patience, TRIED};

    #[test]
    fn one_that_kept_somebody_waiting_is_not_waited_for_until_it_is_heard_of() {
        let (patience, now) = (Patience::default(), Instant::now());
        assert_eq!(patience.left(now), PATIENCE);
        patience.is_tried(now);
        patience.is_tried(now + TRIED / 2);
        assert_eq!(patience.left(now + TRIED / 2), Duration::ZERO);
        assert_eq!(patience.left(now + TRIED), PATIENCE);
        patience.is_tried(now + TRIED);
        assert_eq!(patience.left(now + TRIED * 3 / 2), Duration::ZERO);
        patience.is_heard();
        assert_eq!(patience.left(now + TRIED * 3 / 2), PATIENCE);
    }
}
