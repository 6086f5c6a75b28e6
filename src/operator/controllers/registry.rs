//! The controller of Registries: kube's queue over our keys. A pass that fails is tried again, more and more slowly; it must
//! never stop the passes of others.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::core::DeserializeGuard;
use kube::runtime::Controller;
use kube::runtime::controller::{self, Action};
use kube::runtime::reflector::ObjectRef;
use tokio_util::sync::CancellationToken;

use super::wakes::Key;
use crate::api::Registry;
use crate::operator::context::Context;
use crate::operator::pending::Pending;
use crate::operator::registry::{PassError, reconcile};

/// How many Registries are worked on at once.
const CONCURRENCY: u16 = 8;
/// How long changes of one Registry are gathered before a pass.
const DEBOUNCE: Duration = Duration::from_millis(50);

pub(super) async fn registry_controller(
    context: Arc<Context>,
    pending: Arc<Pending<Key>>,
    shutdown: &CancellationToken,
) {
    let stopped = shutdown.clone().cancelled_owned();
    let keys = futures::stream::unfold(pending, async |pending| {
        let keys = pending.next().await;
        Some((futures::stream::iter(keys), pending))
    });
    Controller::for_stream(futures::stream::pending(), context.view.registries.clone())
        .with_config(controller::Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE))
        .reconcile_on(keys.flatten())
        .graceful_shutdown_on(stopped)
        .run(reconcile_and_forget, error_policy, context)
        .for_each(async |result| match result {
            // A change of a Registry that is gone leaves nothing to do; failed passes are reported by the error policy.
            Ok(_) | Err(controller::Error::ObjectNotFound(_) | controller::Error::ReconcilerFailed(..)) => {}
            Err(error) => tracing::error!(%error, "the Registry controller's queue reported an error"),
        })
        .await;
}

async fn reconcile_and_forget(
    registry: Arc<DeserializeGuard<Registry>>,
    context: Arc<Context>,
) -> Result<Action, PassError> {
    let key = ObjectRef::from_obj(registry.as_ref()).to_string();
    let action = reconcile(registry, context.clone()).await?;
    context.backoff.forget(&key);
    Ok(action)
}

#[allow(clippy::needless_pass_by_value, reason = "the signature is kube's")]
fn error_policy(registry: Arc<DeserializeGuard<Registry>>, error: &PassError, context: Arc<Context>) -> Action {
    let key = ObjectRef::from_obj(registry.as_ref()).to_string();
    let wait = context.backoff.after_failure(&key, rand::random());
    if error.is_conflict() {
        tracing::info!(registry = %key, %error, "changed meanwhile; looking again");
    } else {
        tracing::warn!(registry = %key, %error, wait_seconds = wait.as_secs_f64(), "pass failed; it is tried again");
    }
    Action::requeue(wait)
}
