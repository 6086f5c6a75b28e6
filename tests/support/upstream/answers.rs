//! What the scripted upstream answers: first what a real registry would, then what the script makes of it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE, LOCATION, RANGE,
    WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;
use wharf::oci::range::{Requested, requested};

use super::content::{BLOB, Readers};
use super::faults::{Fault, Kind};
use super::sending::{Body, nothing};
use super::tokens::{Caller, SERVICE};
use super::wrong::{faulty, plain, response};
use super::{Access, Inner, Role, Seen, State};

pub const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const TYPES: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// What is answered when nothing is wrong.
pub struct Right {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub whole: Bytes,
    pub part: Range<u64>,
}

impl Right {
    pub fn new(status: StatusCode, media_type: &str, whole: Bytes) -> Self {
        let mut right = Self { status, headers: HeaderMap::new(), part: 0..whole.len() as u64, whole };
        right.set(CONTENT_TYPE, media_type);
        right
    }

    pub fn error(status: StatusCode, code: &str) -> Self {
        // Nobody may pass this on.
        let body = json!({"errors": [{"code": code, "message": "upstream-says-so"}]}).to_string();
        Self::new(status, "application/json", body.into())
    }

    pub fn set(&mut self, name: HeaderName, value: &str) {
        self.headers.insert(name, HeaderValue::from_str(value).unwrap());
    }
}

pub struct Asked {
    pub kind: Kind,
    pub repository: String,
    pub reference: String,
}

/// None where a registry knows no such path.
fn asked(role: Role, method: &Method, path: &str) -> Option<Asked> {
    let of = |kind, repository: &str, reference: &str| {
        Some(Asked { kind, repository: repository.to_owned(), reference: reference.to_owned() })
    };
    let head = match *method {
        Method::GET => false,
        Method::HEAD => true,
        _ => return None,
    };
    if role == Role::Storage {
        return of(Kind::Storage, "", path.strip_prefix("/blob/")?);
    }
    if path == "/token" {
        return of(Kind::Token, "", "");
    }
    let rest = path.strip_prefix("/v2/")?;
    if rest.is_empty() {
        return of(Kind::Ping, "", "");
    }
    if let Some(name) = rest.strip_suffix("/tags/list") {
        return of(Kind::Tags, name, "");
    }
    for (part, by_tag, by_digest) in [
        ("/manifests/", [Kind::GetTag, Kind::HeadTag], [Kind::GetManifest, Kind::HeadManifest]),
        ("/blobs/", [Kind::GetBlob, Kind::HeadBlob], [Kind::GetBlob, Kind::HeadBlob]),
        ("/referrers/", [Kind::Referrers; 2], [Kind::Referrers; 2]),
    ] {
        if let Some((name, reference)) = rest.rsplit_once(part) {
            let kinds = if reference.starts_with("sha256:") { by_digest } else { by_tag };
            return of(kinds[usize::from(head)], name, reference);
        }
    }
    None
}

pub async fn answer(
    state: &Arc<State>,
    role: Role,
    from: IpAddr,
    request: Request<Incoming>,
) -> Result<Response<Body>, std::io::Error> {
    let (parts, _) = request.into_parts();
    let target = parts.uri.to_string();
    let Some(mut asked) = asked(role, &parts.method, parts.uri.path()) else {
        state.inner().problems.push(format!("{} {target} is no request of a client", parts.method));
        return Ok(response(Right::error(StatusCode::NOT_FOUND, "UNSUPPORTED"), nothing()));
    };
    let sent = Arc::default();
    let (right, fault) = {
        let mut inner = state.inner();
        let query = parts.uri.query().unwrap_or_default();
        let right = inner.right(state, &mut asked, query, &parts.headers);
        // Who may not ask gets no further.
        let concerns = right.status != StatusCode::UNAUTHORIZED || asked.kind == Kind::Token;
        let fault = inner
            .rules
            .iter_mut()
            .filter(|_| concerns)
            .find_map(|rule| rule.befalls(asked.kind, &asked.reference).then(|| rule.fault.clone()));
        let seen = Seen {
            from,
            kind: asked.kind,
            reference: asked.reference.clone(),
            headers: parts.headers.clone(),
            status: right.status.as_u16(),
            start: right.part.start,
            sent: Arc::clone(&sent),
        };
        inner.seen.push(seen);
        (right, fault)
    };
    if state.silent.load(Ordering::SeqCst) {
        std::future::pending::<()>().await;
    }
    let Some(fault) = fault else { return Ok(plain(state, right, &parts.method, sent)) };
    match fault {
        Fault::Silent => std::future::pending().await,
        Fault::Late(wait) => {
            tokio::time::sleep(wait).await;
            Ok(plain(state, right, &parts.method, sent))
        }
        Fault::Dropped => Err(std::io::ErrorKind::ConnectionAborted.into()),
        fault => Ok(faulty(state, right, &fault, &parts.method, &asked, sent)),
    }
}

