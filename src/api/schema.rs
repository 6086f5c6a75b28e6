//! The custom resource definitions as they are installed: what the derives give, and what they cannot express.
//! It must never change the meaning of a field; only schema facts that Rust types lack are added here.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps,
};
use kube::CustomResourceExt;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::json;

use super::{Mirror, NodeRuntime, Registry, condition};

/// What the name of an object looks like. A name that no object can have is refused at once, and never becomes a part of a
/// request's path.
pub(super) const OBJECT_NAME: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// A host by its name or address, with a port or without.
pub(super) const HOST_AND_PORT: &str = r"^[A-Za-z0-9._-]+(:[0-9]{1,5})?$|^\[[0-9a-fA-F:.]+\](:[0-9]{1,5})?$";
/// A repository, or the beginning of repositories' names with `*` at its end.
pub(super) const REPOSITORIES: &str = r"^[a-z0-9]([a-z0-9._/-]*)[*]?$|^[*]$";
/// What the name of a mirrored registry looks like, for CEL.
const MIRRORED: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*(:[0-9]{1,5})?$";
/// Where a URL leads, for CEL.
const PLACE: &str = r"([A-Za-z0-9._-]+|\\[[0-9a-fA-F:.]+\\])(:[0-9]{1,5})?";
/// What an image with its registry looks like, for CEL.
const IMAGE: &str = "^[a-z0-9.-]+(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[0-9a-f]{64})?$";

/// All custom resource definitions of this version, in the order of their names.
#[must_use]
pub fn custom_resource_definitions() -> Vec<CustomResourceDefinition> {
    let mut definitions = vec![Mirror::crd(), NodeRuntime::crd(), Registry::crd()];
    for definition in &mut definitions {
        for version in &mut definition.spec.versions {
            if let Some(root) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
                default_status(root);
            }
        }
    }
    definitions
}

/// The definitions as YAML files, by file name.
///
/// # Errors
/// When a definition cannot be written as YAML, which only a defect of a schema can cause.
pub fn definition_files() -> Result<Vec<(String, String)>, Box<dyn std::error::Error>> {
    custom_resource_definitions()
        .iter()
        .map(|definition| {
            let name = definition.metadata.name.clone().unwrap_or_default();
            // By way of JSON, so that keys are sorted and the file only changes where the schema does.
            let yaml = serde_saphyr::to_string(&serde_json::to_value(definition)?)?;
            Ok((format!("{name}.yaml"), yaml))
        })
        .collect()
}

/// Gives a resource that no controller has seen yet a condition `Ready=Unknown`. Tools that follow kstatus (Flux,
/// `kubectl wait`, Argo CD) take an object without conditions for finished.
fn default_status(root: &mut JSONSchemaProps) {
    let Some(status) = root.properties.as_mut().and_then(|properties| properties.get_mut("status")) else {
        return;
    };
    status.default = Some(JSON(json!({
        "conditions": [{
            "type": condition::READY,
            "status": "Unknown",
            "reason": condition::PENDING,
            "message": "Waiting for Wharf to look at this resource",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        }]
    })));
}

/// A quantity that is a positive whole number of bytes, with or without a suffix.
pub(super) fn positive_quantity(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 32,
        "x-kubernetes-validations": [{
            "rule": "isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))",
            "message": "must be a positive quantity of bytes, such as 20Gi",
        }],
    })
}

/// A quantity as Kubernetes reports it. It is compared with [`positive_quantity`] by a rule, whose cost its length bounds.
pub(super) fn capacity(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "maxLength": 32})
}

/// Hours, minutes and seconds, as `60s` or `1h30m`.
pub(super) fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 32,
        "pattern": "^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,9}s)?$",
        "minLength": 2,
    })
}

/// A DNS name in lower case, with at least one dot, and none that the cluster itself gives out.
pub(super) fn host_name(_: &mut SchemaGenerator) -> Schema {
    host()
}

/// Several of [`host_name`], each once.
pub(super) fn host_names(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "set",
        "items": host(),
    })
}

