use super::*;
use crate::operator::mirror::fixture;

fn told(spec: &str, spoil: impl FnOnce(&mut Observed)) -> Upstreams {
    let mirror = fixture::default(spec);
    let mut observed = fixture::nothing(&mirror);
    spoil(&mut observed);
    upstreams(&mirror.spec, &observed, &Own { names: &fixture::names(&mirror), cluster_domain: "cluster.local" })
}

fn reasons(found: &Upstreams) -> Vec<&'static str> {
    found.problems.iter().map(|problem| problem.reason).collect()
}

#[test]
fn an_endpoint_that_leads_back_to_a_mirror_is_left_out() {
    for (endpoint, is_loop) in [
        ("https://mirror-default", true),
        ("https://mirror-default.wharf-system", true),
        ("https://mirror-other-0.wharf-system.svc:443/v2", true),
        ("https://MIRROR-default.wharf-system.svc.cluster.local.", true),
        ("https://10.96.0.7", true),
        ("http://[::ffff:10.96.0.7]:5000", true),
        ("http://localhost:5000", true),
        ("http://127.0.0.9:5000", true),
        ("http://[::1]:5000", true),
        ("http://0.0.0.0:5000", true),
        ("https://10.96.0.8", false),
        ("https://mirror-default.elsewhere.svc", false),
        ("https://mirror-default.wharf-system.svc.example.com", false),
        ("https://registry-1.docker.io", false),
        ("http://harbor.harbor.svc", false),
    ] {
        let spec = |rest: &str| format!("{{upstreams: [{{host: docker.io, endpoints: ['{endpoint}'{rest}]}}]}}");
        let known = |observed: &mut Observed| {
            observed.mirror_addresses.insert("10.96.0.7".parse().unwrap());
        };
        let found = told(&spec(""), known);
        assert_eq!((found.configured.is_empty(), found.problems.len() == 1), (is_loop, is_loop), "{endpoint}");
        // With another one, the registry goes on.
        let found = told(&spec(", 'https://a.b'"), known);
        let endpoints = found.configured[0]["endpoints"].as_array().unwrap().len();
        assert_eq!(endpoints, if is_loop { 1 } else { 2 }, "{endpoint}");
        assert_eq!(reasons(&found), if is_loop { vec![reason::LOOP] } else { vec![] });
    }
    let by_its_name = told("{upstreams: [{host: '10.96.0.7:443'}, {host: docker.io}]}", |observed| {
        observed.mirror_addresses.insert("10.96.0.7".parse().unwrap());
    });
    assert_eq!((reasons(&by_its_name), by_its_name.configured.len()), (vec![reason::LOOP], 1));
}

#[test]
fn a_secret_that_is_no_credential_is_named_with_what_it_lacks() {
    let spec = "{upstreams: [{host: docker.io, credentialsSecretRef: {name: hub}}, {host: ghcr.io}]}";
    let fact = |kind: &str, keys: &[&str]| SecretFact {
        kind: kind.to_owned(),
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        endpoints: Vec::new(),
    };
    for (found, said) in [
        (None, "does not exist"),
        (Some(fact("Opaque", &["username", "password"])), "is of type Opaque"),
        (Some(fact("kubernetes.io/basic-auth", &["username"])), "has no password"),
        (Some(fact("kubernetes.io/basic-auth", &[])), "has no username and no password"),
        (Some(fact("kubernetes.io/dockerconfigjson", &[])), "has no .dockerconfigjson"),
        (Some(fact("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"])), ""),
        (Some(fact("kubernetes.io/basic-auth", &["username", "password"])), ""),
    ] {
        let upstreams = told(spec, |observed| {
            observed.secrets.clear();
            observed.secrets.extend(found.map(|fact| ("hub".to_owned(), fact)));
        });
        assert_eq!(upstreams.configured.len(), 2, "the other registry goes on");
        let credentials = upstreams.configured[0].get("credentials");
        if said.is_empty() {
            assert_eq!(credentials, Some(&json!("/etc/wharf/credentials/hub")));
            assert_eq!(upstreams.problems, []);
        } else {
            assert_eq!((credentials, reasons(&upstreams)), (None, vec![reason::CREDENTIALS_MISSING]));
            assert!(upstreams.problems[0].message.contains(said), "{}", upstreams.problems[0].message);
        }
    }
}

