use std::fmt::Write as _;
use std::path::Path;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::{Value, json};

use super::*;
use crate::operator::found::Found;
use crate::operator::mirror::fixture;
use crate::operator::mirror::upstreams::{Own, upstreams};
use crate::operator::registry::fixture::settings;
use crate::operator::registry::observe::{ClassTraits, StorageClassFact};

fn leaf() -> KeyedCertificate {
    KeyedCertificate { certificate: "leaf certificate\n".into(), key: "leaf key\n".into() }
}

fn desired(mirror: &Mirror, observed: &Observed, leaf: Option<&KeyedCertificate>) -> Desired {
    let (names, settings) = (fixture::names(mirror), settings());
    let own = Own { names: &names, cluster_domain: &settings.cluster_domain };
    let upstreams = upstreams(&mirror.spec, observed, &own);
    let bundle = "authority certificate\n";
    build(&Inputs { mirror, names: &names, settings: &settings, observed, upstreams: &upstreams, leaf, bundle })
}

fn built(mirror: &Mirror, observed: &Observed) -> Desired {
    desired(mirror, observed, Some(&leaf()))
}

fn child<'a>(desired: &'a Desired, kind: &str) -> &'a Value {
    desired.children().find(|child| child.target().kind == kind).expect("there is one").manifest()
}

fn configuration(desired: &Desired) -> Value {
    serde_json::from_str(child(desired, "ConfigMap")["data"]["serve.yaml"].as_str().unwrap()).unwrap()
}

fn listing(desired: &Desired) -> Vec<String> {
    let names = |stage: &Vec<Child>| stage.iter().map(|child| child.target().to_string()).collect::<Vec<_>>();
    desired.stages.iter().map(|stage| names(stage).join(", ")).collect()
}

#[test]
fn the_children_come_in_the_order_in_which_they_need_each_other() {
    let mirror = fixture::default("{upstreams: [{host: docker.io}]}");
    let observed = fixture::nothing(&mirror);
    let all = [
        "Service wharf-system/mirror-default, Service wharf-system/mirror-default-0",
        "ConfigMap wharf-system/mirror-default, NetworkPolicy wharf-system/mirror-default, \
         Secret wharf-system/mirror-default-tls",
        "StatefulSet wharf-system/mirror-default",
    ];
    assert_eq!(listing(&built(&mirror, &observed)), all);
    // Without an address there is no certificate, and no pod.
    let text = listing(&desired(&mirror, &observed, None)).join("\n");
    assert!(!text.contains("tls") && !text.contains("StatefulSet"), "{text}");
}

/// What the pods take up by themselves, and a Secret that comes or goes, replaces no pod.
#[test]
fn only_what_a_pod_cannot_take_up_makes_a_new_one() {
    let pod = |spec: &str, spoil: fn(&mut Observed)| {
        let mirror = fixture::default(spec);
        let mut observed = fixture::nothing(&mirror);
        spoil(&mut observed);
        child(&built(&mirror, &observed), "StatefulSet").pointer("/spec/template").cloned().unwrap()
    };
    let one = "{upstreams: [{host: docker.io, credentialsSecretRef: {name: hub}}]}";
    let first = pod(one, |_| {});
    for (spec, spoil) in [
        (
            "{upstreams: [{host: ghcr.io}, {host: docker.io, credentialsSecretRef: {name: hub}}]}",
            (|_| {}) as fn(&mut Observed),
        ),
        (
            "{upstreams: [{host: docker.io, credentialsSecretRef: {name: hub}}], cache: {size: 1Gi, tagMaxAge: 5m}}",
            |_| {},
        ),
        (
            "{upstreams: [{host: docker.io, credentialsSecretRef: {name: hub}}], replicas: 1, privateImages: Deny}",
            |_| {},
        ),
        (one, |observed| observed.secrets.clear()),
        (one, |observed| observed.lists_in_use = true),
        (one, |observed| observed.platforms = vec!["linux/amd64".into()]),
    ] {
        assert_eq!(pod(spec, spoil), first, "{spec}");
    }
    for spec in [
        "{upstreams: [{host: docker.io, credentialsSecretRef: {name: other}}]}",
        "{upstreams: [{host: docker.io, credentialsSecretRef: {name: hub}}], clients: Cluster}",
        "{upstreams: [{host: docker.io, credentialsSecretRef: {name: hub}}], podTemplate: {labels: {a: b}}}",
    ] {
        assert_ne!(pod(spec, |_| {}), first, "{spec}");
    }
    // A server that mirrors nothing is another kind of server.
    assert_ne!(pod(one, |observed| observed.hosts.granted.clear()), first);
}

