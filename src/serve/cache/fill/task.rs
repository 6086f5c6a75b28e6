//! The task of one fill, which alone moves its stage. It receives while it writes and hashes what came before. However it ends,
//! also by a panic or with its runtime, nobody is left waiting.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::figures::Taker;
use super::keep::Partial;
use super::stage::{Fill, Grown, Reason, Rest, Stage, wrong_digest};
use super::supply::Supply;
use super::{Fills, Sources};
use crate::oci::Hasher;
use crate::serve::store::StoreError;
use crate::serve::upstream::Failure;

/// A fill under way.
pub struct Task {
    fills: Arc<Fills>,
    fill: Arc<Fill>,
    /// What has begun to arrive goes to who began the fill, where nothing is kept of it.
    passed_on: Option<oneshot::Sender<Supply>>,
    ended: bool,
}

/// What was received and not written yet.
#[derive(Default)]
struct Gathered {
    parts: Vec<Bytes>,
    length: usize,
    /// Whether anything more is to come, and why not.
    ended: Option<Result<(), Failure>>,
}

impl Gathered {
    fn take(&mut self, next: Result<Option<Bytes>, Failure>) {
        match next {
            Ok(Some(bytes)) => {
                self.length += bytes.len();
                self.parts.push(bytes);
            }
            Ok(None) => self.ended = Some(Ok(())),
            Err(failure) => self.ended = Some(Err(failure)),
        }
    }

    fn wants(&self, most: usize) -> bool {
        self.ended.is_none() && self.length < most
    }
}

impl Task {
    pub fn new(fills: Arc<Fills>, fill: Arc<Fill>, passed_on: oneshot::Sender<Supply>) -> Self {
        Self { fills, fill, passed_on: Some(passed_on), ended: false }
    }

    /// Brings the blob.
    pub async fn run(mut self, sources: Sources) {
        let brought = self.bring(sources).await;
        self.ended = true;
        self.fills.end(&self.fill, brought.err());
    }

    async fn bring(&mut self, sources: Sources) -> Result<(), Reason> {
        let (fills, fill) = (self.fills.clone(), self.fill.clone());
        // Another fill may have ended since the store was looked at. A store that cannot tell will say more when it is written to.
        if fills.keep.has(fill.digest()).await.unwrap_or(false) {
            return Err(Reason::Kept);
        }
        let place = timeout(fills.bounds.patience, fill.host.places.clone().acquire_owned()).await;
        let _place = place.ok().and_then(Result::ok).ok_or(Reason::Busy)?;
        fill.host.begun.add(1);
        let supply = Supply::open(sources(), 0, None, fill.host.clone()).await;
        let supply = supply.and_then(|supply| supply.for_digest(fill.digest())).map_err(Reason::NotOpened)?;
        let begun = fills.keep.begin(fill.digest(), supply.length().unwrap_or_default()).await;
        let Some(mut partial) = begun.unwrap_or_else(|error| self.not_kept(&error)) else {
            // Whoever waited for it may have left.
            self.passed_on.take().and_then(|waiting| waiting.send(supply).ok());
            return Err(Reason::NoRoom);
        };
        let grown = Grown { file: partial.file(), there: 0, length: supply.length() };
        fill.stage.send_replace(Stage::Growing(grown.clone()));
        let growing = Growing { task: self, supply, grown, taker: fills.filling.taker() };
        let (grown, hasher) = growing.grow(&mut *partial).await?;
        let found = hasher.finish();
        if found != *fill.digest() {
            return Err(Reason::Broken(wrong_digest(fill.digest(), &fill.host, &found)));
        }
        fill.stage.send_replace(Stage::Proven(Grown { length: Some(grown.there), ..grown }));
        self.commit(partial).await;
        Ok(())
    }

