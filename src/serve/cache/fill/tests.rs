//! Fills of a store in memory, from upstreams that do what they are told.

mod interleavings;
mod kept;
mod said;
mod scheduler;
mod world;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt, future, stream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use self::world::{Faults, Store, World, digest, scope};
use super::supply::RESUMES;
use super::{Body, Bounds, FillError, Fills, Given, Sources};
use crate::serve::cache::store::Scope;
use crate::serve::store::{Content, StoreError};
use crate::serve::upstream::{Arriving, Failure, Source};

const BLOB: &[u8] = b"forty bytes of a blob that is being filled";

const LENGTH: Option<u64> = Some(BLOB.len() as u64);

/// What an upstream says when it is asked for bytes from an offset on.
type Says = Arc<dyn Fn(u64) -> Result<Arriving, Failure> + Send + Sync>;

/// An upstream that is told what to say, and the offsets that it was asked for.
#[derive(Clone)]
struct Told {
    says: Says,
    asked: Arc<Mutex<Vec<u64>>>,
}

impl Told {
    fn to(says: impl Fn(u64) -> Result<Arriving, Failure> + Send + Sync + 'static) -> Self {
        Self { says: Arc::new(says), asked: Arc::default() }
    }

    /// One that gives the blob in pieces of four bytes, up to where it is cut off.
    fn cut_at(cut: usize) -> Self {
        Self::to(move |offset| {
            let offset = usize::try_from(offset).unwrap();
            let pieces = BLOB[offset..cut.max(offset)].chunks(4).map(|piece| Ok(Bytes::from_static(piece)));
            let end = (cut < BLOB.len()).then(|| Err(away()));
            Ok(arriving(stream::iter(pieces.chain(end).collect::<Vec<_>>())))
        })
    }

    fn healthy() -> Self {
        Self::cut_at(BLOB.len())
    }

    /// One that gives what is sent, once.
    fn by_hand(length: Option<u64>) -> (Self, mpsc::UnboundedSender<Bytes>) {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let pieces = stream::poll_fn(move |context| receiver.poll_recv(context).map(|piece| piece.map(Ok)));
        let once = Mutex::new(Some(Arriving { length, ..arriving(pieces) }));
        (Self::to(move |_| once.lock().unwrap().take().ok_or_else(away)), sender)
    }

    fn sources(&self) -> Sources {
        let told = self.clone();
        Arc::new(move || Box::new(told.clone()))
    }

    fn asked(&self) -> Vec<u64> {
        self.asked.lock().unwrap().clone()
    }
}

impl Source for Told {
    fn open(&mut self, offset: u64) -> future::BoxFuture<'_, Result<Arriving, Failure>> {
        self.asked.lock().unwrap().push(offset);
        let said = (self.says)(offset);
        // It takes some time to say so.
        async move { sleep(Duration::from_millis(10)).await }.map(|()| said).boxed()
    }
}

fn arriving(bytes: impl stream::Stream<Item = Result<Bytes, Failure>> + Send + 'static) -> Arriving {
    Arriving { length: LENGTH, bytes: bytes.boxed() }
}

fn away() -> Failure {
    Failure::Away { host: "a.example".parse().unwrap(), problem: "it is cut off".to_owned(), retry_after: None }
}

fn here() -> Scope {
    scope("a.example", "public")
}

fn bounds() -> Bounds {
    Bounds { at_once: 1, held_back: 4, worth_finishing: 8, ..Bounds::default() }
}

fn fills(faults: Faults) -> (Arc<Fills>, Arc<World>) {
    let world = World::new(0, faults);
    (Fills::new(Arc::new(Store(world.clone())), bounds()), world)
}

async fn get(fills: &Arc<Fills>, told: &Told) -> Result<Given, FillError> {
    fills.get(&here(), &digest(BLOB), 1, told.sources()).await
}

fn content(given: Given) -> Arc<dyn Content> {
    match given.body {
        Body::Measured(content) => content,
        Body::Unmeasured(_) => panic!("its length is not known"),
    }
}

async fn read(content: &dyn Content, range: std::ops::Range<u64>) -> Result<Bytes, StoreError> {
    let mut bytes = BytesMut::new();
    while (bytes.len() as u64) < range.end - range.start {
        let rest = range.start + bytes.len() as u64..range.end;
        let some = content.read(rest, BytesMut::new()).await?;
        assert!(!some.is_empty(), "no bytes, but no end");
        bytes.extend_from_slice(&some);
    }
    Ok(bytes.freeze())
}

