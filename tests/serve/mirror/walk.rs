//! The random walk: an image, an upstream and clients from a seed, which do and suffer whatever the seed says. One that fails
//! is walked again by `WHARF_TEST_SEED`.

use std::time::Duration;

use futures::future::join_all;
use http::Method;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::faults::{REPOSITORY, SETTINGS, allow_many_descriptors, comes_to_rest, is_long};
use super::pull::{Puller, Style};
use super::served::{Mirror, entry};
use super::upstream::content::Index;
use super::upstream::faults::{Fault, Kind, Rule};
use super::upstream::{Access, Upstream};

const KINDS: [Kind; 8] = [
    Kind::Ping,
    Kind::Token,
    Kind::HeadTag,
    Kind::GetTag,
    Kind::GetManifest,
    Kind::HeadBlob,
    Kind::GetBlob,
    Kind::Storage,
];
/// About what is held back, and much less, and more.
const SIZES: [usize; 7] = [1, 1_024, 65_024, 65_536, 66_048, 131_072, 300_000];
/// So many at once on one server.
const BATCH: u64 = 40;

pub struct Walk {
    seed: u64,
    pub host: String,
    pub upstream: Upstream,
    index: Index,
    /// Another one each time: an old one may be served for a while.
    tag: String,
    random: StdRng,
    /// Whether each byte has to come once.
    once: bool,
}

impl Walk {
    pub async fn new(seed: u64) -> Self {
        let access = if seed.is_multiple_of(2) { Access::Tokens } else { Access::Basic };
        let (upstream, random) = (Upstream::start(access).await, StdRng::seed_from_u64(seed));
        let host = format!("seed-{seed}.example");
        let (index, tag) = (Index::of_seed(0, &[]), String::new());
        let mut walk = Self { seed, host, upstream, index, tag, random, once: true };
        walk.begin_anew(seed);
        walk
    }

    /// Another image, and other faults.
    pub fn begin_anew(&mut self, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let sizes: Vec<usize> = (0..random.random_range(1..4)).map(|_| *SIZES.choose(&mut random).unwrap()).collect();
        let index = Index::of_seed(seed, &sizes);
        let tag = format!("v{seed}");
        self.upstream.put(REPOSITORY, index.is_tagged(&tag));
        self.upstream.forget_seen();
        self.upstream.redirect_blobs(random.random_bool(0.3));
        let faults = Fault::all();
        // Who waits for what never comes takes long: that is walked elsewhere.
        let quick: Vec<_> = faults.iter().filter(|fault| !matches!(fault, Fault::Silent | Fault::HangInBody)).collect();
        let mut once = true;
        for _ in 0..random.random_range(1..5) {
            let fault = (*quick.choose(&mut random).unwrap()).clone();
            once &= !fault.costs_bytes();
            let rule = Rule {
                after: random.random_range(0..3),
                times: random.random_range(1..4),
                ..Rule::first(*KINDS.choose(&mut random).unwrap(), fault)
            };
            println!("seed {seed}: {rule:?}");
            self.upstream.rule(rule);
        }
        (self.seed, self.index, self.tag, self.random, self.once) = (seed, index, tag, random, once);
    }

    async fn client(&self, puller: Puller, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..random.random_range(1..5) {
            let image = &self.index.images[random.random_range(0..2)];
            let blob = *image.blobs().collect::<Vec<_>>().choose(&mut random).unwrap();
            let from = random.random_range(0..blob.bytes.len());
            let to = random.random_bool(0.5).then(|| random.random_range(from + 1..=blob.bytes.len()));
            let rest = format!("{REPOSITORY}/blobs/{}", blob.digest);
            match random.random_range(0..6) {
                0 => drop(puller.part(REPOSITORY, blob, from, to).await),
                1 => drop(puller.come(Method::HEAD, &rest, &[]).await),
                2 => {
                    // It goes when it likes.
                    let leaving = Duration::from_millis(random.random_range(1..30));
                    let _ = tokio::time::timeout(leaving, puller.another().blob(REPOSITORY, blob)).await;
                }
                _ => drop(puller.pull(REPOSITORY, &self.tag, &self.index, random.random_range(0..2)).await),
            }
        }
    }

    /// Clients come, and in the end the upstream is as it should be. Where that is exact, each byte comes once.
    pub async fn walk(&mut self, mirror: &Mirror, exact: bool) {
        let style = if self.random.random_bool(0.5) { Style::Podman } else { Style::Containerd };
        let case = format!("seed {}", self.seed);
        let puller = Puller { style, case: case.clone(), ..Puller::new(mirror.address, &self.host) };
        let number = if self.random.random_bool(0.5) { 1 } else { self.random.random_range(2..20) };
        let seeds: Vec<u64> = (0..number).map(|_| self.random.random()).collect();
        let disturbance = self.random.random_range(0..6);
        let pause = Duration::from_millis(self.random.random_range(1..50));
        let clients = join_all(seeds.into_iter().map(|seed| self.client(puller.another(), seed)));
        let disturbing = async {
            tokio::time::sleep(pause).await;
            match disturbance {
                0 => self.upstream.expire_tokens(),
                1 => {
                    self.upstream.leave().await;
                    tokio::time::sleep(pause).await;
                    self.upstream.come_back().await;
                }
                _ => {}
            }
        };
        tokio::join!(clients, disturbing);
        self.upstream.heal();
        for platform in 0..2 {
            puller.pull_in_the_end(REPOSITORY, &self.tag, &self.index, platform).await;
        }
        assert_eq!(self.upstream.problems(), Vec::<String>::new(), "{case}");
        // What was on its way when the connection ended is lost.
        if self.once && disturbance != 1 && exact {
            for blob in self.index.images.iter().flat_map(super::upstream::content::Image::blobs) {
                let parts = self.upstream.sent(&blob.digest);
                assert_eq!(self.upstream.sent_again(&blob.digest), 0, "{case}: {parts:?}");
            }
        }
    }
}

async fn walk(seeds: impl Iterator<Item = u64>) {
    let mut walks = Vec::new();
    for seed in seeds {
        walks.push(Walk::new(seed).await);
    }
    let redirects = ", redirectHosts: [\"127.0.0.1\"]";
    let mirrors: String = walks.iter().map(|walk| entry(&walk.host, &walk.upstream, redirects)).collect();
    let mirror = Mirror::start(&mirrors, SETTINGS);
    join_all(walks.iter_mut().map(|walk| walk.walk(&mirror, true))).await;
    let upstreams = walks.len();
    drop(walks);
    comes_to_rest(&mirror, 64 + upstreams).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_comes_together_clients_get_the_right_bytes_or_a_clean_failure() {
    allow_many_descriptors();
    let one: Option<u64> = std::env::var("WHARF_TEST_SEED").ok().map(|seed| seed.parse().unwrap());
    if let Some(seed) = one {
        return walk(std::iter::once(seed)).await;
    }
    for batch in 0..if is_long() { 1_000 / BATCH } else { 1 } {
        walk(batch * BATCH..(batch + 1) * BATCH).await;
    }
}
