//! Upstreams that are away, silent or refusing, and starts and kills in the middle of it all: what is kept is served, and what is
//! half done is done again.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures::future::join_all;
use http::Method;
use tokio_util::sync::CancellationToken;

use super::faults::{REPOSITORY, TAG};
use super::pull::{Outcome, Puller};
use super::served::{Mirror, entry};
use super::upstream::content::Index;
use super::upstream::faults::{Fault, Kind, Rule};
use super::upstream::{Access, Upstream};
use crate::bad_input::files;
use crate::operation::eventually;

const SIZES: [usize; 2] = [2_000, 900_000];
/// Each tag has to be asked for again.
const ALWAYS: &str = "cache: {tagMaxAgeSeconds: 0}\n";

async fn pulled(seed: u64, config: &str) -> (Index, Upstream, Mirror) {
    let index = Index::of_seed(seed, &SIZES);
    let upstream = Upstream::with([(REPOSITORY, index.is_tagged(TAG))]).await;
    let mirror = Mirror::start(&entry("one.example", &upstream, ""), config);
    assert_eq!(mirror.puller().pull(REPOSITORY, TAG, &index, 0).await, Outcome::Right);
    mirror.settles().await;
    (index, upstream, mirror)
}

async fn age(puller: &Puller) -> Option<u64> {
    let came = puller.ask(Method::HEAD, &format!("{REPOSITORY}/manifests/{TAG}"), &[]).await;
    assert_eq!(came.status, 200, "{came:?}");
    came.headers.get("age").map(|value| value.to_str().unwrap().parse().unwrap())
}

#[tokio::test]
async fn it_starts_and_serves_what_it_has_while_the_upstream_is_away_or_silent() {
    let (index, upstream, mirror) = pulled(1, ALWAYS).await;
    assert_eq!(age(&mirror.puller()).await, None);
    for silent in [false, true] {
        upstream.fall_silent(silent);
        if !silent {
            upstream.leave().await;
        }
        mirror.stop_and_start();
        let puller = mirror.puller();
        for puller in [puller.clone(), puller.clone().podman()] {
            assert_eq!(puller.pull(REPOSITORY, TAG, &index, 0).await, Outcome::Right);
        }
        assert!(age(&puller).await.is_some());
        for rest in [format!("{REPOSITORY}/manifests/other"), "other/manifests/1".to_owned()] {
            let came = puller.get(&rest).await;
            assert!(came.status == 503 && came.headers.contains_key("retry-after"), "{rest}: {came:?}");
        }
        if !silent {
            upstream.come_back().await;
        }
    }
    upstream.heal();
    let puller = mirror.puller();
    eventually(async || age(&puller).await.is_none()).await;
}

#[tokio::test]
async fn a_tag_is_served_stale_while_the_upstream_cannot_say_and_not_when_it_says_no() {
    let faults = [Fault::TooMany, Fault::Internal, Fault::Unavailable, Fault::Dropped];
    let cases = join_all((0..faults.len() as u64).map(|seed| pulled(10 + seed, ALWAYS))).await;
    for ((index, upstream, mirror), fault) in cases.iter().zip(faults) {
        for kind in [Kind::HeadTag, Kind::GetTag] {
            upstream.rule(Rule::always(kind, fault.clone()));
        }
        let puller = mirror.puller();
        assert_eq!(puller.pull(REPOSITORY, TAG, index, 0).await, Outcome::Right, "{fault:?}");
        assert!(age(&puller).await.is_some(), "{fault:?}");
    }
    let (index, upstream, mirror) = &cases[0];
    upstream.heal();
    upstream.change(REPOSITORY, |repository| repository.tags.clear());
    let puller = mirror.puller();
    let by_tag = format!("{REPOSITORY}/manifests/{TAG}");
    eventually(async || puller.get(&by_tag).await.status == 404).await;
    // The image is what it always was.
    assert_eq!(puller.image(REPOSITORY, &index.images[0]).await, Outcome::Right);
}

#[tokio::test]
async fn without_tokens_or_with_its_own_credential_refused_it_serves_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials");
    std::fs::write(&file, "mirror:mirror-secret\n").unwrap();
    let index = Index::of_seed(20, &SIZES);
    let upstream = Upstream::start(Access::Tokens).await;
    upstream.put(REPOSITORY, index.is_tagged(TAG).only_for("mirror"));
    let more = format!(", privateImages: Shared, credentials: \"{}\"", file.display());
    let mirror = Mirror::start(&entry("one.example", &upstream, &more), ALWAYS);
    assert_eq!(mirror.puller().pull(REPOSITORY, TAG, &index, 0).await, Outcome::Right);
    upstream.rule(Rule::always(Kind::Token, Fault::Unavailable));
    mirror.stop_and_start();
    assert_eq!(mirror.puller().pull(REPOSITORY, TAG, &index, 0).await, Outcome::Right);
    upstream.heal();
    upstream.change_password("mirror", "another-secret");
    mirror.stop_and_start();
    let puller = mirror.puller();
    assert_eq!(puller.pull(REPOSITORY, TAG, &index, 0).await, Outcome::Right);
    assert!(age(&puller).await.is_some());
    // A new one is taken up from the file.
    std::fs::write(&file, "mirror:another-secret\n").unwrap();
    eventually(async || age(&puller).await.is_none()).await;
    assert!(!mirror.log().contains("-secret"), "{}", mirror.log());
}

