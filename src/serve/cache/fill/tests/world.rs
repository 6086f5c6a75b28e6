//! A store in memory and upstreams, both of which fail as often as they are told, and wait at each step for others.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::scheduler::Planned;
use crate::oci::{Algorithm, Digest, Hasher};
use crate::serve::cache::fill::{Keep, Partial, PartialFile, Sources};
use crate::serve::cache::store::Scope;
use crate::serve::store::{Answer, StoreError};
use crate::serve::upstream::{Arriving, Failure, Source};

/// One in how many steps goes wrong; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// An upstream refuses to begin.
    pub opening: u32,
    /// It is cut off.
    pub cut: u32,
    /// It gives another byte, too many or too few.
    pub wrong: u32,
    /// It does not say how long the blob is.
    pub unannounced: u32,
    /// The store has no room to begin.
    pub room: u32,
    /// The store refuses a step.
    pub store: u32,
    /// The store panics.
    pub panic: u32,
}

#[derive(Default)]
pub struct Log {
    /// How many sources were asked for bytes from the beginning on.
    pub begun: u64,
    /// Partial blobs that there are.
    pub partials: usize,
    /// What was committed, and for whom.
    pub kept: HashMap<Digest, (Bytes, BTreeSet<Scope>)>,
    /// How often.
    pub commits: usize,
    /// Whether any upstream gave a byte that is wrong.
    pub gave_wrong: bool,
    /// Which scopes their upstream was asked for, so that they may have the blob.
    pub asked: HashSet<(Digest, Scope)>,
}

pub struct World {
    random: Mutex<StdRng>,
    faults: Mutex<Faults>,
    log: Mutex<Log>,
}

pub fn digest(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

pub fn scope(upstream: &str, repository: &str) -> Scope {
    Scope { upstream: upstream.parse().unwrap(), repository: repository.parse().unwrap() }
}

fn refused(what: &str) -> StoreError {
    StoreError { doing: "write", what: what.to_owned(), source: io::ErrorKind::StorageFull.into() }
}

impl World {
    pub fn new(seed: u64, faults: Faults) -> Arc<Self> {
        let random = Mutex::new(StdRng::seed_from_u64(seed));
        Arc::new(Self { random, faults: Mutex::new(faults), log: Mutex::default() })
    }

    pub fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap()
    }

    pub fn change(&self, faults: Faults) {
        *self.faults.lock().unwrap() = faults;
    }

    fn faults(&self) -> Faults {
        *self.faults.lock().unwrap()
    }

    pub fn random(&self, range: Range<u32>) -> u32 {
        self.random.lock().unwrap().random_range(range)
    }

    fn happens(&self, one_in: u32) -> bool {
        one_in > 0 && self.random(0..one_in) == 0
    }

    /// Lets others go first, sometimes.
    pub async fn pause(&self) {
        for _ in 0..self.random(0..3) {
            let mut yielded = false;
            futures::future::poll_fn(|context| {
                if std::mem::replace(&mut yielded, true) {
                    return std::task::Poll::Ready(());
                }
                context.waker().wake_by_ref();
                std::task::Poll::Pending
            })
            .await;
        }
    }

    async fn store_step(&self, what: &str) -> Result<(), StoreError> {
        self.pause().await;
        if self.happens(self.faults().panic) {
            // Without the message that a panic leaves.
            std::panic::resume_unwind(Box::new(Planned));
        }
        if self.happens(self.faults().store) { Err(refused(what)) } else { Ok(()) }
    }

    /// Sources of a blob.
    pub fn sources(self: &Arc<Self>, scope: &Scope, blob: &Bytes) -> Sources {
        let (world, scope, blob) = (self.clone(), scope.clone(), blob.clone());
        Arc::new(move || {
            let (world, scope, blob) = (world.clone(), scope.clone(), blob.clone());
            Box::new(Upstream { world, scope, blob, asked: false })
        })
    }
}

struct Upstream {
    world: Arc<World>,
    scope: Scope,
    blob: Bytes,
    asked: bool,
}

impl Upstream {
    fn away(&self) -> Failure {
        Failure::Away { host: self.scope.upstream.clone(), problem: "it is cut off".to_owned(), retry_after: None }
    }

    fn refuses(&self) -> Failure {
        match self.world.random(0..4) {
            0 => Failure::NotFound(self.scope.upstream.clone()),
            1 => Failure::Denied(self.scope.upstream.clone()),
            2 => Failure::Wrong { host: self.scope.upstream.clone(), problem: "its headers are".to_owned() },
            _ => self.away(),
        }
    }

    /// What it gives of its blob, piece by piece.
    fn pieces(&self, offset: usize) -> Vec<Result<Bytes, Failure>> {
        let (world, faults) = (&self.world, self.world.faults());
        let mut bytes = self.blob[offset..].to_vec();
        if world.happens(faults.wrong) {
            world.log().gave_wrong = true;
            match world.random(0..4) {
                0 => bytes.push(0),
                1 => drop(bytes.pop()),
                _ if bytes.is_empty() => {}
                _ => {
                    let at = world.random(0..u32::try_from(bytes.len()).unwrap()) as usize;
                    bytes[at] = !bytes[at];
                }
            }
        }
        let (mut pieces, mut rest) = (Vec::new(), Bytes::from(bytes));
        while !rest.is_empty() {
            if world.happens(faults.cut) {
                pieces.push(Err(self.away()));
                return pieces;
            }
            let length = rest.len().min(world.random(0..7) as usize);
            pieces.push(Ok(rest.split_to(length)));
        }
        // The end takes its time, in which readers get as far as they may.
        pieces.extend(vec![Ok(Bytes::new()); 20]);
        pieces
    }
}