async fn read_all(content: &dyn Content) -> Result<Bytes, StoreError> {
    read(content, 0..content.length()).await
}

/// How many partial blobs there are, and how many were committed.
fn left(world: &World) -> (usize, usize) {
    let log = world.log();
    (log.partials, log.commits)
}

/// Lets everybody go on until they wait for something.
async fn settle() {
    sleep(Duration::from_millis(20)).await;
}

#[tokio::test(start_paused = true)]
async fn no_reader_waits_for_another_and_the_fill_waits_for_none() {
    let (fills, world) = fills(Faults::default());
    let (told, sender) = Told::by_hand(LENGTH);
    let (slow, quick) = tokio::join!(get(&fills, &told), get(&fills, &told));
    let (slow, quick) = (slow.unwrap(), quick.unwrap());
    assert_eq!((slow.joined, quick.joined, slow.fill.is_some()), (false, true, true));
    assert_eq!(slow.fill, quick.fill);
    let (slow, quick) = (content(slow), content(quick));
    sender.send(Bytes::from_static(&BLOB[..20])).unwrap();
    assert_eq!(read(&*quick, 3..20).await.unwrap(), &BLOB[3..20]);
    assert!(read(&*quick, 12..24).now_or_never().is_none(), "what has not come cannot be read");
    sender.send(Bytes::from_static(&BLOB[20..])).unwrap();
    settle().await;
    // All is there, but not the end.
    assert_eq!(read(&*quick, 20..BLOB.len() as u64 - 1).await.unwrap(), &BLOB[20..BLOB.len() - 1]);
    assert!(read_all(&*quick).now_or_never().is_none(), "the last bytes are not proven");
    drop(sender);
    assert_eq!(read_all(&*quick).await.unwrap(), BLOB);
    settle().await;
    assert!(world.log().kept.contains_key(&digest(BLOB)));
    assert_eq!(read_all(&*slow).await.unwrap(), BLOB);
    assert_eq!(get(&fills, &told).await.err(), Some(FillError::Kept));
    assert_eq!(told.asked(), [0]);
    let figures = &fills.figures()[&here().upstream];
    let (begun, joined, bytes) = (figures.begun, figures.joined, figures.upstream_bytes);
    assert_eq!((begun, joined, bytes), (1, 1, BLOB.len() as u64));
}

