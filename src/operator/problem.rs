//! What stands in the way of a resource, and which documented reason a failed request has. Values only.

use super::call::{CallError, Class};
use crate::api::reason;

/// Something that a user, or the cluster, has to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The condition that it makes false, besides `Ready`.
    pub condition: &'static str,
    /// Its documented reason.
    pub reason: &'static str,
    /// What was found and what to do.
    pub message: String,
}

/// The reason of a condition that a failed request makes false.
#[must_use]
pub fn reason_of(failure: &CallError) -> &'static str {
    match failure.class() {
        Class::Refused => reason::REFUSED,
        Class::Conflict | Class::Retry => reason::RETRYING,
    }
}
