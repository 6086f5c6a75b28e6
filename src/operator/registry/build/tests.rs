use std::fmt::Write as _;
use std::path::Path;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Service};
use serde_json::{Value, json};

use super::*;
use crate::api::registry::{IngressExposure, IngressPreset};
use crate::operator::certificate::KeyedCertificate;
use crate::operator::registry::fixture;
use crate::operator::registry::observe::{
    ClassTraits, Found, FoundClaim, IngressClassFact, ObservedExposure, StorageClassFact,
};

fn desired(registry: &Registry, observed: &Observed, minted: &Minted) -> Desired {
    let names = fixture::names(registry);
    let settings = fixture::settings();
    build(&Inputs { registry, names: &names, settings: &settings, observed, minted, bundle: fixture::BUNDLE })
}

fn listing(desired: &Desired) -> Vec<String> {
    desired
        .stages
        .iter()
        .map(|stage| stage.iter().map(|child| child.target().to_string()).collect::<Vec<_>>().join(", "))
        .collect()
}

fn child<'a>(desired: &'a Desired, kind: &str) -> &'a Value {
    desired.children().find(|child| child.target().kind == kind).expect("there is one").manifest()
}

#[test]
fn the_children_come_in_the_order_in_which_they_need_each_other() {
    let registry = fixture::team("{}");
    let names = fixture::names(&registry);
    let desired = desired(&registry, &fixture::nothing(&names), &fixture::minted());
    assert_eq!(
        listing(&desired),
        [
            "Service platform/team",
            "PersistentVolumeClaim platform/team-registry, ServiceAccount platform/team-registry, \
             Secret platform/team-registry-credentials, Secret platform/team-pull, ConfigMap platform/team-ca, \
             Secret platform/team-registry, NetworkPolicy platform/team-registry, Secret platform/team-registry-tls",
            "Deployment platform/team-registry",
        ]
    );
}

#[test]
fn the_pull_secret_is_for_every_name() {
    let registry = fixture::team("{hosts: [images.example.com, refused.example.org]}");
    let mut observed = fixture::nothing(&fixture::names(&registry));
    observed.hosts.granted = vec!["images.example.com".into()];
    let desired = desired(&registry, &observed, &fixture::minted());
    let secret = desired.children().find(|child| child.target().name == "team-pull").unwrap().manifest();
    let text = decoded(&secret["data"][".dockerconfigjson"]);
    let logins: Value = serde_json::from_str(&text).unwrap();
    let hosts: Vec<&String> = logins["auths"].as_object().unwrap().keys().collect();
    assert_eq!(hosts, ["images.example.com", "team.platform.svc"]);
    assert_eq!(logins["auths"]["images.example.com"], logins["auths"]["team.platform.svc"]);
}

fn decoded(value: &Value) -> String {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap()).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn without_an_address_there_is_no_certificate_and_no_pod() {
    let registry = fixture::team("{}");
    let minted = Minted { leaf: None, ..fixture::minted() };
    let desired = desired(&registry, &fixture::nothing(&fixture::names(&registry)), &minted);
    let text = listing(&desired).join("\n");
    assert!(!text.contains("tls") && !text.contains("Deployment"), "{text}");
}

