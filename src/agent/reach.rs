//! Whether the Mirror of each host can be reached, and when that is tried next. Pure: answers and times come in as arguments.
//! It must never let a host that flaps change what is told with each attempt.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often a Mirror is asked for its canary while it answers.
const INTERVAL: Duration = Duration::from_secs(60);
/// The delay after a first failure; it grows with each.
const RETRY: Duration = Duration::from_secs(5);
/// The longest delay after a failure.
const SLOWEST_RETRY: Duration = Duration::from_secs(60);
/// After so many failures in a row a host is told to be unreachable. One answer tells the contrary.
const FAILURES: u32 = 3;
/// How many are tried at the same time.
const PARALLEL: usize = 4;
/// Between two rounds.
pub const PAUSE: Duration = Duration::from_millis(250);

/// What is known of one host.
#[derive(Clone, Debug)]
struct Host {
    /// The revision in which the entry last changed.
    since: i64,
    failures: u32,
    /// What is told: nothing yet, that it answers, or why not.
    told: Option<Result<(), String>>,
    due: Instant,
}

/// What is known of each host.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    hosts: BTreeMap<String, Host>,
}

impl Reach {
    /// Looks after these hosts from now on, each with the revision of its entry. Those that are new, have
    /// changed, or are `fresh`, are tried at once.
    pub fn watch<'a>(
        &mut self,
        hosts: impl IntoIterator<Item = (&'a String, i64)>,
        fresh: impl Fn(&str) -> bool,
        now: Instant,
    ) {
        let mut before = std::mem::take(&mut self.hosts);
        for (name, since) in hosts {
            let host = match before.remove(name) {
                Some(old) if old.since == since && !fresh(name) => old,
                Some(old) => Host { since, due: now, ..old },
                None => Host { since, failures: 0, told: None, due: now },
            };
            self.hosts.insert(name.clone(), host);
        }
    }

    /// The hosts to try now.
    #[must_use]
    pub fn due(&self, now: Instant) -> Vec<String> {
        let hosts = self.hosts.iter().filter(|(_, host)| host.due <= now);
        let mut due: Vec<(Instant, &String)> = hosts.map(|(name, host)| (host.due, name)).collect();
        due.sort();
        due.into_iter().take(PARALLEL).map(|(_, name)| name.clone()).collect()
    }

    /// How long until a host is to be tried; never without hosts.
    #[must_use]
    pub fn rest(&self, now: Instant) -> Option<Duration> {
        let next = self.hosts.values().map(|host| host.due).min()?;
        Some(next.saturating_duration_since(now).max(PAUSE))
    }

    /// Takes what became of an attempt. Returns whether something else is to be told. `random` lies between 0 and 1.
    pub fn learn(&mut self, name: &str, answer: Result<(), String>, now: Instant, random: f64) -> bool {
        let Some(host) = self.hosts.get_mut(name) else {
            return false;
        };
        let before = host.told.as_ref().map(Result::is_ok);
        let delay = match answer {
            Ok(()) => INTERVAL,
            Err(_) => RETRY.saturating_mul(host.failures.saturating_add(1)).min(SLOWEST_RETRY),
        };
        host.due = now + delay.mul_f64(0.9 + 0.2 * random.clamp(0.0, 1.0));
        host.failures = if answer.is_ok() { 0 } else { host.failures.saturating_add(1) };
        // What it says while it stays away may differ each time, and is told once.
        if answer.is_ok() || (host.failures >= FAILURES && before != Some(false)) {
            host.told = Some(answer);
        }
        host.told.as_ref().map(Result::is_ok) != before
    }

    /// What is told of a host.
    #[must_use]
    pub fn told(&self, host: &str) -> Option<&Result<(), String>> {
        self.hosts.get(host)?.told.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO: Result<(), String> = Err(String::new());

    fn reach(hosts: &[&str], now: Instant) -> Reach {
        let mut reach = Reach::default();
        let names: Vec<String> = hosts.iter().map(|name| (*name).to_owned()).collect();
        reach.watch(names.iter().map(|name| (name, 1)), |_| false, now);
        reach
    }

    fn is_up(reach: &Reach, host: &str) -> Option<bool> {
        reach.told(host).map(Result::is_ok)
    }

    #[test]
    fn three_failures_in_a_row_are_told_once_and_one_answer_at_once() {
        let now = Instant::now();
        let mut reach = reach(&["m"], now);
        assert_eq!(is_up(&reach, "m"), None);
        assert!(reach.learn("m", Ok(()), now, 0.5));
        for _ in 0..20 {
            assert!(!reach.learn("m", NO, now, 0.5) && !reach.learn("m", NO, now, 0.5), "it flaps");
            assert!(!reach.learn("m", Ok(()), now, 0.5));
        }
        reach.learn("m", NO, now, 0.5);
        reach.learn("m", NO, now, 0.5);
        assert!(reach.learn("m", Err("first".into()), now, 0.5));
        assert!(!reach.learn("m", Err("second".into()), now, 0.5));
        assert_eq!(reach.told("m"), Some(&Err("first".into())));
        assert!(reach.learn("m", Ok(()), now, 0.5));
        assert!(!reach.learn("unknown", Ok(()), now, 0.5));
    }

    #[test]
    fn attempts_are_spread_and_slow_down() {
        let now = Instant::now();
        let mut reach = reach(&["m"], now);
        let mut delay = |host: &str, answer: Result<(), String>, random: f64| {
            reach.learn(host, answer, now, random);
            reach.hosts[host].due - now
        };
        assert_eq!(delay("m", Ok(()), 0.5).as_secs(), 60);
        assert_eq!(delay("m", Ok(()), 0.0).as_secs(), 54);
        let slower: Vec<u64> = (0..14).map(|_| delay("m", NO, 0.5).as_secs()).collect();
        assert_eq!(slower[..3], [5, 10, 15]);
        assert_eq!(slower[13], 60);
    }

    #[test]
    fn a_round_tries_few() {
        let now = Instant::now();
        let hosts = ["a", "b", "c", "d", "e", "f"];
        let mut reach = reach(&hosts, now);
        assert_eq!(reach.due(now), hosts[..4]);
        assert_eq!(reach.rest(now), Some(PAUSE), "the next round is not at once");
        for name in hosts {
            reach.learn(name, Ok(()), now, 0.5);
        }
        assert_eq!(reach.due(now), [""; 0]);
        assert_eq!(reach.rest(now), Some(INTERVAL));
        assert_eq!(Reach::default().rest(now), None);
    }

    #[test]
    fn what_is_new_or_has_changed_is_tried_at_once_and_what_is_gone_is_forgotten() {
        let now = Instant::now();
        let names = ["a", "b", "c", "d"].map(str::to_owned);
        let all = |since: [i64; 4]| names.iter().zip(since);
        let mut reach = Reach::default();
        reach.watch(all([1, 1, 1, 1]), |_| false, now);
        for name in &names {
            reach.learn(name, Ok(()), now, 0.5);
        }
        reach.watch(all([1, 2, 1, 1]).take(3), |name| name == "c", now);
        assert_eq!(reach.due(now), ["b", "c"]);
        assert_eq!((is_up(&reach, "b"), is_up(&reach, "d")), (Some(true), None));
    }
}
