//! How a registry as a whole is doing, for its status: what it answered when it was last asked. It must never hold a credential,
//! what a client named, or what differs from one attempt to the next.

use std::sync::{Mutex, MutexGuard, PoisonError};

use url::Url;

use super::trouble::{Away, Trouble};
use crate::mirror_report::State;

/// What was last answered.
#[derive(Debug, Default)]
pub struct Condition(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// What was wrong with the last answer.
    trouble: Option<(State, String)>,
    /// The configured credential was refused when it was last used.
    is_rejected: bool,
    /// Something was served as it was since the registry last answered.
    is_stale: bool,
}

/// What is told of a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// How it is doing.
    pub state: State,
    /// Whether something was served as it was, since it last answered.
    pub serving_stale: bool,
    /// What was wrong with its last answer.
    pub problem: Option<String>,
}

impl Condition {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A question has come to its end: without an answer that is good for anything, if there is a trouble. `is_configured` says
    /// that it was asked with the configured credential.
    pub fn note(&self, trouble: Option<&Trouble>, is_configured: bool) {
        let mut known = self.known();
        known.trouble = match trouble {
            // Nobody was asked.
            Some(Trouble::Away { how: Away::NotAsked(_), .. }) => return,
            Some(Trouble::CredentialsRejected) => {
                known.is_rejected = true;
                None
            }
            None | Some(Trouble::NotFound | Trouble::Denied) => {
                known.is_stale = false;
                known.is_rejected &= !is_configured;
                None
            }
            Some(Trouble::Away { how: Away::TooMany(_), problem }) => Some((State::RateLimited, plain(problem))),
            Some(Trouble::Away { problem, .. }) => Some((State::Failing, plain(problem))),
            Some(Trouble::Wrong(problem)) => {
                let place = place(problem).unwrap_or_else(|| "the registry".to_owned());
                Some((State::Failing, format!("{place} gave an answer that cannot be used; the log says which")))
            }
            Some(Trouble::Loop) => Some((State::Failing, "it leads back to this server".to_owned())),
        };
    }

    /// Something was served as it was, because the registry could not be asked.
    pub fn serves_stale(&self) {
        self.known().is_stale = true;
    }

    /// What is told.
    pub fn told(&self) -> Told {
        let known = self.known();
        let (state, problem) = match &known.trouble {
            Some((state, problem)) if !known.is_rejected || *state > State::CredentialsRejected => {
                (*state, Some(problem.clone()))
            }
            _ if known.is_rejected => {
                (State::CredentialsRejected, Some("it refuses the configured credential".to_owned()))
            }
            _ => (State::Ok, None),
        };
        Told { state, serving_stale: known.is_stale, problem }
    }
}

/// The server of which a problem tells, which begins with the request.
fn place(problem: &str) -> Option<String> {
    let url: Url = problem.split(": ").next()?.split(' ').nth(1)?.parse().ok()?;
    Some(url.origin().ascii_serialization())
}

/// A problem without the object that was asked for: of several endpoints, that of the last.
fn plain(problem: &str) -> String {
    let last = problem.split("; ").filter_map(|part| Some((place(part)?, part.split_once(": ")?.1))).last();
    match last {
        Some((place, what)) if what.ends_with(" ms") => format!("{place} does not answer"),
        Some((place, what)) => format!("{place}: {what}"),
        None => "it cannot be asked; the log says why".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Condition, State, Told};
    use crate::serve::upstream::trouble::{Away, Trouble};

    #[test]
    fn what_is_told_is_the_last_answer_without_what_was_asked_for() {
        let away = |how, problem: &str| Some(Trouble::away(how, problem));
        let (minute, url) = (Duration::from_secs(60), "https://r.example:5000/v2/team/app/manifests/1");
        let text = |what: &str| Some(format!("https://r.example:5000{what}"));
        for (trouble, state, problem) in [
            (None, State::Ok, None),
            (Some(Trouble::NotFound), State::Ok, None),
            (Some(Trouble::Denied), State::Ok, None),
            (
                away(Away::TooMany(Some(minute)), &format!("HEAD {url}: 429 Too Many Requests")),
                State::RateLimited,
                text(": 429 Too Many Requests"),
            ),
            (
                away(Away::Told(minute), &format!("GET {url}: 503 Service Unavailable")),
                State::Failing,
                text(": 503 Service Unavailable"),
            ),
            (
                away(Away::Silent, &format!("GET {url}: no answer within 7999 ms")),
                State::Failing,
                text(" does not answer"),
            ),
            (
                away(Away::Unreachable, &format!("GET https://a/v2/x: gone; GET {url}: refused: (os error 111)")),
                State::Failing,
                text(": refused: (os error 111)"),
            ),
            (
                away(Away::Failing, "a token was not granted in time"),
                State::Failing,
                Some("it cannot be asked; the log says why".to_owned()),
            ),
            (
                Some(Trouble::Wrong(format!("GET {url}: the manifest is team/app"))),
                State::Failing,
                text(" gave an answer that cannot be used; the log says which"),
            ),
            (Some(Trouble::Loop), State::Failing, Some("it leads back to this server".to_owned())),
            (
                Some(Trouble::CredentialsRejected),
                State::CredentialsRejected,
                Some("it refuses the configured credential".to_owned()),
            ),
        ] {
            let condition = Condition::default();
            condition.note(trouble.as_ref(), true);
            assert_eq!(condition.told(), Told { state, serving_stale: false, problem }, "{trouble:?}");
            // Who is not asked says nothing.
            condition.note(away(Away::NotAsked(minute), "x").as_ref(), true);
            assert_eq!(condition.told().state, state, "{trouble:?}");
        }
    }

    #[test]
    fn a_refused_credential_is_told_until_it_is_taken_and_stale_answers_until_there_is_a_new_one() {
        let condition = Condition::default();
        let states = |trouble: Option<&Trouble>, is_configured| {
            condition.note(trouble, is_configured);
            condition.told().state
        };
        assert_eq!(states(Some(&Trouble::CredentialsRejected), true), State::CredentialsRejected);
        condition.serves_stale();
        // Anybody may have what is public.
        assert_eq!(states(None, false), State::CredentialsRejected);
        let limited = Trouble::away(Away::TooMany(None), "x");
        assert_eq!(states(Some(&limited), false), State::CredentialsRejected);
        condition.serves_stale();
        assert_eq!(states(Some(&Trouble::away(Away::Silent, "x")), true), State::Failing);
        assert!(condition.told().serving_stale);
        assert_eq!(states(None, true), State::Ok);
        assert!(!condition.told().serving_stale);
    }
}