#[test]
fn what_an_engine_cannot_take_up_makes_a_new_pod() {
    let pod = |engine: &str, spoil: fn(&mut Observed, &mut Minted)| {
        let registry = fixture::team(&format!("{{engine: {engine}}}"));
        let (mut observed, mut minted) = (fixture::nothing(&fixture::names(&registry)), fixture::minted());
        observed.service = Found::Ours(service("10.96.0.1"));
        spoil(&mut observed, &mut minted);
        child(&desired(&registry, &observed, &minted), "Deployment").pointer("/spec/template").cloned().unwrap()
    };
    let credential = |_: &mut Observed, minted: &mut Minted| minted.credential.htpasswd = "wharf:$2y$04$other\n".into();
    let certificate = |_: &mut Observed, minted: &mut Minted| {
        minted.leaf = Some(KeyedCertificate { certificate: "other".into(), key: "other".into() });
    };
    let address = |observed: &mut Observed, _: &mut Minted| observed.service = Found::Ours(service("10.96.0.2"));
    for (engine, expected) in [("Wharf", [true, false, true]), ("Distribution", [true, true, false])] {
        let first = pod(engine, |_, _| {});
        let is_new = [pod(engine, credential), pod(engine, certificate), pod(engine, address)].map(|pod| pod != first);
        assert_eq!(is_new, expected, "{engine}: by another credential, certificate, address");
    }
    assert_ne!(pod("Wharf", |_, _| {}), pod("Distribution", |_, _| {}));
}

fn service(address: &str) -> Service {
    serde_json::from_value(json!({"spec": {"clusterIPs": [address]}})).unwrap()
}

fn live_claim(size: &str, class: Option<&str>, managed_fields: &Value) -> PersistentVolumeClaim {
    serde_json::from_value(json!({
        "metadata": {"name": "team-registry", "namespace": "platform", "managedFields": managed_fields},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": class,
            "resources": {"requests": {"storage": size}},
        },
        "status": {"phase": "Bound", "capacity": {"storage": size}},
    }))
    .unwrap()
}

#[test]
fn a_claim_taken_over_keeps_what_kubernetes_fixed() {
    let registry = fixture::team("{storage: {claim: {size: 20Gi}}}");
    let claim_after = |live: PersistentVolumeClaim| {
        let mut observed = fixture::nothing(&fixture::names(&registry));
        observed.storage_class = StorageClassFact::Available(ClassTraits { by_csi_driver: false, expandable: true });
        observed.claim = FoundClaim::Left { claim: live, mounted_by: Vec::new() };
        child(&desired(&registry, &observed, &fixture::minted()), "PersistentVolumeClaim")["spec"].clone()
    };
    // A larger claim stays large, a smaller one grows, and the modes stay.
    let larger = claim_after(live_claim("30720Mi", Some("standard"), &json!([])));
    assert_eq!(larger["resources"]["requests"]["storage"], "30720Mi");
    assert_eq!(larger["accessModes"], json!(["ReadWriteMany"]));
    let smaller = claim_after(live_claim("10Gi", Some("standard"), &json!([])));
    assert_eq!(smaller["resources"]["requests"]["storage"], "20Gi");
    // A class that the cluster filled in is left to it; one that we once sent must be sent again.
    assert_eq!(smaller.get("storageClassName"), None);
    let sent = json!([{
        "manager": "wharf/registry",
        "operation": "Apply",
        "fieldsV1": {"f:spec": {"f:storageClassName": {}}},
    }]);
    assert_eq!(claim_after(live_claim("20Gi", Some("fast"), &sent))["storageClassName"], "fast");
}

