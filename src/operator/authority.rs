//! Keeps Wharf's one authority in a Secret of the operator's namespace, and makes it once.
//! An authority that exists is never overwritten: every node trusts it, and a lost key would cut off every registry.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};

use super::call::{Action, CallError, Class, Target, call, read};
use super::certificate::{CertificateError, KeyedCertificate, make_authority};
use super::metrics::Metrics;
use crate::api::labels;

/// The name of the Secret in the operator's namespace.
pub const SECRET_NAME: &str = "wharf-authority";

/// The authority could not be had.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The API server could not be asked.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A new authority could not be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The Secret is there but damaged. Making another authority would cut off every registry, so a person must decide.
    #[error(
        "Secret {namespace}/{SECRET_NAME} has no usable `tls.crt` and `tls.key`: restore it from a backup, or delete it to \
         have a new authority made, after which every registry restarts with a new certificate"
    )]
    Damaged {
        /// The operator's namespace.
        namespace: String,
    },
}

/// Reads the authority, or makes it when there is none.
///
/// # Errors
/// When the API server cannot be asked, or the Secret is damaged.
pub async fn ensure(
    client: &Client,
    namespace: &str,
    metrics: &Metrics,
    now: Timestamp,
) -> Result<KeyedCertificate, AuthorityError> {
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    let target = Target::new("Secret", namespace, SECRET_NAME);
    if let Some(secret) = read(metrics, target.clone(), api.get(SECRET_NAME)).await? {
        return authority_of(&secret).ok_or_else(|| AuthorityError::Damaged { namespace: namespace.to_owned() });
    }
    let authority = make_authority(now)?;
    // `create` fails when another operator was faster, where an apply would overwrite.
    let parameters = PostParams { field_manager: Some("wharf/authority".to_owned()), ..PostParams::default() };
    let secret = secret_of(namespace, &authority);
    let creation = api.create(&parameters, &secret);
    match call(metrics, Action::Apply, target.clone(), creation).await {
        Ok(_) => {
            tracing::info!(secret = %target, "made the authority that signs every registry's certificate");
            Ok(authority)
        }
        Err(error) if error.class() == Class::Conflict => {
            let secret = call(metrics, Action::Read, target, api.get(SECRET_NAME)).await?;
            authority_of(&secret).ok_or_else(|| AuthorityError::Damaged { namespace: namespace.to_owned() })
        }
        Err(error) => Err(error.into()),
    }
}

fn secret_of(namespace: &str, authority: &KeyedCertificate) -> Secret {
    let data = [("tls.crt", &authority.certificate), ("tls.key", &authority.key)];
    Secret {
        metadata: ObjectMeta {
            name: Some(SECRET_NAME.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some(BTreeMap::from([(labels::NAME.to_owned(), "wharf".to_owned())])),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(data.map(|(key, text)| (key.to_owned(), ByteString(text.clone().into_bytes()))).into()),
        ..Secret::default()
    }
}

fn authority_of(secret: &Secret) -> Option<KeyedCertificate> {
    let data = secret.data.as_ref()?;
    let text = |key: &str| String::from_utf8(data.get(key)?.0.clone()).ok().filter(|text| text.contains("-----BEGIN"));
    Some(KeyedCertificate { certificate: text("tls.crt")?, key: text("tls.key")? })
}
