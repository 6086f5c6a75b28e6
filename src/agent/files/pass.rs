//! One comparison of the node with the plan, and the way back to how the node was. What fails at one host never stops
//! the others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::disk::{Disk, Error};
use super::{Change, Found, FoundFolder, Obstacle, decide};
use crate::agent::hosts::{HostFiles, HostName, Refusal, render};
use crate::agent::runtime::{ConfigPath, Unable};
use crate::api::node_runtime::HostException;
use crate::api::reason;
use crate::plan::Plan;

/// How deep below the root entries are searched for when the node is restored.
const DEEPEST: usize = 8;

/// What a pass did and found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// How many hosts of the plan stand as planned.
    pub written: usize,
    /// Hosts that are not in order, by name.
    pub exceptions: Vec<HostException>,
    /// Something failed that may work when it is tried again.
    pub retry: bool,
}

/// Makes the folders at `paths` hold the plan's entries and no others of ours. `count` is called with the kind of each
/// change that was made. When `stop` is cancelled, the pass ends after the host it is at; the outcome is then worthless.
///
/// # Errors
/// When a folder at `paths` cannot be used at all.
pub fn apply(
    disk: &Disk,
    paths: &[ConfigPath],
    plan: &Plan,
    stop: &CancellationToken,
    count: &dyn Fn(&'static str),
) -> Result<Outcome, Unable> {
    let mut exceptions = BTreeMap::new();
    let mut retry = false;
    for path in paths {
        let folder = prepare(disk, path, !plan.hosts.is_empty(), count)?;
        let pass = Pass { disk, folder: &folder, count };
        // Removal first: what is no longer wanted goes even when the disk is full.
        for host in unwanted(disk, &folder, plan)? {
            if stop.is_cancelled() {
                break;
            }
            if let Err(error) = pass.host(&host, None) {
                retry = true;
                exceptions.insert(host.as_str().to_owned(), failed(&host, &error));
            }
        }
        for (name, entry) in &plan.hosts {
            if stop.is_cancelled() {
                break;
            }
            let host = HostName::parse(name);
            let wanted = host.and_then(|host| Ok((render(&host, entry, &plan.authority, path.as_str())?, host)));
            let exception = match wanted {
                Err(refusal) => Some(refused(name, &refusal)),
                Ok((files, host)) => match pass.host(&host, Some(&files)) {
                    Ok(None) => None,
                    Ok(Some(obstacle)) => Some(pass.conflict(&host, obstacle)),
                    Err(error) => {
                        retry = true;
                        Some(failed(&host, &error))
                    }
                },
            };
            exceptions.extend(exception.map(|exception| (name.clone(), exception)));
        }
        if plan.hosts.is_empty() {
            clean(disk, path, count)?;
        }
    }
    let wrong = exceptions.keys().filter(|host| plan.hosts.contains_key(*host)).count();
    Ok(Outcome { written: plan.hosts.len() - wrong, exceptions: exceptions.into_values().collect(), retry })
}

/// Removes everything of ours below the root, wherever a configuration once had it written. Returns what could not be
/// removed. When `stop` is cancelled it ends after the folder it is at.
pub fn restore(disk: &Disk, stop: &CancellationToken, count: &dyn Fn(&'static str)) -> Vec<Error> {
    let mut errors = Vec::new();
    restore_below(disk, disk.root(), 0, stop, count, &mut errors);
    errors
}

fn restore_below(
    disk: &Disk,
    folder: &Path,
    depth: usize,
    stop: &CancellationToken,
    count: &dyn Fn(&'static str),
    errors: &mut Vec<Error>,
) {
    if stop.is_cancelled() || depth > DEEPEST {
        return;
    }
    let names = disk.names(folder).unwrap_or_else(|error| {
        errors.push(error);
        Vec::new()
    });
    for inner in names.iter().map(|name| folder.join(name)) {
        if inner.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
            restore_below(disk, &inner, depth + 1, stop, count, errors);
        }
    }
    if let Err(error) = (Pass { disk, folder, count }).at(folder, None) {
        errors.push(error);
    }
}

struct Pass<'a> {
    disk: &'a Disk,
    folder: &'a Path,
    count: &'a dyn Fn(&'static str),
}

