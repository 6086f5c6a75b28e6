//! What the documentation promises is what the code has: every reason is explained, every generated file is current, every
//! schema field is described.
#![allow(clippy::restriction, reason = "a test ends by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_reason_has_a_heading_and_every_heading_a_reason() {
    let code = read("src/api/reason.rs") + &read("src/api/condition.rs");
    let reasons: BTreeSet<&str> = code
        .lines()
        .skip_while(|line| !line.contains("//"))
        .filter_map(|line| line.strip_prefix("pub const "))
        .filter_map(|line| line.split('"').nth(1))
        .collect();
    let condition_types = [
        "Reconciling",
        "Stalled",
        "StorageReady",
        "Available",
        "PullSecretsReady",
        "HostsReady",
        "CaBundlesReady",
        "NodesConfigured",
        "UpstreamsReachable",
        "CacheHealthy",
        "EndpointReady",
        "Exposed",
    ];
    let reasons: BTreeSet<&str> = reasons.into_iter().filter(|word| !condition_types.contains(word)).collect();
    let text = read("docs/reasons.md");
    let headings: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert!(reasons.len() > 20, "{reasons:?}");
    assert_eq!(reasons, headings);
}

#[test]
fn every_reason_is_used() {
    let mut sources = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut sources);
    let all: String = sources
        .iter()
        .filter(|path| !path.ends_with("api/reason.rs") && !path.to_string_lossy().contains("tests"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    for line in read("src/api/reason.rs").lines() {
        if let Some(name) = line.strip_prefix("pub const ").and_then(|line| line.split(':').next()) {
            assert!(all.contains(&format!("reason::{name}")) || name == "PENDING", "{name} is never given as a reason");
        }
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn the_definitions_in_the_repository_are_those_of_the_code() {
    let files = wharf::api::definition_files().unwrap();
    assert_eq!(files.len(), 3);
    for (name, yaml) in files {
        assert!(read(&format!("crds/{name}")) == yaml, "crds/{name} is not current: run make generate");
    }
}

#[test]
fn every_field_of_ours_is_described_and_no_integer_is_unsigned() {
    for definition in wharf::api::custom_resource_definitions() {
        let value = serde_json::to_value(&definition).unwrap();
        let text = value.to_string();
        assert!(!text.contains("\"uint"), "an unsigned format is left in {}", definition.spec.names.kind);
        let schema = &value["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        undescribed(schema, &definition.spec.names.kind);
    }
}

fn undescribed(schema: &Value, path: &str) {
    if let Some(properties) = schema["properties"].as_object() {
        for (name, property) in properties {
            let path = format!("{path}.{name}");
            assert!(
                property["description"].as_str().is_some_and(|text| !text.is_empty())
                    || ["spec", "status"].contains(&name.as_str()),
                "{path} has no description"
            );
            undescribed(property, &path);
        }
    }
}

/// Dependencies point one way: `api`, `plan`, `oci` and `telemetry` know nobody; `operator`, `agent` and `serve` not each
/// other. Inside `serve`, only the edge knows HTTP, and only the filesystem's store touches files of the root.
#[test]
fn layers_point_one_way() {
    let mut sources = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut sources);
    for path in sources {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap().to_owned();
        let forbidden: &[&str] = match name.components().next().and_then(|part| part.as_os_str().to_str()).unwrap() {
            "api" => &["crate::operator", "crate::agent", "crate::plan", "kube::Client", "kube::client"],
            "plan" | "plan.rs" | "quantity.rs" => &["crate::operator", "crate::agent", "kube::"],
            "telemetry" => &["crate::operator", "crate::agent", "crate::api"],
            "oci" => {
                &["crate::serve", "crate::operator", "crate::agent", "crate::api", "tokio::", "hyper::", "std::fs"]
            }
            "serve" => &["crate::operator", "crate::agent", "crate::api", "crate::plan", "kube::"],
            "operator" => &["crate::agent", "crate::serve"],
            "agent" => &["crate::operator", "crate::serve"],
            _ => &[],
        };
        let inner = ["serve/store", "serve/repository", "serve/cache"].iter().any(|folder| name.starts_with(folder));
        let pure = ["validate.rs", "status.rs", "pods.rs", "names.rs", "intent.rs"];
        let in_pure = name.starts_with("operator/registry/build")
            || (name.starts_with("operator") && pure.iter().any(|file| name.ends_with(file)));
        for line in text.lines().filter(|line| line.starts_with("use ") || line.starts_with("pub use ")) {
            for word in forbidden {
                assert!(!line.contains(word), "{}: {line}", name.display());
            }
            let edge = ["hyper", "http::", "axum", "crate::serve::http", "crate::serve::access"];
            assert!(!inner || edge.iter().all(|word| !line.contains(word)), "{} knows HTTP: {line}", name.display());
            let effect = ["kube::Client", "Timestamp::now", "std::env", "rand::", "tokio::"];
            assert!(!in_pure || effect.iter().all(|word| !line.contains(word)), "{} is pure: {line}", name.display());
        }
    }
}
