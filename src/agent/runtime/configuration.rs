//! Reads containerd's configuration files, as far as they lie below the root that the agent sees.
//! It must never follow a symbolic link: a link of the node leads elsewhere from where the agent stands.

use std::collections::{BTreeSet, VecDeque};
use std::io::{ErrorKind, Read};
use std::path::Path;

use thiserror::Error;

use super::{ConfigPath, ROOT};

/// The main configuration file below the root.
const MAIN_FILE: &str = "config.toml";
/// No configuration file is larger, and no configuration has more files.
const LARGEST_FILE: u64 = 1024 * 1024;
const MOST_FILES: usize = 64;

/// A configuration file.
#[derive(Clone, Debug, PartialEq)]
pub struct File {
    /// Its path on the node.
    pub path: String,
    /// What it holds.
    pub table: toml::Table,
}

impl File {
    /// Parses a file's text.
    ///
    /// # Errors
    /// When it is not TOML.
    pub fn parse(path: &str, text: &str) -> Result<Self, Unreadable> {
        let table = text.parse().map_err(|error: toml::de::Error| Unreadable::new(path, error.message()))?;
        Ok(Self { path: path.to_owned(), table })
    }

    /// The absolute paths and patterns that the file imports.
    fn imports(&self) -> Vec<String> {
        let folder = self.path.rsplit_once('/').map_or(ROOT, |(folder, _)| folder);
        let imports = self.table.get("imports").and_then(toml::Value::as_array).into_iter().flatten();
        imports
            .filter_map(toml::Value::as_str)
            .map(|import| if import.starts_with('/') { import.to_owned() } else { format!("{folder}/{import}") })
            .collect()
    }
}

/// All configuration files in the order in which containerd reads them; later ones override earlier ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Configuration {
    /// The files; none when containerd runs on its defaults.
    pub files: Vec<File>,
    /// Imports that lie where the agent cannot see them.
    pub unseen: Vec<String>,
}

/// A configuration file that cannot be read or understood.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{path} cannot be used: {why}")]
pub struct Unreadable {
    /// The file on the node.
    pub path: String,
    /// What is wrong with it.
    pub why: String,
}

impl Unreadable {
    pub(super) fn new(path: &str, why: impl Into<String>) -> Self {
        Self { path: path.to_owned(), why: why.into() }
    }
}

/// Reads the configuration below `root`, which is [`ROOT`] of the node.
///
/// # Errors
/// When a file that containerd would read cannot be read or understood.
pub fn read(root: &Path) -> Result<Configuration, Unreadable> {
    let mut configuration = Configuration::default();
    let mut seen = BTreeSet::new();
    let mut pending = VecDeque::from([format!("{ROOT}/{MAIN_FILE}")]);
    while let Some(path) = pending.pop_front() {
        if !seen.insert(path.clone()) {
            continue;
        }
        if seen.len() > MOST_FILES {
            return Err(Unreadable::new(&path, format!("there are more than {MOST_FILES} configuration files")));
        }
        let file = match read_file(root, &path)? {
            Some(text) => File::parse(&path, &text)?,
            // containerd does not need a configuration, but it needs what a configuration imports.
            None if configuration.files.is_empty() => break,
            None => return Err(Unreadable::new(&path, "it is imported and does not exist")),
        };
        for import in file.imports() {
            match ConfigPath::parse(&import) {
                None => configuration.unseen.push(import),
                Some(import) if import.as_str().contains('*') => pending.extend(expand(root, &import)?),
                Some(import) => pending.push_back(import.as_str().to_owned()),
            }
        }
        configuration.files.push(file);
    }
    Ok(configuration)
}

/// The text of a file on the node, if it exists.
fn read_file(root: &Path, path: &str) -> Result<Option<String>, Unreadable> {
    let fail = |error: std::io::Error| Unreadable::new(path, error.to_string());
    let Some(inside) = ConfigPath::parse(path) else {
        return Err(Unreadable::new(path, format!("it lies outside {ROOT}")));
    };
    let mut place = root.to_owned();
    for level in inside.levels() {
        place.push(level);
        match place.symlink_metadata() {
            Ok(metadata) if metadata.is_symlink() => {
                return Err(Unreadable::new(path, "it is a symbolic link, or lies behind one, and Wharf follows none"));
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fail(error)),
        }
    }
    read_text(&place, path)
}

/// The text of the file at `place`, which is `path` on the node, if it exists.
pub(super) fn read_text(place: &Path, path: &str) -> Result<Option<String>, Unreadable> {
    let fail = |error: std::io::Error| Unreadable::new(path, error.to_string());
    match place.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
        Ok(metadata) if metadata.is_symlink() => {
            return Err(Unreadable::new(path, "it is a symbolic link, and Wharf follows none"));
        }
        Ok(metadata) if !metadata.is_file() => return Err(Unreadable::new(path, "it is not a file")),
        Ok(_) => {}
    }
    let mut text = String::new();
    let file = std::fs::File::open(place).map_err(fail)?;
    file.take(LARGEST_FILE + 1).read_to_string(&mut text).map_err(fail)?;
    if text.len() as u64 > LARGEST_FILE {
        return Err(Unreadable::new(path, format!("it is larger than {LARGEST_FILE} bytes")));
    }
    Ok(Some(text))
}

