//! Pass-through: bytes of a blob from its upstream to one client, kept nowhere. It must never hold more than the last bytes
//! that wait for the proof and one piece, and is never faster than its client.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use tokio::sync::Mutex;

use super::reader::Blob;
use super::stage::{Rest, wrong_digest};
use super::supply::Supply;
use crate::oci::Hasher;
use crate::serve::store::{Answer, Content, StoreError};
use crate::serve::upstream::Failure;

/// Bytes on their way to one client.
pub struct Passing {
    blob: Arc<Blob>,
    supply: Supply,
    /// Of all bytes before those that are still to come; None where it began in the middle, so that nothing can be proven.
    hasher: Option<Hasher>,
    held: VecDeque<Bytes>,
    held_length: u64,
    /// Where the first byte that is held belongs.
    offset: u64,
    over: bool,
}

impl Passing {
    /// Goes on with what arrives from an offset on. Only from the beginning on can it be proven.
    pub fn new(blob: Arc<Blob>, supply: Supply, offset: u64) -> Self {
        let hasher = (offset == 0).then(|| Hasher::new(blob.digest.algorithm()));
        Self { blob, supply, hasher, held: VecDeque::new(), held_length: 0, offset, over: false }
    }

    /// Asks for the bytes from an offset on.
    async fn begin(blob: Arc<Blob>, offset: u64, length: Option<u64>) -> Result<Self, StoreError> {
        let opened = Supply::open((blob.sources)(), offset, length, blob.host.clone()).await;
        let supply = opened.map_err(|failure| blob.cut_off(&failure))?;
        Ok(Self::new(blob, supply, offset))
    }

    /// Goes on for a reader who wants a range, where the store refused more than what has grown.
    pub async fn behind(blob: Arc<Blob>, rest: &Rest, range: &Range<u64>) -> Result<Self, StoreError> {
        let grown = &rest.grown;
        if grown.length.is_some_and(|length| range.end < length) {
            return Self::begin(blob, range.start, grown.length).await;
        }
        // What is there was hashed: the rest, hashed too, proves the whole.
        let mut passing = Self::begin(blob, grown.there, grown.length).await?;
        passing.hasher = Some(rest.hasher.clone());
        passing.offset = range.start.min(grown.there);
        while passing.offset + passing.held_length < grown.there {
            let missing = passing.offset + passing.held_length..grown.there;
            let bytes = grown.file.read(missing, BytesMut::new()).await?;
            if bytes.is_empty() {
                return Err(passing.blob.cut_off("what is there of it cannot be read"));
            }
            passing.hold(bytes);
        }
        Ok(passing)
    }

    /// Some bytes of a range, which begins where the last bytes ended or later; none behind the blob's end.
    async fn read(&mut self, range: &Range<u64>) -> Result<Bytes, StoreError> {
        loop {
            self.skip(range.start);
            let length = self.supply.length();
            let unproven = self.hasher.is_some() && !self.over && length.is_none_or(|length| range.end >= length);
            let kept = if unproven { self.blob.fills.bounds.held_back } else { 0 };
            let free = self.held_length.saturating_sub(kept).min(range.end - range.start);
            if let Some(bytes) = self.give(free) {
                return Ok(bytes);
            }
            if self.over {
                return Ok(Bytes::new());
            }
            match self.supply.next().await {
                Ok(Some(bytes)) => {
                    // The piece is small, and its client waits for it: another thread would cost more.
                    self.hasher.iter_mut().for_each(|hasher| hasher.update(&bytes));
                    self.hold(bytes);
                }
                Ok(None) => self.prove()?,
                Err(failure) => return Err(self.fail(&failure)),
            }
        }
    }

    fn prove(&mut self) -> Result<(), StoreError> {
        let found = self.hasher.clone().map(Hasher::finish);
        if let Some(found) = found.filter(|found| *found != self.blob.digest) {
            return Err(self.fail(&wrong_digest(&self.blob.digest, &self.blob.host, &found)));
        }
        self.over = true;
        Ok(())
    }

    fn fail(&self, failure: &Failure) -> StoreError {
        if matches!(failure, Failure::Wrong { .. }) {
            self.blob.fills.note_wrong(&self.blob.digest);
        }
        self.blob.cut_off(failure)
    }

    fn hold(&mut self, bytes: Bytes) {
        self.held_length += bytes.len() as u64;
        self.held.push_back(bytes);
    }

    /// Forgets what is before an offset.
    fn skip(&mut self, offset: u64) {
        while self.offset < offset {
            if self.give(offset - self.offset).is_none() {
                return;
            }
        }
    }

    /// Takes away at most so many of the bytes that are held.
    fn give(&mut self, most: u64) -> Option<Bytes> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let first = self.held.front_mut().filter(|_| most > 0)?;
        let bytes = first.split_to(first.len().min(most));
        if first.is_empty() {
            self.held.pop_front();
        }
        self.held_length -= bytes.len() as u64;
        self.offset += bytes.len() as u64;
        Some(bytes)
    }

    /// Whether a range can go on with this.
    fn stands_at(&self, offset: u64) -> bool {
        self.offset == offset
    }
}

/// A blob that is passed through to one client.
pub struct PassThrough {
    blob: Arc<Blob>,
    length: Option<u64>,
    passing: Mutex<Passing>,
}

impl PassThrough {
    /// With what begins to arrive.
    pub fn new(blob: Arc<Blob>, supply: Supply) -> Self {
        let length = supply.length();
        let passing = Mutex::new(Passing::new(blob.clone(), supply, 0));
        Self { blob, length, passing }
    }
}

impl Content for PassThrough {
    fn length(&self) -> u64 {
        self.length.unwrap_or(u64::MAX)
    }

    fn read(&self, range: Range<u64>, _: BytesMut) -> Answer<'_, Bytes> {
        async move {
            let mut passing = self.passing.lock().await;
            if !passing.stands_at(range.start) {
                *passing = Passing::begin(self.blob.clone(), range.start, self.length).await?;
            }
            passing.read(&range).await
        }
        .boxed()
    }
}

/// The pass-through of a reader whose fill could not be stored.
#[derive(Default)]
pub struct Alone(Mutex<Option<Passing>>);

impl Alone {
    /// Some bytes of a range behind what has grown.
    pub async fn read(&self, blob: &Arc<Blob>, rest: &Rest, range: &Range<u64>) -> Result<Bytes, StoreError> {
        let mut alone = self.0.lock().await;
        let passing = match alone.take().filter(|passing| passing.stands_at(range.start)) {
            Some(passing) => passing,
            None => {
                blob.host.passed_through.add(1);
                Passing::behind(blob.clone(), rest, range).await?
            }
        };
        alone.insert(passing).read(range).await
    }
}
