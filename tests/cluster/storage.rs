//! Where images are kept: in a claim that grows, in one that is given, in a bucket; and volumes that are full or stranded.

use serde_json::{Value, json};

use crate::support::{Login, Namespace, apply, attempt, condition, eventually, get, kubectl, leader, on_node, run};
use crate::turn::{Alone, wharf_is_whole};
use crate::volumes::{HandMade, push_random};

fn size_of(claim: &Value) -> &str {
    claim.pointer("/spec/resources/requests/storage").and_then(Value::as_str).unwrap()
}

/// Stands in for the resizer of a storage system, which writes exactly this.
fn patch_status(namespace: &Namespace, claim: &str, status: &Value) {
    let patch = json!({ "status": status }).to_string();
    kubectl(&["patch", "pvc", claim, "-n", &namespace.name, "--subresource=status", "--type=merge", "-p", &patch]);
}

fn set_size(namespace: &Namespace, size: &str) {
    namespace
        .registry("team", &format!("{{storage: {{claim: {{size: {size}, storageClassName: wharf-test-growing}}}}}}"));
}

#[test]
#[ignore = "needs cluster"]
fn a_claim_of_a_csi_class_is_for_one_pod_and_grows_as_far_as_the_storage_does() {
    let driver = "csi.wharf.test";
    apply(&format!(
        "apiVersion: storage.k8s.io/v1\nkind: CSIDriver\nmetadata: {{name: {driver}}}\nspec: {{attachRequired: false}}\n"
    ));
    let namespace = Namespace::new("growing");
    let _made = HandMade::new(
        "growing",
        "1Gi",
        &json!({"provisioner": driver, "allowVolumeExpansion": true}),
        "ReadWriteOncePod",
    )
    .in_memory(64);
    set_size(&namespace, "1Gi");
    namespace.wait_for("team", "Ready", "True/Ready");
    kubectl(&["delete", "csidriver", driver]);
    let claim = namespace.get("pvc", "team-registry").unwrap();
    assert_eq!(claim["spec"]["accessModes"], json!(["ReadWriteOncePod"]));
    let registry = namespace.get("registry", "team").unwrap();
    assert_eq!(registry["status"]["storage"]["capacity"], "1Gi");

    set_size(&namespace, "3Gi");
    let registry = namespace.wait_for("team", "StorageReady", "True/Expanding");
    assert_eq!(
        condition(&registry, "Ready").as_deref(),
        Some("True/Ready"),
        "a registry goes on while its volume grows"
    );
    assert_eq!(size_of(&namespace.get("pvc", "team-registry").unwrap()), "3Gi");

    patch_status(
        &namespace,
        "team-registry",
        &json!({"allocatedResourceStatuses": {"storage": "ControllerResizeInfeasible"}}),
    );
    let registry = namespace.wait_for("team", "StorageReady", "False/ExpansionFailed");
    assert_eq!(condition(&registry, "Available").as_deref(), Some("True/PodReady"), "what runs goes on");
    // Less than asked for, and more than there is: Kubernetes takes the request back.
    set_size(&namespace, "2Gi");
    eventually("the claim asks for less", || (size_of(&namespace.get("pvc", "team-registry")?) == "2Gi").then_some(()));
    // Back to what there is: nothing is wanted any more, whatever Kubernetes still tries.
    set_size(&namespace, "1Gi");
    namespace.wait_for("team", "StorageReady", "True/Bound");
    namespace.wait_for("team", "Ready", "True/Ready");

    set_size(&namespace, "2Gi");
    kubectl(&["patch", "pv", "wharf-test-growing", "--type=merge", "-p", r#"{"spec":{"capacity":{"storage":"2Gi"}}}"#]);
    patch_status(
        &namespace,
        "team-registry",
        &json!({"capacity": {"storage": "2Gi"}, "allocatedResourceStatuses": null}),
    );
    let registry = namespace.wait_for("team", "StorageReady", "True/Bound");
    assert_eq!(registry["status"]["storage"]["capacity"], "2Gi");
    let refused = attempt(
        "kubectl",
        &[
            "patch",
            "registry",
            "team",
            "-n",
            &namespace.name,
            "--type=merge",
            "-p",
            r#"{"spec":{"storage":{"claim":{"size":"1Gi"}}}}"#,
        ],
        "",
    );
    assert!(refused.unwrap_err().contains("cannot shrink"));
}

#[test]
#[ignore = "needs cluster"]
fn a_volume_that_cannot_grow_is_named_and_serves_on() {
    let namespace = Namespace::new("fixed");
    namespace.registry("team", "{storage: {claim: {size: 1Gi}}}");
    namespace.wait_for("team", "Ready", "True/Ready");
    namespace.registry("team", "{storage: {claim: {size: 2Gi}}}");
    let registry = namespace.wait_for("team", "StorageReady", "False/ExpansionUnsupported");
    assert_eq!(condition(&registry, "Stalled").as_deref(), Some("True/ExpansionUnsupported"));
    assert_eq!(condition(&registry, "Available").as_deref(), Some("True/PodReady"));
    assert_eq!(size_of(&namespace.get("pvc", "team-registry").unwrap()), "1Gi");
    namespace.registry("team", "{storage: {claim: {size: 1Gi}}}");
    namespace.wait_for("team", "Ready", "True/Ready");
}

#[test]
#[ignore = "needs cluster"]
fn a_claim_that_is_given_is_used_alone_and_never_changed() {
    let namespace = Namespace::new("given");
    namespace.registry("team", "{storage: {existingClaimName: mine}}");
    namespace.wait_for("team", "StorageReady", "False/ClaimMissing");
    apply(&format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: mine, namespace: {0}}}\nspec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}\n\
         ---\napiVersion: v1\nkind: Pod\nmetadata: {{name: user, namespace: {0}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  - name: main\n    \
         image: wharf.test/busybox:1\n    command: [sleep, \"3600\"]\n    volumeMounts: [{{name: data, mountPath: /data}}]\n  volumes: [{{name: data, persistentVolumeClaim: {{claimName: mine}}}}]\n",
        namespace.name
    ));
    namespace.wait_for("team", "StorageReady", "False/ClaimInUse");
    namespace.delete("pod", "user");
    namespace.wait_for("team", "Ready", "True/Ready");
    let login = Login::new(&namespace, "team");
    login.push("app:1");
    // Another Registry must not write to the same claim.
    namespace.registry("second", "{storage: {existingClaimName: mine}}");
    let second = namespace.wait_for("second", "StorageReady", "False/StorageTaken");
    assert!(second.to_string().contains("/team keeps its images"), "{second}");
    namespace.delete("registry", "team");
    let claim = namespace.get("pvc", "mine").unwrap();
    assert!(claim["metadata"]["labels"].is_null() && claim["metadata"]["deletionTimestamp"].is_null(), "{claim}");
    // The place is free now: the second finds the images of the first.
    namespace.wait_for("second", "Ready", "True/Ready");
    Login::new(&namespace, "second").digest("app:1").unwrap();
}

#[test]
#[ignore = "needs cluster"]
fn a_full_volume_is_told_pulls_go_on_and_it_heals() {
    let namespace = Namespace::new("full");
    let made = HandMade::new("small", "1Gi", &json!({}), "ReadWriteOnce").in_memory(64);
    namespace.registry("team", "{storage: {claim: {size: 1Gi, storageClassName: wharf-test-small}}}");
    namespace.wait_for("team", "Ready", "True/Ready");
    let login = Login::new(&namespace, "team");
    login.push("app:1");
    push_random(&login, "big:1", 54).unwrap();
    let registry = namespace.wait_for("team", "StorageReady", "True/NearlyFull");
    assert_eq!(condition(&registry, "Ready").as_deref(), Some("True/Ready"), "a nearly full volume still serves");
    assert!(registry["status"]["storage"]["usedPercent"].as_i64().unwrap() >= 85, "{registry}");

    push_random(&login, "big:2", 20).expect_err("there is no room");
    namespace.wait_for("team", "StorageReady", "False/Full");
    namespace.pod("puller", &login.reference("app:1"), "node2");
    login.crane(&["export", &login.reference("big:1"), "/dev/null"]).unwrap();

    on_node(1, &["sh", "-c", &format!("mount -o remount,size=256m {}", made.folder())]);
    namespace.wait_for("team", "Ready", "True/Ready");
    namespace.wait_for("team", "StorageReady", "True/Bound");
    push_random(&login, "big:2", 20).unwrap();
}

/// An object store in a pod, with a certificate of an authority of its own.
fn object_store(namespace: &Namespace) {
    let folder = tempfile::tempdir().unwrap();
    let (name, path) = (&namespace.name, folder.path().display().to_string());
    run(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=store",
            "-addext",
            &format!("subjectAltName=DNS:store.{name}.svc"),
            "-keyout",
            &format!("{path}/tls.key"),
            "-out",
            &format!("{path}/tls.crt"),
        ],
    );
    std::fs::write(
        folder.path().join("credentials"),
        "[default]\naws_access_key_id = wharf\naws_secret_access_key = not-a-secret\n",
    )
    .unwrap();
    let make = |arguments: &[&str]| kubectl(&[&["create", "-n", name.as_str()], arguments].concat());
    make(&["secret", "tls", "store-tls", &format!("--cert={path}/tls.crt"), &format!("--key={path}/tls.key")]);
    make(&["secret", "generic", "store", &format!("--from-file={path}/credentials")]);
    make(&["configmap", "store-authority", &format!("--from-file=ca.crt={path}/tls.crt")]);
    apply(
        &json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "store", "namespace": name, "labels": {"app": "store"}},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "initContainers": [{
                    "name": "bucket", "image": "wharf.test/busybox:1",
                    "command": ["mkdir", "-p", "/data/objects/images", "/data/facts"],
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                }],
                "containers": [{
                    "name": "store", "image": "wharf.test/versitygw:1",
                    "args": ["--access", "wharf", "--secret", "not-a-secret", "--port", ":7070", "--quiet",
                        "--cert", "/tls/tls.crt", "--key", "/tls/tls.key", "posix", "--sidecar", "/data/facts", "/data/objects"],
                    "readinessProbe": {"tcpSocket": {"port": 7070}, "periodSeconds": 1},
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "tls", "mountPath": "/tls"}],
                }],
                "volumes": [{"name": "data", "emptyDir": {}}, {"name": "tls", "secret": {"secretName": "store-tls"}}],
            },
        })
        .to_string(),
    );
    apply(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: store, namespace: {name}}}\nspec: {{selector: {{app: store}}, ports: [{{port: 7070}}]}}\n"
    ));
}

