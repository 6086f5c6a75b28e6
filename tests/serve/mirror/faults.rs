//! The walk of faults: each at each request of a pull, for one client and for twenty. Whatever the upstream does, clients get the
//! right bytes or a clean failure, and a good pull as soon as it is as it should be.

use futures::future::join_all;
use rustix::process::{Resource, getrlimit, setrlimit};

use super::pull::{Outcome, Puller, Style};
use super::served::{Mirror, entry};
use super::upstream::content::Index;
use super::upstream::faults::{Fault, Kind, Rule};
use super::upstream::{Access, Upstream};
use crate::operation::eventually;

/// Less, as much, and more than what is held back of a blob.
const SIZES: [usize; 3] = [2_000, 64 * 1024, 150_000];
pub const REPOSITORY: &str = "library/image";
pub const TAG: &str = "1.0";
/// A tag is asked for again soon, or a lie about one would last.
pub const SETTINGS: &str = "cache: {tagMaxAgeSeconds: 1}\n";

/// Which request of a pull it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Token,
    HeadTag,
    GetTag,
    Index,
    Manifest,
    Config,
    Layer(usize),
    /// Of the largest layer, where a redirect leads.
    Storage,
}

const STAGES: [Stage; 10] = [
    Stage::Token,
    Stage::HeadTag,
    Stage::GetTag,
    Stage::Index,
    Stage::Manifest,
    Stage::Config,
    Stage::Layer(0),
    Stage::Layer(1),
    Stage::Layer(2),
    Stage::Storage,
];

impl Stage {
    fn rule(self, index: &Index, fault: Fault) -> Rule {
        let image = &index.images[0];
        match self {
            Self::Token => Rule::first(Kind::Token, fault),
            Self::HeadTag => Rule::first(Kind::HeadTag, fault),
            Self::GetTag => Rule::first(Kind::GetTag, fault),
            Self::Index => Rule::first(Kind::GetManifest, fault).of(&index.manifest.digest),
            Self::Manifest => Rule::first(Kind::GetManifest, fault).of(&image.manifest.digest),
            Self::Config => Rule::first(Kind::GetBlob, fault).of(&image.config.digest),
            Self::Layer(number) => Rule::first(Kind::GetBlob, fault).of(&image.layers[number].digest),
            Self::Storage => Rule::first(Kind::Storage, fault).of(&image.layers[2].digest),
        }
    }
}

struct Case {
    name: String,
    host: String,
    stage: Stage,
    fault: Fault,
    clients: usize,
    upstream: Upstream,
    index: Index,
}

impl Case {
    async fn new(number: usize, stage: Stage, fault: Fault, clients: usize) -> Self {
        let index = Index::of_sizes(number as u64, [&SIZES, &[]]);
        let access = if stage == Stage::Token { Access::Tokens } else { Access::Basic };
        let upstream = Upstream::start(access).await;
        upstream.put(REPOSITORY, index.is_tagged(TAG));
        if stage == Stage::Storage {
            upstream.redirect_blobs(true);
        }
        upstream.rule(stage.rule(&index, fault.clone()));
        if stage == Stage::GetTag {
            // Only then a manifest is asked for by its tag.
            upstream.rule(Rule::always(Kind::HeadTag, Fault::NoDigest));
        }
        let name = format!("{fault:?} at {stage:?} for {clients}");
        Self { name, host: format!("case-{number}.example"), stage, fault, clients, upstream, index }
    }

    fn puller(&self, mirror: &Mirror) -> Puller {
        let style = if self.stage == Stage::GetTag { Style::Podman } else { Style::Containerd };
        Puller { style, case: self.name.clone(), ..Puller::new(mirror.address, &self.host) }
    }

    /// A refusal holds for a minute, which only the long walk waits for.
    fn is_remembered(&self) -> bool {
        matches!(self.fault, Fault::Unauthorized | Fault::Forbidden)
            && matches!(self.stage, Stage::Token | Stage::HeadTag)
    }

    async fn walk(&self, mirror: &Mirror) {
        let puller = self.puller(mirror);
        let begun = std::time::Instant::now();
        let pulls = (0..self.clients).map(|_| {
            let puller = puller.another();
            async move { puller.pull(REPOSITORY, TAG, &self.index, 0).await }
        });
        let outcomes = join_all(pulls).await;
        let right = outcomes.iter().filter(|outcome| **outcome == Outcome::Right).count();
        let failed = outcomes.iter().find(|outcome| **outcome != Outcome::Right);
        let seconds = begun.elapsed().as_secs();
        assert!(self.upstream.has_befallen(), "{}: {failed:?}", self.name);
        self.upstream.heal();
        if self.is_remembered() && !is_long() {
            return;
        }
        puller.pull_in_the_end(REPOSITORY, TAG, &self.index, 0).await;
        let healed = begun.elapsed().as_secs();
        println!("{}: {right} pulled in {seconds} s, well in {healed} s; {failed:?}", self.name);
        assert_eq!(self.upstream.problems(), Vec::<String>::new(), "{}", self.name);
        if !self.fault.costs_bytes() {
            for blob in self.index.images[0].blobs() {
                let parts = self.upstream.sent(&blob.digest);
                assert_eq!(self.upstream.sent_again(&blob.digest), 0, "{}: {parts:?}", self.name);
            }
        }
    }
}

/// Each listener and each connection is a descriptor here.
pub fn allow_many_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// When nobody asks any more, nothing is held and nothing is left over.
pub async fn comes_to_rest(mirror: &Mirror, descriptors: usize) {
    eventually(async || mirror.is_clean()).await;
    eventually(async || mirror.descriptors() <= descriptors).await;
}

async fn walk(cases: Vec<Case>) {
    allow_many_descriptors();
    let redirects = ", redirectHosts: [\"127.0.0.1\"]";
    let mirrors: String = cases.iter().map(|case| entry(&case.host, &case.upstream, redirects)).collect();
    let mirror = Mirror::start(&mirrors, SETTINGS);
    join_all(cases.iter().map(|case| case.walk(&mirror))).await;
    // The connections to the upstreams may rest a while.
    let upstreams = cases.len();
    drop(cases);
    comes_to_rest(&mirror, 64 + upstreams).await;
}

async fn all(stages: &[Stage], clients: usize) -> Vec<Case> {
    let mut cases = Vec::new();
    for stage in stages {
        for fault in Fault::all() {
            cases.push(Case::new(cases.len() + 1000 * clients, *stage, fault, clients).await);
        }
    }
    cases
}

pub fn is_long() -> bool {
    std::env::var_os("WHARF_TEST_LONG").is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_at_each_request_of_one_client() {
    walk(all(&STAGES, 1).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_at_the_requests_of_twenty_clients() {
    if !is_long() {
        return walk(all(&[Stage::Layer(2)], 20).await).await;
    }
    // All at once would be more clients than a server takes.
    for stage in STAGES {
        walk(all(&[stage], 20).await).await;
    }
}
