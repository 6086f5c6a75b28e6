//! Private images behind a mirror: one layer, shared by a public repository and two private ones. Whoever has no right gets the
//! same answer whether the mirror has the layer, fetches it, or has never heard of it.

use std::path::Path;

use futures::future::join_all;
use http::Method;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio_util::sync::CancellationToken;

use super::faults::TAG;
use super::pull::{Outcome, Puller, Style};
use super::served::{Mirror, entry};
use super::upstream::content::{Image, Named, Readers, layer};
use super::upstream::faults::{Fault, Kind, Rule};
use super::upstream::{Access, Upstream};
use crate::client::digest;
use crate::operation::eventually;

const REPOSITORIES: [(&str, Option<&str>); 3] =
    [("team/public", None), ("team/of-alice", Some("alice")), ("team/of-bob", Some("bob"))];

pub struct Shared {
    host: String,
    pub upstream: Upstream,
    pub layer: Named,
    pub images: Vec<Image>,
}

impl Shared {
    pub async fn new(access: Access, host: &str, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let shared = layer(&mut random, 300_000);
        let upstream = Upstream::start(access).await;
        let mut images = Vec::new();
        for (name, user) in REPOSITORIES {
            let image = Image::new("amd64", vec![layer(&mut random, 100), shared.clone()]);
            let repository = image.is_tagged(TAG);
            upstream.put(name, if let Some(user) = user { repository.only_for(user) } else { repository });
            images.push(image);
        }
        Self { host: host.to_owned(), upstream, layer: shared, images }
    }

    /// A client, with the user's credential where there is one.
    pub fn puller(&self, mirror: &Mirror, user: Option<&str>, case: &str) -> Puller {
        let puller = Puller { case: case.to_owned(), ..Puller::new(mirror.address, &self.host) };
        if let Some(user) = user { puller.with(user) } else { puller }
    }

    /// All that somebody who may not is told of the private repositories: how each of many requests is answered.
    async fn refusals(&self, mirror: &Mirror, case: &str) -> Vec<String> {
        let mut told = Vec::new();
        for (repository, owner) in &REPOSITORIES[1..] {
            let strangers = [None, Some("alice"), Some("bob")].into_iter().filter(|user| user != owner);
            for (user, style) in strangers.flat_map(|user| [(user, Style::Containerd), (user, Style::Podman)]) {
                let puller = Puller { style, ..self.puller(mirror, user, case) };
                told.extend(self.refusals_of(&puller, repository).await);
            }
        }
        told
    }

    async fn refusals_of(&self, puller: &Puller, repository: &str) -> Vec<String> {
        let image = &self.images[REPOSITORIES.iter().position(|(name, _)| name == &repository).unwrap()];
        let (manifest, unknown) = (&image.manifest.digest, digest(b"unknown"));
        let mut told = Vec::new();
        for (kind, reference) in [
            ("blobs", &self.layer.digest),
            ("blobs", &image.config.digest),
            ("blobs", &unknown),
            ("manifests", manifest),
            ("manifests", &unknown),
            ("manifests", &TAG.to_owned()),
        ] {
            let rest = format!("{repository}/{kind}/{reference}");
            let tag = format!("\"{}\"", if reference == TAG { manifest } else { reference });
            for (method, headers) in [
                (Method::HEAD, &[][..]),
                (Method::GET, &[]),
                (Method::GET, &[("range", "bytes=0-9")]),
                (Method::GET, &[("range", "bytes=10-")]),
                (Method::GET, &[("if-none-match", tag.as_str())]),
                (Method::HEAD, &[("if-none-match", "*")]),
            ] {
                let came = puller.ask(method.clone(), &rest, headers).await;
                let status = came.status.as_u16();
                assert!(matches!(status, 401 | 403 | 404), "{}: {method} {rest} {headers:?}: {came:?}", puller.case);
                for name in ["wharf-fill", "etag", "docker-content-digest", "content-range", "age", "accept-ranges"] {
                    assert!(!came.headers.contains_key(name), "{}: {method} {rest}: {came:?}", puller.case);
                }
                let body = String::from_utf8_lossy(&came.bytes).replace(reference.as_str(), "…");
                told.push(format!("{method} {kind} {headers:?}: {status} {body} {}", came.header("content-length")));
            }
        }
        let came = puller.get(&format!("{repository}/tags/list")).await;
        assert!(matches!(came.status.as_u16(), 401 | 403 | 404), "{}: tags: {came:?}", puller.case);
        told
    }

