//! Images go in and come out: pushes, pulls by kubelets, and what must not lose them.

use crate::support::{Login, Namespace, archive, attempt, eventually, kubectl, pod_manifest, run};
use serde_json::Value;

#[test]
#[ignore = "needs cluster"]
fn a_pod_on_each_node_runs_from_a_pushed_image() {
    let namespace = Namespace::new("images");
    namespace.ready_registry("team", "{}");
    let login = Login::new(&namespace, "team");
    login.push("app:1.0.0");
    // crane sees what skopeo pushed, and the other way round.
    let digest = login.digest("app:1.0.0").unwrap();
    assert_eq!(login.crane(&["digest", &login.reference("app:1.0.0")]).unwrap().trim(), digest);
    login.crane(&["copy", &login.reference("app:1.0.0"), &login.reference("deep/er/app:2")]).unwrap();
    assert_eq!(login.digest("deep/er/app:2").unwrap(), digest);
    // crane reads the older form of archives only.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.tar").display().to_string();
    run("skopeo", &["copy", "--quiet", &archive(), &format!("docker-archive:{path}:crane:1")]);
    login.crane(&["push", &path, &login.reference("crane:1")]).unwrap();
    for (node, image) in
        [("node1", "app:1.0.0"), ("node2", "app:1.0.0"), ("node2", "deep/er/app:2"), ("node1", "crane:1")]
    {
        let name = format!("{node}-{}", image.replace(['/', ':', '.'], "-"));
        namespace.pod(&name, &login.reference(image), node);
    }
}

#[test]
#[ignore = "needs cluster"]
fn nobody_pushes_or_pulls_without_a_credential() {
    let namespace = Namespace::new("anonymous");
    namespace.ready_registry("team", "{}");
    let login = Login::new(&namespace, "team");
    login.push("app:1");
    let url = format!("https://{}/v2/", login.address);
    let status = |arguments: &[&str]| {
        let all = [&["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}"], arguments].concat();
        crate::support::client(&all).unwrap()
    };
    assert_eq!(status(&[&url]), "401");
    assert_eq!(status(&[&format!("{url}app/manifests/1")]), "401");
    assert_eq!(status(&["-X", "POST", &format!("{url}app/blobs/uploads/")]), "401");
    // A pod of another namespace has no pull secret.
    let other = Namespace::new("anonymous-other");
    crate::support::apply(&pod_manifest(&other.name, "thief", &login.reference("app:1"), "node1"));
    eventually("the pull is refused", || {
        let pod = other.get("pod", "thief")?;
        let waiting = pod.pointer("/status/containerStatuses/0/state/waiting")?.clone();
        waiting["message"].as_str().unwrap_or_default().contains("authorization failed").then_some(())
    });
}

#[test]
#[ignore = "needs cluster"]
fn a_new_pod_of_the_registry_keeps_its_images() {
    let namespace = Namespace::new("restart");
    namespace.ready_registry("team", "{}");
    let login = Login::new(&namespace, "team");
    login.push("app:1");
    let before = login.digest("app:1").unwrap();
    let pods =
        || kubectl(&["get", "pods", "-n", &namespace.name, "-l", "app.kubernetes.io/name=registry", "-o", "name"]);
    let old = pods();
    kubectl(&["delete", "-n", &namespace.name, old.trim(), "--wait=true"]);
    eventually("another pod answers", || (pods() != old).then_some(()));
    namespace.wait_for("team", "Available", "True/PodReady");
    eventually("the image is back", || login.digest("app:1").ok().filter(|digest| *digest == before));
    namespace.pod("after", &login.reference("app:1"), "node2");
}

#[test]
#[ignore = "needs cluster"]
fn a_registry_made_again_keeps_its_images_and_its_authority() {
    let namespace = Namespace::new("retain");
    namespace.ready_registry("team", "{}");
    let login = Login::new(&namespace, "team");
    login.push("app:1");
    let before = login.digest("app:1").unwrap();
    let authority = |namespace: &Namespace| namespace.get("configmap", "team-ca").unwrap()["data"]["ca.crt"].clone();
    let authority_before = authority(&namespace);
    namespace.delete("registry", "team");
    eventually("the children are gone", || namespace.get("deployment", "team-registry").is_none().then_some(()));
    let claim = namespace.get("pvc", "team-registry").expect("the claim is kept");
    eventually("the nodes have forgotten it", || {
        let tree = crate::support::on_node(1, &["ls", "/etc/containerd/certs.d"]);
        (!tree.contains(&login.address)).then_some(())
    });

    namespace.ready_registry("team", "{}");
    let again = namespace.get("pvc", "team-registry").unwrap();
    assert_eq!(again["metadata"]["uid"], claim["metadata"]["uid"], "the claim was taken over, not made anew");
    assert_eq!(authority(&namespace), authority_before);
    let login = Login::new(&namespace, "team");
    assert_eq!(login.digest("app:1").unwrap(), before);
    namespace.pod("after", &login.reference("app:1"), "node2");
}

