//! Blobs on their way from an upstream: fetched once, given to all who ask while they grow, and handed over to the store when
//! they are proven to be right. It must never let a client take a blob for complete whose digest is not.
//!
//! There is at most one fill of a digest; a task of its own moves it, whatever its clients do. [`Fills`] forgets it in the same
//! step as it ends, so that the next request begins anew. Nothing of it survives a restart: the store removes partial files.
//!
//! | Stage | Who moves it on | What readers see |
//! |---|---|---|
//! | `Opening` | the upstream's headers: `Growing`; its refusal, no place, no room, a blob that is here: `Failed` | nothing; those of its scope wait |
//! | `Growing` | all bytes, and their digest: `Proven`; a wrong digest or length, too many cuts, a refusal of the store, nobody left: `Failed` | what is there, but for the last bytes of the blob |
//! | `Proven` | nobody: the fill is forgotten when the store has committed it, or refused to | everything, from the file that they have open |
//! | `Failed` | nobody | the end of their connection; after a refusal of the store, what is there and then the upstream's bytes, each for itself |
//!
//! Where there is no room a blob is passed through to the client that asked, and fetched again for the next.

mod figures;
mod keep;
mod passing;
mod reader;
mod stage;
mod supply;
mod task;
#[cfg(test)]
mod tests;
mod wrong;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use thiserror::Error;
use tokio::sync::{oneshot, watch};

use self::figures::{Host, Share};
use self::passing::PassThrough;
use self::reader::{Blob, Reader, to_its_end};
use self::stage::{Grown, Reason, Stage};
use self::supply::Supply;
use self::task::Task;
use self::wrong::Wrong;
use super::store::Scope;
use crate::oci::{Digest, RegistryHost};
use crate::serve::store::{Content, StoreError};
use crate::serve::upstream::{Failure, Source};

pub use figures::{FailedBy, Figures};
pub use keep::{Keep, Partial, PartialFile};
pub use stage::Fill;

/// How often a request that waited for the fill of others in vain looks for the next.
const ROUNDS: usize = 8;

/// Makes a source of the blob for one caller, as often as one is needed.
pub type Sources = Arc<dyn Fn() -> Box<dyn Source> + Send + Sync>;

/// What fills are bound by.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How many there may be from one upstream.
    pub at_once: usize,
    /// How long one waits for its place.
    pub patience: Duration,
    /// Up to this length a blob is worth finishing when its clients have left; a longer one, when half of it is there.
    pub worth_finishing: u64,
    /// How many bytes at a blob's end wait until its digest is proven.
    pub held_back: u64,
    /// How much is kept of a blob whose length is not announced: there might be no end to it.
    pub unannounced: u64,
    /// How much memory all fills take for what they receive and write, and again all readers for what they send.
    pub memory: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        const MEBIBYTE: u64 = 1024 * 1024;
        Self {
            at_once: 64,
            patience: Duration::from_secs(5),
            worth_finishing: 1024 * MEBIBYTE,
            held_back: 64 * 1024,
            unannounced: 1024 * MEBIBYTE,
            memory: 16 * 1024 * 1024,
        }
    }
}

/// Why a blob cannot be given.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FillError {
    /// The upstream does not give it, or not to its end.
    #[error(transparent)]
    Upstream(#[from] Failure),
    /// It is on its way for a scope that this one has nothing to do with. Its upstream is to be asked whether this scope has it,
    /// and if so [`Fill::allow`] is to be told.
    #[error("it is on its way for another repository")]
    OfAnotherScope,
    /// It is in the store by now, in this scope or in another one.
    #[error("it is here by now")]
    Kept,
    /// Too much is on its way from the upstream.
    #[error("too many blobs are on their way from {0}")]
    Busy(RegistryHost),
    /// The fill came to no end of its own.
    #[error("the task that brought it from {0} has ended")]
    Lost(RegistryHost),
}

/// A blob's bytes, as far as they are known of.
pub enum Body {
    /// Of known length: any range can be read.
    Measured(Arc<dyn Content>),
    /// All of them, however many there will be.
    Unmeasured(BoxStream<'static, Result<Bytes, StoreError>>),
}

/// A blob that can be given out.
pub struct Given {
    /// How long it is, if that was announced.
    pub length: Option<u64>,
    /// Which fill it comes from; none where it is passed through.
    pub fill: Option<String>,
    /// Whether the fill was begun by another request.
    pub joined: bool,
    /// Its bytes.
    pub body: Body,
}

impl Given {
    fn new(length: Option<u64>, fill: Option<String>, joined: bool, content: Arc<dyn Content>) -> Self {
        let body = if length.is_some() { Body::Measured(content) } else { Body::Unmeasured(to_its_end(content)) };
        Self { length, fill, joined, body }
    }
}

/// A fill under way, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Underway {
    /// Which blob.
    pub digest: Digest,
    /// From where.
    pub upstream: RegistryHost,
    /// How many bytes are there.
    pub there: u64,
    /// How many there will be, if that was announced.
    pub length: Option<u64>,
}

