//! One comparison of the node with the plan, and the way back to how the node was. What fails at one host never stops
//! the others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::disk::{Disk, Error};
use super::{Change, File, Found, FoundFolder, Obstacle, Wanted, decide};
use crate::agent::hosts::{HostName, Refusal, render};
use crate::agent::local::Local;
use crate::agent::runtime::{ConfigPath, Unable};
use crate::api::node_runtime::HostException;
use crate::api::reason;
use crate::plan::{Entry, OwnerKind, Plan};

/// How deep below the root entries are searched for when the node is restored.
const DEEPEST: usize = 8;
/// The folder that containerd reads for a host that has none of its own.
const DEFAULT_FOLDER: &str = "_default";

/// What a pass did and found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// The hosts of the plan that stand as planned.
    pub standing: BTreeSet<String>,
    /// Those of them of which a file was written.
    pub changed: BTreeSet<String>,
    /// Hosts that are not in order, by name.
    pub exceptions: Vec<HostException>,
    /// Something failed that may work when it is tried again.
    pub retry: bool,
}

/// Where a pass works, and to what end.
#[derive(Clone, Copy)]
pub struct At<'a> {
    /// The folder of the node's containerd.
    pub disk: &'a Disk,
    /// The folders that hold one folder a host.
    pub paths: &'a [ConfigPath],
    /// What is wanted on this node.
    pub plan: &'a Plan,
    /// The node's own endpoint.
    pub local: &'a Local,
}

/// Makes the folders at the paths hold the plan's entries and no others of ours. `count` is called with the kind of each
/// change that was made. When `stop` is cancelled, the pass ends after the host it is at; the outcome is then worthless.
///
/// # Errors
/// When a folder at the paths cannot be used at all.
pub fn apply(at: At<'_>, stop: &CancellationToken, count: &dyn Fn(&'static str)) -> Result<Outcome, Unable> {
    let At { disk, paths, plan, .. } = at;
    let mut tally = Tally::default();
    for path in paths {
        let folder = prepare(disk, path.levels(), !plan.hosts.is_empty(), count)?;
        let pass = Pass { disk, folder: &folder, count };
        // Removal first: what is no longer wanted goes even when the disk is full.
        for host in unwanted(disk, &folder, plan)? {
            if stop.is_cancelled() {
                break;
            }
            if let Err(error) = pass.host(&host, None) {
                tally.fail(&host, &error);
            }
        }
        for (name, entry) in &plan.hosts {
            if stop.is_cancelled() {
                break;
            }
            match HostName::parse(name) {
                Err(refusal) => tally.except(refused(name, &refusal)),
                Ok(host) => match pass.entry(&host, entry, at, path) {
                    Ok(Done::Stands { written }) => tally.changed.extend(written.then(|| name.clone())),
                    Ok(Done::Not(exception)) => tally.except(exception),
                    Err(error) => tally.fail(&host, &error),
                },
            }
        }
        if plan.hosts.is_empty() {
            clean(disk, path, count)?;
        }
    }
    Ok(tally.outcome(plan))
}

/// What a pass has found so far.
#[derive(Default)]
struct Tally {
    exceptions: BTreeMap<String, HostException>,
    changed: BTreeSet<String>,
    retry: bool,
}

impl Tally {
    fn except(&mut self, exception: HostException) {
        self.exceptions.insert(exception.host.clone(), exception);
    }

    fn fail(&mut self, host: &HostName, error: &Error) {
        self.retry = true;
        self.except(failed(host, error));
    }

    fn outcome(self, plan: &Plan) -> Outcome {
        let Self { exceptions, mut changed, retry } = self;
        let hosts = plan.hosts.keys();
        let standing: BTreeSet<String> = hosts.filter(|host| !exceptions.contains_key(*host)).cloned().collect();
        changed.retain(|host| standing.contains(host));
        Outcome { standing, changed, exceptions: exceptions.into_values().collect(), retry }
    }
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

/// What became of an entry.
enum Done {
    /// It stands as planned.
    Stands {
        /// A file of it was written just now.
        written: bool,
    },
    /// It does not, for this reason.
    Not(HostException),
}

pub(super) struct Pass<'a> {
    pub(super) disk: &'a Disk,
    pub(super) folder: &'a Path,
    pub(super) count: &'a dyn Fn(&'static str),
}

