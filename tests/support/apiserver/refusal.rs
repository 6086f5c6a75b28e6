//! The refusals of the API server, as the `Status` bodies that clients read.
//! It must never invent a code or a reason that a real API server does not use for the same cause.

use kube::core::Status;
use kube::core::response::{StatusCause, StatusDetails};

use super::kinds::Kind;

/// Why a request was not carried out.
pub(super) type Refusal = Box<Status>;

/// A refusal without details.
pub(super) fn refuse(code: u16, reason: &str, message: &str) -> Refusal {
    Box::new(Status::failure(message, reason).with_code(code))
}

/// The same refusal, with the fields that caused it.
pub(super) fn with_causes(mut refusal: Refusal, causes: Vec<StatusCause>) -> Refusal {
    details(&mut refusal).causes = causes;
    refusal
}

/// The same refusal, with the object that it is about.
pub(super) fn about(mut refusal: Refusal, kind: &Kind, name: &str) -> Refusal {
    let details = details(&mut refusal);
    (details.name, details.group, details.kind) = (name.to_owned(), kind.group.clone(), kind.plural.clone());
    refusal
}

/// The details of a refusal, made if there are none yet.
pub(super) fn details(refusal: &mut Refusal) -> &mut StatusDetails {
    refusal.details.get_or_insert_with(|| StatusDetails {
        name: String::new(),
        group: String::new(),
        kind: String::new(),
        uid: String::new(),
        causes: Vec::new(),
        retry_after_seconds: 0,
    })
}

pub(super) fn not_found(kind: &Kind, name: &str) -> Refusal {
    about(refuse(404, "NotFound", &format!("{} \"{name}\" not found", kind.resource())), kind, name)
}

pub(super) fn already_exists(kind: &Kind, name: &str) -> Refusal {
    about(refuse(409, "AlreadyExists", &format!("{} \"{name}\" already exists", kind.resource())), kind, name)
}

pub(super) fn conflict(kind: &Kind, name: &str, why: &str) -> Refusal {
    let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", kind.resource());
    about(refuse(409, "Conflict", &message), kind, name)
}

/// A refusal of what one field says; `reason` is a cause such as `FieldValueInvalid`.
pub(super) fn invalid(kind: &Kind, name: &str, field: &str, reason: &str, why: &str) -> Refusal {
    let message = format!("{} \"{name}\" is invalid: {field}: {why}", kind.name);
    let cause = StatusCause { reason: reason.to_owned(), message: why.to_owned(), field: field.to_owned() };
    with_causes(about(refuse(422, "Invalid", &message), kind, name), vec![cause])
}