#[test]
#[ignore = "needs cluster"]
fn the_delete_policy_deletes_the_claim_and_only_then() {
    let namespace = Namespace::new("delete");
    namespace.ready_registry("team", "{storage: {deletionPolicy: Delete}}");
    let finalizers = || namespace.get("registry", "team").unwrap()["metadata"]["finalizers"].clone();
    assert_eq!(finalizers(), serde_json::json!(["wharf.dev/delete-storage"]));
    namespace.registry("team", "{storage: {deletionPolicy: Retain}}");
    eventually("the finalizer is gone", || finalizers().is_null().then_some(()));
    namespace.registry("team", "{storage: {deletionPolicy: Delete}}");
    eventually("the finalizer is back", || finalizers().is_array().then_some(()));
    namespace.delete("registry", "team");
    eventually("the claim is gone", || namespace.get("pvc", "team-registry").is_none().then_some(()));
}

#[test]
#[ignore = "needs cluster"]
fn a_suspended_registry_stops_and_comes_back_with_its_images() {
    let namespace = Namespace::new("suspend");
    namespace.ready_registry("team", "{}");
    let login = Login::new(&namespace, "team");
    login.push("app:1");
    namespace.registry("team", "{suspend: true}");
    namespace.wait_for("team", "Ready", "False/Suspended");
    eventually("its pod is gone", || {
        let pods = crate::support::get(&["pods", "-n", &namespace.name])?;
        pods["items"].as_array()?.is_empty().then_some(())
    });
    namespace.registry("team", "{suspend: false}");
    namespace.wait_for("team", "Ready", "True/Ready");
    eventually("the image is back", || login.digest("app:1").ok());
}

#[test]
#[ignore = "needs cluster"]
fn the_service_account_gets_the_pull_secret_and_loses_it_again() {
    let namespace = Namespace::new("attach");
    kubectl(&["create", "serviceaccount", "builder", "-n", &namespace.name]);
    let secrets = |account: &str| namespace.get("serviceaccount", account).unwrap()["imagePullSecrets"].clone();
    namespace.ready_registry("team", "{pullSecrets: {serviceAccounts: [default, builder]}}");
    let ours = serde_json::json!([{"name": "team-pull"}]);
    assert_eq!(secrets("default"), ours);
    assert_eq!(secrets("builder"), ours);
    namespace.registry("team", "{pullSecrets: {serviceAccounts: [builder]}}");
    eventually("default has lost it", || secrets("default").is_null().then_some(()));
    assert_eq!(secrets("builder"), ours);
    namespace.delete("registry", "team");
    eventually("builder has lost it", || secrets("builder").is_null().then_some(()));
    let labels: Value = namespace.get("serviceaccount", "builder").unwrap()["metadata"]["labels"].clone();
    assert!(labels.is_null(), "{labels}");
}

#[test]
#[ignore = "needs cluster"]
fn a_hand_edit_of_a_child_is_put_right() {
    let namespace = Namespace::new("edits");
    namespace.ready_registry("team", "{}");
    let patch = |kind: &str, name: &str, patch: &str| {
        kubectl(&["patch", kind, name, "-n", &namespace.name, "--type=merge", "-p", patch]);
    };
    patch("service", "team", r#"{"spec":{"ports":[{"name":"registry","port":444,"targetPort":5000}]}}"#);
    patch("configmap", "team-ca", r#"{"data":{"ca.crt":"nonsense"}}"#);
    patch("deployment", "team-registry", r#"{"spec":{"replicas":3}}"#);
    kubectl(&["delete", "secret", "team-pull", "-n", &namespace.name]);
    eventually("all is as it was", || {
        let port = namespace.get("service", "team")?["spec"]["ports"][0]["port"].clone();
        let authority = namespace.get("configmap", "team-ca")?["data"]["ca.crt"].clone();
        let replicas = namespace.get("deployment", "team-registry")?["spec"]["replicas"].clone();
        let good = port == 443 && replicas == 1 && authority.as_str()?.starts_with("-----BEGIN");
        (good && namespace.get("secret", "team-pull").is_some()).then_some(())
    });
    assert!(attempt("kubectl", &["get", "svc", "team", "-n", &namespace.name], "").is_ok());
}
