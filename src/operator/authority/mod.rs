//! Keeps Wharf's one authority in a Secret of the operator's namespace: makes it once, and replaces it before its end, or
//! when a person asks, in steps that nobody who reads the published certificates notices.
//! A Secret that is there but not understood must never be overwritten: every node trusts what it holds, and a lost key
//! cuts off every registry. Each write carries the version that was read, so of two operators one only takes a step.
//!
//! | state of the Secret | who moves it | what a restart does |
//! |---|---|---|
//! | absent | this module, by a create | makes it, or reads the one that another operator made |
//! | `tls.*`: at rest | this module, in its last two years or when asked | nothing, or begins a rotation |
//! | `tls.*`, `next.*`, `Publishing` | this module, when plan, nodes and config maps have both, or it waited enough | publishes the same next one, waits on |
//! | `tls.*`, `next.*`, `Overlapping` | this module, after the overlap | counts on from the time in the annotation |
//! | `tls.*`, `previous.crt`, `Reissuing` | Registry passes reissue; this module, when none is by the previous one | issues by the new one what is due |
//! | `tls.*`, `previous.crt`, `Retiring` | this module, after the overlap | counts on from the time in the annotation |
//! | the annotation lost or unreadable | this module | begins the step again: `Publishing` or `Reissuing` |
//! | damaged | a person | goes on with what it had read before; a new process waits |

mod events;
mod facts;
mod state;
mod step;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use json_patch::Patch;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, PartialObjectMeta, PatchParams, PostParams};
use kube::runtime::events::{EventType, Recorder};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

pub use self::state::{Anchor, Authority, Rotation, Signer};
pub use self::step::RENEWAL;
use self::step::Step;
use super::call::{Action, CallError, Class, Target, call, read};
use super::certificate::CertificateError;
use super::metrics::Metrics;
use super::view::View;
use crate::api::{labels, reason};
use crate::plan::Plan;

/// The name of the Secret in the operator's namespace.
pub const SECRET_NAME: &str = "wharf-authority";

const MANAGER: &str = "wharf/authority";

/// The authority could not be had.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The API server could not be asked.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A new authority could not be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The Secret is there but damaged. Making another authority would cut off every registry, so a person must decide.
    #[error(
        "Secret {namespace}/{SECRET_NAME} is damaged: {what}. Restore it from a backup; or delete it to have a new authority \
         made, after which every registry restarts with a new certificate"
    )]
    Damaged {
        /// The operator's namespace.
        namespace: String,
        /// What is wrong with it; never its content.
        what: String,
    },
}

impl AuthorityError {
    /// Whether somebody else changed the Secret meanwhile: only a reason to look again.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Call(error) if error.class() == Class::Conflict)
    }
}

/// What was read.
struct Stored {
    authority: Authority,
    secret: Secret,
}

impl Stored {
    fn read(secret: Secret, namespace: &str) -> Result<Self, AuthorityError> {
        match Authority::read(&secret) {
            Ok(authority) => Ok(Self { authority, secret }),
            Err(damage) => Err(AuthorityError::Damaged { namespace: namespace.to_owned(), what: damage.0 }),
        }
    }
}

/// Reads the authority, or makes it when there is none.
///
/// # Errors
/// When the API server cannot be asked, or the Secret is damaged.
pub async fn ensure(
    client: &Client,
    namespace: &str,
    metrics: &Metrics,
    now: Timestamp,
) -> Result<Authority, AuthorityError> {
    Ok(read_or_make(client, namespace, metrics, now).await?.authority)
}

async fn read_or_make(
    client: &Client,
    namespace: &str,
    metrics: &Metrics,
    now: Timestamp,
) -> Result<Stored, AuthorityError> {
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    let target = Target::new("Secret", namespace, SECRET_NAME);
    if let Some(secret) = read(metrics, target.clone(), api.get(SECRET_NAME)).await? {
        return Stored::read(secret, namespace);
    }
    let authority = Authority::new(Signer::make(now)?);
    // `create` fails when another operator was faster, where an apply would overwrite.
    let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    let secret = new_secret(namespace, &authority);
    let creation = api.create(&parameters, &secret);
    let secret = match call(metrics, Action::Apply, target.clone(), creation).await {
        Ok(secret) => {
            tracing::info!(secret = %target, "made the authority that signs every registry's certificate");
            secret
        }
        Err(error) if error.class() == Class::Conflict => {
            call(metrics, Action::Read, target, api.get(SECRET_NAME)).await?
        }
        Err(error) => return Err(error.into()),
    };
    Stored::read(secret, namespace)
}

fn new_secret(namespace: &str, authority: &Authority) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(SECRET_NAME.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some(BTreeMap::from([(labels::NAME.to_owned(), "wharf".to_owned())])),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(authority.data()),
        ..Secret::default()
    }
}

