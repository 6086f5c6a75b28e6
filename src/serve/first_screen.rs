//! What somebody at a terminal reads when a server with mirrors starts: how clients are pointed at it. Pure.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::config::{Config, Mirror};

/// What is to be read about a server with this configuration.
#[must_use]
pub fn first_screen(config: &Config) -> String {
    let place = Place::of(config.listen, config.tls.is_some());
    let hosts: Vec<&str> = config.mirrors.iter().map(|mirror| mirror.host.as_str()).collect();
    let mut screen = format!(
        "\nWharf serves {} at {place}, and keeps up to {} of them under {}.\n",
        hosts.join(", "),
        config.cache.size,
        config.root.display()
    );
    let default = config.mirrors.iter().find(|mirror| mirror.default);
    for section in [
        default.filter(|mirror| mirror.host.as_str() == "docker.io").map(|_| docker(&place)),
        Some(containerd(&place, &config.mirrors)),
        Some(podman(&place, &config.mirrors)),
        Some(buildkit(&place, &config.mirrors)),
        config.mirrors.first().map(|mirror| by_name(&place, mirror)),
    ] {
        screen.push_str(section.as_deref().unwrap_or_default());
    }
    screen
}

/// Where clients on this machine find the server.
struct Place {
    address: SocketAddr,
    is_secure: bool,
}

impl Place {
    fn of(listen: SocketAddr, is_secure: bool) -> Self {
        let ip = if listen.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { listen.ip() };
        Self { address: SocketAddr::new(ip, listen.port()), is_secure }
    }

    fn url(&self) -> String {
        format!("{}://{}", if self.is_secure { "https" } else { "http" }, self.address)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.address)
    }
}

fn docker(place: &Place) -> String {
    format!(
        "
Docker, for docker.io alone: in /etc/docker/daemon.json, then `systemctl reload docker`
  {{ \"registry-mirrors\": [\"{}\"] }}
",
        place.url()
    )
}

fn containerd(place: &Place, mirrors: &[Mirror]) -> String {
    let mut text = "\ncontainerd: a file for each registry, in a folder that its `config_path` names\n".to_owned();
    for mirror in mirrors {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "  /etc/containerd/certs.d/{}/hosts.toml
    [host.\"{}\"]
      capabilities = [\"pull\", \"resolve\"]
",
            mirror.host,
            place.url()
        );
    }
    text
}

fn podman(place: &Place, mirrors: &[Mirror]) -> String {
    let mut text = "\npodman, buildah, skopeo, CRI-O: in /etc/containers/registries.conf.d/wharf.conf\n".to_owned();
    for mirror in mirrors {
        let _ = write!(
            text,
            "  [[registry]]
  location = \"{}\"
  [[registry.mirror]]
  location = \"{place}/{}\"
",
            mirror.host,
            mirror.host.as_prefix()
        );
        if !place.is_secure {
            text.push_str("  insecure = true\n");
        }
    }
    text
}

fn buildkit(place: &Place, mirrors: &[Mirror]) -> String {
    let mut text = "\nBuildKit: in buildkitd.toml\n".to_owned();
    for mirror in mirrors {
        let _ = writeln!(text, "  [registry.\"{}\"]\n    mirrors = [\"{place}\"]", mirror.host);
    }
    if !place.is_secure {
        let _ = writeln!(text, "  [registry.\"{place}\"]\n    http = true");
    }
    text
}

fn by_name(place: &Place, mirror: &Mirror) -> String {
    let image = if mirror.host.as_str() == "docker.io" { "library/alpine" } else { "NAME" };
    format!("\nAny client, by name: {place}/{}/{image}\n\n", mirror.host.as_prefix())
}

#[cfg(test)]
mod tests {
    use super::super::config::{Config, Mirror, Tls};
    use super::first_screen;

    #[test]
    fn the_screen_is_as_it_was_approved() {
        let config = |listen: &str, mirrors: &[&str]| {
            let config = Config::of("./data".into(), listen.parse().unwrap(), None);
            let mirrors = mirrors.iter().map(|flag| Mirror::of_flag(flag).unwrap()).collect();
            config.with_mirrors(mirrors, "20Gi".parse().unwrap()).unwrap()
        };
        let tls = Some(Tls { certificate: "a".into(), key: "b".into() });
        for (name, config) in [
            ("laptop", config("127.0.0.1:5000", &["docker.io", "ghcr.io=https://ghcr.io"])),
            ("secure", Config { tls, ..config("0.0.0.0:443", &["r.example.com:5000"]) }),
        ] {
            let path = format!("{}/tests/serve/golden/first-screen/{name}.txt", env!("CARGO_MANIFEST_DIR"));
            let screen = first_screen(&config);
            if std::env::var_os("WHARF_UPDATE_GOLDEN").is_some() {
                std::fs::write(&path, &screen).unwrap();
            }
            assert_eq!(screen, std::fs::read_to_string(&path).unwrap(), "{path}");
        }
    }
}
