//! What a mirror fetches, keeps and serves, counted at the upstream.

use std::time::Duration;

use futures::future::join_all;
use http::{Method, StatusCode};
use tokio_util::sync::CancellationToken;

use super::faults::{REPOSITORY, TAG};
use super::pull::{Outcome, come};
use super::served::{Mirror, entry};
use super::upstream::content::Index;
use super::upstream::faults::{Fault, Kind, Rule};
use super::upstream::{Access, Upstream};
use crate::operation::eventually;

/// In which a client sees whether more comes.
const A_WHILE: Duration = Duration::from_secs(2);
const SIZES: [usize; 3] = [3_000, 70_000, 3_000_000];

async fn upstream(index: &Index) -> Upstream {
    Upstream::with([(REPOSITORY, index.is_tagged(TAG))]).await
}

/// What a cold pull of the first platform asks for: each object once.
fn expected(index: &Index) -> Vec<(Kind, String)> {
    let image = &index.images[0];
    let mut all = vec![
        (Kind::HeadTag, TAG.to_owned()),
        (Kind::GetManifest, index.manifest.digest.clone()),
        (Kind::GetManifest, image.manifest.digest.clone()),
    ];
    all.extend(image.blobs().map(|blob| (Kind::GetBlob, blob.digest.clone())));
    all.sort();
    all
}

fn sorted(mut asked: Vec<(Kind, String)>) -> Vec<(Kind, String)> {
    asked.sort();
    asked
}

