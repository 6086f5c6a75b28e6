//! Objects of our names, as found: whose each is, and the object itself only where it is ours.
//! It must never bring what somebody else's Secret holds into this process.

use std::fmt::Debug;

use kube::api::Api;
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::Store;
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::apply::Inventory;
use super::call::{CallError, Target, read};
use super::metrics::Metrics;
use super::view::cached;
use crate::api::labels;

/// An object of one of our names.
#[derive(Clone, Debug, PartialEq)]
pub enum Found<K> {
    /// There is none.
    Absent,
    /// It belongs to the resource that is looked after.
    Ours(K),
    /// Somebody else's; a few words on whose.
    Foreign(String),
}

impl<K> Found<K> {
    /// The object, if it is ours.
    pub fn ours(&self) -> Option<&K> {
        match self {
            Self::Ours(object) => Some(object),
            Self::Absent | Self::Foreign(_) => None,
        }
    }
}

/// Looks for what should carry an owner reference of ours.
pub struct Finder<'a> {
    /// The client for fresh reads.
    pub client: &'a Client,
    /// The metrics.
    pub metrics: &'a Metrics,
}

impl Finder<'_> {
    /// An object that should carry the owner's reference. The caches hold only objects with our label, so one that is
    /// missing there may still exist as somebody else's: before it is taken for absent, the API server is asked.
    ///
    /// # Errors
    /// When the API server cannot be asked.
    pub async fn find<K, O>(
        &self,
        store: &Store<K>,
        owner: &O,
        namespace: &str,
        name: &str,
    ) -> Result<Found<K>, CallError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + 'static,
        O: Resource,
    {
        if let Some(object) = cached(store, namespace, name) {
            return Ok(judged(Some((*object).clone()), owner));
        }
        let api = Api::<K>::namespaced(self.client.clone(), namespace);
        let target = Target::new(K::kind(&()), namespace, name);
        // The metadata tells whose it is. What somebody else's Secret holds never comes into this process.
        let metadata = read(self.metrics, target.clone(), api.get_metadata(name)).await?;
        match judged(metadata, owner) {
            Found::Absent => Ok(Found::Absent),
            Found::Foreign(whose) => Ok(Found::Foreign(whose)),
            // The cache is behind, or the label was taken off.
            Found::Ours(_) => Ok(judged(read(self.metrics, target, api.get(name)).await?, owner)),
        }
    }
}

/// Adds what `owner` owns in a namespace, as far as a cache shows it.
pub fn add_owned<K, O>(inventory: &mut Inventory, store: &Store<K>, owner: &O, namespace: Option<&str>)
where
    K: Resource<DynamicType = ()> + Clone + 'static,
    O: Resource,
{
    for object in store.state() {
        if object.meta().namespace.as_deref() == namespace && is_owned_by(object.as_ref(), owner) {
            inventory.add(object.as_ref());
        }
    }
}

fn judged<K: Resource, O: Resource>(object: Option<K>, owner: &O) -> Found<K> {
    match object {
        None => Found::Absent,
        Some(object) if is_owned_by(&object, owner) => Found::Ours(object),
        Some(object) => Found::Foreign(whose(&object)),
    }
}

/// Whether an object carries the owner's reference.
pub fn is_owned_by<K: Resource, O: Resource>(object: &K, owner: &O) -> bool {
    object.owner_references().iter().any(|reference| Some(&reference.uid) == owner.meta().uid.as_ref())
}

/// A few words on whose an object is that is not ours.
pub fn whose<K: Resource>(object: &K) -> String {
    if let Some(owner) = object.owner_references().first() {
        return format!("owned by {} {}", owner.kind, owner.name);
    }
    match object.labels().get(labels::MANAGED_BY) {
        Some(manager) => format!("managed by {manager}"),
        None => "without an owner".to_owned(),
    }
}
