//! Whose certificates are believed when a front is called: the public authorities and those that the administrator adds for
//! fronts of others, Wharf's own for the registry's own certificate. It must never believe a certificate unverified.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use crate::operator::call::{CallError, Target, read};
use crate::operator::context::Context;
use crate::operator::registry::names::AUTHORITY_KEY;

/// The config map, in the operator's namespace, with authorities that the administrator trusts besides the public ones.
pub const TRUSTED: &str = "wharf-trusted-certificates";

/// How TLS is done with fronts.
pub struct Trust {
    /// With what others run.
    pub public: Arc<ClientConfig>,
    /// With the registry itself.
    pub own: Arc<ClientConfig>,
}

impl Trust {
    /// Gathers the authorities.
    pub(super) async fn read(context: &Context) -> Result<Self, CallError> {
        let namespace = &context.settings.namespace;
        let api = Api::<ConfigMap>::namespaced(context.client.clone(), namespace);
        let added = read(&context.metrics, Target::new("ConfigMap", namespace, TRUSTED), api.get(TRUSTED)).await?;
        let pem = added.and_then(|map| map.data).and_then(|mut data| data.remove(AUTHORITY_KEY)).unwrap_or_default();
        Ok(Self::new(&pem, &context.authority.borrow().bundle()))
    }

    /// From the PEM of the administrator's authorities and of Wharf's.
    #[must_use]
    pub fn new(added: &str, own: &str) -> Self {
        let mut public = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        public.add_parsable_certificates(certificates(added));
        let mut ours = RootCertStore::empty();
        ours.add_parsable_certificates(certificates(own));
        Self { public: configuration(public), own: configuration(ours) }
    }
}

/// What cannot be read is left out: whatever it would have vouched for is then reported as not trusted.
fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok).collect()
}

fn configuration(roots: RootCertStore) -> Arc<ClientConfig> {
    let provider = Arc::new(crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    // The provider has suites for both versions, so there is no other case; nobody would be trusted in it.
    let builder = versions.unwrap_or_else(|_| ClientConfig::builder());
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}
