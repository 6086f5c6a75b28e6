//! One request to the API server inside a pass: bounded in time, counted by outcome, with an error that says what was
//! tried on what. It must never try again by itself; the next pass does.

use std::error::Error as _;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio::time::timeout;

use super::metrics::Metrics;

/// How long one request may take. An API server that takes longer is as good as away; the pass ends and is tried again.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// What a request does, as it stands in errors and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read one object.
    Read,
    /// Read several objects.
    List,
    /// Server-side apply.
    Apply,
    /// Change a part of an object.
    Patch,
    /// Delete an object.
    Delete,
}

impl Action {
    /// The action as an infinitive.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::List => "list",
            Self::Apply => "apply",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }
}

/// An object as it stands in messages: `Secret platform/team-pull`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The object's kind.
    pub kind: String,
    /// Its namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// Its name; empty for a list.
    pub name: String,
}

impl Target {
    /// A target in a namespace.
    pub fn new(kind: impl Into<String>, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind: kind.into(), namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.namespace.is_empty(), self.name.is_empty()) {
            (true, true) => write!(formatter, "{}", self.kind),
            (true, false) => write!(formatter, "{} {}", self.kind, self.name),
            (false, true) => write!(formatter, "{} in {}", self.kind, self.namespace),
            (false, false) => write!(formatter, "{} {}/{}", self.kind, self.namespace, self.name),
        }
    }
}

/// Why a request failed.
#[derive(Debug)]
pub enum Cause {
    /// No answer within [`CALL_TIMEOUT`].
    Timeout,
    /// The API server's refusal, or a failure on the way to it.
    Client(Box<kube::Error>),
}

/// A request that failed.
#[derive(Debug)]
pub struct CallError {
    /// What was tried.
    pub action: Action,
    /// On what.
    pub target: Target,
    /// What came back.
    pub cause: Cause,
}

/// What a failed request means for the next pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Somebody changed the object meanwhile: look again at once.
    Conflict,
    /// The API server understood and refused: only a change of the spec, a quota or a policy mends it.
    Refused,
    /// The world's problem: try again, more and more slowly.
    Retry,
}

impl CallError {
    /// What this failure means for the next pass.
    #[must_use]
    pub fn class(&self) -> Class {
        match self.status_code() {
            Some(409) => Class::Conflict,
            // Each JSON patch of ours begins with a test of what was read; the API server answers 422 when it fails.
            Some(422) if self.action == Action::Patch => Class::Conflict,
            // An apply that names an object by its UID, and another one has its name by now.
            Some(422) if self.is_about_identity() => Class::Conflict,
            Some(400 | 403 | 405 | 413 | 422) => Class::Refused,
            _ => Class::Retry,
        }
    }

    /// Whether the object does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.status_code() == Some(404)
    }

    fn is_about_identity(&self) -> bool {
        let Cause::Client(error) = &self.cause else {
            return false;
        };
        let kube::Error::Api(status) = error.as_ref() else {
            return false;
        };
        let causes = status.details.as_ref().map(|details| details.causes.as_slice());
        causes.is_some_and(|causes| causes.iter().any(|cause| cause.field == "metadata.uid"))
    }

    fn status_code(&self) -> Option<u16> {
        match &self.cause {
            Cause::Client(error) => match error.as_ref() {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            Cause::Timeout => None,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cannot {} {}: ", self.action.as_str(), self.target)?;
        match &self.cause {
            Cause::Timeout => {
                write!(formatter, "the API server did not answer within {} s", CALL_TIMEOUT.as_secs())
            }
            Cause::Client(error) => match error.as_ref() {
                // The library prints an API error twice, the second time as a debug dump.
                kube::Error::Api(status) => formatter.write_str(&status.message),
                other => {
                    write!(formatter, "{other}")?;
                    let mut source = other.source();
                    while let Some(cause) = source {
                        write!(formatter, ": {cause}")?;
                        source = cause.source();
                    }
                    Ok(())
                }
            },
        }
    }
}

impl std::error::Error for CallError {}

/// Carries out one request.
///
/// # Errors
/// When it fails or does not answer in time.
pub async fn call<T>(
    metrics: &Metrics,
    action: Action,
    target: Target,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, CallError> {
    let answer = timeout(CALL_TIMEOUT, request).await;
    let (outcome, result) = match answer {
        Ok(Ok(value)) => ("success", Ok(value)),
        Ok(Err(error)) => ("error", Err(Cause::Client(Box::new(error)))),
        Err(_) => ("timeout", Err(Cause::Timeout)),
    };
    metrics.count_call(action.as_str(), outcome);
    result.map_err(|cause| CallError { action, target, cause })
}

/// The same, with an object that does not exist as `None`.
///
/// # Errors
/// When the request fails in another way.
pub async fn read<T>(
    metrics: &Metrics,
    target: Target,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<Option<T>, CallError> {
    match call(metrics, Action::Read, target, request).await {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_for_the_identity_is_a_conflict() {
        for (field, class) in [("metadata.uid", Class::Conflict), ("spec.selector", Class::Refused)] {
            let causes = json!([{"reason": "FieldValueInvalid", "message": "field is immutable", "field": field}]);
            let status = json!({"status": "Failure", "message": "invalid", "reason": "Invalid", "code": 422,
                "details": {"causes": causes}});
            let cause = kube::Error::Api(serde_json::from_value(status).unwrap());
            let target = Target::new("Service", "platform", "team");
            let error = CallError { action: Action::Apply, target, cause: Cause::Client(Box::new(cause)) };
            assert_eq!(error.class(), class, "{field}");
        }
    }
}
