//! The container that tells how full the volume is, beside an engine that does not tell it: the volume can be seen from
//! inside the pod only.
//! It must never be able to write to the volume.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerPort, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::Inputs;
use super::volumes::{self, DATA_FOLDER};
use crate::api::registry::Engine;
use crate::operator::registry::names::VOLUME_PORT;

/// `None` where the engine tells it, and where the images are in an object store, which has no end.
pub(super) fn container(inputs: &Inputs<'_>) -> Option<Container> {
    if inputs.registry.spec.engine == Engine::Wharf || inputs.registry.spec.storage.s3.is_some() {
        return None;
    }
    let amounts = |cpu: &str, memory: &str| {
        let amount = |name: &str, value: &str| (name.to_owned(), Quantity(value.to_owned()));
        BTreeMap::from([amount("cpu", cpu), amount("memory", memory)])
    };
    Some(Container {
        name: "volume".to_owned(),
        image: Some(inputs.settings.wharf_image.clone()),
        args: Some(vec![
            "volume".to_owned(),
            format!("--folder={DATA_FOLDER}"),
            format!("--listen=0.0.0.0:{VOLUME_PORT}"),
        ]),
        ports: Some(vec![ContainerPort {
            name: Some("volume".to_owned()),
            container_port: VOLUME_PORT,
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        resources: Some(ResourceRequirements {
            requests: Some(amounts("1m", "8Mi")),
            limits: Some(BTreeMap::from([("memory".to_owned(), Quantity("32Mi".to_owned()))])),
            ..ResourceRequirements::default()
        }),
        security_context: Some(super::engine::restricted()),
        volume_mounts: Some(vec![volumes::mount("data", DATA_FOLDER, true)]),
        ..Container::default()
    })
}
