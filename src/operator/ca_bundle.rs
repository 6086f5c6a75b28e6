//! Gives namespaces the certificates that clients of registries must trust: config map `wharf-ca.crt` in each namespace that a
//! Registry selects. The authority is one for all, so one config map serves every Registry.
//! It must never touch a config map of that name that is not Wharf's, nor anything in a namespace that is being deleted.
//!
//! | found in a namespace | who moves it | what a pass does |
//! |---|---|---|
//! | selected, without a config map | this module | makes it |
//! | selected, ours with other content | this module | sets it right |
//! | selected only by a Registry that a quota keeps from being made | nobody | counts as not selected |
//! | not selected, ours | this module | deletes it as it was last seen |
//! | not selected, ours, and a Registry cannot be read | nobody | keeps it: that Registry may select it |
//! | somebody else's | nobody | leaves it; the status of the Registries that select the namespace names it |

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::ResourceExt;
use kube::api::{ObjectMeta, PartialObjectMeta};
use kube::core::{Selector, SelectorExt};
use tokio::sync::watch;

use super::apply::{Applier, Child, Desired, Inventory};
use super::authority::Authority;
use super::call::{CallError, Class};
use super::limits::Limits;
use super::registry::names::{AUTHORITY_KEY, Names};
use super::registry::observe::is_begun;
use super::registry::precedence::Precedence;
use super::view::{Live, View, cached};
use crate::api::{Registry, labels};

/// The config map's name in every namespace.
pub const NAME: &str = "wharf-ca.crt";
/// The value of [`labels::NAME`] on them.
pub const NAME_LABEL: &str = "ca-bundle";

/// How many config maps a pass writes; then it looks at the cluster anew.
const BATCH: usize = 100;
/// How long a namespace in which the API server refused the config map is left alone.
const REFUSED_AGAIN: Duration = Duration::from_secs(60);

/// What the API server said where it refused a config map, by namespace. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<Mutex<BTreeMap<String, Refusal>>>);

#[derive(Clone, Debug)]
struct Refusal {
    at: Timestamp,
    said: String,
}

impl Refusals {
    fn said(&self, namespace: &str) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(namespace).map(|refusal| refusal.said.clone())
    }

    fn is_fresh(&self, namespace: &str, now: Timestamp) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(namespace).is_some_and(|refusal| now < refusal.at + REFUSED_AGAIN)
    }

    fn note(&self, namespace: &str, said: String, at: Timestamp) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(namespace.to_owned(), Refusal { at, said });
    }

    fn forget(&self, namespace: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(namespace);
    }

    fn keep_only(&self, exists: impl Fn(&str) -> bool) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|namespace, _| exists(namespace));
        !known.is_empty()
    }
}

/// Writes the config maps.
pub struct Publisher {
    /// The caches.
    pub view: View,
    /// The engine that writes the config maps.
    pub applier: Applier,
    /// What Registries may have.
    pub limits: Limits,
    /// The authority, as last read.
    pub authority: watch::Receiver<Arc<Authority>>,
    /// Where refusals are told.
    pub refusals: Refusals,
}

/// What a pass came to.
#[derive(Debug, Default)]
pub struct Report {
    /// When to look again, if not only when something changes.
    pub again: Option<Duration>,
    /// The first request that failed for a passing reason.
    pub failure: Option<CallError>,
}

impl Publisher {
    /// Brings the namespaces to what the Registries select. After convergence it writes nothing.
    pub async fn pass(&self, now: Timestamp) -> Report {
        let bundle = self.authority.borrow().bundle();
        let live = self.view.live();
        let mut work = Work::find(&self.view, &live, &self.limits, &bundle);
        work.write.retain(|(namespace, _)| !self.refusals.is_fresh(namespace, now));
        let more = work.write.len() > BATCH;
        let mut report = Report { again: more.then_some(Duration::ZERO), failure: None };
        for (namespace, present) in work.write.into_iter().take(BATCH) {
            let child = Child::new(&config_map(&namespace, &bundle), present.as_deref());
            let written = self.applier.apply(&Desired { stages: vec![vec![child]] }).await;
            if let Some(contest) = written.contests.first() {
                tracing::warn!("{contest}");
                self.refusals.note(&namespace, contest.to_string(), now);
                continue;
            }
            match written.failures.into_iter().next() {
                None => self.refusals.forget(&namespace),
                Some(error) if error.class() == Class::Refused => {
                    tracing::warn!(%error, "the certificates of registries cannot be put into a namespace");
                    self.refusals.note(&namespace, error.to_string(), now);
                }
                // Somebody was faster, or the namespace is gone: the watches tell.
                Some(error) if error.class() == Class::Conflict || error.is_not_found() => {}
                Some(error) => {
                    report.failure = Some(error);
                    return report;
                }
            }
        }
        let mut unwanted = Inventory::default();
        work.remove.iter().for_each(|config_map| unwanted.add(config_map.as_ref()));
        report.failure = self.applier.delete_all(unwanted.0).await.failures.into_iter().next();
        let refused = self.refusals.keep_only(|namespace| namespace_of(&self.view, namespace).is_some());
        report.again = report.again.or(refused.then_some(REFUSED_AGAIN));
        report
    }
}

