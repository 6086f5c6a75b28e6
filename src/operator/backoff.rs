//! How long to wait after failures in a row. It must never wait for ever, and never in step with others.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(60);

/// Counts failures in a row, by object. An object that succeeds or goes away is forgotten.
#[derive(Default)]
pub struct Backoff {
    failures: Mutex<HashMap<String, u32>>,
}

impl Backoff {
    /// Counts a failure and says how long to wait. `spread` in 0..1 comes from a random source.
    pub fn after_failure(&self, key: &str, spread: f64) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(key.to_owned()).or_insert(0);
        *count = count.saturating_add(1);
        delay(*count, spread)
    }

    /// Forgets the failures of an object.
    pub fn forget(&self, key: &str) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

/// The wait after the given number of failures in a row.
#[must_use]
pub fn delay(failures: u32, spread: f64) -> Duration {
    let doubled = FIRST.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(20)));
    doubled.min(LONGEST).mul_f64(0.75 + spread.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_a_bound_and_is_spread() {
        assert_eq!(delay(1, 0.5), FIRST);
        assert_eq!(delay(2, 0.5), FIRST * 2);
        assert_eq!(delay(1_000, 0.5), LONGEST);
        assert!(delay(3, 0.0) < delay(3, 1.0));
    }

    #[test]
    fn success_starts_again() {
        let backoff = Backoff::default();
        backoff.after_failure("a", 0.5);
        assert_eq!(backoff.after_failure("a", 0.5), FIRST * 2);
        backoff.forget("a");
        assert_eq!(backoff.after_failure("a", 0.5), FIRST);
    }
}
