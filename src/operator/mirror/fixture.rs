//! Values for tests of the pure stages: a Mirror, and a cluster that has nothing of it.

use std::collections::{BTreeMap, BTreeSet};

use super::names::Names;
use super::observe::{Observed, SecretFact};
use super::precedence::Hosts;
use crate::api::Mirror;
use crate::operator::apply::Inventory;
use crate::operator::found::Found;
use crate::operator::registry::observe::{ClassTraits, StorageClassFact};

/// A Mirror as the API server would give it back, from YAML without identity.
pub(crate) fn mirror(yaml: &str) -> Mirror {
    let mut mirror: Mirror = serde_saphyr::from_str(yaml).expect("the case is a Mirror");
    mirror.metadata.uid = Some("4f1e6d1c-0000-0000-0000-000000000002".into());
    mirror.metadata.generation = Some(1);
    mirror.metadata.resource_version = Some("1".into());
    mirror
}

/// The Mirror `default` with the given spec.
pub(crate) fn default(spec: &str) -> Mirror {
    mirror(&format!("apiVersion: wharf.dev/v1alpha1\nkind: Mirror\nmetadata: {{name: default}}\nspec: {spec}\n"))
}

pub(crate) fn names(mirror: &Mirror) -> Names {
    Names::new("wharf-system", mirror.metadata.name.clone().unwrap_or_default())
}

/// A cluster that has nothing of the Mirror, and all Secrets that it names.
pub(crate) fn nothing(mirror: &Mirror) -> Observed {
    let replicas = usize::try_from(mirror.spec.replicas).unwrap_or_default();
    Observed {
        service: Found::Absent,
        replicas: vec![Found::Absent; replicas],
        stateful_set: Found::Absent,
        configuration: Found::Absent,
        certificate: Found::Absent,
        disruption_budget: Found::Absent,
        network_policy: Found::Absent,
        lists_in_use: false,
        claims: Vec::new(),
        storage_class: StorageClassFact::Available(ClassTraits { by_csi_driver: false, expandable: true }),
        pods: Vec::new(),
        lost_nodes: Vec::new(),
        hosts: Hosts {
            granted: mirror.spec.upstreams.iter().map(|upstream| upstream.host.clone()).collect(),
            lost: Vec::new(),
        },
        secrets: secrets(mirror),
        mirror_addresses: BTreeSet::new(),
        planned: BTreeSet::new(),
        nodes: Vec::new(),
        bypassed: Some(Vec::new()),
        platforms: Vec::new(),
        reports: None,
        inventory: Inventory::default(),
    }
}

fn secrets(mirror: &Mirror) -> BTreeMap<String, SecretFact> {
    let fact = |kind: &str, keys: &[&str]| SecretFact {
        kind: kind.into(),
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        endpoints: Vec::new(),
    };
    let mut facts = BTreeMap::new();
    for upstream in &mirror.spec.upstreams {
        if let Some(reference) = &upstream.credentials_secret_ref {
            facts.insert(reference.name.clone(), fact("kubernetes.io/basic-auth", &["username", "password"]));
        }
        if let Some(reference) = &upstream.ca_secret_ref {
            facts.insert(reference.name.clone(), fact("Opaque", &["ca.crt"]));
        }
    }
    facts
}
