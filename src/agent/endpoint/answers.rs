//! Answers of the endpoint's own, and which headers pass through it. An answer of its own must never be one that a container runtime
//! would repeat at once, or answer with a credential: no 429, no 401.

use bytes::Bytes;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, RETRY_AFTER, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use hyper::{Response, StatusCode};

use super::request::Malformed;
use super::transfer::Body;
use crate::oci::ErrorCode;

/// With which a Mirror says that it does not know the agent.
pub const REFUSED: HeaderName = HeaderName::from_static("wharf-refused");
/// Of one connection only. Source: RFC 9110, section 7.6.1.
const HOP_BY_HOP: [HeaderName; 7] =
    [CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
/// What begins the headers between Wharf's own parts.
const OURS: &str = "wharf-";

/// A request's headers as they are sent on: without those of the connection, and without any that only Wharf may set.
#[must_use]
pub fn sent_on(headers: &HeaderMap) -> HeaderMap {
    let mut kept = without_hops(headers);
    let ours: Vec<HeaderName> = kept.keys().filter(|name| name.as_str().starts_with(OURS)).cloned().collect();
    for name in ours {
        kept.remove(name);
    }
    // Nobody sends a body with what is allowed here.
    kept.remove(CONTENT_LENGTH);
    kept
}

/// An answer's headers as they are passed on.
#[must_use]
pub fn passed_on(headers: &HeaderMap) -> HeaderMap {
    without_hops(headers)
}

fn without_hops(headers: &HeaderMap) -> HeaderMap {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let mut kept = headers.clone();
    for name in HOP_BY_HOP.iter().chain(&named).chain([&HeaderName::from_static("keep-alive")]) {
        kept.remove(name);
    }
    kept
}

/// This is a registry.
#[must_use]
pub fn base() -> Response<Body> {
    let mut response = error(StatusCode::OK, ErrorCode::Unsupported, "");
    *response.body_mut() = Body::whole(Bytes::from_static(b"{}"));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("2"));
    response.headers_mut().insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
    response
}

/// The request asks for nothing that there is.
#[must_use]
pub fn malformed(problem: &Malformed) -> Response<Body> {
    let (status, code) = match problem {
        Malformed::Method => (StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported),
        Malformed::Path(_) | Malformed::Nameless => (StatusCode::NOT_FOUND, ErrorCode::NameUnknown),
        Malformed::Namespace | Malformed::Contradiction => (StatusCode::BAD_REQUEST, ErrorCode::NameInvalid),
    };
    let mut response = error(status, code, &problem.to_string());
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(hyper::header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

/// The registry is not in the plan.
#[must_use]
pub fn unknown(host: &str) -> Response<Body> {
    let message = format!("{host} is in no Mirror and of no Registry of this node: ask it yourself");
    error(StatusCode::NOT_FOUND, ErrorCode::NameUnknown, &message)
}

/// Nothing can answer now; the runtime goes on elsewhere.
#[must_use]
pub fn unavailable(message: &str) -> Response<Body> {
    let mut response = error(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, message);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn error(status: StatusCode, code: ErrorCode, message: &str) -> Response<Body> {
    let bytes = Bytes::from(code.body(message));
    let mut response = Response::new(Body::whole(bytes.clone()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn headers_of_the_connection_and_of_wharf_are_not_sent_on() {
        let headers = map(&[
            ("authorization", "Basic x"),
            ("connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("wharf-agent-token", "forged"),
            ("wharf-anything", "forged"),
            ("range", "bytes=5-"),
        ]);
        let kept = sent_on(&headers);
        let names: Vec<&str> = kept.keys().map(HeaderName::as_str).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(kept.contains_key("authorization") && kept.contains_key("range"));
    }
}
