//! Bodies: answers, which are small and in memory or large and read piece by piece; and requests, which must not stall.

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt, stream};
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
    /// Bytes of which nobody knows yet how many there will be. Only a stream that ends without an error is complete.
    Streamed(BoxStream<'static, Result<Bytes, StoreError>>),
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

    /// These bytes, however many there will be. An error cuts the connection, so that nobody takes them for all.
    #[must_use]
    pub fn streamed(bytes: BoxStream<'static, Result<Bytes, StoreError>>) -> Self {
        Self::Streamed(bytes)
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
            Self::Streamed(bytes) => bytes.poll_next_unpin(context).map(|read| read.map(|read| read.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Content(reading) => reading.rest.is_empty(),
            Self::Streamed(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Content(reading) => SizeHint::with_exact(reading.rest.end - reading.rest.start),
            Self::Streamed(_) => SizeHint::default(),
        }
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io;
    use std::ops::Range;
    use std::sync::Arc;

    use bytes::{Bytes, BytesMut};
    use futures::{FutureExt, StreamExt, stream};
    use http_body_util::{BodyExt, Empty};
    use hyper::client::conn::{http1, http2};
    use hyper::header::CONTENT_LENGTH;
    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use hyper_util::server::conn::auto::Builder;

    use super::Answer;
    use crate::serve::store::{self, Content, StoreError};

    fn cut() -> StoreError {
        StoreError { doing: "bring the rest of", what: "a blob".to_owned(), source: io::ErrorKind::BrokenPipe.into() }
    }

    /// Content that cannot be read behind its first half.
    struct Half;

    impl Content for Half {
        fn length(&self) -> u64 {
            8
        }

        fn read(&self, range: Range<u64>, _: BytesMut) -> store::Answer<'_, Bytes> {
            let read = if range.start < 4 { Ok(Bytes::from_static(b"half")) } else { Err(cut()) };
            std::future::ready(read).boxed()
        }
    }

    /// What a client receives: the bytes, if it takes them for complete, and the length that it was told.
    async fn received(answer: impl Fn() -> Answer + Send + 'static, newer: bool) -> (Option<Bytes>, Option<u64>) {
        let (server, client) = tokio::io::duplex(4096);
        let service = service_fn(move |_| std::future::ready(Ok::<_, Infallible>(Response::new(answer()))));
        let serving = async move {
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(server), service).await;
        };
        tokio::spawn(serving);
        let request = Request::get("http://a/").body(Empty::<Bytes>::new()).unwrap();
        let sent = if newer {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(client)).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await
        } else {
            let (mut sender, connection) = http1::handshake(TokioIo::new(client)).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await
        };
        // The error may come before the head is sent.
        let Ok(response) = sent else { return (None, None) };
        let length = response.headers().get(CONTENT_LENGTH).map(|value| value.to_str().unwrap().parse().unwrap());
        (response.into_body().collect().await.ok().map(http_body_util::Collected::to_bytes), length)
    }

    #[tokio::test]
    async fn an_answer_that_breaks_is_never_complete_to_its_client() {
        for newer in [false, true] {
            let pieces = || [Ok(Bytes::from_static(b"some ")), Ok(Bytes::from_static(b"bytes"))];
            let whole = move || Answer::streamed(stream::iter(pieces()).boxed());
            assert_eq!(received(whole, newer).await, (Some("some bytes".into()), None));
            let broken = move || Answer::streamed(stream::iter(pieces().into_iter().chain([Err(cut())])).boxed());
            assert_eq!(received(broken, newer).await.0, None);
            assert_eq!(received(|| Answer::content(Arc::new(Half), 0..8), newer).await.0, None);
            assert_eq!(received(|| Answer::content(Arc::new(Half), 0..4), newer).await, (Some("half".into()), Some(4)));
        }
    }
}
