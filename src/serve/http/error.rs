//! The only table of status codes: what each refusal is to a client. What happened inside is for the log alone.

use hyper::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{HeaderMap, Method, Response, StatusCode};
use thiserror::Error;

use super::body::{Answer, Broken};
use super::route::RouteError;
use super::target::TargetError;
use super::uploads::progress_headers;
use crate::oci::path::InvalidPath;
use crate::oci::tag::InvalidReference;
use crate::oci::{ErrorCode, RepositoryName, canary};
use crate::serve::access::{NoAgent, Unknown};
use crate::serve::cache::Refused;
use crate::serve::cache::metrics::Reason;
use crate::serve::repository::Error;

#[cfg(test)]
mod tests;

/// How a client is asked for its name.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"wharf\", charset=\"UTF-8\"");

/// Says what refused a request, where a program has to tell it from the upstream's own refusal.
const REFUSED: HeaderName = HeaderName::from_static("wharf-refused");

/// In how many seconds to come back, where nobody knows better.
const RETRY_SECONDS: u64 = 5;

/// Why a request is refused.
#[derive(Debug, Error)]
pub enum Refusal {
    /// It asks for nothing.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// Nobody is known by these credentials.
    #[error(transparent)]
    Unknown(#[from] Unknown),
    /// Credentials are needed.
    #[error("this needs a user name and a password")]
    Unauthorized,
    /// The caller may not do this.
    #[error("this user may not push or delete")]
    Denied,
    /// The domain refuses it.
    #[error("{error}")]
    Repository {
        /// Where, for the headers of uploads.
        repository: RepositoryName,
        /// Why.
        error: Error,
    },
    /// The body cannot be read.
    #[error("the request's body could not be read: {0}")]
    Body(#[from] Broken),
    /// A header is malformed, or stands there twice.
    #[error("the header {0} is malformed or repeated")]
    Header(HeaderName),
    /// A range that the content does not have.
    #[error("the content has {0} bytes, none of which the Range header asks for")]
    Range(u64),
    /// As many clients as may be are bringing content.
    #[error("too many requests are bringing content")]
    Busy,
    /// It is for nobody's content.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// It is for another registry's content, which is not given.
    #[error("{refused}")]
    Mirror {
        /// What is not there, where it is not there.
        missing: ErrorCode,
        /// Why.
        refused: Refused,
    },
    /// It names no registry; there is no such repository here, and the default mirror does not give it.
    #[error("there is no such repository here, and {refused}")]
    Neither {
        /// What is not there.
        missing: ErrorCode,
        /// Why the mirror does not give it.
        refused: Refused,
    },
    /// It is for another registry's content, and not from an agent.
    #[error(transparent)]
    NoAgent(#[from] NoAgent),
    /// It would change the canary.
    #[error("{} is answered by the server itself and cannot be changed: push to another name", canary::REPOSITORY)]
    Canary,
    /// The canary does not have it.
    #[error("{} has nothing but its tag {}", canary::REPOSITORY, canary::TAG)]
    NotOfTheCanary(ErrorCode),
    /// It has been here before.
    #[error("this request has come through this server already: a registry that is mirrored here leads back to it")]
    Loop,
}

struct Row(StatusCode, ErrorCode);

impl Refusal {
    fn row(&self, method: &Method) -> Row {
        use ErrorCode as Code;
        use StatusCode as Status;
        match self {
            Self::Route(error) => route_row(error, method),
            Self::Unknown(Unknown::Credentials) | Self::Unauthorized => Row(Status::UNAUTHORIZED, Code::Unauthorized),
            Self::Unknown(Unknown::Busy) | Self::NoAgent(NoAgent::Unknowable) => {
                Row(Status::SERVICE_UNAVAILABLE, Code::Unavailable)
            }
            Self::Denied | Self::Canary | Self::NoAgent(NoAgent::NoToken | NoAgent::Wrong) => {
                Row(Status::FORBIDDEN, Code::Denied)
            }
            Self::Repository { error, .. } => repository_row(error),
            Self::Body(Broken::TooLong(_)) => Row(Status::PAYLOAD_TOO_LARGE, Code::SizeInvalid),
            Self::Body(Broken::Idle(_)) => Row(Status::REQUEST_TIMEOUT, Code::SizeInvalid),
            Self::Body(Broken::Connection(_)) => Row(Status::BAD_REQUEST, Code::SizeInvalid),
            Self::Header(_) => Row(Status::BAD_REQUEST, Code::Unsupported),
            Self::Range(_) => Row(Status::RANGE_NOT_SATISFIABLE, Code::SizeInvalid),
            Self::Busy => Row(Status::TOO_MANY_REQUESTS, Code::TooManyRequests),
            Self::Target(error) => target_row(error),
            Self::Mirror { missing, refused } => mirror_row(*missing, refused),
            Self::Neither { missing, .. } => Row(Status::NOT_FOUND, *missing),
            Self::NotOfTheCanary(code) => Row(Status::NOT_FOUND, *code),
            Self::Loop => Row(Status::LOOP_DETECTED, Code::Unavailable),
        }
    }

    /// The answer to a request that is refused.
    #[must_use]
    pub fn answer(&self, method: &Method) -> Response<Answer> {
        let Row(status, code) = self.row(method);
        // What failed inside is nobody's business outside.
        let message = match status {
            StatusCode::INTERNAL_SERVER_ERROR => "the server failed; its log says why".to_owned(),
            StatusCode::INSUFFICIENT_STORAGE => "the registry has no room left".to_owned(),
            _ => self.to_string(),
        };
        let body = code.body(&message);
        let mut headers = self.headers(status);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        let body = if method == Method::HEAD { Answer::empty() } else { Answer::whole(body.into()) };
        let mut answer = Response::new(body);
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        answer
    }

    fn headers(&self, status: StatusCode) -> HeaderMap {
        let mut headers = HeaderMap::new();
        match self {
            Self::Route(RouteError::Method { allowed }) => {
                headers.insert(ALLOW, HeaderValue::from_static(allowed));
            }
            Self::Target(TargetError::ReadOnly(_)) => {
                headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            }
            Self::Repository { repository, error: Error::OutOfOrder { progress, .. } } => {
                progress_headers(&mut headers, repository, progress);
            }
            Self::NoAgent(NoAgent::NoToken | NoAgent::Wrong) => {
                headers.insert(REFUSED, HeaderValue::from_static("agent-token"));
            }
            Self::Range(length) => {
                if let Ok(value) = HeaderValue::try_from(format!("bytes */{length}")) {
                    headers.insert(hyper::header::CONTENT_RANGE, value);
                }
            }
            _ => {}
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, CHALLENGE);
        }
        if matches!(
            status,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS | StatusCode::INSUFFICIENT_STORAGE
        ) {
            headers.insert(RETRY_AFTER, HeaderValue::from(self.retry_after()));
        }
        // The rest of a body that nobody wants is not waited for.
        if matches!(self, Self::Body(_) | Self::Header(_)) {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        headers
    }

    /// The same for a request that may as well be for a repository of this server that is still to be pushed to: who pushes looks
    /// first whether the manifest is there, and must hear nothing of another registry's trouble. Docker takes all of it alike.
    #[must_use]
    pub fn of_either(self) -> Self {
        match self {
            Self::Mirror {
                missing,
                refused: refused @ (Refused::Unauthorized(_) | Refused::Denied(_) | Refused::Away { .. }),
            } => Self::Neither { missing, refused },
            other => other,
        }
    }

    /// In how many seconds it may go better.
    fn retry_after(&self) -> u64 {
        match self {
            Self::Mirror { refused: Refused::Away { retry_after: Some(wait), .. }, .. } => wait.as_secs().max(1),
            _ => RETRY_SECONDS,
        }
    }

    /// Whether the server, and neither the client nor another registry, is at fault.
    #[must_use]
    pub fn is_ours(&self, method: &Method) -> bool {
        let fault = match self {
            Self::Loop | Self::NoAgent(_) => false,
            Self::Mirror { refused, .. } => matches!(refused, Refused::Store(_)),
            _ => true,
        };
        fault && self.row(method).0.is_server_error()
    }

    /// As what it counts among the refusals of what other registries have, if it is one.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Target(error) => Some(match error {
                TargetError::Namespace | TargetError::Contradiction { .. } | TargetError::Name(_) => {
                    Reason::MalformedRegistry
                }
                TargetError::UnknownRegistry(_) => Reason::UnknownRegistry,
                TargetError::NotMeant { .. } => return None,
                TargetError::ReadOnly(_) | TargetError::Taken(_) => Reason::NotReadOnly,
            }),
            Self::Loop => Some(Reason::Loop),
            Self::NoAgent(NoAgent::NoToken | NoAgent::Wrong) => Some(Reason::NoAgent),
            Self::NoAgent(NoAgent::Unknowable) => Some(Reason::UnknowableAgent),
            Self::Mirror { refused, .. } | Self::Neither { refused, .. } => match refused {
                Refused::Unknown(_) | Refused::Store(_) => None,
                Refused::Unauthorized(_) => Some(Reason::Unauthorized),
                Refused::Denied(_) => Some(Reason::Denied),
                Refused::Away { .. } => Some(Reason::Away),
                Refused::Unverified(_) => Some(Reason::Wrong),
                Refused::Loop(_) => Some(Reason::Loop),
            },
            _ => None,
        }
    }
}

