//! The body of an answer on its way from a server to the container runtime. When the server is lost on the way, the rest comes from
//! another one where that is safe, and the connection to the runtime is cut where it is not: bytes of which nobody can say that
//! they belong to those before must never reach a client that keeps what it has.
//!
//! | The rest is asked for | when | and taken |
//! |---|---|---|
//! | at any server, for a second | what came was proven to be of its digest (`ETag`) | with the same `ETag` |
//! | at the same server, for a second | it came while the server was still fetching it (`Wharf-Fill`) | of the same fill |
//! | at any server, for twenty seconds | the client named the registry in the path: podman and CRI-O cannot resume, and keep nothing of what they cannot prove | whatever it is |
//! | not at all | otherwise | the runtime asks for the rest elsewhere |

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap};
use hyper::{Response, StatusCode};
use tokio::time::{Instant, Sleep, sleep};

use super::backend::{Backend, Connection, Trouble};
use super::resume::Resume;

/// How long a server may send nothing before it is asked whether it is alive.
const STALL: Duration = Duration::from_millis(400);

/// The body of an answer.
pub enum Body {
    /// Bytes in memory, or none.
    Whole(Option<Bytes>),
    /// Bytes on their way.
    Transfer(Box<Transfer>),
}

impl Body {
    /// No bytes.
    pub fn empty() -> Self {
        Self::Whole(None)
    }

    /// These bytes.
    pub fn whole(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Trouble;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Trouble>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Transfer(transfer) => transfer.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Transfer(transfer) => transfer.left == Some(0),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Transfer(transfer) => transfer.left.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

/// Which bytes of an object are still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The next byte.
    pub next: u64,
    /// Behind the last byte.
    pub end: u64,
    /// How long the object is.
    pub total: u64,
}

impl Span {
    /// What an answer announces, if it does.
    #[must_use]
    pub fn of(status: StatusCode, headers: &HeaderMap) -> Option<Self> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        match status {
            StatusCode::OK => {
                let total = text(CONTENT_LENGTH)?.parse().ok()?;
                Some(Self { next: 0, end: total, total })
            }
            StatusCode::PARTIAL_CONTENT => {
                let (range, total) = text(CONTENT_RANGE)?.strip_prefix("bytes ")?.split_once('/')?;
                let (first, last) = range.split_once('-')?;
                let (next, last, total) = (first.parse().ok()?, last.parse::<u64>().ok()?, total.parse().ok()?);
                (next <= last && last < total).then_some(Self { next, end: last + 1, total })
            }
            _ => None,
        }
    }
}

/// Where bytes come from.
pub struct Source {
    /// The bytes.
    pub incoming: Incoming,
    /// The connection they come by.
    pub connection: Connection,
    /// The server.
    pub backend: Arc<Backend>,
}

enum Work {
    /// The server was asked whether it is alive, from this moment on.
    Probed(Instant, Result<(), Trouble>),
    /// The rest was asked for.
    Resumed(Result<Source, Trouble>),
}

/// Bytes on their way.
pub struct Transfer {
    source: Option<Source>,
    span: Option<Span>,
    /// How many bytes are still to come, where that was announced.
    left: Option<u64>,
    resume: Arc<Resume>,
    /// When the last byte came.
    came: Instant,
    /// When it came, or when the server last said that it is alive.
    heard: Instant,
    alarm: Pin<Box<Sleep>>,
    work: Option<BoxFuture<'static, Work>>,
}