#[test]
fn a_registry_without_its_secret_is_asked_without_a_credential_and_the_others_as_ever() {
    let mirror = fixture::default(
        "{upstreams: [{host: docker.io, credentialsSecretRef: {name: hub}}, {host: ghcr.io, credentialsSecretRef: {name: ghcr}}]}",
    );
    let mut observed = fixture::nothing(&mirror);
    observed.secrets.remove("hub");
    let found = configuration(&built(&mirror, &observed));
    assert_eq!(found["mirrors"][0].get("credentials"), None);
    assert_eq!(found["mirrors"][1]["credentials"], "/etc/wharf/credentials/ghcr");
    let pod = child(&built(&mirror, &observed), "StatefulSet").pointer("/spec/template/spec").cloned().unwrap();
    let volume = |name: &str| pod["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == name).cloned();
    // By name of the Secret, so that an order of registries makes no new pod.
    assert_eq!(volume("credentials-0").unwrap()["secret"]["secretName"], "ghcr");
    assert_eq!(
        volume("credentials-1").unwrap()["secret"],
        json!({"secretName": "hub", "optional": true, "defaultMode": 0o440})
    );
}

#[test]
fn a_pin_of_a_host_that_is_not_ours_is_left_out() {
    let mirror = fixture::default(
        "{upstreams: [{host: a.b}, {host: a.b.c}], cache: {pin: ['a.b/x:1', 'a.b.c/y:1', 'a.b/z@sha256:0']}}",
    );
    let mut observed = fixture::nothing(&mirror);
    observed.hosts.granted.retain(|host| host == "a.b");
    assert_eq!(configuration(&built(&mirror, &observed))["cache"]["pin"], json!(["a.b/x:1", "a.b/z@sha256:0"]));
}

fn claim(name: &str, asked: &str, granted: Option<&str>) -> PersistentVolumeClaim {
    let status = granted.map(|size| json!({"phase": "Bound", "capacity": {"storage": size}}));
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "wharf-system"},
        "spec": {"resources": {"requests": {"storage": asked}}},
        "status": status.unwrap_or(json!({"phase": "Pending"})),
    }))
    .unwrap()
}

fn live(size: &str) -> StatefulSet {
    let template = json!({"metadata": {"name": "cache"}, "spec": {"resources": {"requests": {"storage": size}}}});
    serde_json::from_value(json!({"spec": {"volumeClaimTemplates": [template], "template": {}, "selector": {}}}))
        .unwrap()
}

#[test]
fn claims_grow_first_and_the_template_with_its_stateful_set() {
    let mirror = fixture::default("{upstreams: [{host: a.b}], cache: {size: 100Gi}, replicas: 2}");
    let after = |claims: &[PersistentVolumeClaim], template: Option<&str>, expandable: bool| {
        let mut observed = fixture::nothing(&mirror);
        observed.claims = claims.to_vec();
        observed.storage_class = StorageClassFact::Available(ClassTraits { by_csi_driver: false, expandable });
        observed.stateful_set = template.map_or(Found::Absent, |size| Found::Ours(live(size)));
        let desired = built(&mirror, &observed);
        let grown = desired.children().filter(|child| child.target().kind == "PersistentVolumeClaim");
        let grown: Vec<String> = grown.map(|child| child.target().name.clone()).collect();
        let size =
            child(&desired, "StatefulSet").pointer("/spec/volumeClaimTemplates/0/spec/resources/requests/storage");
        let kept = configuration(&desired)["cache"]["size"].as_str().unwrap().parse::<u64>().unwrap() >> 30;
        let outgrew = template.is_some_and(|size| growth::outgrew(&live(size), &observed.claims, "100Gi"));
        (grown, size.unwrap().as_str().unwrap().to_owned(), kept, outgrew)
    };
    let small = claim("cache-mirror-default-0", "50Gi", Some("50Gi"));
    let asked = claim("cache-mirror-default-1", "100Gi", Some("50Gi"));
    let grown = claim("cache-mirror-default-1", "102400Mi", Some("100Gi"));
    let unbound = claim("cache-mirror-default-0", "50Gi", None);
    let name = |claim: &PersistentVolumeClaim| claim.metadata.name.clone().unwrap();
    for (claims, template, expandable, expected) in [
        (vec![], None, true, (vec![], "100Gi", 90, false)),
        (vec![small.clone(), grown.clone()], Some("50Gi"), true, (vec![name(&small)], "50Gi", 45, false)),
        (vec![asked.clone(), grown.clone()], Some("50Gi"), true, (vec![], "50Gi", 45, true)),
        (vec![grown.clone()], Some("50Gi"), true, (vec![], "50Gi", 90, true)),
        (vec![grown.clone()], Some("100Gi"), true, (vec![], "100Gi", 90, false)),
        (vec![small.clone(), grown.clone()], Some("50Gi"), false, (vec![], "50Gi", 45, false)),
        (vec![unbound.clone(), grown.clone()], Some("50Gi"), true, (vec![], "50Gi", 90, false)),
        // A larger one, which somebody else made so, stays.
        (vec![claim("cache-mirror-default-0", "1Ti", Some("1Ti"))], Some("100Gi"), true, (vec![], "100Gi", 90, false)),
    ] {
        let expected = (expected.0, expected.1.to_owned(), expected.2, expected.3);
        assert_eq!(after(&claims, template, expandable), expected, "{claims:?} {template:?} {expandable}");
    }
}