fn target_row(error: &TargetError) -> Row {
    use ErrorCode as Code;
    use StatusCode as Status;
    match error {
        TargetError::Namespace | TargetError::Contradiction { .. } | TargetError::Name(_) => {
            Row(Status::BAD_REQUEST, Code::NameInvalid)
        }
        TargetError::UnknownRegistry(_) | TargetError::NotMeant { .. } => Row(Status::NOT_FOUND, Code::NameUnknown),
        TargetError::ReadOnly(_) => Row(Status::METHOD_NOT_ALLOWED, Code::Unsupported),
        TargetError::Taken(_) => Row(Status::FORBIDDEN, Code::Denied),
    }
}

/// Never 429: containerd repeats that at once, five times.
fn mirror_row(missing: ErrorCode, refused: &Refused) -> Row {
    use ErrorCode as Code;
    use StatusCode as Status;
    match refused {
        Refused::Unknown(_) => Row(Status::NOT_FOUND, missing),
        Refused::Unauthorized(_) => Row(Status::UNAUTHORIZED, Code::Unauthorized),
        Refused::Denied(_) => Row(Status::FORBIDDEN, Code::Denied),
        Refused::Away { .. } | Refused::Unverified(_) => Row(Status::SERVICE_UNAVAILABLE, Code::Unavailable),
        Refused::Loop(_) => Row(Status::LOOP_DETECTED, Code::Unavailable),
        Refused::Store(_) => Row(Status::INTERNAL_SERVER_ERROR, Code::Unavailable),
    }
}

