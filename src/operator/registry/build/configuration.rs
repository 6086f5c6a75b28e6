//! The engine's configuration and the authority's certificate, as config maps: nothing here is secret.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;

use super::Inputs;
use super::workload::{CERTIFICATE_FOLDER, DATA_FOLDER, USERS_FOLDER};
use crate::operator::registry::mint::HTPASSWD_KEY;
use crate::operator::registry::names::ENGINE_PORT;

/// The key of the engine's configuration.
pub(super) const CONFIGURATION_KEY: &str = "config.yml";
/// The key of the authority's certificate, as other projects name it.
const AUTHORITY_KEY: &str = "ca.crt";

pub(super) fn engine(inputs: &Inputs<'_>) -> ConfigMap {
    ConfigMap {
        metadata: inputs.owned(inputs.names.configuration()),
        data: Some(BTreeMap::from([(CONFIGURATION_KEY.to_owned(), distribution())])),
        ..ConfigMap::default()
    }
}

pub(super) fn authority(inputs: &Inputs<'_>) -> ConfigMap {
    ConfigMap {
        metadata: inputs.owned(inputs.names.authority()),
        data: Some(BTreeMap::from([(AUTHORITY_KEY.to_owned(), inputs.authority.certificate.clone())])),
        ..ConfigMap::default()
    }
}

/// The configuration of CNCF distribution 3. JSON is YAML, and needs no writer of its own.
pub(super) fn distribution() -> String {
    let configuration = json!({
        "version": "0.1",
        "log": {"level": "info", "formatter": "json"},
        "storage": {
            "filesystem": {"rootdirectory": DATA_FOLDER},
            "cache": {"blobdescriptor": "inmemory"},
            "delete": {"enabled": true},
            // An upload that was given up holds space; a week is longer than any push.
            "maintenance": {"uploadpurging": {"enabled": true, "age": "168h", "interval": "24h", "dryrun": false}},
        },
        "http": {
            "addr": format!(":{ENGINE_PORT}"),
            // Shorter than the pod's grace period, so that running transfers end by themselves.
            "draintimeout": "30s",
            "headers": {"X-Content-Type-Options": ["nosniff"]},
            "tls": {
                "certificate": format!("{CERTIFICATE_FOLDER}/tls.crt"),
                "key": format!("{CERTIFICATE_FOLDER}/tls.key"),
                "minimumtls": "tls1.2",
            },
        },
        "auth": {"htpasswd": {"realm": "Wharf registry", "path": format!("{USERS_FOLDER}/{HTPASSWD_KEY}")}},
        "health": {"storagedriver": {"enabled": true, "interval": "10s", "threshold": 3}},
    });
    let mut text = serde_json::to_string_pretty(&configuration).unwrap_or_default();
    text.push('\n');
    text
}
