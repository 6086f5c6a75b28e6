//! Which container runtime the node has, and where that runtime reads its registry hosts.
//! Nothing here writes to the node.

pub mod configuration;
mod containerd;

use crate::api::reason;
use configuration::{Configuration, Unreadable};

/// The folder of the node that the agent sees. What lies elsewhere cannot be written.
pub const ROOT: &str = "/etc/containerd";

/// A folder on the node, below [`ROOT`], that holds one folder a registry host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigPath(String);

impl ConfigPath {
    /// A path in its shortest form, if it is [`ROOT`] or lies below it.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let rest = path.strip_prefix(ROOT)?;
        if !rest.is_empty() && !rest.starts_with('/') {
            return None;
        }
        let parts: Vec<&str> = rest.split('/').filter(|part| !part.is_empty()).collect();
        if parts.iter().any(|part| matches!(*part, "." | "..")) {
            return None;
        }
        Some(Self(std::iter::once(ROOT).chain(parts).collect::<Vec<_>>().join("/")))
    }

    /// The path as the node sees it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names of the folders from [`ROOT`] down to this one.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.0.get(ROOT.len()..).unwrap_or_default().split('/').filter(|part| !part.is_empty())
    }
}

/// Why a node's runtime cannot be configured. It is a condition of the node, not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unable {
    /// The documented reason.
    pub reason: &'static str,
    /// What was found and what to do.
    pub message: String,
}

impl Unable {
    /// A reason with its message.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// The folders into which entries are written, for a runtime as the kubelet reports it (`containerd://2.3.4`) and the
/// runtime's configuration. The first is the one to show; there is a second one where containerd misreads a list.
///
/// # Errors
/// When entries would have no effect, with what to do about it.
pub fn detect(runtime: &str, configuration: &Result<Configuration, Unreadable>) -> Result<Vec<ConfigPath>, Unable> {
    let unsupported = |message: String| Err(Unable::new(reason::UNSUPPORTED, message));
    let Some((name, version)) = runtime.split_once("://") else {
        return unsupported(format!(
            "the kubelet reports the container runtime {runtime:?}, which Wharf does not know"
        ));
    };
    if name != "containerd" {
        return unsupported(format!("the container runtime is {name}; Wharf configures containerd only"));
    }
    for (mark, advice) in [
        ("k3s", "configure the registry in /etc/rancher/k3s/registries.yaml and restart k3s"),
        ("rke2", "configure the registry in /etc/rancher/rke2/registries.yaml and restart RKE2"),
        ("bottlerocket", "configure the registry by settings.container-registry"),
    ] {
        if version.contains(mark) {
            return unsupported(format!("containerd {version} does not read {ROOT}: {advice}"));
        }
    }
    match (containerd::Version::parse(version), configuration) {
        (None, _) => unsupported(format!("the version of containerd, {version:?}, is not understood")),
        (Some(version), _) if version < containerd::OLDEST => unsupported(format!(
            "containerd {version} is older than {}, the oldest that is supported",
            containerd::OLDEST
        )),
        (Some(_), Err(unreadable)) => Err(Unable::new(reason::CONFIGURATION_UNREADABLE, unreadable.to_string())),
        (Some(version), Ok(configuration)) => containerd::config_paths(version, configuration),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_path_lies_below_the_root_in_its_shortest_form() {
        for (path, clean, levels) in [
            ("/etc/containerd/certs.d", Some("/etc/containerd/certs.d"), 1),
            ("/etc/containerd//certs.d/", Some("/etc/containerd/certs.d"), 1),
            ("/etc/containerd/a/b", Some("/etc/containerd/a/b"), 2),
            ("/etc/containerd", Some("/etc/containerd"), 0),
            ("/etc/containerd-other/certs.d", None, 0),
            ("/etc/containerd/../shadow", None, 0),
            ("/etc/docker/certs.d", None, 0),
            ("etc/containerd/certs.d", None, 0),
            ("", None, 0),
        ] {
            let parsed = ConfigPath::parse(path);
            assert_eq!(parsed.as_ref().map(ConfigPath::as_str), clean, "{path}");
            assert_eq!(parsed.map_or(0, |path| path.levels().count()), levels, "{path}");
        }
    }

    #[test]
    fn runtimes_that_are_not_supported_say_so() {
        let none = Ok(Configuration::default());
        for (runtime, part) in [
            ("cri-o://1.31.0", "cri-o"),
            ("docker://27.0.1", "docker"),
            ("", "does not know"),
            ("containerd://2.1.4-k3s1", "registries.yaml"),
            ("containerd://1.7.27+bottlerocket", "settings.container-registry"),
            ("containerd://Unknown", "not understood"),
            ("containerd://1.5.18", "older than 1.6"),
        ] {
            let unable = detect(runtime, &none).unwrap_err();
            assert_eq!(unable.reason, reason::UNSUPPORTED, "{runtime}");
            assert!(unable.message.contains(part), "{runtime}: {}", unable.message);
        }
    }

    #[test]
    fn an_unreadable_configuration_is_a_reason_of_its_own() {
        let unreadable = Unreadable { path: "/etc/containerd/config.toml".into(), why: "permission denied".into() };
        let unable = detect("containerd://2.3.4", &Err(unreadable)).unwrap_err();
        assert_eq!(unable.reason, reason::CONFIGURATION_UNREADABLE);
        assert_eq!(unable.message, "/etc/containerd/config.toml cannot be used: permission denied");
    }
}