    /// One fetches, another asks, while strangers try all the time.
    async fn fetch_and_ask(&self, mirror: &Mirror, fetches: usize, asks: usize) {
        let case = format!("{}: {} fetches, {} asks", self.host, REPOSITORIES[fetches].0, REPOSITORIES[asks].0);
        let of = |number: usize| {
            let (name, user) = REPOSITORIES[number];
            (name, self.puller(mirror, user, &case))
        };
        let before = self.refusals(mirror, &format!("{case}, before")).await;
        assert_eq!(self.upstream.count(Kind::GetBlob), 0, "{case}: fetched for a stranger");

        let gate = CancellationToken::new();
        self.upstream.rule(Rule::first(Kind::GetBlob, Fault::Gate(gate.clone())).of(&self.layer.digest));
        let (name, puller) = of(fetches);
        let fetching = puller.blob(name, &self.layer);
        let asking = async {
            eventually(async || self.upstream.bytes_sent() >= 100_000).await;
            let (name, puller) = of(asks);
            assert_eq!(puller.part(name, &self.layer, 0, Some(10)).await, Outcome::Right, "{case}, during");
            let joining = puller.blob(name, &self.layer);
            let trying = async {
                let during = self.refusals(mirror, &format!("{case}, during")).await;
                assert_eq!(during, before, "{case}: strangers can tell that it is being fetched");
                gate.cancel();
            };
            tokio::join!(joining, trying).0
        };
        let outcomes = tokio::join!(fetching, asking);
        assert_eq!(outcomes, (Outcome::Right, Outcome::Right), "{case}");

        let (name, puller) = of(asks);
        assert_eq!(puller.image(name, &self.images[asks]).await, Outcome::Right, "{case}, after");
        let after = self.refusals(mirror, &format!("{case}, after")).await;
        assert_eq!(after, before, "{case}: strangers can tell that it was fetched");
        assert_eq!(self.upstream.sent(&self.layer.digest).len(), 1, "{case}");
        assert_eq!(self.upstream.problems(), Vec::<String>::new(), "{case}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_of_three_repositories_is_given_to_those_who_may_have_it_whoever_fetched_it() {
    let mut all = Vec::new();
    for access in [Access::Basic, Access::Tokens] {
        for (fetches, asks) in (0..9).map(|number| (number / 3, number % 3)) {
            let host = format!("case-{}.example", all.len());
            all.push((Shared::new(access, &host, all.len() as u64).await, fetches, asks));
        }
    }
    let mirrors: String = all.iter().map(|(shared, ..)| entry(&shared.host, &shared.upstream, "")).collect();
    let mirror = Mirror::start(&mirrors, "");
    join_all(all.iter().map(|(shared, fetches, asks)| shared.fetch_and_ask(&mirror, *fetches, *asks))).await;
}

/// What one repository's manifest names need not be in it.
#[tokio::test]
async fn a_manifest_that_names_a_layer_gives_nobody_the_layer() {
    let shared = Shared::new(Access::Basic, "one.example", 1).await;
    let mirror = Mirror::of(&shared.upstream);
    let alice = shared.puller(&mirror, Some("alice"), "alice");
    assert_eq!(alice.image("team/of-alice", &shared.images[1]).await, Outcome::Right);
    shared.upstream.change("team/public", |repository| {
        repository.add(&shared.images[1]);
        repository.blobs.clear();
    });
    let anybody = shared.puller(&mirror, None, "anybody");
    let manifest = format!("team/public/manifests/{}", shared.images[1].manifest.digest);
    assert_eq!(anybody.get(&manifest).await.status, 200);
    for method in [Method::HEAD, Method::GET] {
        let came = anybody.ask(method, &format!("team/public/blobs/{}", shared.layer.digest), &[]).await;
        assert_eq!(came.status, 404, "{came:?}");
    }
}

fn credentials(folder: &Path) -> String {
    let file = folder.join("credentials");
    std::fs::write(&file, "mirror:mirror-secret\n").unwrap();
    file.display().to_string()
}

#[tokio::test]
async fn the_mirrors_own_credential_is_for_all_only_where_it_is_said_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = credentials(folder.path());
    for access in [Access::Basic, Access::Tokens] {
        let shared = Shared::new(access, "one.example", 2).await;
        shared.upstream.change("team/of-alice", |repository| {
            repository.readers = Readers::Only(vec!["alice".to_owned(), "mirror".to_owned()]);
        });
        let (upstream, image) = (&shared.upstream, &shared.images[1]);
        let blob = format!("team/of-alice/blobs/{}", shared.layer.digest);
        let own = |policy: &str| format!(", credentials: \"{file}\", privateImages: {policy}");
        let verifying = Mirror::start(&entry("one.example", upstream, &own("VerifyWithUpstream")), "");
        let alice = shared.puller(&verifying, Some("alice"), "alice");
        for (puller, status) in [
            (shared.puller(&verifying, None, "anybody"), 401),
            (shared.puller(&verifying, Some("bob"), "bob"), 403),
            (alice.clone(), 200),
            (shared.puller(&verifying, None, "anybody, later"), 401),
        ] {
            let came = puller.get(&blob).await;
            assert!(came.status == status || (status == 403 && came.status == 401), "{}: {came:?}", puller.case);
        }
        assert_eq!(alice.image("team/of-alice", image).await, Outcome::Right);

        let sharing = Mirror::start(&entry("one.example", upstream, &own("Shared")), "");
        let anybody = shared.puller(&sharing, None, "anybody, shared");
        assert_eq!(anybody.image("team/of-alice", image).await, Outcome::Right);
        // It may have what the mirror may have, and no more.
        let came = anybody.get(&format!("team/of-bob/blobs/{}", shared.layer.digest)).await;
        assert!(matches!(came.status.as_u16(), 401 | 403 | 404), "{came:?}");

        let denying = Mirror::start(&entry("one.example", upstream, &own("Deny")), "");
        for user in [None, Some("alice"), Some("mirror")] {
            let puller = shared.puller(&denying, user, "denied");
            let came = puller.get(&blob).await;
            assert!(matches!(came.status.as_u16(), 401 | 403 | 404), "{user:?}: {came:?}");
        }
        let anybody = shared.puller(&denying, None, "public");
        assert_eq!(anybody.image("team/public", &shared.images[0]).await, Outcome::Right);
        for mirror in [verifying, sharing, denying] {
            assert!(!mirror.log().contains("-secret"), "{}", mirror.log());
        }
    }
}

#[tokio::test]
async fn a_right_that_was_proved_holds_while_the_upstream_is_away_and_no_other() {
    let shared = Shared::new(Access::Tokens, "one.example", 3).await;
    let mirror = Mirror::of(&shared.upstream);
    let [alice, bob, anybody] = [Some("alice"), Some("bob"), None].map(|user| shared.puller(&mirror, user, "away"));
    assert_eq!(alice.image("team/of-alice", &shared.images[1]).await, Outcome::Right);
    mirror.settles().await;
    shared.upstream.leave().await;
    assert_eq!(alice.image("team/of-alice", &shared.images[1]).await, Outcome::Right);
    for (puller, repository) in
        [(&bob, "team/of-alice"), (&anybody, "team/of-alice"), (&bob, "team/of-bob"), (&anybody, "team/public")]
    {
        for method in [Method::HEAD, Method::GET] {
            let came = puller.ask(method, &format!("{repository}/blobs/{}", shared.layer.digest), &[]).await;
            assert!(matches!(came.status.as_u16(), 401 | 403 | 404 | 503), "{repository}: {came:?}");
        }
    }
}

#[tokio::test]
async fn a_right_that_was_taken_away_does_not_outlive_a_restart() {
    let shared = Shared::new(Access::Tokens, "one.example", 4).await;
    let mirror = Mirror::of(&shared.upstream);
    let alice = shared.puller(&mirror, Some("alice"), "alice");
    assert_eq!(alice.image("team/of-alice", &shared.images[1]).await, Outcome::Right);
    shared.upstream.change("team/of-alice", |repository| repository.readers = Readers::Only(Vec::new()));
    mirror.stop_and_start();
    let alice = shared.puller(&mirror, Some("alice"), "alice, later");
    for rest in [format!("manifests/{TAG}"), format!("blobs/{}", shared.layer.digest)] {
        let came = alice.get(&format!("team/of-alice/{rest}")).await;
        assert!(matches!(came.status.as_u16(), 401 | 403 | 404), "{came:?}");
    }
}
