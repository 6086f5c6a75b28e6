//! The names of a Registry's children. They follow from the Registry's name alone, so that every pass finds what an
//! earlier one made. The Service alone bears the Registry's own name, because the address is made from it.

/// Port on which the engine listens inside its pod.
pub const ENGINE_PORT: i32 = 5000;
/// Port on which the registry's pod tells how full its volume is, in the pod and on the Service.
pub const VOLUME_PORT: i32 = 5001;
/// Port of the Service; image references then need none.
pub const SERVICE_PORT: i32 = 443;
/// The key of the certificates that clients must trust, in config map and Secret, as other projects name it.
pub const AUTHORITY_KEY: &str = "ca.crt";

/// The names of one Registry's children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    registry: String,
    namespace: String,
}

impl Names {
    /// The names for a Registry.
    pub fn new(namespace: impl Into<String>, registry: impl Into<String>) -> Self {
        Self { registry: registry.into(), namespace: namespace.into() }
    }

    /// The Registry's own name.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The Registry's namespace, and its children's.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The Service.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.registry
    }

    /// The Deployment.
    #[must_use]
    pub fn deployment(&self) -> String {
        self.child("registry")
    }

    /// The claim with the images.
    #[must_use]
    pub fn claim(&self) -> String {
        self.child("registry")
    }

    /// The service account of the registry's pod.
    #[must_use]
    pub fn service_account(&self) -> String {
        self.child("registry")
    }

    /// The network policy of the registry's pods.
    #[must_use]
    pub fn network_policy(&self) -> String {
        self.child("registry")
    }

    /// The config map with the engine's configuration.
    #[must_use]
    pub fn configuration(&self) -> String {
        self.child("registry")
    }

    /// The Secret with the generated user, its password and the file of users.
    #[must_use]
    pub fn credentials(&self) -> String {
        self.child("registry-credentials")
    }

    /// The Secret with the server certificate.
    #[must_use]
    pub fn certificate(&self) -> String {
        self.child("registry-tls")
    }

    /// The pull secret.
    #[must_use]
    pub fn pull_secret(&self) -> String {
        self.child("pull")
    }

    /// The config map with the certificates that clients must trust.
    #[must_use]
    pub fn authority(&self) -> String {
        self.child("ca")
    }

    /// The Ingress, and the objects of the Gateway API.
    #[must_use]
    pub fn front(&self) -> String {
        self.child("registry")
    }

    /// The Service that leads from beyond the cluster to the registry's pods.
    #[must_use]
    pub fn external_service(&self) -> String {
        self.child("external")
    }

    /// The Secret with the certificates that a front must trust. They are no secret, but ingress controllers read no config
    /// map.
    #[must_use]
    pub fn front_authority(&self) -> String {
        self.child("front-ca")
    }

    /// The Secret into which cert-manager puts the certificate of the Ingress.
    #[must_use]
    pub fn ingress_certificate(&self) -> String {
        self.child("ingress-tls")
    }

    /// The registry's name in image references.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}.{}.svc", self.registry, self.namespace)
    }

    fn child(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.registry)
    }
}
