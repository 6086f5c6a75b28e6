//! The health check for Argo CD, run by the interpreter that Argo CD uses, on the statuses that Wharf writes.
#![allow(clippy::restriction, reason = "a test ends by panicking")]

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

/// A JSON value as Lua writes it.
fn lua(value: &Value) -> String {
    match value {
        Value::Null => "nil".to_owned(),
        Value::Array(items) => format!("{{{}}}", items.iter().map(lua).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|(key, value)| format!("[{}] = {}", Value::from(key.as_str()), lua(value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        // Numbers, booleans and plain strings are written alike in both.
        plain => plain.to_string(),
    }
}

/// `status: message` for a Registry.
fn health(registry: &Value) -> String {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
    let settings = std::fs::read_to_string(checkout.join("docs/gitops/argocd-cm.yaml")).unwrap();
    let settings: Value = serde_saphyr::from_str(&settings).unwrap();
    let of = |kind: &str| &settings["data"][format!("resource.customizations.health.wharf.dev_{kind}")];
    assert_eq!(of("Mirror"), of("Registry"), "their conditions mean the same");
    let check = of("Registry").as_str().unwrap();
    let program = format!(
        "obj = {}\nlocal function check()\n{check}\nend\nlocal found = check()\nprint(found.status .. \": \" .. found.message)\n",
        lua(registry)
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), program).unwrap();
    let output = Command::new(checkout.join("target/dev/bin/glua")).arg(file.path()).output().expect("glua is built");
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

fn registry(generation: i64, conditions: &[(&str, &str, &str, &str)]) -> Value {
    let conditions: Vec<Value> = conditions
        .iter()
        .map(|(kind, status, reason, message)| {
            json!({"type": kind, "status": status, "reason": reason, "message": message, "observedGeneration": 2})
        })
        .collect();
    json!({"metadata": {"name": "team", "generation": generation}, "status": {"conditions": conditions}})
}

#[test]
#[ignore = "needs glua"]
fn argo_cd_sees_what_the_conditions_say() {
    let full = ("Stalled", "True", "Full", "the volume is full");
    let cases = [
        (registry(2, &[("Ready", "True", "Ready", "Serves")]), "Healthy: Serves"),
        (
            registry(3, &[("Ready", "True", "Ready", "Serves")]),
            "Progressing: Waiting for Wharf to look at this version of the resource",
        ),
        (registry(2, &[("Ready", "False", "Suspended", "stopped")]), "Suspended: stopped"),
        (registry(2, &[("Ready", "False", "Full", "full"), full]), "Degraded: the volume is full"),
        (registry(2, &[("Ready", "False", "PodStarting", "the pod starts")]), "Progressing: the pod starts"),
        (registry(2, &[("Ready", "Unknown", "Retrying", "no answer")]), "Progressing: no answer"),
    ];
    for (registry, expected) in cases {
        assert_eq!(health(&registry), expected, "{registry}");
    }
}

#[test]
#[ignore = "needs glua"]
fn argo_cd_waits_for_what_nobody_has_looked_at_and_for_what_goes() {
    let new = json!({"metadata": {"name": "team", "generation": 1}});
    assert_eq!(health(&new), "Progressing: Waiting for Wharf to look at this version of the resource");
    let mut unseen = registry(1, &[("Ready", "Unknown", "Pending", "Waiting")]);
    unseen["status"]["conditions"][0].as_object_mut().unwrap().remove("observedGeneration");
    assert_eq!(health(&unseen), "Progressing: Waiting for Wharf to look at this version of the resource");
    let mut going = registry(2, &[("Ready", "True", "Ready", "Serves")]);
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    assert_eq!(health(&going), "Progressing: Being deleted");
}
