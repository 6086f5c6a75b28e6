//! The apply engine: the only code that writes children. It brings the cluster to a list of desired objects by
//! server-side apply, in order, and removes what an owner no longer wants.
//! It must never decide what is wanted, write an object that belongs to somebody else, or delete a claim. Nor does it fight:
//! an object that another writer keeps setting back is left alone after three rounds.
//!
//! | left by a crash | who moves it | what the next pass does |
//! |---|---|---|
//! | some children applied, others not | this engine | applies those whose intent differs, skips the rest |
//! | an applied object whose reply was lost | this engine | finds its intent annotation equal and skips it |
//! | how often another writer set an object back | nobody | counts anew, and writes three times more at most |
//! | an object that is no longer wanted | this engine | deletes it after the next complete run |

mod contest;
mod intent;
mod orphans;

use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use super::call::{Action, CallError, Class, Target, call, read};
use super::metrics::Metrics;

/// The field manager of a Registry's children.
pub const MANAGER: &str = "wharf/registry";

pub(super) use contest::Verdict;
pub use contest::{Contest, Contests};
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
    /// What was left alone, because another writer keeps setting it back.
    pub contests: Vec<Contest>,
}

impl Report {
    /// Whether every object is as desired, but for those that somebody else keeps otherwise.
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
    contests: Contests,
}

/// What became of one object.
enum Applied {
    AsItIs,
    Written,
    LeftAlone(Contest),
}

impl Applier {
    /// An engine that writes as the given field manager.
    #[must_use]
    pub fn new(client: Client, manager: &'static str, metrics: Metrics) -> Self {
        Self { client, manager, metrics, contests: Contests::default() }
    }

    /// Brings the cluster to `desired`. Objects that already satisfy their intent are not written.
    pub async fn apply(&self, desired: &Desired) -> Report {
        let mut report = Report::default();
        for stage in &desired.stages {
            for child in stage {
                match self.apply_one(child).await {
                    Ok(Applied::AsItIs) => {}
                    Ok(Applied::Written) => report.writes += 1,
                    Ok(Applied::LeftAlone(contest)) => report.contests.push(contest),
                    Err(error) => report.failures.push(error),
                }
            }
            if !report.is_complete() {
                break;
            }
        }
        report
    }

    async fn apply_one(&self, child: &Child) -> Result<Applied, CallError> {
        let Some(live) = &child.live else {
            return self.write(child, None).await;
        };
        if intent::satisfied(&child.manifest, live) {
            return Ok(Applied::AsItIs);
        }
        let (uid, digest) = (uid_of(live), intent::digest(&child.manifest));
        if !self.contests.has_written(&child.target, uid, digest) {
            return self.write(child, Some(live)).await;
        }
        // This very intent was written to this very object: either the cache is behind, or somebody set it back.
        let api = self.api(&child.resource, &child.target);
        let fresh = read(&self.metrics, child.target.clone(), api.get(&child.target.name)).await?;
        let fresh = fresh.map(|object| serde_json::to_value(object).unwrap_or_default());
        let Some(fresh) = fresh.filter(|fresh| uid_of(fresh) == uid) else {
            return self.write(child, Some(live)).await;
        };
        if intent::satisfied(&child.manifest, &fresh) {
            return Ok(Applied::AsItIs);
        }
        match self.contests.undone(&child.target, Instant::now().into_std()) {
            Verdict::Write => {}
            Verdict::Stand => {
                return Ok(Applied::LeftAlone(contest::describe(&child.target, &child.manifest, &fresh, self.manager)));
            }
        }
        self.write(child, Some(&fresh)).await
    }

    async fn write(&self, child: &Child, live: Option<&Value>) -> Result<Applied, CallError> {
        let mut manifest = child.manifest.clone();
        // An object that exists is written only while it is the one that was looked at: with its UID in the intent, the
        // API server refuses to touch a namesake.
        if let (Some(uid), Some(metadata)) = (
            live.and_then(|live| live.pointer("/metadata/uid")),
            manifest.get_mut("metadata").and_then(Value::as_object_mut),
        ) {
            metadata.insert("uid".to_owned(), uid.clone());
        }
        // A new object is applied without force, so that a namesake that somebody made a moment ago answers with a
        // conflict instead of being taken over.
        let parameters = PatchParams { force: live.is_some(), ..PatchParams::apply(self.manager) };
        let written = match self.send_apply(child, &manifest, &parameters).await {
            Ok(written) => written,
            Err(refusal) => self.repair(child, live, refusal).await?,
        };
        let uid = written.metadata.uid.unwrap_or_default();
        self.contests.wrote(&child.target, &uid, intent::digest(&child.manifest), Instant::now().into_std());
        tracing::debug!(target = %child.target, "applied");
        Ok(Applied::Written)
    }

    /// Elements that somebody put into a list of ours are not taken out by an apply, and can make the result invalid: then
    /// the whole list is set back.
    async fn repair(
        &self,
        child: &Child,
        live: Option<&Value>,
        refusal: CallError,
    ) -> Result<DynamicObject, CallError> {
        let repair = live.and_then(|live| intent::repair(&child.manifest, live));
        let Some(repair) = repair.filter(|_| refusal.class() == Class::Refused) else {
            return Err(refusal);
        };
        let patch = Patch::Json::<()>(repair);
        let api = self.api(&child.resource, &child.target);
        let parameters = PatchParams { field_manager: Some(self.manager.to_owned()), ..PatchParams::default() };
        let request = api.patch(&child.target.name, &parameters, &patch);
        // What the API server said to the intent itself is the better answer.
        call(&self.metrics, Action::Patch, child.target.clone(), request).await.map_err(|_| refusal)
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

fn uid_of(object: &Value) -> &str {
    object.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default()
}

/// Describes a kind without its Rust type.
fn api_resource<K: Resource<DynamicType = ()>>() -> ApiResource {
    let kind = GroupVersionKind::gvk(&K::group(&()), &K::version(&()), &K::kind(&()));
    ApiResource::from_gvk_with_plural(&kind, &K::plural(&()))
}

#[cfg(test)]
mod tests;
