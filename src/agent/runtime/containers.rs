//! What podman and CRI-O read of registries: whose prefixes the user's own files have, and the text of ours. Nothing here
//! writes to the node.
//!
//! Facts from the documentation of containers/image: `registries.conf` is read first, then every `*.conf` of
//! `registries.conf.d` by name, and a later table takes the place of an earlier one of the same prefix. A table is chosen by
//! the longest prefix. One file that cannot be parsed makes every pull fail. Neither sends `ns`, so that a mirror finds the
//! registry's name at the beginning of the path.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::configuration::Unreadable;
use super::configuration::read_text;
use crate::agent::hosts::{HostName, common_marker, quoted};
use crate::agent::local::LocalEndpoint;

/// The folder of the node that holds all of this.
pub const ROOT: &str = "/etc/containers";
/// The folder of further files.
pub const REGISTRIES_FOLDER: &str = "registries.conf.d";
/// Our file there.
pub const REGISTRIES_FILE: &str = "50-wharf.conf";
/// The folder that holds one folder of certificates for each address.
pub const CERTIFICATES_FOLDER: &str = "certs.d";
/// The main file.
const MAIN_FILE: &str = "registries.conf";

/// What the user's own files say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsersRegistries {
    /// The file that speaks of a prefix, as the node sees it.
    prefixes: BTreeMap<String, String>,
}

impl UsersRegistries {
    /// Reads the user's files below `root`, which is [`ROOT`] of the node.
    ///
    /// # Errors
    /// When a file cannot be read or understood.
    pub fn read(root: &Path) -> Result<Self, Unreadable> {
        let mut registries = Self::default();
        registries.add_file(root, MAIN_FILE)?;
        let folder = root.join(REGISTRIES_FOLDER);
        let fail = |error: std::io::Error| Unreadable::new(&format!("{ROOT}/{REGISTRIES_FOLDER}"), error.to_string());
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(registries),
            entries => entries.map_err(fail)?,
        };
        for entry in entries {
            let name = entry.map_err(fail)?.file_name();
            // A name that is not UTF-8 is shown as far as it can be, and then not found: that is told below.
            let name = name.to_string_lossy();
            if name.ends_with(".conf") && name != REGISTRIES_FILE {
                registries.add_file(root, &format!("{REGISTRIES_FOLDER}/{name}"))?;
            }
        }
        Ok(registries)
    }

    fn add_file(&mut self, root: &Path, name: &str) -> Result<(), Unreadable> {
        let path = format!("{ROOT}/{name}");
        let Some(text) = read_text(&root.join(name), &path)? else {
            return Ok(());
        };
        self.add(&path, &text)
    }

    fn add(&mut self, path: &str, text: &str) -> Result<(), Unreadable> {
        let table: toml::Table =
            text.parse().map_err(|error: toml::de::Error| Unreadable::new(path, error.message()))?;
        let tables = table.get("registry").and_then(toml::Value::as_array).into_iter().flatten();
        let of_table = |table: &toml::Value| {
            // Without a prefix, the location is it.
            let text = |key: &str| table.get(key).and_then(toml::Value::as_str).filter(|text| !text.is_empty());
            text("prefix").or_else(|| text("location")).map(str::to_owned)
        };
        let mut found: Vec<String> = tables.filter_map(of_table).collect();
        // The older form, in which a list of names stands for tables.
        let old = table.get("registries").and_then(toml::Value::as_table);
        for list in ["block", "insecure"] {
            let list = old.and_then(|old| old.get(list)?.get("registries")?.as_array()).into_iter().flatten();
            found.extend(list.filter_map(toml::Value::as_str).map(str::to_owned));
        }
        for prefix in found {
            self.prefixes.insert(prefix.trim_end_matches('/').to_owned(), path.to_owned());
        }
        Ok(())
    }

    /// The user's file that says how images of this host are pulled, if there is one. What says it for some of its
    /// repositories alone goes on to say it beside our file.
    #[must_use]
    pub fn speaker(&self, host: &HostName) -> Option<&str> {
        let host = host.as_str();
        let speaks = |prefix: &str| {
            prefix == host
                || prefix.strip_prefix('*').is_some_and(|domain| domain.starts_with('.') && host.ends_with(domain))
        };
        self.prefixes.iter().find(|(prefix, _)| speaks(prefix)).map(|(_, path)| path.as_str())
    }
}