impl Inner {
    pub fn challenge(&self, repository: &str, error: Option<&str>) -> Right {
        let mut refused = Right::error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED");
        let text = match self.access {
            Access::Basic => "Basic realm=\"scripted\"".to_owned(),
            Access::Tokens => {
                let scope = match repository {
                    "" => String::new(),
                    name => format!(",scope=\"repository:{name}:pull\""),
                };
                let error = error.map(|error| format!(",error=\"{error}\"")).unwrap_or_default();
                format!("Bearer realm=\"{}\",service=\"{SERVICE}\"{scope}{error}", self.realm)
            }
        };
        refused.set(WWW_AUTHENTICATE, &text);
        refused
    }

    fn may_read(&self, user: &str, repository: &str) -> bool {
        self.repositories.get(repository).is_some_and(|repository| match &repository.readers {
            Readers::Everybody => true,
            Readers::Only(users) => users.iter().any(|reader| reader == user),
        })
    }

    /// What is said to a caller who may not read.
    fn refuse(&mut self, repository: &str, headers: &HeaderMap) -> Option<Right> {
        match self.access {
            Access::Tokens => {
                if headers.get(AUTHORIZATION).is_some_and(|value| value.as_bytes().starts_with(b"Basic ")) {
                    self.problems.push("a password was sent where only tokens count".to_owned());
                }
                let user = match self.tokens.user(headers, repository) {
                    Ok(user) => user,
                    Err(error) => return Some(self.challenge(repository, error)),
                };
                // Real tokens last until they end; those of a user who lost the right are asked for again by the tests.
                let may = self.may_read(&user, repository) || !self.repositories.contains_key(repository);
                (!may).then(|| self.challenge(repository, Some("insufficient_scope")))
            }
            Access::Basic => match self.tokens.caller(headers) {
                Caller::Stranger => Some(self.challenge(repository, None)),
                Caller::User(_) if !self.repositories.contains_key(repository) => None,
                Caller::User(user) if self.may_read(&user, repository) => None,
                Caller::User(user) if user.is_empty() => Some(self.challenge(repository, None)),
                Caller::User(_) => Some(Right::error(StatusCode::FORBIDDEN, "DENIED")),
            },
        }
    }

    fn token(&mut self, query: &str, headers: &HeaderMap) -> Right {
        let pairs: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        if !pairs.iter().any(|(name, value)| name == "service" && value == SERVICE) {
            self.problems.push(format!("a token was asked for without its service: {query}"));
            return Right::error(StatusCode::BAD_REQUEST, "UNSUPPORTED");
        }
        let Caller::User(user) = self.tokens.caller(headers) else {
            return Right::error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED");
        };
        let mut granted = BTreeSet::new();
        for scope in pairs.iter().filter(|(name, _)| name == "scope").flat_map(|(_, value)| value.split(' ')) {
            match scope.split(':').collect::<Vec<_>>()[..] {
                ["repository", name, "pull"] if self.may_read(&user, name) => drop(granted.insert(name.to_owned())),
                ["repository", _, "pull"] => {}
                _ => self.problems.push(format!("a token was asked for {scope}")),
            }
        }
        let seconds = self.tokens.lifetime.as_secs();
        let token = self.tokens.give(&user, granted);
        let body = json!({"token": token, "access_token": token, "expires_in": seconds}).to_string();
        Right::new(StatusCode::OK, "application/json", body.into())
    }

