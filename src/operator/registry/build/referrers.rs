//! What is done before CNCF distribution takes a volume that Wharf's own server may have had: the tags by which clients find
//! referrers where an engine has no API for them are brought up to date (docs/decisions/0008).
//! It must never run beside a server: an init container has the volume to itself.

use k8s_openapi::api::core::v1::Container;

use super::Inputs;
use super::volumes::{self, DATA_FOLDER};
use crate::api::registry::Engine;

/// `None` where the engine has the API, and where the images were never Wharf's.
pub(super) fn container(inputs: &Inputs<'_>) -> Option<Container> {
    if inputs.registry.spec.engine == Engine::Wharf || inputs.registry.spec.storage.s3.is_some() {
        return None;
    }
    Some(Container {
        name: "referrers".to_owned(),
        image: Some(inputs.settings.wharf_image.clone()),
        args: Some(vec!["tag-referrers".to_owned(), format!("--root={DATA_FOLDER}")]),
        // It reads every manifest once after a change of engine, and may use what the engine may.
        resources: Some(super::engine::resources(inputs, "32Mi")),
        security_context: Some(super::engine::restricted()),
        volume_mounts: Some(vec![volumes::mount("data", DATA_FOLDER, false)]),
        ..Container::default()
    })
}
