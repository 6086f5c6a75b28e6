//! The entries of the plan as files on the node: what has to change, and how it is changed so that a crash at any point
//! leaves nothing that a later pass, or restore, does not put right. Files that Wharf did not write are never touched.
//!
//! | Leftover on disk | Who may move it | What a restart does |
//! |---|---|---|
//! | `.wharf-*.tmp`, a file or folder that was being made or removed | any pass; the name is ours alone | removes it |
//! | a folder with the file `.wharf` and nothing else | any pass: Wharf made it | fills it, or removes it |
//! | `wharf-ca.crt` with our first line, no `hosts.toml` | any pass | writes `hosts.toml`, or removes it |
//! | `hosts.toml` with our first line | any pass | leaves, updates or removes it, by the plan |
//! | a file of the user's in a folder that Wharf made | the user | takes `.wharf` away with the last entry, leaves the folder |
//! | `hosts.toml` or `wharf-ca.crt` without our first line | the user | leaves it, reports `Conflict` |
//! | our `wharf-ca.crt` that a user's `hosts.toml` names | the user | leaves it: a missing `ca` would fail every pull |
//! | a symbolic link or a file in place of a host's folder | the user | leaves it, reports `Conflict` |

pub mod disk;
mod pass;

use super::hosts::{AUTHORITY_FILE, HOSTS_FILE, HostFiles};

pub use pass::{Outcome, apply, restore};

/// One of the two files of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// The certificates.
    Authority,
    /// What containerd reads.
    Hosts,
}

impl File {
    /// The file's name in the folder of its host.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Authority => AUTHORITY_FILE,
            Self::Hosts => HOSTS_FILE,
        }
    }
}

/// What stands where one of our files would go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FoundFile {
    /// Nothing.
    #[default]
    Absent,
    /// A file of ours, with its text.
    Ours(String),
    /// Something of the user's.
    Foreign {
        /// It speaks of our [`AUTHORITY_FILE`].
        names_authority: bool,
    },
}

/// A folder as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundFolder {
    /// Wharf made it: our mark is in it.
    pub ours: bool,
    /// [`HOSTS_FILE`].
    pub hosts: FoundFile,
    /// [`AUTHORITY_FILE`].
    pub authority: FoundFile,
    /// Temporary names of ours.
    pub leftovers: Vec<String>,
    /// There is something else in it.
    pub others: bool,
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
            Self::Write(File::Hosts, _) => "write_hosts",
            Self::Remove(File::Authority) => "remove_authority",
            Self::Remove(File::Hosts) => "remove_hosts",
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
pub fn decide(wanted: Option<&HostFiles>, found: &Found) -> Decision {
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
    if matches!(folder.hosts, FoundFile::Foreign { .. }) {
        changes.extend(removal(folder));
        return Decision { changes, obstacle: Some(Obstacle::File(File::Hosts)) };
    }
    if wanted.authority.is_some() && matches!(folder.authority, FoundFile::Foreign { .. }) {
        return Decision { changes, obstacle: Some(Obstacle::File(File::Authority)) };
    }
    if *found == Found::Nothing {
        changes.push(Change::MakeFolder);
    }
    // The certificates stand before the file that names them, and go after it.
    if let Some(text) = wanted.authority.as_ref().filter(|text| !holds(&folder.authority, text)) {
        changes.push(Change::Write(File::Authority, text.clone()));
    }
    if !holds(&folder.hosts, &wanted.hosts) {
        changes.push(Change::Write(File::Hosts, wanted.hosts.clone()));
    }
    if wanted.authority.is_none() && matches!(folder.authority, FoundFile::Ours(_)) {
        changes.push(Change::Remove(File::Authority));
    }
    Decision { changes, obstacle: None }
}

/// Removes what is ours from a folder.
fn removal(folder: &FoundFolder) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut stays = folder.others;
    match folder.hosts {
        FoundFile::Ours(_) => changes.push(Change::Remove(File::Hosts)),
        FoundFile::Foreign { .. } => stays = true,
        FoundFile::Absent => {}
    }
    let in_use = folder.hosts == FoundFile::Foreign { names_authority: true };
    match folder.authority {
        FoundFile::Ours(_) if !in_use => changes.push(Change::Remove(File::Authority)),
        FoundFile::Ours(_) | FoundFile::Foreign { .. } => stays = true,
        FoundFile::Absent => {}
    }
    if folder.ours {
        changes.push(if stays { Change::RemoveMark } else { Change::RemoveFolder });
    }
    changes
}

fn holds(found: &FoundFile, text: &str) -> bool {
    matches!(found, FoundFile::Ours(found) if found == text)
}

#[cfg(test)]
mod tests;
