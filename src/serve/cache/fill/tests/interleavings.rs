//! Clients that come, read, leave and come again while upstream, store and runtime fail, step by step in an order that a seed
//! decides. What must be true of it whatever the order is checked of each answer, and of what is left in the end.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt};

use super::scheduler::Scheduler;
use super::world::{Faults, Store, World, digest, scope};
use crate::serve::cache::fill::{Body, Bounds, Figures, FillError, Fills, Given};
use crate::serve::cache::store::Scope;

const CLIENTS: usize = 8;

/// The seeds that are walked: so many, a hundred times as many when long, or the one of `WHARF_TEST_SEED`.
fn seeds(few: u64) -> Range<u64> {
    let long = std::env::var_os("WHARF_TEST_LONG").is_some();
    match std::env::var("WHARF_TEST_SEED").ok().and_then(|text| text.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..if long { 100 * few } else { few },
    }
}

/// Says which seed it was, when something panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("WHARF_TEST_SEED={}", self.0);
        }
    }
}

fn bounds(worth_finishing: u64) -> Bounds {
    Bounds {
        at_once: 1,
        patience: Duration::from_secs(5),
        worth_finishing,
        held_back: 4,
        unannounced: 24,
        memory: 1024,
    }
}

struct Client {
    world: Arc<World>,
    fills: Arc<Fills>,
    scope: Scope,
    blob: Bytes,
}

impl Client {
    /// Asks until there is an answer, as the server does; None where the answer is an error.
    async fn ask(&self) -> Option<Given> {
        loop {
            let digest = digest(&self.blob);
            self.world.pause().await;
            let kept = self.world.log().kept.get(&digest).map(|(_, scopes)| scopes.contains(&self.scope));
            if kept == Some(true) {
                return None;
            }
            let sources = self.world.sources(&self.scope, &self.blob);
            let id = u128::from(self.world.random(0..9));
            match self.fills.get(&self.scope, &digest, id, sources).await {
                Ok(given) => {
                    assert!(self.world.log().asked.contains(&(digest, self.scope.clone())), "nobody asked");
                    assert_eq!(given.length.is_some(), matches!(given.body, Body::Measured(_)));
                    assert!(given.length.is_none_or(|length| length == self.blob.len() as u64));
                    return Some(given);
                }
                Err(FillError::OfAnotherScope) => {
                    self.world.pause().await;
                    self.world.log().asked.insert((digest.clone(), self.scope.clone()));
                    if let Some(fill) = self.fills.running(&digest) {
                        fill.allow(&self.scope);
                    }
                }
                Err(FillError::Kept) => {
                    let mut log = self.world.log();
                    log.asked.insert((digest.clone(), self.scope.clone()));
                    let (bytes, scopes) = log.kept.get_mut(&digest).expect("it is kept");
                    assert_eq!(*bytes, self.blob);
                    scopes.insert(self.scope.clone());
                }
                Err(FillError::Upstream(_) | FillError::Busy(_) | FillError::Lost(_)) => return None,
            }
        }
    }

    /// Reads a range, or all there is. What it takes for complete must be right.
    async fn read(&self, given: Given, whole: bool) -> Option<Bytes> {
        let passed_through = given.fill.is_none();
        let (mut received, mut complete) = (BytesMut::new(), true);
        let mut range = 0..self.blob.len();
        match given.body {
            Body::Measured(content) => {
                let (from, to) = (self.world.random(0..64) as usize, self.world.random(0..64) as usize);
                if !whole && from < to && to <= range.end {
                    range = from..to;
                }
                while complete && received.len() < range.len() {
                    self.world.pause().await;
                    let rest = (range.start + received.len()) as u64..range.end as u64;
                    match content.read(rest, BytesMut::new()).await {
                        Ok(bytes) => {
                            assert!(!bytes.is_empty(), "no bytes, but no end");
                            received.extend_from_slice(&bytes);
                        }
                        Err(_) => complete = false,
                    }
                }
                assert!(received.len() <= range.len());
            }
            Body::Unmeasured(mut bytes) => {
                while let Some(next) = bytes.next().await {
                    self.world.pause().await;
                    match next {
                        Ok(bytes) => received.extend_from_slice(&bytes),
                        Err(_) => complete = false,
                    }
                }
            }
        }
        let proven = range.end == self.blob.len() && !(passed_through && range.start > 0);
        let must_be_right = (complete && proven) || !self.world.log().gave_wrong;
        if must_be_right {
            let end = range.start + received.len();
            assert_eq!(received, self.blob[range.start..end.min(self.blob.len())], "{range:?}");
            assert!(!complete || end == range.end, "{end} is not the end of {range:?}");
        }
        complete.then(|| received.freeze())
    }
}

/// Whether what is left is nothing.
fn assert_nothing_left(fills: &Fills, world: &World) {
    assert!(fills.under_way().is_empty());
    assert_eq!(world.log().partials, 0);
    assert_eq!((fills.reading.takers(), fills.filling.takers()), (0, 0));
    for host in fills.hosts.lock().unwrap().values() {
        assert_eq!(host.places.available_permits(), fills.bounds.at_once);
    }
}

