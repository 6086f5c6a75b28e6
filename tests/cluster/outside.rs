//! A client beyond the cluster: it reaches the nodes and not the cluster's names, and trusts one authority only. It must never
//! change a file of the host.

use std::fmt::Write as _;
use std::path::Path;

use crate::support::{Outcome, checkout, client};

/// A folder of the client's, where scripts run.
pub struct Outside {
    folder: tempfile::TempDir,
}

impl Outside {
    /// A client that trusts the certificates of a file and knows some names and where they lead.
    pub fn new(authority: &str, names: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut hosts = "127.0.0.1 localhost\n".to_owned();
        for (name, address) in names {
            writeln!(hosts, "{address} {name}").unwrap();
        }
        std::fs::write(folder.path().join(".hosts"), hosts).unwrap();
        std::fs::copy(authority, folder.path().join(".authorities")).unwrap();
        // The one of the host leads to an address of the host.
        let kubeconfig = std::fs::read_to_string(checkout().join("target/cluster/kubeconfig")).unwrap();
        let inner = |line: &str| match line.split_once("server: ") {
            Some((indentation, _)) => format!("{indentation}server: https://10.99.0.1:6443\n"),
            None => format!("{line}\n"),
        };
        let kubeconfig: String = kubeconfig.lines().map(inner).collect();
        std::fs::write(folder.path().join(".kubeconfig"), kubeconfig).unwrap();
        Self { folder }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a script in the folder.
    pub fn attempt(&self, script: &str) -> Outcome {
        let settings = "cd \"$1\"\nmount -n --bind .hosts /etc/hosts\n\
                        export SSL_CERT_FILE=$1/.authorities DOCKER_CONFIG=$1 REGISTRY_AUTH_FILE=$1/config.json KUBECONFIG=$1/.kubeconfig\n";
        let folder = self.folder.path().display().to_string();
        client(&["bash", "-euo", "pipefail", "-c", &format!("{settings}{script}"), "outside", &folder])
    }

    /// Runs a script that must succeed.
    pub fn run(&self, script: &str) -> String {
        self.attempt(script).unwrap_or_else(|said| panic!("{script}\nended so:\n{said}"))
    }
}
