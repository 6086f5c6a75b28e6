//! Bodies: answers, which are small and in memory or large and read piece by piece; and requests, which must not stall.

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, stream};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use thiserror::Error;

use crate::serve::store::{Content, StoreError};

/// The body of an answer.
pub enum Answer {
    /// Bytes in memory, or none.
    Whole(Option<Bytes>),
    /// Bytes of content that are still to be read.
    Content(Reading),
}

/// Content on its way to a client. The next piece is read when the last one has been taken.
pub struct Reading {
    content: Arc<dyn Content>,
    rest: Range<u64>,
    next: Option<BoxFuture<'static, Result<Bytes, StoreError>>>,
    /// Pieces that were given away, the latest first. The memory of one that has been sent is used for the next.
    given: VecDeque<Bytes>,
}

/// How many pieces of one answer are on their way at most while its memory is used again.
const ON_THE_WAY: usize = 2;

impl Answer {
    /// No bytes.
    #[must_use]
    pub fn empty() -> Self {
        Self::Whole(None)
    }

    /// These bytes.
    #[must_use]
    pub fn whole(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    /// These bytes of some content.
    #[must_use]
    pub fn content(content: Arc<dyn Content>, range: Range<u64>) -> Self {
        Self::Content(Reading { content, rest: range, next: None, given: VecDeque::new() })
    }
}

impl Reading {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, StoreError>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let (source, rest, given) = (&self.content, &self.rest, &mut self.given);
        let next = self.next.get_or_insert_with(|| {
            let (source, rest, buffer) = (source.clone(), rest.clone(), sent(given));
            async move { source.read(rest, buffer).await }.boxed()
        });
        let read = ready!(next.poll_unpin(context));
        self.next = None;
        if let Ok(bytes) = &read {
            self.rest.start += bytes.len() as u64;
            self.given.truncate(ON_THE_WAY - 1);
            self.given.push_front(bytes.clone());
        } else {
            self.rest.start = self.rest.end;
        }
        Poll::Ready(Some(read))
    }
}

/// The memory of a piece that nobody else holds any more, or none.
fn sent(given: &mut VecDeque<Bytes>) -> BytesMut {
    let piece = given.iter().position(Bytes::is_unique).and_then(|position| given.remove(position));
    piece.and_then(|piece| piece.try_into_mut().ok()).unwrap_or_default()
}

impl Body for Answer {
    type Data = Bytes;
    type Error = StoreError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StoreError>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Content(reading) => reading.poll_next(context).map(|read| read.map(|read| read.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Content(reading) => reading.rest.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Whole(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Self::Content(reading) => reading.rest.end - reading.rest.start,
        })
    }
}

/// Why the bytes of a request end early.
#[derive(Debug, Error)]
pub enum Broken {
    /// The connection or the encoding failed.
    #[error("{0}")]
    Connection(#[from] hyper::Error),
    /// The client sends nothing.
    #[error("nothing came for {0} seconds")]
    Idle(u64),
    /// There is more than may be.
    #[error("the body is longer than {0} bytes")]
    TooLong(usize),
}

/// The bytes of a request, piece by piece, as long as they keep coming.
pub fn pieces(body: Incoming, idle: Duration) -> impl Stream<Item = Result<Bytes, Broken>> + Send {
    stream::unfold(Some(body), move |body| async move {
        let mut body = body?;
        loop {
            return match tokio::time::timeout(idle, body.frame()).await {
                Err(_) => Some((Err(Broken::Idle(idle.as_secs())), None)),
                Ok(None) => None,
                Ok(Some(Err(error))) => Some((Err(Broken::Connection(error)), None)),
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) => Some((Ok(bytes), Some(body))),
                    // Trailers mean nothing here.
                    Err(_) => continue,
                },
            };
        }
    })
}
