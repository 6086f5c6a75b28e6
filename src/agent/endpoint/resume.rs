//! The rest of a body whose server was lost: from where it is asked for, and what of it is taken. The table is in `transfer`.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::{ETAG, HeaderName, HeaderValue, IF_RANGE, RANGE};
use hyper::{Method, Response, StatusCode};
use tokio::time::{Instant, sleep, timeout_at};

use super::backend::{Backend, Outgoing, Trouble};
use super::forward::Proxy;
use super::request::Wanted;
use super::transfer::{Source, Span};

/// Which fill the bytes of an answer are of.
pub const FILL: HeaderName = HeaderName::from_static("wharf-fill");
/// How long a runtime that can resume by itself is kept waiting: longer, and it had better do so.
const BRIEFLY: Duration = Duration::from_secs(1);
/// How long one that cannot is: as long as a Mirror's pod takes to come back.
const LONG: Duration = Duration::from_secs(20);
/// How long to wait between two rounds over all servers.
const PAUSE: Duration = Duration::from_millis(200);

/// How the rest of an answer may be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The bytes are of their digest, as this `ETag` says.
    Proven(HeaderValue),
    /// They are of this fill.
    Filling(HeaderValue),
    /// The client proves them itself, and keeps nothing that it cannot prove.
    Unproven,
    /// Not at all.
    None,
}

impl Way {
    /// The way for the answer to a request.
    #[must_use]
    pub fn of<T>(wanted: &Wanted, method: &Method, answer: &Response<T>) -> Self {
        let Some(digest) = wanted.blob().filter(|_| *method == Method::GET) else { return Self::None };
        if wanted.by_prefix {
            return Self::Unproven;
        }
        let proof = format!("\"{digest}\"");
        let headers = answer.headers();
        if let Some(etag) = headers.get(ETAG).filter(|etag| etag.as_bytes() == proof.as_bytes()) {
            return Self::Proven(etag.clone());
        }
        headers.get(FILL).map_or(Self::None, |fill| Self::Filling(fill.clone()))
    }

    fn takes<T>(&self, answer: &Response<T>) -> bool {
        let headers = answer.headers();
        match self {
            Self::Proven(etag) => headers.get(ETAG) == Some(etag),
            Self::Filling(fill) => headers.get(FILL) == Some(fill),
            Self::Unproven => true,
            Self::None => false,
        }
    }
}

/// What is needed to ask for the rest.
pub struct Resume {
    pub proxy: Arc<Proxy>,
    pub wanted: Wanted,
    pub outgoing: Outgoing,
    pub way: Way,
}

impl Resume {
    /// The rest, from `from` or another server. `trouble` is what happened to the one that had it.
    ///
    /// # Errors
    /// When it cannot be had in time.
    pub async fn rest(&self, span: Span, from: &Arc<Backend>, trouble: Trouble) -> Result<Source, Trouble> {
        if self.way == Way::None || span.next >= span.end {
            return Err(trouble);
        }
        let patience = if self.way == Way::Unproven { LONG } else { BRIEFLY };
        let deadline = Instant::now() + patience;
        let mut outgoing = self.outgoing.clone();
        // The client's own condition was met when its answer began.
        for name in [IF_RANGE, hyper::header::IF_NONE_MATCH] {
            outgoing.headers.remove(name);
        }
        let range = format!("bytes={}-{}", span.next, span.end - 1);
        outgoing.headers.insert(RANGE, HeaderValue::try_from(range).map_err(|_| trouble.clone())?);
        if let Way::Proven(etag) = &self.way {
            outgoing.headers.insert(IF_RANGE, etag.clone());
        }
        let mut last = trouble;
        loop {
            let servers = self.servers(from);
            // A runtime that resumes by itself had better do so than wait for one of them to come back.
            if servers.is_empty() && self.way != Way::Unproven {
                return Err(last);
            }
            for backend in servers {
                match timeout_at(deadline, self.proxy.ask(&backend, &outgoing, &[])).await {
                    Ok(Ok((answer, connection))) => {
                        let is_rest = answer.status() == StatusCode::PARTIAL_CONTENT
                            && Span::of(answer.status(), answer.headers()) == Some(span);
                        if is_rest && self.way.takes(&answer) {
                            tracing::info!(blob = %self.wanted.key(), backend = backend.url(), "goes on from here");
                            self.proxy.metrics.resumed();
                            return Ok(Source { incoming: answer.into_body(), connection, backend });
                        }
                        last = backend.trouble(&format!("it does not have the rest: {}", answer.status()));
                    }
                    Ok(Err(failed)) => last = self.proxy.note(&backend, failed),
                    Err(_) => return Err(last),
                }
            }
            if Instant::now() + PAUSE >= deadline {
                return Err(last);
            }
            sleep(PAUSE).await;
        }
    }

    /// The servers that may have the rest and are not known to be away.
    fn servers(&self, from: &Arc<Backend>) -> Vec<Arc<Backend>> {
        let all = match &self.way {
            Way::Filling(_) => vec![from.clone()],
            _ => self.proxy.servers(&self.wanted),
        };
        all.into_iter().filter(|backend| backend.away().is_none()).collect()
    }

    /// The client is cut off: what it asks for next of this blob is not begun here again.
    pub fn cut(&self, trouble: &Trouble) {
        tracing::warn!(of = %self.wanted.path_and_query, %trouble, "an answer is cut off");
        self.proxy.metrics.cut();
        if let Some(digest) = self.wanted.blob() {
            self.proxy.cuts.add(digest.as_str());
        }
    }

    /// Counts bytes that were passed on.
    pub fn count(&self, bytes: u64) {
        self.proxy.metrics.passed(bytes);
    }
}