/// podman and CRI-O do not go elsewhere once they have the manifest.
#[tokio::test]
async fn a_manifest_whose_image_is_not_here_is_not_given_while_the_upstream_is_away() {
    let index = Index::of_seed(30, &SIZES);
    let upstream = Upstream::with([(REPOSITORY, index.is_tagged(TAG))]).await;
    let mirror = Mirror::start(&entry("one.example", &upstream, ""), ALWAYS);
    let puller = mirror.puller().podman();
    let manifest = |digest: &str| format!("{REPOSITORY}/manifests/{digest}");
    let [by_tag, whole] = [TAG, &index.images[0].manifest.digest].map(manifest);
    let part = manifest(&index.images[1].manifest.digest);
    for rest in [&by_tag, &whole, &part] {
        assert_eq!(puller.get(rest).await.status, 200);
    }
    upstream.leave().await;
    eventually(async || {
        // Whatever opens the breaker.
        puller.get("other/manifests/1").await;
        let refused = [puller.get(&by_tag).await, puller.get(&whole).await, puller.get(&part).await];
        refused.iter().all(|came| came.status == 503 && came.headers.contains_key("retry-after"))
    })
    .await;
    upstream.come_back().await;
    puller.pull_in_the_end(REPOSITORY, TAG, &index, 0).await;
    upstream.leave().await;
    eventually(async || {
        puller.get("other/manifests/1").await;
        puller.get(&part).await.status == 503
    })
    .await;
    assert_eq!(puller.pull(REPOSITORY, TAG, &index, 0).await, Outcome::Right);
}

#[tokio::test]
async fn the_next_endpoint_is_asked_where_one_is_away() {
    let index = Index::of_seed(40, &SIZES);
    let [first, second] = [Upstream::with([]).await, Upstream::with([(REPOSITORY, index.is_tagged(TAG))]).await];
    first.put(REPOSITORY, index.is_tagged(TAG));
    let endpoints = format!("[\"http://{}\", \"http://{}\"]", first.address, second.address);
    let mirror = Mirror::start(&format!("- {{host: one.example, endpoints: {endpoints}}}\n"), ALWAYS);
    first.leave().await;
    assert_eq!(mirror.puller().pull(REPOSITORY, TAG, &index, 0).await, Outcome::Right);
    assert!(second.count(Kind::GetBlob) == 3 && first.count(Kind::GetBlob) == 0);
}

#[tokio::test]
async fn a_fill_that_is_killed_begins_anew_and_leaves_nothing() {
    let index = Index::of_seed(50, &SIZES);
    let upstream = Upstream::with([(REPOSITORY, index.is_tagged(TAG))]).await;
    let mirror = Mirror::of(&upstream);
    let blob = &index.images[0].layers[1];
    for _ in 0..3 {
        let gate = CancellationToken::new();
        upstream.forget_seen();
        upstream.rule(Rule::first(Kind::GetBlob, Fault::Gate(gate)).of(&blob.digest));
        let (puller, of) = (mirror.puller(), blob.clone());
        let cut = tokio::spawn(async move { puller.blob(REPOSITORY, &of).await });
        eventually(async || upstream.bytes_sent() > 400_000).await;
        mirror.kill_and_start();
        assert!(matches!(cut.await.unwrap(), Outcome::Failed(_)));
        eventually(async || {
            let found = files(&mirror.root().join("wharf"));
            found.iter().all(|file| file.metadata().is_ok_and(|file| file.len() < 300_000))
        })
        .await;
    }
    assert_eq!(mirror.puller().pull(REPOSITORY, TAG, &index, 0).await, Outcome::Right);
}

/// The cached file with these bytes.
fn cached(mirror: &Mirror, bytes: &[u8]) -> Vec<PathBuf> {
    let all = files(&mirror.root().join("wharf/cache"));
    all.into_iter().filter(|file| std::fs::read(file).is_ok_and(|found| found == bytes)).collect()
}

