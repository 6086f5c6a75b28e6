//! What becomes of a written object before it is stored: defaults, normal forms, and the refusal of what is invalid.
//! It must never be more lenient than a real API server where an operator could depend on the difference.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::kinds::Kind;
use super::refusal::{Refusal, invalid, refuse};

/// Typed defaults: by resource, the maps that get them (`*` stands for each item of a list) and the fields they get.
const DEFAULTS: &str = include_str!("defaults.json");

/// Maps that the server leaves out when they are empty; other empty maps mean something, like `emptyDir: {}`.
const OMITTED: [&str; 8] =
    ["labels", "annotations", "data", "binaryData", "matchLabels", "nodeSelector", "limits", "requests"];

/// Brings a written object into the form in which it is stored, or refuses it.
pub(super) fn admit(kind: &Kind, before: Option<&Value>, object: &mut Value) -> Result<(), Refusal> {
    let malformed = |error| refuse(400, "BadRequest", &format!("{} in version {error}", kind.name));
    *object = (kind.decode)(object.take()).map_err(malformed)?;
    if !kind.custom {
        if let Some(text) = no_quantity(object, "") {
            let why = format!("{text}: quantities must match the regular expression");
            return Err(refuse(400, "BadRequest", &why));
        }
        keep_typed_form(object, "");
        let defaults: Value = serde_json::from_str(DEFAULTS).unwrap_or_default();
        for (path, fields) in defaults[&kind.plural].as_object().into_iter().flatten() {
            add_missing(object, &path.split('.').filter(|step| !step.is_empty()).collect::<Vec<_>>(), fields);
        }
    }
    match kind.plural.as_str() {
        "secrets" => {
            // The clear form is write-only.
            let clear = object.as_object_mut().and_then(|fields| fields.remove("stringData")).unwrap_or_default();
            for (key, text) in clear.as_object().into_iter().flatten() {
                let bytes = k8s_openapi::ByteString(text.as_str().unwrap_or_default().as_bytes().to_vec());
                object["data"][key] = json!(bytes);
            }
        }
        "services" => {
            for port in object["spec"]["ports"].as_array_mut().into_iter().flatten() {
                if port["targetPort"].is_null() {
                    port["targetPort"] = port["port"].clone();
                }
            }
            for field in ["clusterIP", "clusterIPs"] {
                if let Some(before) = before.filter(|_| object["spec"][field].is_null()) {
                    object["spec"][field] = before["spec"][field].clone();
                }
            }
        }
        _ => {}
    }
    validate(kind, before, object)
}

/// An amount of a resource that cannot be read as one.
fn no_quantity(value: &Value, name: &str) -> Option<String> {
    match value {
        Value::Object(fields) if name == "limits" || name == "requests" => {
            fields.values().filter_map(Value::as_str).find(|text| parse_quantity(text).is_none()).map(str::to_owned)
        }
        Value::Object(fields) => fields.iter().find_map(|(field, child)| no_quantity(child, field)),
        Value::Array(items) => items.iter().find_map(|item| no_quantity(item, name)),
        _ => None,
    }
}

/// Drops empty values as typed objects do, and brings quantities of resources into normal form.
fn keep_typed_form(value: &mut Value, name: &str) {
    match value {
        Value::Object(fields) => {
            for (field, child) in &mut *fields {
                if let (true, Some(text)) = (name == "limits" || name == "requests", child.as_str()) {
                    *child = json!(normal_quantity(text));
                }
                keep_typed_form(child, field);
            }
            let empty_map = |field: &str, child: &Value| *child == json!({}) && OMITTED.contains(&field);
            fields.retain(|field, child| !child.is_null() && *child != json!([]) && !empty_map(field, child));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| keep_typed_form(item, name)),
        _ => {}
    }
}

fn add_missing(value: &mut Value, path: &[&str], defaults: &Value) {
    match (path, value) {
        ([], Value::Object(fields)) => {
            for (name, default) in defaults.as_object().into_iter().flatten() {
                fields.entry(name).or_insert_with(|| default.clone());
            }
        }
        (["*", rest @ ..], Value::Array(items)) => items.iter_mut().for_each(|item| add_missing(item, rest, defaults)),
        ([step, rest @ ..], Value::Object(fields)) => {
            fields.get_mut(*step).into_iter().for_each(|child| add_missing(child, rest, defaults));
        }
        _ => {}
    }
}

