//! Values for tests of the pure stages: a Registry, a cluster that has nothing of it, and fixed secrets.

use std::time::Duration;

use kube::api::ObjectMeta;

use super::mint::{Credential, Minted};
use super::names::Names;
use super::observe::{ClassTraits, Found, FoundClaim, IngressClassFact, Observed, ObservedExposure, StorageClassFact};
use super::precedence::{Hosts, PlannedHost};
use crate::api::Registry;
use crate::operator::apis::Apis;
use crate::operator::apply::Inventory;
use crate::operator::certificate::KeyedCertificate;
use crate::operator::limits::Limits;
use crate::operator::settings::Settings;

/// A Registry as the API server would give it back, from YAML without identity.
pub(crate) fn registry(yaml: &str) -> Registry {
    let mut registry: Registry = serde_saphyr::from_str(yaml).expect("the case is a Registry");
    registry.metadata.uid = Some("4f1e6d1c-0000-0000-0000-000000000001".into());
    registry.metadata.generation = Some(1);
    registry.metadata.resource_version = Some("1".into());
    registry
}

/// The Registry `platform/team` with the given spec.
pub(crate) fn team(spec: &str) -> Registry {
    registry(&format!(
        "apiVersion: wharf.dev/v1alpha1\nkind: Registry\nmetadata: {{name: team, namespace: platform}}\nspec: {spec}\n"
    ))
}

pub(crate) fn names(registry: &Registry) -> Names {
    let ObjectMeta { name, namespace, .. } = &registry.metadata;
    Names::new(namespace.clone().unwrap_or_default(), name.clone().unwrap_or_default())
}

pub(crate) fn settings() -> Settings {
    Settings {
        namespace: "wharf-system".into(),
        plan_namespace: "wharf-nodes".into(),
        cluster_domain: "cluster.local".into(),
        wharf_image: "docker.io/library/wharf:1".into(),
        volume_interval: std::time::Duration::from_secs(60),
        distribution_image: "docker.io/library/registry:3.1.2".into(),
        certificate_overlap: Duration::from_secs(14 * 24 * 3600),
        limits: Limits::default(),
        mirror_service_account: "wharf-mirror".into(),
        agent_service_account: "wharf-agent".into(),
        closed_ranges: Vec::new(),
    }
}

/// A cluster that has nothing of the Registry.
pub(crate) fn nothing(names: &Names) -> Observed {
    Observed {
        service: Found::Absent,
        deployment: Found::Absent,
        claim: FoundClaim::Absent,
        storage_class: StorageClassFact::Available(ClassTraits::default()),
        rival: None,
        disruption_budget: Found::Absent,
        network_policy: Found::Absent,
        configuration: Found::Absent,
        authority: Found::Absent,
        credentials: Found::Absent,
        certificate: Found::Absent,
        pull_secret: Found::Absent,
        service_account: Found::Absent,
        pods: Vec::new(),
        lost_nodes: Vec::new(),
        volume: None,
        images: None,
        nodes: Vec::new(),
        exposure: ObservedExposure {
            ingress: Found::Absent,
            service: Found::Absent,
            authority: Found::Absent,
            class: IngressClassFact::NotNeeded,
            host_taken_by: None,
            apis: Apis { http_routes: true, backend_tls_policies: true, cert_manager: true },
            route: Found::Absent,
            backend_policy: Found::Absent,
            route_host_taken_by: None,
            verdicts: Vec::new(),
        },
        planned: vec![PlannedHost { host: names.address(), since: None }],
        hosts: Hosts::default(),
        ca_bundles: None,
        inventory: Inventory::default(),
    }
}

pub(crate) const BUNDLE: &str = "authority certificate\n";

pub(crate) fn minted() -> Minted {
    Minted {
        credential: Credential {
            username: "wharf".into(),
            password: "secret".into(),
            htpasswd: "wharf:$2y$04$hash\n".into(),
        },
        upload_secret: "upload secret".into(),
        leaf: Some(KeyedCertificate { certificate: "leaf certificate\n".into(), key: "leaf key\n".into() }),
        issued_because: None,
        renew_at: None,
    }
}
