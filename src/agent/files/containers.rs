//! The files of podman and CRI-O: one file for the hosts of all Mirrors, and the certificate of the node's own endpoint. The
//! certificate is there before the file that leads to it, and goes after it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::disk::Disk;
use super::pass::{Outcome, Pass, conflict, no_endpoint, obstruction, prepare, refused, unusable};
use super::{File, Found, FoundFile, Obstacle, Wanted};
use crate::agent::hosts::{HostName, common_marker};
use crate::agent::local::{Local, LocalEndpoint};
use crate::agent::runtime::Unable;
use crate::agent::runtime::containers::{CERTIFICATES_FOLDER, REGISTRIES_FOLDER, UsersRegistries, render, table};
use crate::api::reason;
use crate::plan::{OwnerKind, Plan};

/// How the folders of certificates that may be ours begin: the endpoint is on the loopback.
const LOOPBACK: &str = "127.0.0.1:";

/// What is wanted of these files.
#[derive(Clone, Copy)]
pub struct Containers<'a> {
    /// The folder of the node.
    pub disk: &'a Disk,
    /// What is wanted on this node.
    pub plan: &'a Plan,
    /// The node's own endpoint.
    pub local: &'a Local,
    /// The node's container runtime reads the files. Otherwise they are written only where podman has been installed.
    pub required: bool,
}

/// Makes the files hold the hosts of the plan's Mirrors. It does not know of Registries.
///
/// # Errors
/// When the folder cannot be used, or the user's own files cannot be understood: then all stays as it is.
pub fn apply(
    wanted: Containers<'_>,
    stop: &CancellationToken,
    count: &dyn Fn(&'static str),
) -> Result<Outcome, Unable> {
    let Containers { disk, plan, local, required } = wanted;
    let files = Files { disk, count };
    let mut outcome = Outcome::default();
    if stop.is_cancelled() {
        return Ok(outcome);
    }
    if !required && !is_installed(disk)? {
        files.remove()?;
        return Ok(outcome);
    }
    let users = UsersRegistries::read(disk.root())
        .map_err(|error| Unable::new(reason::CONFIGURATION_UNREADABLE, error.to_string()))?;
    let mut hosts = Vec::new();
    for (name, _) in plan.hosts.iter().filter(|(_, entry)| entry.owner.kind == OwnerKind::Mirror) {
        match (HostName::parse(name), local.endpoint()) {
            (Err(refusal), _) => outcome.exceptions.push(refused(name, &refusal)),
            (Ok(host), None) => outcome.exceptions.push(no_endpoint(&host, local)),
            (Ok(host), Some(_)) => match users.speaker(&host) {
                Some(path) => {
                    let what = format!("{path} says how images of {name} are pulled; remove its table there");
                    outcome.exceptions.push(conflict(&host, &what));
                }
                None => hosts.push(host),
            },
        }
    }
    let text = local.endpoint().and_then(|endpoint| Some((endpoint, render(&hosts, endpoint)?)));
    let written = match text {
        Some((endpoint, text)) => files.write(&hosts, endpoint, text)?,
        None => files.remove().map(|()| Written::default())?,
    };
    for host in &hosts {
        match &written.obstacle {
            Some(what) => outcome.exceptions.push(conflict(host, what)),
            None => {
                outcome.standing.insert(host.as_str().to_owned());
            }
        }
    }
    outcome.changed = written.changed;
    outcome.exceptions.sort_by(|one, other| one.host.cmp(&other.host));
    Ok(outcome)
}

/// Whether podman, or something else that reads these files, has been installed: the folder is there and is not ours.
fn is_installed(disk: &Disk) -> Result<bool, Unable> {
    match disk.look(&disk.root().join(REGISTRIES_FOLDER)).map_err(|error| unusable(&error))? {
        Found::Folder(folder) => Ok(!folder.ours),
        Found::Nothing | Found::NotAFolder => Ok(false),
    }
}

/// What became of the files.
#[derive(Default)]
struct Written {
    /// The hosts of which something was written.
    changed: BTreeSet<String>,
    /// What of the user's stands in the way.
    obstacle: Option<String>,
}

struct Files<'a> {
    disk: &'a Disk,
    count: &'a dyn Fn(&'static str),
}

