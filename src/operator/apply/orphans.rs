//! Removes objects that an owner once wanted and no longer does.
//! It must never act on a stale view: the owner is read afresh, and each deletion carries the UID and resource version
//! of the object that was looked at. Claims are not in any inventory; only the deletion policy deletes those.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, DynamicObject, Preconditions};
use kube::core::ApiResource;
use kube::{Resource, ResourceExt};

use super::{Applier, Desired, Report, api_resource};
use crate::operator::call::{Action, Class, Target, call, read};

/// An object that belongs to an owner, as last seen.
#[derive(Clone, Debug)]
pub struct Remnant {
    resource: ApiResource,
    target: Target,
    metadata: ObjectMeta,
}

impl Remnant {
    /// The object as it stands in messages.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }
}

/// What an owner has in the cluster.
#[derive(Clone, Debug, Default)]
pub struct Inventory(pub Vec<Remnant>);

impl Inventory {
    /// Adds an object that the owner has.
    pub fn add<K: Resource<DynamicType = ()>>(&mut self, object: &K) {
        self.0.push(Remnant {
            resource: api_resource::<K>(),
            target: Target::new(K::kind(&()), object.namespace().unwrap_or_default(), object.name_any()),
            metadata: object.meta().clone(),
        });
    }

    /// The objects that are not desired and not being deleted already.
    fn unwanted(self, desired: &Desired) -> Vec<Remnant> {
        let wanted: BTreeSet<String> = desired.children().map(|child| child.target().to_string()).collect();
        self.0
            .into_iter()
            .filter(|remnant| remnant.metadata.deletion_timestamp.is_none())
            .filter(|remnant| !wanted.contains(&remnant.target.to_string()))
            .collect()
    }
}

impl Applier {
    /// Deletes what `owner` has and does not want, if `owner` still exists as this very object.
    pub async fn prune<O>(&self, owner: &O, inventory: Inventory, desired: &Desired) -> Report
    where
        O: Resource<DynamicType = ()>,
    {
        let unwanted = inventory.unwanted(desired);
        if unwanted.is_empty() {
            return Report::default();
        }
        let target = Target::new(O::kind(&()), owner.namespace().unwrap_or_default(), owner.name_any());
        let fresh = read(
            &self.metrics,
            target.clone(),
            self.api(&api_resource::<O>(), &target).get_metadata(&owner.name_any()),
        )
        .await;
        match fresh {
            Ok(Some(fresh)) if fresh.metadata.uid == owner.meta().uid => self.delete_all(unwanted).await,
            // The owner is gone or another one has its name: Kubernetes' garbage collector removes what it had.
            Ok(_) => Report::default(),
            Err(error) => Report { failures: vec![error], ..Report::default() },
        }
    }

    /// Deletes the given objects, each only as it was last seen.
    pub async fn delete_all(&self, remnants: Vec<Remnant>) -> Report {
        let mut report = Report::default();
        for remnant in remnants {
            let api: Api<DynamicObject> = self.api(&remnant.resource, &remnant.target);
            let parameters = DeleteParams {
                preconditions: Some(Preconditions {
                    uid: remnant.metadata.uid.clone(),
                    resource_version: remnant.metadata.resource_version.clone(),
                }),
                ..DeleteParams::default()
            };
            let deletion = call(
                &self.metrics,
                Action::Delete,
                remnant.target.clone(),
                api.delete(&remnant.target.name, &parameters),
            );
            match deletion.await {
                Ok(_) => {
                    tracing::info!(target = %remnant.target, "deleted: no longer wanted");
                    report.writes += 1;
                }
                // Already gone, or changed since it was seen: the next pass looks again.
                Err(error) if error.is_not_found() || error.class() == Class::Conflict => {}
                Err(error) => report.failures.push(error),
            }
        }
        report
    }
}
