//! Builds a Registry's children from what was observed and minted. Pure and infallible: whatever could be missing or
//! wrong was settled before.

mod configuration;
mod disruption;
pub(in crate::operator) mod engine;
mod front;
mod gateway;
mod gauge;
pub(in crate::operator) mod network;
mod referrers;
mod secrets;
mod service;
mod storage;
pub(in crate::operator) mod volumes;
mod workload;

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Resource;
use kube::api::ObjectMeta;

use super::mint::Minted;
use super::names::Names;
use super::observe::Observed;
use crate::api::{Registry, labels};
use crate::operator::apply::{Child, Desired};
use crate::operator::settings::Settings;

/// What the builders read.
pub struct Inputs<'a> {
    /// The Registry.
    pub registry: &'a Registry,
    /// Its children's names.
    pub names: &'a Names,
    /// The operator's settings.
    pub settings: &'a Settings,
    /// What is in the cluster.
    pub observed: &'a Observed,
    /// The Registry's secrets.
    pub minted: &'a Minted,
    /// PEM of the certificates that clients must trust.
    pub bundle: &'a str,
}

impl Inputs<'_> {
    /// Metadata of a child that dies with its Registry.
    fn owned(&self, name: impl Into<String>) -> ObjectMeta {
        let owner = self.registry.controller_owner_ref(&()).map(|mut owner| {
            // Blocking the owner's deletion would need a right on the Registry's finalizers, and nothing waits for it.
            owner.block_owner_deletion = None;
            owner
        });
        ObjectMeta { owner_references: owner.map(|owner| vec![owner]), ..self.unowned(name) }
    }

    /// Metadata of a child that outlives its Registry.
    fn unowned(&self, name: impl Into<String>) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.into()),
            namespace: Some(self.names.namespace().to_owned()),
            labels: Some(labels::of_registry(self.names.registry())),
            ..ObjectMeta::default()
        }
    }
}

/// The children, in the order in which they are written: first the Service, because the certificate names its address;
/// then what the pod reads; the pod last.
#[must_use]
pub fn build(inputs: &Inputs<'_>) -> Desired {
    let observed = inputs.observed;
    let mut reads = vec![
        Child::new(&service_account(inputs), observed.service_account.ours()),
        Child::new(&secrets::credentials(inputs), observed.credentials.ours()),
        Child::new(&secrets::pull_secret(inputs), observed.pull_secret.ours()),
        Child::new(&configuration::authority(inputs), observed.authority.ours()),
        Child::new(&configuration::engine(inputs), observed.configuration.ours()),
    ];
    let mut stages = vec![vec![Child::new(&service::service(inputs), observed.service.ours())]];
    if let Some(claim) = storage::claim(inputs) {
        reads.insert(0, Child::new(&claim, observed.claim.usable()));
    }
    reads.extend(disruption::budget(inputs).map(|budget| Child::new(&budget, observed.disruption_budget.ours())));
    reads.extend(network::policy(inputs).map(|policy| Child::new(&policy, observed.network_policy.ours())));
    if let Some(leaf) = &inputs.minted.leaf {
        reads.push(Child::new(&secrets::certificate(inputs, leaf), observed.certificate.ours()));
        stages.push(reads);
        stages.push(vec![Child::new(&workload::deployment(inputs, leaf), observed.deployment.ours())]);
        // Last, so that what cannot be had out there keeps nothing from running in here.
        let fronts = front::children(inputs);
        if !fronts.is_empty() {
            stages.push(fronts);
        }
    } else {
        stages.push(reads);
    }
    Desired { stages }
}

/// The pod's own identity, which has no right and no token.
fn service_account(inputs: &Inputs<'_>) -> ServiceAccount {
    let identity = inputs.registry.spec.service_account.clone().unwrap_or_default();
    let annotations = (!identity.annotations.is_empty()).then_some(identity.annotations);
    ServiceAccount {
        metadata: ObjectMeta { annotations, ..inputs.owned(inputs.names.service_account()) },
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

#[cfg(test)]
mod tests;
