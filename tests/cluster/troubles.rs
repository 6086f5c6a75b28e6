//! What only the cluster can tell becomes a condition with a documented reason, nothing is lost, and it heals by itself.

use crate::support::{Namespace, apply, attempt, condition, eventually, get, kubectl};
use crate::turn::Alone;

#[test]
#[ignore = "needs cluster"]
fn a_missing_storage_class_is_named_and_heals() {
    let namespace = Namespace::new("class");
    namespace.registry("team", "{storage: {claim: {storageClassName: wharf-test-late}}}");
    let registry = namespace.wait_for("team", "StorageReady", "False/StorageClassMissing");
    assert_eq!(condition(&registry, "Stalled").as_deref(), Some("True/StorageClassMissing"));
    let standard = get(&["storageclass", "standard"]).unwrap();
    let class = serde_json::json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "wharf-test-late"},
        "provisioner": standard["provisioner"],
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
    });
    apply(&class.to_string());
    namespace.wait_for("team", "Ready", "True/Ready");
    kubectl(&["delete", "storageclass", "wharf-test-late"]);
}

#[test]
#[ignore = "needs cluster"]
fn objects_of_others_are_never_touched_and_are_waited_for() {
    let namespace = Namespace::new("taken");
    let name = &namespace.name;
    apply(&format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: team-pull, namespace: {name}}}\nstringData: {{a: b}}\n"
    ));
    apply(&format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: team-registry, namespace: {name}}}\nspec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}\n"
    ));
    let version =
        |kind: &str, object: &str| namespace.get(kind, object).unwrap()["metadata"]["resourceVersion"].clone();
    namespace.registry("team", "{}");
    let registry = namespace.wait_for("team", "StorageReady", "False/ClaimNotOurs");
    assert_eq!(condition(&registry, "PullSecretsReady").as_deref(), Some("False/NameTaken"));
    assert_eq!(condition(&registry, "Stalled").as_deref().map(|text| text.starts_with("True/")), Some(true));
    assert!(namespace.get("deployment", "team-registry").is_none(), "nothing is made while a name is taken");
    let secret = version("secret", "team-pull");
    let accounts = namespace.get("serviceaccount", "default").unwrap();
    assert!(accounts["imagePullSecrets"].is_null(), "a stranger's Secret is not attached: {accounts}");
    namespace.delete("pvc", "team-registry");
    namespace.wait_for("team", "PullSecretsReady", "False/NameTaken");
    assert_eq!(version("secret", "team-pull"), secret, "the Secret was not written");
    namespace.delete("secret", "team-pull");
    namespace.wait_for("team", "Ready", "True/Ready");
}

#[test]
#[ignore = "needs cluster"]
fn a_missing_service_account_is_named_and_heals() {
    let namespace = Namespace::new("account");
    namespace.registry("team", "{pullSecrets: {serviceAccounts: [late]}}");
    namespace.wait_for("team", "PullSecretsReady", "False/ServiceAccountMissing");
    kubectl(&["create", "serviceaccount", "late", "-n", &namespace.name]);
    namespace.wait_for("team", "Ready", "True/Ready");
}

#[test]
#[ignore = "needs cluster"]
fn a_malformed_stored_object_stops_only_itself() {
    // Others see the definition that is changed for a moment.
    let _alone = Alone::new();
    let namespace = Namespace::new("malformed");
    // An object that an older or newer schema allowed: the rule is lifted for a moment, as an upgrade would.
    let definition = "registries.wharf.dev";
    let engines = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/engine/enum";
    let set = |engine: &str| {
        let patch = format!(r#"[{{"op":"replace","path":"{engines}","value":{engine}}}]"#);
        kubectl(&["patch", "crd", definition, "--type=json", "-p", &patch]);
    };
    set(r#"["Wharf","Distribution","Nexus"]"#);
    eventually("the lifted rule is in force", || {
        let yaml = format!(
            "apiVersion: wharf.dev/v1alpha1\nkind: Registry\nmetadata: {{name: odd, namespace: {}}}\nspec: {{engine: Nexus}}\n",
            namespace.name
        );
        attempt("kubectl", &["apply", "-f", "-"], &yaml).ok()
    });
    set(r#"["Wharf","Distribution"]"#);
    namespace.wait_for("odd", "Stalled", "True/Malformed");
    namespace.ready_registry("team", "{}");
    eventually("it heals when it is corrected", || {
        attempt(
            "kubectl",
            &[
                "patch",
                "registry",
                "odd",
                "-n",
                &namespace.name,
                "--type=merge",
                "-p",
                r#"{"spec":{"engine":"Distribution"}}"#,
            ],
            "",
        )
        .ok()
    });
    namespace.wait_for("odd", "Ready", "True/Ready");
}
