//! The Secrets of a Registry: the credential, the pull secret made from it, and the server certificate.

use std::collections::BTreeMap;

use base64::Engine as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use super::Inputs;
use crate::operator::certificate::KeyedCertificate;
use crate::operator::registry::mint::{HTPASSWD_KEY, PASSWORD_KEY, UPLOAD_SECRET_KEY, USERNAME_KEY};
use crate::operator::registry::names::AUTHORITY_KEY;

pub(super) fn credentials(inputs: &Inputs<'_>) -> Secret {
    let credential = &inputs.minted.credential;
    let texts = [
        (USERNAME_KEY, &credential.username),
        (PASSWORD_KEY, &credential.password),
        (HTPASSWD_KEY, &credential.htpasswd),
        (UPLOAD_SECRET_KEY, &inputs.minted.upload_secret),
    ];
    secret(inputs, inputs.names.credentials(), "Opaque", &texts)
}

/// Kubernetes' own form of a pull secret (`kubernetes.io/dockerconfigjson`).
pub(super) fn pull_secret(inputs: &Inputs<'_>) -> Secret {
    let credential = &inputs.minted.credential;
    let pair = format!("{}:{}", credential.username, credential.password);
    let auth = base64::engine::general_purpose::STANDARD.encode(pair);
    let login = json!({"username": credential.username, "password": credential.password, "auth": auth});
    let hosts = std::iter::once(inputs.names.address()).chain(inputs.observed.hosts.granted.iter().cloned());
    let logins: BTreeMap<String, &Value> = hosts.map(|host| (host, &login)).collect();
    let document = json!({ "auths": logins });
    let texts = [(".dockerconfigjson", &document.to_string())];
    secret(inputs, inputs.names.pull_secret(), "kubernetes.io/dockerconfigjson", &texts)
}

pub(super) fn certificate(inputs: &Inputs<'_>, leaf: &KeyedCertificate) -> Secret {
    let bundle = inputs.bundle.to_owned();
    let texts = [("tls.crt", &leaf.certificate), ("tls.key", &leaf.key), (AUTHORITY_KEY, &bundle)];
    secret(inputs, inputs.names.certificate(), "kubernetes.io/tls", &texts)
}

fn secret(inputs: &Inputs<'_>, name: String, kind: &str, texts: &[(&str, &String)]) -> Secret {
    let data: BTreeMap<String, ByteString> =
        texts.iter().map(|(key, text)| ((*key).to_owned(), ByteString(text.as_bytes().to_vec()))).collect();
    Secret { metadata: inputs.owned(name), type_: Some(kind.to_owned()), data: Some(data), ..Secret::default() }
}
