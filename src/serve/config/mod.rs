//! The server's configuration: one document, checked whole before anything starts. Reading it is pure.

mod clients;
mod mirrors;
mod repositories;
mod text;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::access::{Files, Rights};
use super::repository::MissingContent;
use crate::oci::RegistryHost;

pub use clients::{Agents, Clients};
pub use mirrors::{Cache, InvalidSize, Mirror, Size};
pub use repositories::Repositories;

/// Configuration of `wharf serve`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The folder that holds all content. It is made if it is not there.
    pub root: PathBuf,
    /// Address and port of the registry.
    pub listen: SocketAddr,
    /// Address and port of `/healthz`, `/readyz`, `/metrics`, `/volume` and `/mirrors`; without it, there are none.
    #[serde(default)]
    pub operations: Option<SocketAddr>,
    /// Serve HTTPS, and nothing else, with this certificate. The files are taken up when they change.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// Who may do what.
    #[serde(default)]
    pub access: Access,
    /// Who may ask for what other registries have, besides.
    #[serde(default)]
    pub clients: Clients,
    /// What happens to a manifest that names content which its repository does not have: `Reject` it, accept an index whose
    /// manifests are not all there (`IndexOnly`), or `Allow` all.
    #[serde(default)]
    pub missing_content: MissingContent,
    /// Bounds of what the server takes on.
    #[serde(default)]
    pub limits: Limits,
    /// Other registries whose content is served too: fetched once, and kept as long as there is room.
    #[serde(default, deserialize_with = "mirrors::read")]
    pub mirrors: Vec<Mirror>,
    /// What of other registries is kept, and for how long it is good.
    #[serde(default)]
    pub cache: Cache,
    /// Names of this server, as they begin images' references: clients that add one as `ns` get its own repositories. They
    /// matter only where there are mirrors; without any, `ns` is not looked at.
    #[serde(default, with = "text::list")]
    #[schemars(with = "Vec<String>")]
    pub local_names: Vec<RegistryHost>,
}

/// A certificate with its key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tls {
    /// A PEM file: the server's certificate, and those that lead to the authority.
    pub certificate: PathBuf,
    /// A PEM file: the certificate's private key.
    pub key: PathBuf,
}

/// Who may do what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Access {
    /// What those without credentials may do. Where it is not given: `Write` if there are no users, else `None`.
    #[serde(default)]
    pub anonymous: Option<Rights>,
    /// A file of users, `name:hash` a line, as `htpasswd -B` writes it. It is taken up when it changes.
    #[serde(default)]
    pub users: Option<PathBuf>,
    /// A file with the names of the users that may also push and delete, one a line; without it, all users may. It is taken up
    /// when it changes.
    #[serde(default)]
    pub writers: Option<PathBuf>,
}

/// Bounds of what the server takes on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at the same time; the next is answered with 503.
    pub connections: usize,
    /// Requests that bring content at the same time; the next waits for ten seconds and is then answered with 429.
    pub receiving: usize,
    /// Uploads that are begun and not finished; the next is answered with 429.
    pub open_uploads: usize,
    /// Seconds after which an upload that gets nothing is forgotten.
    pub idle_upload_seconds: u64,
    /// Seconds that a client may leave a request or an answer without taking or giving a byte.
    pub idle_client_seconds: u64,
    /// Seconds that running requests get when the server is told to stop.
    pub stop_seconds: u64,
    /// Percent of the volume, by bytes or by files, that uploads leave free: they are answered with 507, while pulls and deletes
    /// go on. 0 for none: then the volume fills up to its last byte.
    pub reserve_percent: u8,
    /// Mebibytes of manifests that are kept in memory.
    pub manifest_memory_mebibytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            receiving: 128,
            open_uploads: 10_000,
            idle_upload_seconds: 24 * 3600,
            idle_client_seconds: 60,
            stop_seconds: 25,
            // From 98 % on, the operator tells that a volume is full.
            reserve_percent: 2,
            manifest_memory_mebibytes: 16,
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The document is malformed; the text says where.
    #[error("{path}: {source}")]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// What is wrong, with line and column.
        source: Box<serde_saphyr::Error>,
    },
    /// Flags that do not go together.
    #[error("{0}")]
    Flags(String),
    /// Values that do not go together.
    #[error("{path}: {problem}")]
    Contradiction {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
}

