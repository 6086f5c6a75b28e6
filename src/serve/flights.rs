//! Requests that are made once for all who wait for the same answer. It must never keep an answer: who comes after it was
//! given asks anew.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};

type Flight<V> = BoxFuture<'static, V>;

/// What is asked at the moment. An answer is worked out by whoever waits for it, and is given up when nobody does.
pub struct Flights<K, V: Clone> {
    under_way: Mutex<HashMap<K, WeakShared<Flight<V>>>>,
}

impl<K, V: Clone> Default for Flights<K, V> {
    fn default() -> Self {
        Self { under_way: Mutex::default() }
    }
}

impl<K: Eq + Hash, V: Clone + Send + Sync + 'static> Flights<K, V> {
    /// The answer that others wait for already, or that of a request made now.
    pub async fn run(&self, key: K, request: impl FnOnce() -> Flight<V>) -> V {
        self.join(key, request).await
    }

    fn join(&self, key: K, request: impl FnOnce() -> Flight<V>) -> Shared<Flight<V>> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody can wait for one that has ended or was given up, so that such an entry can go.
        under_way.retain(|_, flight| flight.upgrade().is_some_and(|flight| flight.peek().is_none()));
        if let Some(flight) = under_way.get(&key).and_then(WeakShared::upgrade) {
            return flight;
        }
        let flight = request().shared();
        if let Some(weak) = flight.downgrade() {
            under_way.insert(key, weak);
        }
        flight
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt;
    use tokio::sync::oneshot;

    use super::Flights;

    #[tokio::test]
    async fn those_who_wait_together_ask_once_and_the_next_asks_anew() {
        let (flights, asked) = (Arc::new(Flights::<u8, usize>::default()), Arc::new(AtomicUsize::new(0)));
        for round in 1..3 {
            let (release, held) = oneshot::channel::<()>();
            let held = held.shared();
            let wait = |key| {
                let (flights, asked, held) = (flights.clone(), asked.clone(), held.clone());
                async move {
                    let request = || {
                        async move {
                            let _ = held.await;
                            asked.fetch_add(1, Ordering::SeqCst) + 1
                        }
                        .boxed()
                    };
                    flights.run(key, request).await
                }
            };
            let (first, second) = (tokio::spawn(wait(1)), tokio::spawn(wait(1)));
            tokio::task::yield_now().await;
            release.send(()).unwrap();
            assert_eq!((first.await.unwrap(), second.await.unwrap()), (round, round));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn one_who_leaves_does_not_take_the_answer_with_him() {
        let flights = Arc::new(Flights::<u8, u8>::default());
        let (release, held) = oneshot::channel::<u8>();
        let mut held = Some(held);
        let mut first = Box::pin(flights.run(1, || {
            let held = held.take().unwrap();
            async move { held.await.unwrap() }.boxed()
        }));
        assert!(futures::poll!(&mut first).is_pending());
        let mut second = Box::pin(flights.run(1, || panic!("this is asked twice")));
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        release.send(7).unwrap();
        assert_eq!(second.await, 7);
        // Given up by all, it is asked anew.
        let mut left = Box::pin(flights.run(1, || futures::future::pending().boxed()));
        assert!(futures::poll!(&mut left).is_pending());
        drop(left);
        assert_eq!(flights.run(1, || async { 8 }.boxed()).await, 8);
    }
}
