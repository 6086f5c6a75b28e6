//! What is asked for, by who has which host and which Services have addresses.

use serde_json::json;

use super::*;
use crate::operator::mirror::fixture as mirrors;
use crate::operator::registry::fixture as registries;

const MIRROR: &str = "4f1e6d1c-0000-0000-0000-000000000002";
const REGISTRY: &str = "4f1e6d1c-0000-0000-0000-000000000001";

/// Services by namespace and name: whose it is, and its address.
type Services<'a> = &'a [(&'a str, &'a str, &'a str, &'a str)];

fn asked(registries: &[Registry], mirrors: &[Mirror], services: Services) -> Asked {
    let find = |namespace: &str, name: &str| {
        let (_, _, owner, address) =
            services.iter().find(|(within, called, ..)| (*within, *called) == (namespace, name))?;
        let service = json!({
            "metadata": {"name": name, "namespace": namespace, "ownerReferences": [
                {"apiVersion": "wharf.dev/v1alpha1", "kind": "Mirror", "name": "x", "uid": owner},
            ]},
            "spec": {"clusterIP": address},
        });
        Some(Arc::new(serde_json::from_value(service).unwrap()))
    };
    let registries: Vec<&Registry> = registries.iter().collect();
    let limits = Limits { allowed_hosts: vec!["*.example.com".parse().unwrap()], ..Limits::default() };
    let sources =
        Sources { registries: &registries, mirrors, services: &find, limits: &limits, namespace: "wharf-system" };
    Asked::of(sources)
}

fn hosts(asked: &Asked) -> Vec<&str> {
    asked.entries.keys().map(String::as_str).collect()
}

const TWO: Services = &[
    ("wharf-system", "mirror-default-0", MIRROR, "10.96.0.7"),
    ("wharf-system", "mirror-default-1", MIRROR, "fd00::8"),
];

fn entry(kind: OwnerKind, namespace: &str, name: &str, uid: &str) -> Entry {
    let owner = Owner { kind, namespace: namespace.into(), name: name.into(), uid: uid.into() };
    Entry { backends: vec!["https://10.96.0.1".into()], owner, nodes: None, since: 1 }
}

#[test]
fn a_mirrors_hosts_lead_to_all_its_replicas_in_order() {
    let mirror = mirrors::default(
        "{upstreams: [{host: docker.io}, {host: 'r.io:5000'}], replicas: 2, nodes: {selector: {matchLabels: {a: b}}}}",
    );
    let asked = asked(&[], std::slice::from_ref(&mirror), TWO);
    assert_eq!(hosts(&asked), ["docker.io", "r.io:5000"]);
    let entry = &asked.entries["r.io:5000"];
    assert_eq!(entry.backends, ["https://10.96.0.7", "https://[fd00::8]"]);
    assert_eq!((entry.owner.kind, entry.owner.name.as_str()), (OwnerKind::Mirror, "default"));
    assert_eq!((entry.owner.namespace.as_str(), entry.owner.uid.as_str()), ("", MIRROR));
    assert_eq!(entry.nodes, mirror.spec.nodes.selector);
}

#[test]
fn there_is_no_entry_before_every_replica_has_an_address_of_its_own() {
    let mirror = mirrors::default("{upstreams: [{host: docker.io}], replicas: 2}");
    let other: Services = &[TWO[0], ("wharf-system", "mirror-default-1", "another", "10.96.0.9")];
    let headless: Services = &[TWO[0], ("wharf-system", "mirror-default-1", MIRROR, "None")];
    let elsewhere: Services = &[TWO[0], ("default", "mirror-default-1", MIRROR, "10.96.0.9")];
    for services in [&TWO[..1], other, headless, elsewhere] {
        let asked = asked(&[], std::slice::from_ref(&mirror), services);
        assert_eq!(hosts(&asked), [""; 0], "{services:?}");
        // What there was before stays: it is this Mirror's, and nobody else's.
        let old = entry(OwnerKind::Mirror, "", "default", MIRROR);
        assert!(asked.may_stay("docker.io", &old, |_| true));
        assert!(!asked.may_stay("docker.io", &entry(OwnerKind::Mirror, "", "older", "gone"), |_| true));
    }
}

#[test]
fn a_host_is_a_registrys_before_any_mirrors_and_what_is_no_host_is_nobodys() {
    let team = registries::team("{hosts: [images.example.com]}");
    let mirror =
        mirrors::default("{upstreams: [{host: images.example.com}, {host: team.platform.svc}, {host: 'https://x'}]}");
    let names = registries::names(&team);
    let service = [(names.namespace(), names.service(), REGISTRY, "10.96.0.1"), TWO[0]];
    let kinds = |asked: &Asked| asked.entries.values().map(|entry| entry.owner.kind).collect::<Vec<_>>();
    let both = asked(std::slice::from_ref(&team), std::slice::from_ref(&mirror), &service);
    assert_eq!(hosts(&both), ["images.example.com", "team.platform.svc"]);
    assert_eq!(kinds(&both), [OwnerKind::Registry; 2]);
    // Nor has the Mirror it while the Registry's Service lacks an address.
    assert_eq!(hosts(&asked(std::slice::from_ref(&team), std::slice::from_ref(&mirror), TWO)), [""; 0]);
    let alone = asked(&[], &[mirror], TWO);
    assert_eq!(hosts(&alone), ["images.example.com", "team.platform.svc"]);
    assert_eq!(kinds(&alone), [OwnerKind::Mirror; 2]);
}

#[test]
fn what_may_stay_without_being_asked_for() {
    let mirror = mirrors::default("{upstreams: [{host: docker.io}]}");
    let asked = asked(&[], &[mirror], TWO);
    let of_registry = entry(OwnerKind::Registry, "platform", "team", REGISTRY);
    assert!(asked.may_stay("team.platform.svc", &of_registry, |_| false));
    assert!(!asked.may_stay("images.example.com", &of_registry, |_| false), "a further name goes with the spec");
    let of_mirror = entry(OwnerKind::Mirror, "", "default", MIRROR);
    assert!(!asked.may_stay("docker.io", &of_mirror, |_| true), "it is asked for");
    assert!(!asked.may_stay("ghcr.io", &of_mirror, |_| true), "it was taken out of the spec");
    assert!(asked.may_stay("ghcr.io", &of_mirror, |_| false), "the Mirror cannot be read");
}
