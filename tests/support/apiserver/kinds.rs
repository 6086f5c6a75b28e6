//! The kinds that the API server serves, and how server-side apply merges their fields.
//! It must never serve a kind by halves: what is listed here behaves in full, anything else is not found.

use std::any::TypeId;

use k8s_openapi::ClusterResourceScope;
use k8s_openapi::api::{
    apps::v1 as apps, coordination::v1 as coordination, core::v1 as core, events::v1 as events,
    networking::v1 as networking,
};
use kube::CustomResource;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use wharf::operator::gateway_api::{self, BackendTlsPolicy, Gateway, HttpRoute};

/// Reads a value as its type and writes it back, which drops what the type does not know.
type Decode = fn(Value) -> serde_json::Result<Value>;

/// A certificate of cert-manager. The operator never asks for one, only whether they are served.
#[derive(CustomResource, Clone, Debug, Deserialize, Serialize)]
#[kube(group = "cert-manager.io", version = "v1", kind = "Certificate", namespaced, schema = "disabled")]
#[serde(transparent)]
pub struct CertificateSpec(Value);

/// One served kind.
#[derive(Clone)]
pub struct Kind {
    pub(super) group: String,
    pub(super) api_version: String,
    pub(super) name: String,
    pub(super) plural: String,
    pub(super) namespaced: bool,
    pub(super) has_status: bool,
    /// Whether a custom resource definition serves it: without typed defaults, and with other rules of merging.
    pub(super) custom: bool,
    pub(super) decode: Decode,
}

impl Kind {
    /// The kind of a Rust type, which is also its schema.
    fn of<K>(has_status: bool) -> Self
    where
        K: kube::Resource<DynamicType = ()> + Serialize + DeserializeOwned,
        K::Scope: 'static,
    {
        Self {
            group: K::group(&()).into_owned(),
            api_version: K::api_version(&()).into_owned(),
            name: K::kind(&()).into_owned(),
            plural: K::plural(&()).into_owned(),
            namespaced: TypeId::of::<K::Scope>() != TypeId::of::<ClusterResourceScope>(),
            has_status,
            custom: [wharf::api::GROUP, gateway_api::GROUP, "cert-manager.io"].contains(&&*K::group(&())),
            decode: |value| serde_json::from_value::<K>(value).and_then(serde_json::to_value),
        }
    }

    /// The resource as error messages and `kubectl` name it: `configmaps`, `deployments.apps`.
    pub(super) fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Whether `metadata.generation` counts this kind's changes; the core group does not use it.
    pub(super) fn counts_generations(&self) -> bool {
        self.custom || matches!(self.group.as_str(), "apps" | "networking.k8s.io" | "policy")
    }
}

/// The kinds served from the start.
pub(super) fn served() -> Vec<Kind> {
    vec![
        Kind::of::<core::ConfigMap>(false),
        Kind::of::<core::Secret>(false),
        Kind::of::<core::Service>(true),
        Kind::of::<core::ServiceAccount>(false),
        Kind::of::<core::PersistentVolumeClaim>(true),
        Kind::of::<core::Pod>(true),
        Kind::of::<core::Node>(true),
        Kind::of::<core::Namespace>(true),
        Kind::of::<core::Event>(false),
        Kind::of::<apps::Deployment>(true),
        Kind::of::<apps::DaemonSet>(true),
        Kind::of::<apps::StatefulSet>(true),
        Kind::of::<coordination::Lease>(false),
        Kind::of::<events::Event>(false),
        Kind::of::<k8s_openapi::api::networking::v1::NetworkPolicy>(false),
        Kind::of::<k8s_openapi::api::policy::v1::PodDisruptionBudget>(true),
        Kind::of::<networking::Ingress>(true),
        Kind::of::<networking::IngressClass>(false),
        Kind::of::<k8s_openapi::api::storage::v1::CSIDriver>(false),
        Kind::of::<k8s_openapi::api::storage::v1::StorageClass>(false),
        Kind::of::<HttpRoute>(true),
        Kind::of::<BackendTlsPolicy>(true),
        Kind::of::<Gateway>(true),
        Kind::of::<Certificate>(false),
        Kind::of::<wharf::api::Registry>(true),
        Kind::of::<wharf::api::Mirror>(true),
        Kind::of::<wharf::api::NodeRuntime>(true),
    ]
}

