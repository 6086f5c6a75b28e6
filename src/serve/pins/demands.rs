//! What the store is to keep, from two sides: the lists that the configuration names, and the images that are fetched ahead. It
//! must never let one side forget the other.

use std::sync::{Mutex, PoisonError};

use crate::oci::Digest;
use crate::serve::cache::store::{CacheStore, Protected};

/// Both sides together.
pub struct Demands {
    store: CacheStore,
    sides: Mutex<(Protected, Vec<Digest>)>,
}

impl Demands {
    /// Of nothing yet.
    pub fn new(store: CacheStore) -> Self {
        Self { store, sides: Mutex::default() }
    }

    /// What is listed, from now on.
    pub fn listed(&self, listed: Protected) {
        self.change(|(before, _)| *before = listed);
    }

    /// What is fetched ahead, from now on: the most important first.
    pub fn ahead(&self, ahead: Vec<Digest>) {
        self.change(|(_, before)| *before = ahead);
    }

    fn change(&self, change: impl FnOnce(&mut (Protected, Vec<Digest>))) {
        let mut sides = self.sides.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut sides);
        let (mut all, ahead) = sides.clone();
        all.pinned.extend(ahead);
        self.store.protect(all);
    }
}
