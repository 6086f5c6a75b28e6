//! The controllers of resources: kube's queue over our keys. A pass that fails is tried again, more and more slowly; it must
//! never stop the passes of others.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::Resource;
use kube::core::DeserializeGuard;
use kube::runtime::Controller;
use kube::runtime::controller::{self, Action};
use kube::runtime::reflector::{ObjectRef, Store};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::operator::context::Context;
use crate::operator::pending::Pending;
use crate::operator::registry::PassError;

/// How many resources of a kind are worked on at once.
const CONCURRENCY: u16 = 8;
/// How long changes of one resource are gathered before a pass.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// Runs a pass for each key that is pending.
pub(super) async fn run<K, F>(
    store: Store<DeserializeGuard<K>>,
    pass: impl Fn(Arc<DeserializeGuard<K>>, Arc<Context>) -> F,
    context: Arc<Context>,
    pending: Arc<Pending<ObjectRef<DeserializeGuard<K>>>>,
    shutdown: &CancellationToken,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    F: Future<Output = Result<Action, PassError>> + Send + 'static,
{
    let stopped = shutdown.clone().cancelled_owned();
    let keys = futures::stream::unfold(pending, async |pending| {
        let keys = pending.next().await;
        Some((futures::stream::iter(keys), pending))
    });
    let pass = |object: Arc<DeserializeGuard<K>>, context: Arc<Context>| {
        let key = key_of(object.as_ref());
        let passing = pass(object, context.clone());
        async move {
            let action = passing.await?;
            context.backoff.forget(&key);
            Ok(action)
        }
    };
    Controller::for_stream(futures::stream::pending(), store)
        .with_config(controller::Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE))
        .reconcile_on(keys.flatten())
        .graceful_shutdown_on(stopped)
        .run(pass, error_policy, context)
        .for_each(async |result| match result {
            // A change of a resource that is gone leaves nothing to do; failed passes are reported by the error policy.
            Ok(_) | Err(controller::Error::ObjectNotFound(_) | controller::Error::ReconcilerFailed(..)) => {}
            Err(error) => tracing::error!(kind = %K::kind(&()), %error, "a controller's queue reported an error"),
        })
        .await;
}

#[allow(clippy::needless_pass_by_value, reason = "the signature is kube's")]
fn error_policy<K>(object: Arc<DeserializeGuard<K>>, error: &PassError, context: Arc<Context>) -> Action
where
    K: Resource<DynamicType = ()>,
{
    let key = key_of(object.as_ref());
    let wait = context.backoff.after_failure(&key, rand::random());
    if error.is_conflict() {
        tracing::info!(resource = %key, %error, "changed meanwhile; looking again");
    } else {
        tracing::warn!(resource = %key, %error, wait_seconds = wait.as_secs_f64(), "pass failed; it is tried again");
    }
    Action::requeue(wait)
}

/// A resource as it stands in logs, and by which its failures are counted.
fn key_of<K: Resource<DynamicType = ()>>(object: &DeserializeGuard<K>) -> String {
    format!("{} {}", K::kind(&()), ObjectRef::from_obj(object))
}
