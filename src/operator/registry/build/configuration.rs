//! The engine's configuration, which may hold a secret of its own, and the certificates that clients must trust, which are
//! public.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::{Value, json};

use super::Inputs;
use super::volumes::{CERTIFICATE_FOLDER, DATA_FOLDER, USERS_FOLDER};
use crate::api::registry::{Engine, ObjectStore, RegistrySpec};
use crate::operator::registry::mint::HTPASSWD_KEY;
use crate::operator::registry::names::{AUTHORITY_KEY, ENGINE_PORT, VOLUME_PORT};

/// The key of the engine's configuration.
pub(super) const CONFIGURATION_KEY: &str = "config.yml";

/// How long transfers that run may go on when a pod stops; shorter than its grace period, so that they end by themselves.
const DRAIN_SECONDS: u32 = 30;

pub(super) fn engine(inputs: &Inputs<'_>) -> Secret {
    Secret {
        metadata: inputs.owned(inputs.names.configuration()),
        type_: Some("Opaque".to_owned()),
        data: Some(BTreeMap::from([(CONFIGURATION_KEY.to_owned(), ByteString(content(inputs).into_bytes()))])),
        ..Secret::default()
    }
}

pub(super) fn authority(inputs: &Inputs<'_>) -> ConfigMap {
    ConfigMap {
        metadata: inputs.owned(inputs.names.authority()),
        data: Some(BTreeMap::from([(AUTHORITY_KEY.to_owned(), inputs.bundle.to_owned())])),
        ..ConfigMap::default()
    }
}

/// The text of the engine's configuration. JSON is YAML, and needs no writer of its own.
pub(super) fn content(inputs: &Inputs<'_>) -> String {
    let configuration = match inputs.registry.spec.engine {
        Engine::Wharf => wharf(),
        Engine::Distribution => distribution(inputs),
    };
    let mut text = serde_json::to_string_pretty(&configuration).unwrap_or_default();
    text.push('\n');
    text
}

/// The configuration of `wharf serve`.
fn wharf() -> Value {
    json!({
        "root": DATA_FOLDER,
        // Every address of the pod, of whichever family.
        "listen": format!("[::]:{ENGINE_PORT}"),
        "operations": format!("[::]:{VOLUME_PORT}"),
        "tls": {
            "certificate": format!("{CERTIFICATE_FOLDER}/tls.crt"),
            "key": format!("{CERTIFICATE_FOLDER}/tls.key"),
        },
        "access": {"users": format!("{USERS_FOLDER}/{HTPASSWD_KEY}")},
        "limits": {"stopSeconds": DRAIN_SECONDS},
    })
}

/// The configuration of CNCF distribution 3.
fn distribution(inputs: &Inputs<'_>) -> Value {
    json!({
        "version": "0.1",
        "log": {"level": "info", "formatter": "json"},
        "storage": storage(&inputs.registry.spec),
        "http": {
            "addr": format!(":{ENGINE_PORT}"),
            // It signs the state of uploads: with one of its own, each pod would refuse what another began.
            "secret": inputs.minted.upload_secret,
            "draintimeout": format!("{DRAIN_SECONDS}s"),
            "headers": {"X-Content-Type-Options": ["nosniff"]},
            "tls": {
                "certificate": format!("{CERTIFICATE_FOLDER}/tls.crt"),
                "key": format!("{CERTIFICATE_FOLDER}/tls.key"),
                "minimumtls": "tls1.2",
            },
        },
        "auth": {"htpasswd": {"realm": "Wharf registry", "path": format!("{USERS_FOLDER}/{HTPASSWD_KEY}")}},
        "health": {"storagedriver": {"enabled": true, "interval": "10s", "threshold": 3}},
    })
}

fn storage(spec: &RegistrySpec) -> Value {
    let mut storage = json!({
        "delete": {"enabled": true},
        // An upload that was given up holds space; a week is longer than any push.
        "maintenance": {"uploadpurging": {"enabled": true, "age": "168h", "interval": "24h", "dryrun": false}},
        // Nodes and clients need not reach the object store, nor trust it.
        "redirect": {"disable": true},
    });
    let Some(fields) = storage.as_object_mut() else {
        return storage;
    };
    match &spec.storage.s3 {
        Some(store) => fields.insert("s3".to_owned(), object_store(store)),
        None => fields.insert("filesystem".to_owned(), json!({"rootdirectory": DATA_FOLDER})),
    };
    // What one pod remembers, another may have deleted: a push would then skip a layer that is gone.
    if spec.replicas == 1 {
        fields.insert("cache".to_owned(), json!({"blobdescriptor": "inmemory"}));
    }
    storage
}

/// No credentials: the engine finds them in the file that is mounted, or by the pod's identity in the cloud.
fn object_store(store: &ObjectStore) -> Value {
    let mut driver = json!({
        "bucket": store.bucket,
        "region": store.region,
        "rootdirectory": format!("/{}", store.prefix.trim_matches('/')),
    });
    if let (Some(endpoint), Some(fields)) = (&store.endpoint, driver.as_object_mut()) {
        fields.insert("regionendpoint".to_owned(), endpoint.clone().into());
        fields.insert("forcepathstyle".to_owned(), true.into());
    }
    driver
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::serve::config::Config;

    #[test]
    fn the_server_takes_its_configuration() {
        let text = super::wharf().to_string();
        let config = Config::parse(Path::new("config.yml"), &text).unwrap();
        assert!(config.tls.is_some() && config.operations.is_some());
        assert_eq!(config.access.anonymous_rights(), crate::serve::access::Rights::None);
    }
}
