//! Room for what is to come: set aside before the first byte, so that what is kept and what is reserved never exceed the size.

use std::sync::Arc;

use super::eviction::{Need, Protection, choose};
use super::tree::Changing;
use super::{CacheStore, Shared};
use crate::serve::store::StoreError;

/// How often room is made for somebody while others take it.
const ATTEMPTS: usize = 16;
/// What an object adds to the entries: content, a link, a tag, and its repository.
pub(super) const ENTRIES: usize = 4;

/// Room that was set aside. It is free again when this is dropped.
pub struct Reservation {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Reservation {
    /// How many bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes over the room: whoever calls this answers for it from now on.
    pub(super) fn take(&mut self) -> u64 {
        std::mem::take(&mut self.bytes)
    }

    /// One for more.
    pub(super) fn join(&mut self, mut other: Self) {
        self.bytes += other.take();
    }

    /// All of it in another one, so that this is empty.
    pub(super) fn split(&mut self) -> Self {
        Self { shared: self.shared.clone(), bytes: self.take() }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.shared.tree.index().release(self.bytes);
        }
    }
}

impl CacheStore {
    /// Sets room aside, and evicts for it. None where there is not enough: not with all that may go gone, then nothing goes,
    /// or not as long as it is not known what is there.
    pub async fn reserve(&self, bytes: u64) -> Option<Reservation> {
        if bytes > self.0.demands().0.size {
            self.0.tree.counts.too_large(bytes);
            return None;
        }
        for _ in 0..ATTEMPTS {
            if let Some(reservation) = self.reserve_free(bytes) {
                return Some(reservation);
            }
            let shared = self.0.clone();
            match self.0.writers.run(move || shared.make_room(bytes)).await {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    tracing::warn!(%error, "nothing can be evicted, so that what comes is not kept");
                    return None;
                }
            }
        }
        None
    }

    fn reserve_free(&self, bytes: u64) -> Option<Reservation> {
        let (bounds, _) = self.0.demands();
        let mut index = self.0.tree.index();
        let fits = index.entries() + ENTRIES <= bounds.entries && index.reserve(bytes, bounds.size);
        fits.then(|| Reservation { shared: self.0.clone(), bytes })
    }
}

impl Shared {
    /// Evicts what it takes for so many bytes more, and for the entries of an object. Returns whether there was enough.
    pub(super) fn make_room(&self, bytes: u64) -> Result<bool, StoreError> {
        self.make_room_in(&mut self.tree.change(), bytes, ENTRIES)
    }

    /// As [`Shared::make_room`], for whoever has the turn already.
    pub(super) fn make_room_in(
        &self,
        changing: &mut Changing<'_>,
        bytes: u64,
        entries: usize,
    ) -> Result<bool, StoreError> {
        let (bounds, protected) = self.demands();
        let chosen = {
            let index = self.tree.index();
            if !index.is_complete() {
                return Ok(false);
            }
            let mut need = Need { bytes: index.excess(bytes, bounds.size), entries: 0 };
            if index.entries() + entries > bounds.entries {
                // Some more than are needed, so that not each has to look for its own.
                need.entries = index.entries() + entries - bounds.entries + bounds.entries / 64;
            }
            if need == Need::default() {
                return Ok(true);
            }
            let protection = Protection::of(&index, &protected, bounds.size);
            choose(&index, need, &protection, bounds.size, self.tree.clock.now())
        };
        let is_enough = chosen.is_some();
        for victim in chosen.unwrap_or_default() {
            changing.evict(victim)?;
        }
        Ok(is_enough)
    }
}
