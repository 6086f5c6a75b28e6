//! The part of a pass that changes the node's files: which runtime there is, and what becomes of the plan with it.

use tokio_util::sync::CancellationToken;

use super::files::containers::{self, Containers};
use super::files::disk::Disk;
use super::files::{self, At, Outcome};
use super::local::Local;
use super::metrics::Metrics;
use super::runtime::containers::{REGISTRIES_FOLDER, ROOT};
use super::runtime::{self, NodeInfo, Runtime, Unable, configuration};
use crate::api::node_runtime::HostException;
use crate::api::reason;
use crate::plan::{Entry, OwnerKind, Plan};

/// What a person must know of CRI-O.
const CRI_O_HINT: &str = "CRI-O reads them when it is told to (`systemctl reload crio`), or by itself with `auto_reload_registries = \
                          true` in the table `[crio.image]` of its configuration";

/// The folders of the node that the agent sees. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Disks {
    /// That of containerd.
    pub containerd: Disk,
    /// That of podman and CRI-O, where it is enabled.
    pub containers: Option<Disk>,
}

/// All that the files follow from.
pub struct Work {
    /// Where they are.
    pub disks: Disks,
    /// What the node is.
    pub info: NodeInfo,
    /// The plan as it concerns this node.
    pub plan: Plan,
    /// The node's own endpoint.
    pub local: Local,
    /// What counts the changes.
    pub metrics: Metrics,
}

/// What was done on the disk, if anything could be.
pub type Done = Result<Files, (Option<String>, Unable)>;

/// What became of the files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Files {
    /// The folder of entries to show, as the node sees it.
    pub config_path: String,
    /// What became of the hosts.
    pub outcome: Outcome,
    /// What a person must know of this runtime.
    pub hint: Option<&'static str>,
}

impl Work {
    /// Makes the files follow the plan. When `stop` is cancelled it ends between two hosts, and what comes of it is worthless.
    pub fn carry_out(&self, stop: &CancellationToken) -> Done {
        let found = runtime::detect(&self.info, &configuration::read(self.disks.containerd.root()));
        match found.map_err(|unable| (None, unable))? {
            Runtime::Containerd(paths) => self.containerd(&paths, stop),
            Runtime::CriO => self.cri_o(stop),
            Runtime::Platform(platform) => {
                Err((None, Unable::new(reason::UNSUPPORTED, platform.advice(&self.plan, &self.local))))
            }
        }
    }

    fn containerd(&self, paths: &[runtime::ConfigPath], stop: &CancellationToken) -> Done {
        let Some(shown) = paths.first().map(|path| path.as_str().to_owned()) else {
            return Err((None, Unable::new(reason::CONFIG_PATH_UNSET, "containerd reads no host files")));
        };
        let at = At { disk: &self.disks.containerd, paths, plan: &self.plan, local: &self.local };
        let outcome = match files::apply(at, stop, &|kind| self.metrics.operation(kind)) {
            Ok(outcome) => outcome,
            Err(unable) => return Err((Some(shown), unable)),
        };
        self.podman(stop);
        Ok(Files { config_path: shown, outcome, hint: None })
    }

    /// On a node of containerd nobody but people uses podman: what is wrong with its files is logged, and no host's matter.
    fn podman(&self, stop: &CancellationToken) {
        match self.containers(false, stop) {
            None => {}
            Some(Ok(outcome)) => {
                for exception in outcome.exceptions {
                    tracing::info!(
                        host = exception.host,
                        why = exception.message,
                        "podman does not pull through the Mirror"
                    );
                }
            }
            Some(Err(unable)) => tracing::warn!(why = unable.message, "podman's files stay as they are"),
        }
    }

    fn containers(&self, required: bool, stop: &CancellationToken) -> Option<Result<Outcome, Unable>> {
        let disk = self.disks.containers.as_ref()?;
        let wanted = Containers { disk, plan: &self.plan, local: &self.local, required };
        Some(containers::apply(wanted, stop, &|kind| self.metrics.operation(kind)))
    }

    fn cri_o(&self, stop: &CancellationToken) -> Done {
        let shown = format!("{ROOT}/{REGISTRIES_FOLDER}");
        let Some(outcome) = self.containers(true, stop) else {
            let message = format!(
                "the container runtime is CRI-O, whose registries are set in {ROOT}, which the agent does not see: give the agent \
                 --containers-root (chart value agent.containers.enabled)"
            );
            return Err((None, Unable::new(reason::UNSUPPORTED, message)));
        };
        let mut outcome = outcome.map_err(|unable| (Some(shown.clone()), unable))?;
        let registries = self.plan.hosts.iter().filter(|(_, entry)| entry.owner.kind == OwnerKind::Registry);
        outcome.exceptions.extend(registries.map(|(host, entry)| not_for_cri_o(host, entry)));
        outcome.exceptions.sort_by(|one, other| one.host.cmp(&other.host));
        Ok(Files { config_path: shown, outcome, hint: Some(CRI_O_HINT) })
    }
}

/// CRI-O drops credentials for a host that is rewritten, so that a Registry cannot be reached by way of the endpoint.
fn not_for_cri_o(host: &str, entry: &Entry) -> HostException {
    let backend = entry.backends.first().map(String::as_str).unwrap_or_default();
    let address = backend.split_once("://").map_or(backend, |(_, address)| address).trim_matches(['[', ']']);
    let message = format!(
        "{host} is a Registry's, and CRI-O drops credentials for hosts that are rewritten. Write into /etc/hosts:\n\
         {address} {host}\nand put the authority's certificates into {ROOT}/certs.d/{host}/ca.crt:\n\
         kubectl get configmap wharf-node-plan -n wharf-nodes -o jsonpath='{{.data.index\\.json}}' | jq -r .authority"
    );
    HostException { host: host.to_owned(), reason: reason::UNSUPPORTED.to_owned(), message }
}
