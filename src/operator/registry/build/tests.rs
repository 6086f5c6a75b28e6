use std::fmt::Write as _;
use std::path::Path;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::{Value, json};

use super::*;
use crate::operator::registry::fixture;
use crate::operator::registry::observe::FoundClaim;

fn desired(registry: &Registry, observed: &Observed, minted: &Minted) -> Desired {
    let names = fixture::names(registry);
    let (settings, authority) = (fixture::settings(), fixture::authority());
    build(&Inputs { registry, names: &names, settings: &settings, observed, minted, authority: &authority })
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
             ConfigMap platform/team-registry, Secret platform/team-registry-tls",
            "Deployment platform/team-registry",
        ]
    );
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
fn a_new_certificate_credential_or_configuration_makes_a_new_pod() {
    let registry = fixture::team("{}");
    let nothing = fixture::nothing(&fixture::names(&registry));
    let content = |minted: &Minted| {
        let desired = desired(&registry, &nothing, minted);
        child(&desired, "Deployment").pointer("/spec/template/metadata/annotations").cloned().unwrap()
    };
    let first = content(&fixture::minted());
    let mut other = fixture::minted();
    other.credential.htpasswd = "wharf:$2y$04$other\n".into();
    assert_ne!(content(&other), first);
    let mut other = fixture::minted();
    other.leaf = Some(KeyedCertificate { certificate: "other".into(), key: "other".into() });
    assert_ne!(content(&other), first);
}

fn live_claim(size: &str, class: Option<&str>, managed_fields: &Value) -> PersistentVolumeClaim {
    serde_json::from_value(json!({
        "metadata": {"name": "team-registry", "namespace": "platform", "managedFields": managed_fields},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": class,
            "resources": {"requests": {"storage": size}},
        },
    }))
    .unwrap()
}

#[test]
fn a_claim_taken_over_keeps_what_kubernetes_fixed() {
    let registry = fixture::team("{storage: {claim: {size: 20Gi}}}");
    let claim_after = |live: PersistentVolumeClaim| {
        let mut observed = fixture::nothing(&fixture::names(&registry));
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
    let registry = fixture::team("{}");
    let desired = desired(&registry, &fixture::nothing(&fixture::names(&registry)), &fixture::minted());
    desired.children().for_each(|child| walk(child.manifest(), &child.target().to_string()));
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
        let registry = fixture::registry(&std::fs::read_to_string(case.join("registry.yaml")).unwrap());
        let observed = fixture::nothing(&fixture::names(&registry));
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
