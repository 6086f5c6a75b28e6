//! The entries of the plan as files on the node: what has to change, and how it is changed so that a crash at any point
//! leaves nothing that a later pass, or restore, does not put right. Files that Wharf did not write are never touched.
//!
//! | Leftover on disk | Who may move it | What a restart does |
//! |---|---|---|
//! | `.wharf-*.tmp`, a file or folder that was being made or removed | any pass; the name is ours alone | removes it |
//! | a folder with the file `.wharf` and nothing else | any pass: Wharf made it | fills it, or removes it |
//! | `wharf-ca.crt` or `wharf-node.crt` with our first line, no `hosts.toml` | any pass | writes `hosts.toml`, or removes it |
//! | `hosts.toml` with our first line | any pass | leaves, updates or removes it, by the plan |
//! | `50-wharf.conf` with our first line | any pass | leaves, updates or removes it, by the plan |
//! | a file of the user's in a folder that Wharf made | the user | takes `.wharf` away with the last entry, leaves the folder |
//! | one of these files without our first line | the user | leaves it, reports `Conflict` |
//! | a certificate of ours that a user's `hosts.toml` names | the user | leaves it: a missing `ca` would fail every pull |
//! | a user's certificates, and no `hosts.toml`, for a host of a Mirror | the user | leaves them, reports `Conflict`: a `hosts.toml` would take their effect |
//! | a symbolic link or a file in place of a host's folder | the user | leaves it, reports `Conflict` |

pub mod containers;
pub mod disk;
mod pass;

use std::collections::{BTreeMap, BTreeSet};

use super::hosts::{AUTHORITY_FILE, HOSTS_FILE, NODE_FILE};
use super::runtime::containers::REGISTRIES_FILE;

pub use pass::{At, Outcome, apply, restore};

/// One of the files that Wharf writes. They are written in this order and removed in the other, so that what a file names is
/// there before it and goes after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum File {
    /// The certificates of the authority.
    Authority,
    /// The certificate of the node's own endpoint.
    NodeCertificate,
    /// What containerd reads.
    Hosts,
    /// What podman and CRI-O read.
    Registries,
}

impl File {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Authority, Self::NodeCertificate, Self::Hosts, Self::Registries];

    /// The file's name in its folder.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Authority => AUTHORITY_FILE,
            Self::NodeCertificate => NODE_FILE,
            Self::Hosts => HOSTS_FILE,
            Self::Registries => REGISTRIES_FILE,
        }
    }

    fn is_certificate(self) -> bool {
        matches!(self, Self::Authority | Self::NodeCertificate)
    }
}

/// What a folder must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The texts of the files.
    pub texts: BTreeMap<File, String>,
    /// The host has a registry of its own, which is asked with the user's certificates where they lie here.
    pub falls_back: bool,
}

/// What stands where one of our files would go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundFile {
    /// A file of ours, with its text.
    Ours(String),
    /// Something of the user's.
    Foreign {
        /// It speaks of these certificates of ours.
        names: BTreeSet<File>,
    },
}

/// A folder as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundFolder {
    /// Wharf made it: our mark is in it.
    pub ours: bool,
    /// What stands under the names of our files.
    pub files: BTreeMap<File, FoundFile>,
    /// Temporary names of ours.
    pub leftovers: Vec<String>,
    /// There is something else in it.
    pub others: bool,
    /// There are certificates or keys of the user's in it.
    pub certificates: bool,
}

/// What stands at a host's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A folder.
    Folder(FoundFolder),
    /// A symbolic link or a file.
    NotAFolder,
}

/// One step. The order of steps is part of the decision: after each one the runtime can read what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Removes a temporary name of ours.
    Sweep(String),
    /// Makes the folder, with our mark in it.
    MakeFolder,
    /// Writes a file whole, under a temporary name first.
    Write(File, String),
    /// Removes a file.
    Remove(File),
    /// Takes our mark away from a folder that stays.
    RemoveMark,
    /// Removes the folder with our mark in it.
    RemoveFolder,
}

