//! What each refusal is to a client.

use std::time::Duration;

use hyper::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Method, StatusCode};

use super::{Broken, NoAgent, REFUSED, Reason, Refusal, Refused, RouteError, TargetError};
use crate::oci::path::InvalidPath;
use crate::oci::{ErrorCode, RegistryHost};
use crate::serve::access::Unknown;
use crate::serve::repository::Error;
use crate::serve::store::StoreError;

fn host() -> RegistryHost {
    "docker.io".parse().unwrap()
}

fn store(kind: std::io::ErrorKind) -> Refusal {
    let source = std::io::Error::new(kind, "secret detail");
    let error = Error::Store(StoreError { doing: "write", what: "/secret".to_owned(), source });
    Refusal::Repository { repository: "a".parse().unwrap(), error }
}

#[test]
fn each_refusal_has_its_status_and_headers() {
    let domain = |error| Refusal::Repository { repository: "a".parse().unwrap(), error };
    let reference = InvalidPath::Reference("-".parse::<crate::oci::Reference>().unwrap_err());
    for (refusal, method, status) in [
        (Refusal::Route(RouteError::Path(reference)), Method::GET, 404),
        (Refusal::Route(RouteError::Path(reference)), Method::PUT, 400),
        (Refusal::Route(RouteError::Method { allowed: "GET" }), Method::PUT, 405),
        (Refusal::Unknown(Unknown::Credentials), Method::GET, 401),
        (Refusal::Unauthorized, Method::GET, 401),
        (Refusal::Denied, Method::PUT, 403),
        (Refusal::Canary, Method::PUT, 403),
        (Refusal::NotOfTheCanary(ErrorCode::BlobUnknown), Method::GET, 404),
        (Refusal::Busy, Method::PUT, 429),
        (Refusal::Target(TargetError::Namespace), Method::GET, 400),
        (Refusal::Target(TargetError::UnknownRegistry(host())), Method::GET, 404),
        (Refusal::Target(TargetError::ReadOnly(host())), Method::PUT, 405),
        (Refusal::Target(TargetError::Taken(host())), Method::PUT, 403),
        (Refusal::Body(Broken::TooLong(1)), Method::PUT, 413),
        (Refusal::Body(Broken::Idle(1)), Method::PUT, 408),
        (domain(Error::UploadBusy), Method::PATCH, 503),
        (domain(Error::UploadUnknown), Method::PATCH, 404),
        (store(std::io::ErrorKind::StorageFull), Method::PUT, 507),
        (store(std::io::ErrorKind::PermissionDenied), Method::PUT, 500),
    ] {
        let answer = refusal.answer(&method);
        assert_eq!(answer.status(), status, "{refusal}");
        let headers = answer.headers();
        assert_eq!(headers.contains_key(WWW_AUTHENTICATE), status == 401);
        assert_eq!(headers.contains_key(ALLOW), status == 405);
        assert_eq!(headers.contains_key(RETRY_AFTER), [429, 503, 507].contains(&status));
        assert_eq!(refusal.is_ours(&method), status >= 500);
    }
}

#[test]
fn another_registry_s_trouble_is_not_ours_and_never_429() {
    let away = |seconds: Option<u64>| Refused::Away {
        problem: "https://registry-1.docker.io does not answer".to_owned(),
        retry_after: seconds.map(Duration::from_secs),
    };
    let full = StoreError { doing: "write", what: "/x".to_owned(), source: std::io::ErrorKind::StorageFull.into() };
    for (refused, status, retry_after, reason) in [
        (Refused::Unknown(host()), 404, None, None),
        (Refused::Unauthorized(host()), 401, None, Some(Reason::Unauthorized)),
        (Refused::Denied(host()), 403, None, Some(Reason::Denied)),
        (away(None), 503, Some("5"), Some(Reason::Away)),
        (away(Some(90)), 503, Some("90"), Some(Reason::Away)),
        (away(Some(0)), 503, Some("1"), Some(Reason::Away)),
        (Refused::Unverified(host()), 503, Some("5"), Some(Reason::Wrong)),
        (Refused::Loop(host()), 508, None, Some(Reason::Loop)),
        (Refused::Store(full), 500, None, None),
    ] {
        let refusal = Refusal::Mirror { missing: ErrorCode::BlobUnknown, refused };
        let answer = refusal.answer(&Method::GET);
        assert_eq!(answer.status(), status, "{refusal}");
        assert_eq!(answer.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap()), retry_after, "{refusal}");
        assert_eq!(answer.headers().contains_key(WWW_AUTHENTICATE), status == 401);
        assert_eq!((refusal.reason(), refusal.is_ours(&Method::GET)), (reason, status == 500), "{refusal}");
        let either = refusal.of_either();
        let status = if [401, 403, 503].contains(&status) && reason != Some(Reason::Wrong) { 404 } else { status };
        assert_eq!((either.answer(&Method::GET).status().as_u16(), either.reason()), (status, reason), "{either}");
    }
}

#[test]
fn what_failed_inside_is_not_told_outside() {
    for kind in [std::io::ErrorKind::StorageFull, std::io::ErrorKind::PermissionDenied] {
        let answer = store(kind).answer(&Method::GET);
        let super::Answer::Whole(Some(body)) = answer.into_body() else { panic!("no body") };
        assert!(!String::from_utf8_lossy(&body).contains("secret"));
    }
    assert_eq!(store(std::io::ErrorKind::Other).answer(&Method::HEAD).status(), StatusCode::INTERNAL_SERVER_ERROR);
}

#[test]
fn who_is_no_agent_is_told_what_to_do_and_never_asked_for_a_password() {
    for (stranger, status, reason) in [
        (NoAgent::NoToken, 403, Reason::NoAgent),
        (NoAgent::Wrong, 403, Reason::NoAgent),
        (NoAgent::Unknowable, 503, Reason::UnknowableAgent),
    ] {
        let refusal = Refusal::NoAgent(stranger);
        let answer = refusal.answer(&Method::GET);
        assert_eq!((answer.status().as_u16(), refusal.reason()), (status, Some(reason)), "{refusal}");
        assert!(!answer.headers().contains_key(WWW_AUTHENTICATE) && !refusal.is_ours(&Method::GET), "{refusal}");
        assert_eq!(answer.headers().contains_key(RETRY_AFTER), status == 503, "{refusal}");
        assert_eq!(answer.headers().get(REFUSED).is_some_and(|what| what == "agent-token"), status == 403, "{refusal}");
        assert_eq!(refusal.to_string().contains("spec.clients: Cluster"), status == 403, "{refusal}");
    }
}
