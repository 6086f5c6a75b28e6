//! The node plan: which registry hosts every node's container runtime must know, as the operator writes it and the agent
//! reads it. It is data and pure functions; it must never hold a client, and a plan must never change without its
//! revision growing.
//!
//! The plan lies in config maps of a namespace of its own. An index names the shards by their content, so a reader that
//! has read the index either gets exactly the shards it describes or finds one missing and reads the index again: a torn
//! plan cannot be seen. Writers put new shards first, then the index, then remove shards that the index no longer names.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The name of the config map that holds the index.
pub const INDEX_NAME: &str = "wharf-node-plan";
/// The key of the index document in its config map.
pub const INDEX_KEY: &str = "index.json";
/// The key of the document in each shard's config map.
pub const SHARD_KEY: &str = "hosts.json";
/// How many hosts a shard holds on average, at most.
pub const HOSTS_PER_SHARD: usize = 64;
/// The version of the documents' form.
pub const FORMAT_VERSION: u32 = 2;

/// The index document.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Index {
    /// [`FORMAT_VERSION`]; an agent refuses what it does not know.
    pub version: u32,
    /// Grows with every change of the plan. It never goes back, also when the index was lost: it starts from the clock.
    pub revision: i64,
    /// PEM certificates of the authorities that sign the registries' certificates. They stand here and not in the
    /// shards, so that a rotation changes no shard.
    pub authority: String,
    /// The revision since which every one of these certificates is in the plan; 0 from a writer that did not say.
    #[serde(default, rename = "authoritySince")]
    pub authority_since: i64,
    /// The shards that make up this plan.
    pub shards: Vec<ShardReference>,
}

/// Where one shard lies.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct ShardReference {
    /// The config map's name, made from the digest.
    pub name: String,
    /// SHA-256 of the shard's document, in hexadecimal.
    pub digest: String,
}

/// A shard's document.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
pub struct Shard {
    /// Entries by host.
    pub hosts: BTreeMap<String, Entry>,
}

/// What a node must know of one registry host.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
pub struct Entry {
    /// The URLs at which the node reaches what serves this host, such as `https://10.96.12.34`: a Registry's Service, or the
    /// Service of each replica of a Mirror, in the order of their ordinals. Never empty.
    pub backends: Vec<String>,
    /// The resource that asks for this entry.
    pub owner: Owner,
    /// The nodes that it is for; all where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<LabelSelector>,
    /// The revision in which this entry last changed. A node that has carried out this revision has this entry.
    pub since: i64,
}

/// The resource behind an entry.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Owner {
    /// Its kind.
    pub kind: OwnerKind,
    /// Its namespace; empty for a kind that has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// The kinds of resources that ask for entries.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
pub enum OwnerKind {
    /// It is the registry of its host: there is no other.
    Registry,
    /// It caches the registry of its host, which nodes ask themselves where the Mirror does not answer.
    Mirror,
}

impl fmt::Display for OwnerKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Registry => "Registry",
            Self::Mirror => "Mirror",
        })
    }
}

/// A whole plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The plan's revision.
    pub revision: i64,
    /// PEM certificates of the authorities.
    pub authority: String,
    /// See [`Index::authority_since`].
    pub authority_since: i64,
    /// Entries by host.
    pub hosts: BTreeMap<String, Entry>,
}

impl Plan {
    /// The revision that a node must report to be able to pull from a host: then it has the entry and, unless an older
    /// authority suffices, trusts whoever may have signed the host's certificate. `None` without an entry of this owner.
    #[must_use]
    pub fn needed_revision(&self, host: &str, owner_uid: &str, older_authority_suffices: bool) -> Option<i64> {
        let entry = self.hosts.get(host).filter(|entry| entry.owner.uid == owner_uid)?;
        Some(if older_authority_suffices { entry.since } else { entry.since.max(self.authority_since) })
    }
}

/// An entry that a resource asks for, before it has a revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// See [`Entry::backends`].
    pub backends: Vec<String>,
    /// See [`Entry::owner`].
    pub owner: Owner,
    /// See [`Entry::nodes`].
    pub nodes: Option<LabelSelector>,
}

impl Wanted {
    fn is(&self, entry: &Entry) -> bool {
        self.backends == entry.backends && self.owner == entry.owner && self.nodes == entry.nodes
    }
}

/// The plan that follows `previous`. It is `previous` itself when nothing changed; otherwise its revision is greater.
///
/// `now_seconds` (Unix time) is the floor of a new revision, so that a plan made after the index was lost is newer than
/// anything that a node has seen.
#[must_use]
pub fn next(previous: &Plan, authority: &str, wanted: BTreeMap<String, Wanted>, now_seconds: i64) -> Plan {
    let same_authority = previous.authority == authority;
    let unchanged = |host: &String, entry: &Wanted| previous.hosts.get(host).is_some_and(|old| entry.is(old));
    if same_authority
        && previous.revision > 0
        && wanted.len() == previous.hosts.len()
        && wanted.iter().all(|(host, entry)| unchanged(host, entry))
    {
        return previous.clone();
    }
    let revision = (previous.revision + 1).max(now_seconds);
    let before = certificates(&previous.authority);
    let nothing_added = certificates(authority).iter().all(|certificate| before.contains(certificate));
    let authority_since = if nothing_added && previous.revision > 0 { previous.authority_since } else { revision };
    let hosts = wanted
        .into_iter()
        .map(|(host, entry)| {
            let since = if unchanged(&host, &entry) {
                previous.hosts.get(&host).map_or(revision, |old| old.since)
            } else {
                revision
            };
            let Wanted { backends, owner, nodes } = entry;
            (host, Entry { backends, owner, nodes, since })
        })
        .collect();
    Plan { revision, authority: authority.to_owned(), authority_since, hosts }
}

/// The certificates of a PEM text, one by one.
fn certificates(pem: &str) -> Vec<&str> {
    pem.split_inclusive("-----END CERTIFICATE-----").map(str::trim).filter(|text| !text.is_empty()).collect()
}

/// The documents of a plan: the index, and each shard's document by the name of its config map.
#[must_use]
pub fn render(plan: &Plan) -> (Index, BTreeMap<String, String>) {
    let count = plan.hosts.len().div_ceil(HOSTS_PER_SHARD).next_power_of_two();
    let mut shards = vec![Shard::default(); count];
    for (host, entry) in &plan.hosts {
        let place =
            Sha256::digest(host.as_bytes()).iter().fold(0, |rest, byte| (rest * 256 + usize::from(*byte)) % count);
        if let Some(shard) = shards.get_mut(place) {
            shard.hosts.insert(host.clone(), entry.clone());
        }
    }
    let documents: BTreeMap<String, String> = shards
        .iter()
        .filter(|shard| !shard.hosts.is_empty())
        .map(|shard| {
            let document = serde_json::to_string(shard).unwrap_or_default();
            (shard_name(&digest_of(&document)), document)
        })
        .collect();
    let references = documents
        .iter()
        .map(|(name, document)| ShardReference { name: name.clone(), digest: digest_of(document) })
        .collect();
    let index = Index {
        version: FORMAT_VERSION,
        revision: plan.revision,
        authority: plan.authority.clone(),
        authority_since: plan.authority_since,
        shards: references,
    };
    (index, documents)
}

/// SHA-256 of a document, in hexadecimal.
#[must_use]
pub fn digest_of(document: &str) -> String {
    use std::fmt::Write as _;
    Sha256::digest(document.as_bytes()).iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn shard_name(digest: &str) -> String {
    format!("{INDEX_NAME}-{}", digest.get(..16).unwrap_or(digest))
}

#[cfg(test)]
mod tests;
