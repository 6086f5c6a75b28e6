//! When the next pass is due. Pure: what is random comes in as an argument between 0 and 1.

use std::time::Duration;

/// How often a node at rest is compared with the plan.
const AT_REST: Duration = Duration::from_mins(10);
/// The first delay after a pass that has to be repeated; it doubles up to [`SLOWEST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_secs(5);
const SLOWEST_RETRY: Duration = Duration::from_mins(5);
/// How long agents wait, at most, before they fetch a plan that has just changed: it spreads the load of many nodes.
const SPREAD: Duration = Duration::from_secs(2);

/// The delay until the next pass after so many passes in a row that must be repeated.
#[must_use]
pub fn until_next(failures: u32, random: f64) -> Duration {
    let delay = if failures == 0 {
        AT_REST
    } else {
        FIRST_RETRY.saturating_mul(1 << (failures - 1).min(10)).min(SLOWEST_RETRY)
    };
    delay.mul_f64(0.9 + 0.2 * random.clamp(0.0, 1.0))
}

/// The delay between the news of a changed plan and fetching it.
#[must_use]
pub fn before_fetching(random: f64) -> Duration {
    SPREAD.mul_f64(random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_repeated_ever_more_slowly_and_rest_is_ten_minutes() {
        let middle: Vec<u64> =
            [0, 1, 2, 3, 6, 7, 40, u32::MAX].iter().map(|failures| until_next(*failures, 0.5).as_secs()).collect();
        assert_eq!(middle, [600, 5, 10, 20, 160, 300, 300, 300]);
        assert_eq!((until_next(0, 0.0).as_secs(), until_next(0, 1.0).as_secs()), (540, 660));
    }

    #[test]
    fn a_change_is_fetched_within_two_seconds() {
        assert_eq!(before_fetching(0.0), Duration::ZERO);
        assert_eq!(before_fetching(7.0), Duration::from_secs(2));
    }
}
