//! Asks the pods of Mirrors, from time to time, how their registries, caches and pins are doing, and keeps the answers for the
//! passes. It must never hold up a pass, nor wake one for what no status would tell: a pod that misses a question or two is
//! taken at its last word.

mod merge;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use kube::runtime::reflector::ObjectRef;
use tokio::time::sleep;

pub use self::merge::{cache, pins, upstreams, written};
use super::names::{Names, OPERATIONS_PORT};
use crate::api::mirror::{PinStatus, UpstreamStatus};
use crate::api::{Mirror, labels};
use crate::mirror_report::{CacheReport, MirrorReport, PATH};
use crate::operator::ask::Asker;
use crate::operator::call::{Action, Target, call};
use crate::operator::context::Context;
use crate::operator::view::{View, cached};

/// How often every pod is asked, before jitter.
const INTERVAL: Duration = Duration::from_secs(30);
/// How many times within the interval those of Mirrors are asked of which none has answered yet.
const EARLY_TRIES: u32 = 6;
/// The longest answer that is read, in bytes.
const LONGEST_ANSWER: usize = 256 * 1024;
/// How many pods are asked at once.
const CONCURRENCY: usize = 16;
/// How many questions a pod may miss before its last word is given up.
const MISSES: u32 = 2;
/// For how long nothing else is told of what caches keep, if that alone has changed: in a busy cluster it always does. That a cache
/// is not empty any more does not wait.
const CACHE_REST: Duration = Duration::from_secs(300);

/// What one pod told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodReport {
    /// The pod's name.
    pub pod: String,
    /// What it told, or why it could not be asked.
    pub report: Result<MirrorReport, String>,
}

/// The last answers, by the UID of the Mirror. Cloning shares them.
#[derive(Clone, Default)]
pub struct MirrorReports(Arc<Mutex<HashMap<String, Answers>>>);

/// What the pods of a Mirror told.
#[derive(Default)]
struct Answers {
    pods: Vec<PodReport>,
    /// How many questions each pod has missed since it last answered.
    misses: HashMap<String, u32>,
    told: Told,
    /// What caches keep, as coarse as a status tells it, and since when that is told.
    cached: Option<(u64, Instant)>,
}

/// What a status says of reports, but for what caches keep.
#[derive(Default, PartialEq)]
struct Told {
    upstreams: Vec<UpstreamStatus>,
    /// But for the bytes.
    caches: Vec<CacheReport>,
    pins: Vec<PinStatus>,
    silent: Vec<(String, String)>,
}

impl Told {
    fn of(reports: &[PodReport]) -> Self {
        let all = |names: BTreeSet<&String>| names.into_iter().cloned().collect::<Vec<_>>();
        let hosts = all(merge::told(reports).flat_map(|report| &report.upstreams).map(|found| &found.host).collect());
        let images = all(merge::told(reports).flat_map(|report| &report.pins).map(|pin| &pin.image).collect());
        let silent = |found: &PodReport| Some((found.pod.clone(), found.report.as_ref().err()?.clone()));
        Self {
            upstreams: upstreams(reports, &hosts, &[], Timestamp::UNIX_EPOCH),
            caches: merge::told(reports).map(|report| CacheReport { bytes: 0, ..report.cache.clone() }).collect(),
            pins: pins(reports, &images).unwrap_or_default(),
            silent: reports.iter().filter_map(silent).collect(),
        }
    }
}

impl MirrorReports {
    /// What the pods of a Mirror last told, in the order of their ordinals; `None` while none was asked.
    #[must_use]
    pub fn of(&self, uid: &str) -> Option<Vec<PodReport>> {
        self.answers().get(uid).map(|answers| answers.pods.clone())
    }

    /// Notes what all pods of a Mirror answered. Returns whether a status would say something else from now on.
    #[must_use]
    pub fn note(&self, uid: &str, found: Vec<PodReport>, now: Instant) -> bool {
        let mut all = self.answers();
        let is_new = !all.contains_key(uid);
        let answers = all.entry(uid.to_owned()).or_default();
        let reports = answers.taken_at_their_word(found);
        let told = Told::of(&reports);
        let differs = is_new || told != answers.told;
        (answers.pods, answers.told) = (reports, told);
        answers.note_cache(now, differs) || differs
    }

    /// Forgets Mirrors that are gone.
    fn keep_only(&self, mirrors: &[Mirror]) {
        let is_there = |uid: &String| mirrors.iter().any(|mirror| mirror.metadata.uid.as_ref() == Some(uid));
        self.answers().retain(|uid, _| is_there(uid));
    }

    fn has_answer(&self, mirror: &Mirror) -> bool {
        let answers = self.answers();
        let of_mirror = mirror.metadata.uid.as_ref().and_then(|uid| answers.get(uid));
        of_mirror.is_some_and(|answers| merge::told(&answers.pods).next().is_some())
    }

    fn answers(&self) -> MutexGuard<'_, HashMap<String, Answers>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answers {
    /// What was found now, where a pod that has missed few questions is taken at its last word.
    fn taken_at_their_word(&mut self, found: Vec<PodReport>) -> Vec<PodReport> {
        self.misses.retain(|pod, _| found.iter().any(|found| found.pod == *pod));
        let mut taken = Vec::with_capacity(found.len());
        for found in found {
            let misses = self.misses.entry(found.pod.clone()).or_default();
            *misses = if found.report.is_ok() { 0 } else { misses.saturating_add(1) };
            let last = self.pods.iter().find(|last| last.pod == found.pod && last.report.is_ok());
            taken.push(last.filter(|_| (1..=MISSES).contains(misses)).cloned().unwrap_or(found));
        }
        taken
    }

