//! Who has a host that several Mirrors want. Pure. It must never depend on who was looked at first: any two passes, and the
//! node plan, see the same winners.
//!
//! The older Mirror wins, then the one whose name comes first. The name of a Registry is that Registry's, whatever Mirrors say.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::ResourceExt;

use crate::api::{Mirror, Registry};
use crate::operator::limits::Limits;
use crate::operator::registry::names::Names;
use crate::operator::registry::precedence::Precedence;

/// The hosts of a Mirror.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// It has these, in the order of its spec.
    pub granted: Vec<String>,
    /// Others have these: the host, and whose it is, as `Mirror default` or `Registry platform/team`.
    pub lost: Vec<(String, String)>,
}

/// What becomes of the hosts that a Mirror asks for. `mirrors` are those that are not being deleted, this one among them or not;
/// `registry_hosts` are the names of Registries, each with the Registry's.
#[must_use]
pub fn hosts_of<'a>(
    mirror: &Mirror,
    mirrors: impl IntoIterator<Item = &'a Mirror>,
    registry_hosts: &BTreeMap<String, String>,
) -> Hosts {
    let others: Vec<&Mirror> = mirrors
        .into_iter()
        .filter(|other| other.metadata.uid != mirror.metadata.uid && rank(other) < rank(mirror))
        .collect();
    let winner = |host: &String| {
        let registry = registry_hosts.get(host).map(|whose| format!("Registry {whose}"));
        let first = others.iter().filter(|other| asks_for(other, host)).min_by_key(|other| rank(other));
        registry.or_else(|| first.map(|other| format!("Mirror {}", other.name_any())))
    };
    let mut hosts = Hosts::default();
    for upstream in &mirror.spec.upstreams {
        match winner(&upstream.host) {
            Some(whose) => hosts.lost.push((upstream.host.clone(), whose)),
            None => hosts.granted.push(upstream.host.clone()),
        }
    }
    hosts
}

/// The names of these Registries, of which none is being deleted, each with the Registry's as `namespace/name`.
#[must_use]
pub fn registry_hosts<'a>(
    registries: impl IntoIterator<Item = &'a Registry>,
    limits: &Limits,
) -> BTreeMap<String, String> {
    let registries: Vec<&Registry> = registries.into_iter().collect();
    let precedence = Precedence::of(registries.iter().copied(), limits);
    let mut hosts = BTreeMap::new();
    for registry in registries {
        let names = Names::new(registry.namespace().unwrap_or_default(), registry.name_any());
        let whose = format!("{}/{}", names.namespace(), names.registry());
        let further = precedence.hosts(registry).granted;
        hosts.extend(further.into_iter().chain([names.address()]).map(|host| (host, whose.clone())));
    }
    hosts
}

fn asks_for(mirror: &Mirror, host: &str) -> bool {
    mirror.spec.upstreams.iter().any(|upstream| upstream.host == host)
}

/// What two Mirrors that want the same host are compared by; the lesser one wins.
fn rank(mirror: &Mirror) -> (Option<Timestamp>, Option<&str>) {
    let made = mirror.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (made, mirror.metadata.name.as_deref())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;

    fn mirror(name: &str, day: u8, hosts: &[&str]) -> Mirror {
        let upstreams: Vec<_> = hosts.iter().map(|host| json!({ "host": host })).collect();
        let mut mirror: Mirror = serde_json::from_value(json!({
            "apiVersion": "wharf.dev/v1alpha1", "kind": "Mirror",
            "metadata": {"name": name, "uid": format!("uid of {name}")}, "spec": {"upstreams": upstreams},
        }))
        .unwrap();
        mirror.metadata.creation_timestamp = Some(Time(format!("2026-01-{day:02}T00:00:00Z").parse().unwrap()));
        mirror
    }

    #[test]
    fn a_host_is_the_older_ones_then_the_first_ones_and_never_taken_from_a_registry() {
        let all = [
            mirror("b", 2, &["docker.io", "ghcr.io", "images.example.com"]),
            mirror("a", 2, &["docker.io"]),
            mirror("c", 1, &["ghcr.io"]),
            mirror("d", 1, &["ghcr.io", "quay.io"]),
        ];
        let registries = BTreeMap::from([("images.example.com".to_owned(), "platform/team".to_owned())]);
        let of = |index: usize| hosts_of(&all[index], &all, &registries);
        let lost = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(host, whose)| ((*host).to_owned(), (*whose).to_owned())).collect::<Vec<_>>()
        };
        assert_eq!(of(0).granted, [""; 0]);
        let expected =
            [("docker.io", "Mirror a"), ("ghcr.io", "Mirror c"), ("images.example.com", "Registry platform/team")];
        assert_eq!(of(0).lost, lost(&expected));
        assert_eq!(of(1), Hosts { granted: vec!["docker.io".into()], lost: Vec::new() });
        assert_eq!(of(2).granted, ["ghcr.io"]);
        assert_eq!(of(3), Hosts { granted: vec!["quay.io".into()], lost: lost(&[("ghcr.io", "Mirror c")]) });
        // In any order, and healed when the winner is gone.
        let rest: Vec<&Mirror> = all.iter().rev().filter(|mirror| mirror.name_any() != "c").collect();
        assert_eq!(hosts_of(&all[3], rest, &registries).granted, ["ghcr.io", "quay.io"]);
    }
}