#[tokio::test]
async fn a_cold_pull_asks_for_each_object_once_and_a_second_one_for_nothing() {
    for access in [Access::Basic, Access::Tokens] {
        let index = Index::of_seed(1, &SIZES);
        let upstream = Upstream::start(access).await;
        upstream.put(REPOSITORY, index.is_tagged(TAG));
        let mirror = Mirror::of(&upstream);
        let puller = mirror.puller();
        assert_eq!(puller.pull(REPOSITORY, TAG, &index, 0).await, Outcome::Right);
        assert_eq!(sorted(upstream.asked()), expected(&index), "{access:?}");
        // One token does for all of them.
        assert!(upstream.count(Kind::Token) <= 1);
        upstream.forget_seen();
        for puller in [puller.clone(), puller.podman()] {
            assert_eq!(puller.pull(REPOSITORY, TAG, &index, 0).await, Outcome::Right);
        }
        assert_eq!(upstream.asked(), []);
        assert_eq!(upstream.problems(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn twenty_cold_clients_cost_the_upstream_as_much_as_one() {
    let index = Index::of_seed(2, &SIZES);
    let upstream = upstream(&index).await;
    let mirror = Mirror::of(&upstream);
    let puller = mirror.puller();
    let pulls = (0..20).map(|number| {
        let puller = if number % 2 == 0 { puller.another() } else { puller.another().podman() };
        let index = &index;
        async move { puller.pull(REPOSITORY, TAG, index, 0).await }
    });
    assert!(join_all(pulls).await.iter().all(|outcome| *outcome == Outcome::Right));
    let unique: usize = index.images[0].blobs().map(|blob| blob.bytes.len()).sum();
    assert_eq!(upstream.bytes_sent(), unique as u64);
    for blob in index.images[0].blobs() {
        assert_eq!(upstream.sent(&blob.digest).len(), 1);
    }
    // The index and one manifest of it.
    assert_eq!((upstream.count(Kind::GetTag), upstream.count(Kind::GetManifest)), (0, 2));
    // Nobody has asked for the other platform.
    let other = &index.images[1].manifest.digest;
    assert!(upstream.seen().iter().all(|seen| seen.reference != *other));
}

#[tokio::test]
async fn headers_and_bytes_come_before_the_upstream_is_done_and_parts_too() {
    let index = Index::of_seed(3, &SIZES);
    let upstream = upstream(&index).await;
    let (gate, blob) = (CancellationToken::new(), &index.images[0].layers[2]);
    upstream.rule(Rule::first(Kind::GetBlob, Fault::Gate(gate.clone())).of(&blob.digest));
    let mirror = Mirror::of(&upstream);
    let puller = mirror.puller();
    let first = tokio::spawn({
        let (puller, blob) = (puller.another(), blob.clone());
        async move { puller.blob(REPOSITORY, &blob).await }
    });
    eventually(async || upstream.count(Kind::GetBlob) == 1).await;
    // What has come is given, whatever is still to come.
    let part = puller.part(REPOSITORY, blob, 1_000, Some(500_000)).await;
    assert_eq!(part, Outcome::Right);
    let rest = format!("{REPOSITORY}/blobs/{}", blob.digest);
    let came = puller.ask(Method::GET, &rest, &[("range", "bytes=7-8")]).await;
    assert_eq!((came.status, &came.bytes[..]), (StatusCode::PARTIAL_CONTENT, &blob.bytes[7..9]));
    assert!(!came.header("wharf-fill").is_empty() && came.header("etag").is_empty(), "{came:?}");
    let ahead = tokio::spawn({
        let (puller, blob) = (puller.another(), blob.clone());
        async move { puller.part(REPOSITORY, &blob, 2_900_000, None).await }
    });
    gate.cancel();
    assert_eq!((first.await.unwrap(), ahead.await.unwrap()), (Outcome::Right, Outcome::Right));
    // Its readers have it as soon as it is proven to be right; a moment later it is kept.
    let proven = format!("\"{}\"", blob.digest);
    eventually(async || {
        let came = puller.ask(Method::GET, &rest, &[("range", "bytes=7-8")]).await;
        came.header("etag") == proven && came.header("wharf-fill").is_empty()
    })
    .await;
    assert_eq!(upstream.bytes_sent(), blob.bytes.len() as u64);
}

/// The bytes could still be wrong, and a client that has them all does not ask whether they were.
#[tokio::test]
async fn the_end_of_a_blob_waits_until_its_digest_is_proven() {
    let index = Index::of_seed(8, &[300_000]);
    let upstream = upstream(&index).await;
    let (gate, blob) = (CancellationToken::new(), &index.images[0].layers[0]);
    upstream.rule(Rule::first(Kind::GetBlob, Fault::GateAtEnd(gate.clone())).of(&blob.digest));
    let mirror = Mirror::of(&upstream);
    let (puller, length) = (mirror.puller(), blob.bytes.len());
    let rest = format!("{REPOSITORY}/blobs/{}", blob.digest);
    // All that comes while nothing more does; later readers get no more than the first.
    for from in [0, 200_000] {
        let range = format!("bytes={from}-");
        let headers = [("range", range.as_str())];
        let came = come(&puller.client, Method::GET, &puller.target(&rest), &headers, A_WHILE, length).await.unwrap();
        assert!(!came.whole && blob.bytes[from..length - 64 * 1024].starts_with(&came.bytes), "{}", came.bytes.len());
    }
    gate.cancel();
    assert_eq!(puller.blob(REPOSITORY, blob).await, Outcome::Right);
    assert_eq!(upstream.sent(&blob.digest).len(), 1);
}

#[tokio::test]
async fn a_fill_that_is_cut_goes_on_where_it_was() {
    let index = Index::of_seed(4, &SIZES);
    let upstream = upstream(&index).await;
    let blob = &index.images[0].layers[2];
    upstream.rule(Rule { times: 2, ..Rule::first(Kind::GetBlob, Fault::CutInBody).of(&blob.digest) });
    let mirror = Mirror::of(&upstream);
    assert_eq!(mirror.puller().blob(REPOSITORY, blob).await, Outcome::Right);
    let parts = upstream.sent(&blob.digest);
    assert!(parts.len() == 3 && upstream.sent_again(&blob.digest) == 0, "{parts:?}");
    let again = upstream.seen().into_iter().filter(|seen| seen.reference == blob.digest).skip(1);
    for seen in again {
        assert!(seen.headers.contains_key("if-range"), "{:?}", seen.headers);
    }
}

#[tokio::test]
async fn clients_that_leave_do_not_end_a_fill() {
    let index = Index::of_seed(5, &SIZES);
    let upstream = upstream(&index).await;
    let (gate, blob) = (CancellationToken::new(), &index.images[0].layers[2]);
    upstream.rule(Rule::first(Kind::GetBlob, Fault::Gate(gate.clone())).of(&blob.digest));
    let mirror = Mirror::of(&upstream);
    let puller = mirror.puller();
    let leaving = tokio::spawn({
        let (puller, blob) = (puller.another(), blob.clone());
        async move { puller.blob(REPOSITORY, &blob).await }
    });
    eventually(async || upstream.bytes_sent() > 1_000_000).await;
    leaving.abort();
    gate.cancel();
    eventually(async || upstream.bytes_sent() == blob.bytes.len() as u64).await;
    assert_eq!(puller.blob(REPOSITORY, blob).await, Outcome::Right);
    assert_eq!(upstream.sent(&blob.digest).len(), 1);
}

#[tokio::test]
async fn a_tag_is_asked_for_again_when_it_is_old_and_its_image_only_if_it_is_another() {
    let (old, new) = (Index::of_seed(6, &[1_000]), Index::of_seed(7, &[1_000]));
    let upstream = upstream(&old).await;
    let mirror = Mirror::start(&entry("one.example", &upstream, ""), "cache: {tagMaxAgeSeconds: 2}\n");
    let puller = mirror.puller();
    assert_eq!(puller.pull(REPOSITORY, TAG, &old, 0).await, Outcome::Right);
    upstream.forget_seen();
    tokio::time::sleep(Duration::from_secs(3)).await;
    // All who wait share one question.
    let pulls = (0..10).map(|_| puller.pull(REPOSITORY, TAG, &old, 0));
    assert!(join_all(pulls).await.iter().all(|outcome| *outcome == Outcome::Right));
    assert_eq!(upstream.asked(), [(Kind::HeadTag, TAG.to_owned())]);
    upstream.put(REPOSITORY, new.is_tagged(TAG));
    puller.pull_in_the_end(REPOSITORY, TAG, &new, 0).await;
}