#[test]
#[ignore = "needs cluster"]
fn two_pods_serve_from_a_bucket_and_a_rollout_has_no_gap() {
    let namespace = Namespace::new("bucket");
    object_store(&namespace);
    let storage = |bucket: &str| {
        format!(
            "{{engine: Distribution, replicas: 2, storage: {{s3: {{bucket: {bucket}, prefix: team/, endpoint: 'https://store.{}.svc:7070', \
             credentialsSecretRef: {{name: store}}, caConfigMapRef: {{name: store-authority}}}}}}}}",
            namespace.name
        )
    };
    namespace.registry("team", &storage("images"));
    let registry = namespace.wait_for("team", "Ready", "True/Ready");
    assert_eq!(condition(&registry, "StorageReady").as_deref(), Some("True/ObjectStore"));
    assert!(namespace.get("pvc", "team-registry").is_none());
    namespace.wait_for("team", "NodesConfigured", "True/AllNodes");
    eventually("both pods answer", || {
        let deployment = namespace.get("deployment", "team-registry")?;
        (deployment.pointer("/status/availableReplicas")? == 2).then_some(())
    });
    let budget = namespace.get("pdb", "team-registry").unwrap();
    assert_eq!(budget["spec"]["maxUnavailable"], 1);

    let login = Login::new(&namespace, "team");
    login.push("app:1");
    push_random(&login, "big:1", 20).unwrap();
    for node in ["node1", "node2"] {
        namespace.pod(node, &login.reference("app:1"), node);
    }
    kubectl(&["rollout", "restart", "deployment/team-registry", "-n", &namespace.name]);
    let mut asked = 0;
    eventually("the rollout is over", || {
        login
            .digest("app:1")
            .unwrap_or_else(|said| panic!("no answer during a rollout, after {asked} answers:\n{said}"));
        asked += 1;
        let deployment = namespace.get("deployment", "team-registry")?;
        let status = &deployment["status"];
        (status["updatedReplicas"] == 2 && status["replicas"] == 2 && status["availableReplicas"] == 2).then_some(())
    });
    assert!(asked > 3, "{asked}");
    push_random(&login, "big:2", 20).unwrap();
    // The bucket belongs to the first that asked for it.
    namespace.registry("second", &storage("images"));
    namespace.wait_for("second", "StorageReady", "False/StorageTaken");
    // One pod needs no budget.
    namespace.registry("team", &storage("images").replace("replicas: 2", "replicas: 1"));
    eventually("the budget is gone", || namespace.get("pdb", "team-registry").is_none().then_some(()));
    namespace.wait_for("team", "Ready", "True/Ready");
}

