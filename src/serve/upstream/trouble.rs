//! What can go wrong with one request, before it is said which registry it was. It must never hold what a server says in words.

use std::fmt::Write as _;
use std::time::Duration;

use crate::oci::RegistryHost;

use super::Failure;
use super::breaker::Outcome;

/// Why one endpoint did not give what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    NotFound,
    Denied,
    CredentialsRejected,
    Loop,
    Away { problem: String, how: Away },
    Wrong(String),
}

/// In which way a server is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Away {
    /// There is no connection.
    Unreachable,
    /// It is silent.
    Silent,
    /// It says that it cannot.
    Failing,
    /// It wants to be asked later.
    Told(Duration),
    /// It was asked too often; it may say when it can be asked again.
    TooMany(Option<Duration>),
    /// It is not asked for now; it will be after this time.
    NotAsked(Duration),
}

impl Away {
    /// When it can be asked again, where that is known.
    fn wait(self) -> Option<Duration> {
        match self {
            Self::Told(wait) | Self::NotAsked(wait) | Self::TooMany(Some(wait)) => Some(wait),
            Self::Unreachable | Self::Silent | Self::Failing | Self::TooMany(None) => None,
        }
    }
}

impl Trouble {
    pub fn away(how: Away, problem: impl Into<String>) -> Self {
        Self::Away { problem: problem.into(), how }
    }

    /// What a breaker makes of it, for an object of this number.
    pub fn outcome(&self, object: u64) -> Outcome {
        match self {
            Self::Away { how: Away::Unreachable, .. } => Outcome::Unreachable,
            Self::Away { how: Away::Silent, .. } => Outcome::Silent,
            Self::Away { how: Away::Failing | Away::TooMany(None), .. } => Outcome::Failed(object),
            Self::Away { how: Away::Told(wait) | Away::TooMany(Some(wait)), .. } => Outcome::Told(*wait),
            Self::Away { how: Away::NotAsked(_), .. } => Outcome::GivenUp,
            _ => Outcome::Answered,
        }
    }

    /// Of which registry it is.
    pub fn of(self, host: &RegistryHost) -> Failure {
        let host = host.clone();
        match self {
            Self::NotFound => Failure::NotFound(host),
            Self::Denied => Failure::Denied(host),
            Self::CredentialsRejected => Failure::CredentialsRejected(host),
            Self::Loop => Failure::Loop(host),
            Self::Wrong(problem) => Failure::Wrong { host, problem },
            Self::Away { problem, how } => Failure::Away { host, problem, retry_after: how.wait() },
        }
    }
}

/// What went wrong with one endpoint after the other.
#[derive(Debug, Default)]
pub struct Tried {
    last: Option<Trouble>,
}

impl Tried {
    /// Adds what one answered.
    ///
    /// # Errors
    /// When it is believed, so that no other is asked.
    pub fn add(&mut self, trouble: Trouble) -> Result<(), Trouble> {
        if matches!(trouble, Trouble::NotFound | Trouble::Denied | Trouble::CredentialsRejected) {
            return Err(trouble);
        }
        self.last = Some(match (self.last.take(), trouble) {
            (None, only) => only,
            (Some(Trouble::Away { mut problem, how }), Trouble::Away { problem: other, how: other_how }) => {
                let _ = write!(problem, "; {other}");
                Trouble::Away { problem, how: sooner(how, other_how) }
            }
            // Later it may be otherwise, so that this is what is said.
            (Some(away @ Trouble::Away { .. }), _) | (_, away @ Trouble::Away { .. }) => away,
            (Some(Trouble::Loop), wrong) => wrong,
            (Some(first), _) => first,
        });
        Ok(())
    }

    /// What to say in the end.
    pub fn end(self) -> Trouble {
        self.last.unwrap_or_else(|| Trouble::away(Away::Failing, "there is no endpoint"))
    }
}

/// When the first of two can be asked again. One that does not say when can be asked at any time.
fn sooner(one: Away, other: Away) -> Away {
    match (one.wait(), other.wait()) {
        (Some(a), Some(b)) => Away::Told(a.min(b)),
        (Some(_), None) => other,
        (None, _) => one,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Away, Tried, Trouble};

    #[test]
    fn what_could_be_otherwise_later_is_said_of_several_endpoints() {
        let away = |problem: &str, how| Trouble::away(how, problem);
        let (silent, told) = (Away::Silent, Away::Told(Duration::from_secs(9)));
        let soon = Away::NotAsked(Duration::from_secs(2));
        let wrong = |problem: &str| Trouble::Wrong(problem.into());
        for (troubles, expected) in [
            (vec![away("a", silent)], away("a", silent)),
            (vec![away("a", silent), away("b", told)], away("a; b", silent)),
            (vec![away("a", told), away("b", soon)], away("a; b", Away::Told(Duration::from_secs(2)))),
            (vec![away("a", told), away("b", silent)], away("a; b", silent)),
            (vec![wrong("a"), away("b", silent), Trouble::Loop], away("b", silent)),
            (vec![Trouble::Loop, wrong("a"), wrong("b")], wrong("a")),
            (vec![wrong("a"), Trouble::Loop], wrong("a")),
            (vec![Trouble::Loop, Trouble::Loop], Trouble::Loop),
        ] {
            let mut tried = Tried::default();
            for trouble in troubles {
                assert_eq!(tried.add(trouble), Ok(()));
            }
            assert_eq!(tried.end(), expected);
        }
        for believed in [Trouble::NotFound, Trouble::Denied, Trouble::CredentialsRejected] {
            assert_eq!(Tried::default().add(believed.clone()), Err(believed));
        }
    }
}
