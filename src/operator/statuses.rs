//! Writes the status of Wharf's resources, and what users would want to be told when it changes.
//! It must never write a status that is as it was: watchers of the resource would be woken without end.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, DynamicObject, ObjectMeta, Patch, PatchParams};
use kube::core::ApiResource;
use kube::core::error_boundary::InvalidObject;
use kube::runtime::events::{Event, EventType};
use kube::{Client, Resource};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::call::{Action, CALL_TIMEOUT, CallError, Target, call};
use super::context::Context;
use crate::api::condition::{self, Finding, Status, conditions};
use crate::api::reason;

/// Applies a status as the given field manager.
///
/// # Errors
/// When the API server refused, or could not be asked.
pub async fn apply<K: Resource<DynamicType = ()>>(
    metadata: &ObjectMeta,
    status: &Value,
    manager: &str,
    context: &Context,
) -> Result<(), CallError> {
    let (name, namespace) = (metadata.name.clone().unwrap_or_default(), metadata.namespace.clone());
    let body = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        // With the UID, a namesake made meanwhile is not given this one's status.
        "metadata": {"name": name, "namespace": namespace, "uid": metadata.uid},
        "status": status,
    });
    let api = dynamic::<K>(&context.client, namespace.as_deref());
    let parameters = PatchParams::apply(manager).force();
    let patch = Patch::Apply(&body);
    let target = Target::new(format!("status of {}", K::kind(&())), namespace.unwrap_or_default(), &name);
    call(&context.metrics, Action::Apply, target, api.patch_status(&name, &parameters, &patch)).await?;
    Ok(())
}

/// A stored object that this version cannot read stops only itself.
///
/// # Errors
/// When the API server refused, or could not be asked.
pub async fn report_malformed<K: Resource<DynamicType = ()>>(
    invalid: &InvalidObject,
    manager: &str,
    context: &Context,
) -> Result<(), CallError> {
    let message = format!(
        "The stored object does not match the schema of this version of Wharf: {}. Correct it with kubectl edit; what runs \
         goes on running",
        invalid.error
    );
    let findings = vec![
        Finding::new(condition::READY, Status::False, reason::MALFORMED, message.clone()),
        Finding::new(condition::STALLED, Status::True, reason::MALFORMED, message),
    ];
    let (name, namespace) = (invalid.metadata.name.clone().unwrap_or_default(), invalid.metadata.namespace.clone());
    let api = dynamic::<K>(&context.client, namespace.as_deref());
    let target = Target::new(K::kind(&()), namespace.unwrap_or_default(), &name);
    let stored = call(&context.metrics, Action::Read, target, api.get(&name)).await?;
    let old: Vec<Condition> = stored
        .data
        .pointer("/status/conditions")
        .and_then(|list| serde_json::from_value(list.clone()).ok())
        .unwrap_or_default();
    let next = conditions(&old, findings, invalid.metadata.generation, (context.clock)());
    if next != old {
        apply::<K>(&invalid.metadata, &json!({ "conditions": next }), manager, context).await?;
    }
    Ok(())
}

pub(super) fn dynamic<K: Resource<DynamicType = ()>>(client: &Client, namespace: Option<&str>) -> Api<DynamicObject> {
    let resource = ApiResource::erase::<K>(&());
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// Tells of a change of readiness.
pub async fn on_transition<K>(object: &K, old: &[Condition], next: &[Condition], context: &Context)
where
    K: Resource<DynamicType = ()>,
{
    if let Some(event) = transition(old, next) {
        publish(object, event, context).await;
    }
}

/// The event for a change of `Ready`; `None` when its status and reason stay.
fn transition(old: &[Condition], next: &[Condition]) -> Option<Event> {
    let before = condition::find(old, condition::READY);
    let after = condition::find(next, condition::READY)?;
    if before.is_some_and(|before| before.status == after.status && before.reason == after.reason) {
        return None;
    }
    let stalled = condition::find(next, condition::STALLED).is_some();
    let was_ready = before.is_some_and(|before| before.status == "True");
    // The steps of a start are in the status for whoever looks; they are no news.
    let is_news = was_ready
        || stalled
        || after.status == "True"
        || matches!(after.reason.as_str(), reason::POD_FAILING | reason::SUSPENDED);
    if !is_news {
        return None;
    }
    let kind = if stalled || after.reason == reason::POD_FAILING { EventType::Warning } else { EventType::Normal };
    Some(event(kind, &after.reason, after.message.clone()))
}

/// An event as the API server takes it.
#[must_use]
pub fn event(kind: EventType, reason: &str, note: String) -> Event {
    /// The API server refuses longer notes.
    const LIMIT: usize = 1024;
    let note = if note.len() > LIMIT { note.chars().take(LIMIT / 4).collect() } else { note };
    Event { type_: kind, reason: reason.to_owned(), note: Some(note), action: "Reconcile".to_owned(), secondary: None }
}

/// Publishes an event. One that cannot be written is logged and forgotten; it must never fail a pass.
pub async fn publish<K: Resource<DynamicType = ()>>(object: &K, event: Event, context: &Context) {
    let reference = object.object_ref(&());
    match timeout(CALL_TIMEOUT, context.recorder.publish(&event, &reference)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, reason = event.reason, "event could not be written"),
        Err(_) => tracing::warn!(reason = event.reason, "event could not be written in time"),
    }
}
