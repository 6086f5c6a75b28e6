//! Blobs on their way, in one line at the foot of a terminal. It must never write where nobody looks: it is started for a terminal
//! alone, and not where log lines are for machines.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::cache::fill::Underway;
use crate::telemetry::terminal;

/// How often the line is written anew.
const INTERVAL: Duration = Duration::from_millis(250);
/// Of the line, so that it stays one.
const WIDTH: usize = 79;

/// Shows what is on its way until `stop` is cancelled.
pub async fn show(under_way: impl Fn() -> Vec<Underway>, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
        terminal::show(&line(&under_way()));
    }
    terminal::show("");
}

/// What is on its way; nothing where that is nothing.
fn line(under_way: &[Underway]) -> String {
    let Some(first) = under_way.iter().min_by_key(|blob| &blob.digest) else { return String::new() };
    let there: u64 = under_way.iter().map(|blob| blob.there).sum();
    let lengths: Option<Vec<u64>> = under_way.iter().map(|blob| blob.length).collect();
    let amount = match lengths.map(|lengths| lengths.into_iter().sum::<u64>()) {
        Some(total) if total > 0 => {
            let percent = u128::from(there) * 100 / u128::from(total);
            format!("{} of {} MiB ({percent} %)", mebibytes(there), mebibytes(total))
        }
        _ => format!("{} MiB", mebibytes(there)),
    };
    let what = if under_way.len() == 1 { "1 blob".to_owned() } else { format!("{} blobs", under_way.len()) };
    let digest: String = first.digest.as_str().chars().take("sha256:".len() + 12).collect();
    let line = format!("fetching {what}: {amount}, {digest} from {}", first.upstream);
    line.chars().take(WIDTH).collect()
}

/// With one decimal, rounded down.
fn mebibytes(bytes: u64) -> String {
    let tenths = u128::from(bytes) * 10 / (1 << 20);
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::{Underway, WIDTH, line};

    #[test]
    fn what_is_on_its_way_is_one_line() {
        let blob = |digit: &str, there: u64, length| Underway {
            digest: format!("sha256:{}", digit.repeat(64)).parse().unwrap(),
            upstream: "docker.io".parse().unwrap(),
            there,
            length,
        };
        let mebibyte = 1 << 20;
        for (blobs, expected) in [
            (vec![], ""),
            (
                vec![blob("a", 3 * mebibyte / 2, Some(6 * mebibyte))],
                "fetching 1 blob: 1.5 of 6.0 MiB (25 %), sha256:aaaaaaaaaaaa from docker.io",
            ),
            (
                vec![blob("b", mebibyte, Some(mebibyte)), blob("a", 0, Some(mebibyte))],
                "fetching 2 blobs: 1.0 of 2.0 MiB (50 %), sha256:aaaaaaaaaaaa from docker.io",
            ),
            (
                vec![blob("a", mebibyte, None), blob("b", 0, Some(1))],
                "fetching 2 blobs: 1.0 MiB, sha256:aaaaaaaaaaaa from docker.io",
            ),
            (vec![blob("a", 0, Some(0))], "fetching 1 blob: 0.0 MiB, sha256:aaaaaaaaaaaa from docker.io"),
        ] {
            assert_eq!(line(&blobs), expected);
        }
        let long = Underway { upstream: "r".repeat(63).parse().unwrap(), ..blob("a", u64::MAX, Some(u64::MAX)) };
        assert_eq!(line(&[long]).len(), WIDTH);
    }
}
