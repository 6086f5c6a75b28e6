//! The `StatefulSet` that runs a Mirror's pods, each with a cache of its own. They start beside each other and know nothing of
//! each other; what is lost with one is fetched again.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    Affinity, Container, PersistentVolumeClaim, PersistentVolumeClaimSpec, PodAffinityTerm, PodAntiAffinity, PodSpec,
    PodTemplateSpec, Probe, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::ObjectMeta;

use super::configuration::{self, CONFIGURATION_KEY};
use super::volumes::{self, CONFIGURATION_FOLDER};
use super::{Inputs, growth};
use crate::api::labels;
use crate::api::mirror::MirrorClients;
use crate::operator::mirror::names::{CACHE, OPERATIONS_PORT, PORT};
use crate::operator::registry::build::engine::{default_resources, filled, port, restricted, tells, unprivileged};
use crate::plan::digest_of;

/// Longer than the server takes to drain.
const GRACE_SECONDS: i64 = 45;
/// Nodes that are to start pull through these pods: what would be evicted for others' sake takes their start with it.
const PRIORITY_CLASS: &str = "system-cluster-critical";

/// The labels by which Services and the `StatefulSet` find the pods.
pub(super) fn selector(mirror: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (labels::NAME.to_owned(), labels::MIRROR.to_owned()),
        (labels::INSTANCE.to_owned(), mirror.to_owned()),
    ])
}

pub(super) fn stateful_set(inputs: &Inputs<'_>) -> StatefulSet {
    let (names, spec) = (inputs.names, &inputs.mirror.spec);
    let delete = || Some("Delete".to_owned());
    StatefulSet {
        metadata: inputs.metadata(names.object()),
        spec: Some(StatefulSetSpec {
            replicas: Some(spec.replicas),
            revision_history_limit: Some(2),
            service_name: Some(names.object()),
            pod_management_policy: Some("Parallel".to_owned()),
            // A cache holds nothing that cannot be had again.
            persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: delete(),
                when_scaled: delete(),
            }),
            selector: selects(names.mirror()),
            template: PodTemplateSpec { metadata: Some(pod_metadata(inputs)), spec: Some(pod_spec(inputs)) },
            volume_claim_templates: Some(vec![claim(inputs)]),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}

fn selects(mirror: &str) -> LabelSelector {
    LabelSelector { match_labels: Some(selector(mirror)), ..LabelSelector::default() }
}

fn claim(inputs: &Inputs<'_>) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(CACHE.to_owned()),
            labels: Some(labels::of_mirror(inputs.names.mirror())),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: inputs.mirror.spec.cache.storage_class_name.clone(),
            resources: Some(growth::request(&growth::template_size(inputs))),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

fn pod_metadata(inputs: &Inputs<'_>) -> ObjectMeta {
    let template = &inputs.mirror.spec.pod_template;
    let mut all_labels = template.labels.clone();
    all_labels.extend(labels::of_mirror(inputs.names.mirror()));
    let mut annotations = template.annotations.clone();
    annotations.insert(labels::CONTENT.to_owned(), digest_of(&configuration::needs_a_new_pod(inputs)));
    ObjectMeta { labels: Some(all_labels), annotations: Some(annotations), ..ObjectMeta::default() }
}

fn pod_spec(inputs: &Inputs<'_>) -> PodSpec {
    let template = &inputs.mirror.spec.pod_template;
    PodSpec {
        service_account_name: Some(inputs.settings.mirror_service_account.clone()),
        // With its token the server asks whether those of agents are good, and nothing else.
        automount_service_account_token: Some(inputs.mirror.spec.clients == MirrorClients::Agents),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        security_context: Some(unprivileged()),
        containers: vec![container(inputs)],
        volumes: Some(volumes::volumes(inputs)),
        node_selector: (!template.node_selector.is_empty()).then(|| template.node_selector.clone()),
        tolerations: filled(&template.tolerations),
        affinity: template.affinity.clone().or_else(|| apart(inputs)),
        topology_spread_constraints: filled(&template.topology_spread_constraints),
        priority_class_name: Some(template.priority_class_name.clone().unwrap_or_else(|| PRIORITY_CLASS.to_owned())),
        image_pull_secrets: filled(&template.image_pull_secrets),
        ..PodSpec::default()
    }
}

fn container(inputs: &Inputs<'_>) -> Container {
    let answers = tells("/readyz");
    let resources = inputs.mirror.spec.pod_template.resources.clone();
    Container {
        name: "mirror".to_owned(),
        image: Some(inputs.settings.wharf_image.clone()),
        args: Some(vec![
            "serve".to_owned(),
            format!("--config={CONFIGURATION_FOLDER}/{CONFIGURATION_KEY}"),
            "--log-format=json".to_owned(),
        ]),
        ports: Some(vec![port("registry", PORT), port("operations", OPERATIONS_PORT)]),
        resources: Some(resources.unwrap_or_else(|| default_resources("64Mi"))),
        startup_probe: Some(Probe { period_seconds: Some(1), failure_threshold: Some(120), ..answers.clone() }),
        readiness_probe: Some(Probe { period_seconds: Some(5), failure_threshold: Some(3), ..answers }),
        // Only whether the program lives: a volume that fails for a while is no reason to restart it.
        liveness_probe: Some(Probe { period_seconds: Some(10), failure_threshold: Some(6), ..tells("/healthz") }),
        security_context: Some(restricted()),
        volume_mounts: Some(volumes::mounts(inputs)),
        ..Container::default()
    }
}

/// Several pods stand on several nodes where there are so many; who wants it otherwise says so in the pod template.
fn apart(inputs: &Inputs<'_>) -> Option<Affinity> {
    (inputs.mirror.spec.replicas > 1).then(|| Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![WeightedPodAffinityTerm {
                weight: 100,
                pod_affinity_term: PodAffinityTerm {
                    topology_key: "kubernetes.io/hostname".to_owned(),
                    label_selector: Some(selects(inputs.names.mirror())),
                    ..PodAffinityTerm::default()
                },
            }]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    })
}
