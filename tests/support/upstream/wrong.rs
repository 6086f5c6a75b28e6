//! What the script makes of an answer that would have been right.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{Method, Response, StatusCode};

use super::State;
use super::answers::{Asked, CONTENT_DIGEST, Right};
use super::content::BLOB;
use super::faults::{Fault, Place};
use super::sending::{Body, End, Sending, nothing};

const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

pub fn response(right: Right, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    (*response.status_mut(), *response.headers_mut()) = (right.status, right.headers);
    response
}

/// The bytes of the part that was asked for.
fn slice(right: &Right) -> Bytes {
    right.whole.slice(usize::try_from(right.part.start).unwrap()..usize::try_from(right.part.end).unwrap())
}

pub fn plain(state: &State, mut right: Right, method: &Method, sent: Arc<AtomicU64>) -> Response<Body> {
    let bytes = slice(&right);
    right.set(CONTENT_LENGTH, &bytes.len().to_string());
    // What is said of an error is nothing of the content.
    let sent = if right.status.is_success() { sent } else { Arc::default() };
    let body = if *method == Method::HEAD { nothing() } else { Sending::whole(bytes, sent, &state.line).body() };
    response(right, body)
}

/// What the script makes of an answer.
pub fn faulty(
    state: &State,
    right: Right,
    fault: &Fault,
    method: &Method,
    asked: &Asked,
    sent: Arc<AtomicU64>,
) -> Response<Body> {
    let status = |status, code| Right::error(status, code);
    let other = match fault {
        Fault::Unauthorized => Some(state.inner().challenge(&asked.repository, None)),
        Fault::Forbidden => Some(status(StatusCode::FORBIDDEN, "DENIED")),
        Fault::NotFound => Some(status(StatusCode::NOT_FOUND, "NAME_UNKNOWN")),
        Fault::TooMany => Some(status(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS")),
        Fault::Internal => Some(status(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN")),
        Fault::Unavailable => Some(status(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE")),
        Fault::Redirect if right.status == StatusCode::OK || right.status == StatusCode::PARTIAL_CONTENT => {
            let media_type = right.headers[CONTENT_TYPE].to_str().unwrap().to_owned();
            Some(state.inner().redirect(state, asked, &media_type, right.whole.clone()))
        }
        Fault::Circle | Fault::Elsewhere(_) => {
            let circle = format!("{}/v2/{}/blobs/{}", state.urls[0], asked.repository, asked.reference);
            let mut moved = Right::new(StatusCode::TEMPORARY_REDIRECT, "text/html", Bytes::new());
            moved.set(LOCATION, if let Fault::Elsewhere(address) = fault { address } else { &circle });
            Some(moved)
        }
        Fault::Empty => Some(Right::new(StatusCode::OK, BLOB, Bytes::new())),
        _ => None,
    };
    if let Some(mut other) = other {
        if matches!(fault, Fault::TooMany) {
            other.set(RETRY_AFTER, "1");
        }
        return plain(state, other, method, sent);
    }
    if !right.status.is_success() {
        return plain(state, right, method, sent);
    }
    bodies(state, right, fault, method, sent)
}

fn bodies(state: &State, mut right: Right, fault: &Fault, method: &Method, sent: Arc<AtomicU64>) -> Response<Body> {
    let total = right.whole.len() as u64;
    match fault {
        Fault::IgnoredRange => {
            (right.status, right.part) = (StatusCode::OK, 0..total);
            right.headers.remove(CONTENT_RANGE);
        }
        Fault::OtherRange if total > 1 => {
            (right.status, right.part) = (StatusCode::PARTIAL_CONTENT, 1..total);
            right.set(CONTENT_RANGE, &format!("bytes 1-{}/{total}", total - 1));
        }
        Fault::LyingDigest => right.set(CONTENT_DIGEST, &super::content::digest(b"another")),
        Fault::NoDigest => drop(right.headers.remove(CONTENT_DIGEST)),
        Fault::WrongType => right.set(CONTENT_TYPE, "text/html"),
        Fault::Schema1 => right.set(CONTENT_TYPE, SCHEMA_1),
        Fault::Encoded => right.set(CONTENT_ENCODING, "gzip"),
        _ => {}
    }
    let mut bytes = slice(&right);
    let length = bytes.len();
    if let Fault::WrongBytes(place) = fault
        && length > 0
    {
        let mut changed = bytes.to_vec();
        let at = match place {
            Place::First => 0,
            Place::Middle => length / 2,
            Place::Last => length - 1,
        };
        changed[at] ^= 1;
        bytes = changed.into();
    }
    let mut sending = Sending::whole(bytes, sent, &state.line);
    let announced = match fault {
        Fault::ShortLength => Some(length / 2),
        Fault::LongLength => Some(length + 1000),
        Fault::NoLength | Fault::Endless => None,
        _ => Some(length),
    };
    (sending.before, sending.end) = match fault {
        Fault::HangInBody => (length / 2, End::Hang),
        Fault::CutInBody => (length / 2, End::Cut),
        Fault::Gate(gate) => (length / 2, End::Gate(gate.clone())),
        Fault::GateAtEnd(gate) => (length.saturating_sub(1), End::Gate(gate.clone())),
        Fault::ShortLength => (length / 2, End::Whole),
        Fault::LongLength => (length, End::Cut),
        Fault::Endless => (length, End::Endless),
        _ => (length, End::Whole),
    };
    if let Fault::Drip(count, pause) = fault {
        sending.pace = (*count, *pause);
    }
    if let Some(announced) = announced {
        right.set(CONTENT_LENGTH, &announced.to_string());
    }
    let body = if *method == Method::HEAD { nothing() } else { sending.body() };
    response(right, body)
}
