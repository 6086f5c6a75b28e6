//! The only place that touches the node's files. Each step ends with the data and the folder synced, so that steps reach
//! the disk in their order. It must never follow a symbolic link, and never remove what it has not looked at.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{Change, File, Found, FoundFile, FoundFolder};
use crate::agent::hosts::{folder_mark, is_ours};
use crate::plan::digest_of;

/// The file that says that Wharf made the folder it lies in.
const MARK_FILE: &str = ".wharf";
const TEMPORARY_PREFIX: &str = ".wharf-";
const TEMPORARY_SUFFIX: &str = ".tmp";
/// What containerd reads in a folder without a `hosts.toml`.
const CERTIFICATE_ENDINGS: [&str; 3] = [".crt", ".cert", ".key"];
/// A file that is larger than this is not ours.
const LARGEST_FILE: u64 = 1024 * 1024;
const FILE_MODE: u32 = 0o644;
const FOLDER_MODE: u32 = 0o755;

/// A step that failed.
#[derive(Debug, Error)]
#[error("cannot {doing} {path}: {source}")]
pub struct Error {
    /// What was tried.
    pub doing: &'static str,
    /// On what, as the node sees it.
    pub path: String,
    /// The system's answer.
    pub source: io::Error,
}

/// A folder of the node, with what is in it, as the agent sees it.
#[derive(Clone, Debug)]
pub struct Disk {
    root: PathBuf,
    node_root: &'static str,
}

impl Disk {
    /// The node's folder `node_root`, which is mounted at `root`.
    #[must_use]
    pub fn new(root: PathBuf, node_root: &'static str) -> Self {
        Self { root, node_root }
    }

    /// Where the folder is mounted.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path as the node sees it.
    #[must_use]
    pub fn on_node(&self, path: &Path) -> String {
        let inside = path.strip_prefix(&self.root).unwrap_or(path);
        Path::new(self.node_root).join(inside).to_string_lossy().trim_end_matches('/').to_owned()
    }

    fn fail(&self, doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<'_> {
        let path = self.on_node(path);
        move |source| Error { doing, path, source }
    }

    /// The names in a folder, sorted; none if there is no folder.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn names(&self, folder: &Path) -> Result<Vec<String>, Error> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.fail("list", folder)(error)),
        };
        let names: io::Result<Vec<_>> = entries.map(|entry| Ok(entry?.file_name().into_string().ok())).collect();
        let mut names: Vec<String> = names.map_err(self.fail("list", folder))?.into_iter().flatten().collect();
        names.sort();
        Ok(names)
    }

    /// What stands at a folder's place.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn look(&self, folder: &Path) -> Result<Found, Error> {
        match folder.symlink_metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(self.fail("look at", folder)(error)),
            Ok(metadata) if !metadata.is_dir() => return Ok(Found::NotAFolder),
            Ok(_) => {}
        }
        let mut found = FoundFolder::default();
        // Names that are not UTF-8 count as the user's.
        let entries = fs::read_dir(folder).map_err(self.fail("list", folder))?;
        for entry in entries {
            let name = entry.map_err(self.fail("list", folder))?.file_name();
            let name = name.to_str().unwrap_or_default();
            if let Some(file) = File::ALL.into_iter().find(|file| file.name() == name) {
                found.files.insert(file, self.look_at_file(&folder.join(name))?);
            } else if name == MARK_FILE {
                found.ours = matches!(self.look_at_file(&folder.join(name))?, FoundFile::Ours(_));
                found.others |= !found.ours;
            } else if is_temporary(name) {
                found.leftovers.push(name.to_owned());
            } else {
                found.others = true;
                found.certificates |= CERTIFICATE_ENDINGS.iter().any(|ending| name.ends_with(ending));
            }
        }
        found.leftovers.sort();
        Ok(Found::Folder(found))
    }

    fn look_at_file(&self, path: &Path) -> Result<FoundFile, Error> {
        let foreign = FoundFile::Foreign { names: BTreeSet::new() };
        let metadata = path.symlink_metadata().map_err(self.fail("look at", path))?;
        if !metadata.is_file() || metadata.len() > LARGEST_FILE {
            return Ok(foreign);
        }
        let mut bytes = Vec::new();
        let file = fs::File::open(path).map_err(self.fail("read", path))?;
        file.take(LARGEST_FILE).read_to_end(&mut bytes).map_err(self.fail("read", path))?;
        Ok(match String::from_utf8(bytes) {
            Ok(text) if is_ours(&text) => FoundFile::Ours(text),
            Ok(text) => {
                let names = File::ALL.into_iter().filter(|file| file.is_certificate() && text.contains(file.name()));
                FoundFile::Foreign { names: names.collect() }
            }
            Err(_) => foreign,
        })
    }

    /// Carries out one step at a folder's place.
    ///
    /// # Errors
    /// When the system refuses; what was there before is then still there, whole.
    pub fn carry_out(&self, folder: &Path, change: &Change) -> Result<(), Error> {
        match change {
            Change::Sweep(name) => sweep(&folder.join(name)).map_err(self.fail("remove", &folder.join(name))),
            Change::MakeFolder => make_folder(folder).map_err(self.fail("make the folder", folder)),
            Change::Write(file, text) => self.write(folder, *file, text),
            Change::Remove(file) => remove_file(folder, file.name()).map_err(self.fail("remove", folder)),
            Change::RemoveMark => remove_file(folder, MARK_FILE).map_err(self.fail("remove the mark of", folder)),
            Change::RemoveFolder => remove_folder(folder).map_err(self.fail("remove the folder", folder)),
        }
    }

    fn write(&self, folder: &Path, file: File, text: &str) -> Result<(), Error> {
        let path = folder.join(file.name());
        let temporary = temporary(&path);
        let written = write_synced(&temporary, text)
            .and_then(|()| fs::rename(&temporary, &path))
            .and_then(|()| sync_folder(folder));
        written.map_err(|error| {
            // The next pass sweeps it if this fails too.
            let _ = fs::remove_file(&temporary);
            self.fail("write", &path)(error)
        })
    }
}