/// A node without power, which comes back however the test ends.
struct PowerCut(&'static str);

impl PowerCut {
    fn of(node: &'static str) -> Self {
        run("dev/cluster/kill", &[node]);
        Self(node)
    }
}

impl Drop for PowerCut {
    fn drop(&mut self) {
        let _ = attempt("dev/cluster/start", &[self.0], "");
    }
}

/// A node that gets no new pods, until the end of this.
struct Cordon(&'static str);

impl Cordon {
    fn of(node: &'static str) -> Self {
        kubectl(&["cordon", node]);
        Self(node)
    }
}

impl Drop for Cordon {
    fn drop(&mut self) {
        let _ = attempt("kubectl", &["uncordon", self.0], "");
    }
}

/// Makes the operator run on another node, and lead.
fn move_operator_off(node: &'static str) {
    let _cordon = Cordon::of(node);
    let pod = leader();
    if get(&["pod", &pod, "-n", "wharf-system"]).is_some_and(|pod| pod["spec"]["nodeName"] == node) {
        kubectl(&["delete", "pod", &pod, "-n", "wharf-system", "--wait=true", "--timeout=120s"]);
        wharf_is_whole();
    }
}

#[test]
#[ignore = "needs cluster"]
fn a_volume_on_a_node_that_does_not_answer_is_explained() {
    let _alone = Alone::new();
    move_operator_off("node2");
    let namespace = Namespace::new("stranded");
    namespace.registry("team", "{podTemplate: {nodeSelector: {kubernetes.io/hostname: node2}}}");
    namespace.wait_for("team", "Ready", "True/Ready");
    let power = PowerCut::of("node2");
    let registry = namespace.wait_for("team", "Available", "False/AttachedElsewhere");
    let message =
        registry["status"]["conditions"].as_array().unwrap().iter().find(|found| found["type"] == "Available").unwrap()
            ["message"]
            .as_str()
            .unwrap()
            .to_owned();
    assert!(message.contains("kubectl taint nodes node2 node.kubernetes.io/out-of-service"), "{message}");
    drop(power);
    namespace.wait_for("team", "Ready", "True/Ready");
    eventually("node 2 is ready again", || {
        let node = get(&["node", "node2"])?;
        let conditions = node["status"]["conditions"].as_array()?.clone();
        conditions.iter().any(|found| found["type"] == "Ready" && found["status"] == "True").then_some(())
    });
    namespace.wait_for("team", "NodesConfigured", "True/AllNodes");
}
