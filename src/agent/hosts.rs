//! The text of a registry host's files, and the host names that may become a folder's name. Pure.
//! It must never put a table before a key: containerd would read the key as part of the table.

use thiserror::Error;

use crate::plan::Entry;

/// The file that containerd reads for a host, in the host's folder.
pub const HOSTS_FILE: &str = "hosts.toml";
/// The certificates that the host's certificate is checked against. It ends in `.crt` because containerd takes
/// `*.crt` of the folder when it cannot read `hosts.toml`.
pub const AUTHORITY_FILE: &str = "wharf-ca.crt";
/// How the first line of every file of ours begins.
const MARKER: &str = "# wharf.dev: ";

/// The longest DNS name.
const LONGEST_NAME: usize = 253;
/// The longest part of a DNS name.
const LONGEST_LABEL: usize = 63;

/// Why an entry of the plan is not written.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// The host cannot be a folder's name.
    #[error("{0:?} is not a DNS name in lower case, so Wharf makes no folder for it")]
    Host(String),
    /// The server's address is no URL, or could break the file.
    #[error("the server of {host} is {server:?}, which is no https or http URL")]
    Server {
        /// The host.
        host: String,
        /// What the plan says.
        server: String,
    },
    /// The owner's name could break the marker.
    #[error("the owner of {0} in the plan has a name that Kubernetes does not allow")]
    Owner(String),
}

/// A host that is safe as the name of a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostName(String);

impl HostName {
    /// Checks a host: a DNS name of lower-case letters, digits, `-` and `.`.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn parse(host: &str) -> Result<Self, Refusal> {
        let label = |label: &str| {
            (1..=LONGEST_LABEL).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        if host.len() <= LONGEST_NAME && host.split('.').all(label) {
            Ok(Self(host.to_owned()))
        } else {
            Err(Refusal::Host(host.to_owned()))
        }
    }

    /// The host.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a host's files must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFiles {
    /// The text of [`HOSTS_FILE`].
    pub hosts: String,
    /// The text of [`AUTHORITY_FILE`]; none when the plan names no authority. (An empty file would fail every pull.)
    pub authority: Option<String>,
}

/// Renders the files of one host. `config_path` is the folder of all hosts, as the node sees it.
///
/// # Errors
/// When the entry holds something that no registry of Wharf has.
pub fn render(host: &HostName, entry: &Entry, authority: &str, config_path: &str) -> Result<HostFiles, Refusal> {
    let host = host.as_str();
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    let url = ["https://", "http://"].iter().find_map(|scheme| entry.server.strip_prefix(scheme));
    if !url.is_some_and(plain) {
        return Err(Refusal::Server { host: host.to_owned(), server: entry.server.clone() });
    }
    let owner = &entry.owner;
    if ![&owner.kind, &owner.namespace, &owner.name, &owner.uid].into_iter().all(|part| plain(part)) {
        return Err(Refusal::Owner(host.to_owned()));
    }
    let marker = format!("{MARKER}{} {}/{} {}\n", owner.kind, owner.namespace, owner.name, owner.uid);
    let authority = authority.trim();
    let ca = match authority {
        "" => String::new(),
        _ => format!("ca = {}\n", quoted(&format!("{config_path}/{host}/{AUTHORITY_FILE}"))),
    };
    // The empty table is for containerd 1.6 and early 1.7, which refuse a file without any host table.
    let hosts = format!(
        "{marker}server = {}\ncapabilities = [\"pull\", \"resolve\"]\n{ca}dial_timeout = \"1s\"\n[host]\n",
        quoted(&entry.server)
    );
    let authority = (!authority.is_empty()).then(|| format!("{marker}{authority}\n"));
    Ok(HostFiles { hosts, authority })
}

/// Whether a file with this text is Wharf's: its first line is the marker.
#[must_use]
pub fn is_ours(text: &str) -> bool {
    text.starts_with(MARKER)
}

