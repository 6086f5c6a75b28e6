//! Asks the pods of Registries, from time to time, how full their volumes are and what the images take, and keeps the answers for the passes.
//! It must never hold up a pass: a pod that does not answer leaves the last answer standing until its Registry is gone.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use tokio::time::sleep;

use super::ask::Asker;
use super::registry::names::{Names, VOLUME_PORT};
use super::view::{View, cached};
use crate::api::{Registry, condition, reason};
use crate::volume::{Images, Measurement, PATH};

/// How many times within the interval the pods that have not answered yet are asked.
const EARLY_TRIES: u32 = 6;
/// For how many intervals nothing else is told of what images take.
const IMAGES_REST: u32 = 5;
/// The longest answer that is read, in bytes.
const LONGEST_ANSWER: usize = 4096;
/// How many pods are asked at once.
const CONCURRENCY: usize = 16;

/// From here on, in percent, a volume is told to be nearly full.
pub const NEARLY_FULL: i32 = 85;
/// From here on, in percent, a volume counts as full: a layer of usual size does not fit any more.
const FULL: i32 = 98;
/// The step to which the status is rounded, in percent.
const STEP: i32 = 5;
/// By so many percent a volume has to be beyond a step or a level before what was told of it changes: one that hovers at a
/// border is at rest too.
const MARGIN: i32 = 1;

/// How full a volume is, as coarse as the status tells it, so that it is silent at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeUse {
    /// Percent, in steps of five.
    pub used_percent: i32,
    /// What it means.
    pub level: Level,
}

/// What the fullness of a volume means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// There is room.
    Roomy,
    /// Somebody should make room soon.
    NearlyFull,
    /// Pushes fail.
    Full,
}

impl VolumeUse {
    /// What a measurement means, and what stays told of what was told before.
    #[must_use]
    pub fn of(measurement: &Measurement, before: Option<Self>) -> Self {
        let percent = measurement.used_percent();
        let (used_percent, level) = (percent / STEP * STEP, level(percent));
        let Some(before) = before else { return Self { used_percent, level } };
        let kept = before.used_percent - MARGIN..before.used_percent + STEP + MARGIN;
        Self {
            used_percent: if kept.contains(&percent) { before.used_percent } else { used_percent },
            level: level.max(before.level.min(self::level(percent + MARGIN))),
        }
    }

    /// What a status tells, for an operator that has just started and has asked nobody yet.
    #[must_use]
    pub fn told(registry: &Registry) -> Option<Self> {
        let status = registry.status.as_ref()?;
        let used_percent = status.storage.as_ref()?.used_percent?;
        let storage = status.conditions.iter().find(|found| found.type_ == condition::STORAGE_READY);
        let level = match storage.map(|found| found.reason.as_str()) {
            Some(reason::FULL) => Level::Full,
            Some(reason::NEARLY_FULL) => Level::NearlyFull,
            // Others, such as that of a failed growth, go before it.
            _ => level(used_percent),
        };
        Some(Self { used_percent, level })
    }
}

fn level(percent: i32) -> Level {
    match percent {
        FULL.. => Level::Full,
        NEARLY_FULL.. => Level::NearlyFull,
        _ => Level::Roomy,
    }
}

/// What images take, as coarse as the status tells it.
#[must_use]
pub fn rounded(usage: Images) -> Images {
    let coarse = |number: u64| {
        let step = 10_u64.pow(number.checked_ilog10().unwrap_or_default().saturating_sub(1));
        number / step * step
    };
    Images { bytes: coarse(usage.bytes), repositories: coarse(usage.repositories) }
}

/// The last answers, by the UID of the Registry. Cloning shares them.
#[derive(Clone, Default)]
pub struct Volumes(Arc<Mutex<HashMap<String, Answers>>>);

/// What a pod told last.
#[derive(Clone, Copy, Default)]
struct Answers {
    volume: Option<VolumeUse>,
    /// Rounded, and when it was taken over from the pod's answer.
    images: Option<(Images, Instant)>,
}

impl Volumes {
    /// What is known of a Registry's volume: what its pod answered, or before it did, what the status tells.
    #[must_use]
    pub fn of(&self, registry: &Registry) -> Option<VolumeUse> {
        self.answered(registry).or_else(|| VolumeUse::told(registry))
    }