#[tokio::test]
async fn what_a_loss_of_power_has_spoilt_is_not_served() {
    let (index, upstream, mirror) = pulled(60, "").await;
    let image = &index.images[0];
    let spoilt: Vec<PathBuf> = image.blobs().flat_map(|blob| cached(&mirror, &blob.bytes)).collect();
    assert_eq!(spoilt.len(), 3);
    mirror.kill_with(|| {
        for file in &spoilt {
            let length = std::fs::metadata(file).unwrap().len();
            std::fs::write(file, vec![0; usize::try_from(length).unwrap()]).unwrap();
        }
    });
    let puller = mirror.puller();
    assert_eq!(puller.pull(REPOSITORY, TAG, &index, 0).await, Outcome::Right);
    mirror.settles().await;
    upstream.leave().await;
    assert_eq!(puller.image(REPOSITORY, image).await, Outcome::Right);
}

/// In this time comes what is here, also on a busy machine: far less than it takes to find out that an upstream is silent.
const SOON: Duration = Duration::from_secs(4);

/// The first to ask an upstream that has just fallen silent must not be the one who finds out.
#[tokio::test]
async fn nobody_waits_long_for_an_upstream_that_has_just_fallen_silent() {
    let (index, upstream, mirror) = pulled(70, ALWAYS).await;
    let puller = mirror.puller();
    upstream.fall_silent(true);
    let by_tag = format!("{REPOSITORY}/manifests/{TAG}");
    let begun = Instant::now();
    let came = puller.get(&by_tag).await;
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_eq!(
        (came.status.as_u16(), &came.bytes, came.headers.contains_key("age")),
        (200, &index.manifest.bytes, true)
    );
    // Whoever comes next waits even less.
    let begun = Instant::now();
    for _ in 0..20 {
        assert!(age(&puller).await.is_some());
    }
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_eq!(upstream.count(Kind::HeadTag), 2, "the question that is under way was asked again");
    assert_eq!(puller.pull(REPOSITORY, TAG, &index, 0).await, Outcome::Right);
    // The question went on, and what it found out is known.
    eventually(async || mirror.log().contains("an upstream is away")).await;
    upstream.heal();
    eventually(async || age(&puller).await.is_none()).await;
}

/// What a question finds out that nobody waited for counts all the same.
#[tokio::test]
async fn an_answer_that_comes_late_is_good_for_the_next() {
    let (old, upstream, mirror) = pulled(80, ALWAYS).await;
    let (puller, new) = (mirror.puller(), Index::of_seed(81, &SIZES));
    let by_tag = format!("{REPOSITORY}/manifests/{TAG}");
    let late = async || {
        upstream.rule(Rule::first(Kind::HeadTag, Fault::Late(Duration::from_secs(5))));
        let begun = Instant::now();
        assert!(age(&puller).await.is_some());
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        upstream.forget_seen();
    };
    upstream.put(REPOSITORY, new.is_tagged(TAG));
    late().await;
    assert_eq!(puller.pull(REPOSITORY, TAG, &old, 0).await, Outcome::Right);
    eventually(async || puller.get(&by_tag).await.bytes == new.manifest.bytes).await;
    upstream.heal();
    puller.pull_in_the_end(REPOSITORY, TAG, &new, 0).await;
    mirror.settles().await;
    upstream.change(REPOSITORY, |repository| repository.tags.clear());
    late().await;
    eventually(async || puller.get(&by_tag).await.status == 404).await;
}

/// A repository that was public two hours ago still is while its registry does not say otherwise.
#[tokio::test]
async fn a_right_that_was_proven_does_not_wait_long_for_its_next_proof() {
    let (index, upstream, mirror) = pulled(90, "").await;
    let two_hours = jiff::SignedDuration::from_hours(2);
    mirror.stop_with(|| {
        let all = files(&mirror.root().join("wharf/cache/registries"));
        let public = all.into_iter().find(|file| file.ends_with("_public")).unwrap();
        let since: i64 = std::fs::read_to_string(&public).unwrap().trim().parse().unwrap();
        std::fs::write(&public, format!("{}\n", since - two_hours.as_secs() * 1000)).unwrap();
    });
    upstream.fall_silent(true);
    let puller = mirror.puller();
    let begun = Instant::now();
    assert_eq!(puller.image(REPOSITORY, &index.images[0]).await, Outcome::Right);
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert!(upstream.count(Kind::HeadManifest) + upstream.count(Kind::HeadBlob) > 0, "nobody was asked");
}

/// Clients with less patience than this server would never let it find out.
#[tokio::test]
async fn a_silent_upstream_is_found_out_also_when_its_clients_have_left() {
    let upstream = Upstream::with([]).await;
    upstream.fall_silent(true);
    let mirror = Mirror::of(&upstream);
    let puller = mirror.puller();
    let left = tokio::time::timeout(Duration::from_millis(500), puller.get("a/manifests/1")).await;
    assert!(left.is_err());
    // With its connections.
    drop(puller);
    eventually(async || mirror.log().contains("an upstream is away")).await;
}