impl Files<'_> {
    fn write(&self, hosts: &[HostName], endpoint: &LocalEndpoint, text: String) -> Result<Written, Unable> {
        let certificates = prepare(self.disk, [CERTIFICATES_FOLDER], endpoint.certificate.is_some(), self.count)?;
        let mut all_changed = false;
        if let Some(certificate) = &endpoint.certificate {
            let place = certificates.join(endpoint.address());
            let marker = common_marker("the certificate of the node's own endpoint");
            let text = format!("{marker}{}\n", certificate.trim());
            let (written, obstacle) = self.at(&place, File::NodeCertificate, text)?;
            if let Some(obstacle) = obstacle {
                self.remove()?;
                let obstacle = Some(self.obstruction(&place, obstacle));
                return Ok(Written { changed: BTreeSet::new(), obstacle });
            }
            all_changed = written;
        }
        let folder = prepare(self.disk, [REGISTRIES_FOLDER], true, self.count)?;
        let before = self.text(&folder)?;
        let (_, obstacle) = self.at(&folder, File::Registries, text)?;
        if let Some(obstacle) = obstacle {
            self.remove()?;
            let obstacle = Some(self.obstruction(&folder, obstacle));
            return Ok(Written { changed: BTreeSet::new(), obstacle });
        }
        self.remove_certificates(endpoint.certificate.as_ref().map(|_| endpoint.address()))?;
        let is_changed = |host: &&HostName| all_changed || !before.contains(&table(host, endpoint));
        let changed = hosts.iter().filter(is_changed).map(|host| host.as_str().to_owned()).collect();
        Ok(Written { changed, obstacle: None })
    }

    /// Removes all of ours, the file that leads to the endpoint first.
    fn remove(&self) -> Result<(), Unable> {
        prepare(self.disk, [REGISTRIES_FOLDER], false, self.count)?;
        let registries = self.disk.root().join(REGISTRIES_FOLDER);
        self.take_away(&registries)?;
        self.remove_certificates(None)?;
        self.take_away(&self.disk.root().join(CERTIFICATES_FOLDER))
    }

    /// Removes the certificates of the endpoint but that at this address: the port is a setting.
    fn remove_certificates(&self, but: Option<&str>) -> Result<(), Unable> {
        let folder = self.disk.root().join(CERTIFICATES_FOLDER);
        if !matches!(self.disk.look(&folder).map_err(|error| unusable(&error))?, Found::Folder(_)) {
            return Ok(());
        }
        for name in self.disk.names(&folder).map_err(|error| unusable(&error))? {
            if name.starts_with(LOOPBACK) && Some(name.as_str()) != but {
                self.take_away(&folder.join(name))?;
            }
        }
        Ok(())
    }

    /// The text of our file, if it is there.
    fn text(&self, folder: &Path) -> Result<String, Unable> {
        Ok(match self.disk.look(folder).map_err(|error| unusable(&error))? {
            Found::Folder(mut found) => match found.files.remove(&File::Registries) {
                Some(FoundFile::Ours(text)) => text,
                Some(FoundFile::Foreign { .. }) | None => String::new(),
            },
            Found::Nothing | Found::NotAFolder => String::new(),
        })
    }

    fn at(&self, folder: &Path, file: File, text: String) -> Result<(bool, Option<Obstacle>), Unable> {
        let wanted = Wanted { texts: BTreeMap::from([(file, text)]), falls_back: false };
        let pass = Pass { disk: self.disk, folder, count: self.count };
        pass.at(folder, Some(&wanted)).map_err(|error| unusable(&error))
    }

    fn take_away(&self, folder: &Path) -> Result<(), Unable> {
        let pass = Pass { disk: self.disk, folder, count: self.count };
        pass.at(folder, None).map(|_| ()).map_err(|error| unusable(&error))
    }

    fn obstruction(&self, place: &Path, obstacle: Obstacle) -> String {
        obstruction(self.disk, place, obstacle)
    }
}
