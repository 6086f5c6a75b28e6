//! Requests for what other registries have. It must never pass on a credential that is somebody's here, and never answer what
//! has come through this server before.

use std::sync::{Arc, PoisonError, RwLock};

use hyper::body::{Body as _, Incoming};
use hyper::header::{AGE, HeaderMap, HeaderName, HeaderValue, RANGE, VIA};
use hyper::{Method, Request, Response};

use super::answers::{self, FILTERS_APPLIED, Mark, encode};
use super::body::Answer;
use super::error::Refusal;
use super::target::{Asked, Mirrored, Names};
use crate::oci::range::begins;
use crate::oci::{Digest, Endpoint, ErrorCode, ManifestType, Reference};
use crate::serve::cache::fill::Body;
use crate::serve::cache::store::Scope;
use crate::serve::cache::{Ask, Blob, Cache, Caller, Metrics, Refused};
use crate::serve::store::StoreError;
use crate::serve::upstream::{Basic, Listed};

/// Which registry an answer is of.
const NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");

/// Other registries whose content is served.
pub struct Mirrors {
    cache: Arc<Cache>,
    names: RwLock<Arc<Names>>,
    /// How this process calls itself in `Via`.
    instance: String,
    metrics: Metrics,
}

impl Mirrors {
    /// Those that `names` names, out of `cache`. `instance` is what this process calls itself in `Via` when it asks others.
    #[must_use]
    pub fn new(cache: Arc<Cache>, names: Names, instance: String, metrics: Metrics) -> Self {
        Self { cache, names: RwLock::new(Arc::new(names)), instance, metrics }
    }

    /// Other names from now on.
    pub fn change(&self, names: Names) {
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(names);
    }

    pub(super) fn names(&self) -> Arc<Names> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts a refusal, if it is one of a request for what another registry has.
    pub(super) fn refused(&self, refusal: &Refusal) {
        if let Some(reason) = refusal.reason() {
            self.metrics.refused(reason);
        }
    }

    /// Refuses a request that has come through this process before.
    pub(super) fn refuse_loop(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if has_come_through(headers, &self.instance) { Err(Refusal::Loop) } else { Ok(()) }
    }

    /// Answers a request, which has not come through here before. `caller` is the credential that it brought for the other registry.
    pub(super) async fn answer(
        &self,
        mirrored: Mirrored,
        request: &Request<Incoming>,
        caller: Option<Basic>,
    ) -> Result<Response<Answer>, Refusal> {
        let given = self.given(&mirrored, request, caller).await;
        let mut response = given.map_err(|refusal| if mirrored.is_named() { refusal } else { refusal.of_either() })?;
        if let Ok(host) = HeaderValue::try_from(mirrored.host.as_str()) {
            response.headers_mut().insert(NAMESPACE, host);
        }
        self.metrics.served(&mirrored.host, response.body().size_hint().exact().unwrap_or_default());
        Ok(response)
    }

    async fn given(
        &self,
        mirrored: &Mirrored,
        request: &Request<Incoming>,
        caller: Option<Basic>,
    ) -> Result<Response<Answer>, Refusal> {
        let (method, headers) = (request.method(), request.headers());
        let scope = Scope { upstream: mirrored.host.clone(), repository: mirrored.repository.clone() };
        let via = through(headers).collect::<Vec<_>>().join(", ");
        let ask = Ask { scope, caller: Caller::Client(caller), head: method == Method::HEAD, via };
        match &mirrored.asked {
            Asked::Blob(digest) => self.blob(&ask, digest, method, headers).await,
            Asked::Manifest(reference) => self.manifest(&ask, reference, method, headers).await,
            Asked::Tags(last, limit) => {
                let listed = Listed::Tags(last.clone(), *limit);
                self.list(&ask, &listed, mirrored, method).await
            }
            Asked::Referrers(digest, kind) => {
                let listed = Listed::Referrers(digest.clone(), kind.clone());
                self.list(&ask, &listed, mirrored, method).await
            }
        }
    }