/// What discovery says of groups, or of one version of a group; nothing of one that is not served.
pub(super) fn discovered(kinds: &[Kind], version: Option<&str>) -> Option<Value> {
    let Some(version) = version else {
        let mut groups: Vec<Value> = Vec::new();
        for kind in kinds.iter().filter(|kind| !kind.group.is_empty()) {
            let version = json!({"groupVersion": kind.api_version, "version": kind.api_version.rsplit('/').next()});
            let group = json!({"name": kind.group, "versions": [version], "preferredVersion": version});
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        return Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}));
    };
    let of_version = kinds.iter().filter(|kind| kind.api_version == version);
    let resources: Vec<Value> = of_version
        .map(|kind| {
            json!({
                "name": kind.plural, "singularName": "", "namespaced": kind.namespaced, "kind": kind.name, "verbs": ["get", "list"],
            })
        })
        .collect();
    let list = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources});
    (!resources.is_empty()).then_some(list)
}

/// How a list or a map is merged, and so what one manager can own of it.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Merge {
    /// A map whose fields have owners of their own.
    Fields,
    /// One owner for the whole value.
    Whole,
    /// A list of values, each with its owners.
    Set,
    /// A list of maps that these fields tell apart.
    Keyed(&'static [&'static str]),
}

/// How the value at `path` is merged, from the `x-kubernetes-list-type` and `-map-type` of the published schemas.
pub(super) fn merge_of(kind: &Kind, path: &[String], value: &Value) -> Merge {
    let (field, parents) = path.split_last().map_or(("", path), |(last, parents)| (last.as_str(), parents));
    let in_list = parents.last().is_some_and(|parent| parent.starts_with("k:"));
    match (value, field) {
        (Value::Array(_), "f:ownerReferences") => Merge::Keyed(&["uid"]),
        (Value::Array(_), "f:conditions") => Merge::Keyed(&["type"]),
        (Value::Array(_), "f:finalizers") => Merge::Set,
        (Value::Array(_), _) if kind.custom => Merge::Whole,
        // A service account's list of pull secrets is atomic, unlike a pod's.
        (Value::Array(_), "f:imagePullSecrets") if parents.is_empty() => Merge::Whole,
        (
            Value::Array(_),
            "f:containers" | "f:initContainers" | "f:volumes" | "f:env" | "f:secrets" | "f:imagePullSecrets",
        ) => Merge::Keyed(&["name"]),
        (Value::Array(_), "f:volumeMounts") => Merge::Keyed(&["mountPath"]),
        (Value::Array(_), "f:ports") if in_list => Merge::Keyed(&["containerPort", "protocol"]),
        (Value::Array(_), "f:ports") => Merge::Keyed(&["port", "protocol"]),
        (Value::Array(_), "f:topologySpreadConstraints") => Merge::Keyed(&["topologyKey", "whenUnsatisfiable"]),
        (Value::Array(_), "f:hostAliases") => Merge::Keyed(&["ip"]),
        (Value::Array(_), "f:addresses") => Merge::Keyed(&["type"]),
        (
            Value::Object(_),
            "f:selector" | "f:podSelector" | "f:nodeSelector" | "f:secretKeyRef" | "f:configMapKeyRef" | "f:fieldRef",
        ) if !kind.custom => Merge::Whole,
        (Value::Object(_), _) => Merge::Fields,
        _ => Merge::Whole,
    }
}

/// The name of a list's item among the paths that managers own; `None` if the list is not merged by item.
pub(super) fn item_name(merge: Merge, item: &Value) -> Option<String> {
    match merge {
        Merge::Set => Some(format!("v:{item}")),
        Merge::Keyed(keys) => {
            // The only key with a default in the schemas is the protocol of a port.
            let value_of = |key: &str| match &item[key] {
                Value::Null if key == "protocol" => json!("TCP"),
                value => value.clone(),
            };
            Some(format!("k:{}", keys.iter().map(|key| ((*key).to_owned(), value_of(key))).collect::<Value>()))
        }
        Merge::Fields | Merge::Whole => None,
    }
}
