//! From what several pods tell to what a status says. Pure.
//! It must never say anything that changes by itself: bytes are coarse and stay as told while they hover at a border, and what
//! nobody tells any more stays as it was.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::PodReport;
use crate::api::mirror::{MirrorCacheStatus, PinStatus, UpstreamState, UpstreamStatus};
use crate::mirror_report::{CacheReport, MirrorReport, PinReport, State, UpstreamReport};

/// The longest text of a pod that goes into a status, in characters.
const LONGEST: usize = 512;
/// The parts of a step by which bytes have to be beyond a border before something else is told of them.
const MARGIN: u64 = 10;
/// The binary units, from the largest.
const UNITS: [(u64, &str); 7] =
    [(1 << 60, "Ei"), (1 << 50, "Pi"), (1 << 40, "Ti"), (1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki"), (1, "")];

/// The pods that told something.
pub(super) fn told(reports: &[PodReport]) -> impl Iterator<Item = &MirrorReport> {
    reports.iter().filter_map(|found| found.report.as_ref().ok())
}

/// How each registry of `hosts` is doing, in their order: as the pod says that has the most trouble with it. A host that no pod
/// tells of stays as `old` has it, and so does the time while the state stays.
#[must_use]
pub fn upstreams(
    reports: &[PodReport],
    hosts: &[String],
    old: &[UpstreamStatus],
    now: Timestamp,
) -> Vec<UpstreamStatus> {
    let status = |host: &String| {
        let before = old.iter().find(|status| status.host == *host);
        let Some(worst) = worst(reports, host) else { return before.cloned() };
        let state = state(worst.state);
        let since = before.filter(|before| before.state == state).and_then(|before| before.since.clone());
        Some(UpstreamStatus {
            host: host.clone(),
            state,
            since: Some(since.unwrap_or(Time(now))),
            serving_stale: of_host(reports, host).any(|found| found.serving_stale),
            message: worst.problem.as_deref().map(shortened),
        })
    };
    hosts.iter().filter_map(status).collect()
}

fn of_host<'a>(reports: &'a [PodReport], host: &str) -> impl Iterator<Item = &'a UpstreamReport> {
    told(reports).flat_map(|report| &report.upstreams).filter(move |found| found.host == host)
}

/// The worst that a pod says; of equals the first, and one with a problem before one without.
fn worst<'a>(reports: &'a [PodReport], host: &str) -> Option<&'a UpstreamReport> {
    let rank = |found: &UpstreamReport| (found.state, found.problem.is_some());
    of_host(reports, host).reduce(|worst, found| if rank(found) > rank(worst) { found } else { worst })
}

fn state(state: State) -> UpstreamState {
    match state {
        State::Ok => UpstreamState::Ok,
        State::RateLimited => UpstreamState::RateLimited,
        State::CredentialsRejected => UpstreamState::CredentialsRejected,
        State::Failing => UpstreamState::Failing,
    }
}

/// What all pods together keep; `None` while no pod tells it.
#[must_use]
pub fn cache(reports: &[PodReport], old: Option<&MirrorCacheStatus>) -> Option<MirrorCacheStatus> {
    told(reports).next()?;
    let sum =
        |of: fn(&CacheReport) -> u64| told(reports).fold(0_u64, |sum, report| sum.saturating_add(of(&report.cache)));
    let before = old.and_then(|old| u64::try_from(old.bytes).ok());
    let (bytes, capacity) = (coarse(sum(|cache| cache.bytes), before), sum(|cache| cache.size));
    Some(MirrorCacheStatus {
        bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        capacity: i64::try_from(capacity).unwrap_or(i64::MAX),
        summary: format!("{}/{}", written(bytes), written(capacity)),
    })
}

/// The images of `images` that are not there in whole in every pod that tells of itself, in their order; `None` while no pod does.
#[must_use]
pub fn pins(reports: &[PodReport], images: &[String]) -> Option<Vec<PinStatus>> {
    told(reports).next()?;
    let status = |image: &String| {
        let of_image = || told(reports).flat_map(|report| &report.pins).filter(|pin| pin.image == *image);
        if of_image().next().is_none() {
            return Some("Not looked at yet".to_owned());
        }
        let problem = |pin: &PinReport| pin.problem.as_deref().map(shortened);
        let missing = || of_image().filter(|pin| !pin.complete);
        missing().next()?;
        Some(missing().find_map(problem).unwrap_or_else(|| "Being fetched".to_owned()))
    };
    let pin = |image: &String| Some(PinStatus { image: image.clone(), message: status(image)? });
    Some(images.iter().filter_map(pin).collect())
}

/// Bytes with two digits in their binary unit, rounded down; what was told before while they are hardly beyond it.
pub(super) fn coarse(bytes: u64, before: Option<u64>) -> u64 {
    let (told, _) = rounded(bytes);
    let Some(before) = before else { return told };
    let (again, step) = rounded(before);
    let margin = step / MARGIN;
    let kept = before.saturating_sub(margin)..before.saturating_add(step).saturating_add(margin);
    if again == before && kept.contains(&bytes) { before } else { told }
}

/// Rounded down to a step, and the step: a tenth of the unit below ten of it, then one, then ten, then a hundred.
fn rounded(bytes: u64) -> (u64, u64) {
    let unit = UNITS.iter().map(|(unit, _)| *unit).find(|unit| bytes >= *unit).unwrap_or(1);
    let count = bytes / unit;
    if count < 10 {
        // A tenth of a binary unit is no whole number of bytes, so that the tenths are counted.
        let tenths = u128::from(bytes) * 10 / u128::from(unit);
        let told = (tenths * u128::from(unit)).div_ceil(10);
        return (u64::try_from(told).unwrap_or(bytes), (unit / 10).max(1));
    }
    let step = 10_u64.pow(count.ilog10().saturating_sub(1));
    (count / step * step * unit, step * unit)
}

/// Bytes as people read them, rounded down: `1.2Gi`, `45Gi`.
#[must_use]
pub fn written(bytes: u64) -> String {
    let (unit, suffix) = UNITS.into_iter().find(|(unit, _)| bytes >= *unit).unwrap_or((1, ""));
    let tenths = u128::from(bytes) * 10 / u128::from(unit);
    if tenths < 100 && tenths % 10 != 0 {
        format!("{}.{}{suffix}", tenths / 10, tenths % 10)
    } else {
        format!("{}{suffix}", tenths / 10)
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests;