#[test]
fn a_claim_grows_where_it_can_and_takes_back_only_what_was_not_granted() {
    let size_after = |wanted: &str, asked: &str, granted: Option<&str>, expandable: bool| {
        let registry = fixture::team(&format!("{{storage: {{claim: {{size: {wanted}}}}}}}"));
        let mut live = live_claim(asked, Some("standard"), &json!([]));
        live.status = granted.map(|size| serde_json::from_value(json!({"capacity": {"storage": size}})).unwrap());
        let mut observed = fixture::nothing(&fixture::names(&registry));
        observed.claim = FoundClaim::Ours(live);
        observed.storage_class = StorageClassFact::Available(ClassTraits { by_csi_driver: true, expandable });
        let desired = desired(&registry, &observed, &fixture::minted());
        child(&desired, "PersistentVolumeClaim")["spec"]["resources"]["requests"]["storage"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    for (wanted, asked, granted, expandable, expected) in [
        ("20Gi", "20480Mi", Some("20Gi"), true, "20480Mi"),
        ("40Gi", "20Gi", Some("20Gi"), true, "40Gi"),
        ("40Gi", "20Gi", Some("20Gi"), false, "20Gi"),
        // Kubernetes refuses to change a claim that is not bound.
        ("40Gi", "20Gi", None, true, "20Gi"),
        // An expansion that failed is taken back, but never to less than the volume has.
        ("30Gi", "40Gi", Some("20Gi"), true, "30Gi"),
        ("30Gi", "40Gi", Some("20Gi"), false, "30Gi"),
        ("20Gi", "40Gi", Some("20Gi"), true, "40Gi"),
        ("10Gi", "40Gi", Some("40Gi"), true, "40Gi"),
    ] {
        assert_eq!(
            size_after(wanted, asked, granted, expandable),
            expected,
            "{wanted} {asked} {granted:?} {expandable}"
        );
    }
}

#[test]
fn the_access_mode_is_the_strictest_that_the_class_offers() {
    let modes = |spec: &str, by_csi_driver: bool| {
        let registry = fixture::team(spec);
        let mut observed = fixture::nothing(&fixture::names(&registry));
        observed.storage_class = StorageClassFact::Available(ClassTraits { by_csi_driver, expandable: false });
        let desired = desired(&registry, &observed, &fixture::minted());
        child(&desired, "PersistentVolumeClaim")["spec"]["accessModes"].clone()
    };
    assert_eq!(modes("{}", true), json!(["ReadWriteOncePod"]));
    assert_eq!(modes("{}", false), json!(["ReadWriteOnce"]));
    assert_eq!(modes("{storage: {claim: {accessModes: [ReadWriteMany]}}}", true), json!(["ReadWriteMany"]));
}

#[test]
fn nothing_empty_is_ever_sent() {
    fn walk(value: &Value, path: &str) {
        match value {
            Value::Null => panic!("{path} is null"),
            Value::Array(list) => {
                assert!(!list.is_empty(), "{path} is an empty list");
                for element in list {
                    walk(element, path);
                }
            }
            Value::Object(fields) => {
                for (key, field) in fields {
                    walk(field, &format!("{path}/{key}"));
                }
            }
            _ => {}
        }
    }
    for spec in [
        "{}",
        "{engine: Distribution, replicas: 2, storage: {s3: {bucket: images}}}",
        "{storage: {existingClaimName: mine}}",
        "{expose: {ingress: {host: images.example.com}, service: {type: NodePort}}}",
        "{expose: {gateway: {host: images.example.com, parentRefs: [{name: front}]}}}",
    ] {
        let registry = fixture::team(spec);
        let desired = desired(&registry, &fixture::nothing(&fixture::names(&registry)), &fixture::minted());
        desired.children().for_each(|child| walk(child.manifest(), &child.target().to_string()));
    }
}

fn exposed(spec: &str, spoil: impl FnOnce(&mut Observed)) -> Vec<String> {
    let registry = fixture::team(spec);
    let mut observed = fixture::nothing(&fixture::names(&registry));
    spoil(&mut observed);
    let desired = desired(&registry, &observed, &fixture::minted());
    desired.children().map(|child| child.target().to_string()).filter(|name| is_of_a_front(name)).collect()
}

fn is_of_a_front(name: &str) -> bool {
    ["Ingress", "HTTPRoute", "BackendTLSPolicy"].iter().any(|kind| name.starts_with(kind))
        || name.ends_with("-external")
        || name.ends_with("-front-ca")
}

#[test]
fn a_way_in_that_cannot_be_had_is_left_out_alone() {
    let both = "{expose: {ingress: {host: images.example.com}, service: {type: NodePort}}}";
    let all = ["Secret platform/team-front-ca", "Ingress platform/team-registry", "Service platform/team-external"];
    assert_eq!(exposed(both, |_| {}), all);
    assert_eq!(exposed("{}", |_| {}), Vec::<String>::new());
    let theirs = || Found::Foreign("without an owner".into());
    assert_eq!(exposed(both, |observed| observed.exposure.host_taken_by = Some("Ingress a/b".into())), all[2..]);
    assert_eq!(exposed(both, |observed| observed.exposure.ingress = theirs()), all[2..]);
    assert_eq!(exposed(both, |observed| observed.exposure.authority = Found::Foreign("x".into())), all[2..]);
    assert_eq!(exposed(both, |observed| observed.exposure.service = Found::Foreign("x".into())), all[..2]);
}

#[test]
fn a_way_in_through_a_gateway_needs_all_of_its_api() {
    let gateway =
        "{expose: {gateway: {host: images.example.com, parentRefs: [{name: front}]}, service: {type: NodePort}}}";
    let all = [
        "BackendTLSPolicy platform/team-registry",
        "HTTPRoute platform/team-registry",
        "Service platform/team-external",
    ];
    assert_eq!(exposed(gateway, |_| {}), all);
    assert_eq!(exposed(gateway, |observed| observed.exposure.apis.http_routes = false), all[2..]);
    assert_eq!(exposed(gateway, |observed| observed.exposure.apis.backend_tls_policies = false), all[2..]);
    assert_eq!(
        exposed(gateway, |observed| observed.exposure.route_host_taken_by = Some("Ingress a/b".into())),
        all[2..]
    );
    assert_eq!(exposed(gateway, |observed| observed.exposure.route = Found::Foreign("x".into())), all[2..]);
    assert_eq!(exposed(gateway, |observed| observed.exposure.backend_policy = Found::Foreign("x".into())), all[2..]);
}

#[test]
fn the_preset_follows_from_the_class_unless_it_is_given() {
    let of = |spec: &str, class: IngressClassFact| {
        let wanted: IngressExposure = serde_saphyr::from_str(spec).unwrap();
        let registry = fixture::team("{}");
        let exposure = fixture::nothing(&fixture::names(&registry)).exposure;
        front::preset(&wanted, &ObservedExposure { class, ..exposure })
    };
    let by = |name: &str| IngressClassFact::Controller(name.to_owned());
    let derived = "{host: a.example.com}";
    assert_eq!(of(derived, by("k8s.io/ingress-nginx")), IngressPreset::Nginx);
    assert_eq!(of(derived, by("traefik.io/ingress-controller")), IngressPreset::Traefik);
    assert_eq!(of(derived, by("haproxy.org/ingress-controller/haproxy")), IngressPreset::Haproxy);
    assert_eq!(of(derived, by("example.com/other")), IngressPreset::None);
    assert_eq!(of(derived, IngressClassFact::NoDefault(Vec::new())), IngressPreset::None);
    let given = "{host: a.example.com, preset: haproxy}";
    assert_eq!(of(given, by("k8s.io/ingress-nginx")), IngressPreset::Haproxy);
    assert_eq!(of(given, IngressClassFact::Missing(Vec::new())), IngressPreset::Haproxy);
}

/// One folder a case: `registry.yaml` in, `objects.yaml` out. `WHARF_UPDATE_GOLDEN=1` writes the second anew; read the
/// difference before you commit it.
#[test]
fn goldens() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let update = std::env::var_os("WHARF_UPDATE_GOLDEN").is_some();
    let mut cases = 0;
    for case in std::fs::read_dir(&folder).unwrap() {
        let case = case.unwrap().path();
        if !case.join("registry.yaml").exists() {
            // Those of Mirrors lie beside.
            continue;
        }
        let registry = fixture::registry(&std::fs::read_to_string(case.join("registry.yaml")).unwrap());
        let mut observed = fixture::nothing(&fixture::names(&registry));
        observed.hosts.granted.clone_from(&registry.spec.hosts);
        let desired = desired(&registry, &observed, &fixture::minted());
        let mut text = String::new();
        for child in desired.children() {
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