impl Config {
    /// The configuration of a server that needs no file.
    #[must_use]
    pub fn of(root: PathBuf, listen: SocketAddr, operations: Option<SocketAddr>) -> Self {
        let (tls, access, missing_content) = (None, Access::default(), MissingContent::default());
        let (clients, limits, mirrors, cache, local_names) = Default::default();
        Self { root, listen, operations, tls, access, clients, missing_content, limits, mirrors, cache, local_names }
    }

    /// The same with these mirrors, as flags give them.
    ///
    /// # Errors
    /// When they do not go together.
    pub fn with_mirrors(mut self, mirrors: Vec<Mirror>, size: Size) -> Result<Self, ConfigError> {
        for mirror in mirrors {
            if let Some(problem) = mirrors::conflict(&self.mirrors, &mirror) {
                return Err(ConfigError::Flags(problem));
            }
            self.mirrors.push(mirror);
        }
        self.cache.size = size;
        Ok(self)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or what it says cannot be done.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    /// Reads a document; the path is for messages.
    ///
    /// # Errors
    /// When it is malformed, or what it says cannot be done.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        // The place is told and not shown: a password may stand there by mistake.
        let options = serde_saphyr::options! { with_snippet: false };
        let config: Self = serde_saphyr::from_str_with_options(text, options)
            .map_err(|source| ConfigError::Invalid { path: path.to_owned(), source: source.into() })?;
        match config.contradiction() {
            None => Ok(config),
            Some(problem) => Err(ConfigError::Contradiction { path: path.to_owned(), problem }),
        }
    }

    /// This configuration as a server can take it up that runs with another one: what is bound to the start stays as it is.
    /// Returns the names of those parts that would be different.
    #[must_use]
    pub fn within(mut self, running: &Self) -> (Self, Vec<&'static str>) {
        let mut kept = Vec::new();
        if self.root != running.root {
            kept.push("root");
            self.root.clone_from(&running.root);
        }
        if self.listen != running.listen {
            kept.push("listen");
            self.listen = running.listen;
        }
        if self.operations != running.operations {
            kept.push("operations");
            self.operations = running.operations;
        }
        if self.tls.is_some() != running.tls.is_some() {
            kept.push("tls");
            self.tls.clone_from(&running.tls);
        }
        if self.mirrors.is_empty() != running.mirrors.is_empty() {
            kept.push("mirrors");
            self.mirrors.clone_from(&running.mirrors);
        }
        (self, kept)
    }

    fn contradiction(&self) -> Option<&'static str> {
        let limits = &self.limits;
        if self.access.writers.is_some() && self.access.users.is_none() {
            return Some("access.writers names some of access.users, which is not given");
        }
        if self.access.users.is_none() && self.access.anonymous == Some(Rights::None) {
            return Some("access.anonymous is None and access.users is not given: nobody could do anything");
        }
        if limits.connections == 0
            || limits.receiving == 0
            || limits.open_uploads == 0
            || limits.idle_client_seconds == 0
        {
            return Some("none of limits.connections, receiving, openUploads and idleClientSeconds may be 0");
        }
        if limits.reserve_percent > 100 {
            return Some("limits.reservePercent is more than 100");
        }
        if self.local_names.iter().any(|name| self.mirrors.iter().any(|mirror| mirror.host == *name)) {
            return Some("a name of localNames is also the host of a mirror: requests for it could mean either");
        }
        self.clients.contradiction()
    }
}

impl Access {
    /// What those without credentials may do.
    #[must_use]
    pub fn anonymous_rights(&self) -> Rights {
        self.anonymous.unwrap_or(if self.users.is_some() { Rights::None } else { Rights::Write })
    }

    /// The files, if there are users.
    #[must_use]
    pub fn files(&self) -> Option<Files> {
        self.users.clone().map(|users| Files { users, writers: self.writers.clone() })
    }
}

