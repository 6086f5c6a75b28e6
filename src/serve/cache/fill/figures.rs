//! What is counted of fills, and what they may take, by upstream: a closed set, because only those that are configured are
//! ever asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use crate::oci::RegistryHost;

/// Why a fill can fail, as metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailedBy {
    /// The upstream did not begin to give it.
    Opening,
    /// There was no place among the fills from its upstream.
    Busy,
    /// The upstream was cut off too often.
    Cut,
    /// The bytes were not what was announced.
    Wrong,
    /// The store refused bytes.
    Store,
    /// All its clients left too early.
    Unwanted,
    /// It came to no end of its own.
    Lost,
}

impl FailedBy {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Opening, Self::Busy, Self::Cut, Self::Wrong, Self::Store, Self::Unwanted, Self::Lost];

    /// As a label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Busy => "busy",
            Self::Cut => "cut",
            Self::Wrong => "wrong",
            Self::Store => "store",
            Self::Unwanted => "unwanted",
            Self::Lost => "lost",
        }
    }
}

/// What is counted for one upstream since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Fills that are under way now.
    pub in_flight: u64,
    /// Fills that were begun.
    pub begun: u64,
    /// Requests that joined a fill of others.
    pub joined: u64,
    /// Times that a fill or pass-through went on behind a cut.
    pub resumed: u64,
    /// Requests that were passed through because there was no room.
    pub passed_through: u64,
    /// Bytes that came.
    pub upstream_bytes: u64,
    /// Fills that failed; all reasons are there.
    pub failed: BTreeMap<FailedBy, u64>,
}

/// A number that only grows.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts so many more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// An upstream, as fills know it.
pub struct Host {
    /// Its name.
    pub name: RegistryHost,
    /// Places for its fills.
    pub places: Arc<Semaphore>,
    pub begun: Counter,
    pub joined: Counter,
    pub resumed: Counter,
    pub passed_through: Counter,
    pub upstream_bytes: Counter,
    failed: [Counter; FailedBy::ALL.len()],
}

impl Host {
    pub fn new(name: RegistryHost, places: usize) -> Self {
        Self {
            name,
            places: Arc::new(Semaphore::new(places)),
            begun: Counter::default(),
            joined: Counter::default(),
            resumed: Counter::default(),
            passed_through: Counter::default(),
            upstream_bytes: Counter::default(),
            failed: Default::default(),
        }
    }

    /// Counts a fill that failed.
    pub fn failed(&self, by: FailedBy) {
        let counters = FailedBy::ALL.into_iter().zip(&self.failed);
        counters.filter(|(reason, _)| *reason == by).for_each(|(_, counter)| counter.add(1));
    }

    pub fn figures(&self, in_flight: u64) -> Figures {
        let failed = FailedBy::ALL.into_iter().zip(&self.failed);
        Figures {
            in_flight,
            begun: self.begun.get(),
            joined: self.joined.get(),
            resumed: self.resumed.get(),
            passed_through: self.passed_through.get(),
            upstream_bytes: self.upstream_bytes.get(),
            failed: failed.map(|(reason, counter)| (reason, counter.get())).collect(),
        }
    }
}

/// Memory that is shared out among all who take some at the same time, so that it is the same for many as for few.
pub struct Share {
    whole: usize,
    takers: Arc<AtomicUsize>,
}

/// One who takes a share; dropped, it takes none any more.
pub struct Taker(Arc<AtomicUsize>);

/// The least and the most that one may take: less costs too much time, more brings none.
const SHARES: (usize, usize) = (8 * 1024, 256 * 1024);

impl Share {
    pub fn new(whole: usize) -> Self {
        Self { whole, takers: Arc::default() }
    }

    /// Counts one more.
    pub fn taker(&self) -> Taker {
        self.takers.fetch_add(1, Ordering::Relaxed);
        Taker(self.takers.clone())
    }

    /// How many take one.
    #[cfg(test)]
    pub fn takers(&self) -> usize {
        self.takers.load(Ordering::Relaxed)
    }

    /// How much each may take now.
    pub fn each(&self) -> usize {
        (self.whole / self.takers.load(Ordering::Relaxed).max(1)).clamp(SHARES.0, SHARES.1)
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