    fn answered(&self, registry: &Registry) -> Option<VolumeUse> {
        self.answers().get(registry.metadata.uid.as_ref()?)?.volume
    }

    /// What is known of what a Registry's images take, rounded.
    #[must_use]
    pub fn images(&self, registry: &Registry) -> Option<Images> {
        self.answers().get(registry.metadata.uid.as_ref()?)?.images.map(|(usage, _)| usage)
    }

    /// Notes an answer; whether it differs from the one before.
    #[must_use]
    pub fn note(&self, registry: &Registry, found: VolumeUse) -> bool {
        let Some(uid) = registry.metadata.uid.clone() else {
            return false;
        };
        self.answers().entry(uid).or_default().volume.replace(found) != Some(found)
    }

    /// Notes what images take; whether that is told from now on instead of what was told before. Pushes change it all the
    /// time, so that nothing else is told for `rest`.
    #[must_use]
    pub fn note_images(&self, registry: &Registry, found: Images, now: Instant, rest: Duration) -> bool {
        let Some(uid) = registry.metadata.uid.clone() else {
            return false;
        };
        let mut answers = self.answers();
        let told = &mut answers.entry(uid).or_default().images;
        let found = rounded(found);
        if told.is_some_and(|(before, since)| before == found || now < since + rest) {
            return false;
        }
        *told = Some((found, now));
        true
    }

    fn answers(&self) -> MutexGuard<'_, HashMap<String, Answers>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets Registries that are gone.
    fn keep_only(&self, registries: &[Registry]) {
        let mut known = self.answers();
        known.retain(|uid, _| registries.iter().any(|registry| registry.metadata.uid.as_ref() == Some(uid)));
    }
}

/// Asks the pods.
#[derive(Default)]
pub struct Inquirer(Asker);

impl Inquirer {
    /// Asks for as long as it is polled, every pod once an interval and new ones sooner. `changed` is told the Registries
    /// whose answer differs from the last.
    pub async fn run(
        &self,
        view: &View,
        volumes: &Volumes,
        interval: Duration,
        changed: impl Fn(Vec<ObjectRef<Registry>>),
    ) {
        for turn in (0..EARLY_TRIES).cycle() {
            changed(self.round(view, volumes, turn == 0, interval * IMAGES_REST).await);
            sleep(interval / EARLY_TRIES).await;
        }
    }

    /// Asks every Registry's pod once, or only those that have not answered yet.
    async fn round(&self, view: &View, volumes: &Volumes, all: bool, rest: Duration) -> Vec<ObjectRef<Registry>> {
        let registries = view.live_registries();
        volumes.keep_only(&registries);
        let due = registries
            .iter()
            .filter(|registry| all || volumes.answered(registry).is_none())
            .filter_map(|registry| Some((registry, address(view, registry)?)));
        futures::stream::iter(due)
            .map(async |(registry, address)| {
                let found = self.ask(address).await?;
                let volume = volumes.note(registry, VolumeUse::of(&found, volumes.of(registry)));
                let note = |images| volumes.note_images(registry, images, Instant::now(), rest);
                let images = found.images.is_some_and(note);
                (volume || images).then(|| ObjectRef::from_obj(registry))
            })
            .buffer_unordered(CONCURRENCY)
            .filter_map(async |changed| changed)
            .collect()
            .await
    }

    async fn ask(&self, address: IpAddr) -> Option<Measurement> {
        let measurement = self.0.ask(address, VOLUME_PORT, PATH, LONGEST_ANSWER).await;
        if let Err(problem) = &measurement {
            // A starting or older pod does not answer; the condition Available tells of one that is broken.
            tracing::debug!(%address, problem, "the pod did not tell how full its volume is");
        }
        measurement.ok()
    }
}

