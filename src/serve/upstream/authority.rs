//! Where a URL leads: scheme, host and port. It must never take two places for one.

use std::fmt;

use thiserror::Error;
use url::{Host, Url};

/// A text that does not name a host.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not the name of a host, alone or with a port, such as auth.example.com or 10.0.0.7:9000")]
pub struct InvalidHostName(pub String);

/// Scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Authority {
    pub secure: bool,
    pub host: Host<String>,
    pub port: u16,
}

impl Authority {
    /// Of a URL; none where it is of another protocol, or has a user name or a password in it.
    pub fn of(url: &Url) -> Option<Self> {
        let secure = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        if !url.username().is_empty() || url.password().is_some() {
            return None;
        }
        Some(Self { secure, host: url.host()?.to_owned(), port: url.port_or_known_default()? })
    }
}

/// A URL as it may be shown: without its query, for signatures stand there, and without whatever stands before the host.
pub fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{host}{port}{}", url.scheme(), url.path())
}

/// A host that is named in the settings, on one port or on each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedHost {
    host: Host<String>,
    port: Option<u16>,
}

impl NamedHost {
    /// Reads one.
    pub fn parse(text: &str) -> Result<Self, InvalidHostName> {
        let invalid = || InvalidHostName(text.to_owned());
        if let Ok(address) = text.parse::<std::net::Ipv6Addr>() {
            return Ok(Self { host: Host::Ipv6(address), port: None });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (text, None),
        };
        let port = port.map(|port| port.parse().map_err(|_| invalid())).transpose()?;
        // A URL's reader would take these for the beginning of something else.
        if host.contains(['/', '\\', '@', '?', '#', '*']) {
            return Err(invalid());
        }
        let host = Host::parse(host).map_err(|_| invalid())?;
        Ok(Self { host, port })
    }

    /// Whether this is meant.
    pub fn is(&self, authority: &Authority) -> bool {
        self.host == authority.host && self.port.is_none_or(|port| port == authority.port)
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}:{}", if self.secure { "https" } else { "http" }, self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::{Authority, NamedHost, shown};

    fn of(text: &str) -> Option<Authority> {
        Authority::of(&text.parse().unwrap())
    }

    #[test]
    fn places_are_the_same_in_whatever_way_they_are_written() {
        for (one, other) in [
            ("https://a.example", "https://A.example:443/x?y"),
            ("http://127.0.0.1", "http://0x7f.1:80/"),
            ("http://[::1]:5000", "http://[0:0:0:0:0:0:0:1]:5000"),
        ] {
            assert!(of(one).is_some() && of(one) == of(other), "{one} {other}");
        }
        for (one, other) in [
            ("https://a.example", "http://a.example"),
            ("https://a.example", "https://a.example:444"),
            ("https://a.example", "https://b.a.example"),
            ("https://a.example", "https://a.example."),
        ] {
            assert_ne!(of(one), of(other), "{one} {other}");
        }
        for none in ["ftp://a", "file:///etc/passwd", "https://user@a", "https://:secret@a", "data:text/plain,a"] {
            assert_eq!(of(none), None, "{none}");
        }
    }

    #[test]
    fn no_secret_of_a_url_is_shown() {
        let url: Url = "https://user:secret@cdn.example:8443/blob?signature=secret#secret".parse().unwrap();
        assert_eq!(shown(&url), "https://cdn.example:8443/blob");
    }

    #[test]
    fn a_host_is_named_with_or_without_a_port() {
        let at = of("https://auth.example:8443/").unwrap();
        for (text, expected) in [
            ("auth.example", true),
            ("AUTH.example:8443", true),
            ("auth.example:443", false),
            ("example", false),
            ("other.auth.example", false),
        ] {
            assert_eq!(NamedHost::parse(text).unwrap().is(&at), expected, "{text}");
        }
        let at = of("http://[fd00::7]:9000").unwrap();
        for text in ["fd00::7", "[fd00::7]", "[fd00::7]:9000"] {
            assert!(NamedHost::parse(text).unwrap().is(&at), "{text}");
        }
        for text in
            ["", "https://a.example", "a.example/x", "a@b", "a:b", "a:1:2", "a:65536", "[::1", "*.example", "a b"]
        {
            assert!(NamedHost::parse(text).is_err(), "{text}");
        }
    }
}