    /// Hands the blob over to the store, for all who may have it by the time that is done.
    async fn commit(&self, partial: Box<dyn Partial>) {
        let mut scopes = self.fill.allowed_since(0);
        let mut known = scopes.len();
        if let Err(error) = partial.commit(scopes).await {
            self.fill.host.failed(super::FailedBy::Store);
            self.not_kept::<()>(&error);
            return;
        }
        while !self.fills.close(&self.fill, known) {
            scopes = self.fill.allowed_since(known);
            known += scopes.len();
            for scope in scopes {
                if let Err(error) = self.fills.keep.link(&scope, self.fill.digest()).await {
                    self.not_kept::<()>(&error);
                }
            }
        }
    }

    fn not_kept<T>(&self, error: &StoreError) -> Option<T> {
        tracing::warn!(digest = %self.fill.digest(), upstream = %self.fill.host.name, %error, "a blob is not kept");
        None
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if !self.ended {
            self.fills.end(&self.fill, Some(Reason::Lost));
        }
    }
}

/// A fill whose bytes arrive.
struct Growing<'a> {
    task: &'a Task,
    supply: Supply,
    grown: Grown,
    taker: Taker,
}

impl Growing<'_> {
    /// Takes what comes to its end; returns what is there then, and the hash of it.
    async fn grow(mut self, partial: &mut dyn Partial) -> Result<(Grown, Hasher), Reason> {
        let mut hasher = Hasher::new(self.task.fill.digest().algorithm());
        let mut gathered = Gathered::default();
        loop {
            self.gather(&mut gathered).await?;
            if gathered.parts.is_empty() {
                gathered.ended.unwrap_or(Ok(())).map_err(Reason::Broken)?;
                drop(self.taker);
                return Ok((self.grown, hasher));
            }
            let (parts, length) = (std::mem::take(&mut gathered.parts), std::mem::take(&mut gathered.length) as u64);
            if self.grown.there + length > self.grown.length.unwrap_or(self.task.fills.bounds.unannounced) {
                return Err(refused(&self.grown, hasher));
            }
            let written = self.write(partial, parts, hasher.clone(), &mut gathered).await;
            hasher = written.map_err(|error| {
                self.task.not_kept::<()>(&error);
                refused(&self.grown, hasher)
            })?;
            self.grown.there += length;
            self.task.fill.stage.send_replace(Stage::Growing(self.grown.clone()));
        }
    }

    /// Waits until something has come, and takes what else is there already.
    async fn gather(&mut self, gathered: &mut Gathered) -> Result<(), Reason> {
        while gathered.parts.is_empty() && gathered.ended.is_none() {
            tokio::select! {
                biased;
                // Looked at first, or an upstream that always has more would never be left.
                () = unwanted(self.task, &self.grown) => {
                    if self.task.fills.abandon(&self.task.fill, &self.grown) {
                        return Err(Reason::Unwanted);
                    }
                }
                next = self.supply.next() => gathered.take(next),
            }
        }
        while gathered.wants(self.task.fills.filling.each()) {
            let Some(next) = self.supply.next().now_or_never() else { break };
            gathered.take(next);
        }
        Ok(())
    }

    /// Writes and hashes while the next bytes come.
    async fn write(
        &mut self,
        partial: &mut dyn Partial,
        parts: Vec<Bytes>,
        hasher: Hasher,
        gathered: &mut Gathered,
    ) -> Result<Hasher, StoreError> {
        let mut writing = partial.append(parts, hasher);
        loop {
            let wants = gathered.wants(self.task.fills.filling.each());
            tokio::select! {
                biased;
                written = &mut writing => return written,
                next = self.supply.next(), if wants => gathered.take(next),
            }
        }
    }
}

fn refused(grown: &Grown, hasher: Hasher) -> Reason {
    Reason::Refused(Arc::new(Rest { grown: grown.clone(), hasher }))
}

/// Waits until nobody wants a fill any more that is not worth finishing for later.
async fn unwanted(task: &Task, grown: &Grown) {
    if task.fills.is_worth_finishing(grown) {
        std::future::pending::<()>().await;
    } else {
        task.fill.stage.closed().await;
    }
}
