use kube::CustomResourceExt;
use kube::core::cel::Validator;
use serde_json::{Value, json};

use super::Mirror;

/// What the rules of the schema say to a Mirror, or to its change.
fn said(name: &str, spec: &str, old: Option<&str>) -> Vec<String> {
    let object = |spec: &str| -> Value {
        let spec: Value = serde_saphyr::from_str(spec).unwrap();
        let mirror: Mirror = serde_json::from_value(json!({
            "apiVersion": "wharf.dev/v1alpha1", "kind": "Mirror", "metadata": {"name": name}, "spec": spec,
        }))
        .unwrap();
        serde_json::to_value(mirror).unwrap()
    };
    let definition = Mirror::crd();
    let schema = definition.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
    let old = old.map(object);
    match Validator::new().validate(&json!(schema), &object(spec), old.as_ref()) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.into_vec().iter().map(ToString::to_string).collect(),
    }
}

fn one(upstream: &str) -> String {
    format!("{{upstreams: [{upstream}]}}")
}

#[test]
fn wrong_mirrors_are_refused_with_a_sentence_that_helps() {
    let hub = "{upstreams: [{host: docker.io}]}";
    let pinned = |pin: &str| format!("{{upstreams: [{{host: docker.io}}], cache: {{pin: ['{pin}']}}}}");
    let long = "a".repeat(46);
    let digest = format!("docker.io/library/a@sha256:{}", "0".repeat(63));
    for (name, spec, place, expected) in [
        ("a", one("{host: 'https://docker.io'}"), "upstreams[0].host", "without https:// and without a path"),
        ("a", one("{host: docker.io/library}"), "upstreams[0].host", "without https:// and without a path"),
        ("a", one("{host: Docker.io}"), "upstreams[0].host", "must be in lower case"),
        ("a", one("{host: docker}"), "upstreams[0].host", "a DNS name with a dot, or a name with a port"),
        ("a", one("{host: docker_io.example}"), "upstreams[0].host", "a DNS name with a dot"),
        ("a", one("{host: 'docker.io:port'}"), "upstreams[0].host", "a DNS name with a dot"),
        ("a", one("{host: team.platform.svc}"), "upstreams[0].host", "outside of the cluster"),
        ("a", one("{host: 'team.platform.svc:5000'}"), "upstreams[0].host", "outside of the cluster"),
        ("a", one("{host: team.platform.svc.cluster.local}"), "upstreams[0].host", "outside of the cluster"),
        ("a", one("{host: a.b, endpoints: ['https://me:word@c.d']}"), "endpoints[0]", "credentialsSecretRef"),
        ("a", one("{host: a.b, endpoints: ['c.d']}"), "endpoints[0]", "must be a URL such as"),
        ("a", one("{host: a.b, endpoints: ['https://c.d/?a=b']}"), "endpoints[0]", "must be a URL such as"),
        ("a", one("{host: a.b, endpoints: ['ftp://c.d']}"), "endpoints[0]", "must be a URL such as"),
        ("a", one("{host: a.b, proxy: 'http://me:word@c.d:3128'}"), "proxy", "no user name and no password"),
        ("a", one("{host: a.b, proxy: 'socks5://c.d'}"), "proxy", "http://proxy.example.com:3128"),
        ("a", pinned("ghcr.io/org/app:1"), "", "must begin with a host of spec.upstreams"),
        ("a", pinned("docker.io.example.com/app:1"), "", "must begin with a host of spec.upstreams"),
        ("a", pinned("docker.io/library/Postgres"), "pin[0]", "must be an image with its registry"),
        ("a", pinned("postgres:17"), "pin[0]", "must be an image with its registry"),
        ("a", pinned(&digest), "pin[0]", "must be an image with its registry"),
        ("a", pinned("docker.io/postgres:17"), "pin[0]", "official images of docker.io are in library/"),
        ("a.b", hub.to_owned(), "", "must be at most 45 lower-case letters"),
        (&long, hub.to_owned(), "", "must be at most 45 lower-case letters"),
        ("a-0", hub.to_owned(), "", "must not end in '-' and a number"),
        ("a-in-use", hub.to_owned(), "", "must not end in '-' and a number, nor in '-in-use'"),
    ] {
        let all = said(name, &spec, None);
        let found = all.iter().any(|said| said.contains(expected) && said.contains(place));
        assert!(found, "{name} {spec}: expected {expected:?}: {all:#?}");
        // One mistake is told once, but for a pin of no registry.
        assert!(all.len() == 1 || spec.contains("postgres:17"), "{name} {spec}: {all:#?}");
        assert!(!all.concat().contains("word@"), "a password is repeated: {all:#?}");
    }
}

#[test]
fn right_mirrors_are_accepted() {
    for (name, spec) in [
        ("default", one("{host: docker.io}")),
        ("1", one("{host: 'registry.example.com:5000'}")),
        ("a-b", one("{host: 'localhost:5000'}")),
        ("a-1b", one("{host: 10.0.0.7, endpoints: ['http://10.0.0.7:5000/v2/hub/', 'https://[fd00::7]:5000']}")),
        ("a", one("{host: a.b, proxy: 'http://proxy.example.com:3128', endpoints: ['https://c.d/a~b']}")),
        (
            "a",
            format!(
                "{{upstreams: [{{host: docker.io}}, {{host: 'r.example:5000'}}], cache: {{pin: [docker.io/library/postgres:17, \
                 'docker.io/library/postgres:17@sha256:{0}', 'r.example:5000/a/b_c-d.e', 'docker.io/a__b/c@sha256:{0}']}}}}",
                "0".repeat(64)
            ),
        ),
    ] {
        assert_eq!(said(name, &spec, None), Vec::<String>::new(), "{name} {spec}");
    }
}

#[test]
fn what_cannot_change_is_refused_later() {
    let with = |cache: &str| format!("{{upstreams: [{{host: docker.io}}], cache: {cache}}}");
    let old = with("{size: 2Gi, storageClassName: standard}");
    for (cache, expected) in [
        ("{size: 1Gi, storageClassName: standard}", "size cannot shrink"),
        ("{size: 2Gi, storageClassName: other}", "storageClassName cannot change"),
        ("{size: 2Gi}", "storageClassName cannot change"),
    ] {
        let all = said("a", &with(cache), Some(&old));
        assert!(all.len() == 1 && all[0].contains(expected), "{cache}: {all:#?}");
    }
    for cache in ["{size: 2048Mi, storageClassName: standard}", "{size: 1Ti, storageClassName: standard}"] {
        assert_eq!(said("a", &with(cache), Some(&old)), Vec::<String>::new(), "{cache}");
    }
}
