//! Where a Registry keeps its images.
//! It must never let a change of the spec leave images behind in silence: what would move them cannot change.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::schema::OBJECT_NAME;

/// Where a Registry keeps its images: in a claim that Wharf makes, in a claim that exists, or in an object store.
#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!has(self.s3) || !has(self.existingClaimName)", "s3 and existingClaimName exclude each other: images are kept in one place"))]
#[x_kube(validation = ("self.deletionPolicy != 'Delete' || (!has(self.s3) && !has(self.existingClaimName))", "deletionPolicy Delete is for the claim that Wharf makes: a claim or bucket of yours is never deleted"))]
#[x_kube(validation = ("has(self.existingClaimName) == has(oldSelf.existingClaimName) && (!has(self.existingClaimName) || self.existingClaimName == oldSelf.existingClaimName)", "existingClaimName cannot change: the images would stay behind. Make another Registry and copy the images"))]
#[x_kube(validation = ("has(self.s3) == has(oldSelf.s3) && (!has(self.s3) || (self.s3.bucket == oldSelf.s3.bucket && self.s3.prefix == oldSelf.s3.prefix))", "the place of the images cannot change (s3, its bucket and prefix): they would stay behind. Make another Registry and copy the images"))]
pub struct Storage {
    /// The persistent volume claim that Wharf makes for this Registry, unless `existingClaimName` or `s3` is given.
    #[serde(default)]
    pub claim: Claim,

    /// A claim of this namespace to keep the images in. Wharf mounts it and never changes or deletes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    pub existing_claim_name: Option<String>,

    /// A bucket of an object store to keep the images in, instead of a claim. Needs `engine: Distribution`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<ObjectStore>,

    /// What becomes of the claim, and of the images in it, when this Registry is deleted. `Retain` does not outlive the
    /// namespace: deleting a namespace deletes its claims.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// The persistent volume claim of a Registry.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)", "storageClassName cannot change: Kubernetes fixes a claim's class when it is made. Make another Registry and copy the images"))]
#[x_kube(validation = ("has(self.accessModes) == has(oldSelf.accessModes) && (!has(self.accessModes) || self.accessModes == oldSelf.accessModes)", "accessModes cannot change: Kubernetes fixes a claim's access modes when it is made"))]
pub struct Claim {
    /// The size to ask for, as a Kubernetes quantity of bytes (`20Gi`). It can grow later, never shrink.
    #[serde(default = "Claim::default_size")]
    #[schemars(schema_with = "super::super::schema::positive_quantity")]
    pub size: Quantity,

    /// The storage class. Without it, the cluster's default class is used. It cannot change afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    pub storage_class_name: Option<String>,

    /// The claim's access modes. Without them, `ReadWriteOncePod` where the class belongs to a CSI driver, so that
    /// Kubernetes itself keeps a second writer away, and `ReadWriteOnce` otherwise. They cannot change afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2), extend("x-kubernetes-list-type" = "atomic"))]
    pub access_modes: Option<Vec<AccessMode>>,
}

impl Claim {
    fn default_size() -> Quantity {
        Quantity("20Gi".to_owned())
    }
}

impl Default for Claim {
    fn default() -> Self {
        Self { size: Self::default_size(), storage_class_name: None, access_modes: None }
    }
}

/// How a volume may be mounted. `ReadOnlyMany` is missing because a registry writes.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum AccessMode {
    /// By the pods of one node.
    ReadWriteOnce,
    /// By one pod.
    ReadWriteOncePod,
    /// By pods on any node.
    ReadWriteMany,
}

impl AccessMode {
    /// The mode as Kubernetes writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadWriteOnce => "ReadWriteOnce",
            Self::ReadWriteOncePod => "ReadWriteOncePod",
            Self::ReadWriteMany => "ReadWriteMany",
        }
    }
}

/// What becomes of a Registry's claim when the Registry is deleted.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// The claim and its images stay; a new Registry of the same name and namespace takes them over.
    #[default]
    Retain,
    /// The claim and its images are deleted with the Registry.
    Delete,
}

/// A bucket of an object store that speaks S3.
#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ObjectStore {
    /// The bucket. It must exist.
    #[schemars(length(min = 3, max = 63), regex(pattern = "^[a-z0-9][a-z0-9.-]*[a-z0-9]$"))]
    pub bucket: String,

    /// The region, as the object store names it.
    #[serde(default = "ObjectStore::default_region")]
    #[schemars(length(min = 1, max = 64))]
    pub region: String,

    /// Address of an object store other than AWS, such as `https://minio.storage.svc:9000`. Buckets are then addressed by
    /// path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = r"^https?://[^/\s?#@]+$"))]
    pub endpoint: Option<String>,

    /// The folder inside the bucket, such as `team/`. Empty for the whole bucket. Two Registries must not share one.
    #[serde(default)]
    #[schemars(length(max = 512), regex(pattern = "^([A-Za-z0-9!_.*'()-][A-Za-z0-9!_.*'()/-]*)?$"))]
    pub prefix: String,

    /// A Secret of this namespace whose key `credentials` is a credentials file as AWS' tools read it. Without it the pods
    /// use the identity that their service account has in the cloud (`serviceAccount.annotations`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<NameReference>,

    /// A config map of this namespace whose key `ca.crt` holds authorities that may sign the endpoint's certificate, besides
    /// those that are publicly trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<NameReference>,
}

impl ObjectStore {
    fn default_region() -> String {
        "us-east-1".to_owned()
    }
}

/// An object of the same namespace, by its name.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub struct NameReference {
    /// The object's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    pub name: String,
}
