//! The store in numbers, for metrics and status.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::CacheStore;
use super::eviction::{Protection, pins};
use crate::oci::Digest;
use crate::serve::store::StoreError;

/// For so long something that happened once is told.
const LATELY: Duration = Duration::from_secs(3600);
/// For so long it is told that the disk refused, if nothing was kept since.
const REFUSED: Duration = Duration::from_secs(600);

/// What has happened in the life of the process.
#[derive(Debug, Default)]
pub struct Counts {
    evicted_images: AtomicU64,
    evicted_bytes: AtomicU64,
    in_use_evicted: AtomicU64,
    rehashed: AtomicU64,
    damaged: AtomicU64,
    lately: Mutex<Lately>,
}

/// What happened last, and when.
#[derive(Debug, Default)]
struct Lately {
    in_use_evicted: Option<Instant>,
    too_large: Option<(u64, Instant)>,
    refused: Option<(String, Instant)>,
}

/// The store in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// How many bytes may be kept and reserved.
    pub size: u64,
    /// How many bytes are kept; none as long as that is not known.
    pub bytes: Option<u64>,
    /// How many are reserved for what is on its way.
    pub reserved: u64,
    /// How many contents are known.
    pub contents: u64,
    /// How many contents, links, tags and repositories are known.
    pub entries: u64,
    /// Whether all that is on the disk is known, so that something may be evicted.
    pub index_complete: bool,
    /// How many images and loose blobs were evicted.
    pub evicted_images: u64,
    /// How many bytes were evicted.
    pub evicted_bytes: u64,
    /// How many images that were in use were evicted.
    pub in_use_evicted: u64,
    /// Whether what is in use is more than there is room for: it would not fit, or some of it was evicted lately.
    pub in_use_exceeds: bool,
    /// The length of the largest blob that was larger than the size, lately.
    pub too_large: Option<u64>,
    /// Why the disk refuses what is to be kept, for now.
    pub refused: Option<String>,
    /// Pins that are refused, because they would take the pins above their share of the size.
    pub pins_refused: Vec<Digest>,
    /// How many contents were hashed after a crash.
    pub rehashed: u64,
    /// How many of them, or of what was read, were not what they should have been.
    pub damaged: u64,
}

impl Counts {
    /// Content was hashed after a crash.
    pub fn rehashed(&self) {
        self.rehashed.fetch_add(1, Ordering::Relaxed);
    }

    /// Content was not what it should have been.
    pub fn damaged(&self) {
        self.damaged.fetch_add(1, Ordering::Relaxed);
    }

    /// Content was evicted.
    pub fn evicted(&self, bytes: u64) {
        self.evicted_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// An image was evicted.
    pub fn evicted_image(&self, was_in_use: bool) {
        self.evicted_images.fetch_add(1, Ordering::Relaxed);
        self.in_use_evicted.fetch_add(u64::from(was_in_use), Ordering::Relaxed);
        if was_in_use {
            self.lately().in_use_evicted = Some(Instant::now());
        }
    }

    /// There is never room for a blob of this length.
    pub fn too_large(&self, length: u64) {
        let (mut lately, now) = (self.lately(), Instant::now());
        let before = lately.too_large.filter(|(_, when)| is_late(*when, now)).map_or(0, |(length, _)| length);
        lately.too_large = Some((before.max(length), now));
    }

    /// The disk took a blob, or refused it.
    pub fn kept<T>(&self, result: &Result<T, StoreError>) {
        self.lately().refused = result.as_ref().err().map(|error| {
            // Which file it was differs from one to the next.
            (format!("the disk refuses what is to be kept: cannot {}: {}", error.doing, error.source), Instant::now())
        });
    }

    /// The disk refused something, if it did.
    pub fn refused<T>(&self, result: &Result<T, StoreError>) {
        if result.is_err() {
            self.kept(result);
        }
    }

    fn lately(&self) -> MutexGuard<'_, Lately> {
        self.lately.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_late(when: Instant, now: Instant) -> bool {
    now.saturating_duration_since(when) < LATELY
}

impl CacheStore {
    fn in_use_exceeds(&self) -> bool {
        let (bounds, protected) = self.0.demands();
        let evicted = self.0.tree.counts.lately().in_use_evicted;
        let index = self.0.tree.index();
        evicted.is_some_and(|when| is_late(when, Instant::now()))
            || Protection::of(&index, &protected, bounds.size).bytes(&index) > bounds.size
    }

    /// The store in numbers.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let counts = &self.0.tree.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (bounds, protected) = self.0.demands();
        let in_use_exceeds = self.in_use_exceeds();
        let (too_large, refused) = {
            let (lately, now) = (counts.lately(), Instant::now());
            let refused = lately.refused.as_ref();
            let refused = refused.filter(|(_, when)| now.saturating_duration_since(*when) < REFUSED);
            let too_large = lately.too_large.filter(|(length, when)| is_late(*when, now) && *length > bounds.size);
            (too_large.map(|(length, _)| length), refused.map(|(problem, _)| problem.clone()))
        };
        let index = self.0.tree.index();
        Figures {
            in_use_exceeds,
            too_large,
            refused,
            size: bounds.size,
            bytes: index.total(),
            reserved: index.reserved(),
            contents: index.contents().len() as u64,
            entries: index.entries() as u64,
            index_complete: index.is_complete(),
            evicted_images: read(&counts.evicted_images),
            evicted_bytes: read(&counts.evicted_bytes),
            in_use_evicted: read(&counts.in_use_evicted),
            pins_refused: pins(&index, &protected, bounds.size).1,
            rehashed: read(&counts.rehashed),
            damaged: read(&counts.damaged),
        }
    }
}