impl Source for Upstream {
    fn open(&mut self, offset: u64) -> BoxFuture<'_, Result<Arriving, Failure>> {
        async move {
            self.world.log().begun += u64::from(offset == 0 && !std::mem::replace(&mut self.asked, true));
            self.world.log().asked.insert((digest(&self.blob), self.scope.clone()));
            self.world.pause().await;
            if self.world.happens(self.world.faults().opening) {
                return Err(self.refuses());
            }
            let announced = !self.world.happens(self.world.faults().unannounced);
            let (world, pieces) = (self.world.clone(), self.pieces(usize::try_from(offset).unwrap()));
            let slowly = move |piece| {
                let world = world.clone();
                async move {
                    world.pause().await;
                    piece
                }
            };
            let bytes = stream::iter(pieces).then(slowly).boxed();
            Ok(Arriving { length: announced.then_some(self.blob.len() as u64), bytes })
        }
        .boxed()
    }
}

struct Growing {
    world: Arc<World>,
    digest: Digest,
    room: u64,
    file: Arc<File>,
    /// Whether it is still there.
    there: bool,
}

struct File {
    world: Arc<World>,
    bytes: Mutex<Vec<u8>>,
}

impl Drop for Growing {
    fn drop(&mut self) {
        if self.there {
            self.world.log().partials -= 1;
        }
    }
}

/// The store of a world.
pub struct Store(pub Arc<World>);

impl Keep for Store {
    fn has<'a>(&'a self, digest: &'a Digest) -> Answer<'a, bool> {
        async move {
            self.0.pause().await;
            Ok(self.0.log().kept.contains_key(digest))
        }
        .boxed()
    }

    fn begin<'a>(&'a self, digest: &'a Digest, bytes: u64) -> Answer<'a, Option<Box<dyn Partial>>> {
        async move {
            self.0.store_step("a file").await?;
            if self.0.happens(self.0.faults().room) {
                return Ok(None);
            }
            self.0.log().partials += 1;
            let file = Arc::new(File { world: self.0.clone(), bytes: Mutex::default() });
            let partial = Growing { world: self.0.clone(), digest: digest.clone(), room: bytes, file, there: true };
            Ok(Some(Box::new(partial) as Box<dyn Partial>))
        }
        .boxed()
    }

    fn link<'a>(&'a self, scope: &'a Scope, digest: &'a Digest) -> Answer<'a, bool> {
        async move {
            self.0.pause().await;
            let mut log = self.0.log();
            Ok(log.kept.get_mut(digest).is_some_and(|(_, scopes)| scopes.insert(scope.clone())))
        }
        .boxed()
    }
}

impl Partial for Growing {
    fn append(&mut self, bytes: Vec<Bytes>, mut hasher: Hasher) -> Answer<'_, Hasher> {
        async move {
            self.world.store_step("bytes").await?;
            for bytes in bytes {
                hasher.update(&bytes);
                let mut there = self.file.bytes.lock().unwrap();
                there.extend_from_slice(&bytes);
                assert!(self.room == 0 || there.len() as u64 <= self.room, "more than there is room for");
            }
            self.world.pause().await;
            Ok(hasher)
        }
        .boxed()
    }

    fn file(&self) -> Arc<dyn PartialFile> {
        self.file.clone()
    }

    fn commit(mut self: Box<Self>, scopes: Vec<Scope>) -> Answer<'static, ()> {
        async move {
            self.world.store_step("a name").await?;
            // Long enough for others to be let in meanwhile.
            for _ in 0..8 {
                self.world.pause().await;
            }
            let bytes = Bytes::from(self.file.bytes.lock().unwrap().clone());
            assert_eq!(digest(&bytes), self.digest, "what is committed");
            let mut log = self.world.log();
            log.kept.insert(self.digest.clone(), (bytes, scopes.into_iter().collect()));
            log.commits += 1;
            log.partials -= 1;
            self.there = false;
            Ok(())
        }
        .boxed()
    }
}

impl PartialFile for File {
    fn read(&self, range: Range<u64>, _: BytesMut) -> Answer<'_, Bytes> {
        async move {
            self.world.pause().await;
            let bytes = self.bytes.lock().unwrap();
            let [start, end] = [range.start, range.end].map(|at| usize::try_from(at).unwrap());
            assert!(start < end && end <= bytes.len(), "{range:?} of {}", bytes.len());
            let some = 1 + self.world.random(0..u32::try_from(end - start).unwrap()) as usize;
            Ok(Bytes::copy_from_slice(&bytes[start..start + some]))
        }
        .boxed()
    }
}
