//! The store in numbers, for metrics and status.

use std::sync::atomic::{AtomicU64, Ordering};

use super::CacheStore;
use super::eviction::pins;
use crate::oci::Digest;

/// What has happened in the life of the process.
#[derive(Debug, Default)]
pub struct Counts {
    evicted_images: AtomicU64,
    evicted_bytes: AtomicU64,
    in_use_evicted: AtomicU64,
    rehashed: AtomicU64,
    damaged: AtomicU64,
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
    }
}

impl CacheStore {
    /// The store in numbers.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let counts = &self.0.tree.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (bounds, protected) = self.0.demands();
        let index = self.0.tree.index();
        Figures {
            size: bounds.size,
            bytes: index.total(),
            reserved: index.reserved(),
            contents: index.contents().len() as u64,
            entries: index.entries() as u64,
            index_complete: index.is_complete(),
            evicted_images: read(&counts.evicted_images),
            evicted_bytes: read(&counts.evicted_bytes),
            in_use_evicted: read(&counts.in_use_evicted),
            pins_refused: pins(&index, &protected.pinned, bounds.size).1,
            rehashed: read(&counts.rehashed),
            damaged: read(&counts.damaged),
        }
    }
}