#[tokio::test(start_paused = true)]
async fn a_fill_goes_on_without_clients_from_its_half_on() {
    for (there, goes_on) in [(BLOB.len() / 2 - 1, false), (BLOB.len() / 2, true)] {
        let (fills, world) = fills(Faults::default());
        let (told, sender) = Told::by_hand(LENGTH);
        let given = get(&fills, &told).await.unwrap();
        sender.send(Bytes::from_static(&BLOB[..there])).unwrap();
        settle().await;
        assert_eq!(fills.under_way()[0].there, there as u64);
        drop(given);
        settle().await;
        assert_eq!(fills.under_way().len(), usize::from(goes_on));
        assert_eq!(sender.is_closed(), !goes_on);
        let sent = sender.send(Bytes::from_static(&BLOB[there..]));
        drop(sender);
        settle().await;
        assert_eq!((sent.is_ok(), world.log().commits), (goes_on, usize::from(goes_on)));
        assert_eq!(world.log().partials, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_comes_in_time_saves_a_fill() {
    let (fills, world) = fills(Faults::default());
    let (told, sender) = Told::by_hand(LENGTH);
    let first = get(&fills, &told).await.unwrap();
    sender.send(Bytes::from_static(&BLOB[..8])).unwrap();
    settle().await;
    drop(first);
    // The fill's task has not run since.
    let second = get(&fills, &told).now_or_never().unwrap().unwrap();
    settle().await;
    sender.send(Bytes::from_static(&BLOB[8..])).unwrap();
    drop(sender);
    assert_eq!(read_all(&*content(second)).await.unwrap(), BLOB);
    settle().await;
    assert_eq!((told.asked(), world.log().commits), (vec![0], 1));
}

#[tokio::test(start_paused = true)]
async fn wrong_bytes_are_never_the_end_and_are_remembered() {
    let (fills, world) = fills(Faults::default());
    let wrong = Told::to(|_| {
        let mut bytes = BLOB.to_vec();
        bytes[7] = 0;
        Ok(arriving(stream::iter([Ok(Bytes::from(bytes))])))
    });
    let given = get(&fills, &wrong).await;
    // The upstream was faster than the answer; who has one already is cut off.
    let given = given.map(content);
    if let Ok(content) = &given {
        assert!(read(&**content, 0..BLOB.len() as u64).await.is_err());
    }
    settle().await;
    let now = Instant::now().into_std();
    assert!(fills.was_wrong(&digest(BLOB), now));
    assert!(!fills.was_wrong(&digest(BLOB), now + Duration::from_secs(601)));
    assert_eq!((left(&world), fills.under_way().len()), ((0, 0), 0));
    let right = Told::healthy();
    assert_eq!(read_all(&*content(get(&fills, &right).await.unwrap())).await.unwrap(), BLOB);
    assert_eq!(right.asked(), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_cut_is_met_a_few_times_where_it_was() {
    let (fills, world) = fills(Faults::default());
    let told = Told::cut_at(10);
    let content = content(get(&fills, &told).await.unwrap());
    assert_eq!(read(&*content, 0..10).await.unwrap(), &BLOB[..10]);
    let begun = Instant::now();
    assert!(read_all(&*content).await.is_err());
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(told.asked()[..2], [0, 10]);
    assert_eq!(told.asked().len(), 1 + RESUMES as usize);
    assert_eq!(world.log().partials, 0);
    assert_eq!(fills.figures()[&here().upstream].failed[&super::FailedBy::Cut], 1);
    assert!(!fills.was_wrong(&digest(BLOB), Instant::now().into_std()));
}

#[tokio::test(start_paused = true)]
async fn a_fill_that_is_refused_is_refused_to_all_who_waited() {
    let (fills, _) = fills(Faults::default());
    for (failure, asked) in [
        (away(), 1),
        (Failure::NotFound(here().upstream), 1),
        // To whom it does not give it, it says so one by one.
        (Failure::Denied(here().upstream), 4),
    ] {
        let said = failure.clone();
        let told = Told::to(move |_| Err(said.clone()));
        let answers = future::join_all((0..4).map(|_| get(&fills, &told))).await;
        assert!(answers.into_iter().all(|answer| answer.err() == Some(FillError::Upstream(failure.clone()))));
        assert_eq!(told.asked().len(), asked, "{failure}");
    }
}

#[tokio::test(start_paused = true)]
async fn another_scope_has_nothing_of_a_fill_until_it_is_allowed() {
    let (fills, world) = fills(Faults::default());
    let (told, sender) = Told::by_hand(LENGTH);
    let given = get(&fills, &told).await.unwrap();
    let other = scope("b.example", "private");
    let blob = digest(BLOB);
    let ask = || fills.get(&other, &blob, 2, told.sources());
    assert_eq!(ask().await.err(), Some(FillError::OfAnotherScope));
    assert!(fills.running(&digest(BLOB)).unwrap().allow(&other));
    assert!(ask().await.unwrap().joined);
    sender.send(Bytes::from_static(BLOB)).unwrap();
    let fill = fills.running(&digest(BLOB)).unwrap();
    drop(sender);
    assert_eq!(read_all(&*content(given)).await.unwrap(), BLOB);
    settle().await;
    assert!(!fill.allow(&scope("c.example", "late")), "it is over");
    let scopes = world.log().kept[&digest(BLOB)].1.clone();
    assert_eq!(scopes, [here(), other].into());
}

#[tokio::test(start_paused = true)]
async fn a_fill_waits_for_its_place_and_not_for_ever() {
    let (fills, _) = fills(Faults::default());
    let (told, sender) = Told::by_hand(LENGTH);
    let _given = get(&fills, &told).await.unwrap();
    let other = || async {
        let told = Told::to(|_| Ok(Arriving { length: Some(0), bytes: stream::empty().boxed() }));
        fills.get(&here(), &digest(b""), 2, told.sources()).await.map(drop)
    };
    assert_eq!(other().await, Err(FillError::Busy(here().upstream)));
    assert_eq!(fills.under_way().len(), 1);
    drop(sender);
    assert_eq!(other().await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn where_there_is_no_room_each_client_gets_its_own_bytes() {
    let (fills, world) = fills(Faults { room: 1, ..Faults::default() });
    let told = Told::healthy();
    let (first, second) = tokio::join!(get(&fills, &told), get(&fills, &told));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!((&first.fill, &second.fill, first.joined), (&None, &None, false));
    assert_eq!(told.asked(), [0, 0]);
    assert_eq!(read_all(&*content(first)).await.unwrap(), BLOB);
    // A range is asked for as it is.
    assert_eq!(read(&*content(second), 5..9).await.unwrap(), &BLOB[5..9]);
    assert_eq!(told.asked(), [0, 0, 5]);
    assert_eq!((world.log().commits, fills.figures()[&here().upstream].passed_through), (0, 2));
    let short = Told::to(|offset| {
        let rest = BLOB.get(usize::try_from(offset).unwrap()..BLOB.len() - 1).unwrap_or_default();
        Ok(arriving(stream::iter([Ok(Bytes::from_static(rest))])))
    });
    // A range proves nothing, but too few bytes of it are never its end.
    let given = content(get(&fills, &short).await.unwrap());
    assert!(read(&*given, 5..BLOB.len() as u64).await.is_err());
    let (fills, _) = self::fills(Faults { room: 1, ..Faults::default() });
    let wrong = Told::to(|_| Ok(arriving(stream::iter([Ok(Bytes::from(vec![0; BLOB.len()]))]))));
    let given = content(get(&fills, &wrong).await.unwrap());
    assert!(read_all(&*given).await.is_err());
    assert!(fills.was_wrong(&digest(BLOB), Instant::now().into_std()));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_more_keeps_nobody_from_the_rest() {
    let (fills, world) = fills(Faults::default());
    let (told, sender) = Told::by_hand(LENGTH);
    let (whole, late, part) = tokio::join!(get(&fills, &told), get(&fills, &told), get(&fills, &told));
    let healthy = Told::healthy();
    let joined = content(get(&fills, &healthy).await.unwrap());
    sender.send(Bytes::from_static(&BLOB[..12])).unwrap();
    assert_eq!(read(&*joined, 0..10).await.unwrap(), &BLOB[..10]);
    world.change(Faults { store: 1, ..Faults::default() });
    sender.send(Bytes::from_static(&BLOB[12..16])).unwrap();
    settle().await;
    assert_eq!((fills.under_way().len(), world.log().partials), (0, 0));
    // Behind what is there, which was hashed: so that the end is proven.
    assert_eq!(read(&*joined, 10..BLOB.len() as u64).await.unwrap(), &BLOB[10..]);
    assert_eq!(healthy.asked(), [12]);
    for given in [whole, late, part] {
        // Their upstream gives it only once.
        let content = content(given.unwrap());
        assert_eq!(read(&*content, 2..12).await.unwrap(), &BLOB[2..12]);
        assert!(read_all(&*content).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_blob_of_unknown_length_is_whole_at_its_end_alone() {
    for right in [true, false] {
        let (fills, world) = fills(Faults::default());
        let (told, sender) = Told::by_hand(None);
        let given = get(&fills, &told).await.unwrap();
        let Body::Unmeasured(mut bytes) = given.body else { panic!("it was never said how long it is") };
        sender.send(Bytes::from_static(&BLOB[..20])).unwrap();
        let mut received = Vec::new();
        while received.len() < 16 {
            received.extend_from_slice(&bytes.next().await.unwrap().unwrap());
        }
        assert!(bytes.next().now_or_never().is_none());
        sender.send(if right { Bytes::from_static(&BLOB[20..]) } else { Bytes::from_static(b"else") }).unwrap();
        drop(sender);
        let rest: Vec<_> = bytes.collect().await;
        let complete: Option<Vec<Bytes>> = rest.into_iter().map(Result::ok).collect();
        assert_eq!(received, &BLOB[..16]);
        assert_eq!(complete.map(|pieces| pieces.concat()).as_deref(), right.then_some(&BLOB[16..]));
        settle().await;
        assert_eq!(left(&world), (0, usize::from(right)));
    }
}

#[test]
fn a_fill_whose_runtime_ends_leaves_nobody_waiting() {
    let start = || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let (first, second) = (start(), start());
    let (fills, world) = fills(Faults::default());
    let (told, _sender) = Told::by_hand(LENGTH);
    let given = first.block_on(get(&fills, &told)).unwrap();
    let opening = Told::to(|_| Ok(arriving(stream::pending())));
    let (here, another) = (here(), digest(b"another"));
    let mut waiting = Box::pin(fills.get(&here, &another, 2, opening.sources()));
    first.block_on(async { assert!((&mut waiting).now_or_never().is_none()) });
    drop(first);
    assert_eq!(second.block_on(waiting).err(), Some(FillError::Lost(here.upstream)));
    assert!(second.block_on(read_all(&*content(given))).is_err());
    assert_eq!((fills.under_way().len(), world.log().partials), (0, 0));
    let again = second.block_on(async { read_all(&*content(get(&fills, &Told::healthy()).await.unwrap())).await });
    assert_eq!(again.unwrap(), BLOB);
}