/// The JSON Schema of the document.
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Config).to_value()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Config, schema};
    use crate::serve::access::Rights;
    use crate::serve::repository::MissingContent;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("serve.yaml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let config = parse("root: /data\nlisten: 127.0.0.1:5000\n").unwrap();
        assert_eq!(config, Config::of("/data".into(), "127.0.0.1:5000".parse().unwrap(), None));
        assert_eq!(config.access.anonymous_rights(), Rights::Write);
        let config = parse(
            "root: /data\nlisten: '[::1]:5000'\noperations: 127.0.0.1:5001\nmissingContent: Reject\n\
             tls: {certificate: a, key: b}\naccess: {users: u, writers: w}\nlimits: {connections: 7}\n",
        )
        .unwrap();
        assert_eq!(config.access.anonymous_rights(), Rights::None);
        assert_eq!((config.limits.connections, config.limits.receiving), (7, 128));
        assert_eq!(config.missing_content, MissingContent::Reject);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, expected) in [
            ("root: /data\n", "listen"),
            ("root: /data\nlisten: 127.0.0.1:5000\nlisen: x\n", "3:1"),
            ("root: /data\nlisten: here\n", "2:9"),
            ("root: /data\nlisten: 127.0.0.1:5000\nlimits:\n  connections: many\n", "4:16"),
            ("root: /data\nlisten: 127.0.0.1:5000\nmissingContent: Maybe\n", "3:17"),
            ("root: /data\nlisten: 127.0.0.1:5000\naccess: {writers: w}\n", "access.users"),
            ("root: /data\nlisten: 127.0.0.1:5000\naccess: {anonymous: None}\n", "nobody"),
            ("root: /data\nlisten: 127.0.0.1:5000\nlimits: {receiving: 0}\n", "may be 0"),
            ("root: /data\nlisten: 127.0.0.1:5000\nlimits: {reservePercent: 101}\n", "more than 100"),
            ("root: /data\nlisten: 127.0.0.1:5000\nmirrors: [{host: a}]\nlocalNames: [a]\n", "either"),
            ("root: /data\nlisten: 127.0.0.1:5000\nclients: {agents: {serviceAccount: a, audience: b}}\n", "system:"),
            (
                "root: /data\nlisten: 127.0.0.1:5000\nclients: {agents: {serviceAccount: 'system:serviceaccount:a:b', audience: ''}}\n",
                "empty",
            ),
        ] {
            let error = parse(text).unwrap_err();
            let place = expected.replace(':', ", column ");
            assert!(error.starts_with("serve.yaml: "), "{error}");
            assert!(error.contains(expected) || error.contains(&place), "{expected}: {error}");
        }
    }

    #[test]
    fn a_running_server_keeps_what_is_bound_to_its_start() {
        let running = parse("root: /data\nlisten: 127.0.0.1:5000\ntls: {certificate: a, key: b}\n").unwrap();
        let same = parse("root: /data\nlisten: 127.0.0.1:5000\ntls: {certificate: c, key: b}\n").unwrap();
        assert_eq!(same.clone().within(&running), (same, vec![]));
        let other =
            parse("root: /other\nlisten: 127.0.0.1:1\noperations: 127.0.0.1:2\nlimits: {receiving: 3}\nmirrors: [{host: a}]\n")
                .unwrap();
        let (taken, kept) = other.within(&running);
        assert_eq!(kept, ["root", "listen", "operations", "tls", "mirrors"]);
        let limits = super::Limits { receiving: 3, ..running.limits.clone() };
        assert_eq!(taken, Config { limits, ..running });
    }

    #[test]
    fn what_the_documents_show_can_be_used() {
        for document in ["serve.md", "mirror.md"] {
            let text = std::fs::read_to_string(format!("{}/docs/{document}", env!("CARGO_MANIFEST_DIR"))).unwrap();
            let shown: Vec<&str> =
                text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
            assert!(!shown.is_empty(), "{document} shows nothing");
            for shown in shown {
                parse(shown).unwrap_or_else(|error| panic!("{document}: {error}\n{shown}"));
            }
        }
    }

    #[test]
    fn every_field_of_the_schema_is_described() {
        let schema = schema();
        let definitions = schema["$defs"].as_object().unwrap().values().chain([&schema]);
        let mut found = 0;
        for definition in definitions.filter(|definition| definition["type"] == "object") {
            assert_eq!(definition["additionalProperties"], false, "{definition}");
            for (name, field) in definition["properties"].as_object().unwrap() {
                assert!(field["description"].as_str().is_some_and(|text| !text.is_empty()), "{name} is not described");
                found += 1;
            }
        }
        assert!(found > 30, "{schema}");
    }
}
