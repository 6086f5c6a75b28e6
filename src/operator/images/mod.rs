//! What images the cluster's pods run: for the caches, which evict these last, and for the proof that nodes use the Mirrors.
//! It must never watch pods, and never write anything after a list that failed halfway.

mod bypassed;
mod in_use;
mod list;
mod platforms;
pub mod reference;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use tokio::time::{Instant, sleep};

use self::bypassed::{Sightings, concerns};
use self::in_use::InUse;
use self::list::Pod;
pub use self::platforms::platforms;
use super::apply::{Applier, Desired};
use super::call::CallError;
use super::context::Context;
use super::metrics::PassOutcome;
use crate::api::{Mirror, NodeRuntimeStatus};
use crate::oci::RegistryHost;

/// The field manager of the config maps with digests.
pub const MANAGER: &str = "wharf/images";
/// How often pods are listed, before jitter.
const INTERVAL: Duration = Duration::from_secs(600);
/// How soon after a list that failed, at first; then more and more seldom.
const AFTER_FAILURE: Duration = Duration::from_secs(60);
/// How often it is looked whether a list is due: also soon after the start, and after a Mirror came.
const LOOK: Duration = Duration::from_secs(30);
/// So young, a pod accuses nobody: what its node's agent noticed may not have been reported yet.
const SETTLED: SignedDuration = SignedDuration::from_secs(60);

/// What was seen of images. Cloning shares it.
#[derive(Clone, Default)]
pub struct Images(Arc<Mutex<Option<Sightings>>>);

impl Images {
    /// The nodes on which a pod started with an image of one of these hosts, although the runtime has never asked for any, by
    /// name. `reports` is what the agents report now. `None` before the first look.
    #[must_use]
    pub fn bypassed(&self, hosts: &[String], reports: &[(String, NodeRuntimeStatus)]) -> Option<Vec<String>> {
        self.sightings().as_ref().map(|sightings| sightings.bypassed(hosts, reports))
    }

    fn sightings(&self) -> MutexGuard<'_, Option<Sightings>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at what pods run.
pub struct Survey {
    applier: Applier,
}

impl Survey {
    /// A survey that writes with this engine.
    #[must_use]
    pub fn new(applier: Applier) -> Self {
        Self { applier }
    }

    /// Looks for as long as it is polled. `changed` is told the Mirrors of which it is known by now that other nodes pass them by.
    pub async fn run(&self, context: &Context, changed: impl Fn(Vec<ObjectRef<Mirror>>)) {
        let (mut due, mut seen, mut failures) = (None::<Instant>, BTreeSet::new(), 0);
        loop {
            sleep(LOOK.mul_f64(rand::random_range(0.8..1.2))).await;
            let wanted = wanted(&context.view.live_mirrors());
            if wanted.is_empty() || (wanted.is_subset(&seen) && due.is_some_and(|due| Instant::now() < due)) {
                continue;
            }
            let guard = context.metrics.start_pass("images");
            let result = self.pass(context).await;
            failures = if result.is_ok() { 0 } else { failures + 1 };
            due = Some(Instant::now() + wait(failures, rand::random()));
            seen = wanted;
            match result {
                Ok(keys) => {
                    guard.end(PassOutcome::Completed);
                    changed(keys);
                }
                Err(error) => {
                    guard.end(PassOutcome::Failed);
                    tracing::warn!(%error, "which images pods run is not known anew; it is tried again");
                }
            }
        }
    }

