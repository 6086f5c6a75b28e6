//! The fronts of Registries: what clients beyond the cluster meet first, an ingress controller, a Gateway or a load balancer.
//! From time to time an upload is sent through each of them, and the passes find in memory what became of it. Nothing here
//! may hold up a pass, send a credential to whom it has not verified, or leave more behind, the more often it is done.
//!
//! | in memory | who moves it | what a restart does |
//! |---|---|---|
//! | the verdict on a front | this loop: when its inputs change, soon after a failure and once more after a first success, else every ten minutes | the status keeps its word until the next proof |
//! | an upload that could not be settled | the next proof, which begins no other before | the engine purges it after a week; a blob is deleted by the next proof |

mod gateways;
pub mod probe;
mod target;
pub mod trust;
pub mod verdict;

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use kube::runtime::reflector::ObjectRef;
use tokio::time::{Instant, sleep};

use self::probe::{Inside, Outcome, Probe};
pub use self::target::{Front, Way, balanced, fronts, node_port};
use self::trust::Trust;
pub use self::verdict::Verdict;
use super::call::{Action, CallError, Target, call};
use super::context::Context;
use super::registry::mint::{PASSWORD_KEY, USERNAME_KEY};
use super::registry::names::{Names, SERVICE_PORT};
use super::view::cached;
use super::volume::Level;
use crate::api::Registry;
use crate::api::registry::ServiceType;

/// How often to look whether a proof is due. Looking costs no request.
const TICK: Duration = Duration::from_secs(3);
/// How long a success stands, before jitter.
const RENEWAL: Duration = Duration::from_secs(600);
/// How long a first success stands: a controller may not have taken up yet what was changed.
const CONFIRMATION: Duration = Duration::from_secs(30);
/// How soon after a first failure the next proof is tried; doubled with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// The longest time between two proofs of a front that fails.
const LAST_RETRY: Duration = Duration::from_secs(120);
/// How many proofs run at once.
const CONCURRENCY: usize = 4;
/// How many nodes are looked at to find one that is ready.
const NODES: u32 = 50;

/// What is known of a front.
#[derive(Clone, Debug)]
struct Proof {
    front: Front,
    verdict: Verdict,
    failures: u32,
    due: Instant,
    unsettled: Option<String>,
}

/// The last verdicts, by the UID of the Registry. Cloning shares them.
#[derive(Clone, Default)]
pub struct Fronts(Arc<Mutex<HashMap<(String, Way), Proof>>>);

impl Fronts {
    /// The last verdict on one of a Registry's fronts, as it is now.
    #[must_use]
    pub fn verdict(&self, registry: &Registry, front: &Front) -> Option<Verdict> {
        let key = (registry.metadata.uid.clone()?, front.way);
        self.lock().get(&key).filter(|proof| proof.front == *front).map(|proof| proof.verdict.clone())
    }

    /// Whether a front is to be proven: never done, done for another one, or too long ago.
    fn is_due(&self, uid: &str, front: &Front, now: Instant) -> bool {
        let known = self.lock();
        known.get(&(uid.to_owned(), front.way)).is_none_or(|proof| proof.front != *front || proof.due <= now)
    }

    /// The path of an upload that the last proof could not settle.
    fn unsettled(&self, uid: &str, way: Way) -> Option<String> {
        self.lock().get(&(uid.to_owned(), way))?.unsettled.clone()
    }

    /// Notes a verdict; whether it differs from the one before. `chance` is between 0 and 1.
    fn note(&self, uid: &str, front: Front, outcome: Outcome, now: Instant, chance: f64) -> bool {
        let Outcome { verdict, unsettled } = outcome;
        let mut known = self.lock();
        let key = (uid.to_owned(), front.way);
        let before = known.get(&key);
        let differs = before.is_none_or(|proof| proof.verdict != verdict);
        let failures = match before {
            _ if verdict.is_proven() => 0,
            Some(proof) if proof.front == front => proof.failures.saturating_add(1),
            _ => 1,
        };
        let confirmed = before.is_some_and(|proof| proof.front == front && proof.verdict.is_proven());
        let due = now + pause(failures, confirmed).mul_f64(0.8 + 0.4 * chance);
        known.insert(key, Proof { front, verdict, failures, due, unsettled });
        differs
    }

