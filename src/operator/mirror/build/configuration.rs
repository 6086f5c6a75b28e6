//! The configuration of `wharf serve` in a Mirror's pods. It holds no secret: credentials are files that the pods mount. A pod
//! takes up a changed one by itself; what it cannot take up is told apart here.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use super::volumes::{CACHE_FOLDER, CERTIFICATE_FOLDER, IN_USE_FOLDER};
use super::{Inputs, growth};
use crate::api::mirror::MirrorClients;
use crate::operator::mirror::names::{IN_USE_KEY, OPERATIONS_PORT, PORT};

/// The key of the configuration in its config map.
pub(super) const CONFIGURATION_KEY: &str = "serve.yaml";
/// The audience of the tokens by which agents prove who they are.
const AUDIENCE: &str = "wharf.dev/mirror";
/// How long transfers that run may go on when a pod stops; shorter than its grace period, so that they end by themselves.
const DRAIN_SECONDS: u32 = 30;

pub(super) fn config_map(inputs: &Inputs<'_>) -> ConfigMap {
    // JSON is YAML, and needs no writer of its own.
    let mut text = serde_json::to_string_pretty(&content(inputs)).unwrap_or_default();
    text.push('\n');
    ConfigMap {
        metadata: inputs.metadata(inputs.names.object()),
        data: Some(BTreeMap::from([(CONFIGURATION_KEY.to_owned(), text)])),
        ..ConfigMap::default()
    }
}

fn content(inputs: &Inputs<'_>) -> Value {
    let mut content = at_start(inputs);
    let changing = [
        ("clients", clients(inputs)),
        ("mirrors", Some(json!(inputs.upstreams.configured))),
        ("cache", Some(cache(inputs))),
    ];
    for (key, value) in changing {
        if let (Some(fields), Some(value)) = (content.as_object_mut(), value) {
            fields.insert(key.to_owned(), value);
        }
    }
    content
}

/// What a running server does not take up: with another one of these, pods are made anew.
pub(super) fn needs_a_new_pod(inputs: &Inputs<'_>) -> String {
    format!("{}\nmirrors: {}", at_start(inputs), !inputs.upstreams.configured.is_empty())
}

fn at_start(_: &Inputs<'_>) -> Value {
    json!({
        "root": CACHE_FOLDER,
        // Every address of the pod, of whichever family.
        "listen": format!("[::]:{PORT}"),
        "operations": format!("[::]:{OPERATIONS_PORT}"),
        "tls": {
            "certificate": format!("{CERTIFICATE_FOLDER}/tls.crt"),
            "key": format!("{CERTIFICATE_FOLDER}/tls.key"),
        },
        // Nothing can be pushed here.
        "access": {"anonymous": "Read"},
        "limits": {"stopSeconds": DRAIN_SECONDS},
    })
}

fn clients(inputs: &Inputs<'_>) -> Option<Value> {
    let (namespace, account) = (inputs.names.namespace(), &inputs.settings.agent_service_account);
    let user = format!("system:serviceaccount:{namespace}:{account}");
    (inputs.mirror.spec.clients == MirrorClients::Agents)
        .then(|| json!({"agents": {"serviceAccount": user, "audience": AUDIENCE}}))
}

fn cache(inputs: &Inputs<'_>) -> Value {
    let (spec, observed) = (&inputs.mirror.spec.cache, inputs.observed);
    let mut cache = json!({
        "size": growth::cache_bytes(inputs).to_string(),
        "tagMaxAgeSeconds": seconds(&spec.tag_max_age),
        "staleIfErrorSeconds": seconds(&spec.stale_if_error),
    });
    let mut set = |key: &str, value: Value| {
        cache.as_object_mut().map(|fields| fields.insert(key.to_owned(), value));
    };
    let ours = |image: &&String| {
        let mut hosts = observed.hosts.granted.iter();
        hosts.any(|host| image.strip_prefix(host.as_str()).is_some_and(|rest| rest.starts_with('/')))
    };
    let pins: Vec<&String> = spec.pin.iter().filter(ours).collect();
    if !pins.is_empty() {
        set("pin", json!(pins));
    }
    if !observed.platforms.is_empty() {
        set("platforms", json!(observed.platforms));
    }
    if observed.lists_in_use {
        set("inUse", json!(format!("{IN_USE_FOLDER}/{IN_USE_KEY}")));
    }
    if !inputs.settings.closed_ranges.is_empty() {
        set("closedRanges", json!(inputs.settings.closed_ranges.iter().map(ToString::to_string).collect::<Vec<_>>()));
    }
    cache
}

/// The seconds of a duration as the schema lets it be written: hours, minutes and seconds.
fn seconds(text: &str) -> u64 {
    let (mut total, mut number) = (0_u64, 0_u64);
    for letter in text.chars() {
        match letter.to_digit(10) {
            Some(digit) => number = number.saturating_mul(10).saturating_add(digit.into()),
            None => {
                let unit = match letter {
                    'h' => 3600,
                    'm' => 60,
                    _ => 1,
                };
                total = total.saturating_add(number.saturating_mul(unit));
                number = 0;
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    #[test]
    fn durations_are_counted_in_seconds() {
        for (text, expected) in [("60s", 60), ("0s", 0), ("168h", 604_800), ("1h30m", 5400), ("1h2m3s", 3723)] {
            assert_eq!(super::seconds(text), expected, "{text}");
        }
    }
}