fn route_row(error: &RouteError, method: &Method) -> Row {
    use ErrorCode as Code;
    use StatusCode as Status;
    // Whoever looks for what cannot be is told that it is not there; whoever brings it, what is wrong with it.
    let looks = method == Method::GET || method == Method::HEAD || method == Method::DELETE;
    match error {
        RouteError::Encoding | RouteError::Query(_) => Row(Status::BAD_REQUEST, Code::Unsupported),
        RouteError::Path(InvalidPath::Unknown) => Row(Status::NOT_FOUND, Code::NameUnknown),
        RouteError::Path(InvalidPath::Name(_)) | RouteError::Name(_) => Row(Status::BAD_REQUEST, Code::NameInvalid),
        RouteError::Path(InvalidPath::Reference(_)) if looks => Row(Status::NOT_FOUND, Code::ManifestUnknown),
        RouteError::Path(InvalidPath::Digest(_) | InvalidPath::Reference(InvalidReference::Digest(_)))
        | RouteError::Digest(_) => Row(Status::BAD_REQUEST, Code::DigestInvalid),
        RouteError::Path(InvalidPath::Reference(_)) | RouteError::Tag(_) => {
            Row(Status::BAD_REQUEST, Code::ManifestInvalid)
        }
        RouteError::Method { .. } => Row(Status::METHOD_NOT_ALLOWED, Code::Unsupported),
        RouteError::Upload => Row(Status::NOT_FOUND, Code::BlobUploadUnknown),
    }
}

fn repository_row(error: &Error) -> Row {
    use ErrorCode as Code;
    use StatusCode as Status;
    match error {
        Error::BlobUnknown(_) => Row(Status::NOT_FOUND, Code::BlobUnknown),
        Error::UploadUnknown => Row(Status::NOT_FOUND, Code::BlobUploadUnknown),
        Error::UploadBusy => Row(Status::SERVICE_UNAVAILABLE, Code::BlobUploadInvalid),
        Error::TooManyUploads => Row(Status::TOO_MANY_REQUESTS, Code::TooManyRequests),
        Error::OutOfOrder { .. } => Row(Status::RANGE_NOT_SATISFIABLE, Code::BlobUploadInvalid),
        Error::ChunkLength { .. } => Row(Status::BAD_REQUEST, Code::SizeInvalid),
        Error::Receive(_) => Row(Status::BAD_REQUEST, Code::BlobUploadInvalid),
        Error::WrongDigest { .. } => Row(Status::BAD_REQUEST, Code::DigestInvalid),
        Error::ManifestUnknown(_) => Row(Status::NOT_FOUND, Code::ManifestUnknown),
        Error::ManifestInvalid(_) => Row(Status::BAD_REQUEST, Code::ManifestInvalid),
        // 404 is what the protocol's table of codes has for it.
        Error::MissingContent(_) => Row(Status::NOT_FOUND, Code::ManifestBlobUnknown),
        Error::RepositoryUnknown(_) => Row(Status::NOT_FOUND, Code::NameUnknown),
        Error::Store(error) if error.is_full() => Row(Status::INSUFFICIENT_STORAGE, Code::Unavailable),
        Error::Store(_) | Error::Task(_) => Row(Status::INTERNAL_SERVER_ERROR, Code::Unavailable),
    }
}
