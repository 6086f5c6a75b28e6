//! Locks by name, that exist only while somebody holds them or waits. They are fair: a writer does not starve.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// What is held while a name is read.
pub type ReadGuard = OwnedRwLockReadGuard<()>;
/// What is held while a name is changed.
pub type WriteGuard = OwnedRwLockWriteGuard<()>;

/// The fewest entries at which those of nobody are looked for.
const SWEEP_FROM: usize = 1024;

struct Entries<K> {
    locks: HashMap<K, Weak<RwLock<()>>>,
    sweep_at: usize,
}

/// One lock for each name.
pub struct Locks<K>(Mutex<Entries<K>>);

impl<K> Default for Locks<K> {
    fn default() -> Self {
        Self(Mutex::new(Entries { locks: HashMap::new(), sweep_at: SWEEP_FROM }))
    }
}

impl<K: Hash + Ord + Clone> Locks<K> {
    fn of(&self, name: &K) -> Arc<RwLock<()>> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = entries.locks.get(name).and_then(Weak::upgrade) {
            return lock;
        }
        if entries.locks.len() >= entries.sweep_at {
            entries.locks.retain(|_, lock| lock.strong_count() > 0);
            entries.sweep_at = SWEEP_FROM.max(entries.locks.len() * 2);
        }
        let lock = Arc::new(RwLock::new(()));
        entries.locks.insert(name.clone(), Arc::downgrade(&lock));
        lock
    }

    /// Waits until nobody changes what the name stands for.
    pub async fn read(&self, name: &K) -> ReadGuard {
        self.of(name).read_owned().await
    }

    /// Waits until nobody else uses what the name stands for.
    pub async fn write(&self, name: &K) -> WriteGuard {
        self.of(name).write_owned().await
    }

    /// As [`Locks::read`] for several names. They are taken in their order, so that two who want the same never wait for
    /// each other.
    pub async fn read_all(&self, names: impl IntoIterator<Item = K>) -> Vec<ReadGuard> {
        let mut guards = Vec::new();
        for name in in_order(names) {
            guards.push(self.read(&name).await);
        }
        guards
    }

    /// As [`Locks::write`] for several names, in their order.
    pub async fn write_all(&self, names: impl IntoIterator<Item = K>) -> Vec<WriteGuard> {
        let mut guards = Vec::new();
        for name in in_order(names) {
            guards.push(self.write(&name).await);
        }
        guards
    }
}

fn in_order<K: Ord>(names: impl IntoIterator<Item = K>) -> Vec<K> {
    let mut names: Vec<K> = names.into_iter().collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::{Locks, SWEEP_FROM};

    #[tokio::test]
    async fn a_writer_excludes_readers_of_its_name_alone() {
        let locks = Locks::default();
        let reading = locks.read_all(["b", "a", "b"]).await;
        assert_eq!(reading.len(), 2);
        assert!(locks.read(&"a").now_or_never().is_some());
        assert!(locks.write(&"a").now_or_never().is_none());
        assert!(locks.write(&"c").now_or_never().is_some());
        drop(reading);
        let writing = locks.write_all(["a", "a"]).await;
        assert!(locks.read(&"a").now_or_never().is_none());
        drop(writing);
        assert!(locks.write(&"a").now_or_never().is_some());
    }

    #[tokio::test]
    async fn names_of_nobody_are_forgotten() {
        let locks = Locks::default();
        let held = locks.read(&0).await;
        for name in 1..100_000 {
            drop(locks.write(&name).await);
        }
        assert!(locks.0.lock().unwrap().locks.len() <= SWEEP_FROM);
        assert!(locks.write(&0).now_or_never().is_none());
        drop(held);
    }
}