impl Transfer {
    /// The bytes of an answer.
    pub fn new(response: &Response<()>, source: Source, resume: Resume) -> Self {
        let announced = response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let left = if source.incoming.is_end_stream() { Some(0) } else { announced };
        let now = Instant::now();
        let mut transfer = Self {
            source: Some(source),
            span: Span::of(response.status(), response.headers()),
            left,
            resume: Arc::new(resume),
            came: now,
            heard: now,
            alarm: Box::pin(sleep(STALL)),
            work: None,
        };
        if left == Some(0) {
            transfer.finished();
        }
        transfer
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Trouble>>> {
        loop {
            if let Some(source) = &mut self.source {
                match Pin::new(&mut source.incoming).poll_frame(context) {
                    Poll::Ready(Some(Ok(frame))) => return Poll::Ready(Some(Ok(self.passed(frame)))),
                    Poll::Ready(Some(Err(error))) => {
                        let trouble = source.backend.trouble(&error);
                        self.lost(trouble);
                    }
                    Poll::Ready(None) => {
                        self.finished();
                        return Poll::Ready(None);
                    }
                    Poll::Pending => self.watch(context),
                }
            }
            let Some(work) = &mut self.work else { return Poll::Pending };
            match ready!(work.poll_unpin(context)) {
                Work::Probed(_, Ok(())) => {
                    self.work = None;
                    self.heard = Instant::now();
                    if self.came.elapsed() > self.resume.proxy.longest_stall
                        && let Some(source) = &self.source
                    {
                        let seconds = self.resume.proxy.longest_stall.as_secs();
                        let trouble = source.backend.trouble(&format!("it is alive and sent nothing for {seconds} s"));
                        self.lost(trouble);
                    }
                }
                // What came meanwhile says more than a connection that did not come: a busy server accepts late.
                Work::Probed(asked, Err(_)) if self.heard > asked => self.work = None,
                Work::Probed(_, Err(trouble)) => {
                    if let Some(source) = &self.source {
                        source.backend.leave(&trouble);
                    }
                    self.lost(trouble);
                }
                Work::Resumed(Ok(source)) => {
                    self.work = None;
                    self.source = Some(source);
                    (self.came, self.heard) = (Instant::now(), Instant::now());
                }
                Work::Resumed(Err(trouble)) => {
                    self.work = None;
                    self.resume.cut(&trouble);
                    return Poll::Ready(Some(Err(trouble)));
                }
            }
        }
    }

    /// Counts bytes that are passed on.
    fn passed(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        (self.came, self.heard) = (Instant::now(), Instant::now());
        if let Some(bytes) = frame.data_ref() {
            let length = bytes.len() as u64;
            self.resume.count(length);
            if let Some(span) = &mut self.span {
                span.next += length;
            }
            self.left = self.left.map(|left| left.saturating_sub(length));
            // Nobody asks for more once all that was announced has come.
            if self.left == Some(0) {
                self.finished();
            }
        }
        frame
    }

    /// The connection can be used again.
    fn finished(&mut self) {
        if let Some(Source { connection, backend, .. }) = self.source.take() {
            backend.keep(connection);
        }
    }

    /// Asks a server that has been silent for a while whether it is alive. The alarm is set anew when it rings, not by each byte.
    fn watch(&mut self, context: &mut Context<'_>) {
        if self.work.is_some() {
            return;
        }
        while self.alarm.poll_unpin(context).is_ready() {
            let silent = self.heard.elapsed();
            if silent < STALL {
                let rings = self.heard + STALL;
                self.alarm.as_mut().reset(rings);
                continue;
            }
            self.alarm.as_mut().reset(Instant::now() + STALL);
            if let Some(backend) = self.source.as_ref().map(|source| source.backend.clone()) {
                let asked = Instant::now();
                self.work = Some(async move { Work::Probed(asked, backend.alive(asked).await) }.boxed());
            }
            return;
        }
    }

    /// The server is lost: the rest is asked for, or the client is cut off.
    fn lost(&mut self, trouble: Trouble) {
        let from = self.source.take().map(|source| source.backend);
        let (resume, span) = (self.resume.clone(), self.span);
        self.work = Some(
            async move {
                let Some((span, from)) = span.zip(from) else { return Work::Resumed(Err(trouble)) };
                Work::Resumed(resume.rest(span, &from, trouble).await)
            }
            .boxed(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_come_is_what_the_answer_announces() {
        let headers = |pairs: &[(&'static str, &str)]| {
            pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect::<HeaderMap>()
        };
        let span = |next, end, total| Some(Span { next, end, total });
        for (status, pairs, expected) in [
            (200, &[("content-length", "10")][..], span(0, 10, 10)),
            (200, &[], None),
            (206, &[("content-range", "bytes 3-6/10"), ("content-length", "4")], span(3, 7, 10)),
            (206, &[("content-range", "bytes 6-3/10")], None),
            (206, &[("content-range", "bytes 3-10/10")], None),
            (206, &[("content-range", "bytes 3-6/*")], None),
            (206, &[("content-length", "4")], None),
            (404, &[("content-length", "4")], None),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(Span::of(status, &headers(pairs)), expected, "{status} {pairs:?}");
        }
    }
}