    /// Notes what caches keep. Whether that is worth telling: other news are told with it at once.
    fn note_cache(&mut self, now: Instant, with_others: bool) -> bool {
        let Some(found) = cache(&self.pods, None) else { return false };
        let before = self.cached.map(|(bytes, _)| bytes);
        let bytes = merge::coarse(u64::try_from(found.bytes).unwrap_or_default(), before);
        let rests = self.cached.is_some_and(|(bytes, since)| bytes > 0 && now < since + CACHE_REST) && !with_others;
        if before == Some(bytes) || rests {
            return false;
        }
        self.cached = Some((bytes, now));
        true
    }
}

/// Asks for as long as it is polled, every pod once an interval and those of new Mirrors sooner. `changed` is told the Mirrors
/// of which a status would say something else.
pub async fn run(context: &Context, changed: impl Fn(Vec<ObjectRef<Mirror>>)) {
    let asker = Asker::default();
    for turn in (0..EARLY_TRIES).cycle() {
        changed(round(&asker, context, OPERATIONS_PORT, turn == 0).await);
        sleep((INTERVAL / EARLY_TRIES).mul_f64(rand::random_range(0.8..1.2))).await;
    }
}

/// Asks the pods of every Mirror once. Returns the Mirrors of which a status would say something else from now on.
pub async fn ask_once(context: &Context, port: i32) -> Vec<ObjectRef<Mirror>> {
    round(&Asker::default(), context, port, true).await
}

/// Asks the pods of every Mirror, or only of those of which none has answered yet although it should.
async fn round(asker: &Asker, context: &Context, port: i32, all: bool) -> Vec<ObjectRef<Mirror>> {
    let mirrors = context.view.live_mirrors();
    context.mirror_reports.keep_only(&mirrors);
    let namespace = &context.settings.namespace;
    let is_due = |mirror: &&Mirror| {
        all || (!context.mirror_reports.has_answer(mirror) && is_available(mirror, namespace, &context.view))
    };
    let due: Vec<&Mirror> = mirrors.iter().filter(is_due).collect();
    if due.is_empty() {
        return Vec::new();
    }
    let Some(pods) = pods(context).await else { return Vec::new() };
    let of_mirror = |mirror: &Mirror| replicas(mirror, namespace, &pods);
    let questions = due.iter().flat_map(|mirror| of_mirror(mirror).into_iter().map(|pod| (mirror.uid(), pod)));
    let answers: Vec<(Option<String>, PodReport)> = futures::stream::iter(questions)
        .map(async |(uid, pod)| (uid, PodReport { pod: pod.name_any(), report: ask(asker, pod, port).await }))
        .buffered(CONCURRENCY)
        .collect()
        .await;
    let now = Instant::now();
    let changed = due.into_iter().filter(|mirror| {
        let Some(uid) = mirror.uid() else { return false };
        let of_mirror = answers.iter().filter(|(of, _)| of.as_ref() == Some(&uid)).map(|(_, report)| report.clone());
        context.mirror_reports.note(&uid, of_mirror.collect(), now)
    });
    changed.map(ObjectRef::from_obj).collect()
}

/// The pods of all Mirrors; `None` when the API server cannot tell, so that what is known stays.
async fn pods(context: &Context) -> Option<Vec<Pod>> {
    let namespace = &context.settings.namespace;
    let api = Api::<Pod>::namespaced(context.client.clone(), namespace);
    let parameters = ListParams::default().labels(&format!("{}={}", labels::NAME, labels::MIRROR));
    let target = Target::new("pods of Mirrors", namespace, "");
    match call(&context.metrics, Action::List, target, api.list(&parameters)).await {
        Ok(list) => Some(list.items),
        Err(error) => {
            tracing::debug!(%error, "the pods of Mirrors cannot be asked how they do; it is tried again");
            None
        }
    }
}

/// The pods of a Mirror, in the order of their ordinals.
fn replicas<'a>(mirror: &Mirror, namespace: &str, pods: &'a [Pod]) -> Vec<&'a Pod> {
    let names = Names::new(namespace, mirror.name_any());
    let ordinal = |pod: &Pod| -> Option<i32> {
        let (object, ordinal) = pod.metadata.name.as_deref()?.rsplit_once('-')?;
        let ordinal = ordinal.parse().ok()?;
        let is_of = pod.labels().get(labels::INSTANCE).is_some_and(|instance| instance == names.mirror());
        (is_of && object == names.object()).then_some(ordinal)
    };
    let mut found: Vec<(i32, &Pod)> = pods.iter().filter_map(|pod| Some((ordinal(pod)?, pod))).collect();
    found.sort_unstable_by_key(|(ordinal, _)| *ordinal);
    found.into_iter().map(|(_, pod)| pod).collect()
}

async fn ask(asker: &Asker, pod: &Pod, port: i32) -> Result<MirrorReport, String> {
    let status = pod.status.as_ref();
    let runs = status.is_some_and(|status| status.phase.as_deref() == Some("Running"));
    let address = status.and_then(|status| status.pod_ip.as_ref()?.parse::<IpAddr>().ok());
    let Some(address) = address.filter(|_| runs) else { return Err("it does not run".to_owned()) };
    asker.ask(address, port, PATH, LONGEST_ANSWER).await
}

/// Whether a pod of the Mirror should be able to answer.
fn is_available(mirror: &Mirror, namespace: &str, view: &View) -> bool {
    let names = Names::new(namespace, mirror.name_any());
    let set = cached(&view.stateful_sets, namespace, &names.object());
    set.and_then(|set| set.status.as_ref()?.available_replicas).is_some_and(|available| available > 0)
}

#[cfg(test)]
mod tests;