/// The address of a Registry whose pod should be able to answer.
fn address(view: &View, registry: &Registry) -> Option<IpAddr> {
    if registry.spec.storage.s3.is_some() || registry.spec.suspend {
        return None;
    }
    let names = Names::new(registry.namespace().unwrap_or_default(), registry.name_any());
    let deployment = cached(&view.deployments, names.namespace(), &names.deployment())?;
    deployment.status.as_ref()?.available_replicas.filter(|available| *available > 0)?;
    let service = cached(&view.services, names.namespace(), names.service())?;
    service.spec.as_ref()?.cluster_ip.as_ref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(percent: u64) -> Measurement {
        Measurement { used_bytes: percent, available_bytes: 100 - percent, ..Measurement::default() }
    }

    #[test]
    fn the_levels_begin_where_they_should_and_the_status_is_coarse() {
        for (percent, used_percent, level) in [
            (0, 0, Level::Roomy),
            (84, 80, Level::Roomy),
            (85, 85, Level::NearlyFull),
            (97, 95, Level::NearlyFull),
            (98, 95, Level::Full),
            (100, 100, Level::Full),
        ] {
            assert_eq!(VolumeUse::of(&measured(percent), None), VolumeUse { used_percent, level }, "{percent}");
        }
    }

    #[test]
    fn a_volume_that_hovers_at_a_border_is_told_once() {
        for (before, percent, after) in [
            ((50, Level::Roomy), 49, (50, Level::Roomy)),
            ((50, Level::Roomy), 55, (50, Level::Roomy)),
            ((50, Level::Roomy), 48, (45, Level::Roomy)),
            ((50, Level::Roomy), 56, (55, Level::Roomy)),
            ((80, Level::Roomy), 85, (80, Level::NearlyFull)),
            ((80, Level::NearlyFull), 84, (80, Level::NearlyFull)),
            ((85, Level::NearlyFull), 83, (80, Level::Roomy)),
            ((95, Level::Full), 97, (95, Level::Full)),
            ((95, Level::Full), 96, (95, Level::NearlyFull)),
            ((95, Level::Full), 20, (20, Level::Roomy)),
        ] {
            let used = |(used_percent, level)| VolumeUse { used_percent, level };
            assert_eq!(VolumeUse::of(&measured(percent), Some(used(before))), used(after), "{before:?} {percent}");
        }
    }

    #[test]
    fn an_operator_that_has_just_started_knows_what_the_one_before_told() {
        let (volumes, mut registry) = (Volumes::default(), crate::operator::registry::fixture::team("{}"));
        assert_eq!(volumes.of(&registry), None);
        for (told, reason, level) in [
            (80, reason::READY, Level::Roomy),
            (80, reason::NEARLY_FULL, Level::NearlyFull),
            (95, reason::FULL, Level::Full),
            (95, reason::PROGRESSING, Level::NearlyFull),
        ] {
            let storage = serde_json::json!({
                "type": condition::STORAGE_READY, "status": "True", "reason": reason, "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            });
            let status = serde_json::json!({"conditions": [storage], "storage": {"usedPercent": told}});
            registry.status = Some(serde_json::from_value(status).unwrap());
            assert_eq!(volumes.of(&registry), Some(VolumeUse { used_percent: told, level }), "{reason}");
        }
        let answered = VolumeUse::of(&measured(20), volumes.of(&registry));
        assert!(volumes.note(&registry, answered));
        assert_eq!(volumes.of(&registry), Some(VolumeUse { used_percent: 20, level: Level::Roomy }));
    }

    #[test]
    fn what_images_take_is_told_with_two_digits() {
        for (found, told) in
            [(0, 0), (7, 7), (99, 99), (104, 100), (1_999, 1_900), (u64::MAX, 18_000_000_000_000_000_000)]
        {
            let expected = Images { bytes: told, repositories: told };
            assert_eq!(rounded(Images { bytes: found, repositories: found }), expected);
        }
    }

    #[test]
    fn what_images_take_is_told_anew_after_a_rest_and_when_it_differs() {
        let (volumes, registry) = (Volumes::default(), crate::operator::registry::fixture::team("{}"));
        let (start, rest) = (Instant::now(), Duration::from_secs(300));
        let seconds = Duration::from_secs;
        for (bytes, after, is_new, told) in [
            (1_234, 0, true, 1_200),
            (5_678, 299, false, 1_200),
            (1_299, 301, false, 1_200),
            (5_678, 302, true, 5_600),
            (1_234, 600, false, 5_600),
            (1_234, 602, true, 1_200),
        ] {
            let found = Images { bytes, repositories: 1 };
            assert_eq!(volumes.note_images(&registry, found, start + seconds(after), rest), is_new, "{bytes} {after}");
            assert_eq!(volumes.images(&registry), Some(Images { bytes: told, repositories: 1 }));
        }
        volumes.keep_only(&[]);
        assert_eq!(volumes.images(&registry), None);
    }
}
