//! How fresh a tag's answer is, and what to do about it. Pure: what is known, its age, the settings and what the upstream said
//! come in. It must never call an answer good for ever that may change.

use std::time::Duration;

use jiff::Timestamp;

use super::store::CachedTag;
use crate::oci::Digest;
use crate::serve::upstream::Failure;

/// How long what is known is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// For so long a tag is answered without asking.
    pub tag_max_age: Duration,
    /// For so long a tag is answered, and a repository taken as public, while the upstream cannot say otherwise.
    pub stale_if_error: Duration,
    /// For so long a client's right that was proven is prolonged while the upstream cannot say otherwise.
    pub right_stale_if_error: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let [minute, hour, week] = [60, 3600, 7 * 24 * 3600].map(Duration::from_secs);
        Self { tag_max_age: minute, stale_if_error: week, right_stale_if_error: hour }
    }
}

/// How long ago something was; None where it is ahead, which only a clock that was set can bring about.
#[must_use]
pub fn age(then: Timestamp, now: Timestamp) -> Option<Duration> {
    now.duration_since(then).try_into().ok()
}

/// Whether a tag can be answered without asking the upstream.
#[must_use]
pub fn is_fresh(known: &CachedTag, now: Timestamp, settings: &Settings) -> bool {
    // Two clock readings within one tick are the same, and 0 means that each request asks.
    age(known.checked, now).is_some_and(|age| age < settings.tag_max_age)
}

/// What comes of a tag once the upstream was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What is known is served, although it is this old.
    Stale(Digest, Duration),
    /// The upstream is believed: what is known of the tag is forgotten.
    Forget,
    /// There is nothing to serve, and nothing is forgotten.
    Fail,
}

/// What comes of a tag for which the upstream gave no digest. `may_serve` says whether the caller's right to it stands without
/// this answer.
#[must_use]
pub fn judge(
    known: Option<&CachedTag>,
    failure: &Failure,
    may_serve: bool,
    now: Timestamp,
    settings: &Settings,
) -> Verdict {
    match failure {
        Failure::NotFound(_) => return Verdict::Forget,
        // Whether others may still have it is not said by that.
        Failure::Denied(_) => return Verdict::Fail,
        Failure::Away { .. } | Failure::CredentialsRejected(_) | Failure::Wrong { .. } | Failure::Loop(_) => {}
    }
    let servable = known.filter(|_| may_serve).and_then(|known| servable(known, now, settings));
    servable.map_or(Verdict::Fail, |(digest, age)| Verdict::Stale(digest, age))
}

/// What a tag is served as while the upstream does not say, and how old that is; None where it is too old.
#[must_use]
pub fn servable(known: &CachedTag, now: Timestamp, settings: &Settings) -> Option<(Digest, Duration)> {
    // A tag from the future was checked before the clock was set back; how old it is cannot be known.
    let age = age(known.checked, now).unwrap_or_default();
    (age <= settings.stale_if_error).then(|| (known.digest.clone(), age))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::{SignedDuration, Timestamp};

    use super::{Settings, Verdict, is_fresh, judge};
    use crate::oci::{Algorithm, Digest};
    use crate::serve::cache::store::CachedTag;
    use crate::serve::upstream::Failure;

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

    fn checked(seconds_ago: i64) -> CachedTag {
        let digest = Digest::of(Algorithm::Sha256, b"a");
        CachedTag { digest, checked: NOW - SignedDuration::from_secs(seconds_ago) }
    }

    #[test]
    fn a_tag_is_fresh_for_as_long_as_is_set() {
        let settings = Settings::default();
        for (seconds_ago, expected) in [(0, true), (59, true), (60, false), (3600, false), (-1, false)] {
            assert_eq!(is_fresh(&checked(seconds_ago), NOW, &settings), expected, "{seconds_ago}");
        }
        let always = Settings { tag_max_age: Duration::ZERO, ..settings };
        assert!(!is_fresh(&checked(0), NOW, &always));
    }

    #[test]
    fn an_upstream_that_fails_leaves_what_is_known() {
        let host: crate::oci::RegistryHost = "docker.io".parse().unwrap();
        let away = Failure::Away { host: host.clone(), problem: String::new(), retry_after: None };
        let wrong = Failure::Wrong { host: host.clone(), problem: String::new() };
        let (rejected, missing) = (Failure::CredentialsRejected(host.clone()), Failure::NotFound(host.clone()));
        let denied = Failure::Denied(host.clone());
        let settings = Settings { stale_if_error: Duration::from_secs(100), ..Settings::default() };
        let stale = |seconds| Verdict::Stale(checked(0).digest, Duration::from_secs(seconds));
        for (known, failure, may_serve, expected) in [
            (Some(70), &away, true, stale(70)),
            (Some(100), &away, true, stale(100)),
            (Some(101), &away, true, Verdict::Fail),
            // The clock was set back.
            (Some(-500), &away, true, stale(0)),
            (Some(70), &wrong, true, stale(70)),
            (Some(70), &rejected, true, stale(70)),
            (Some(70), &Failure::Loop(host), true, stale(70)),
            (Some(70), &away, false, Verdict::Fail),
            (None, &away, true, Verdict::Fail),
            (Some(70), &missing, true, Verdict::Forget),
            (Some(70), &denied, true, Verdict::Fail),
        ] {
            let known = known.map(checked);
            assert_eq!(judge(known.as_ref(), failure, may_serve, NOW, &settings), expected, "{known:?} {failure:?}");
        }
    }
}