#[test]
fn a_stateful_set_that_is_going_is_not_written() {
    let mirror = fixture::default("{upstreams: [{host: a.b}]}");
    let mut observed = fixture::nothing(&mirror);
    let mut going = live("50Gi");
    going.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    observed.stateful_set = Found::Ours(going);
    assert_eq!(built(&mirror, &observed).stages.len(), 2);
}

#[test]
fn no_secret_stands_in_arguments_or_environment() {
    let mirror = fixture::mirror(&std::fs::read_to_string("tests/golden/mirror-everything/mirror.yaml").unwrap());
    let desired = built(&mirror, &fixture::nothing(&mirror));
    let container = child(&desired, "StatefulSet").pointer("/spec/template/spec/containers/0").unwrap();
    assert_eq!(container.get("env"), None);
    assert_eq!(container["args"], json!(["serve", "--config=/etc/wharf/serve/serve.yaml", "--log-format=json"]));
}

/// One folder a case: `mirror.yaml` in, `objects.yaml` out. `WHARF_UPDATE_GOLDEN=1` writes the second anew; read the
/// difference before you commit it.
#[test]
fn goldens() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let update = std::env::var_os("WHARF_UPDATE_GOLDEN").is_some();
    let mut cases = 0;
    for case in std::fs::read_dir(&folder).unwrap() {
        let case = case.unwrap().path();
        let Ok(yaml) = std::fs::read_to_string(case.join("mirror.yaml")) else { continue };
        let mirror = fixture::mirror(&yaml);
        let mut observed = fixture::nothing(&mirror);
        observed.platforms = vec!["linux/amd64".into(), "linux/arm64/v8".into()];
        observed.lists_in_use = true;
        if let Some(fact) = observed.secrets.get_mut("hub") {
            fact.endpoints = vec!["https://mirror.example.com".into()];
        }
        let mut text = String::new();
        for child in built(&mirror, &observed).children() {
            write!(text, "---\n{}", serde_saphyr::to_string(child.manifest()).unwrap()).unwrap();
        }
        let golden = case.join("objects.yaml");
        if update {
            std::fs::write(&golden, &text).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap();
        assert!(text == expected, "{} differs from what is built:\n{text}", golden.display());
        cases += 1;
    }
    assert!(cases >= 3, "only {cases} cases found in {}", folder.display());
}

/// The server takes every configuration that is built.
#[test]
fn the_server_takes_its_configuration() {
    for case in ["mirror-shortest", "mirror-everything", "mirror-for-pods"] {
        let yaml = std::fs::read_to_string(format!("tests/golden/{case}/mirror.yaml")).unwrap();
        let mut mirror = fixture::mirror(&yaml);
        mirror.spec.cache.pin.clear();
        let mut observed = fixture::nothing(&mirror);
        observed.lists_in_use = true;
        let text = configuration(&built(&mirror, &observed)).to_string();
        let config = crate::serve::config::Config::parse(Path::new("serve.yaml"), &text).unwrap();
        assert_eq!(config.mirrors.len(), mirror.spec.upstreams.len(), "{case}");
        assert_eq!(config.access.anonymous_rights(), crate::serve::access::Rights::Read, "{case}");
    }
}