/// What a registry is called in images' references, which a Mirror takes for what it is and nodes' runtimes ask for.
pub(super) fn mirrored_host(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 253,
        "x-kubernetes-validations": [
            {
                "rule": "!self.contains('/')",
                "message": "must be the registry's name as in images' references, without https:// and without a path, such as docker.io or registry.example.com:5000",
            },
            {
                "rule": "self == self.lowerAscii()",
                "message": "must be in lower case, as in images' references, such as docker.io",
            },
            {
                "rule": format!("self.contains('/') || self.lowerAscii().matches('{MIRRORED}') && (self.contains('.') || self.contains(':'))"),
                "message": "must be a DNS name with a dot, or a name with a port, such as docker.io or registry.example.com:5000",
            },
            {
                "rule": "!self.matches('[.]svc([.:]|$)')",
                "message": "must be a registry outside of the cluster: names in .svc are given out by the cluster itself, and images of a Registry need no cache",
            },
        ],
    })
}

/// URLs at which a registry is asked.
pub(super) fn endpoints(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 8,
        "x-kubernetes-list-type": "atomic",
        "items": {
            "type": "string",
            "minLength": 1,
            "maxLength": 512,
            "x-kubernetes-validations": [
                {
                    "rule": "!self.contains('@')",
                    "message": "must hold no user name and no password: they belong into the Secret that credentialsSecretRef names",
                },
                {
                    "rule": format!("self.contains('@') || self.matches('^https?://{PLACE}(/[A-Za-z0-9._~-]+)*/?$')"),
                    "message": "must be a URL such as https://registry-1.docker.io",
                },
            ],
        },
    })
}

/// The URL of a proxy.
pub(super) fn proxy(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 512,
        "x-kubernetes-validations": [
            {
                "rule": "!self.contains('@')",
                "message": "must hold no user name and no password: only a proxy without them can be used",
            },
            {
                "rule": format!("self.contains('@') || self.matches('^https?://{PLACE}/?$')"),
                "message": "must be a URL without a path, such as http://proxy.example.com:3128",
            },
        ],
    })
}

/// Images that are fetched ahead.
pub(super) fn pins(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "x-kubernetes-list-type": "set",
        "items": {
            "type": "string",
            "minLength": 1,
            "maxLength": 512,
            "x-kubernetes-validations": [
                {
                    "rule": format!("self.matches('{IMAGE}')"),
                    "message": "must be an image with its registry, such as docker.io/library/postgres:17 or ghcr.io/org/app@sha256:<digest>",
                },
                {
                    "rule": "!self.matches('^docker[.]io/[^/]+$')",
                    "message": "must be named in full: official images of docker.io are in library/, such as docker.io/library/postgres:17",
                },
            ],
        },
    })
}

/// A label selector, refused when it cannot be understood: Kubernetes itself checks those of its own kinds only.
pub(super) fn label_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchLabels": {
                "description": "Labels that must have these values.",
                "type": "object",
                "maxProperties": 16,
                "additionalProperties": {"type": "string", "maxLength": 63},
            },
            "matchExpressions": {
                "description": "Further conditions, all of which must hold.",
                "type": "array",
                "x-kubernetes-list-type": "atomic",
                "maxItems": 16,
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {
                            "description": "The label.",
                            "type": "string",
                            "minLength": 1,
                            "maxLength": 317,
                        },
                        "operator": {
                            "description": "How the label relates to the values.",
                            "type": "string",
                            "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                        },
                        "values": {
                            "description": "The values, for `In` and `NotIn`.",
                            "type": "array",
                            "x-kubernetes-list-type": "atomic",
                            "maxItems": 64,
                            "items": {"type": "string", "maxLength": 63},
                        },
                    },
                    "x-kubernetes-validations": [{
                        "rule": "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
                        "message": "In and NotIn need values, Exists and DoesNotExist take none",
                    }],
                },
            },
        },
    })
}

fn host() -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 253,
        "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)+$",
        "x-kubernetes-validations": [{
            "rule": "!self.endsWith('.svc') && !self.contains('.svc.')",
            "message": "must be a name outside the cluster: names of Services are given out by the cluster itself",
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_an_object_has_the_form_of_a_name() {
        let definition = json!(Registry::crd());
        let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        for path in [
            "pullSecrets/serviceAccounts/items",
            "storage/existingClaimName",
            "storage/claim/storageClassName",
            "storage/s3/credentialsSecretRef/name",
            "storage/s3/caConfigMapRef/name",
            "expose/tls/secretRef/name",
            "expose/ingress/className",
            "podTemplate/priorityClassName",
        ] {
            let pointer: String = path
                .split('/')
                .map(|step| if step == "items" { "/items".to_owned() } else { format!("/properties/{step}") })
                .collect();
            let field = spec.pointer(&pointer).unwrap();
            assert_eq!(field["pattern"], OBJECT_NAME, "{path}: {field}");
        }
    }
}
