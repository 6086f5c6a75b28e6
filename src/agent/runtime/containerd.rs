//! Where a containerd reads its registry hosts, by its version and configuration. Pure.
//!
//! Facts from containerd's source, by version:
//! - The table is `io.containerd.grpc.v1.cri` in a configuration of version 2 and `io.containerd.cri.v1.images` from
//!   version 3; the table of the other version is ignored. containerd 2 moves the old table of an old file by itself.
//! - Up to 1.7 a plugin's table in an imported file replaces the whole table; from 2.0 tables are merged, and an empty
//!   value overrides nothing.
//! - `config_path` is empty by default; from 2.2 on it is [`DEFAULT_LIST`], unless the deprecated `mirrors` are used.
//! - From 2.1 on most pulls go through the transfer service, which takes a list `a:b` for the one path `a:b`
//!   (containerd#12808, in the source of 2.1.9 to 2.4.0-beta.0, seen on 2.3.4). Other pulls split it. So where the
//!   configuration has a list, entries are written both below its first folder and below that odd path: either way
//!   they are found without a restart.

use std::fmt;

use super::configuration::Configuration;
use super::{ConfigPath, ROOT, Unable};
use crate::api::reason;

/// The value of `config_path` since [`HAS_DEFAULT`], when none is set.
const DEFAULT_LIST: &str = "/etc/containerd/certs.d:/etc/docker/certs.d";
/// What a user is told to set.
const ADVISED: &str = "/etc/containerd/certs.d";
const OLD_TABLE: &str = "io.containerd.grpc.v1.cri";
const NEW_TABLE: &str = "io.containerd.cri.v1.images";

/// A version of containerd, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(u32, u32);

/// The oldest version that is supported.
pub(super) const OLDEST: Version = Version(1, 6);
/// The first version that merges tables and knows [`NEW_TABLE`].
const MERGES: Version = Version(2, 0);
/// The first version that takes a list for one path.
const MISREADS_LISTS: Version = Version(2, 1);
/// The first version that has a default.
const HAS_DEFAULT: Version = Version(2, 2);

impl Version {
    /// Reads `2.3.4`, `v2.0.0-rc.1`, `1.6.20~ds1`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.strip_prefix('v').unwrap_or(text).split('.');
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next()?.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()?;
        Some(Self(major, minor))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.0, self.1)
    }
}

/// What the configuration says about registries, all files taken together.
#[derive(Default)]
struct Registry {
    config_path: String,
    mirrors: bool,
}

/// The folders into which entries are written.
pub(super) fn config_paths(version: Version, configuration: &Configuration) -> Result<Vec<ConfigPath>, Unable> {
    let registry = effective(version, configuration);
    let list = match registry.config_path.as_str() {
        "" if version >= HAS_DEFAULT && !registry.mirrors => DEFAULT_LIST,
        "" => return Err(unset(version, configuration, &registry)),
        list => list,
    };
    let folders: Vec<&str> = list.split(':').filter(|folder| !folder.is_empty()).collect();
    let Some(first) = folders.iter().find_map(|folder| ConfigPath::parse(folder)) else {
        let message = format!(
            "containerd's config_path is {list:?}, and Wharf sees only what lies below {ROOT}: set it to {ADVISED:?} \
             and restart containerd"
        );
        return Err(Unable::new(reason::UNSUPPORTED, message));
    };
    if folders.len() == 1 || version < MISREADS_LISTS {
        return Ok(vec![first]);
    }
    let Some(literal) = ConfigPath::parse(list) else {
        let message = format!(
            "containerd {version} takes the list {list:?} in config_path for one path and reads no host files \
             (containerd#12808): set config_path to {:?} and restart containerd",
            first.as_str()
        );
        return Err(Unable::new(reason::CONFIG_PATH_UNSET, message));
    };
    Ok(vec![first, literal])
}

fn effective(version: Version, configuration: &Configuration) -> Registry {
    let mut effective = Registry::default();
    for file in &configuration.files {
        let plugins = file.table.get("plugins").and_then(toml::Value::as_table);
        let plugin = |name: &str| plugins.and_then(|plugins| plugins.get(name)).and_then(toml::Value::as_table);
        let plugin = match file.table.get("version").and_then(toml::Value::as_integer).unwrap_or(1) {
            ..=1 => plugin("cri").or_else(|| plugin(OLD_TABLE)),
            2 => plugin(OLD_TABLE),
            _ => plugin(NEW_TABLE),
        };
        let Some(plugin) = plugin else {
            continue;
        };
        if version < MERGES {
            effective = Registry::default();
        }
        let Some(registry) = plugin.get("registry").and_then(toml::Value::as_table) else {
            continue;
        };
        if let Some(path) = registry.get("config_path").and_then(toml::Value::as_str).filter(|path| !path.is_empty()) {
            path.clone_into(&mut effective.config_path);
        }
        effective.mirrors |= registry.get("mirrors").and_then(toml::Value::as_table).is_some_and(|all| !all.is_empty());
    }
    effective
}

fn unset(version: Version, configuration: &Configuration, registry: &Registry) -> Unable {
    let written = configuration
        .files
        .first()
        .map(|file| file.table.get("version").and_then(toml::Value::as_integer).unwrap_or(1));
    let (first_line, table) = match written {
        None if version >= MERGES => ("version = 3\n", format!("plugins.\"{NEW_TABLE}\"")),
        None => ("version = 2\n", format!("plugins.\"{OLD_TABLE}\"")),
        Some(..=1) => ("", "plugins.cri".to_owned()),
        Some(2) => ("", format!("plugins.\"{OLD_TABLE}\"")),
        Some(_) => ("", format!("plugins.\"{NEW_TABLE}\"")),
    };
    let mut message = format!(
        "containerd {version} has no config_path, so it reads no host files. Write into {ROOT}/config.toml:\n\
         {first_line}[{table}.registry]\n  config_path = \"{ADVISED}\"\nand restart containerd once; later changes need \
         no restart."
    );
    if registry.mirrors {
        message += " The deprecated registry.mirrors must be removed: containerd does not start with both.";
    }
    if !configuration.unseen.is_empty() {
        let unseen = configuration.unseen.join(", ");
        message.extend([" Imported files outside ", ROOT, " are not seen: ", &unseen, "."]);
    }
    Unable::new(reason::CONFIG_PATH_UNSET, message)
}

#[cfg(test)]
mod tests;
