//! When an endpoint that does not answer is asked again: so that only the first requests wait for one that is silent. It must
//! never stay open for longer than its longest pause, and never let more than one request try.
//!
//! | State | A request | What leads out of it |
//! |---|---|---|
//! | closed | passes | silence; failures in a row, of several objects; being told when to come again |
//! | open | is refused | its pause is over |
//! | half-open | passes as the probe, one at a time | the probe: an answer closes it, a failure opens it for longer; a probe that was given up leaves its place to the next |
//!
//! A failure counts only if nothing has been answered since its request began: one object that an endpoint is slow at says
//! nothing about the others. Nothing is kept over a restart.

use std::time::{Duration, Instant};

/// Failures in a row that open it.
const FAILURES: usize = 3;
/// The first pause; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// However long an endpoint wants to be left alone, it is asked again after this.
const LONGEST_TOLD: Duration = Duration::from_secs(300);

/// What a breaker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BreakerState {
    /// Requests pass.
    Closed,
    /// Requests are refused.
    Open,
    /// One request tries.
    HalfOpen,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer, whatever it says.
    Answered,
    /// Without a connection.
    Unreachable,
    /// With an error of the server, for an object of this number. The same object counts once: it may be broken alone.
    Failed(u64),
    /// In silence.
    Silent,
    /// With the wish to be asked again after this time.
    Told(Duration),
    /// Before there was one: the asker has gone.
    GivenUp,
}

/// Leave to send one request. It must come back with [`Breaker::report`].
#[derive(Debug)]
pub struct Admission {
    begun: Instant,
    is_probe: bool,
}

/// Decides whether an endpoint is asked.
#[derive(Debug, Default)]
pub struct Breaker {
    /// Which objects failed in a row; none for a failure that is no object's.
    failures: Vec<Option<u64>>,
    answered: Option<Instant>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    until: Instant,
    pause: Duration,
    probing: bool,
}

impl Breaker {
    /// Lets a request pass, or says how long to wait.
    ///
    /// # Errors
    /// While it is open, and while a probe is under way.
    pub fn admit(&mut self, now: Instant) -> Result<Admission, Duration> {
        match &mut self.open {
            None => Ok(Admission { begun: now, is_probe: false }),
            Some(open) if open.refuses(now) => Err(open.until.saturating_duration_since(now).max(FIRST_PAUSE)),
            Some(open) => {
                open.probing = true;
                Ok(Admission { begun: now, is_probe: true })
            }
        }
    }

    /// Whether a request would be refused.
    #[must_use]
    pub fn refuses(&self, now: Instant) -> bool {
        self.open.as_ref().is_some_and(|open| open.refuses(now))
    }

    /// What it does.
    #[must_use]
    pub fn state(&self, now: Instant) -> BreakerState {
        match &self.open {
            None => BreakerState::Closed,
            Some(open) if now < open.until => BreakerState::Open,
            Some(_) => BreakerState::HalfOpen,
        }
    }

    /// Takes note of how a request ended. `spread` in 0..1 comes from a random source, so that many breakers do not try at once.
    pub fn report(&mut self, admission: &Admission, outcome: Outcome, now: Instant, spread: f64) {
        if let Some(open) = self.open.as_mut().filter(|_| admission.is_probe) {
            open.probing = false;
        }
        match outcome {
            Outcome::GivenUp => {}
            Outcome::Answered => {
                // Also by an answer to a request of before it opened: the endpoint is there.
                *self = Self { answered: Some(now), ..Self::default() };
            }
            _ if admission.is_probe => self.failed(outcome, now, spread),
            // What was under way when it opened says nothing new.
            _ if self.open.is_some() => {}
            Outcome::Told(_) => self.failed(outcome, now, spread),
            _ if self.answered.is_some_and(|answered| answered > admission.begun) => {}
            _ => self.failed(outcome, now, spread),
        }
    }

    fn failed(&mut self, outcome: Outcome, now: Instant, spread: f64) {
        match outcome {
            Outcome::Failed(object) if self.failures.contains(&Some(object)) => {}
            Outcome::Failed(object) => self.failures.push(Some(object)),
            _ => self.failures.push(None),
        }
        let last = self.open.as_ref().map(|open| open.pause);
        let at_once = last.is_some() || matches!(outcome, Outcome::Silent | Outcome::Told(_));
        if !at_once && self.failures.len() < FAILURES {
            return;
        }
        self.failures.clear();
        let pause = last.map_or(FIRST_PAUSE, |last| (last * 2).min(LONGEST_PAUSE));
        let mut wait = pause.mul_f64(0.75 + spread.clamp(0.0, 1.0) / 4.0);
        if let Outcome::Told(told) = outcome {
            wait = wait.max(told.min(LONGEST_TOLD));
        }
        self.open = Some(Open { until: now + wait, pause, probing: false });
    }
}

impl Open {
    fn refuses(&self, now: Instant) -> bool {
        now < self.until || self.probing
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Breaker, BreakerState, LONGEST_PAUSE, LONGEST_TOLD, Outcome};

    /// A breaker with a clock that a test moves.
    struct Clocked {
        breaker: Breaker,
        now: Instant,
    }

    impl Clocked {
        fn new() -> Self {
            Self { breaker: Breaker::default(), now: Instant::now() }
        }

        fn wait(&mut self, seconds: f64) {
            self.now += Duration::from_secs_f64(seconds);
        }

        /// One request from its beginning to its end; none if it is refused.
        fn ask(&mut self, outcome: Outcome) -> Option<BreakerState> {
            let admission = self.breaker.admit(self.now).ok()?;
            self.breaker.report(&admission, outcome, self.now, 1.0);
            Some(self.breaker.state(self.now))
        }
    }

