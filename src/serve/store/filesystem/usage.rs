//! What the store holds, as numbers: counted once in the life of the process, beside its work, and kept in step with what is
//! added from the start on. It must never make a request wait for a count, and never count anything twice.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::oci::{Digest, RepositoryName};

/// The sums, of content in bytes and of repositories.
#[derive(Default)]
pub struct Counts {
    pub content: Tally<Digest>,
    pub repositories: Tally<RepositoryName>,
}

/// A sum over what has names, each counted once: by whoever walks over all that is there, or by whoever puts it there
/// meanwhile.
pub struct Tally<K>(Mutex<State<K>>);

struct State<K> {
    sum: u64,
    /// Whether all that is there has been walked over.
    complete: bool,
    arriving: HashMap<K, Arrival>,
}

#[derive(Default)]
struct Arrival {
    /// How many are about to put it there.
    hands: usize,
    /// Whether one of them did, so that the walk must not count it.
    counted: bool,
    /// What the walk found while nobody could say yet whether it was there before.
    seen: Option<u64>,
}

/// Something that may be about to be put there.
pub struct Arriving<'a, K: Clone + Eq + Hash> {
    tally: &'a Tally<K>,
    name: &'a K,
}

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self(Mutex::new(State { sum: 0, complete: false, arriving: HashMap::new() }))
    }
}

impl<K: Clone + Eq + Hash> Tally<K> {
    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces something. It has to come before the look whether it is there, and has to be kept until it is.
    pub fn arriving<'a>(&'a self, name: &'a K) -> Arriving<'a, K> {
        self.state().arriving.entry(name.clone()).or_default().hands += 1;
        Arriving { tally: self, name }
    }

    /// The walk found something.
    pub fn found(&self, name: &K, amount: u64) {
        let mut state = self.state();
        match state.arriving.get_mut(name) {
            Some(arrival) => arrival.seen = Some(amount),
            None => state.sum += amount,
        }
    }

    /// The walk is over.
    pub fn complete(&self) {
        let mut state = self.state();
        state.complete = true;
        state.arriving.retain(|_, arrival| arrival.hands > 0);
    }

    /// The sum; none before the walk is over.
    pub fn sum(&self) -> Option<u64> {
        let state = self.state();
        state.complete.then_some(state.sum)
    }
}

impl<K: Clone + Eq + Hash> Arriving<'_, K> {
    /// It was not there before, and is there now.
    pub fn arrived(&self, amount: u64) {
        let mut state = self.tally.state();
        if let Some(arrival) = state.arriving.get_mut(self.name)
            && !std::mem::replace(&mut arrival.counted, true)
        {
            state.sum += amount;
        }
    }
}

impl<K: Clone + Eq + Hash> Drop for Arriving<'_, K> {
    fn drop(&mut self) {
        let mut state = self.tally.state();
        let complete = state.complete;
        let Some(arrival) = state.arriving.get_mut(self.name) else { return };
        arrival.hands -= 1;
        if arrival.hands > 0 || (arrival.counted && !complete) {
            return;
        }
        // Nobody put it there: what the walk found had been there before.
        let found_before = arrival.seen.filter(|_| !arrival.counted);
        state.arriving.remove(self.name);
        state.sum += found_before.unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    /// Two put the same thing there, and a walk passes: in every order in which that can happen it counts once.
    #[test]
    fn whatever_the_order_each_counts_once() {
        for was_there in [false, true] {
            let mut orders = Vec::new();
            interleave([5, 5, 2], &mut Vec::new(), &mut orders);
            assert_eq!(orders.len(), 16_632);
            for order in orders {
                assert_eq!(play(&order, was_there), Some(7), "{order:?}, there before: {was_there}");
            }
        }
    }

    /// Each hand announces, looks, puts it there if it was not, says so, and lets go; the walk passes and ends.
    fn play(order: &[usize], mut is_there: bool) -> Option<u64> {
        let tally = Tally::<u8>::default();
        let (mut announced, mut absent, mut steps) = ([None, None], [false, false], [0; 3]);
        for &actor in order {
            match (actor, steps[actor]) {
                (2, 0) if is_there => tally.found(&1, 7),
                (2, 0) => {}
                (2, _) => tally.complete(),
                (hand, 0) => announced[hand] = Some(tally.arriving(&1)),
                (hand, 1) => absent[hand] = !is_there,
                (hand, 2) => is_there |= absent[hand],
                (hand, 3) if absent[hand] => announced[hand].as_ref().unwrap().arrived(7),
                (_, 3) => {}
                (hand, _) => announced[hand] = None,
            }
            steps[actor] += 1;
        }
        let state = tally.state();
        assert!(state.arriving.is_empty(), "something is remembered for ever");
        drop(state);
        tally.sum()
    }

    fn interleave(left: [usize; 3], done: &mut Vec<usize>, all: &mut Vec<Vec<usize>>) {
        if left.iter().all(|count| *count == 0) {
            all.push(done.clone());
        }
        for actor in 0..3 {
            if left[actor] > 0 {
                let mut rest = left;
                rest[actor] -= 1;
                done.push(actor);
                interleave(rest, done, all);
                done.pop();
            }
        }
    }
}
