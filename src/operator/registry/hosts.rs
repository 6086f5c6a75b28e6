//! Who has a host beyond the cluster, when several want it. Pure.
//! Among Registries the older one wins, then the name; an Ingress of somebody else wins unless ours was there first. Nobody's
//! Ingress is ever changed for it.

use std::sync::Arc;

use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};

use super::place::precedes;
use crate::api::Registry;

/// The hosts by which a Registry wants to be called from beyond the cluster.
fn hosts(registry: &Registry) -> impl Iterator<Item = &str> {
    let expose = registry.spec.expose.as_ref();
    let ingress = expose.and_then(|expose| expose.ingress.as_ref()).map(|ingress| ingress.host.as_str());
    let gateway = expose.and_then(|expose| expose.gateway.as_ref()).map(|gateway| gateway.host.as_str());
    ingress.into_iter().chain(gateway)
}

/// The Registry that has a host which this one wants, as `namespace/name`.
#[must_use]
pub fn older_with(registry: &Registry, host: &str, all: &[Registry]) -> Option<String> {
    all.iter()
        .filter(|other| other.metadata.uid != registry.metadata.uid)
        .find(|other| hosts(other).any(|wanted| wanted == host) && precedes(other, registry))
        .map(|other| format!("Registry {}", full_name(other)))
}

/// The Ingress of somebody else that has a host which this Registry wants, as `namespace/name`. Those of Registries are left to
/// [`older_with`]: the losing one goes by itself. `ours` is the Registry's own Ingress or route that has the host already: one
/// that is older, but had another host so far, is no reason to take theirs away.
#[must_use]
pub fn ingress_with(
    registry: &Registry,
    host: &str,
    ours: Option<&ObjectMeta>,
    ingresses: &[Arc<Ingress>],
) -> Option<String> {
    let since = |metadata: &ObjectMeta| metadata.creation_timestamp.as_ref().map(|time| time.0);
    let came_first = |other: &Ingress| ours.is_none_or(|ours| since(&other.metadata) < since(ours));
    ingresses
        .iter()
        .filter(|other| !is_of_a_registry(other, registry))
        .find(|other| has(other, host) && came_first(other))
        .map(|other| format!("Ingress {}", full_name(other.as_ref())))
}

/// Whether an Ingress leads to a host.
#[must_use]
pub fn has(ingress: &Ingress, host: &str) -> bool {
    let rules = ingress.spec.as_ref().and_then(|spec| spec.rules.as_ref());
    rules.into_iter().flatten().any(|rule| rule.host.as_deref() == Some(host))
}

fn is_of_a_registry(ingress: &Ingress, registry: &Registry) -> bool {
    ingress.owner_references().iter().any(|owner| {
        Some(&owner.uid) == registry.metadata.uid.as_ref()
            || (owner.kind == Registry::kind(&()) && owner.api_version == Registry::api_version(&()))
    })
}

fn full_name<K: Resource>(object: &K) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::{Value, json};

    use super::*;
    use crate::operator::registry::fixture;

    const HOST: &str = "images.example.com";
    const EARLY: &str = "2026-01-01T00:00:00Z";
    const LATE: &str = "2026-01-02T00:00:00Z";

    fn registry(name: &str, made: &str) -> Registry {
        let mut registry = fixture::team(&format!("{{expose: {{ingress: {{host: {HOST}}}}}}}"));
        registry.metadata.name = Some(name.into());
        registry.metadata.uid = Some(format!("uid of {name}"));
        registry.metadata.creation_timestamp = Some(Time(made.parse().unwrap()));
        registry
    }

    fn ingress(host: &str, made: &str, owner: &Value) -> Arc<Ingress> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": "web", "namespace": "shop", "creationTimestamp": made, "ownerReferences": owner},
                "spec": {"rules": [{"host": "other.example.com"}, {"host": host}]},
            }))
            .unwrap(),
        )
    }

    #[test]
    fn of_two_registries_the_older_one_has_the_host() {
        let (first, second) = (registry("b", EARLY), registry("a", LATE));
        let all = [second.clone(), first.clone()];
        assert_eq!(older_with(&first, HOST, &all), None);
        assert_eq!(older_with(&second, HOST, &all), Some("Registry platform/b".into()));
        assert_eq!(older_with(&second, "other.example.com", &all), None);
        let mut by_gateway =
            fixture::team(&format!("{{expose: {{gateway: {{host: {HOST}, parentRefs: [{{name: g}}]}}}}}}"));
        by_gateway.metadata.creation_timestamp = Some(Time(EARLY.parse().unwrap()));
        assert_eq!(older_with(&second, HOST, &[by_gateway]), Some("Registry platform/team".into()));
    }

    #[test]
    fn an_ingress_of_somebody_else_has_the_host_unless_ours_was_first() {
        let team = registry("team", EARLY);
        let theirs = [ingress(HOST, LATE, &json!([]))];
        assert_eq!(ingress_with(&team, HOST, None, &theirs), Some("Ingress shop/web".into()));
        assert_eq!(ingress_with(&team, "images.example.org", None, &theirs), None);
        let ours = ingress(HOST, EARLY, &json!([]));
        assert_eq!(ingress_with(&team, HOST, Some(&ours.metadata), &theirs), None);
        let late = ingress(HOST, "2026-01-03T00:00:00Z", &json!([]));
        assert_eq!(ingress_with(&team, HOST, Some(&late.metadata), &theirs), Some("Ingress shop/web".into()));
    }

    #[test]
    fn ingresses_of_registries_are_judged_by_their_registries() {
        let team = registry("team", LATE);
        let owner =
            |uid: &str| json!([{"apiVersion": "wharf.dev/v1alpha1", "kind": "Registry", "name": "x", "uid": uid}]);
        let theirs = [ingress(HOST, EARLY, &owner("another")), ingress(HOST, EARLY, &owner("uid of team"))];
        assert_eq!(ingress_with(&team, HOST, None, &theirs), None);
    }
}
