//! The Secret with the server certificate. Pods take up a new one from their files, without a restart.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::Inputs;
use crate::operator::certificate::KeyedCertificate;
use crate::operator::registry::names::AUTHORITY_KEY;

pub(super) fn certificate(inputs: &Inputs<'_>, leaf: &KeyedCertificate) -> Secret {
    let texts =
        [("tls.crt", leaf.certificate.as_str()), ("tls.key", leaf.key.as_str()), (AUTHORITY_KEY, inputs.bundle)];
    let data: BTreeMap<String, ByteString> =
        texts.iter().map(|(key, text)| ((*key).to_owned(), ByteString(text.as_bytes().to_vec()))).collect();
    Secret {
        metadata: inputs.metadata(inputs.names.certificate()),
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(data),
        ..Secret::default()
    }
}
