//! Clocks that jump, and the ends that come with time. Run by `dev/test-engines`, which installs what lies to a process about
//! the time.

use std::path::PathBuf;

use http::Method;

use super::faults::{REPOSITORY, TAG};
use super::private::Shared;
use super::pull::{Outcome, Puller};
use super::served::Mirror;
use super::upstream::content::{Index, Readers};
use super::upstream::faults::Kind;
use super::upstream::{Access, Upstream};

/// The clock of one process.
struct Clock {
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Clock {
    /// Starts a mirror again under a clock; with one that also counts what has passed, or only what time it is.
    fn of(mirror: &mut Mirror, passing: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Self { file: folder.path().join("clock"), _folder: folder };
        clock.jump("+0");
        let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH);
        mirror.restart_with(vec![
            ("LD_PRELOAD", library),
            ("FAKETIME_TIMESTAMP_FILE", clock.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", if passing { "0" } else { "1" }.to_owned()),
        ]);
        clock
    }

    /// Away from the true time.
    fn jump(&self, to: &str) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, to).unwrap();
        std::fs::rename(&new, &self.file).unwrap();
    }
}

/// By a connection of its own: one that rested through a jump is too old.
async fn status(puller: &Puller, rest: &str) -> u16 {
    puller.another().ask(Method::GET, rest, &[]).await.status.as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs libfaketime: dev/test-engines"]
async fn tags_are_asked_for_again_whichever_way_the_clock_jumps_and_are_not_served_for_ever() {
    let images = [1, 2, 3].map(|seed| Index::of_seed(seed, &[10_000]));
    let upstream = Upstream::with([(REPOSITORY, images[0].is_tagged(TAG))]).await;
    let mut mirror = Mirror::of(&upstream);
    let clock = Clock::of(&mut mirror, false);
    let puller = mirror.puller();
    assert_eq!(puller.pull(REPOSITORY, TAG, &images[0], 0).await, Outcome::Right);
    for (to, index) in [("-1d", &images[1]), ("+1d", &images[2])] {
        upstream.put(REPOSITORY, index.is_tagged(TAG));
        clock.jump(to);
        assert_eq!(puller.pull(REPOSITORY, TAG, index, 0).await, Outcome::Right, "{to}");
    }
    clock.jump("-1d");
    assert_eq!(puller.pull(REPOSITORY, TAG, &images[2], 0).await, Outcome::Right);
    mirror.settles().await;
    upstream.leave().await;
    clock.jump("+5d");
    assert_eq!(puller.pull(REPOSITORY, TAG, &images[2], 0).await, Outcome::Right);
    clock.jump("+8d");
    assert_eq!(status(&puller, &format!("{REPOSITORY}/manifests/{TAG}")).await, 503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs libfaketime: dev/test-engines"]
async fn a_right_that_was_taken_away_ends_in_five_minutes_and_in_an_hour_where_nobody_can_be_asked() {
    let blob = |shared: &Shared| format!("team/of-alice/blobs/{}", shared.layer.digest);
    for away in [false, true] {
        let shared = Shared::new(Access::Tokens, "one.example", 5).await;
        let mut mirror = Mirror::of(&shared.upstream);
        let clock = Clock::of(&mut mirror, true);
        let alice = shared.puller(&mirror, Some("alice"), "alice");
        assert_eq!(alice.image("team/of-alice", &shared.images[1]).await, Outcome::Right);
        if away {
            mirror.settles().await;
            shared.upstream.leave().await;
            clock.jump("+10m");
            assert_eq!(status(&alice, &blob(&shared)).await, 200);
            clock.jump("+70m");
            assert_eq!(status(&alice, &blob(&shared)).await, 503);
        } else {
            shared.upstream.change("team/of-alice", |repository| repository.readers = Readers::Only(Vec::new()));
            clock.jump("+290");
            let asked = shared.upstream.count(Kind::HeadBlob);
            assert_eq!((status(&alice, &blob(&shared)).await, shared.upstream.count(Kind::HeadBlob)), (200, asked));
            clock.jump("+310");
            assert!(matches!(status(&alice, &blob(&shared)).await, 401 | 403 | 404));
        }
    }
}
