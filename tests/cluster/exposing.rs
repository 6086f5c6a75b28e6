//! Registries that are reached from beyond the cluster, by a real front and real clients: what is said of each front that is set
//! up wrongly, and that it heals when that is put right.

use serde_json::{Value, json};

use crate::edge::{self, Edge};
use crate::outside::Outside;
use crate::support::{Login, Namespace, apply, archive, decoded, eventually, kubectl};

const HOST: &str = "ingress.test.example.com";

/// Waits until condition `Exposed` is `status/reason`; its message.
fn exposed(namespace: &Namespace, registry: &str, expected: &str) -> String {
    let object = namespace.wait_for(registry, "Exposed", expected);
    let conditions = object["status"]["conditions"].as_array().unwrap();
    conditions.iter().find(|found| found["type"] == "Exposed").unwrap()["message"].as_str().unwrap().to_owned()
}

/// A Registry behind an Ingress with some annotations of the user's.
fn by_ingress(namespace: &Namespace, name: &str, annotations: &Value) {
    let ingress = json!({"host": HOST, "className": edge::CLASS, "annotations": annotations});
    let spec = json!({"expose": {"ingress": ingress, "tls": {"secretRef": {"name": "host-tls"}}}});
    namespace.registry(name, &spec.to_string());
}

fn secret(namespace: &Namespace, name: &str, data: &Value) {
    let metadata = json!({"name": name, "namespace": namespace.name});
    apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}).to_string());
}

/// The password of a Registry's own user.
fn password(namespace: &Namespace, registry: &str) -> String {
    let secret = namespace.get("secret", &format!("{registry}-registry-credentials")).unwrap();
    String::from_utf8(decoded(secret["data"]["password"].as_str().unwrap())).unwrap()
}

#[test]
#[ignore = "needs cluster"]
fn images_go_through_an_ingress_and_each_wrong_setting_is_told() {
    let namespace = Namespace::new("ingress");
    let edge = Edge::start(&namespace.name);
    let leaf = edge.certificate(HOST);
    secret(&namespace, "host-tls", &json!({"tls.crt": leaf.certificate, "tls.key": leaf.key}));
    secret(&namespace, "another", &json!({"ca.crt": leaf.certificate}));
    edge.announce(None);
    by_ingress(&namespace, "first", &json!({}));
    by_ingress(&namespace, "second", &json!({}));

    // No address, then one where nobody listens, then a front that shows a certificate which Wharf does not know.
    let said = exposed(&namespace, "first", "False/AddressPending");
    assert!(said.contains("does not resolve"), "{said}");
    edge.announce(Some(edge::OTHER_ADDRESS));
    let said = exposed(&namespace, "first", "False/FrontUnreachable");
    assert!(said.contains(edge::OTHER_ADDRESS), "{said}");
    edge.announce(Some(edge::ADDRESS));
    let said = exposed(&namespace, "first", "False/CertificateNotTrusted");
    assert!(said.contains("nobody who is trusted signed it"), "{said}");
    edge.trust_company();
    let said = exposed(&namespace, "first", "True/Proven");
    assert!(said.contains(HOST), "{said}");
    let first = namespace.wait_for("first", "Ready", "True/Ready");
    assert_eq!(first["status"]["externalAddresses"], json!([HOST]));

    // The layer is larger than every usual limit.
    let outside = Outside::new(&edge.company(), &[(HOST, edge::ADDRESS)]);
    let app = archive();
    outside.run(&format!(
        "head -c 58720256 /dev/urandom >big\ntar cf layer.tar big\n\
         crane auth login {HOST} --username wharf --password '{}'\n\
         crane append --new_layer layer.tar --new_tag {HOST}/big:1\ncrane validate --remote {HOST}/big:1\n\
         skopeo copy --quiet {app} docker://{HOST}/app:1\nskopeo copy --quiet docker://{HOST}/app:1 oci:app\n",
        password(&namespace, "first"),
    ));

    by_ingress(&namespace, "first", &json!({"nginx.ingress.kubernetes.io/proxy-body-size": "1m"}));
    let said = exposed(&namespace, "first", "False/UploadRefused");
    assert!(said.contains("413 from nginx"), "{said}");
    let other = format!("{}/another", namespace.name);
    by_ingress(&namespace, "first", &json!({"nginx.ingress.kubernetes.io/proxy-ssl-secret": other}));
    let said = exposed(&namespace, "first", "False/BackendUnreachable");
    assert!(said.contains("502 from nginx"), "{said}");
    by_ingress(&namespace, "first", &json!({}));
    exposed(&namespace, "first", "True/Proven");

    let said = exposed(&namespace, "second", "False/HostTaken");
    assert!(said.contains(&format!("{}/first", namespace.name)), "{said}");
    namespace.delete("registry", "first");
    exposed(&namespace, "second", "True/Proven");
}

#[test]
#[ignore = "needs cluster"]
fn images_go_in_by_a_port_of_a_node_and_by_a_load_balancer() {
    let namespace = Namespace::new("services");
    namespace.registry("team", "{expose: {service: {type: NodePort}}}");
    exposed(&namespace, "team", "True/Proven");
    let login = Login::new(&namespace, "team");
    let push = |address: &str, port: &Value, image: &str| {
        // By the name in the certificate, which is made to lead there.
        let outside = Outside::new(&login.path("ca.crt"), &[(&login.address, address)]);
        let target = format!("{}:{port}", login.address);
        outside.run(&format!(
            "skopeo login --username wharf --password '{}' {target}\nskopeo copy --quiet {} docker://{target}/{image}\n",
            password(&namespace, "team"),
            archive(),
        ));
        login.digest(image).unwrap();
    };
    let service = namespace.get("service", "team-external").unwrap();
    push(edge::OTHER_ADDRESS, &service["spec"]["ports"][0]["nodePort"], "app:1");

    namespace.registry("team", "{expose: {service: {type: LoadBalancer}}}");
    let said = exposed(&namespace, "team", "False/AddressPending");
    assert!(said.contains("team-external"), "{said}");
    // As a controller of load balancers does.
    let address = "10.99.0.240";
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": address}]}}}).to_string();
    let object = ["patch", "service", "team-external", "-n", &namespace.name, "--subresource=status"];
    kubectl(&[&object[..], &["--type=merge", "-p", &status]].concat());
    exposed(&namespace, "team", "True/Proven");
    push(address, &json!(443), "app:2");
    namespace.registry("team", "{}");
    eventually("the way in is gone", || namespace.get("service", "team-external").is_none().then_some(()));
}
