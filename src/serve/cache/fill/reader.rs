//! Readers of a blob that grows: each at its own pace, from the file. None of them ever keeps the fill or another waiting.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use tokio::sync::watch;

use super::figures::{Host, Taker};
use super::passing::Alone;
use super::stage::{Fill, Sight, Stage, cut_off};
use super::{Fills, Sources};
use crate::oci::Digest;
use crate::serve::store::{Answer, Content, StoreError};

/// A blob that a client wants, and how it is brought for this client alone.
pub struct Blob {
    pub fills: Arc<Fills>,
    pub digest: Digest,
    pub host: Arc<Host>,
    pub sources: Sources,
}

impl Blob {
    pub fn cut_off(&self, problem: &(impl ToString + ?Sized)) -> StoreError {
        cut_off(&self.digest, &self.host, problem)
    }
}

/// One who reads a blob that grows. As long as there is one, the fill is wanted.
pub struct Reader {
    blob: Arc<Blob>,
    fill: Arc<Fill>,
    stage: watch::Receiver<Stage>,
    length: Option<u64>,
    alone: Alone,
    _taker: Taker,
}

impl Reader {
    pub fn new(blob: Arc<Blob>, fill: Arc<Fill>, stage: watch::Receiver<Stage>, length: Option<u64>) -> Self {
        let taker = blob.fills.reading.taker();
        Self { blob, fill, stage, length, alone: Alone::default(), _taker: taker }
    }

    async fn sight(&self, range: &Range<u64>) -> Sight {
        let (mut stage, mut sight) = (self.stage.clone(), None);
        let held_back = self.blob.fills.bounds.held_back;
        let seen = stage.wait_for(|stage| {
            sight = self.fill.sight(stage, range, held_back);
            sight.is_some()
        });
        // The fill, which holds the other end, is held here.
        let _ = seen.await;
        sight.unwrap_or_else(|| Sight::Nothing(self.blob.cut_off("nobody brings it any more")))
    }

    async fn read_some(&self, range: Range<u64>, buffer: BytesMut) -> Result<Bytes, StoreError> {
        match self.sight(&range).await {
            Sight::Bytes(file, seen) => {
                let most = self.blob.fills.reading.each();
                let end = seen.end.min(seen.start.saturating_add(most as u64));
                // What a reader took while there were fewer is given back.
                let buffer = if buffer.capacity() > most { BytesMut::new() } else { buffer };
                let bytes = file.read(seen.start..end, buffer).await?;
                if bytes.is_empty() { Err(self.blob.cut_off("its file is shorter than it was")) } else { Ok(bytes) }
            }
            Sight::End => Ok(Bytes::new()),
            Sight::Alone(rest) => self.alone.read(&self.blob, &rest, &range).await,
            Sight::Nothing(error) => Err(error),
        }
    }
}

impl Content for Reader {
    fn length(&self) -> u64 {
        self.length.unwrap_or(u64::MAX)
    }

    fn read(&self, range: Range<u64>, buffer: BytesMut) -> Answer<'_, Bytes> {
        async move { if range.is_empty() { Ok(Bytes::new()) } else { self.read_some(range, buffer).await } }.boxed()
    }
}

/// All bytes of content whose length nobody knows: it ends where nothing more can be read.
pub fn to_its_end(content: Arc<dyn Content>) -> BoxStream<'static, Result<Bytes, StoreError>> {
    stream::unfold(Some((content, 0)), |rest| async move {
        let (content, offset) = rest?;
        match content.read(offset..u64::MAX, BytesMut::new()).await {
            Ok(bytes) if bytes.is_empty() => None,
            Ok(bytes) => {
                let next = offset + bytes.len() as u64;
                Some((Ok(bytes), Some((content, next))))
            }
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}