/// The text of our file; none without hosts.
#[must_use]
pub fn render(hosts: &[HostName], local: &LocalEndpoint) -> Option<String> {
    let marker = common_marker("written by the agent for the hosts of Mirrors, and removed with the last of them");
    let tables: String = hosts.iter().map(|host| table(host, local)).collect();
    (!hosts.is_empty()).then_some(marker + &tables)
}

/// The part of our file that is about one host.
#[must_use]
pub fn table(host: &HostName, local: &LocalEndpoint) -> String {
    let name = quoted(host.as_str());
    let location = quoted(&format!("{}/{}", local.address(), host.as_prefix()));
    let mut text = format!("\n[[registry]]\nprefix = {name}\nlocation = {name}\n");
    // Writing to a String cannot fail.
    let _ = write!(text, "\n[[registry.mirror]]\nlocation = {location}\n");
    if local.certificate.is_none() {
        text += "insecure = true\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn host(name: &str) -> HostName {
        HostName::parse(name).unwrap()
    }

    fn endpoint(certificate: Option<&str>) -> LocalEndpoint {
        let scheme = if certificate.is_some() { "https" } else { "http" };
        LocalEndpoint { url: format!("{scheme}://127.0.0.1:17443"), certificate: certificate.map(str::to_owned) }
    }

    #[test]
    fn the_file_is_exactly_this() {
        let hosts = [host("docker.io"), host("registry.example.com:5000")];
        assert_eq!(
            render(&hosts, &endpoint(Some("PEM"))).unwrap(),
            "# wharf.dev: written by the agent for the hosts of Mirrors, and removed with the last of them\n\
             \n[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n\
             \n[[registry.mirror]]\nlocation = \"127.0.0.1:17443/docker.io\"\n\
             \n[[registry]]\nprefix = \"registry.example.com:5000\"\nlocation = \"registry.example.com:5000\"\n\
             \n[[registry.mirror]]\nlocation = \"127.0.0.1:17443/registry.example.com_5000\"\n"
        );
        assert_eq!(render(&[], &endpoint(None)), None);
    }

    #[test]
    fn it_is_understood_and_says_where_there_is_no_certificate() {
        for (certificate, insecure) in [(Some("PEM"), None), (None, Some(true))] {
            let text = render(&[host("docker.io")], &endpoint(certificate)).unwrap();
            let table: toml::Table = text.parse().unwrap();
            let mirror = &table["registry"][0]["mirror"][0];
            assert_eq!(mirror.get("insecure").and_then(toml::Value::as_bool), insecure);
        }
    }

    #[test]
    fn the_users_own_files_are_found_by_prefix() {
        let root = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            fs::create_dir_all(root.path().join(REGISTRIES_FOLDER)).unwrap();
            fs::write(root.path().join(name), text).unwrap();
        };
        assert_eq!(UsersRegistries::read(root.path()), Ok(UsersRegistries::default()));
        put(
            "registries.conf",
            "unqualified-search-registries = [\"docker.io\"]\n[registries.insecure]\nregistries = [\"old.io\"]",
        );
        put(
            "registries.conf.d/a.conf",
            "[[registry]]\nlocation = \"quay.io/\"\n[[registry]]\nprefix = \"*.example.com\"\nlocation = \"x\"",
        );
        put("registries.conf.d/b.conf", "[[registry]]\nprefix = \"docker.io/library\"\nlocation = \"docker.io\"\n");
        put("registries.conf.d/50-wharf.conf", "[[registry]]\nprefix = \"ours.io\"");
        put("registries.conf.d/README", "[[registry");
        let registries = UsersRegistries::read(root.path()).unwrap();
        for (name, file) in [
            ("docker.io", None),
            ("ours.io", None),
            ("quay.io", Some("/etc/containers/registries.conf.d/a.conf")),
            ("a.example.com", Some("/etc/containers/registries.conf.d/a.conf")),
            ("example.com", None),
            ("old.io", Some("/etc/containers/registries.conf")),
        ] {
            assert_eq!(registries.speaker(&host(name)), file, "{name}");
        }
        put("registries.conf.d/c.conf", "[[registry");
        let message = UsersRegistries::read(root.path()).unwrap_err().to_string();
        assert!(message.starts_with("/etc/containers/registries.conf.d/c.conf cannot be used"), "{message}");
    }
}
