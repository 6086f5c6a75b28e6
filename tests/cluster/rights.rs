//! Who may set which field of a Registry: each user here may write Registries, and has or lacks one right more.
//! It must never ask as the administrator what a user is to be refused.

use crate::support::{Namespace, Outcome, attempt, eventually, get, kubectl, run};

/// A spec, the right that it takes (verb, resource, name), and the field that the refusal names.
const CASES: [(&str, (&str, &str, &str), &str); 15] = [
    (
        "{expose: {ingress: {host: a.example.com}}}",
        ("create", "ingresses.networking.k8s.io", ""),
        "spec.expose.ingress",
    ),
    (
        "{expose: {gateway: {host: a.example.com, parentRefs: [{name: front}]}}}",
        ("create", "httproutes.gateway.networking.k8s.io", ""),
        "spec.expose.gateway",
    ),
    (
        "{expose: {gateway: {host: a.example.com, parentRefs: [{name: front, namespace: infra}]}}}",
        ("create", "backendtlspolicies.gateway.networking.k8s.io", ""),
        "spec.expose.gateway",
    ),
    ("{expose: {service: {type: NodePort}}}", ("create", "services", ""), "spec.expose.service"),
    ("{expose: {service: {type: LoadBalancer}}}", ("create", "services", ""), "spec.expose.service"),
    (
        "{expose: {ingress: {host: a.example.com}, tls: {issuerRef: {name: letters}}}}",
        ("create", "certificates.cert-manager.io", ""),
        "spec.expose.tls.issuerRef",
    ),
    (
        "{expose: {ingress: {host: a.example.com}, tls: {secretRef: {name: front}}}}",
        ("get", "secrets", "front"),
        "spec.expose.tls.secretRef",
    ),
    (
        "{engine: Distribution, storage: {s3: {bucket: images, credentialsSecretRef: {name: keys}}}}",
        ("get", "secrets", "keys"),
        "spec.storage.s3.credentialsSecretRef",
    ),
    (
        "{engine: Distribution, storage: {s3: {bucket: images, credentialsSecretRef: {name: keys}, caConfigMapRef: {name: trusted}}}}",
        ("get", "configmaps", "trusted"),
        "spec.storage.s3.caConfigMapRef",
    ),
    (
        "{engine: Distribution, storage: {s3: {bucket: images}}}",
        ("create", "pods", ""),
        "spec.storage.s3 without credentialsSecretRef",
    ),
    ("{storage: {existingClaimName: old}}", ("create", "pods", ""), "spec.storage.existingClaimName"),
    ("{podTemplate: {priorityClassName: high}}", ("create", "pods", ""), "spec.podTemplate.priorityClassName"),
    // One field at a time: several are named in no certain order.
    ("{podTemplate: {labels: {a: b}}}", ("create", "pods", ""), "spec.podTemplate.labels"),
    ("{podTemplate: {imagePullSecrets: [{name: s}]}}", ("create", "pods", ""), "spec.podTemplate.imagePullSecrets"),
    (
        "{serviceAccount: {annotations: {eks.amazonaws.com/role-arn: a}}}",
        ("create", "serviceaccounts", ""),
        "spec.serviceAccount.annotations",
    ),
];