    /// Looks once. Returns the Mirrors of which it is known by now that other nodes pass them by.
    ///
    /// # Errors
    /// When the pods could not be listed, or a Mirror's config map could not be written.
    pub async fn pass(&self, context: &Context) -> Result<Vec<ObjectRef<Mirror>>, CallError> {
        let mirrors = context.view.live_mirrors();
        if mirrors.is_empty() {
            return Ok(Vec::new());
        }
        let reports = context.view.node_reports();
        let mut look = Look::new(hosts(&mirrors), &reports, (context.clock)());
        list::for_each(&context.client, &context.metrics, |pod| look.take(pod)).await?;
        let Look { in_use, sightings, hosts, nodes, .. } = look;
        let passed_by = || -> Vec<_> {
            mirrors.iter().map(|mirror| context.images.bypassed(&hosts_of(mirror), &reports)).collect()
        };
        let before = passed_by();
        let concerned = |node: &str, host: &RegistryHost| {
            hosts.contains(host) && nodes.get(node).is_some_and(|status| concerns(status, host))
        };
        context.images.sightings().get_or_insert_default().add(sightings, concerned);
        let changed = mirrors.iter().zip(before.into_iter().zip(passed_by()));
        let changed = changed.filter(|(_, (before, after))| before != after);
        let changed = changed.map(|(mirror, _)| ObjectRef::from_obj(mirror)).collect();
        self.write(&mirrors, &in_use, context).await?;
        Ok(changed)
    }

    async fn write(&self, mirrors: &[Mirror], in_use: &InUse, context: &Context) -> Result<(), CallError> {
        let namespace = &context.settings.namespace;
        let child = |mirror| in_use::child(mirror, in_use, namespace, &context.view);
        let report = self.applier.apply(&Desired { stages: vec![mirrors.iter().map(child).collect()] }).await;
        for contest in &report.contests {
            tracing::warn!("{contest}");
        }
        report.failures.into_iter().next().map_or(Ok(()), Err)
    }
}

/// What is gathered while pods are listed.
struct Look<'a> {
    hosts: BTreeSet<RegistryHost>,
    nodes: HashMap<&'a str, &'a NodeRuntimeStatus>,
    now: Timestamp,
    in_use: InUse,
    sightings: Sightings,
}

impl<'a> Look<'a> {
    fn new(hosts: BTreeSet<RegistryHost>, reports: &'a [(String, NodeRuntimeStatus)], now: Timestamp) -> Self {
        let nodes = reports.iter().map(|(node, status)| (node.as_str(), status)).collect();
        Self { hosts, nodes, now, in_use: InUse::default(), sightings: Sightings::default() }
    }

    fn take(&mut self, pod: &Pod) {
        for container in pod.containers() {
            for host in container.image.hosts.iter().filter(|host| self.hosts.contains(host)) {
                if pod.is_alive() {
                    self.in_use.entry(host.clone()).or_default().insert(container.image.digest.clone());
                }
                // Of content with two names it is not known by which it came, and what was put on the node without a registry
                // has none.
                let ([_], true) = (container.image.hosts.as_slice(), container.image.is_named) else { continue };
                let settled = container.since.filter(|since| self.now.duration_since(*since) >= SETTLED);
                let status = self.nodes.get(pod.node()).filter(|status| concerns(status, host));
                if let (Some(since), Some(_)) = (settled, status) {
                    self.sightings.see(pod.node(), host, &container.image.digest, since);
                }
            }
        }
    }
}

fn hosts_of(mirror: &Mirror) -> Vec<String> {
    mirror.spec.upstreams.iter().map(|upstream| upstream.host.clone()).collect()
}

/// Which Mirrors want to know of which hosts: a new one is not kept waiting.
fn wanted(mirrors: &[Mirror]) -> BTreeSet<(String, String)> {
    let of_mirror = |mirror: &Mirror| {
        hosts_of(mirror).into_iter().map(|host| (mirror.uid().unwrap_or_default(), host)).collect::<Vec<_>>()
    };
    mirrors.iter().flat_map(of_mirror).collect()
}

/// All hosts of these Mirrors. What is no host is told in the Mirror's status.
fn hosts(mirrors: &[Mirror]) -> BTreeSet<RegistryHost> {
    mirrors.iter().flat_map(hosts_of).filter_map(|host| host.parse().ok()).collect()
}

/// How long until the next list, after so many that failed.
fn wait(failures: u32, spread: f64) -> Duration {
    let wait = match failures {
        0 => INTERVAL,
        failures => AFTER_FAILURE.saturating_mul(2_u32.saturating_pow(failures - 1)).min(INTERVAL),
    };
    wait.mul_f64(0.8 + spread.clamp(0.0, 1.0) * 0.4)
}
