//! Reads the node plan: the index, then the shards that changed since the last time. A plan is taken whole or not at
//! all; what was read before stays in use by the caller when reading fails.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use thiserror::Error;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::call::{self, limited};
use crate::plan::{FORMAT_VERSION, INDEX_KEY, INDEX_NAME, Index, Plan, SHARD_KEY, Shard, digest_of};

/// How often the index is read again when a shard that it names is gone: the writer replaced both in between.
const ATTEMPTS: usize = 3;

/// Why there is no plan.
#[derive(Debug, Error)]
pub enum Error {
    /// A config map could not be read.
    #[error("cannot read config map {name} of the node plan: {source}")]
    Read {
        /// Its name.
        name: String,
        /// The API server's answer.
        source: call::Error,
    },
    /// A config map does not hold what it should.
    #[error("config map {name} of the node plan is not understood: {why}")]
    Malformed {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// The plan is of a form that this agent does not know.
    #[error("the node plan has version {0}, and this agent knows only version {FORMAT_VERSION}")]
    Version(u32),
    /// The index names shards that are gone, each time it is read.
    #[error("shard {0} of the node plan does not exist")]
    ShardMissing(String),
}

/// Where plans come from. It keeps the shards of the last plan, so that only changed ones are fetched.
pub struct PlanSource {
    config_maps: Api<ConfigMap>,
    shards: BTreeMap<String, Arc<Shard>>,
}

impl PlanSource {
    /// The plan of a namespace.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { config_maps: Api::namespaced(client, namespace), shards: BTreeMap::new() }
    }

    /// The plan as it is now; none if there is no index, which says nothing about what nodes should hold.
    ///
    /// # Errors
    /// When the plan cannot be read whole.
    pub async fn read(&mut self) -> Result<Option<Plan>, Error> {
        let mut missing = String::new();
        for _ in 0..ATTEMPTS {
            let Some(document) = self.document(INDEX_NAME, INDEX_KEY).await? else {
                return Ok(None);
            };
            let index = parse_index(&document)?;
            match self.fetch(&index).await? {
                Ok(shards) => {
                    self.shards = shards;
                    return Ok(Some(self.assemble(index)));
                }
                Err(name) => missing = name,
            }
        }
        Err(Error::ShardMissing(missing))
    }

    /// The shards of an index by digest, or the name of the first one that is missing.
    async fn fetch(&self, index: &Index) -> Result<Result<BTreeMap<String, Arc<Shard>>, String>, Error> {
        let mut shards = BTreeMap::new();
        for reference in &index.shards {
            let shard = match self.shards.get(&reference.digest) {
                Some(shard) => shard.clone(),
                None => match self.document(&reference.name, SHARD_KEY).await? {
                    Some(document) => Arc::new(parse_shard(&reference.name, &reference.digest, &document)?),
                    None => return Ok(Err(reference.name.clone())),
                },
            };
            shards.insert(reference.digest.clone(), shard);
        }
        Ok(Ok(shards))
    }

    fn assemble(&self, index: Index) -> Plan {
        let hosts = self.shards.values().flat_map(|shard| shard.hosts.clone()).collect();
        Plan { revision: index.revision, authority: index.authority, authority_since: index.authority_since, hosts }
    }

    /// The document under a key of a config map, if the config map exists.
    async fn document(&self, name: &str, key: &str) -> Result<Option<String>, Error> {
        let found = limited(self.config_maps.get_opt(name)).await;
        let Some(config_map) = found.map_err(|source| Error::Read { name: name.to_owned(), source })? else {
            return Ok(None);
        };
        match config_map.data.and_then(|mut data| data.remove(key)) {
            Some(document) => Ok(Some(document)),
            None => Err(Error::Malformed { name: name.to_owned(), why: format!("it has no key {key}") }),
        }
    }
}

fn parse_index(document: &str) -> Result<Index, Error> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: u32,
    }
    let malformed = |error: serde_json::Error| Error::Malformed { name: INDEX_NAME.to_owned(), why: error.to_string() };
    // The version first: of another version nothing else can be relied on.
    let Versioned { version } = serde_json::from_str(document).map_err(malformed)?;
    if version != FORMAT_VERSION {
        return Err(Error::Version(version));
    }
    serde_json::from_str(document).map_err(malformed)
}

fn parse_shard(name: &str, digest: &str, document: &str) -> Result<Shard, Error> {
    let malformed = |why: String| Error::Malformed { name: name.to_owned(), why };
    let found = digest_of(document);
    if found != digest {
        return Err(malformed(format!("its digest is {found}, and the index says {digest}")));
    }
    serde_json::from_str(document).map_err(|error| malformed(error.to_string()))
}

/// Calls `changed` after each change of the index, and at the start, until `stop` is cancelled. Only metadata is
/// watched: what the index holds is read when it is wanted.
pub async fn watch(client: Client, namespace: String, changed: Arc<Notify>, stop: CancellationToken) {
    let index: Api<PartialObjectMeta<ConfigMap>> = Api::namespaced(client, &namespace);
    let selector = watcher::Config::default().fields(&format!("metadata.name={INDEX_NAME}"));
    let mut events = std::pin::pin!(watcher(index, selector).default_backoff());
    while let Some(Some(event)) = stop.run_until_cancelled(events.next()).await {
        match event {
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
            Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_) | watcher::Event::InitDone) => changed.notify_one(),
            Err(error) => tracing::warn!(%error, "the watch of the node plan failed; it is tried again"),
        }
    }
}

#[cfg(test)]
mod tests;
