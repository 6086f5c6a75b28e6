//! Names of registries, as they begin an image's reference. One is looked up in what is configured and never dialled.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

/// Of a name in the DNS, with a port.
const LONGEST: usize = 253 + ":65535".len();

/// Why a text is not a registry's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "a registry is named as in an image's reference: a host in lower case, and a port where it has one, without a scheme \
     or a path, such as docker.io or registry.example.com:5000"
)]
pub struct InvalidHost;

/// The name of a registry, such as `docker.io` or `registry.example.com:5000`. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegistryHost(Arc<str>);

impl RegistryHost {
    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where it answers, unless somebody says otherwise: Docker's registry has another name in references than its server.
    #[must_use]
    pub fn server(&self) -> &str {
        match self.as_str() {
            "docker.io" | "index.docker.io" => "registry-1.docker.io",
            name => name,
        }
    }

    /// As it is written at the beginning of a repository's name, where a colon cannot stand: `registry.example.com_5000`.
    #[must_use]
    pub fn as_prefix(&self) -> String {
        self.0.replace(':', "_")
    }

    /// The name whose form within a path this is.
    ///
    /// # Errors
    /// When it is none.
    pub fn of_prefix(part: &str) -> Result<Self, InvalidHost> {
        // No host has an underscore, so that the last one can only stand for the colon.
        match part.rsplit_once('_') {
            Some((name, number)) => format!("{name}:{number}").parse(),
            None => part.parse(),
        }
    }
}

impl FromStr for RegistryHost {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        let valid = text.len() <= LONGEST && host.split('.').all(is_label) && port.is_none_or(is_port);
        if valid { Ok(Self(text.into())) } else { Err(InvalidHost) }
    }
}

fn is_label(label: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !label.is_empty()
        && label.len() <= 63
        && label.bytes().all(plain)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Digits alone: `u16::from_str` would take a sign, and zeros in front would make two names of one.
fn is_port(port: &str) -> bool {
    port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0') && port.parse::<u16>().is_ok()
}

impl fmt::Display for RegistryHost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for RegistryHost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::RegistryHost;

    #[test]
    fn a_name_is_read_in_both_forms() {
        for (text, prefix) in [
            ("docker.io", "docker.io"),
            ("localhost", "localhost"),
            ("127.0.0.1:5000", "127.0.0.1_5000"),
            ("registry.example.com:5000", "registry.example.com_5000"),
        ] {
            let host: RegistryHost = text.parse().unwrap();
            assert_eq!((host.as_str(), host.as_prefix().as_str()), (text, prefix));
            assert_eq!(RegistryHost::of_prefix(prefix), Ok(host));
        }
    }

    #[test]
    fn what_is_more_or_less_than_a_name_is_none() {
        let long = format!("{}.io", "a".repeat(64));
        for text in [
            "",
            ".",
            "a..b",
            "Docker.io",
            "https://docker.io",
            "docker.io/",
            "docker.io/library",
            "a:",
            "a:0",
            "a:05",
            "a:+5",
            "a:65536",
            "a:1:2",
            "-a.io",
            "a-.io",
            "a_b",
            "user@docker.io",
            "a b",
            "a%2fb",
            "[::1]:5000",
            &long,
        ] {
            assert!(text.parse::<RegistryHost>().is_err(), "{text}");
        }
        for prefix in ["a_", "a_b", "a_0", "a_5_5", "_5"] {
            assert!(RegistryHost::of_prefix(prefix).is_err(), "{prefix}");
        }
    }
}
