//! Which container runtime the node has, and where that runtime reads its registry hosts.
//! Nothing here writes to the node.

pub mod configuration;
mod containerd;
pub mod containers;
mod platform;

use crate::api::reason;
use configuration::{Configuration, Unreadable};
pub use platform::Platform;

/// The folder of the node that the agent sees. What lies elsewhere cannot be written.
pub const ROOT: &str = "/etc/containerd";

/// Where the certificate of the node's own endpoint lies on the node. Readers of certificates pass over the key in it.
pub const NODE_CERTIFICATE: &str = "/var/lib/wharf/endpoint.pem";

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

/// What the kubelet reports of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeInfo {
    /// The container runtime and its version: `containerd://2.3.4`.
    pub runtime: String,
    /// The operating system: `Ubuntu 24.04.3 LTS`.
    pub os_image: String,
}

/// How a node's container runtime is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// By one folder a host in these folders. The first is the one to show; there is a second one where containerd misreads
    /// a list.
    Containerd(Vec<ConfigPath>),
    /// By the files of [`containers`].
    CriO,
    /// By the platform, in its own way.
    Platform(Platform),
}

/// How the runtime of a node is configured, by what the kubelet reports and containerd's configuration.
///
/// # Errors
/// When entries would have no effect, with what to do about it.
pub fn detect(info: &NodeInfo, configuration: &Result<Configuration, Unreadable>) -> Result<Runtime, Unable> {
    let unsupported = |message: String| Err(Unable::new(reason::UNSUPPORTED, message));
    let runtime = info.runtime.as_str();
    let Some((name, version)) = runtime.split_once("://") else {
        return unsupported(format!(
            "the kubelet reports the container runtime {runtime:?}, which Wharf does not know"
        ));
    };
    match name {
        "containerd" => {}
        "cri-o" => return Ok(Runtime::CriO),
        _ => return unsupported(format!("the container runtime is {name}; Wharf configures containerd and CRI-O")),
    }
    if let Some(platform) = Platform::of(version, &info.os_image) {
        return Ok(Runtime::Platform(platform));
    }
    match (containerd::Version::parse(version), configuration) {
        (None, _) => unsupported(format!("the version of containerd, {version:?}, is not understood")),
        (Some(version), _) if version < containerd::OLDEST => unsupported(format!(
            "containerd {version} is older than {}, the oldest that is supported",
            containerd::OLDEST
        )),
        (Some(_), Err(unreadable)) => Err(Unable::new(reason::CONFIGURATION_UNREADABLE, unreadable.to_string())),
        (Some(version), Ok(configuration)) => containerd::config_paths(version, configuration).map(Runtime::Containerd),
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

    fn info(runtime: &str) -> NodeInfo {
        NodeInfo { runtime: runtime.into(), ..NodeInfo::default() }
    }

    #[test]
    fn runtimes_that_are_not_supported_say_so() {
        let none = Ok(Configuration::default());
        for (runtime, part) in [
            ("docker://27.0.1", "docker"),
            ("", "does not know"),
            ("containerd://Unknown", "not understood"),
            ("containerd://1.5.18", "older than 1.6"),
        ] {
            let unable = detect(&info(runtime), &none).unwrap_err();
            assert_eq!(unable.reason, reason::UNSUPPORTED, "{runtime}");
            assert!(unable.message.contains(part), "{runtime}: {}", unable.message);
        }
    }

    #[test]
    fn runtimes_that_are_configured_in_their_own_way() {
        let none = Ok(Configuration::default());
        for (runtime, expected) in [
            ("cri-o://1.33.0", Runtime::CriO),
            ("containerd://2.1.4-k3s1", Runtime::Platform(Platform::K3s)),
            ("containerd://1.7.27+bottlerocket", Runtime::Platform(Platform::Bottlerocket)),
        ] {
            assert_eq!(detect(&info(runtime), &none), Ok(expected), "{runtime}");
        }
        let talos = NodeInfo { runtime: "containerd://2.1.4".into(), os_image: "Talos (v1.11.0)".into() };
        assert_eq!(detect(&talos, &none), Ok(Runtime::Platform(Platform::Talos)));
    }

    #[test]
    fn an_unreadable_configuration_is_a_reason_of_its_own() {
        let unreadable = Unreadable { path: "/etc/containerd/config.toml".into(), why: "permission denied".into() };
        let unable = detect(&info("containerd://2.3.4"), &Err(unreadable)).unwrap_err();
        assert_eq!(unable.reason, reason::CONFIGURATION_UNREADABLE);
        assert_eq!(unable.message, "/etc/containerd/config.toml cannot be used: permission denied");
    }
}