impl Pass<'_> {
    fn entry(&self, host: &HostName, entry: &Entry, at: At<'_>, path: &ConfigPath) -> Result<Done, Error> {
        let local = at.local.endpoint();
        let wanted = match render(host, entry, &at.plan.authority, local, path.as_str()) {
            Ok(wanted) => wanted,
            Err(Refusal::NoEndpoint(_)) => {
                self.host(host, None)?;
                return Ok(Done::Not(no_endpoint(host, at.local)));
            }
            Err(refusal) => return Ok(Done::Not(refused(host.as_str(), &refusal))),
        };
        if let Some(message) = self.elsewhere(host, entry.owner.kind)? {
            self.host(host, None)?;
            return Ok(Done::Not(conflict(host, &message)));
        }
        let (written, obstacle) = self.host(host, Some(&wanted))?;
        Ok(match obstacle {
            None => Done::Stands { written },
            Some(obstacle) => {
                Done::Not(conflict(host, &obstruction(self.disk, &self.folder.join(host.as_str()), obstacle)))
            }
        })
    }

    fn host(&self, host: &HostName, wanted: Option<&Wanted>) -> Result<(bool, Option<Obstacle>), Error> {
        self.at(&self.folder.join(host.as_str()), wanted)
    }

    /// Whether a file was written, and what stands in the way.
    pub(super) fn at(&self, place: &Path, wanted: Option<&Wanted>) -> Result<(bool, Option<Obstacle>), Error> {
        let decision = decide(wanted, &self.disk.look(place)?);
        for change in &decision.changes {
            self.disk.carry_out(place, change)?;
            (self.count)(change.kind());
        }
        let written = decision.changes.iter().any(|change| matches!(change, Change::Write(..)));
        Ok((written, decision.obstacle))
    }

    /// What of the user's, at another place, decides how the node pulls from a host.
    fn elsewhere(&self, host: &HostName, kind: OwnerKind) -> Result<Option<String>, Error> {
        let name = host.as_str();
        if let Some(shadow) = host.shadow().map(|shadow| self.folder.join(shadow))
            && self.disk.look(&shadow)? != Found::Nothing
        {
            let path = self.disk.on_node(&shadow);
            return Ok(Some(format!(
                "containerd reads {path}, which Wharf did not make, before the folder {name}; remove it"
            )));
        }
        // A Registry's host is served by nobody else. Of other hosts, pulls may work by this folder alone.
        if kind == OwnerKind::Registry {
            return Ok(None);
        }
        let default = self.folder.join(DEFAULT_FOLDER);
        let is_used = match self.disk.look(&default)? {
            Found::Nothing => false,
            Found::NotAFolder => true,
            Found::Folder(folder) => folder.certificates || folder.files.contains_key(&File::Hosts),
        };
        let path = self.disk.on_node(&default);
        Ok(is_used.then(|| {
            format!(
                "{path} decides how this node pulls from hosts without a folder of their own, and a folder for {name} would \
                 take that away; remove it"
            )
        }))
    }
}

/// What stands in the way at a place.
pub(super) fn obstruction(disk: &Disk, place: &Path, obstacle: Obstacle) -> String {
    let (path, what) = match obstacle {
        Obstacle::Folder => (place.to_owned(), "is no folder"),
        Obstacle::File(file) => (place.join(file.name()), "was not written by Wharf"),
        Obstacle::Certificates => (place.to_owned(), "holds certificates by which containerd knows this registry"),
    };
    format!("{} {what} and is left alone; remove it", disk.on_node(&path))
}

/// The folder these levels below the root, without leftovers of ours on the way to it. It is made if it is needed and missing.
pub(super) fn prepare<'a>(
    disk: &Disk,
    levels: impl IntoIterator<Item = &'a str>,
    needed: bool,
    count: &dyn Fn(&'static str),
) -> Result<PathBuf, Unable> {
    let mut folder = disk.root().to_owned();
    sweep(disk, &folder, count);
    for level in levels {
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

pub(super) fn unusable(error: &Error) -> Unable {
    Unable::new(reason::WRITE_FAILED, error.to_string())
}

fn failed(host: &HostName, error: &Error) -> HostException {
    HostException {
        host: host.as_str().to_owned(),
        reason: reason::WRITE_FAILED.to_owned(),
        message: error.to_string(),
    }
}

pub(super) fn conflict(host: &HostName, what: &str) -> HostException {
    let host = host.as_str();
    let message = format!("{host} has no entry: {what} to let Wharf write");
    HostException { host: host.to_owned(), reason: reason::CONFLICT.to_owned(), message }
}

pub(super) fn no_endpoint(host: &HostName, local: &Local) -> HostException {
    let host = host.as_str().to_owned();
    let (reason, why) = local.finding();
    let message = format!("{host} has no entry, and images come from the registry itself: {why}");
    HostException { host, reason: reason.to_owned(), message }
}

pub(super) fn refused(host: &str, refusal: &Refusal) -> HostException {
    HostException { host: host.to_owned(), reason: reason::WRITE_FAILED.to_owned(), message: refusal.to_string() }
}