/// What a pass has to do.
#[derive(Debug, Default)]
struct Work {
    /// Namespaces, each with the config map of ours that is there.
    write: Vec<(String, Option<Arc<ConfigMap>>)>,
    remove: Vec<Arc<ConfigMap>>,
}

impl Work {
    fn find(view: &View, live: &Live, limits: &Limits, bundle: &str) -> Self {
        let mut work = Self::default();
        let selectors = selectors(view, live, limits);
        if selectors.is_empty() && view.ca_bundles.is_empty() {
            return work;
        }
        let all_readable = view.registries.state().iter().all(|registry| registry.0.is_ok());
        for namespace in view.namespaces.state().iter().filter(|namespace| !is_ending(namespace)) {
            let name = namespace.name_any();
            let present = cached(&view.ca_bundles, &name, NAME);
            match (selectors.iter().any(|selector| selector.matches(namespace.labels())), present) {
                (true, None) => work.write.push((name, None)),
                (true, Some(present)) if is_ours(&present) && !holds(&present, bundle) => {
                    work.write.push((name, Some(present)));
                }
                (false, Some(present)) if is_ours(&present) && all_readable => work.remove.push(present),
                _ => {}
            }
        }
        work.write.sort_by(|one, other| one.0.cmp(&other.0));
        work
    }
}

/// The selectors of the Registries that Wharf looks after.
fn selectors(view: &View, live: &Live, limits: &Limits) -> Vec<Selector> {
    let winners = Precedence::of(live.iter(), limits);
    let is_refused = |registry: &Registry| {
        let names = Names::new(registry.namespace().unwrap_or_default(), registry.name_any());
        winners.is_beyond_quota(registry) && !is_begun(registry, &names, view)
    };
    live.iter().filter(|registry| !is_refused(registry)).filter_map(selector_of).collect()
}

/// How it stands with the namespaces that one Registry selects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Selected namespaces whose config map is somebody else's.
    pub foreign: Vec<String>,
    /// What the API server said where it refused.
    pub refused: Vec<String>,
    /// Whether any other one lacks its config map, or has an old one.
    pub lacking: bool,
}

/// How it stands with a Registry's namespaces; `None` where it selects none at all.
#[must_use]
pub fn standing(registry: &Registry, view: &View, bundle: &str, refusals: &Refusals) -> Option<Standing> {
    let selector = selector_of(registry)?;
    let mut standing = Standing::default();
    for namespace in view.namespaces.state().iter().filter(|namespace| !is_ending(namespace)) {
        if !selector.matches(namespace.labels()) {
            continue;
        }
        let name = namespace.name_any();
        match cached(&view.ca_bundles, &name, NAME) {
            Some(present) if !is_ours(&present) => standing.foreign.push(name),
            Some(present) if holds(&present, bundle) => {}
            _ => match refusals.said(&name) {
                Some(said) => standing.refused.push(said),
                None => standing.lacking = true,
            },
        }
    }
    standing.foreign.sort_unstable();
    standing.refused.sort_unstable();
    Some(standing)
}

/// Config maps of ours with certificates other than these, of namespaces that stay.
pub fn outdated<'a>(view: &'a View, bundle: &'a str) -> impl Iterator<Item = Arc<ConfigMap>> + 'a {
    let outdated = |config_map: &Arc<ConfigMap>| {
        let namespace = namespace_of(view, &config_map.namespace().unwrap_or_default());
        namespace.is_some_and(|namespace| !is_ending(&namespace)) && is_ours(config_map) && !holds(config_map, bundle)
    };
    view.ca_bundles.state().into_iter().filter(outdated)
}

/// The schema refuses what cannot be understood, so nothing is selected by it.
fn selector_of(registry: &Registry) -> Option<Selector> {
    registry.spec.ca_bundle.as_ref()?.namespace_selector.clone().try_into().ok()
}

fn namespace_of(view: &View, name: &str) -> Option<Arc<PartialObjectMeta<Namespace>>> {
    view.namespaces.get(&kube::runtime::reflector::ObjectRef::new(name))
}

fn is_ending(namespace: &PartialObjectMeta<Namespace>) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
}

/// Whether a config map of that name is Wharf's.
#[must_use]
pub fn is_ours(config_map: &ConfigMap) -> bool {
    our_labels().iter().all(|(key, value)| config_map.labels().get(key) == Some(value))
}

fn holds(config_map: &ConfigMap, bundle: &str) -> bool {
    config_map.data.as_ref().and_then(|data| data.get(AUTHORITY_KEY)).is_some_and(|text| text == bundle)
}

fn our_labels() -> BTreeMap<String, String> {
    [(labels::NAME, NAME_LABEL), (labels::MANAGED_BY, labels::MANAGED_BY_WHARF)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

fn config_map(namespace: &str, bundle: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some(our_labels()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(AUTHORITY_KEY.to_owned(), bundle.to_owned())])),
        ..ConfigMap::default()
    }
}
