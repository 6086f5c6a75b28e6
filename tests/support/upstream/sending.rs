//! Bodies as the scripted upstream sends them: whole, slowly, by half, or for ever.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::Frame;
use tokio_util::sync::CancellationToken;

pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// What is given to a connection at once.
const PIECE: usize = 16 * 1024;

/// What comes where the body stops.
pub enum End {
    Whole,
    /// The connection ends.
    Cut,
    Hang,
    /// A byte a second, until it is open.
    Gate(CancellationToken),
    /// Other bytes.
    Endless,
}

/// The way out, which all bodies share.
#[derive(Default)]
pub struct Line {
    bytes_a_second: AtomicU64,
    /// When the next byte may go.
    free: Mutex<Option<Instant>>,
}

impl Line {
    pub fn limit(&self, bytes_a_second: u64) {
        self.bytes_a_second.store(bytes_a_second, Ordering::SeqCst);
    }

    /// Waits until so many bytes have gone.
    async fn carry(&self, count: usize) {
        let rate = self.bytes_a_second.load(Ordering::SeqCst);
        if rate == 0 {
            return;
        }
        let until = {
            let mut free = self.free.lock().unwrap();
            let now = Instant::now();
            let until =
                free.map_or(now, |free| free.max(now)) + Duration::from_nanos(count as u64 * 1_000_000_000 / rate);
            *free = Some(until);
            until
        };
        tokio::time::sleep_until(until.into()).await;
    }
}

pub struct Sending {
    pub line: Arc<Line>,
    pub rest: Bytes,
    /// So many go before the end comes.
    pub before: usize,
    pub end: End,
    /// At most so many bytes at once, and the time between.
    pub pace: (usize, Duration),
    pub sent: Arc<AtomicU64>,
}

pub fn nothing() -> Body {
    Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync()
}

impl Sending {
    pub fn whole(bytes: Bytes, sent: Arc<AtomicU64>, line: &Arc<Line>) -> Self {
        Self {
            line: line.clone(),
            before: bytes.len(),
            rest: bytes,
            end: End::Whole,
            pace: (PIECE, Duration::ZERO),
            sent,
        }
    }

    pub fn body(self) -> Body {
        let pieces = stream::unfold(self, |mut sending| async move {
            let next = sending.next().await?;
            Some((next.map(Frame::data), sending))
        });
        BodyExt::boxed_unsync(StreamBody::new(pieces))
    }

    fn take(&mut self, count: usize) -> Bytes {
        let count = count.min(self.rest.len());
        self.sent.fetch_add(count as u64, Ordering::SeqCst);
        self.before = self.before.saturating_sub(count);
        self.rest.split_to(count)
    }

    async fn next(&mut self) -> Option<Result<Bytes, std::io::Error>> {
        if self.before > 0 && !self.rest.is_empty() {
            if !self.pace.1.is_zero() {
                tokio::time::sleep(self.pace.1).await;
            }
            let piece = self.take(self.pace.0.min(self.before));
            self.line.carry(piece.len()).await;
            return Some(Ok(piece));
        }
        match &self.end {
            End::Whole => None,
            End::Cut => {
                // What was given before has to be sent before.
                tokio::time::sleep(Duration::from_millis(30)).await;
                Some(Err(std::io::ErrorKind::ConnectionReset.into()))
            }
            End::Hang => std::future::pending().await,
            End::Gate(gate) => {
                tokio::select! {
                    () = gate.cancelled() => {
                        (self.before, self.end) = (self.rest.len(), End::Whole);
                        if self.rest.is_empty() { None } else { Some(Ok(self.take(PIECE))) }
                    }
                    () = tokio::time::sleep(Duration::from_secs(1)) => {
                        let count = usize::from(self.rest.len() > 1);
                        Some(Ok(self.take(count)))
                    }
                }
            }
            End::Endless => {
                self.sent.fetch_add(PIECE as u64, Ordering::SeqCst);
                Some(Ok(Bytes::from_static(&[b'x'; PIECE])))
            }
        }
    }
}
