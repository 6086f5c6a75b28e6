//! What the pod mounts: the images, the engine's settings, and what it needs to reach an object store.
//! Secrets of users are mounted by the pod itself, by name; the operator never reads them.

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, KeyToPath, PersistentVolumeClaimVolumeSource, SecretVolumeSource, Volume, VolumeMount,
};

use super::Inputs;
use super::engine::STORE_CREDENTIALS_KEY;
use crate::operator::registry::mint::HTPASSWD_KEY;

/// Where the images lie in the pod.
pub(super) const DATA_FOLDER: &str = "/var/lib/registry";
/// Where the server certificate lies in the pod.
pub(super) const CERTIFICATE_FOLDER: &str = "/etc/wharf/certificate";
/// Where the file of users lies in the pod.
pub(super) const USERS_FOLDER: &str = "/etc/wharf/users";
/// Where the engine's configuration lies in the pod.
pub(super) const CONFIGURATION_FOLDER: &str = "/etc/wharf/configuration";
/// Where the object store's credentials lie in the pod.
pub(super) const STORE_CREDENTIALS_FOLDER: &str = "/etc/wharf/object-store/credentials";
/// Where the object store's authorities lie in the pod.
pub(super) const STORE_AUTHORITY_FOLDER: &str = "/etc/wharf/object-store/authority";

/// Readable by the owner and the pod's group only.
pub(in crate::operator) const SECRET_MODE: i32 = 0o440;

pub(super) fn volumes(inputs: &Inputs<'_>) -> Vec<Volume> {
    let names = inputs.names;
    let storage = &inputs.registry.spec.storage;
    let mut volumes = Vec::new();
    match &storage.s3 {
        None => volumes.push(claim(storage.existing_claim_name.clone().unwrap_or_else(|| names.claim()))),
        Some(store) => {
            if let Some(reference) = &store.credentials_secret_ref {
                volumes.push(secret("store-credentials", reference.name.clone(), &[STORE_CREDENTIALS_KEY]));
            }
            if let Some(reference) = &store.ca_config_map_ref {
                volumes.push(config_map("store-authority", reference.name.clone()));
            }
        }
    }
    volumes.push(secret("configuration", names.configuration(), &[super::configuration::CONFIGURATION_KEY]));
    volumes.push(secret("certificate", names.certificate(), &["tls.crt", "tls.key"]));
    // The password itself stays out of the pod; the engine needs the hash only.
    volumes.push(secret("users", names.credentials(), &[HTPASSWD_KEY]));
    volumes
}

pub(super) fn mounts(inputs: &Inputs<'_>) -> Vec<VolumeMount> {
    let mut mounts = Vec::new();
    match &inputs.registry.spec.storage.s3 {
        None => mounts.push(mount("data", DATA_FOLDER, false)),
        Some(store) => {
            if store.credentials_secret_ref.is_some() {
                mounts.push(mount("store-credentials", STORE_CREDENTIALS_FOLDER, true));
            }
            if store.ca_config_map_ref.is_some() {
                mounts.push(mount("store-authority", STORE_AUTHORITY_FOLDER, true));
            }
        }
    }
    mounts.extend([
        mount("configuration", CONFIGURATION_FOLDER, true),
        mount("certificate", CERTIFICATE_FOLDER, true),
        mount("users", USERS_FOLDER, true),
    ]);
    mounts
}

fn claim(claim_name: String) -> Volume {
    Volume {
        name: "data".to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource { claim_name, read_only: None }),
        ..Volume::default()
    }
}

fn config_map(name: &str, config_map: String) -> Volume {
    Volume {
        name: name.to_owned(),
        config_map: Some(ConfigMapVolumeSource { name: config_map, ..ConfigMapVolumeSource::default() }),
        ..Volume::default()
    }
}

fn secret(name: &str, secret: String, keys: &[&str]) -> Volume {
    let items =
        keys.iter().map(|key| KeyToPath { key: (*key).to_owned(), path: (*key).to_owned(), mode: None }).collect();
    Volume {
        name: name.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret),
            items: Some(items),
            default_mode: Some(SECRET_MODE),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

pub(in crate::operator) fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}