    /// Forgets the fronts that are gone.
    fn keep_only(&self, wanted: &BTreeSet<(String, Way)>) {
        self.lock().retain(|key, _| wanted.contains(key));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, Way), Proof>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long after a proof the next one is due.
fn pause(failures: u32, confirmed: bool) -> Duration {
    match failures {
        0 if confirmed => RENEWAL,
        0 => CONFIRMATION,
        more => FIRST_RETRY.saturating_mul(1 << (more - 1).min(10)).min(LAST_RETRY),
    }
}

/// Proves fronts until it is dropped. `changed` gets the Registries whose verdict became another one.
pub async fn run(context: &Context, changed: impl Fn(Vec<ObjectRef<Registry>>)) {
    loop {
        let guard = context.metrics.start_pass("front");
        match round(context).await {
            Ok(keys) => {
                guard.end(super::metrics::PassOutcome::Completed);
                changed(keys);
            }
            Err(error) => {
                guard.end(super::metrics::PassOutcome::Failed);
                tracing::warn!(%error, "fronts could not be proven; it is tried again");
            }
        }
        sleep(TICK).await;
    }
}

/// A front that is due, and all that its proof needs.
struct Job {
    registry: Registry,
    uid: String,
    front: Front,
    authorization: String,
    inside: Inside,
}

/// Proves every front that is due.
async fn round(context: &Context) -> Result<Vec<ObjectRef<Registry>>, CallError> {
    let jobs = due(context, Instant::now());
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    let trust = Trust::read(context).await?;
    let nodes = if jobs.iter().any(|job| is_node_port(&job.registry, job.front.way)) {
        node_addresses(context).await?
    } else {
        Vec::new()
    };
    let (trust, nodes) = (&trust, &nodes);
    let keys = futures::stream::iter(jobs)
        .map(async |job| {
            let mut reachable = match gateways::located(context, &job.registry, &job.front).await {
                Ok(located) => located,
                Err(error) => {
                    tracing::warn!(%error, "a front could not be proven; it is tried again");
                    return None;
                }
            };
            if is_node_port(&job.registry, job.front.way) {
                reachable.addresses.clone_from(nodes);
            }
            let unsettled = context.fronts.unsettled(&job.uid, job.front.way);
            let (authorization, inside) = (&job.authorization, &job.inside);
            let outcome = Probe { front: &reachable, authorization, inside, trust, unsettled }.prove().await;
            let verdict = &outcome.verdict;
            context.metrics.count_proof(verdict.reason);
            if !verdict.is_proven() {
                let registry = ObjectRef::from_obj(&job.registry);
                tracing::info!(%registry, reason = verdict.reason, message = verdict.message, "a front was not proven");
            }
            let differs = context.fronts.note(&job.uid, job.front, outcome, Instant::now(), rand::random());
            differs.then(|| ObjectRef::from_obj(&job.registry))
        })
        .buffer_unordered(CONCURRENCY)
        .filter_map(async |changed| changed)
        .collect()
        .await;
    Ok(keys)
}

/// The fronts whose proof is due, of Registries that serve. Forgets those that are no longer wanted.
fn due(context: &Context, now: Instant) -> Vec<Job> {
    let (mut jobs, mut wanted) = (Vec::new(), BTreeSet::new());
    for registry in context.view.live_registries().into_iter().filter(|registry| registry.spec.expose.is_some()) {
        let uid = registry.metadata.uid.clone().unwrap_or_default();
        let names = Names::new(registry.namespace().unwrap_or_default(), registry.name_any());
        let fronts = target::fronts(&registry, &names, &context.view);
        wanted.extend(fronts.iter().map(|front| (uid.clone(), front.way)));
        let due: Vec<Front> = fronts.into_iter().filter(|front| context.fronts.is_due(&uid, front, now)).collect();
        // Nothing is put into a full volume: its last room is for what clients delete by. StorageReady tells of it.
        if due.is_empty() || context.volumes.of(&registry).is_some_and(|volume| volume.level == Level::Full) {
            continue;
        }
        // One that does not serve cannot be reached by any front: the condition Available tells of it.
        let Some((authorization, inside)) = serving(context, &registry, &names) else { continue };
        jobs.extend(due.into_iter().map(|front| Job {
            registry: registry.clone(),
            uid: uid.clone(),
            front,
            authorization: authorization.clone(),
            inside: inside.clone(),
        }));
    }
    context.fronts.keep_only(&wanted);
    jobs
}

/// The credential and the inner address of a Registry that serves.
fn serving(context: &Context, registry: &Registry, names: &Names) -> Option<(String, Inside)> {
    if registry.spec.suspend {
        return None;
    }
    let view = &context.view;
    let deployment = cached(&view.deployments, names.namespace(), &names.deployment())?;
    deployment.status.as_ref()?.available_replicas.filter(|available| *available > 0)?;
    let service = cached(&view.services, names.namespace(), names.service())?;
    let address = service.spec.as_ref()?.cluster_ip.as_ref()?.parse().ok()?;
    let address = SocketAddr::new(address, u16::try_from(SERVICE_PORT).ok()?);
    let secret = cached(&view.secrets, names.namespace(), &names.credentials())?;
    let text = |key: &str| String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok();
    let authorization = probe::basic(&text(USERNAME_KEY)?, &text(PASSWORD_KEY)?);
    Some((authorization, Inside { address, name: names.address() }))
}

fn is_node_port(registry: &Registry, way: Way) -> bool {
    let service = registry.spec.expose.as_ref().and_then(|expose| expose.service.as_ref());
    way == Way::Service && service.is_some_and(|service| service.service_type == ServiceType::NodePort)
}

/// Addresses of nodes that are ready.
async fn node_addresses(context: &Context) -> Result<Vec<String>, CallError> {
    let api = Api::<Node>::all(context.client.clone());
    let parameters = ListParams::default().limit(NODES);
    let nodes = call(&context.metrics, Action::List, Target::new("nodes", "", ""), api.list(&parameters)).await?;
    Ok(target::addresses_of(&nodes.items))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::reason;

    fn front(host: &str) -> Front {
        Front { way: Way::Ingress, host: host.into(), port: 443, addresses: Vec::new(), content: String::new() }
    }

    fn failure() -> Verdict {
        Verdict { reason: reason::NOT_ROUTED, message: "404".into() }
    }

    #[test]
    fn a_proof_is_due_when_its_inputs_change_and_after_its_pause() {
        let (fronts, now) = (Fronts::default(), Instant::now());
        let due_after = |seconds: u64, host: &str| fronts.is_due("1", &front(host), now + Duration::from_secs(seconds));
        assert!(due_after(0, "a"));
        let clean = |verdict| Outcome { verdict, unsettled: None };
        let (proven, failure) = (|| clean(Verdict::proven()), || clean(failure()));
        assert!(fronts.note("1", front("a"), proven(), now, 0.5));
        assert!(!due_after(29, "a") && due_after(30, "a") && due_after(0, "b"));
        assert!(!fronts.note("1", front("a"), proven(), now, 0.5), "nothing new");
        assert!(!due_after(599, "a") && due_after(600, "a"));
        // A failure is looked at again soon, then more and more seldom.
        assert!(fronts.note("1", front("a"), failure(), now, 0.5));
        assert!(!due_after(4, "a") && due_after(5, "a"));
        assert!(!fronts.note("1", front("a"), failure(), now, 0.5));
        assert!(!due_after(9, "a") && due_after(10, "a"));
        for _ in 0..40 {
            fronts.note("1", front("a"), failure(), now, 0.5);
        }
        assert!(!due_after(119, "a") && due_after(120, "a"));
        // Another front begins anew.
        fronts.note("1", front("b"), failure(), now, 0.5);
        assert!(due_after(5, "b"));
        // What is left in the registry is remembered, also for another front, until it is settled.
        fronts.note("1", front("b"), Outcome { unsettled: Some("/v2/1".into()), ..failure() }, now, 0.5);
        assert_eq!(fronts.unsettled("1", Way::Ingress).as_deref(), Some("/v2/1"));
        fronts.note("1", front("b"), proven(), now, 0.5);
        assert_eq!(fronts.unsettled("1", Way::Ingress), None);
        fronts.keep_only(&BTreeSet::new());
        assert!(due_after(0, "b"));
    }
}