/// What may happen on the way.
#[derive(Clone, Copy)]
struct Walk {
    faults: Faults,
    /// One step in so many is a client's last.
    mortality: u32,
    /// One step in so many is a fill's last, as when its runtime ends.
    spawned_mortality: u32,
    worth_finishing: u64,
}

impl Default for Walk {
    fn default() -> Self {
        Self { faults: Faults::default(), mortality: 0, spawned_mortality: 0, worth_finishing: 16 }
    }
}

impl Walk {
    /// Whether every fill must come to its end.
    fn is_healthy(&self) -> bool {
        self.faults == Faults::default() && self.mortality == 0 && self.worth_finishing > 48
    }
}

async fn walk(seed: u64, walked: Walk) {
    let Walk { faults, mortality, spawned_mortality, worth_finishing } = walked;
    let _seed = Seed(seed);
    let world = World::new(seed, faults);
    let mut scheduler = Scheduler::new(seed, spawned_mortality);
    let spawned = scheduler.spawned.clone();
    let spawn = Box::new(move |task| spawned.lock().unwrap().push(task));
    let fills = Fills::spawning(Arc::new(Store(world.clone())), bounds(worth_finishing), spawn);
    let blobs: Vec<Bytes> = (0..2_u8).map(|first| (0..world.random(0..48)).map(|_| first).collect()).collect();
    let scopes = [scope("a.example", "public"), scope("a.example", "private"), scope("b.example", "public")];
    let client = |which: usize, of: usize| Client {
        world: world.clone(),
        fills: fills.clone(),
        scope: scopes[which].clone(),
        blob: blobs[of].clone(),
    };
    for _ in 0..CLIENTS {
        let client = client(world.random(0..3) as usize, usize::from(world.random(0..4) == 0));
        let visits = 1 + world.random(0..3);
        let come = async move {
            for _ in 0..visits {
                if let Some(given) = client.ask().await {
                    client.read(given, false).await;
                }
            }
        };
        scheduler.add(come.boxed(), mortality);
    }
    scheduler.run().await;
    assert_nothing_left(&fills, &world);
    let figures = fills.figures();
    let count = |of: fn(&Figures) -> u64| figures.values().map(of).sum::<u64>();
    let (begun, passed) = (count(|host| host.begun), count(|host| host.passed_through));
    let opened = world.log().begun;
    assert!(
        opened >= begun && opened <= begun + passed,
        "{opened} opened of {begun} fills and {passed} passed through"
    );
    assert!(world.log().commits <= blobs.len(), "a blob that is kept was brought again");
    if walked.is_healthy() {
        let log = world.log();
        assert_eq!(opened, log.commits as u64);
        let links = log
            .kept
            .iter()
            .flat_map(|(digest, (_, scopes))| scopes.iter().map(|scope| (digest.clone(), scope.clone())));
        assert_eq!(links.collect::<HashSet<_>>(), log.asked, "who may have it, in the store too");
    }
    // Whatever happened, a healthy upstream heals it.
    world.change(Faults::default());
    scheduler.spawned_mortality = 0;
    for of in 0..blobs.len() {
        let last = client(0, of);
        let whole = async move {
            if let Some(given) = last.ask().await {
                assert_eq!(last.read(given, true).await.as_ref(), Some(&last.blob));
            }
        };
        scheduler.add(whole.boxed(), 0);
        scheduler.run().await;
    }
    assert_nothing_left(&fills, &world);
    assert_eq!(world.log().kept.len(), blobs.iter().collect::<BTreeSet<_>>().len());
}

fn walk_all(few: u64, walked: Walk) {
    for seed in seeds(few) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(walk(seed, walked));
    }
}

#[test]
fn a_healthy_upstream_is_asked_once() {
    walk_all(100, Walk { worth_finishing: 100, ..Walk::default() });
}

#[test]
fn clients_may_leave_at_any_moment() {
    walk_all(200, Walk { mortality: 20, ..Walk::default() });
}

#[test]
fn upstreams_may_fail_at_any_moment() {
    let faults = Faults { opening: 6, cut: 10, wrong: 4, unannounced: 4, ..Faults::default() };
    walk_all(200, Walk { faults, ..Walk::default() });
}

#[test]
fn the_store_may_refuse_at_any_moment() {
    let faults = Faults { unannounced: 4, room: 5, store: 6, ..Faults::default() };
    walk_all(200, Walk { faults, ..Walk::default() });
}

#[test]
fn everything_may_fail_at_any_moment() {
    let faults = Faults { opening: 12, cut: 12, wrong: 8, unannounced: 6, room: 8, store: 12, panic: 60 };
    walk_all(400, Walk { faults, mortality: 60, spawned_mortality: 100, ..Walk::default() });
}