/// The text of the file that marks a folder as made by Wharf.
#[must_use]
pub fn folder_mark() -> String {
    format!("{MARKER}this folder was made by Wharf and is removed with its last entry\n")
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            character if character.is_control() => quoted.extend(format!("\\u{:04X}", u32::from(character)).chars()),
            character => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Owner;

    fn entry(server: &str) -> Entry {
        let owner =
            Owner { kind: "Registry".into(), namespace: "platform".into(), name: "team".into(), uid: "3c9a".into() };
        Entry { server: server.into(), owner, since: 1 }
    }

    fn host(name: &str) -> HostName {
        HostName::parse(name).unwrap()
    }

    #[test]
    fn the_file_is_exactly_this() {
        let files =
            render(&host("team.platform.svc"), &entry("https://10.96.12.34"), "PEM\n", "/etc/containerd/certs.d");
        let files = files.unwrap();
        assert_eq!(
            files.hosts,
            "# wharf.dev: Registry platform/team 3c9a\n\
             server = \"https://10.96.12.34\"\n\
             capabilities = [\"pull\", \"resolve\"]\n\
             ca = \"/etc/containerd/certs.d/team.platform.svc/wharf-ca.crt\"\n\
             dial_timeout = \"1s\"\n\
             [host]\n"
        );
        assert_eq!(files.authority.as_deref(), Some("# wharf.dev: Registry platform/team 3c9a\nPEM\n"));
        assert!(is_ours(&files.hosts) && is_ours(files.authority.as_deref().unwrap()) && is_ours(&folder_mark()));
    }

    #[test]
    fn without_an_authority_no_ca_is_named() {
        let files = render(&host("a.b.svc"), &entry("http://10.0.0.1"), " \n", "/etc/containerd/certs.d").unwrap();
        assert_eq!(files.authority, None);
        assert!(!files.hosts.contains("ca ="), "{}", files.hosts);
    }

    #[test]
    fn whatever_is_accepted_is_valid_toml_with_its_keys_before_the_first_table() {
        let servers = [
            "https://10.96.12.34",
            "https://[fd00::1]:5000",
            "http://x",
            "https://a\"b",
            "https://a\\u0022\\",
            "https://a#b",
            "https://a'b",
            "https://a]=[",
            "https://[host]",
        ];
        let folders =
            ["/etc/containerd/certs.d", "/etc/containerd/certs.d:/etc/docker/certs.d", "/etc/containerd/a \"\\\u{1}"];
        for server in servers {
            for folder in folders {
                let files = render(&host("team.platform.svc"), &entry(server), "PEM", folder).unwrap();
                let table: toml::Table = files.hosts.parse().unwrap_or_else(|error| panic!("{error}\n{}", files.hosts));
                assert_eq!(table["server"].as_str(), Some(server));
                assert_eq!(table["ca"].as_str(), Some(format!("{folder}/team.platform.svc/wharf-ca.crt").as_str()));
                assert_eq!(table["capabilities"].as_array().map(Vec::len), Some(2));
                assert_eq!(table["dial_timeout"].as_str(), Some("1s"));
                assert_eq!(table["host"].as_table().map(toml::Table::len), Some(0));
                assert_eq!(table.len(), 5);
            }
        }
    }

    #[test]
    fn entries_that_no_registry_has_are_refused() {
        for server in ["", "10.96.12.34", "https://", "ftp://x", "https://a b", "https://a\nb", "https://ä"] {
            let refused = render(&host("a.b.svc"), &entry(server), "PEM", "/etc/containerd/certs.d");
            assert!(matches!(refused, Err(Refusal::Server { .. })), "{server:?}: {refused:?}");
        }
        let mut spoilt = entry("https://x");
        spoilt.owner.uid = "a\nserver = \"https://evil\"".into();
        let refused = render(&host("a.b.svc"), &spoilt, "PEM", "/etc/containerd/certs.d");
        assert_eq!(refused, Err(Refusal::Owner("a.b.svc".into())));
    }

    #[test]
    fn only_dns_names_become_folders() {
        let long_label = "a".repeat(64);
        let long_name = format!("{}.a", vec!["a".repeat(62); 4].join("."));
        assert_eq!(long_name.len(), 253);
        for good in ["team.platform.svc", "a", "0.1", "a-b.c", "docker.io", long_name.as_str()] {
            assert!(HostName::parse(good).is_ok(), "{good}");
        }
        let longer = format!("{long_name}b");
        let bad = [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a.",
            "a/b",
            "../a",
            "/a",
            "A.b",
            "a_b",
            "_default",
            "a:5000",
            "a\\b",
            "a\0b",
            "a b",
            "-a",
            "a-",
            "a.-b",
            "ä",
            "a\n",
            ".wharf",
            "*",
            long_label.as_str(),
            longer.as_str(),
        ];
        for bad in bad {
            assert_eq!(HostName::parse(bad), Err(Refusal::Host(bad.into())));
        }
    }

    #[test]
    fn only_the_first_line_makes_a_file_ours() {
        assert!(is_ours("# wharf.dev: Registry a/b c\nserver = \"x\"\n"));
        for text in ["", "server = \"x\"\n# wharf.dev: Registry a/b c\n", " # wharf.dev: x", "# wharf.dev"] {
            assert!(!is_ours(text), "{text:?}");
        }
    }
}
