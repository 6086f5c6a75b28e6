//! The credential as which a registry is asked, out of a file or a folder. It must never be shown, not even where it is malformed.
//!
//! A folder is a Secret as Kubernetes mounts it: of type `kubernetes.io/basic-auth`, with `username` and `password`, or of type
//! `kubernetes.io/dockerconfigjson`, with `.dockerconfigjson`, of which the entry of the registry counts.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use thiserror::Error;

use super::upstream::Basic;
use crate::oci::RegistryHost;

/// What Kubernetes swaps when a Secret changes: a link to the folder in which its files lie.
const MOUNTED: &str = "..data";
const DOCKER_CONFIG: &str = ".dockerconfigjson";

/// Why there is no credential. What was read is not repeated.
#[derive(Debug, Error)]
pub enum InvalidCredential {
    /// Something cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// What.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A file has another form.
    #[error("{0} is not one line of the form user:password")]
    File(PathBuf),
    /// A folder has neither form.
    #[error("{0} has neither username and password in it, as text without line breaks, nor .dockerconfigjson")]
    Folder(PathBuf),
    /// The document is none.
    #[error("{0} is not a document as docker login writes it")]
    Document(PathBuf),
    /// It is for other registries.
    #[error("{path} has no entry with a user name and a password for {host}")]
    NoEntry {
        /// Which one.
        path: PathBuf,
        /// For whom.
        host: RegistryHost,
    },
}

#[derive(Deserialize)]
struct Document {
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    auth: Option<String>,
}

/// The credential for a registry.
///
/// # Errors
/// When there is none.
pub fn read(path: &Path, host: &RegistryHost) -> Result<Basic, InvalidCredential> {
    if !path.is_dir() {
        return parse_line(&text(path)?).ok_or_else(|| InvalidCredential::File(path.to_owned()));
    }
    // All of it from one state of the Secret.
    let folder = std::fs::canonicalize(path.join(MOUNTED)).unwrap_or_else(|_| path.to_owned());
    let [user, password] = ["username", "password"].map(|name| folder.join(name));
    if user.exists() && password.exists() {
        let (user, password) = (text(&user)?, text(&password)?);
        let (user, password) = (without_end(&user), without_end(&password));
        let is_plain = !user.is_empty() && !user.contains([':', '\r', '\n']) && !password.contains(['\r', '\n']);
        let basic = is_plain.then(|| Basic { user: user.to_owned(), password: password.to_owned() });
        return basic.ok_or_else(|| InvalidCredential::Folder(path.to_owned()));
    }
    let file = folder.join(DOCKER_CONFIG);
    if !file.exists() {
        return Err(InvalidCredential::Folder(path.to_owned()));
    }
    let document = serde_json::from_str::<Document>(&text(&file)?);
    // What the parser says may repeat what it read.
    let document = document.map_err(|_| InvalidCredential::Document(path.join(DOCKER_CONFIG)))?;
    let none = || InvalidCredential::NoEntry { path: path.join(DOCKER_CONFIG), host: host.clone() };
    document.entry(host).and_then(Entry::basic).ok_or_else(none)
}

/// Whether everybody on this machine may read a credential. What Kubernetes mounts is in a pod of its own.
#[must_use]
pub fn is_open(path: &Path) -> bool {
    let is_mounted = [Some(path), path.parent()].into_iter().flatten().any(|folder| folder.join(MOUNTED).exists());
    let readable = |path: &Path| std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o004 != 0);
    let files =
        if path.is_dir() { vec![path.join("password"), path.join(DOCKER_CONFIG)] } else { vec![path.to_owned()] };
    !is_mounted && readable(path) && files.iter().any(|file| readable(file))
}

fn text(path: &Path) -> Result<String, InvalidCredential> {
    std::fs::read_to_string(path).map_err(|source| InvalidCredential::Read { path: path.to_owned(), source })
}

