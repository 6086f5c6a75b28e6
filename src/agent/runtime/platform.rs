//! Nodes whose registries are set by their platform's own configuration, which Wharf leaves to the platform. Pure: it finds
//! out which platform it is, and says what to write there.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::agent::local::{Local, LocalEndpoint};
use crate::plan::Plan;

/// How many hosts are written out.
const SHOWN: usize = 10;

/// A platform that has a configuration of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    /// k3s.
    K3s,
    /// RKE2.
    Rke2,
    /// Bottlerocket.
    Bottlerocket,
    /// Talos.
    Talos,
}

impl Platform {
    /// The platform by the version of containerd and the name of the operating system, as the kubelet reports them.
    #[must_use]
    pub fn of(containerd_version: &str, os_image: &str) -> Option<Self> {
        let os_image = os_image.to_lowercase();
        let has = |mark: &str| containerd_version.contains(mark) || os_image.starts_with(mark);
        [("k3s", Self::K3s), ("rke2", Self::Rke2), ("bottlerocket", Self::Bottlerocket), ("talos", Self::Talos)]
            .into_iter()
            .find_map(|(mark, platform)| has(mark).then_some(platform))
    }

    /// What was found, and what to write for the hosts of the plan.
    #[must_use]
    pub fn advice(self, plan: &Plan, local: &Local) -> String {
        let (name, place) = match self {
            Self::K3s => ("k3s", "/etc/rancher/k3s/registries.yaml, and restart k3s"),
            Self::Rke2 => ("RKE2", "/etc/rancher/rke2/registries.yaml, and restart RKE2"),
            Self::Bottlerocket => {
                ("Bottlerocket", "the settings (settings.container-registry), by apiclient or user data")
            }
            Self::Talos => ("Talos", "the machine configuration, by talosctl patch machineconfig"),
        };
        let found = format!("{name} sets its registries by its own configuration, and Wharf leaves that alone.");
        let hosts: Vec<&str> = plan.hosts.keys().map(String::as_str).take(SHOWN).collect();
        let endpoint = match local.endpoint() {
            Some(endpoint) if !hosts.is_empty() => endpoint,
            Some(_) => return found,
            None => return format!("{found} {}", local.finding().1),
        };
        let more = match plan.hosts.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!("\nand {more} more hosts in the same way"),
        };
        format!("{found} Write into {place}:\n{}{more}", self.snippet(&hosts, endpoint))
    }

    fn snippet(self, hosts: &[&str], endpoint: &LocalEndpoint) -> String {
        let LocalEndpoint { url, certificate } = endpoint;
        let address = endpoint.address();
        let encoded = certificate.as_ref().map(|certificate| STANDARD.encode(certificate));
        let list = |before: &str, each: &dyn Fn(&str) -> String| {
            hosts.iter().fold(before.to_owned(), |text, host| text + &each(host))
        };
        match self {
            Self::K3s | Self::Rke2 => {
                let text = list("mirrors:\n", &|host| format!("  \"{host}\":\n    endpoint: [\"{url}\"]\n"));
                let tls = format!("configs:\n  \"{address}\":\n    tls:\n      ca_file: {}\n", super::NODE_CERTIFICATE);
                if certificate.is_some() { text + &tls } else { text }
            }
            Self::Talos => {
                let text = list("machine:\n  registries:\n    mirrors:\n", &|host| {
                    format!("      \"{host}\":\n        endpoints: [\"{url}\"]\n")
                });
                let tls =
                    encoded.map(|ca| format!("    config:\n      \"{address}\":\n        tls:\n          ca: {ca}\n"));
                text + &tls.unwrap_or_default()
            }
            Self::Bottlerocket => {
                let mut text = list("", &|host| {
                    format!("[[settings.container-registry.mirrors]]\nregistry = \"{host}\"\nendpoint = [\"{url}\"]\n")
                });
                if let Some(data) = encoded {
                    // Writing to a String cannot fail.
                    let _ = write!(text, "[settings.pki.wharf]\ndata = \"{data}\"\ntrusted = true\n");
                }
                text
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Entry, Owner, OwnerKind};

    fn plan(count: usize) -> Plan {
        let owner = Owner { kind: OwnerKind::Mirror, namespace: String::new(), name: "m".into(), uid: "u".into() };
        let entry = Entry { backends: vec!["https://10.0.0.1".into()], owner, nodes: None, since: 1 };
        let hosts = (0..count).map(|number| (format!("r{number:02}.io"), entry.clone())).collect();
        Plan { hosts, ..Plan::default() }
    }

    fn serving() -> Local {
        Local::Serving(LocalEndpoint { url: "https://127.0.0.1:17443".into(), certificate: Some("PEM".into()) })
    }

    #[test]
    fn platforms_are_known_by_what_the_kubelet_reports() {
        for (version, os_image, platform) in [
            ("2.1.4-k3s1", "Ubuntu 24.04", Some(Platform::K3s)),
            ("2.1.4-rke2r1", "", Some(Platform::Rke2)),
            ("1.7.27+bottlerocket", "Bottlerocket OS 1.40.0 (aws-k8s-1.33)", Some(Platform::Bottlerocket)),
            ("2.1.4", "Talos (v1.11.0)", Some(Platform::Talos)),
            ("2.1.4", "Ubuntu 24.04", None),
        ] {
            assert_eq!(Platform::of(version, os_image), platform, "{version} {os_image}");
        }
    }

    #[test]
    fn the_snippet_names_each_host_and_pins_the_certificate() {
        for platform in [Platform::K3s, Platform::Rke2, Platform::Talos, Platform::Bottlerocket] {
            let text = platform.advice(&plan(2), &serving());
            for part in ["r00.io", "r01.io", "https://127.0.0.1:17443"] {
                assert!(text.contains(part), "{part} in {text}");
            }
            let pin = if matches!(platform, Platform::K3s | Platform::Rke2) {
                super::super::NODE_CERTIFICATE
            } else {
                "UEVN"
            };
            assert!(text.contains(pin), "{text}");
        }
        let bottlerocket = Platform::Bottlerocket.advice(&plan(1), &serving());
        let snippet = bottlerocket.split_once(":\n").unwrap().1;
        assert_eq!(
            snippet.parse::<toml::Table>().unwrap()["settings"]["container-registry"]["mirrors"][0]["registry"]
                .as_str(),
            Some("r00.io")
        );
    }

    #[test]
    fn many_hosts_are_counted_and_without_an_endpoint_there_is_nothing_to_write() {
        let text = Platform::K3s.advice(&plan(12), &serving());
        assert!(text.ends_with("and 2 more hosts in the same way") && !text.contains("r10.io"), "{text}");
        let text = Platform::Talos.advice(&plan(1), &Local::Disabled);
        assert!(text.contains("--local-port=0") && !text.contains("machine:"), "{text}");
    }
}