/// The files on the node that a pattern names, by name.
fn expand(root: &Path, pattern: &ConfigPath) -> Result<Vec<String>, Unreadable> {
    if pattern.as_str().contains(['[', '\\']) {
        return Err(Unreadable::new(pattern.as_str(), "Wharf understands only * and ? in the pattern of an import"));
    }
    let mut found = vec![(root.to_owned(), ROOT.to_owned())];
    for level in pattern.levels() {
        let mut next = Vec::new();
        for (folder, path) in found {
            let entries = match std::fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
                Err(error) => return Err(Unreadable::new(&path, error.to_string())),
            };
            for entry in entries {
                let name = entry.map_err(|error| Unreadable::new(&path, error.to_string()))?.file_name();
                if let Some(name) = name.to_str().filter(|name| matches(level, name)) {
                    next.push((folder.join(name), format!("{path}/{name}")));
                }
            }
        }
        found = next;
    }
    let mut paths: Vec<String> = found.into_iter().map(|(_, path)| path).collect();
    paths.sort();
    Ok(paths)
}

/// Whether a name matches a pattern of `*` (any characters) and `?` (one character).
fn matches(pattern: &str, name: &str) -> bool {
    let mut pattern_rest = pattern.chars();
    match pattern_rest.next() {
        None => name.is_empty(),
        Some('*') => {
            let rest = pattern_rest.as_str();
            name.char_indices()
                .map(|(at, _)| at)
                .chain([name.len()])
                .any(|at| name.get(at..).is_some_and(|tail| matches(rest, tail)))
        }
        Some(first) => {
            let mut name_rest = name.chars();
            name_rest.next().is_some_and(|character| first == '?' || first == character)
                && matches(pattern_rest.as_str(), name_rest.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn paths(root: &Path) -> Result<Vec<String>, Unreadable> {
        read(root).map(|configuration| configuration.files.into_iter().map(|file| file.path).collect())
    }

    #[test]
    fn imports_are_read_in_the_order_of_containerd_and_only_once() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        fs::create_dir_all(root.join("conf.d/deep")).unwrap();
        fs::write(
            root.join("config.toml"),
            "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\", \"last.toml\", \"/run/x.toml\"]\n",
        )
        .unwrap();
        fs::write(root.join("conf.d/b.toml"), "imports = [\"/etc/containerd/config.toml\", \"deep/?.toml\"]").unwrap();
        fs::write(root.join("conf.d/a.toml"), "imports = [\"deep/*\"]").unwrap();
        fs::write(root.join("conf.d/other"), "not toml").unwrap();
        fs::write(root.join("conf.d/deep/c"), "").unwrap();
        fs::write(root.join("conf.d/deep/?.toml"), "").unwrap();
        fs::write(root.join("last.toml"), "").unwrap();
        let configuration = read(root).unwrap();
        assert_eq!(configuration.unseen, ["/run/x.toml"]);
        assert_eq!(
            paths(root).unwrap(),
            ["config.toml", "conf.d/a.toml", "conf.d/b.toml", "last.toml", "conf.d/deep/?.toml", "conf.d/deep/c"]
                .map(|path| format!("/etc/containerd/{path}"))
        );
    }

    #[test]
    fn no_configuration_is_a_configuration() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(read(root.path()), Ok(Configuration::default()));
    }

    #[test]
    fn what_containerd_could_not_read_or_the_agent_cannot_see_is_told() {
        type Spoil = fn(&Path);
        let cases: [(Spoil, &str); 6] = [
            (|root| fs::write(root.join("config.toml"), "version = ").unwrap(), "config.toml cannot be used"),
            (|root| fs::write(root.join("config.toml"), [0xff, 0xfe]).unwrap(), "UTF-8"),
            (|root| fs::create_dir(root.join("config.toml")).unwrap(), "not a file"),
            (|root| std::os::unix::fs::symlink("/etc/hostname", root.join("config.toml")).unwrap(), "symbolic link"),
            (|root| fs::write(root.join("config.toml"), "imports = [\"gone.toml\"]").unwrap(), "does not exist"),
            (|root| fs::write(root.join("config.toml"), "imports = [\"[a-z]*.toml\"]").unwrap(), "only * and ?"),
        ];
        for (spoil, part) in cases {
            let root = tempfile::tempdir().unwrap();
            spoil(root.path());
            let message = read(root.path()).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn patterns() {
        for (pattern, name, result) in [
            ("*", "", true),
            ("*.toml", "a.toml", true),
            ("*.toml", ".toml", true),
            ("*.toml", "a.tom", false),
            ("a*b*c", "a-b-b-c", true),
            ("?", "é", true),
            ("?", "", false),
            ("certs.d:", "certs.d:", true),
        ] {
            assert_eq!(matches(pattern, name), result, "{pattern} {name}");
        }
    }
}
