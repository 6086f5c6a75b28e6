//! The names of a Mirror's children, all of them in the operator's own namespace. They follow from the Mirror's name alone, so
//! that every pass finds what an earlier one made. The schema refuses names of Mirrors that would make two of these alike.

/// Port on which a pod serves images inside it.
pub const PORT: i32 = 5000;
/// Port on which a pod tells of itself, in the pod and on its replica's Service; for the operator only.
pub const OPERATIONS_PORT: i32 = 5001;
/// Port of each Service.
pub const SERVICE_PORT: i32 = 443;
/// The key of the digests in the config map of images that pods run.
pub const IN_USE_KEY: &str = "in-use";
/// The name of the volume, and so the beginning of each claim's name.
pub const CACHE: &str = "cache";

/// What begins the name of everything that is made for Mirrors.
const PREFIX: &str = "mirror-";

/// The names of one Mirror's children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    mirror: String,
    namespace: String,
}

impl Names {
    /// The names for a Mirror; `namespace` is the operator's own.
    pub fn new(namespace: impl Into<String>, mirror: impl Into<String>) -> Self {
        Self { mirror: mirror.into(), namespace: namespace.into() }
    }

    /// Whether a Service of this name in the operator's namespace is made for a Mirror.
    #[must_use]
    pub fn is_of_a_mirror(service: &str) -> bool {
        service.starts_with(PREFIX)
    }

    /// The Mirror's own name.
    #[must_use]
    pub fn mirror(&self) -> &str {
        &self.mirror
    }

    /// The namespace of its children.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Whatever there is one of: the `StatefulSet`, the Service before all pods, the configuration, the disruption budget and
    /// the network policy.
    #[must_use]
    pub fn object(&self) -> String {
        format!("{PREFIX}{}", self.mirror)
    }

    /// The pod with this ordinal, and the Service that leads to it alone and outlives it.
    #[must_use]
    pub fn replica(&self, ordinal: i32) -> String {
        format!("{}-{ordinal}", self.object())
    }

    /// The Secret with the server certificate.
    #[must_use]
    pub fn certificate(&self) -> String {
        format!("{}-tls", self.object())
    }

    /// The config map with the digests of images that pods run.
    #[must_use]
    pub fn in_use(&self) -> String {
        format!("{}-in-use", self.object())
    }

    /// The claim of the pod with this ordinal, as Kubernetes names it.
    #[must_use]
    pub fn claim(&self, ordinal: i32) -> String {
        format!("{CACHE}-{}", self.replica(ordinal))
    }
}
