//! Who has what several Registries want: the further names that the administrator allows, and the places that a namespace
//! has for Registries. Pure. It must never depend on who was looked at first: any two passes see the same winners.
//!
//! The older Registry wins, then the one whose namespace and name come first. A Registry beyond its namespace's quota comes
//! after all others, so that nobody keeps a name from others by making more Registries than he may.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;

use super::names::Names;
use super::place::rank;
use crate::api::Registry;
use crate::operator::limits::Limits;
use crate::plan::Plan;

/// The winners.
#[derive(Debug)]
pub struct Precedence<'a> {
    limits: &'a Limits,
    /// UIDs of the Registries beyond their namespace's quota.
    beyond_quota: BTreeSet<&'a str>,
    /// The Registry that has a name.
    holders: BTreeMap<&'a str, &'a Registry>,
}

/// The further names of a Registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// It has these.
    pub granted: Vec<String>,
    /// The administrator does not allow these.
    pub not_allowed: Vec<String>,
    /// Another Registry has these: the name, and whose it is as `namespace/name`.
    pub taken: Vec<(String, String)>,
}

/// A name by which nodes pull from a Registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedHost {
    /// The name.
    pub host: String,
    /// The revision of the node plan that a node needs to pull by it; `None` while it has no entry.
    pub since: Option<i64>,
}

impl<'a> Precedence<'a> {
    /// The winners among these Registries, of which none is being deleted.
    #[must_use]
    pub fn of(registries: impl IntoIterator<Item = &'a Registry>, limits: &'a Limits) -> Self {
        let mut precedence = Self { limits, beyond_quota: BTreeSet::new(), holders: BTreeMap::new() };
        if *limits == Limits::default() {
            return precedence;
        }
        let mut ranked: Vec<&Registry> = registries.into_iter().collect();
        ranked.sort_by_key(|registry| rank(registry));
        let mut counts: BTreeMap<Option<&str>, u32> = BTreeMap::new();
        let (within, beyond): (Vec<&Registry>, Vec<&Registry>) = ranked.into_iter().partition(|registry| {
            let count = counts.entry(registry.metadata.namespace.as_deref()).or_default();
            *count += 1;
            limits.registries_per_namespace == 0 || *count <= limits.registries_per_namespace
        });
        precedence.beyond_quota = beyond.iter().filter_map(|registry| registry.metadata.uid.as_deref()).collect();
        for registry in within.into_iter().chain(beyond) {
            for host in registry.spec.hosts.iter().filter(|host| limits.allows(host)) {
                precedence.holders.entry(host).or_insert(registry);
            }
        }
        precedence
    }

    /// Whether a Registry is one too many in its namespace.
    #[must_use]
    pub fn is_beyond_quota(&self, registry: &Registry) -> bool {
        registry.metadata.uid.as_deref().is_some_and(|uid| self.beyond_quota.contains(uid))
    }

    /// What became of the names that a Registry asks for.
    #[must_use]
    pub fn hosts(&self, registry: &Registry) -> Hosts {
        let mut hosts = Hosts::default();
        for host in &registry.spec.hosts {
            let holder = self.holders.get(host.as_str());
            if !self.limits.allows(host) {
                hosts.not_allowed.push(host.clone());
            } else if let Some(holder) = holder.filter(|holder| holder.metadata.uid != registry.metadata.uid) {
                let whose = format!("{}/{}", holder.namespace().unwrap_or_default(), holder.name_any());
                hosts.taken.push((host.clone(), whose));
            } else {
                hosts.granted.push(host.clone());
            }
        }
        hosts
    }
}

