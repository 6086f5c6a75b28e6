//! Bytes of one blob from its upstream, in order: behind a cut they are asked for where it was, a few times, with growing
//! pauses. It must never give more or fewer bytes than were announced and call that the end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep_until};

use super::figures::Host;
use crate::oci::Digest;
use crate::serve::upstream::{Arriving, Failure, Source};

/// How often in a row a cut is met with another request.
pub const RESUMES: u32 = 5;
/// The pause before the first of them; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause that an upstream may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The row ends when so many bytes have come in between: an upstream that is cut after each one never gets done.
const PROGRESS: u64 = 64 * 1024;
/// Where no length was announced, more than this is no blob: there would be no end to it.
const LONGEST_UNANNOUNCED: u64 = 64 * 1024 * 1024 * 1024;

type Opening = BoxFuture<'static, (Box<dyn Source>, Result<Arriving, Failure>)>;
type Pieces = BoxStream<'static, Result<Bytes, Failure>>;

enum State {
    Arriving(Box<dyn Source>, Pieces),
    Pausing(Box<dyn Source>, Instant),
    Opening(Opening),
    Ended,
    Failed(Failure),
}

/// What comes from an upstream.
pub struct Supply {
    host: Arc<Host>,
    state: State,
    length: Option<u64>,
    offset: u64,
    cuts: u32,
    /// Where the next byte was when cuts were last counted from none.
    counted_from: u64,
}

impl Supply {
    /// Asks for the bytes from an offset on, of a blob whose length may be known.
    pub async fn open(
        mut source: Box<dyn Source>,
        offset: u64,
        known: Option<u64>,
        host: Arc<Host>,
    ) -> Result<Self, Failure> {
        let Arriving { length, bytes } = source.open(offset).await?;
        let state = State::Arriving(source, bytes);
        let supply = Self { host, state, length: length.or(known), offset, cuts: 0, counted_from: offset };
        match supply.length {
            Some(length) if known.is_some_and(|known| known != length) || length < offset => {
                Err(supply.wrong(format!("it has {length} bytes now")))
            }
            _ => Ok(supply),
        }
    }

    /// The same, if it can be a blob with this digest. An answer without bytes is complete with its headers: there is no end of it
    /// that could wait for the digest.
    pub fn for_digest(self, digest: &Digest) -> Result<Self, Failure> {
        if self.length == Some(0) && *digest != Digest::of(digest.algorithm(), b"") {
            return Err(self.wrong(format!("{digest} is said to have no bytes")));
        }
        Ok(self)
    }

    /// How long the whole blob is, if that was announced.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// The next bytes; None behind the last. Nothing is lost when this is dropped before it is done.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let next = self.advance().await;
        if let Err(failure) = &next {
            self.state = State::Failed(failure.clone());
        }
        next
    }

    async fn advance(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            match &mut self.state {
                State::Arriving(_, pieces) => match pieces.next().await {
                    Some(Ok(bytes)) if bytes.is_empty() => {}
                    Some(Ok(bytes)) => return self.take(bytes).map(Some),
                    Some(Err(failure)) => self.pause(failure)?,
                    None => {
                        self.state = State::Ended;
                        return self.end();
                    }
                },
                State::Pausing(_, until) => {
                    sleep_until(*until).await;
                    if let Some(source) = self.source() {
                        self.state = State::Opening(opening(source, self.offset));
                    }
                }
                State::Opening(opening) => {
                    let (source, opened) = opening.await;
                    self.state = State::Arriving(source, futures::stream::empty().boxed());
                    match opened {
                        Ok(arriving) => self.resume(arriving)?,
                        Err(failure) => self.pause(failure)?,
                    }
                }
                State::Ended => return Ok(None),
                State::Failed(failure) => return Err(failure.clone()),
            }
        }
    }

    fn source(&mut self) -> Option<Box<dyn Source>> {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Arriving(source, _) | State::Pausing(source, _) => Some(source),
            _ => None,
        }
    }

    /// Whether that is to be tried again, and when.
    fn pause(&mut self, failure: Failure) -> Result<(), Failure> {
        if self.offset - self.counted_from >= PROGRESS {
            self.cuts = 0;
        }
        let Failure::Away { retry_after, .. } = &failure else { return Err(failure) };
        let Some(source) = self.source().filter(|_| self.cuts < RESUMES) else { return Err(failure) };
        let wanted = retry_after.unwrap_or_default().min(LONGEST_PAUSE);
        let pause = (FIRST_PAUSE * 2_u32.pow(self.cuts)).max(wanted);
        self.cuts += 1;
        self.counted_from = self.offset;
        tracing::debug!(upstream = %self.host.name, offset = self.offset, %failure, ?pause, "a blob is cut off");
        self.state = State::Pausing(source, Instant::now() + pause);
        Ok(())
    }

    fn resume(&mut self, arriving: Arriving) -> Result<(), Failure> {
        if arriving.length.is_some() && self.length.is_some() && arriving.length != self.length {
            return Err(self.wrong("it has another length behind a cut".to_owned()));
        }
        self.host.resumed.add(1);
        if let Some(source) = self.source() {
            self.state = State::Arriving(source, arriving.bytes);
        }
        Ok(())
    }

    fn take(&mut self, bytes: Bytes) -> Result<Bytes, Failure> {
        let count = bytes.len() as u64;
        self.host.upstream_bytes.add(count);
        self.offset = self.offset.saturating_add(count);
        let longest = self.length.unwrap_or(LONGEST_UNANNOUNCED);
        if self.offset <= longest { Ok(bytes) } else { Err(self.wrong(format!("more than {longest} bytes came"))) }
    }

    fn end(&self) -> Result<Option<Bytes>, Failure> {
        match self.length {
            Some(length) if length != self.offset => {
                Err(self.wrong(format!("it ended after {} of {length} bytes", self.offset)))
            }
            _ => Ok(None),
        }
    }

    fn wrong(&self, problem: String) -> Failure {
        Failure::Wrong { host: self.host.name.clone(), problem }
    }
}

fn opening(mut source: Box<dyn Source>, offset: u64) -> Opening {
    async move {
        let opened = source.open(offset).await;
        (source, opened)
    }
    .boxed()
}
