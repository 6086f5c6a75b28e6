//! The order in which things were used: milliseconds since 1970, but never below what was given before, in this life of the
//! process or in an earlier one. The system's clock may jump either way: it must never make what was just used look old.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// A clock that does not jump.
pub struct Clock {
    base: AtomicU64,
    began: Instant,
}

impl Clock {
    /// One that begins at the system's time, or at the last time that an earlier one gave.
    pub fn new(now: SystemTime, latest: u64) -> Self {
        Self { base: AtomicU64::new(of(now).max(latest)), began: Instant::now() }
    }

    pub fn now(&self) -> u64 {
        let elapsed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.base.load(Ordering::Relaxed).saturating_add(elapsed)
    }

    /// Nothing that is given from now on is below this.
    pub fn not_below(&self, time: u64) {
        let elapsed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.base.fetch_max(time.saturating_sub(elapsed), Ordering::Relaxed);
    }
}

/// A file's time as one of this clock.
pub fn of(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// One of this clock as a file's time.
pub fn to_file(time: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(time)).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{Clock, of, to_file};

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_was_set_back_goes_on_where_it_was() {
        let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let clock = Clock::new(noon, 0);
        assert_eq!(clock.now(), 1_000_000);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(clock.now(), 1_001_000);
        let later = Clock::new(noon - Duration::from_secs(900), clock.now());
        assert_eq!(later.now(), 1_001_000);
        tokio::time::advance(Duration::from_secs(1)).await;
        later.not_below(5);
        assert_eq!(later.now(), 1_002_000);
        later.not_below(2_000_000);
        assert_eq!(later.now(), 2_000_000);
        assert_eq!(of(to_file(2_000_001)), 2_000_001);
    }
}
