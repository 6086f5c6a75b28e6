//! Volumes that a test makes by hand, and images that fill them.
//! It must never leave a class, a volume or a mount behind.

use serde_json::{Value, json};

use crate::support::{Login, apply, attempt, on_node, run};

/// A class without a provisioner, and a volume of it in a folder of node 1. Both go when the test ends.
pub struct HandMade {
    class: String,
    volume: String,
}

impl HandMade {
    pub fn new(name: &str, size: &str, class: &Value, access_mode: &str) -> Self {
        let made = Self { class: format!("wharf-test-{name}"), volume: format!("wharf-test-{name}") };
        made.remove();
        let mut object = json!({
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": made.class},
            "provisioner": "kubernetes.io/no-provisioner",
        });
        object.as_object_mut().unwrap().extend(class.as_object().unwrap().clone());
        apply(&object.to_string());
        on_node(1, &["sh", "-c", &format!("mkdir -p {0} && chmod 777 {0}", made.folder())]);
        apply(
            &json!({
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": made.volume},
                "spec": {
                    "capacity": {"storage": size},
                    "accessModes": [access_mode],
                    "storageClassName": made.class,
                    "persistentVolumeReclaimPolicy": "Retain",
                    "hostPath": {"path": made.folder()},
                    "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                        {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node1"]},
                    ]}]}},
                },
            })
            .to_string(),
        );
        made
    }

    /// In memory of this size, so that how full the volume is depends on the test alone and not on the node's disk. What is in
    /// it goes with the node.
    pub fn in_memory(self, mebibytes: u32) -> Self {
        let size = format!("size={mebibytes}m,mode=777");
        on_node(1, &["mount", "-t", "tmpfs", "-o", &size, "tmpfs", &self.folder()]);
        self
    }

    pub fn class(&self) -> &str {
        &self.class
    }

    pub fn folder(&self) -> String {
        format!("/var/lib/{}", self.volume)
    }

    fn remove(&self) {
        let _ = attempt("kubectl", &["delete", "storageclass", &self.class, "--ignore-not-found"], "");
        let _ = attempt("kubectl", &["delete", "pv", &self.volume, "--ignore-not-found", "--wait=false"], "");
        let _ = attempt("dev/cluster/node", &["1", "sh", "-c", &format!("umount {0}; rm -rf {0}", self.folder())], "");
    }
}

impl Drop for HandMade {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Files of random content in an image, which no layer of another has.
pub fn push_random(login: &Login, image: &str, mebibytes: u32) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let layer = folder.path().join("layer.tar").display().to_string();
    let script = format!(
        "cd {0} && head -c {mebibytes}M /dev/urandom >content && tar -cf layer.tar content",
        folder.path().display()
    );
    run("sh", &["-c", &script]);
    login.crane(&["append", "--new_layer", &layer, "--new_tag", &login.reference(image)])
}