/// Takes the authority from step to step and tells the others of it.
pub struct Keeper {
    /// The client.
    pub client: Client,
    /// The caches.
    pub view: View,
    /// The metrics.
    pub metrics: Metrics,
    /// Writes events.
    pub recorder: Recorder,
    /// The operator's namespace.
    pub namespace: String,
    /// See [`super::settings::Settings::certificate_overlap`].
    pub overlap: Duration,
    /// The node plan last written.
    pub plan: watch::Receiver<Arc<Plan>>,
    /// Where the authority is told.
    pub authority: watch::Sender<Arc<Authority>>,
    /// When a warning was last given, by its subject.
    pub warned: Mutex<BTreeMap<String, Timestamp>>,
}

impl Keeper {
    /// Looks at the authority once and takes the next step, if it is time. Returns by when to look again, if a time alone
    /// can make a step due.
    ///
    /// # Errors
    /// When the API server cannot be asked, the Secret changed meanwhile, or it is damaged.
    pub async fn pass(&self, now: Timestamp) -> Result<Option<Timestamp>, AuthorityError> {
        let result = self.look(now).await;
        if let Err(error) = &result
            && !error.is_conflict()
        {
            self.warn(SECRET_NAME, &self.reference(None), error.to_string(), now).await;
        }
        result
    }

    /// Wakes whoever looks at the authority when its Secret changes, because a person may ask for a rotation at any time.
    /// Only its metadata is watched.
    pub async fn watch(&self, wake: &Notify, shutdown: &CancellationToken) {
        let secrets: Api<PartialObjectMeta<Secret>> = Api::namespaced(self.client.clone(), &self.namespace);
        let selector = watcher::Config::default().fields(&format!("metadata.name={SECRET_NAME}"));
        let mut changes = std::pin::pin!(watcher(secrets, selector).default_backoff());
        while let Some(Some(change)) = shutdown.run_until_cancelled(changes.next()).await {
            match change {
                Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
                Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_) | watcher::Event::InitDone) => {
                    wake.notify_one();
                }
                Err(error) => tracing::warn!(%error, "the watch of the authority was interrupted; it is tried again"),
            }
        }
    }

    async fn look(&self, now: Timestamp) -> Result<Option<Timestamp>, AuthorityError> {
        let Stored { authority, secret } = read_or_make(&self.client, &self.namespace, &self.metrics, now).await?;
        self.tell(&authority);
        let leaves = facts::leaves(&self.view);
        self.judge_leaves(&leaves, authority.signer.end(), now).await;
        let requested = secret.annotations().contains_key(labels::ROTATE);
        let plan = self.plan.borrow().clone();
        let facts = facts::gather(&authority, requested, &leaves, &self.view, &plan);
        let step = step::next(&authority, &facts, self.overlap, now);
        let begins = matches!(step, Step::Prepare | Step::Replace);
        let (note, action) = (events::note(&step), events::action(&step));
        let next = match step {
            Step::Wait(until) => {
                self.warn_of_left_behind(&authority, &facts.by_outgoing, &secret, now).await;
                return Ok(until);
            }
            Step::Prepare => authority.with_next(Signer::make(now)?, now),
            Step::Overlap { .. } => authority.overlapping(now),
            Step::Switch => authority.switched(now),
            Step::Settle => authority.retiring(now),
            Step::Retire => authority.at_rest(),
            Step::Replace => Authority::new(Signer::make(now)?),
        };
        self.write(&secret, &next, begins).await?;
        self.tell(&next);
        tracing::info!(rotation = next.annotation().as_deref().unwrap_or("at rest"), "authority: {note}");
        self.publish(&self.reference(Some(&secret)), EventType::Normal, reason::AUTHORITY_ROTATION, action, note).await;
        Ok(Some(now))
    }

    fn tell(&self, authority: &Authority) {
        self.authority.send_if_modified(|known| {
            let differs = known.as_ref() != authority;
            if differs {
                *known = Arc::new(authority.clone());
            }
            differs
        });
    }

    /// Replaces our data and annotations, if nobody changed the Secret since it was read. What a person asked for is done
    /// with when a rotation begins.
    async fn write(&self, secret: &Secret, authority: &Authority, begins: bool) -> Result<(), AuthorityError> {
        let mut annotations = secret.annotations().clone();
        annotations.remove(labels::ROTATION);
        annotations.extend(authority.annotation().map(|text| (labels::ROTATION.to_owned(), text)));
        if begins {
            annotations.remove(labels::ROTATE);
        }
        let mut data = secret.data.clone().unwrap_or_default();
        data.retain(|key, _| !state::is_ours(key));
        data.extend(authority.data());
        let patch: Option<Patch> = serde_json::from_value(json!([
            {"op": "test", "path": "/metadata/resourceVersion", "value": secret.metadata.resource_version},
            {"op": "add", "path": "/metadata/annotations", "value": annotations},
            {"op": "add", "path": "/data", "value": data},
        ]))
        .ok();
        let patch = kube::api::Patch::Json::<()>(patch.unwrap_or_default());
        let api = Api::<Secret>::namespaced(self.client.clone(), &self.namespace);
        let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let request = api.patch(SECRET_NAME, &parameters, &patch);
        call(&self.metrics, Action::Patch, Target::new("Secret", &self.namespace, SECRET_NAME), request).await?;
        Ok(())
    }
}
