//! What Registries and Mirrors ask of the node plan. Pure. It must never depend on who was looked at first.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

use crate::api::{Mirror, Registry};
use crate::oci::RegistryHost;
use crate::operator::limits::Limits;
use crate::operator::mirror::names::Names as MirrorNames;
use crate::operator::mirror::precedence::{hosts_of, registry_hosts};
use crate::operator::registry::names::Names;
use crate::operator::registry::precedence::Precedence;
use crate::plan::{Entry, Owner, OwnerKind, Wanted};

/// What the plan is made from.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// The Registries that are not being deleted.
    pub registries: &'a [&'a Registry],
    /// The Mirrors that are not being deleted.
    pub mirrors: &'a [Mirror],
    /// The Service of a namespace and name.
    pub services: &'a dyn Fn(&str, &str) -> Option<Arc<Service>>,
    /// What Registries may have.
    pub limits: &'a Limits,
    /// The namespace of what Mirrors are made of.
    pub namespace: &'a str,
}

/// What is asked for, and what is about to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asked {
    /// The entries.
    pub entries: BTreeMap<String, Wanted>,
    /// The hosts that Mirrors have, each with its Mirror's UID, whether or not there is an entry: the Services may lack
    /// addresses.
    pub mirrored: BTreeMap<String, String>,
}

impl Asked {
    /// What is asked for.
    #[must_use]
    pub fn of(sources: Sources<'_>) -> Self {
        let mut asked = Self::default();
        let registry_hosts = registry_hosts(sources.registries.iter().copied(), sources.limits);
        for mirror in sources.mirrors {
            let Some(uid) = mirror.uid() else {
                continue;
            };
            let entry = mirrors_entry(mirror, &uid, sources);
            for host in hosts_of(mirror, sources.mirrors, &registry_hosts).granted {
                if host.parse::<RegistryHost>().is_err() {
                    continue;
                }
                if let Some(entry) = &entry {
                    asked.entries.insert(host.clone(), entry.clone());
                }
                asked.mirrored.insert(host, uid.clone());
            }
        }
        // A Registry's name is that Registry's, whatever else were granted.
        asked.entries.extend(of_registries(sources));
        asked
    }

    /// Whether an entry of an earlier plan may stay although it is not asked for: a cache may be behind, its owner may be
    /// unreadable for this version, a Service may be about to be made again. `is_shown` says whether a Mirror of that UID can
    /// be read, and is not being deleted. Whether the owner is there at all is not said here.
    #[must_use]
    pub fn may_stay(&self, host: &str, entry: &Entry, is_shown: impl FnOnce(&str) -> bool) -> bool {
        let owner = &entry.owner;
        if self.entries.contains_key(host) {
            return false;
        }
        match owner.kind {
            // Further names come and go with the spec; the address stays as long as its Registry.
            OwnerKind::Registry => Names::new(&owner.namespace, &owner.name).address() == host,
            // Of a Mirror that can be read it is known which hosts it has.
            OwnerKind::Mirror => match self.mirrored.get(host) {
                Some(uid) => *uid == owner.uid,
                None => !is_shown(&owner.uid),
            },
        }
    }
}

fn of_registries(sources: Sources<'_>) -> BTreeMap<String, Wanted> {
    let precedence = Precedence::of(sources.registries.iter().copied(), sources.limits);
    let (mut further, mut addresses) = (BTreeMap::new(), BTreeMap::new());
    for registry in sources.registries {
        if let Some((address, entry)) = registrys_entry(registry, sources) {
            further.extend(precedence.hosts(registry).granted.into_iter().map(|host| (host, entry.clone())));
            addresses.insert(address, entry);
        }
    }
    // An address is its Registry's, whatever else were granted.
    further.extend(addresses);
    further
}

/// A Registry's address, and how nodes reach it; `None` while its Service has none.
fn registrys_entry(registry: &Registry, sources: Sources<'_>) -> Option<(String, Wanted)> {
    let names = Names::new(registry.namespace()?, registry.name_any());
    let uid = registry.uid()?;
    let service = (sources.services)(names.namespace(), names.service())?;
    let backends = vec![server_of(&service, &uid)?];
    let (namespace, name) = (names.namespace().to_owned(), names.registry().to_owned());
    let owner = Owner { kind: OwnerKind::Registry, namespace, name, uid };
    Some((names.address(), Wanted { backends, owner, nodes: None }))
}

/// How nodes reach a Mirror, for each of its hosts; `None` while the Service of a replica has no address.
fn mirrors_entry(mirror: &Mirror, uid: &str, sources: Sources<'_>) -> Option<Wanted> {
    let names = MirrorNames::new(sources.namespace, mirror.name_any());
    let server = |ordinal: i32| {
        let service = (sources.services)(names.namespace(), &names.replica(ordinal))?;
        server_of(&service, uid)
    };
    let backends = (0..mirror.spec.replicas).map(server).collect::<Option<Vec<String>>>()?;
    if backends.is_empty() {
        return None;
    }
    let (name, uid) = (mirror.name_any(), uid.to_owned());
    let owner = Owner { kind: OwnerKind::Mirror, namespace: String::new(), name, uid };
    Some(Wanted { backends, owner, nodes: mirror.spec.nodes.selector.clone() })
}

/// The URL of a Service by its address, if it is its owner's: nodes do not resolve the cluster's names.
fn server_of(service: &Service, owner: &str) -> Option<String> {
    if !service.owner_references().iter().any(|reference| reference.uid == owner) {
        return None;
    }
    let address = service.spec.as_ref()?.cluster_ip.as_deref()?;
    match address {
        "" | "None" => None,
        address if address.contains(':') => Some(format!("https://[{address}]")),
        address => Some(format!("https://{address}")),
    }
}

#[cfg(test)]
mod tests;