/// The temporary name beside a path. It is short however long the name is.
fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let digest = digest_of(&name);
    path.with_file_name(format!("{TEMPORARY_PREFIX}{}{TEMPORARY_SUFFIX}", digest.get(..16).unwrap_or(&digest)))
}

fn is_temporary(name: &str) -> bool {
    name.starts_with(TEMPORARY_PREFIX) && name.ends_with(TEMPORARY_SUFFIX)
}

fn write_synced(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)?;
    file.set_permissions(Permissions::from_mode(FILE_MODE))?; // Whatever the umask is.
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

fn parent(path: &Path) -> io::Result<&Path> {
    path.parent().ok_or_else(|| io::Error::from(ErrorKind::InvalidInput))
}

/// Makes a folder that holds our mark from its first moment on.
fn make_folder(folder: &Path) -> io::Result<()> {
    let temporary = temporary(folder);
    sweep(&temporary)?;
    fs::create_dir(&temporary)?;
    fs::set_permissions(&temporary, Permissions::from_mode(FOLDER_MODE))?;
    write_synced(&temporary.join(MARK_FILE), &folder_mark())?;
    sync_folder(&temporary)?;
    fs::rename(&temporary, folder)?;
    sync_folder(parent(folder)?)
}

/// Removes a folder that holds nothing but our mark. It keeps the mark, or our temporary name, until it is gone.
fn remove_folder(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        if entry?.file_name() != MARK_FILE {
            return Err(ErrorKind::DirectoryNotEmpty.into()); // Somebody was faster than we.
        }
    }
    let temporary = temporary(folder);
    sweep(&temporary)?;
    fs::rename(folder, &temporary)?;
    sweep(&temporary)?;
    sync_folder(parent(folder)?)
}

fn remove_file(folder: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(folder.join(name)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => sync_folder(folder),
    }
}

/// Removes a temporary file, or a temporary folder with our mark or nothing in it.
fn sweep(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(metadata) if metadata.is_dir() => {
            remove_file(path, MARK_FILE)?;
            fs::remove_dir(path)
        }
        Ok(_) => fs::remove_file(path),
    }
}
