//! Whom a change wakes. It must never hold up the watches: a wake is noted, and acted on by the loop that it is for.

use std::sync::Arc;

use kube::ResourceExt;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::{Notify, mpsc};

use crate::api::{Mirror, Registry};
use crate::operator::limits::Limits;
use crate::operator::pending::Pending;
use crate::operator::rivals::Rivals;
use crate::operator::view::{Change, View};

pub(super) type Key = ObjectRef<DeserializeGuard<Registry>>;
pub(super) type MirrorKey = ObjectRef<DeserializeGuard<Mirror>>;

/// Wakes the loops.
#[derive(Clone, Default)]
pub(super) struct Wakes {
    pub(super) registries: Arc<Pending<Key>>,
    pub(super) mirrors: Arc<Pending<MirrorKey>>,
    pub(super) authority: Arc<Notify>,
    pub(super) plan: Arc<Notify>,
    pub(super) nodes: Arc<Notify>,
    pub(super) ca_bundles: Arc<Notify>,
    /// Namespaces whose service accounts are to be looked at.
    pub(super) pull_secrets: Arc<Pending<String>>,
}

impl Wakes {
    pub(super) fn look_again_at_mirrors(&self, keys: Vec<ObjectRef<Mirror>>) {
        self.mirrors.add(keys.into_iter().map(|key| MirrorKey::new(&key.name)));
    }

    pub(super) fn look_again_at(&self, keys: Vec<ObjectRef<Registry>>) {
        let guarded = |key: ObjectRef<Registry>| Key::new(&key.name).within(&key.namespace.unwrap_or_default());
        self.registries.add(keys.into_iter().map(guarded));
    }
}

/// Hands each change to whom it concerns.
pub(super) async fn dispatch(mut changes: mpsc::Receiver<Change>, wakes: &Wakes, view: &View, limits: &Limits) {
    let mut rivals = Rivals::default();
    while let Some(change) = changes.recv().await {
        match change {
            Change::Registry(key) => wakes.registries.add([key]),
            Change::Mirror(key) => wakes.mirrors.add([key]),
            Change::MirrorHosts => {
                wakes.mirrors.add(view.mirrors.state().iter().map(|mirror| MirrorKey::from_obj(mirror.as_ref())));
            }
            Change::Stake(key, stake) => wakes.registries.add(rivals.concerned(&key, stake, view, limits)),
            Change::Plan => wakes.plan.notify_one(),
            Change::Node => wakes.nodes.notify_one(),
            Change::CaBundles => wakes.ca_bundles.notify_one(),
            Change::PullSecrets(namespace) => wakes.pull_secrets.add([namespace]),
        }
    }
}

pub(super) fn key_of(registry: &Registry) -> Key {
    Key::new(&registry.name_any()).within(&registry.namespace().unwrap_or_default())
}
