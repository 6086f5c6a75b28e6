//! The apply engine: the only code that writes children. It brings the cluster to a list of desired objects by
//! server-side apply, in order, and removes what an owner no longer wants.
//! It must never decide what is wanted, write an object that belongs to somebody else, or delete a claim.
//!
//! | left by a crash | who moves it | what the next pass does |
//! |---|---|---|
//! | some children applied, others not | this engine | applies those whose intent differs, skips the rest |
//! | an applied object whose reply was lost | this engine | finds its intent annotation equal and skips it |
//! | an object that is no longer wanted | this engine | deletes it after the next complete run |

mod intent;
mod orphans;

use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde_json::Value;

use super::call::{Action, CallError, Class, Target, call};
use super::metrics::Metrics;

/// The field manager of a Registry's children.
pub const MANAGER: &str = "wharf/registry";

pub use orphans::{Inventory, Remnant};

/// An object as it should be.
#[derive(Clone, Debug)]
pub struct Child {
    resource: ApiResource,
    target: Target,
    manifest: Value,
    live: Option<Value>,
}

impl Child {
    /// A desired object and, where it exists and is ours, the object as last seen.
    ///
    /// The manifest holds exactly the fields that Wharf has an opinion on.
    #[must_use]
    pub fn new<K>(manifest: &K, live: Option<&K>) -> Self
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        let target = Target::new(K::kind(&()), manifest.namespace().unwrap_or_default(), manifest.name_any());
        Self {
            resource: ApiResource::erase::<K>(&()),
            target,
            manifest: intent::annotated(serde_json::to_value(manifest).unwrap_or_default()),
            live: live.map(|object| with_type::<K>(serde_json::to_value(object).unwrap_or_default())),
        }
    }

    /// What this child is, for messages.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The object as it will be sent, but for preconditions.
    #[must_use]
    pub fn manifest(&self) -> &Value {
        &self.manifest
    }
}

/// Objects from a watch carry no `apiVersion` and `kind`; comparisons need them.
fn with_type<K: Resource<DynamicType = ()>>(mut value: Value) -> Value {
    if let Some(fields) = value.as_object_mut() {
        fields.insert("apiVersion".to_owned(), K::api_version(&()).into());
        fields.insert("kind".to_owned(), K::kind(&()).into());
    }
    value
}

/// Desired objects in the order in which they are written. A stage is written only when the one before it succeeded,
/// because it reads what that one holds; within a stage a failure does not stop the others.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// The stages.
    pub stages: Vec<Vec<Child>>,
}

impl Desired {
    /// All objects, in order.
    pub fn children(&self) -> impl Iterator<Item = &Child> {
        self.stages.iter().flatten()
    }
}

/// What a run did.
#[derive(Debug, Default)]
pub struct Report {
    /// Objects that were written or deleted.
    pub writes: usize,
    /// What failed.
    pub failures: Vec<CallError>,
}

impl Report {
    /// Whether every object is as desired.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.failures.is_empty()
    }
}

/// The engine of one controller.
#[derive(Clone)]
pub struct Applier {
    client: Client,
    manager: &'static str,
    metrics: Metrics,
}

impl Applier {
    /// An engine that writes as the given field manager.
    #[must_use]
    pub fn new(client: Client, manager: &'static str, metrics: Metrics) -> Self {
        Self { client, manager, metrics }
    }

    /// Brings the cluster to `desired`. Objects that already satisfy their intent are not written.
    pub async fn apply(&self, desired: &Desired) -> Report {
        let mut report = Report::default();
        for stage in &desired.stages {
            for child in stage {
                match self.apply_one(child).await {
                    Ok(wrote) => report.writes += usize::from(wrote),
                    Err(error) => report.failures.push(error),
                }
            }
            if !report.is_complete() {
                break;
            }
        }
        report
    }

    async fn apply_one(&self, child: &Child) -> Result<bool, CallError> {
        if child.live.as_ref().is_some_and(|live| intent::satisfied(&child.manifest, live)) {
            return Ok(false);
        }
        let mut manifest = child.manifest.clone();
        // An object that exists is written only while it is the one that was looked at: with its UID in the intent, the
        // API server refuses to touch a namesake.
        if let (Some(uid), Some(metadata)) = (
            child.live.as_ref().and_then(|live| live.pointer("/metadata/uid")),
            manifest.get_mut("metadata").and_then(Value::as_object_mut),
        ) {
            metadata.insert("uid".to_owned(), uid.clone());
        }
        // A new object is applied without force, so that a namesake that somebody made a moment ago answers with a
        // conflict instead of being taken over.
        let parameters = PatchParams { force: child.live.is_some(), ..PatchParams::apply(self.manager) };
        let outcome = self.send_apply(child, &manifest, &parameters).await;
        if let Err(refusal) = outcome {
            // Elements that somebody put into a list of ours are not taken out by an apply, and can make the result
            // invalid: then the whole list is set back first.
            let repair = child.live.as_ref().and_then(|live| intent::repair(&child.manifest, live));
            let Some(repair) = repair.filter(|_| refusal.class() == Class::Refused) else {
                return Err(refusal);
            };
            let patch = Patch::Json::<()>(repair);
            let api = self.api(&child.resource, &child.target);
            let parameters = PatchParams { field_manager: Some(self.manager.to_owned()), ..PatchParams::default() };
            let request = api.patch(&child.target.name, &parameters, &patch);
            // What the API server said to the intent itself is the better answer.
            if call(&self.metrics, Action::Patch, child.target.clone(), request).await.is_err() {
                return Err(refusal);
            }
        }
        tracing::debug!(target = %child.target, "applied");
        Ok(true)
    }

    async fn send_apply(
        &self,
        child: &Child,
        manifest: &Value,
        parameters: &PatchParams,
    ) -> Result<DynamicObject, CallError> {
        let (api, patch) = (self.api(&child.resource, &child.target), Patch::Apply(manifest));
        let request = api.patch(&child.target.name, parameters, &patch);
        call(&self.metrics, Action::Apply, child.target.clone(), request).await
    }

    fn api(&self, resource: &ApiResource, target: &Target) -> Api<DynamicObject> {
        if target.namespace.is_empty() {
            Api::all_with(self.client.clone(), resource)
        } else {
            Api::namespaced_with(self.client.clone(), &target.namespace, resource)
        }
    }
}

/// Describes a kind without its Rust type.
fn api_resource<K: Resource<DynamicType = ()>>() -> ApiResource {
    let kind = GroupVersionKind::gvk(&K::group(&()), &K::version(&()), &K::kind(&()));
    ApiResource::from_gvk_with_plural(&kind, &K::plural(&()))
}

#[cfg(test)]
mod tests;