    async fn blob(
        &self,
        ask: &Ask,
        digest: &Digest,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Response<Answer>, Refusal> {
        let refused = refused(ErrorCode::BlobUnknown);
        let unread = |error: StoreError| refused(Refused::Store(error));
        let from = headers.get(RANGE).and_then(|value| value.to_str().ok()).map_or(0, begins);
        let given = match self.cache.blob(ask, digest, from).await.map_err(refused)? {
            Blob::Kept(content) => {
                return answers::blob(content, (digest, Mark::Proven), method, headers, unread).await;
            }
            Blob::Head(length) => return Ok(answers::blob_head(digest, length)),
            Blob::Growing(given) => given,
        };
        let fill = given.fill.as_deref();
        match given.body {
            Body::Measured(content) => {
                answers::blob(content, (digest, Mark::Filling(fill)), method, headers, unread).await
            }
            Body::Unmeasured(bytes) => Ok(answers::blob_of_unknown_length(digest, fill, Answer::streamed(bytes))),
        }
    }

    async fn manifest(
        &self,
        ask: &Ask,
        reference: &Reference,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Response<Answer>, Refusal> {
        let found = self.cache.manifest(ask, reference).await.map_err(refused(ErrorCode::ManifestUnknown))?;
        let what = (&found.digest, found.media_type);
        let mut response = answers::manifest(what, found.length, found.bytes.as_ref(), method, headers);
        if let Some(age) = found.age {
            response.headers_mut().insert(AGE, HeaderValue::from(age.as_secs()));
        }
        Ok(response)
    }

    async fn list(
        &self,
        ask: &Ask,
        listed: &Listed,
        mirrored: &Mirrored,
        method: &Method,
    ) -> Result<Response<Answer>, Refusal> {
        let found = self.cache.list(ask, listed).await.map_err(refused(ErrorCode::NameUnknown))?;
        let content_type = match listed {
            Listed::Tags(..) => "application/json",
            Listed::Referrers(..) => ManifestType::OciIndex.as_str(),
        };
        let mut response = answers::document(found.bytes, content_type, method);
        if found.filtered {
            response.headers_mut().insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
        }
        if let (Some(last), Listed::Tags(_, limit)) = (found.more_behind, listed) {
            answers::goes_on(&mut response, &more_tags(mirrored, &last, *limit));
        }
        Ok(response)
    }
}

/// What it means that another registry's content is not given; `missing` is what is not there, where it is not there.
fn refused(missing: ErrorCode) -> impl Fn(Refused) -> Refusal + Copy {
    move |refused| Refusal::Mirror { missing, refused }
}

/// The servers that a request has come through.
fn through(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(VIA).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// Whether this process is among those that a request has come through.
fn has_come_through(headers: &HeaderMap, instance: &str) -> bool {
    through(headers).any(|server| server.split_whitespace().nth(1) == Some(instance))
}

/// Where the list of tags goes on that a client asked for, in the form in which it asked.
fn more_tags(mirrored: &Mirrored, last: &str, limit: Option<usize>) -> String {
    let path = Endpoint::Tags(mirrored.written.clone());
    let namespace = mirrored.by_namespace.then(|| format!("&ns={}", encode(mirrored.host.as_str())));
    let limit = limit.map(|limit| format!("&n={limit}"));
    let (namespace, limit) = (namespace.unwrap_or_default(), limit.unwrap_or_default());
    format!("{path}?last={}{limit}{namespace}", encode(last))
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;
    use hyper::header::{HeaderValue, VIA};

    use super::super::target::{Asked, Mirrored};
    use super::{has_come_through, more_tags};

    #[test]
    fn a_request_that_came_through_this_process_is_known() {
        for (values, expected) in [
            (&["1.1 wharf-1"][..], true),
            (&["1.0 other, 1.1 wharf-1"], true),
            (&["1.1 other", "HTTP/1.1 wharf-1 (a comment)"], true),
            (&["1.1 wharf-12", "1.1 other (wharf-1)"], false),
            (&["wharf-1"], false),
            (&[], false),
        ] {
            let headers = values.iter().map(|value| (VIA, HeaderValue::from_static(value))).collect::<HeaderMap>();
            assert_eq!(has_come_through(&headers, "wharf-1"), expected, "{values:?}");
        }
    }

    #[test]
    fn a_list_goes_on_in_the_form_in_which_it_was_asked_for() {
        for (written, by_namespace, limit, expected) in [
            ("a/b", true, Some(2), "/v2/a/b/tags/list?last=x&n=2&ns=r.example%3A5000"),
            ("a/b", false, None, "/v2/a/b/tags/list?last=x"),
            ("r.example_5000/a/b", false, Some(2), "/v2/r.example_5000/a/b/tags/list?last=x&n=2"),
        ] {
            let (host, repository) = ("r.example:5000".parse().unwrap(), "a/b".parse().unwrap());
            let (written, asked) = (written.parse().unwrap(), Asked::Tags(None, limit));
            let mirrored = Mirrored { host, repository, asked, written, by_namespace };
            assert_eq!(more_tags(&mirrored, "x", limit), expected);
        }
    }
}