    /// What a registry answers that has nothing against anybody.
    fn right(&mut self, state: &State, asked: &mut Asked, query: &str, headers: &HeaderMap) -> Right {
        let strict = state.front.strict;
        if strict && headers.get(ACCEPT_ENCODING).is_some_and(|value| value != "identity") {
            self.problems.push(format!("{} may be compressed", asked.reference));
        }
        match asked.kind {
            Kind::Token => return self.token(query, headers),
            Kind::Storage => return self.stored(asked, query, headers),
            Kind::Ping => {
                let known = match self.access {
                    Access::Basic => true,
                    Access::Tokens => headers.contains_key(AUTHORIZATION),
                };
                let right = Right::new(StatusCode::OK, "application/json", "{}".into());
                return if known { right } else { self.challenge("", None) };
            }
            Kind::Tags | Kind::Referrers => {}
            _ if !query.is_empty() => self.problems.push(format!("{} with {query}", asked.reference)),
            _ => {}
        }
        if let Some(refused) = self.refuse(&asked.repository, headers) {
            return refused;
        }
        let Some(repository) = self.repositories.get(&asked.repository) else {
            return Right::error(StatusCode::NOT_FOUND, "NAME_UNKNOWN");
        };
        let accepted: Vec<_> = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok()).collect();
        match asked.kind {
            Kind::Tags => {
                let tags: Vec<_> = repository.tags.keys().collect();
                let body = json!({"name": asked.repository, "tags": tags}).to_string();
                Right::new(StatusCode::OK, "application/json", body.into())
            }
            Kind::Referrers => {
                let body = json!({"schemaVersion": 2, "mediaType": super::content::INDEX, "manifests": []});
                Right::new(StatusCode::OK, super::content::INDEX, body.to_string().into())
            }
            Kind::GetBlob | Kind::HeadBlob => {
                let Some(bytes) = repository.blobs.get(&asked.reference).cloned() else {
                    return Right::error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN");
                };
                if self.redirects && asked.kind == Kind::GetBlob {
                    return self.redirect(state, asked, BLOB, bytes);
                }
                content(BLOB, &asked.reference, bytes, headers, &mut self.problems)
            }
            _ => {
                let digest = repository.tags.get(&asked.reference).unwrap_or(&asked.reference).clone();
                let Some((media_type, bytes)) = repository.manifests.get(&digest).cloned() else {
                    return Right::error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
                };
                let accepted = accepted.join(",");
                if strict && let Some(missing) = TYPES.iter().find(|name| !accepted.contains(*name)) {
                    self.problems.push(format!("{missing} is not accepted, only {accepted}"));
                    return Right::error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
                }
                if headers.contains_key(RANGE) {
                    self.problems.push(format!("a part of the manifest {}", asked.reference));
                }
                content(&media_type, &digest, bytes, headers, &mut self.problems)
            }
        }
    }

    pub fn redirect(&mut self, state: &State, asked: &Asked, media_type: &str, bytes: Bytes) -> Right {
        let signature = format!("s{}", self.signed.len());
        let digest = super::content::digest(&bytes);
        let location = format!("{}/blob/{digest}?signature={signature}", state.urls[1]);
        self.signed.insert(signature, (asked.repository.clone(), media_type.to_owned(), digest, bytes));
        let mut right = Right::new(StatusCode::TEMPORARY_REDIRECT, "text/html", Bytes::new());
        right.set(LOCATION, &location);
        right
    }

    fn stored(&mut self, asked: &mut Asked, query: &str, headers: &HeaderMap) -> Right {
        if headers.contains_key(AUTHORIZATION) {
            self.problems.push("the storage was sent a credential".to_owned());
            return Right::error(StatusCode::BAD_REQUEST, "InvalidArgument");
        }
        let signed = query.strip_prefix("signature=").and_then(|signature| self.signed.get(signature)).cloned();
        let Some((repository, media_type, digest, bytes)) = signed.filter(|signed| signed.2 == asked.reference) else {
            self.problems.push(format!("the storage was asked for {} with {query}", asked.reference));
            return Right::error(StatusCode::FORBIDDEN, "AccessDenied");
        };
        asked.repository = repository;
        content(&media_type, &digest, bytes, headers, &mut self.problems)
    }
}

/// Bytes with a digest, as a whole or in part.
fn content(media_type: &str, digest: &str, bytes: Bytes, headers: &HeaderMap, problems: &mut Vec<String>) -> Right {
    let length = bytes.len() as u64;
    let mut right = Right::new(StatusCode::OK, media_type, bytes);
    // Not the digest, so that nobody takes one for the other.
    let tag = format!("\"e{}\"", &digest[7..20]);
    right.set(ETAG, &tag);
    right.set(CONTENT_DIGEST, digest);
    right.set(http::header::ACCEPT_RANGES, "bytes");
    let stale = headers.get(IF_RANGE).is_some_and(|value| value.as_bytes() != tag.as_bytes());
    if headers.contains_key(IF_RANGE) && !headers.contains_key(RANGE) {
        problems.push(format!("If-Range without Range for {digest}"));
    }
    let range = headers.get(RANGE).filter(|_| !stale).map(|value| value.to_str().unwrap());
    match range.map_or(Requested::Whole, |range| requested(range, length)) {
        Requested::Whole => {}
        Requested::Part(part) => {
            right.status = StatusCode::PARTIAL_CONTENT;
            right.set(CONTENT_RANGE, &format!("bytes {}-{}/{length}", part.start, part.end - 1));
            right.part = part;
        }
        Requested::Unsatisfiable => {
            right = Right::error(StatusCode::RANGE_NOT_SATISFIABLE, "UNSUPPORTED");
            right.set(CONTENT_RANGE, &format!("bytes */{length}"));
        }
    }
    right
}