/// The suffixes of quantities with their size, greatest first in each family.
const BINARY: [(&str, i128); 6] =
    [("Ei", 1 << 60), ("Pi", 1 << 50), ("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
const DECIMAL: [(&str, i128); 8] = [
    ("E", 1_000_000_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1000),
    ("", 1),
    ("m", 0),
];
const BILLION: i128 = 1_000_000_000;

/// A quantity in billionths; `None` if it is none.
pub(super) fn parse_quantity(text: &str) -> Option<i128> {
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let billionths: i128 = format!("{whole}{fraction:0<9.9}").parse().ok().filter(|_| !number.is_empty())?;
    match BINARY.iter().chain(&DECIMAL).find(|(unit, _)| *unit == suffix)? {
        ("m", _) => Some(sign * billionths / 1000),
        (_, size) => Some(sign * billionths * size),
    }
}

/// The form in which the server writes a quantity: the greatest unit that leaves no fraction.
fn normal_quantity(text: &str) -> String {
    let Some(amount) = parse_quantity(text) else { return text.to_owned() };
    let binary = text.ends_with('i') && amount >= 1024 * BILLION;
    let units: &[(&str, i128)] = if binary { &BINARY } else { &DECIMAL };
    let fits = |(unit, size): &(&'static str, i128)| {
        let size = if *unit == "m" { BILLION / 1000 } else { size * BILLION };
        (amount % size == 0 && amount != 0).then(|| format!("{}{unit}", amount / size))
    };
    units.iter().find_map(fits).unwrap_or_else(|| (amount / BILLION).to_string())
}

/// What is wrong with what a pod's containers ask for: the field and why.
fn unsatisfiable(pod: &Value) -> Option<(String, String)> {
    let containers = pod["containers"].as_array().map_or(&[][..], Vec::as_slice).iter().enumerate();
    containers.into_iter().find_map(|(index, container)| {
        let resources = &container["resources"];
        let field = |of: &str| format!("spec.template.spec.containers[{index}].resources.{of}");
        let amounts = |of: &str| resources[of].as_object().cloned().unwrap_or_default();
        let amount = |value: &Value| value.as_str().and_then(parse_quantity);
        let negative = ["limits", "requests"].into_iter().find_map(|of| {
            let (name, value) = amounts(of).into_iter().find(|(_, value)| amount(value) < Some(0))?;
            Some((format!("{}[{name}]", field(of)), format!("{value}: must be greater than or equal to 0")))
        });
        negative.or_else(|| {
            let limits = amounts("limits");
            let (name, value) = amounts("requests")
                .into_iter()
                .find(|(name, value)| limits.get(name).is_some_and(|limit| amount(value) > amount(limit)))?;
            Some((field("requests"), format!("{value}: must be less than or equal to {name} limit")))
        })
    })
}

fn port_named_twice(service: &Value) -> Option<(String, String)> {
    let ports = service["spec"]["ports"].as_array().map_or(&[][..], Vec::as_slice);
    let twice = |(index, port): (usize, &Value)| {
        !port["name"].is_null() && ports.iter().take(index).any(|other| other["name"] == port["name"])
    };
    let index = ports.iter().enumerate().position(twice)?;
    Some((format!("spec.ports[{index}].name"), format!("Duplicate value: {}", ports[index]["name"])))
}

fn is_valid_name(kind: &Kind, name: &str) -> bool {
    let is_label = |part: &str| {
        part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !(part.is_empty() || part.starts_with('-') || part.ends_with('-'))
    };
    match kind.plural.as_str() {
        "services" => is_label(name) && name.len() <= 63 && !name.starts_with(|c: char| c.is_ascii_digit()),
        "namespaces" => is_label(name) && name.len() <= 63,
        _ => name.split('.').all(is_label) && name.len() <= 253,
    }
}

fn validate(kind: &Kind, before: Option<&Value>, object: &Value) -> Result<(), Refusal> {
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    let refuse_field = |field: &str, reason: &str, why: &str| Err(invalid(kind, name, field, reason, why));
    let refuse_value =
        |field: &str, why: &str| refuse_field(field, "FieldValueInvalid", &format!("Invalid value: {why}"));
    let forbid = |field: &str, why: &str| refuse_field(field, "FieldValueForbidden", &format!("Forbidden: {why}"));

    if !is_valid_name(kind, name) {
        return refuse_value("metadata.name", &format!("\"{name}\": a lowercase RFC 1123 name is required"));
    }
    let label_values: BTreeMap<String, String> = serde_json::from_value(metadata["labels"].clone()).unwrap_or_default();
    let is_label_value = |value: &str| {
        value.len() <= 63
            && value.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && !value.starts_with(['-', '_', '.'])
            && !value.ends_with(['-', '_', '.'])
    };
    if let Some(value) = label_values.values().find(|value| !is_label_value(value)) {
        return refuse_value("metadata.labels", &format!("\"{value}\": not a label value"));
    }
    let owners = metadata["ownerReferences"].as_array().map_or(&[][..], Vec::as_slice);
    if owners.iter().any(|owner| ["apiVersion", "kind", "name", "uid"].iter().any(|field| owner[field] == "")) {
        return refuse_value("metadata.ownerReferences", "apiVersion, kind, name and uid must not be empty");
    }
    let bytes =
        |values: &Value| values.as_object().into_iter().flatten().map(|(_, v)| v.as_str().map_or(0, str::len)).sum();
    let data_bytes: usize = bytes(&object["data"]);
    let data_limit = if kind.plural == "secrets" { 1_048_576 / 3 * 4 } else { 1_048_576 };
    if data_bytes > data_limit {
        return refuse_field("data", "FieldValueTooLong", "Too long: may not be more than 1048576 bytes");
    }
    match (kind.plural.as_str(), object["type"].as_str()) {
        ("secrets", Some("kubernetes.io/tls"))
            if object["data"]["tls.crt"].is_null() || object["data"]["tls.key"].is_null() =>
        {
            return refuse_field("data[tls.crt]", "FieldValueRequired", "Required value");
        }
        ("secrets", Some("kubernetes.io/dockerconfigjson")) if object["data"][".dockerconfigjson"].is_null() => {
            return refuse_field("data[.dockerconfigjson]", "FieldValueRequired", "Required value");
        }
        ("services", _) => {
            if let Some((field, why)) = port_named_twice(object) {
                return refuse_field(&field, "FieldValueDuplicate", &why);
            }
        }
        ("deployments" | "daemonsets" | "statefulsets", _) => {
            let selector = &object["spec"]["selector"]["matchLabels"];
            let labels = &object["spec"]["template"]["metadata"]["labels"];
            if selector.as_object().is_none_or(|wanted| wanted.iter().any(|(key, value)| labels[key] != *value)) {
                return refuse_value("spec.template.metadata.labels", "`selector` does not match template `labels`");
            }
            if let Some((field, why)) = unsatisfiable(&object["spec"]["template"]["spec"]) {
                return refuse_value(&field, &why);
            }
        }
        _ => {}
    }

    let Some(before) = before else { return Ok(()) };
    let finalizers = |object: &Value| object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    let old_finalizers = finalizers(before);
    let deleting = !before["metadata"]["deletionTimestamp"].is_null();
    if deleting && finalizers(object).iter().any(|finalizer| !old_finalizers.contains(finalizer)) {
        return forbid("metadata.finalizers", "no new finalizers can be added if the object is being deleted");
    }
    let immutable: &[&str] = match kind.plural.as_str() {
        "deployments" | "daemonsets" => &["/spec/selector"],
        "statefulsets" => {
            &["/spec/selector", "/spec/serviceName", "/spec/podManagementPolicy", "/spec/volumeClaimTemplates"]
        }
        "services" => &["/spec/clusterIP"],
        "secrets" if before["immutable"] == true => &["/type", "/data", "/immutable"],
        "secrets" => &["/type"],
        "configmaps" if before["immutable"] == true => &["/data", "/binaryData", "/immutable"],
        _ => &[],
    };
    if let Some(field) = immutable.iter().find(|field| before.pointer(field) != object.pointer(field)) {
        return refuse_value(field.trim_start_matches('/').replace('/', ".").as_str(), "field is immutable");
    }
    if kind.plural == "persistentvolumeclaims" {
        let unbound = before["status"]["phase"] != "Bound";
        let fixed = |object: &Value| {
            let mut spec = object["spec"].clone();
            if !unbound {
                spec["resources"]["requests"] = Value::Null;
            }
            spec
        };
        if fixed(before) != fixed(object) {
            let why = "spec is immutable after creation except resources.requests for bound claims";
            return forbid("spec", why);
        }
        let size = |quantity: &Value| quantity.as_str().and_then(parse_quantity);
        if size(&object["spec"]["resources"]["requests"]["storage"]) < size(&before["status"]["capacity"]["storage"]) {
            return forbid("spec.resources.requests.storage", "field can not be less than status.capacity");
        }
    }
    Ok(())
}
