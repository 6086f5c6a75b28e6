//! A bounded memory of what was used lately. It must never hold more than its bound, and never bring back what was
//! forgotten while somebody was fetching it.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

struct Generations<K, V> {
    bound: usize,
    young: HashMap<K, (V, usize)>,
    old: HashMap<K, (V, usize)>,
    young_weight: usize,
    changes: u64,
}

/// Two generations: what is used moves to the young one; when that is half of the bound, the old one is let go.
pub struct Recent<K, V>(Mutex<Generations<K, V>>);

/// A point in time, for [`Recent::insert`].
#[derive(Clone, Copy)]
pub struct Since(u64);

impl<K: Hash + Eq, V: Clone> Recent<K, V> {
    /// A memory of values that together weigh at most `bound`.
    pub fn new(bound: usize) -> Self {
        let (young, old) = (HashMap::new(), HashMap::new());
        Self(Mutex::new(Generations { bound, young, old, young_weight: 0, changes: 0 }))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Generations<K, V>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Gives the memory another bound. One that is smaller forgets all, because nothing tells what is worth keeping.
    pub fn resize(&self, bound: usize) {
        self.with(|generations| {
            if bound < generations.bound {
                (generations.young, generations.old) = (HashMap::new(), HashMap::new());
                generations.young_weight = 0;
            }
            generations.bound = bound;
        });
    }

    /// What is remembered for a key.
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.with(|generations| {
            if let Some((value, _)) = generations.young.get(key) {
                return Some(value.clone());
            }
            let (key, (value, weight)) = generations.old.remove_entry(key)?;
            generations.add(key, value.clone(), weight);
            Some(value)
        })
    }

    /// Now. It is taken before a value is fetched, so that [`Recent::insert`] can tell whether the value may be old.
    pub fn now(&self) -> Since {
        self.with(|generations| Since(generations.changes))
    }

    /// Remembers a value that was fetched after `since`, unless anything was forgotten meanwhile.
    pub fn insert(&self, since: Since, key: K, value: V, weight: usize) {
        self.with(|generations| {
            if generations.changes == since.0 {
                generations.old.remove(&key);
                generations.add(key, value, weight);
            }
        });
    }

    /// Forgets a key whose value has changed. To be called after the change.
    pub fn forget<Q: Hash + Eq + ?Sized>(&self, key: &Q)
    where
        K: Borrow<Q>,
    {
        self.with(|generations| {
            generations.changes = generations.changes.wrapping_add(1);
            generations.old.remove(key);
            if let Some((_, weight)) = generations.young.remove(key) {
                generations.young_weight = generations.young_weight.saturating_sub(weight);
            }
        });
    }

    /// What is there for a key, or what is made now.
    pub fn get_or_insert(&self, key: K, weight: usize, make: impl FnOnce() -> V) -> V
    where
        K: Clone,
    {
        if let Some(value) = self.get(&key) {
            return value;
        }
        self.with(|generations| {
            // Somebody may have been faster.
            if let Some((value, _)) = generations.young.get(&key) {
                return value.clone();
            }
            let value = make();
            generations.add(key, value.clone(), weight);
            value
        })
    }
}

impl<K: Hash + Eq, V> Generations<K, V> {
    fn add(&mut self, key: K, value: V, weight: usize) {
        let half = self.bound / 2;
        if weight > half {
            return;
        }
        if self.young_weight + weight > half {
            self.old = std::mem::take(&mut self.young);
            self.young_weight = 0;
        }
        self.young_weight += weight;
        if let Some((_, replaced)) = self.young.insert(key, (value, weight)) {
            self.young_weight = self.young_weight.saturating_sub(replaced);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Recent;

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let recent = Recent::new(100);
        recent.insert(recent.now(), 0, "used", 5);
        for key in 1..1000 {
            recent.insert(recent.now(), key, "other", 5);
            assert_eq!(recent.get(&0), Some("used"));
        }
        let kept = (0..1000).filter(|key| recent.get(key).is_some()).count();
        assert!(kept <= 20, "{kept}");
        recent.insert(recent.now(), 1000, "too large", 51);
        assert_eq!(recent.get(&1000), None);
    }

    #[test]
    fn a_smaller_bound_holds_at_once() {
        let recent = Recent::new(100);
        for key in 0..20 {
            recent.insert(recent.now(), key, "value", 5);
        }
        recent.resize(200);
        assert_eq!(recent.get(&19), Some("value"));
        recent.resize(20);
        assert_eq!(recent.get(&19), None);
        for key in 0..20 {
            recent.insert(recent.now(), key, "value", 5);
        }
        assert!((0..20).filter(|key| recent.get(key).is_some()).count() <= 4);
    }

    #[test]
    fn a_value_that_was_fetched_before_a_change_is_not_remembered() {
        let recent = Recent::new(100);
        let before = recent.now();
        recent.forget(&1);
        recent.insert(before, 1, "old", 1);
        assert_eq!(recent.get(&1), None);
        recent.insert(recent.now(), 1, "new", 1);
        recent.insert(recent.now(), 1, "newer", 1);
        assert_eq!(recent.get(&1), Some("newer"));
        recent.forget(&1);
        assert_eq!(recent.get(&1), None);
        assert_eq!(recent.get_or_insert(1, 1, || "made"), "made");
        assert_eq!(recent.get_or_insert(1, 1, || "again"), "made");
    }
}