/// The names by which nodes pull from a Registry: its address, and what it was granted.
#[must_use]
pub fn planned(
    registry: &Registry,
    granted: &[String],
    plan: &Plan,
    older_authority_suffices: bool,
) -> Vec<PlannedHost> {
    let address = Names::new(registry.namespace().unwrap_or_default(), registry.name_any()).address();
    let uid = registry.metadata.uid.as_deref().unwrap_or_default();
    let needed = |host: String| PlannedHost { since: plan.needed_revision(&host, uid, older_authority_suffices), host };
    std::iter::once(address).chain(granted.iter().cloned()).map(needed).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::operator::registry::fixture;

    fn registry(namespace: &str, name: &str, day: u8, hosts: &[&str]) -> Registry {
        let mut registry = fixture::team("{}");
        registry.metadata.namespace = Some(namespace.into());
        registry.metadata.name = Some(name.into());
        registry.metadata.uid = Some(format!("uid of {namespace}/{name}"));
        registry.metadata.creation_timestamp = Some(Time(format!("2026-01-{day:02}T00:00:00Z").parse().unwrap()));
        registry.spec.hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        registry
    }

    fn limits(quota: u32) -> Limits {
        Limits { allowed_hosts: vec!["*.example.com".parse().unwrap()], registries_per_namespace: quota }
    }

    #[test]
    fn a_name_is_the_older_ones_then_the_first_ones() {
        let all = [
            registry("b", "x", 2, &["images.example.com", "own.example.com"]),
            registry("a", "y", 2, &["images.example.com"]),
            registry("c", "z", 1, &["old.example.com", "elsewhere.example.org"]),
            registry("a", "z", 3, &["old.example.com"]),
        ];
        let limits = limits(0);
        let precedence = Precedence::of(&all, &limits);
        let taken = |host: &str, whose: &str| vec![(host.to_owned(), whose.to_owned())];
        let of = |index: usize| precedence.hosts(&all[index]);
        assert_eq!(of(0).granted, ["own.example.com"]);
        assert_eq!(of(0).taken, taken("images.example.com", "a/y"));
        assert_eq!(of(1).granted, ["images.example.com"]);
        assert_eq!(of(2).granted, ["old.example.com"]);
        assert_eq!(of(2).not_allowed, ["elsewhere.example.org"]);
        assert_eq!(of(3).taken, taken("old.example.com", "c/z"));
        // An allowed name that nobody else asks for is not refused, however old the list is.
        let newcomer = registry("d", "w", 4, &["new.example.com"]);
        assert_eq!(precedence.hosts(&newcomer).granted, ["new.example.com"]);
        // In any order, and healed when the winner is gone.
        let reversed: Vec<&Registry> = all.iter().rev().filter(|registry| registry.name_any() != "y").collect();
        assert_eq!(Precedence::of(reversed, &limits).hosts(&all[0]).taken, []);
    }

    #[test]
    fn without_a_setting_nobody_has_a_further_name() {
        let one = registry("a", "x", 1, &["images.example.com"]);
        let limits = Limits::default();
        let precedence = Precedence::of([&one], &limits);
        assert_eq!(precedence.hosts(&one).not_allowed, ["images.example.com"]);
        assert!(!precedence.is_beyond_quota(&one));
    }

    #[test]
    fn the_newest_of_a_namespace_are_beyond_its_quota() {
        let all = [
            registry("a", "newest", 4, &["images.example.com"]),
            registry("a", "second", 2, &[]),
            registry("a", "first", 1, &[]),
            registry("b", "alone", 5, &["images.example.com"]),
        ];
        let beyond = |quota: u32| {
            let limits = limits(quota);
            let precedence = Precedence::of(&all, &limits);
            all.iter().filter(|one| precedence.is_beyond_quota(one)).map(ResourceExt::name_any).collect::<Vec<_>>()
        };
        assert_eq!(beyond(0), [""; 0]);
        assert_eq!(beyond(3), [""; 0]);
        assert_eq!(beyond(2), ["newest"]);
        assert_eq!(beyond(1), ["newest", "second"]);
        // What it may not have, it keeps from nobody, though it is older.
        assert_eq!(Precedence::of(&all, &limits(2)).hosts(&all[3]).granted, ["images.example.com"]);
        assert_eq!(Precedence::of(&all, &limits(3)).hosts(&all[3]).taken.len(), 1);
    }
}
