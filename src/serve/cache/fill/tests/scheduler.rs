//! Tasks that are polled by hand: one at a time, in an order that a seed decides, and only where something woke them, so that a
//! wake-up that is missing shows as a standstill.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::task::{ArcWake, waker};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// How far time moves when nothing else does.
const STEP: Duration = Duration::from_millis(100);
/// Beyond this, nothing will.
const STANDSTILL: u32 = 6000;

struct Woken(AtomicBool);

impl ArcWake for Woken {
    fn wake_by_ref(woken: &Arc<Self>) {
        woken.0.store(true, Ordering::Relaxed);
    }
}

struct Task {
    future: BoxFuture<'static, ()>,
    woken: Arc<Woken>,
    waker: Waker,
    /// One step in so many ends it; 0 for none.
    mortality: u32,
}

/// Tasks that were begun by others.
pub type Spawned = Arc<Mutex<Vec<BoxFuture<'static, ()>>>>;

pub struct Scheduler {
    random: StdRng,
    tasks: Vec<Task>,
    pub spawned: Spawned,
    /// How mortal tasks are that were begun by others.
    pub spawned_mortality: u32,
}

impl Scheduler {
    pub fn new(seed: u64, spawned_mortality: u32) -> Self {
        Self { random: StdRng::seed_from_u64(seed), tasks: Vec::new(), spawned: Spawned::default(), spawned_mortality }
    }

    pub fn add(&mut self, future: BoxFuture<'static, ()>, mortality: u32) {
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let waker = waker(woken.clone());
        self.tasks.push(Task { future, woken, waker, mortality });
    }

    /// Polls until all tasks are done. Those that were spawned may panic, as a task of a runtime may.
    pub async fn run(&mut self) {
        let mut idle = 0;
        loop {
            let spawned = std::mem::take(&mut *self.spawned.lock().unwrap());
            for future in spawned {
                self.add(future, self.spawned_mortality);
            }
            let runnable: Vec<usize> =
                (0..self.tasks.len()).filter(|at| self.tasks[*at].woken.0.load(Ordering::Relaxed)).collect();
            if self.tasks.is_empty() {
                return;
            }
            if runnable.is_empty() {
                idle += 1;
                assert!(idle < STANDSTILL, "{} tasks stand still", self.tasks.len());
                tokio::time::advance(STEP).await;
                continue;
            }
            idle = 0;
            let at = runnable[self.random.random_range(0..runnable.len())];
            self.step(at);
            tokio::task::yield_now().await;
        }
    }

    fn step(&mut self, at: usize) {
        let task = &mut self.tasks[at];
        if task.mortality > 0 && self.random.random_range(0..task.mortality) == 0 {
            drop(self.tasks.swap_remove(at));
            return;
        }
        task.woken.0.store(false, Ordering::Relaxed);
        let mut context = Context::from_waker(&task.waker);
        let polled = catch_unwind(AssertUnwindSafe(|| task.future.as_mut().poll(&mut context)));
        match polled {
            Ok(Poll::Pending) => {}
            Ok(Poll::Ready(())) => drop(self.tasks.swap_remove(at)),
            Err(panic) if panic.is::<Planned>() => drop(self.tasks.swap_remove(at)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// What a task panics with that is meant to.
pub struct Planned;