impl Pass<'_> {
    fn host(&self, host: &HostName, wanted: Option<&HostFiles>) -> Result<Option<Obstacle>, Error> {
        self.at(&self.folder.join(host.as_str()), wanted)
    }

    fn at(&self, place: &Path, wanted: Option<&HostFiles>) -> Result<Option<Obstacle>, Error> {
        let decision = decide(wanted, &self.disk.look(place)?);
        for change in &decision.changes {
            self.disk.carry_out(place, change)?;
            (self.count)(change.kind());
        }
        Ok(decision.obstacle)
    }

    fn conflict(&self, host: &HostName, obstacle: Obstacle) -> HostException {
        let place = self.folder.join(host.as_str());
        let (path, what) = match obstacle {
            Obstacle::Folder => (place, "is no folder"),
            Obstacle::File(file) => (place.join(file.name()), "was not written by Wharf"),
        };
        let (host, path) = (host.as_str(), self.disk.on_node(&path));
        let message = format!("{host} has no entry: {path} {what} and is left alone; remove it to let Wharf write");
        HostException { host: host.to_owned(), reason: reason::CONFLICT.to_owned(), message }
    }
}

/// The folder of a config path, without leftovers of ours on the way to it. It is made if it is needed and missing.
fn prepare(disk: &Disk, path: &ConfigPath, needed: bool, count: &dyn Fn(&'static str)) -> Result<PathBuf, Unable> {
    let mut folder = disk.root().to_owned();
    sweep(disk, &folder, count);
    for level in path.levels() {
        folder.push(level);
        match disk.look(&folder).map_err(|error| unusable(&error))? {
            Found::NotAFolder => {
                let message = format!(
                    "{} is a symbolic link or a file; Wharf follows no links and needs a folder",
                    disk.on_node(&folder)
                );
                return Err(Unable::new(reason::CONFLICT, message));
            }
            Found::Nothing if needed => {
                disk.carry_out(&folder, &Change::MakeFolder).map_err(|error| unusable(&error))?;
                count(Change::MakeFolder.kind());
            }
            Found::Nothing => {}
            Found::Folder(_) => sweep(disk, &folder, count),
        }
    }
    Ok(folder)
}

/// Removes leftovers of ours from a folder. One that stays does no harm to any entry.
fn sweep(disk: &Disk, folder: &Path, count: &dyn Fn(&'static str)) {
    let leftovers = match disk.look(folder) {
        Ok(Found::Folder(FoundFolder { leftovers, .. })) => leftovers,
        Ok(_) => Vec::new(),
        Err(error) => {
            tracing::warn!(%error, "leftovers cannot be searched for");
            Vec::new()
        }
    };
    for change in leftovers.into_iter().map(Change::Sweep) {
        match disk.carry_out(folder, &change) {
            Ok(()) => count(change.kind()),
            Err(error) => tracing::warn!(%error, "a leftover stays"),
        }
    }
}

/// Removes the folders that Wharf made on the way to a config path, from the deepest up.
fn clean(disk: &Disk, path: &ConfigPath, count: &dyn Fn(&'static str)) -> Result<(), Unable> {
    let levels: Vec<&str> = path.levels().collect();
    for depth in (1..=levels.len()).rev() {
        let folder: PathBuf = std::iter::once(disk.root()).chain(levels.iter().take(depth).map(Path::new)).collect();
        Pass { disk, folder: &folder, count }.at(&folder, None).map_err(|error| unusable(&error))?;
    }
    Ok(())
}

fn unwanted(disk: &Disk, folder: &Path, plan: &Plan) -> Result<Vec<HostName>, Unable> {
    let names = disk.names(folder).map_err(|error| unusable(&error))?;
    Ok(names
        .iter()
        .filter(|name| !plan.hosts.contains_key(*name))
        .filter_map(|name| HostName::parse(name).ok())
        .collect())
}

fn unusable(error: &Error) -> Unable {
    Unable::new(reason::WRITE_FAILED, error.to_string())
}

fn failed(host: &HostName, error: &Error) -> HostException {
    HostException {
        host: host.as_str().to_owned(),
        reason: reason::WRITE_FAILED.to_owned(),
        message: error.to_string(),
    }
}

fn refused(host: &str, refusal: &Refusal) -> HostException {
    HostException { host: host.to_owned(), reason: reason::WRITE_FAILED.to_owned(), message: refusal.to_string() }
}
