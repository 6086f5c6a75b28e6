//! Where a URL of a Mirror leads: scheme, host and port. Pure. It must never take two places for one, because credentials go to
//! places.

use url::{Host, Url};

use crate::oci::RegistryHost;

/// Scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    secure: bool,
    /// The host.
    pub host: Host<String>,
    port: u16,
}

impl Place {
    /// The place of a URL; none where it is of another protocol, or is none.
    #[must_use]
    pub fn of(url: &str) -> Option<Self> {
        let url: Url = url.parse().ok()?;
        let secure = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        Some(Self { secure, host: url.host()?.to_owned(), port: url.port_or_known_default()? })
    }

    /// The places of a registry's own, by its name.
    #[must_use]
    pub fn own_of(host: &RegistryHost) -> Vec<Self> {
        [host.server(), host.as_str()].iter().filter_map(|name| Self::of(&format!("https://{name}"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn places_are_the_same_in_whatever_way_they_are_written() {
        for (one, other, same) in [
            ("https://a.example", "https://A.example:443/x", true),
            ("http://127.0.0.1", "http://0x7f.1:80/", true),
            ("https://a.example", "http://a.example", false),
            ("https://a.example", "https://a.example:444", false),
            ("https://a.example", "https://b.a.example", false),
        ] {
            assert_eq!(Place::of(one) == Place::of(other), same, "{one} {other}");
        }
        for none in ["", "a.example", "ftp://a.example", "https://a.example:65536"] {
            assert_eq!(Place::of(none), None, "{none}");
        }
        let own = |host: &str| Place::own_of(&host.parse().unwrap());
        assert!(own("docker.io").contains(&Place::of("https://registry-1.docker.io").unwrap()));
        assert!(!own("docker.io").contains(&Place::of("https://docker.io.example.com").unwrap()));
        assert!(own("r.example:5000").contains(&Place::of("https://r.example:5000/v2/hub").unwrap()));
    }
}