    #[test]
    fn it_opens_for_silence_and_for_failures_that_are_no_single_objects() {
        use BreakerState::{Closed, Open};
        use Outcome::{Answered, Failed, GivenUp, Silent, Told, Unreachable};
        let told = Told(Duration::from_secs(9));
        for (outcomes, expected) in [
            (vec![Answered, Answered], Closed),
            (vec![Silent], Open),
            (vec![told], Open),
            (vec![Unreachable, Unreachable], Closed),
            (vec![Unreachable, Unreachable, Unreachable], Open),
            (vec![Unreachable, Unreachable, Answered, Unreachable, Unreachable], Closed),
            (vec![Failed(1), Failed(2), Failed(3)], Open),
            (vec![Failed(1), Failed(1), Failed(1), Failed(1), Failed(2)], Closed),
            (vec![Failed(1), Unreachable, Failed(2)], Open),
            (vec![GivenUp, GivenUp, GivenUp, GivenUp], Closed),
        ] {
            let mut clocked = Clocked::new();
            for outcome in &outcomes {
                assert!(clocked.ask(*outcome).is_some(), "{outcomes:?}");
            }
            assert_eq!(clocked.breaker.state(clocked.now), expected, "{outcomes:?}");
            assert_eq!(clocked.breaker.refuses(clocked.now), expected == Open, "{outcomes:?}");
        }
    }

    #[test]
    fn pauses_grow_to_a_bound_while_single_requests_try() {
        let mut clocked = Clocked::new();
        clocked.ask(Outcome::Silent);
        for pause in [1, 2, 4, 8, 16, 30, 30, 30] {
            assert_eq!(clocked.ask(Outcome::Answered), None);
            clocked.wait(f64::from(pause) - 0.01);
            assert_eq!(clocked.breaker.state(clocked.now), BreakerState::Open);
            clocked.wait(0.01);
            assert_eq!(clocked.breaker.state(clocked.now), BreakerState::HalfOpen);
            assert!(!clocked.breaker.refuses(clocked.now));
            assert_eq!(clocked.ask(Outcome::Failed(1)), Some(BreakerState::Open));
        }
        clocked.now += LONGEST_PAUSE;
        assert_eq!(clocked.ask(Outcome::Answered), Some(BreakerState::Closed));
        assert_eq!(clocked.ask(Outcome::Unreachable), Some(BreakerState::Closed));
        // It begins anew.
        clocked.ask(Outcome::Silent);
        clocked.wait(1.0);
        assert_eq!(clocked.ask(Outcome::Answered), Some(BreakerState::Closed));
    }

    #[test]
    fn one_request_tries_at_a_time_and_leaves_its_place_if_it_is_given_up() {
        let mut clocked = Clocked::new();
        clocked.ask(Outcome::Silent);
        clocked.wait(1.0);
        let probe = clocked.breaker.admit(clocked.now).unwrap();
        clocked.wait(100.0);
        assert!(clocked.breaker.refuses(clocked.now));
        assert!(clocked.breaker.admit(clocked.now).is_err());
        clocked.breaker.report(&probe, Outcome::GivenUp, clocked.now, 1.0);
        assert_eq!(clocked.ask(Outcome::Answered), Some(BreakerState::Closed));
    }

    #[test]
    fn a_failure_counts_only_if_nothing_was_answered_meanwhile() {
        let mut clocked = Clocked::new();
        let slow = clocked.breaker.admit(clocked.now).unwrap();
        clocked.wait(1.0);
        clocked.ask(Outcome::Answered);
        clocked.wait(7.0);
        clocked.breaker.report(&slow, Outcome::Silent, clocked.now, 1.0);
        assert_eq!(clocked.breaker.state(clocked.now), BreakerState::Closed);
        // But a wish is heard.
        clocked.breaker.report(&slow, Outcome::Told(Duration::from_secs(9)), clocked.now, 1.0);
        assert_eq!(clocked.breaker.state(clocked.now), BreakerState::Open);
    }

    #[test]
    fn what_was_under_way_when_it_opened_can_only_close_it() {
        let mut clocked = Clocked::new();
        let [bad, good] = [(); 2].map(|()| clocked.breaker.admit(clocked.now).unwrap());
        clocked.wait(8.0);
        clocked.ask(Outcome::Silent);
        clocked.breaker.report(&bad, Outcome::Silent, clocked.now, 1.0);
        clocked.wait(1.0);
        assert_eq!(clocked.breaker.state(clocked.now), BreakerState::HalfOpen);
        clocked.breaker.report(&good, Outcome::Answered, clocked.now, 1.0);
        assert_eq!(clocked.breaker.state(clocked.now), BreakerState::Closed);
    }

    #[test]
    fn a_wish_is_heard_up_to_a_bound() {
        for (told, expected) in [(9, Duration::from_secs(9)), (100_000, LONGEST_TOLD)] {
            let mut clocked = Clocked::new();
            clocked.ask(Outcome::Told(Duration::from_secs(told)));
            assert_eq!(clocked.breaker.admit(clocked.now).unwrap_err(), expected);
            clocked.now += expected;
            assert!(clocked.breaker.admit(clocked.now).is_ok());
        }
    }

    #[test]
    fn pauses_are_spread() {
        let pause = |spread| {
            let (mut breaker, now) = (Breaker::default(), Instant::now());
            let admission = breaker.admit(now).unwrap();
            breaker.report(&admission, Outcome::Silent, now, spread);
            (0..200).find(|step| !breaker.refuses(now + Duration::from_millis(step * 10))).unwrap()
        };
        assert_eq!((pause(0.0), pause(1.0)), (75, 100));
    }
}
