//! Tells which Registries must look again when another one comes, changes or goes: those that want what it had or has now.
//! It must never be needed for the outcome, only for its speed: who lost looks again by itself from time to time.

use std::collections::HashMap;

use futures::FutureExt;
use kube::ResourceExt;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::ObjectRef;

use super::limits::Limits;
use super::registry::place::{Place, place_of};
use super::view::View;
use crate::api::Registry;

type Key = ObjectRef<DeserializeGuard<Registry>>;

/// What a Registry keeps from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stake {
    uid: Option<String>,
    namespace: Option<String>,
    hosts: Vec<String>,
    place: Place,
}

impl Stake {
    /// The stake of a Registry; none when it cannot be read or is being deleted.
    #[must_use]
    pub fn of(registry: &DeserializeGuard<Registry>) -> Option<Self> {
        let registry = registry.0.as_ref().ok()?;
        registry.metadata.deletion_timestamp.is_none().then(|| Self {
            uid: registry.uid(),
            namespace: registry.namespace(),
            hosts: registry.spec.hosts.clone(),
            place: place_of(registry),
        })
    }

    fn shares_with(&self, other: &Self) -> bool {
        self.place == other.place || self.hosts.iter().any(|host| other.hosts.contains(host))
    }
}

/// The stakes as last seen.
#[derive(Default)]
pub struct Rivals {
    seen: HashMap<Key, Stake>,
}

impl Rivals {
    /// Whom a change of a Registry concerns. `told` is its stake as the watch told it, which at its end is its last one.
    pub fn concerned(&mut self, key: &Key, told: Option<Stake>, view: &View, limits: &Limits) -> Vec<Key> {
        if view.registries.wait_until_ready().now_or_never().is_none() {
            // Everybody looks when the caches are filled.
            self.seen.extend(told.map(|stake| (key.clone(), stake)));
            return Vec::new();
        }
        let now = view.registries.get(key).and_then(|registry| Stake::of(&registry));
        let before = match &now {
            Some(stake) => self.seen.insert(key.clone(), stake.clone()),
            None => self.seen.remove(key).or(told),
        };
        if before == now {
            return Vec::new();
        }
        let stakes: Vec<&Stake> = before.iter().chain(&now).collect();
        let came_or_went = before.as_ref().map(|stake| &stake.uid) != now.as_ref().map(|stake| &stake.uid);
        let moves_up = limits.registries_per_namespace > 0 && came_or_went;
        let is_concerned = |other: &Stake| {
            // With its place in the quota, a Registry's claim to names changes too, in whichever namespace its rivals are.
            let by_quota = |stake: &&Stake| stake.namespace == other.namespace || !other.hosts.is_empty();
            stakes.iter().any(|stake| stake.shares_with(other)) || (moves_up && stakes.iter().any(by_quota))
        };
        let all = view.registries.state();
        all.iter()
            .filter(|other| Stake::of(other).is_some_and(|stake| is_concerned(&stake)))
            .map(|other| ObjectRef::from_obj(other.as_ref()))
            .filter(|other| other != key)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::reflector::store::Writer;
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;

    fn registry(name: &str, spec: &serde_json::Value) -> DeserializeGuard<Registry> {
        serde_json::from_value(json!({
            "apiVersion": "wharf.dev/v1alpha1", "kind": "Registry",
            "metadata": {"name": name, "namespace": "platform", "uid": name}, "spec": spec,
        }))
        .unwrap()
    }

    fn put(writer: &mut Writer<DeserializeGuard<Registry>>, registries: &[DeserializeGuard<Registry>]) {
        writer.apply_watcher_event(&Event::Init);
        for registry in registries {
            writer.apply_watcher_event(&Event::InitApply(registry.clone()));
        }
        writer.apply_watcher_event(&Event::InitDone);
    }

    #[test]
    fn whoever_wants_the_same_is_woken_and_nobody_else() {
        let (view, mut writers) = View::empty();
        let (mut rivals, mut limits) = (Rivals::default(), Limits::default());
        let winner = registry("winner", &json!({"hosts": ["images.example.com"]}));
        let loser = registry("loser", &json!({"hosts": ["images.example.com"]}));
        let other = registry("other", &json!({"hosts": ["other.example.com"]}));
        let guest = registry("guest", &json!({"storage": {"existingClaimName": "winner-registry"}}));
        let mut concerned = |changed: &DeserializeGuard<Registry>, limits: &Limits, view: &View| {
            let keys = rivals.concerned(&ObjectRef::from_obj(changed), Stake::of(changed), view, limits);
            let mut names: Vec<String> = keys.into_iter().map(|key| key.name).collect();
            names.sort();
            names
        };
        let all = [&winner, &loser, &other, &guest].map(Clone::clone);
        for registry in &all {
            assert_eq!(concerned(registry, &limits, &view), [""; 0], "the caches are being filled");
        }
        put(&mut writers.registries, &all);
        assert_eq!(concerned(&winner, &limits, &view), [""; 0], "nothing of concern to others changed");
        // It gives up the name: what it had before counts.
        let humbled = registry("winner", &json!({}));
        put(&mut writers.registries, &[humbled.clone(), loser.clone(), other.clone(), guest.clone()]);
        assert_eq!(concerned(&humbled, &limits, &view), ["guest", "loser"]);
        assert_eq!(concerned(&humbled, &limits, &view), [""; 0]);
        // It goes; with a quota everybody of its namespace moves up.
        put(&mut writers.registries, &[loser.clone(), other.clone(), guest.clone()]);
        assert_eq!(concerned(&humbled, &limits, &view), ["guest"]);
        limits.registries_per_namespace = 1;
        put(&mut writers.registries, &[other.clone(), guest.clone()]);
        assert_eq!(concerned(&loser, &limits, &view), ["guest", "other"]);
    }
}
