//! A set of keys that wait for work, and a wake for whoever does it.
//! Putting a key in must never block: a queue that holds back the watches while the caches are being filled would keep
//! them from ever being filled. The set is bounded by the number of objects, because a key stands in it once.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// Keys that wait.
pub(super) struct Pending<T> {
    keys: Mutex<HashSet<T>>,
    wake: Notify,
}

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self { keys: Mutex::new(HashSet::new()), wake: Notify::new() }
    }
}

impl<T: Eq + Hash> Pending<T> {
    /// Adds keys and wakes the worker.
    pub(super) fn add(&self, keys: impl IntoIterator<Item = T>) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).extend(keys);
        self.wake.notify_one();
    }

    /// Takes all keys out.
    pub(super) fn take(&self) -> HashSet<T> {
        std::mem::take(&mut *self.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Resolves when keys were added since it last did.
    pub(super) async fn added(&self) {
        self.wake.notified().await;
    }

    /// Waits until there are keys and takes them out.
    pub(super) async fn next(&self) -> HashSet<T> {
        loop {
            let keys = self.take();
            if !keys.is_empty() {
                return keys;
            }
            self.added().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::Pending;

    #[test]
    fn a_key_waits_once_and_is_taken_once() {
        let pending = Pending::default();
        assert!(pending.next().now_or_never().is_none());
        pending.add(["a", "b"]);
        pending.add(["a"]);
        assert_eq!(pending.next().now_or_never().unwrap().len(), 2);
        assert!(pending.next().now_or_never().is_none());
    }
}
