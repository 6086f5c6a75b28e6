//! The text of a registry host's files, and the host names that may become a folder's name. Pure.
//! It must never put a table before a key: containerd would read the key as part of the table.

use thiserror::Error;

use super::files::{File, Wanted};
use super::local::LocalEndpoint;
use crate::oci::host::RegistryHost;
use crate::plan::{Entry, OwnerKind};

/// The file that containerd reads for a host, in the host's folder.
pub const HOSTS_FILE: &str = "hosts.toml";
/// The certificates that the host's certificate is checked against. It ends in `.crt` because containerd takes
/// `*.crt` of the folder when it cannot read `hosts.toml`.
pub const AUTHORITY_FILE: &str = "wharf-ca.crt";
/// The one certificate that the node's own endpoint has.
pub const NODE_FILE: &str = "wharf-node.crt";
/// How the first line of every file of ours begins.
const MARKER: &str = "# wharf.dev: ";

/// The longest host. It is a folder's name, of which 255 bytes are the most.
const LONGEST_HOST: usize = 253;

/// Why an entry of the plan is not written.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// The host cannot be a folder's name.
    #[error("{0:?} is not a DNS name in lower case, with or without a port, so Wharf makes no folder for it")]
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
    /// There is no Mirror's entry without the node's own endpoint.
    #[error("{0} is pulled through a Mirror, and the node's own endpoint does not serve")]
    NoEndpoint(String),
}

/// A host that is safe as the name of a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostName(RegistryHost);

impl HostName {
    /// Checks a host: a DNS name of lower-case letters, digits, `-` and `.`, and a port where it has one.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn parse(host: &str) -> Result<Self, Refusal> {
        let refused = || Refusal::Host(host.to_owned());
        if host.len() > LONGEST_HOST {
            return Err(refused());
        }
        host.parse().map(Self).map_err(|_| refused())
    }

    /// The host.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The name of another folder that containerd looks for before that of the host: `host_port_` before `host:port`.
    #[must_use]
    pub fn shadow(&self) -> Option<String> {
        self.as_str().split_once(':').map(|(name, port)| format!("{name}_{port}_"))
    }

    /// The host as it begins a repository's name, where a colon cannot stand.
    #[must_use]
    pub fn as_prefix(&self) -> String {
        self.0.as_prefix()
    }
}

/// Renders the files of one host. `config_path` is the folder of all hosts, as the node sees it; `local` is the node's own
/// endpoint, once it serves.
///
/// # Errors
/// When the entry holds something that none of Wharf has, or is a Mirror's and there is no endpoint.
pub fn render(
    host: &HostName,
    entry: &Entry,
    authority: &str,
    local: Option<&LocalEndpoint>,
    config_path: &str,
) -> Result<Wanted, Refusal> {
    let name = host.as_str();
    let marker = marker(name, entry)?;
    let path = |file: File| quoted(&format!("{config_path}/{name}/{}", file.name()));
    let table = local.map(|local| {
        let ca = local.certificate.as_ref().map(|_| format!("ca = {}\n", path(File::NodeCertificate)));
        format!(
            "[host.{}]\ncapabilities = [\"pull\", \"resolve\"]\n{}dial_timeout = \"200ms\"\n",
            quoted(&local.url),
            ca.unwrap_or_default()
        )
    });
    let node = local.and_then(|local| local.certificate.as_deref());
    let mut files = Wanted { falls_back: entry.owner.kind == OwnerKind::Mirror, ..Wanted::default() };
    let mut put = |file: File, text: String| files.texts.insert(file, format!("{marker}{text}"));
    if let Some(certificate) = node {
        put(File::NodeCertificate, format!("{}\n", certificate.trim()));
    }
    match entry.owner.kind {
        // Without `server`, the registry itself is asked last.
        OwnerKind::Mirror => {
            put(File::Hosts, table.ok_or_else(|| Refusal::NoEndpoint(name.to_owned()))?);
        }
        OwnerKind::Registry => {
            let server = quoted(server(name, entry)?);
            let authority = authority.trim();
            // An empty file would fail every pull.
            let ca = if authority.is_empty() { String::new() } else { format!("ca = {}\n", path(File::Authority)) };
            // The empty table is for containerd 1.6 and early 1.7, which refuse a file without any host table.
            let table = table.unwrap_or_else(|| "[host]\n".to_owned());
            let keys =
                format!("server = {server}\ncapabilities = [\"pull\", \"resolve\"]\n{ca}dial_timeout = \"1s\"\n");
            put(File::Hosts, keys + &table);
            if !authority.is_empty() {
                put(File::Authority, format!("{authority}\n"));
            }
        }
    }
    Ok(files)
}

/// The first line of an entry's files.
fn marker(host: &str, entry: &Entry) -> Result<String, Refusal> {
    let owner = &entry.owner;
    let whose = match owner.kind {
        OwnerKind::Registry if is_plain(&owner.namespace) => format!("{}/{}", owner.namespace, owner.name),
        OwnerKind::Mirror if owner.namespace.is_empty() => owner.name.clone(),
        _ => return Err(Refusal::Owner(host.to_owned())),
    };
    if !is_plain(&owner.name) || !is_plain(&owner.uid) {
        return Err(Refusal::Owner(host.to_owned()));
    }
    Ok(format!("{MARKER}{} {whose} {}\n", owner.kind, owner.uid))
}

fn server<'a>(host: &str, entry: &'a Entry) -> Result<&'a str, Refusal> {
    let server = entry.backends.first().map(String::as_str).unwrap_or_default();
    let url = ["https://", "http://"].iter().find_map(|scheme| server.strip_prefix(scheme));
    if url.is_some_and(is_plain) {
        Ok(server)
    } else {
        Err(Refusal::Server { host: host.to_owned(), server: server.to_owned() })
    }
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether a file with this text is Wharf's: its first line is the marker.
#[must_use]
pub fn is_ours(text: &str) -> bool {
    text.starts_with(MARKER)
}

/// The first line of a file that belongs to no single entry.
#[must_use]
pub fn common_marker(what: &str) -> String {
    format!("{MARKER}{what}\n")
}

/// The text of the file that marks a folder as made by Wharf.
#[must_use]
pub fn folder_mark() -> String {
    common_marker("this folder was made by Wharf and is removed with its last entry")
}

/// A TOML basic string.
#[must_use]
pub fn quoted(text: &str) -> String {
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
mod tests;
