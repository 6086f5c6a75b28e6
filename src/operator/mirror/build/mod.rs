//! Builds a Mirror's children from what was observed and issued. Pure and infallible: whatever could be missing or wrong was
//! settled before.

mod configuration;
mod disruption;
pub(super) mod growth;
mod network;
mod secrets;
mod services;
mod volumes;
mod workload;

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::Resource;
use kube::api::ObjectMeta;

use super::names::Names;
use super::observe::Observed;
use super::upstreams::Upstreams;
use crate::api::{Mirror, labels};
use crate::operator::apply::{Child, Desired};
use crate::operator::certificate::KeyedCertificate;
use crate::operator::settings::Settings;

/// What the builders read.
pub struct Inputs<'a> {
    /// The Mirror.
    pub mirror: &'a Mirror,
    /// Its children's names.
    pub names: &'a Names,
    /// The operator's settings.
    pub settings: &'a Settings,
    /// What is in the cluster.
    pub observed: &'a Observed,
    /// The registries that the pods are told of.
    pub upstreams: &'a Upstreams,
    /// The server certificate; `None` until every Service has an address.
    pub leaf: Option<&'a KeyedCertificate>,
    /// PEM of the certificates that clients must trust.
    pub bundle: &'a str,
}

impl Inputs<'_> {
    /// Metadata of a child. All of them go with their Mirror.
    fn metadata(&self, name: impl Into<String>) -> ObjectMeta {
        let owner = self.mirror.controller_owner_ref(&()).map(|mut owner| {
            // Blocking the owner's deletion would need a right on its finalizers, and nothing waits for it.
            owner.block_owner_deletion = None;
            owner
        });
        ObjectMeta {
            name: Some(name.into()),
            namespace: Some(self.names.namespace().to_owned()),
            labels: Some(labels::of_mirror(self.names.mirror())),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        }
    }
}

/// The children, in the order in which they are written: first the Services, because the certificate names their addresses;
/// then what the pods read, and what their claims should have; the pods last.
#[must_use]
pub fn build(inputs: &Inputs<'_>) -> Desired {
    let observed = inputs.observed;
    let mut services = vec![Child::new(&services::of_all(inputs), observed.service.ours())];
    for (ordinal, found) in (0..).zip(&observed.replicas) {
        services.push(Child::new(&services::of_replica(inputs, ordinal), found.ours()));
    }
    let mut reads = vec![Child::new(&configuration::config_map(inputs), observed.configuration.ours())];
    reads.extend(disruption::budget(inputs).map(|budget| Child::new(&budget, observed.disruption_budget.ours())));
    reads.extend(network::policy(inputs).map(|policy| Child::new(&policy, observed.network_policy.ours())));
    reads.extend(growth::claims(inputs).iter().map(|(claim, live)| Child::new(claim, Some(live))));
    let Some(leaf) = inputs.leaf else {
        return Desired { stages: vec![services, reads] };
    };
    reads.push(Child::new(&secrets::certificate(inputs, leaf), observed.certificate.ours()));
    let is_leaving = |live: &StatefulSet| live.metadata.deletion_timestamp.is_some();
    if observed.stateful_set.ours().is_some_and(is_leaving) {
        return Desired { stages: vec![services, reads] };
    }
    let workload = Child::new(&workload::stateful_set(inputs), observed.stateful_set.ours());
    Desired { stages: vec![services, reads, vec![workload]] }
}

#[cfg(test)]
mod tests;