fn registry(namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: wharf.dev/v1alpha1\nkind: Registry\nmetadata: {{name: team, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

/// One rule of a role.
fn rule((verb, resource, name): (&str, &str, &str)) -> String {
    let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
    let names = if name.is_empty() { String::new() } else { format!(", resourceNames: [{name}]") };
    format!("- {{apiGroups: [\"{group}\"], resources: [{plural}], verbs: [{verb}]{names}}}\n")
}

/// A role with these rules and who has it.
fn role(namespace: &str, user: &str, rules: &str) -> String {
    let kinds = "apiVersion: rbac.authorization.k8s.io/v1\nkind";
    format!(
        "{kinds}: Role\nmetadata: {{name: {user}, namespace: {namespace}}}\nrules:\n{rules}---\n{kinds}: RoleBinding\n\
         metadata: {{name: {user}, namespace: {namespace}}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: {user}}}\n\
         subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: {user}}}]\n---\n"
    )
}

const WRITES_REGISTRIES: &str =
    "- {apiGroups: [wharf.dev], resources: [registries], verbs: [get, create, update, patch]}\n";

fn tried_by(user: &str, yaml: &str) -> Outcome {
    attempt("kubectl", &["create", "--dry-run=server", "-f", "-", "--as", user], yaml)
}

/// The policy and the roles come into force a moment after they are written.
fn until_in_force(namespace: &str, users: &[String]) {
    for user in users {
        eventually(&format!("{user} may write Registries"), || {
            attempt("kubectl", &["auth", "can-i", "create", "registries.wharf.dev", "-n", namespace, "--as", user], "")
                .ok()
        });
    }
}

#[test]
#[ignore = "needs cluster"]
fn who_sets_a_field_needs_the_right_to_what_it_causes() {
    let namespace = Namespace::new("rights");
    let name = &namespace.name;
    let mut roles = role(name, "author", WRITES_REGISTRIES);
    let mut users = vec!["author".to_owned()];
    for (case, (_, right, _)) in CASES.iter().enumerate() {
        // Who has every right but the one, and everything that the same spec takes besides it.
        let others = CASES.iter().filter(|other| other.1 != *right).map(|other| rule(other.1)).collect::<String>();
        let (with, without) = (format!("with-{case}"), format!("without-{case}"));
        roles += &role(name, &with, &(WRITES_REGISTRIES.to_owned() + &others + &rule(*right)));
        roles += &role(name, &without, &(WRITES_REGISTRIES.to_owned() + &others));
        users.extend([with, without]);
    }
    crate::support::apply(&roles);
    until_in_force(name, &users);
    tried_by("author", &registry(name, "{}"))
        .unwrap_or_else(|said| panic!("the shortest Registry takes no more: {said}"));
    for (case, (spec, (verb, resource, object), field)) in CASES.iter().enumerate() {
        let yaml = registry(name, spec);
        let object = if object.is_empty() { String::new() } else { format!(" \"{object}\"") };
        for user in [format!("without-{case}"), "author".to_owned()] {
            let said = tried_by(&user, &yaml).expect_err(spec);
            assert!(said.contains("wharf-registry-rights"), "{user}, {spec}: {said}");
            // Who lacks several rights is told of the first.
            let expected =
                format!("{field} takes the right to {verb} {resource}{object} in namespace {name}, which {user}");
            assert!(user == "author" || said.contains(&expected), "{spec}: expected {expected:?}:\n{said}");
        }
        tried_by(&format!("with-{case}"), &yaml).unwrap_or_else(|said| panic!("{spec}: {said}"));
    }
}

fn changed_by(user: &str, namespace: &str, patch: &str) -> Outcome {
    attempt("kubectl", &["patch", "registry", "team", "-n", namespace, "--as", user, "--type=merge", "-p", patch], "")
}

#[test]
#[ignore = "needs cluster"]
fn what_stays_as_it_was_takes_no_right() {
    let namespace = Namespace::new("updates-by-others");
    let name = &namespace.name;
    crate::support::apply(&role(name, "author", WRITES_REGISTRIES));
    until_in_force(name, &["author".to_owned()]);
    // The administrator's: suspended, so that nothing has to start for it.
    namespace.registry(
        "team",
        "{suspend: true, storage: {deletionPolicy: Delete}, expose: {ingress: {host: a.example.com, className: x}}, \
         podTemplate: {labels: {a: b}}, serviceAccount: {annotations: {a: b}}}",
    );
    // The operator has no such rights at all, and sets the finalizer and the status.
    eventually("the operator wrote the Registry and its status", || {
        let registry = namespace.get("registry", "team")?;
        let finalizer = registry.pointer("/metadata/finalizers/0")?;
        (finalizer == "wharf.dev/delete-storage" && registry["status"]["observedGeneration"].is_i64()).then_some(())
    });
    for patch in [
        r#"{"metadata":{"labels":{"seen":"by-the-author"}}}"#,
        r#"{"spec":{"podTemplate":{"resources":{"requests":{"cpu":"60m"}}}}}"#,
        r#"{"spec":{"expose":{"ingress":{"host":"a.example.com"}}}}"#,
    ] {
        changed_by("author", name, patch).unwrap_or_else(|said| panic!("{patch}: {said}"));
    }
    for (patch, field) in [
        (r#"{"spec":{"expose":{"ingress":{"host":"b.example.com"}}}}"#, "spec.expose.ingress"),
        (r#"{"spec":{"podTemplate":{"labels":{"a":"c"}}}}"#, "spec.podTemplate.labels"),
        (r#"{"spec":{"serviceAccount":{"annotations":{"c":"d"}}}}"#, "spec.serviceAccount.annotations"),
    ] {
        let said = changed_by("author", name, patch).expect_err(patch);
        assert!(said.contains(&format!("{field} takes the right to create")), "{patch}: {said}");
    }
    // To take away what the administrator gave needs no right to give it.
    let patch = r#"{"spec":{"expose":null,"podTemplate":{"labels":null},"serviceAccount":null}}"#;
    changed_by("author", name, patch).unwrap_or_else(|said| panic!("{said}"));
    namespace.delete("registry", "team");
}

#[test]
#[ignore = "needs cluster"]
fn credentials_cannot_be_sent_elsewhere_by_who_may_not_read_them() {
    let namespace = Namespace::new("credentials");
    let name = &namespace.name;
    let reads = WRITES_REGISTRIES.to_owned() + &rule(("get", "secrets", "keys"));
    crate::support::apply(&(role(name, "author", WRITES_REGISTRIES) + &role(name, "reader", &reads)));
    until_in_force(name, &["author".to_owned(), "reader".to_owned()]);
    namespace.registry(
        "team",
        "{suspend: true, engine: Distribution, storage: {s3: {bucket: images, endpoint: \"https://store.example.com\", credentialsSecretRef: {name: keys}}}}",
    );
    let elsewhere = r#"{"spec":{"storage":{"s3":{"endpoint":"https://elsewhere.example.com"}}}}"#;
    let said = changed_by("author", name, elsewhere).expect_err("the endpoint decides where the credentials are used");
    assert!(said.contains("spec.storage.s3.credentialsSecretRef takes the right to get secrets \"keys\""), "{said}");
    changed_by("reader", name, elsewhere).unwrap_or_else(|said| panic!("{said}"));
}

#[test]
#[ignore = "needs cluster"]
fn the_policies_expressions_fit_the_definitions() {
    let _namespace = Namespace::new("policies");
    for policy in ["wharf-registry-rights", "wharf-node-runtime-status"] {
        let object = eventually(&format!("Kubernetes has checked the types of {policy}"), || {
            let object = get(&["validatingadmissionpolicy", policy])?;
            object.pointer("/status/typeChecking")?;
            Some(object)
        });
        let warnings = object.pointer("/status/typeChecking/expressionWarnings");
        assert!(warnings.is_none(), "{policy}: {warnings:#?}");
    }
    // The value that turns the check off leaves nothing of it.
    let off = ["template", "wharf", "charts/wharf", "--set", "admission.registryRights=false"];
    let rendered = run("helm", &off);
    assert!(!rendered.contains("registry-rights") && rendered.contains("node-runtime-status"), "{rendered}");
    assert!(kubectl(&["get", "validatingadmissionpolicybindings"]).contains("wharf-registry-rights"));
}
