//! What the API server refuses and accepts: the schema and its rules, each with a sentence that helps.

use crate::support::{Namespace, apply, attempt, refusal};

fn registry(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: wharf.dev/v1alpha1\nkind: Registry\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

#[test]
#[ignore = "needs cluster"]
fn wrong_registries_are_refused_with_a_sentence_that_helps() {
    let namespace = Namespace::new("refused");
    let long = "a".repeat(64);
    for (name, spec, expected) in [
        ("team", "{replica: 2}", "unknown field \"spec.replica\""),
        ("team", "{storage: {claim: {sise: 2}}}", "unknown field \"spec.storage.claim.sise\""),
        ("team", "{engine: Nexus}", "supported values: \"Wharf\", \"Distribution\""),
        ("team", "{engine: Wharf, storage: {s3: {bucket: images}}}", "spec.storage.s3 needs spec.engine: Distribution"),
        ("team", "{storage: {claim: {size: 0}}}", "spec.storage.claim.size"),
        ("team", "{storage: {claim: {size: \"0\"}}}", "must be a positive quantity of bytes, such as 20Gi"),
        ("team", "{storage: {claim: {size: \"-1Gi\"}}}", "must be a positive quantity of bytes, such as 20Gi"),
        ("team", "{storage: {claim: {size: huge}}}", "must be a positive quantity of bytes, such as 20Gi"),
        ("team", "{storage: {claim: {accessModes: []}}}", "spec.storage.claim.accessModes"),
        ("team", "{storage: {claim: {accessModes: [ReadOnlyMany]}}}", "supported values: \"ReadWriteOnce\""),
        ("team", "{storage: {claim: {storageClassName: \"\"}}}", "spec.storage.claim.storageClassName"),
        ("team", "{storage: {deletionPolicy: Keep}}", "supported values: \"Retain\", \"Delete\""),
        ("team", "{pullSecrets: {serviceAccounts: [a, a]}}", "Duplicate value"),
        ("team", "{pullSecrets: {serviceAccounts: [default/token]}}", "spec.pullSecrets.serviceAccounts[0]"),
        ("team", "{storage: {existingClaimName: ../secrets/other}}", "spec.storage.existingClaimName"),
        ("team", "{suspend: maybe}", "spec.suspend"),
        ("team", "{podTemplate: {labels: {wharf.dev/x: z}}}", "are set by Wharf"),
        ("team", "{podTemplate: {labels: {app.kubernetes.io/name: z}}}", "are set by Wharf"),
        ("team", "{podTemplate: {annotations: {wharf.dev/content: z}}}", "are set by Wharf"),
        ("team", "{serviceAccount: {annotations: {wharf.dev/intent: z}}}", "are set by Wharf"),
        ("team", "{expose: {service: {annotations: {wharf.dev/intent: z}}}}", "are set by Wharf"),
        ("team", "{expose: {ingress: {host: a.example.com, annotations: {wharf.dev/intent: z}}}}", "are set by Wharf"),
        (
            "team",
            "{expose: {gateway: {host: a.example.com, parentRefs: [{name: a}, {name: a, sectionName: b}]}}}",
            "must be another Gateway, or another listener",
        ),
        ("team", "{expose: {gateway: {host: a.example.com, parentRefs: [{name: a, namespace: A}]}}}", "namespace"),
        (
            "team",
            "{expose: {gateway: {host: a.example.com, parentRefs: [{name: a}]}, tls: {secretRef: {name: a}}}}",
            "a Gateway has its own on its listener",
        ),
        ("1team", "{}", "metadata.name must be a DNS label"),
        ("team.a", "{}", "metadata.name must be a DNS label"),
        (&long, "{}", "metadata.name must be a DNS label"),
    ] {
        let said = refusal(&registry(name, &namespace.name, spec));
        assert!(said.contains(expected), "{name} {spec}: expected {expected:?}, the API server said:\n{said}");
    }
}

#[test]
#[ignore = "needs cluster"]
fn right_registries_are_accepted() {
    let namespace = Namespace::new("accepted");
    let longest = "a".repeat(63);
    for (name, spec) in [
        ("team", "{}"),
        (&longest, "{}"),
        (
            "t-1",
            "{storage: {claim: {size: 1Ti, storageClassName: fast, accessModes: [ReadWriteOncePod]}, deletionPolicy: Delete}}",
        ),
        ("team", "{storage: {claim: {size: \"1000000000\"}}}"),
        ("team", "{pullSecrets: {serviceAccounts: []}, suspend: true}"),
        ("team", "{podTemplate: {labels: {a: b}, annotations: {example.com/a: b}, tolerations: [{operator: Exists}]}}"),
    ] {
        let yaml = registry(name, &namespace.name, spec);
        attempt("kubectl", &["apply", "--dry-run=server", "-f", "-"], &yaml)
            .unwrap_or_else(|said| panic!("{said}\n{yaml}"));
    }
}

#[test]
#[ignore = "needs cluster"]
fn what_cannot_change_is_refused_later() {
    let namespace = Namespace::new("updates");
    // Suspended, so that nothing has to start for it.
    let yaml =
        |claim: &str| registry("team", &namespace.name, &format!("{{suspend: true, storage: {{claim: {claim}}}}}"));
    apply(&yaml("{size: 2Gi, storageClassName: standard}"));
    for (claim, expected) in [
        ("{size: 1Gi, storageClassName: standard}", "size cannot shrink"),
        ("{size: 2Gi, storageClassName: other}", "storageClassName cannot change"),
        ("{size: 2Gi}", "storageClassName cannot change"),
        ("{size: 2Gi, storageClassName: standard, accessModes: [ReadWriteMany]}", "accessModes cannot change"),
    ] {
        let said = refusal(&yaml(claim));
        assert!(said.contains(expected), "{claim}: expected {expected:?}, the API server said:\n{said}");
    }
    // The same amount in another notation, and more of it, are fine.
    apply(&yaml("{size: 2048Mi, storageClassName: standard}"));
}

/// The rules themselves are tried in src/api/mirror/tests.rs; here, that the API server takes them and says the field.
#[test]
#[ignore = "needs cluster"]
fn wrong_mirrors_are_refused_with_a_sentence_that_helps() {
    let mirror = |name: &str, spec: &str| {
        format!("apiVersion: wharf.dev/v1alpha1\nkind: Mirror\nmetadata: {{name: {name}}}\nspec: {spec}\n")
    };
    for (name, spec, expected) in [
        ("refused", "{}", "spec.upstreams"),
        ("refused", "{upstreams: []}", "spec.upstreams"),
        ("refused", "{upstreams: [{host: a.b}, {host: a.b}]}", "Duplicate value"),
        ("refused", "{upstreams: [{host: 'https://docker.io'}]}", "without https:// and without a path"),
        ("refused", "{upstreams: [{host: Docker.io}]}", "must be in lower case"),
        ("refused", "{upstreams: [{host: team.platform.svc}]}", "outside of the cluster"),
        ("refused", "{upstreams: [{host: a.b, endpoints: ['https://me:word@c.d']}]}", "spec.upstreams[0].endpoints[0]"),
        ("refused", "{upstreams: [{host: a.b, proxy: 'http://me:word@c.d'}]}", "must hold no user name"),
        ("refused", "{upstreams: [{host: a.b, privateImages: All}]}", "supported values: \"VerifyWithUpstream\""),
        ("refused", "{upstreams: [{host: a.b}], cache: {pin: [docker.io/library/a]}}", "must begin with a host of"),
        ("refused", "{upstreams: [{host: a.b}], cache: {tagMaxAge: soon}}", "spec.cache.tagMaxAge"),
        ("refused-0", "{upstreams: [{host: a.b}]}", "must not end in '-' and a number"),
    ] {
        let said = refusal(&mirror(name, spec));
        assert!(said.contains(expected), "{name} {spec}: expected {expected:?}, the API server said:\n{said}");
    }
    let right =
        mirror("accepted", "{upstreams: [{host: 'r.example:5000', endpoints: ['http://[fd00::7]:5000/v2/hub']}]}");
    attempt("kubectl", &["apply", "--dry-run=server", "-f", "-"], &right)
        .unwrap_or_else(|said| panic!("{said}\n{right}"));
}