fn without_end(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

fn parse_line(text: &str) -> Option<Basic> {
    let (user, password) = text.strip_suffix('\n').unwrap_or(text).trim_end_matches('\r').split_once(':')?;
    let is_one_line = !user.is_empty() && !password.contains(['\r', '\n']);
    is_one_line.then(|| Basic { user: user.to_owned(), password: password.to_owned() })
}

impl Document {
    /// What is for a registry: under its name, or under one of the names that its clients write it by.
    fn entry(&self, host: &RegistryHost) -> Option<&Entry> {
        let names: &[&str] = match host.as_str() {
            "docker.io" | "index.docker.io" => &["docker.io", "index.docker.io", "registry-1.docker.io"],
            name => &[name],
        };
        names.iter().find_map(|name| self.auths.iter().find(|(key, _)| plain(key) == *name)).map(|(_, entry)| entry)
    }
}

/// A registry's name out of a key, which may be a URL with the version of the protocol. A key for a part of a registry names none.
fn plain(key: &str) -> &str {
    let name = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let name = name.strip_suffix('/').unwrap_or(name);
    name.strip_suffix("/v1").or_else(|| name.strip_suffix("/v2")).unwrap_or(name)
}

impl Entry {
    fn basic(&self) -> Option<Basic> {
        if let Some(auth) = self.auth.as_deref().filter(|auth| !auth.is_empty()) {
            return parse_line(&String::from_utf8(STANDARD.decode(auth).ok()?).ok()?);
        }
        let (user, password) = (self.username.clone()?, self.password.clone()?);
        (!user.is_empty()).then_some(Basic { user, password })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;

    use super::{is_open, parse_line, read};

    fn found(path: &Path, host: &str) -> Result<(String, String), String> {
        let found = read(path, &host.parse().unwrap());
        found.map(|basic| (basic.user, basic.password)).map_err(|error| error.to_string())
    }

    fn is(user: &str, password: &str) -> (String, String) {
        (user.to_owned(), password.to_owned())
    }

    #[test]
    fn a_file_is_one_line() {
        for (text, expected) in [
            ("me:secret", Some(("me", "secret"))),
            ("me:secret\n", Some(("me", "secret"))),
            ("me:secret\r\n", Some(("me", "secret"))),
            ("me:se:cret \n", Some(("me", "se:cret "))),
            ("me:", Some(("me", ""))),
            ("me", None),
            (":secret", None),
            ("me:secret\nyou:too\n", None),
            ("", None),
        ] {
            let found = parse_line(text);
            let found = found.as_ref().map(|basic| (basic.user.as_str(), basic.password.as_str()));
            assert_eq!(found, expected, "{text:?}");
        }
    }

    #[test]
    fn a_folder_is_a_secret_of_either_type() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        for (user, password, expected) in [
            ("me", "secret", Some(("me", "secret"))),
            ("me\n", "se:cret \n", Some(("me", "se:cret "))),
            ("me", "", Some(("me", ""))),
            ("", "secret", None),
            ("m:e", "secret", None),
            ("me", "secret\nsecret\n", None),
        ] {
            write("username", user);
            write("password", password);
            let found = found(folder.path(), "a.example");
            assert!(!found.as_ref().is_err_and(|error| error.contains("secret")), "{found:?}");
            assert_eq!(found.ok(), expected.map(|(user, password)| is(user, password)), "{user:?}");
        }
        std::fs::remove_file(folder.path().join("username")).unwrap();
        assert!(found(folder.path(), "a.example").unwrap_err().contains("neither username and password"));
        let auth = "bWU6c2VjcmV0"; // me:secret
        let of = |key: &str, entry: &str| format!("{{\"auths\":{{\"other.example\":{{}},\"{key}\":{entry}}}}}");
        let encoded = format!("{{\"auth\":\"{auth}\"}}");
        let plain = "{\"username\":\"me\",\"password\":\"secret\"}";
        for (document, host, expected) in [
            (of("a.example", &encoded), "a.example", "me"),
            (of("a.example", plain), "a.example", "me"),
            (of("https://a.example:5000/v2/", plain), "a.example:5000", "me"),
            (of("https://index.docker.io/v1/", plain), "docker.io", "me"),
            (of("docker.io", plain), "docker.io", "me"),
            (of("registry-1.docker.io", plain), "docker.io", "me"),
            (of("https://index.docker.io/v1/", plain), "ghcr.io", "no entry"),
            (of("a.example/team", plain), "a.example", "no entry"),
            (of("b.a.example", plain), "a.example", "no entry"),
            (of("a.example", "{\"auth\":\"!secret\"}"), "a.example", "no entry"),
            (of("a.example", "{\"identitytoken\":\"secret\"}"), "a.example", "no entry"),
            ("{\"auths\":\"secret\"}".to_owned(), "a.example", "docker login"),
            ("secret".to_owned(), "a.example", "docker login"),
        ] {
            write(".dockerconfigjson", &document);
            match found(folder.path(), host) {
                Ok(found) => assert_eq!((found, expected), (is("me", "secret"), "me"), "{document}"),
                Err(error) => assert!(error.contains(expected) && !error.contains("secret"), "{document}: {error}"),
            }
        }
    }

    #[test]
    fn a_mounted_secret_is_read_in_one_state_and_is_not_open() {
        let folder = tempfile::tempdir().unwrap();
        let mounted = folder.path().join("mounted");
        let state = |name: &str, user: &str, password: &str| {
            let state = mounted.join(name);
            std::fs::create_dir_all(&state).unwrap();
            std::fs::write(state.join("username"), user).unwrap();
            std::fs::write(state.join("password"), password).unwrap();
        };
        state("..1", "one", "first");
        state("..2", "two", "second");
        symlink("..1", mounted.join("..data")).unwrap();
        for name in ["username", "password"] {
            symlink(format!("..data/{name}"), mounted.join(name)).unwrap();
        }
        assert_eq!(found(&mounted, "a.example"), Ok(is("one", "first")));
        symlink("..2", mounted.join("..next")).unwrap();
        std::fs::rename(mounted.join("..next"), mounted.join("..data")).unwrap();
        assert_eq!(found(&mounted, "a.example"), Ok(is("two", "second")));
        assert!(!is_open(&mounted) && !is_open(&mounted.join("password")));
        let open = folder.path().join("open");
        std::fs::create_dir(&open).unwrap();
        for (mode, expected) in [(0o644, true), (0o640, false)] {
            let file = open.join("password");
            std::fs::write(&file, "x").unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).unwrap();
            assert_eq!((is_open(&open), is_open(&file)), (expected, expected), "{mode:o}");
        }
    }
}
