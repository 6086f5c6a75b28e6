//! Images that are fetched ahead: without anybody pulling them, for the platforms that are meant, and kept whatever happens.

use std::net::SocketAddr;

use wharf::mirror_report::PinReport;

use super::faults::{REPOSITORY, TAG};
use super::pull::Outcome;
use super::report::report;
use super::served::{Mirror, entry};
use super::upstream::content::{Image, Index};
use super::upstream::faults::{Fault, Kind, Rule};
use super::upstream::{Access, Upstream};
use crate::operation::eventually;
use crate::process::free_address;

const SIZES: [usize; 2] = [2_000, 60_000];

fn cache(operations: SocketAddr, rest: &str) -> String {
    format!("operations: {operations}\ncache: {{tagMaxAgeSeconds: 0, {rest}}}\n")
}

fn image() -> String {
    format!("one.example/{REPOSITORY}:{TAG}")
}

async fn pin(operations: SocketAddr) -> PinReport {
    report(operations).await.pins.into_iter().next().unwrap()
}

/// Which blobs of an image were sent.
fn sent(upstream: &Upstream, image: &Image) -> usize {
    image.blobs().filter(|blob| !upstream.sent(&blob.digest).is_empty()).count()
}

#[tokio::test]
async fn a_pinned_image_is_here_before_anybody_asks_and_while_its_registry_is_away() {
    let (index, next) = (Index::of_seed(1, &SIZES), Index::of_seed(2, &SIZES));
    let upstream = Upstream::with([(REPOSITORY, index.is_tagged(TAG))]).await;
    let operations = free_address();
    let config = cache(operations, &format!("pin: ['{}'], platforms: [linux/amd64]", image()));
    let mirror = Mirror::start(&entry("one.example", &upstream, ""), &config);
    eventually(async || pin(operations).await.complete).await;
    assert_eq!(pin(operations).await, PinReport { image: image(), complete: true, problem: None });
    assert_eq!((sent(&upstream, &index.images[0]), sent(&upstream, &index.images[1])), (3, 0));
    upstream.leave().await;
    assert_eq!(mirror.puller().pull(REPOSITORY, TAG, &index, 0).await, Outcome::Right);
    // What is known of it outlives the process.
    mirror.stop_and_start();
    eventually(async || pin(operations).await.complete).await;
    upstream.come_back().await;
    // Another image behind the tag is fetched too; the next look is soon, because it comes after a start.
    upstream.put(REPOSITORY, next.is_tagged(TAG));
    mirror.stop_and_start();
    eventually(async || mirror.has(&next.images[0]) && pin(operations).await.complete).await;
    assert_eq!(sent(&upstream, &next.images[0]), 3);
    upstream.leave().await;
    assert_eq!(mirror.puller().pull(REPOSITORY, TAG, &next, 0).await, Outcome::Right);
    assert_eq!(upstream.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn a_pinned_image_stays_whatever_else_is_pulled_and_what_does_not_fit_is_told() {
    let index = Index::of_seed(3, &SIZES);
    let others: Vec<Index> = (10..16).map(|seed| Index::of_seed(seed, &[50_000])).collect();
    let upstream = Upstream::with([(REPOSITORY, index.is_tagged(TAG))]).await;
    for (number, other) in others.iter().enumerate() {
        upstream.put(&format!("other/{number}"), other.is_tagged(TAG));
    }
    let operations = free_address();
    let pins = format!(
        "pin: ['{}', 'one.example/other/0:{TAG}', 'elsewhere.example/a:1', '%', 'one.example/none:1']",
        image()
    );
    let rest = format!("{pins}, platforms: [linux/amd64], size: 120000");
    let mirror = Mirror::start(&entry("one.example", &upstream, ""), &cache(operations, &rest));
    let puller = mirror.puller();
    eventually(async || pin(operations).await.complete).await;
    let told = async || {
        let found = report(operations).await;
        let words = found.pins.into_iter().map(|pin| pin.problem.unwrap_or_default()).collect::<Vec<_>>();
        (words, found.cache.pins_exceed)
    };
    eventually(async || {
        told().await.0.iter().skip(1).all(|problem| !problem.is_empty() && !problem.contains("being fetched"))
    })
    .await;
    let (words, exceed) = told().await;
    for (problem, expected) in
        words.iter().zip(["", "four fifths", "not mirrored here", "docker.io/library", "does not have it"])
    {
        assert!(problem.contains(expected), "{problem}");
    }
    assert!(exceed);
    assert_eq!(upstream.count(Kind::GetBlob), 3, "something was fetched that cannot be kept");
    for (number, other) in others.iter().enumerate() {
        let outcome = puller.pull(&format!("other/{number}"), TAG, other, 0).await;
        assert_eq!(outcome, Outcome::Right, "{number}");
    }
    upstream.forget_seen();
    assert_eq!(puller.image(REPOSITORY, &index.images[0]).await, Outcome::Right);
    assert_eq!(upstream.count(Kind::GetBlob), 0, "a pinned image was evicted");
}

#[tokio::test]
async fn what_cannot_be_fetched_now_is_fetched_later() {
    let index = Index::of_seed(4, &SIZES);
    let upstream = Upstream::with([(REPOSITORY, index.is_tagged(TAG))]).await;
    let layer = &index.images[0].layers[1];
    upstream.rule(Rule { times: 12, ..Rule::first(Kind::GetBlob, Fault::Unavailable).of(&layer.digest) });
    let operations = free_address();
    let config = cache(operations, &format!("pin: ['{}'], platforms: [linux/amd64]", image()));
    let _mirror = Mirror::start(&entry("one.example", &upstream, ""), &config);
    eventually(async || pin(operations).await.problem.is_some_and(|problem| problem.contains("cannot be asked"))).await;
    assert!(!pin(operations).await.complete);
    upstream.heal();
    eventually(async || pin(operations).await.complete).await;
    assert_eq!(upstream.sent_again(&index.images[0].layers[0].digest), 0);
}

/// The mirror's own credential fetches them, and gives nobody a right.
#[tokio::test]
async fn a_pinned_private_image_is_given_to_nobody_who_has_no_right_to_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("username"), "mirror").unwrap();
    std::fs::write(folder.path().join("password"), "mirror-secret").unwrap();
    let index = Index::of_seed(5, &SIZES);
    let upstream = Upstream::start(Access::Tokens).await;
    upstream.put(REPOSITORY, index.is_tagged(TAG).only_for("mirror"));
    let operations = free_address();
    let config = cache(operations, &format!("pin: ['{}'], platforms: [linux/amd64]", image()));
    let more = format!(", credentials: \"{}\"", folder.path().display());
    let mirror = Mirror::start(&entry("one.example", &upstream, &more), &config);
    eventually(async || pin(operations).await.complete).await;
    let layer = format!("{REPOSITORY}/blobs/{}", index.images[0].layers[1].digest);
    for rest in [layer, format!("{REPOSITORY}/manifests/{TAG}")] {
        assert_eq!(mirror.puller().get(&rest).await.status, 401, "{rest}");
        let bob = mirror.puller().with("bob").get(&rest).await;
        assert!(matches!(bob.status.as_u16(), 401 | 403 | 404), "{rest}: {bob:?}");
        assert_eq!(mirror.puller().with("mirror").get(&rest).await.status, 200, "{rest}");
        assert_eq!(mirror.puller().get(&rest).await.status, 401, "{rest}");
    }
    assert!(!mirror.log().contains("-secret"), "{}", mirror.log());
}