impl Change {
    /// The kind of the change, as a metric's label.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sweep(_) => "sweep",
            Self::MakeFolder => "make_folder",
            Self::Write(File::Authority, _) => "write_authority",
            Self::Write(File::NodeCertificate, _) => "write_node_certificate",
            Self::Write(File::Hosts, _) => "write_hosts",
            Self::Write(File::Registries, _) => "write_registries",
            Self::Remove(File::Authority) => "remove_authority",
            Self::Remove(File::NodeCertificate) => "remove_node_certificate",
            Self::Remove(File::Hosts) => "remove_hosts",
            Self::Remove(File::Registries) => "remove_registries",
            Self::RemoveMark => "remove_mark",
            Self::RemoveFolder => "remove_folder",
        }
    }
}

/// What of the user's stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// A link or file instead of the folder.
    Folder,
    /// This file.
    File(File),
    /// Certificates for the registry itself.
    Certificates,
}

/// What to do at one host's place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// The steps, in order.
    pub changes: Vec<Change>,
    /// Why the host does not get what is wanted.
    pub obstacle: Option<Obstacle>,
}

/// Compares what is wanted at a host's place, if anything, with what stands there.
#[must_use]
pub fn decide(wanted: Option<&Wanted>, found: &Found) -> Decision {
    let nothing = FoundFolder::default();
    let folder = match found {
        Found::NotAFolder => return Decision { changes: Vec::new(), obstacle: wanted.map(|_| Obstacle::Folder) },
        Found::Nothing => &nothing,
        Found::Folder(folder) => folder,
    };
    let mut changes: Vec<Change> = folder.leftovers.iter().cloned().map(Change::Sweep).collect();
    let Some(wanted) = wanted else {
        changes.extend(removal(folder));
        return Decision { changes, obstacle: None };
    };
    let is_foreign = |file: &File| matches!(folder.files.get(file), Some(FoundFile::Foreign { .. }));
    let foreign = wanted.texts.keys().rev().copied().find(is_foreign);
    let obstacle = match foreign {
        None if wanted.falls_back && folder.certificates => Some(Obstacle::Certificates),
        foreign => foreign.map(Obstacle::File),
    };
    match obstacle {
        // One of ours may still name the certificates of before.
        Some(Obstacle::File(file)) if file.is_certificate() => return Decision { changes, obstacle },
        Some(_) => {
            changes.extend(removal(folder));
            return Decision { changes, obstacle };
        }
        None => {}
    }
    if *found == Found::Nothing {
        changes.push(Change::MakeFolder);
    }
    let is_missing = |(file, text): &(&File, &String)| !holds(folder.files.get(file), text);
    changes.extend(wanted.texts.iter().filter(is_missing).map(|(file, text)| Change::Write(*file, text.clone())));
    let superfluous =
        |(file, found): &(&File, &FoundFile)| matches!(found, FoundFile::Ours(_)) && !wanted.texts.contains_key(file);
    changes.extend(folder.files.iter().rev().filter(superfluous).map(|(file, _)| Change::Remove(*file)));
    Decision { changes, obstacle: None }
}

/// Removes what is ours from a folder.
fn removal(folder: &FoundFolder) -> Vec<Change> {
    let named = |file: &File| {
        folder.files.values().any(|found| matches!(found, FoundFile::Foreign { names } if names.contains(file)))
    };
    let mut changes = Vec::new();
    let mut stays = folder.others;
    for (file, found) in folder.files.iter().rev() {
        match found {
            FoundFile::Ours(_) if !named(file) => changes.push(Change::Remove(*file)),
            FoundFile::Ours(_) | FoundFile::Foreign { .. } => stays = true,
        }
    }
    if folder.ours {
        changes.push(if stays { Change::RemoveMark } else { Change::RemoveFolder });
    }
    changes
}

fn holds(found: Option<&FoundFile>, text: &str) -> bool {
    matches!(found, Some(FoundFile::Ours(found)) if found == text)
}

#[cfg(test)]
mod tests;