#[test]
fn a_credential_goes_elsewhere_only_with_the_secrets_word() {
    for (endpoint, word, allowed) in [
        ("https://registry-1.docker.io", "", true),
        ("https://docker.io/v2/", "", true),
        ("https://mirror.example.com", "", false),
        ("http://registry-1.docker.io", "", false),
        ("https://registry-1.docker.io:8443", "", false),
        ("https://mirror.example.com/v2/hub", "https://a.b, https://mirror.example.com", true),
        ("https://mirror.example.com", "https://mirror.example.com:8443", false),
        ("https://mirror.example.com", "mirror.example.com", false),
        ("http://mirror.example.com", "https://mirror.example.com", false),
    ] {
        let spec = format!(
            "{{upstreams: [{{host: docker.io, endpoints: ['{endpoint}'], credentialsSecretRef: {{name: hub}}}}]}}"
        );
        let found = told(&spec, |observed| {
            let fact = observed.secrets.get_mut("hub").unwrap();
            fact.endpoints = word.split(',').map(|text| text.trim().to_owned()).collect();
        });
        assert_eq!(found.configured[0].get("credentials").is_some(), allowed, "{endpoint} {word}");
        assert_eq!(reasons(&found), if allowed { vec![] } else { vec![reason::ENDPOINT_NOT_ALLOWED] });
        if !allowed {
            let command =
                format!("kubectl annotate secret -n wharf-system hub wharf.dev/endpoints={endpoint}; docker.io");
            assert!(found.problems[0].message.contains(&command), "{}", found.problems[0].message);
        }
    }
}

#[test]
fn authorities_that_are_not_there_leave_the_public_ones() {
    let spec = "{upstreams: [{host: a.b, caSecretRef: {name: ca}}]}";
    assert_eq!(told(spec, |_| {}).configured[0]["authorities"], "/etc/wharf/authorities/ca/ca.crt");
    for spoil in [
        |observed: &mut Observed| observed.secrets.clear(),
        |observed: &mut Observed| {
            observed.secrets.get_mut("ca").unwrap().keys.clear();
        },
    ] {
        let found = told(spec, spoil);
        assert_eq!(found.configured[0].get("authorities"), None);
        assert_eq!(reasons(&found), [reason::AUTHORITY_MISSING]);
    }
}

#[test]
fn what_the_server_would_refuse_is_left_out_alone() {
    for wrong in [
        "{host: 'a.b:65536'}",
        "{host: a.b, endpoints: ['https://a.b:65536']}",
        "{host: a.b, proxy: 'http://a.b:65536'}",
        "{host: a.b, tokenRealms: ['a.b:65536']}",
        "{host: a.b, redirectHosts: ['::::']}",
    ] {
        let found = told(&format!("{{upstreams: [{wrong}, {{host: docker.io}}]}}"), |_| {});
        assert_eq!(reasons(&found), [reason::UPSTREAM_INVALID], "{wrong}");
        assert_eq!(found.configured, [json!({"host": "docker.io", "privateImages": "VerifyWithUpstream"})], "{wrong}");
    }
}

#[test]
fn only_hosts_that_are_ours_are_told_and_each_says_for_itself_who_may_have_private_images() {
    let spec = "{privateImages: Deny, upstreams: [{host: a.b}, {host: c.d, privateImages: Shared}, {host: e.f}]}";
    let found = told(spec, |observed| observed.hosts.granted.retain(|host| host != "e.f"));
    let expected = [json!({"host": "a.b", "privateImages": "Deny"}), json!({"host": "c.d", "privateImages": "Shared"})];
    assert_eq!(found.configured, expected);
}