type Spawn = Box<dyn Fn(BoxFuture<'static, ()>) + Send + Sync>;

/// All blobs on their way.
pub struct Fills {
    keep: Arc<dyn Keep>,
    bounds: Bounds,
    running: Mutex<HashMap<Digest, Arc<Fill>>>,
    hosts: Mutex<BTreeMap<RegistryHost, Arc<Host>>>,
    wrong: Mutex<Wrong>,
    filling: Share,
    reading: Share,
    spawn: Spawn,
}

/// A request's part in a fill.
struct Part {
    fill: Arc<Fill>,
    stage: watch::Receiver<Stage>,
    /// What begins to arrive where it is not kept; only for the request that began the fill.
    passed_on: Option<oneshot::Receiver<Supply>>,
}

impl Fills {
    /// None yet.
    pub fn new(keep: Arc<dyn Keep>, bounds: Bounds) -> Arc<Self> {
        Self::spawning(keep, bounds, Box::new(|task| drop(tokio::spawn(task))))
    }

    fn spawning(keep: Arc<dyn Keep>, bounds: Bounds, spawn: Spawn) -> Arc<Self> {
        Arc::new(Self {
            keep,
            bounds,
            running: Mutex::default(),
            hosts: Mutex::default(),
            wrong: Mutex::default(),
            filling: Share::new(bounds.memory / 2),
            reading: Share::new(bounds.memory / 2),
            spawn,
        })
    }

    /// Joins the fill of a blob, or begins one with random bits for its name; returns when the upstream's headers are there. The
    /// store must have been asked for it before.
    ///
    /// # Errors
    /// When the upstream does not give it, or the fill is for another scope alone, or it cannot be begun.
    pub async fn get(
        self: &Arc<Self>,
        scope: &Scope,
        digest: &Digest,
        id: u128,
        sources: Sources,
    ) -> Result<Given, FillError> {
        let host = self.host(&scope.upstream);
        let blob = Arc::new(Blob { fills: self.clone(), digest: digest.clone(), host, sources });
        for _ in 0..ROUNDS {
            let Part { fill, mut stage, passed_on } = self.part(scope, id, &blob)?;
            let joined = passed_on.is_none();
            let opened = stage.wait_for(|stage| !matches!(stage, Stage::Opening)).await.map(|stage| stage.clone());
            let length = match opened {
                Ok(Stage::Growing(grown) | Stage::Proven(grown)) => grown.length,
                Ok(Stage::Failed(Reason::Refused(rest))) => rest.grown.length,
                Ok(Stage::Failed(Reason::NoRoom)) => return Self::pass_through(blob, passed_on).await,
                Ok(Stage::Failed(reason)) if joined && !concerns(&reason, &fill.scope, scope) => continue,
                Ok(Stage::Failed(Reason::NotOpened(failure) | Reason::Broken(failure))) => return Err(failure.into()),
                Ok(Stage::Failed(Reason::Kept)) => return Err(FillError::Kept),
                Ok(Stage::Failed(Reason::Busy)) => return Err(FillError::Busy(scope.upstream.clone())),
                Ok(Stage::Opening | Stage::Failed(Reason::Unwanted | Reason::Lost)) | Err(_) => {
                    return Err(FillError::Lost(scope.upstream.clone()));
                }
            };
            let id = Some(fill.id().to_owned());
            let reader = Reader::new(blob, fill, stage, length);
            return Ok(Given::new(length, id, joined, Arc::new(reader)));
        }
        Err(FillError::Busy(scope.upstream.clone()))
    }

    /// Finds the fill or begins one. A reader is counted from here on, so that the fill is not given up before.
    fn part(self: &Arc<Self>, scope: &Scope, id: u128, blob: &Arc<Blob>) -> Result<Part, FillError> {
        let mut running = self.running_fills();
        if let Some(fill) = running.get(&blob.digest) {
            if !fill.permits(scope) {
                return Err(FillError::OfAnotherScope);
            }
            blob.host.joined.add(1);
            return Ok(Part { stage: fill.stage.subscribe(), fill: fill.clone(), passed_on: None });
        }
        let fill = Arc::new(Fill::new(blob.digest.clone(), format!("{id:032x}"), blob.host.clone(), scope.clone()));
        let (pass_on, passed_on) = oneshot::channel();
        let part = Part { stage: fill.stage.subscribe(), fill: fill.clone(), passed_on: Some(passed_on) };
        running.insert(blob.digest.clone(), fill.clone());
        drop(running);
        let task = Task::new(self.clone(), fill, pass_on);
        (self.spawn)(Box::pin(task.run(blob.sources.clone())));
        Ok(part)
    }

    async fn pass_through(blob: Arc<Blob>, passed_on: Option<oneshot::Receiver<Supply>>) -> Result<Given, FillError> {
        blob.host.passed_through.add(1);
        let arriving = match passed_on {
            Some(passed_on) => passed_on.await.ok(),
            None => None,
        };
        let supply = match arriving {
            Some(supply) => supply,
            None => Supply::open((blob.sources)(), 0, None, blob.host.clone()).await?.for_digest(&blob.digest)?,
        };
        let length = supply.length();
        Ok(Given::new(length, None, false, Arc::new(PassThrough::new(blob, supply))))
    }

    /// The fill of a digest, while there is one.
    pub fn running(&self, digest: &Digest) -> Option<Arc<Fill>> {
        self.running_fills().get(digest).cloned()
    }

    /// Whether an upstream gave something else for this digest in the last ten minutes. Who asks for its rest alone may have got
    /// the beginning then.
    pub fn was_wrong(&self, digest: &Digest, now: Instant) -> bool {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).contains(digest, now)
    }

    /// What is on its way.
    pub fn under_way(&self) -> Vec<Underway> {
        let show = |fill: &Arc<Fill>| {
            let (there, length) = match &*fill.stage.borrow() {
                Stage::Growing(grown) | Stage::Proven(grown) => (grown.there, grown.length),
                Stage::Opening | Stage::Failed(_) => (0, None),
            };
            Underway { digest: fill.digest().clone(), upstream: fill.host.name.clone(), there, length }
        };
        self.running_fills().values().map(show).collect()
    }

    /// What was counted, by upstream.
    pub fn figures(&self) -> BTreeMap<RegistryHost, Figures> {
        let mut in_flight: HashMap<RegistryHost, u64> = HashMap::new();
        for fill in self.running_fills().values() {
            *in_flight.entry(fill.host.name.clone()).or_default() += 1;
        }
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let figures = |host: &Arc<Host>| host.figures(in_flight.get(&host.name).copied().unwrap_or_default());
        hosts.iter().map(|(name, host)| (name.clone(), figures(host))).collect()
    }

    fn host(&self, name: &RegistryHost) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || Arc::new(Host::new(name.clone(), self.bounds.at_once));
        hosts.entry(name.clone()).or_insert_with(make).clone()
    }

    fn running_fills(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Fill>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_wrong(&self, digest: &Digest) {
        let now = tokio::time::Instant::now().into_std();
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).note(digest, now);
    }

    fn is_worth_finishing(&self, grown: &Grown) -> bool {
        // Where no length was announced there may be no end, which only those who read on want to see.
        let Some(length) = grown.length else { return false };
        length <= self.bounds.worth_finishing || grown.there >= length.div_ceil(2)
    }

    /// Forgets a fill if nobody reads it. No reader can come in between.
    fn abandon(&self, fill: &Arc<Fill>, grown: &Grown) -> bool {
        let mut running = self.running_fills();
        let abandoned = fill.stage.receiver_count() == 0 && !self.is_worth_finishing(grown);
        if abandoned {
            forget(&mut running, fill);
        }
        abandoned
    }

    /// Forgets a fill that is committed, if all that may have it are known to the store.
    fn close(&self, fill: &Arc<Fill>, known: usize) -> bool {
        let mut running = self.running_fills();
        let closed = fill.close(known);
        if closed {
            forget(&mut running, fill);
        }
        closed
    }

    /// Forgets a fill, and tells its readers why, if it failed. What they ask for again is begun anew.
    fn end(&self, fill: &Arc<Fill>, reason: Option<Reason>) {
        if let Some(Reason::Broken(Failure::Wrong { .. })) = reason {
            self.note_wrong(fill.digest());
        }
        fill.close(usize::MAX);
        forget(&mut self.running_fills(), fill);
        let Some(reason) = reason else { return };
        if let Some(by) = reason.counted() {
            fill.host.failed(by);
        }
        if let Reason::Broken(failure) = &reason {
            tracing::warn!(digest = %fill.digest(), upstream = %fill.host.name, %failure, "a blob was not brought to its end");
        }
        fill.stage.send_replace(Stage::Failed(reason));
    }
}

fn forget(running: &mut HashMap<Digest, Arc<Fill>>, fill: &Arc<Fill>) {
    if running.get(fill.digest()).is_some_and(|found| Arc::ptr_eq(found, fill)) {
        running.remove(fill.digest());
    }
}

/// Whether how a fill ended is true of another request that waited for it: an upstream that does not answer answers nobody; what
/// it does not have it lacks within one repository; to whom it does not give it, it has to say each time.
fn concerns(reason: &Reason, asked: &Scope, scope: &Scope) -> bool {
    match reason {
        Reason::NotOpened(Failure::NotFound(_) | Failure::Wrong { .. }) => asked == scope,
        Reason::NotOpened(Failure::Denied(_)) => false,
        Reason::Busy | Reason::NotOpened(_) => asked.upstream == scope.upstream,
        _ => true,
    }
}
