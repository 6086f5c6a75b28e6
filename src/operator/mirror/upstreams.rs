//! Which registries a Mirror's pods are told to ask, and how: what the spec says, without what cannot be had. Pure.
//! It must never let one registry's trouble take away another one, nor a credential go where its Secret does not say.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};
use url::Host;

use super::names::Names;
use super::observe::{Observed, SecretFact};
use super::place::Place;
use crate::api::labels::ENDPOINTS;
use crate::api::mirror::{MirrorSpec, MirrorUpstream};
use crate::api::{condition, reason};
use crate::oci::RegistryHost;
use crate::operator::problem::Problem;

/// Where the users' Secrets with credentials lie in the pod, each in a folder of its own.
pub(super) const CREDENTIALS_FOLDER: &str = "/etc/wharf/credentials";
/// Where the users' Secrets with authorities lie in the pod, each in a folder of its own.
pub(super) const AUTHORITIES_FOLDER: &str = "/etc/wharf/authorities";
/// The key of certificates in a Secret of authorities.
pub(super) const AUTHORITY_KEY: &str = "ca.crt";

/// The registries as the pods are told of them, and what stands in the way of the others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Upstreams {
    /// Entries of the server's configuration.
    pub configured: Vec<Value>,
    /// What a user has to mend.
    pub problems: Vec<Problem>,
}

/// What is known of the Mirrors' own places, which no registry can be behind.
pub struct Own<'a> {
    /// The names of this Mirror's children.
    pub names: &'a Names,
    /// The cluster's DNS domain.
    pub cluster_domain: &'a str,
}

/// The registries that a Mirror has, as its pods are to ask them.
#[must_use]
pub fn upstreams(spec: &MirrorSpec, observed: &Observed, own: &Own<'_>) -> Upstreams {
    let mut all = Upstreams::default();
    for upstream in spec.upstreams.iter().filter(|upstream| observed.hosts.granted.contains(&upstream.host)) {
        let mut problems = Vec::new();
        all.configured.extend(entry(upstream, spec, observed, own, &mut problems));
        all.problems.extend(problems);
    }
    all
}

fn entry(
    upstream: &MirrorUpstream,
    spec: &MirrorSpec,
    observed: &Observed,
    own: &Own<'_>,
    problems: &mut Vec<Problem>,
) -> Option<Value> {
    // One entry that the server refuses would keep it from all others.
    if let Some(why) = refusal(upstream) {
        let message = format!("{} is left out: {why}. Correct it in spec.upstreams", upstream.host);
        problems.push(problem(reason::UPSTREAM_INVALID, message));
        return None;
    }
    let endpoints = open_endpoints(upstream, observed, own, problems)?;
    let mut entry = json!({
        "host": upstream.host,
        "privateImages": upstream.private_images.unwrap_or(spec.private_images),
    });
    let mut set = |key: &str, value: Value| {
        entry.as_object_mut().map(|fields| fields.insert(key.to_owned(), value));
    };
    if !endpoints.is_empty() {
        set("endpoints", json!(endpoints));
    }
    if let Some(folder) = credentials(upstream, &endpoints, observed, own.names, problems) {
        set("credentials", json!(folder));
    }
    if let Some(file) = authorities(upstream, observed, own.names, problems) {
        set("authorities", json!(file));
    }
    if let Some(proxy) = &upstream.proxy {
        set("proxy", json!(proxy));
    }
    if !upstream.token_realms.is_empty() {
        set("tokenRealms", json!(upstream.token_realms));
    }
    if !upstream.redirect_hosts.is_empty() {
        set("redirectHosts", json!(upstream.redirect_hosts));
    }
    if let Some(repositories) = &upstream.repositories {
        set("repositories", json!(repositories));
    }
    Some(entry)
}

/// Why the server would refuse a registry, where the schema cannot tell.
fn refusal(upstream: &MirrorUpstream) -> Option<String> {
    if let Err(why) = upstream.host.parse::<RegistryHost>() {
        return Some(why.to_string());
    }
    let mut urls = upstream.endpoints.iter().chain(&upstream.proxy);
    if let Some(url) = urls.find(|url| Place::of(url).is_none()) {
        return Some(format!("{url} is no URL of a place"));
    }
    let mut named = upstream.token_realms.iter().chain(&upstream.redirect_hosts);
    let unusable = named.find(|name| Place::of(&format!("https://{name}")).is_none())?;
    Some(format!("{unusable} is not the name of a host, alone or with a port"))
}

/// The endpoints that lead elsewhere; `None` where none is left.
fn open_endpoints(
    upstream: &MirrorUpstream,
    observed: &Observed,
    own: &Own<'_>,
    problems: &mut Vec<Problem>,
) -> Option<Vec<String>> {
    let implied = format!("https://{}", upstream.host);
    let asked = if upstream.endpoints.is_empty() { vec![implied] } else { upstream.endpoints.clone() };
    let (loops, open): (Vec<String>, Vec<String>) =
        asked.into_iter().partition(|endpoint| is_a_mirror(endpoint, &observed.mirror_addresses, own));
    for endpoint in &loops {
        problems.push(problem(
            reason::LOOP,
            format!(
                "{endpoint} of {} leads back to a Mirror, which would ask itself without end, and is left out. Name where the \
                 registry itself is",
                upstream.host
            ),
        ));
    }
    if open.is_empty() {
        return None;
    }
    Some(if upstream.endpoints.is_empty() { Vec::new() } else { open })
}

/// Whether an endpoint is a Mirror's Service, or the pod itself that would ask it.
fn is_a_mirror(endpoint: &str, addresses: &BTreeSet<IpAddr>, own: &Own<'_>) -> bool {
    let Some(place) = Place::of(endpoint) else {
        return false;
    };
    let is_own = |address: IpAddr| address.is_loopback() || address.is_unspecified() || addresses.contains(&address);
    match place.host {
        Host::Ipv4(address) => is_own(address.into()),
        Host::Ipv6(address) => is_own(address.to_canonical()),
        Host::Domain(name) => {
            let name = name.trim_end_matches('.');
            name == "localhost" || name.ends_with(".localhost") || is_service_of_a_mirror(name, own)
        }
    }
}

fn is_service_of_a_mirror(name: &str, own: &Own<'_>) -> bool {
    let (service, rest) = name.split_once('.').unwrap_or((name, ""));
    let namespace = own.names.namespace();
    let places = [
        String::new(),
        namespace.to_owned(),
        format!("{namespace}.svc"),
        format!("{namespace}.svc.{}", own.cluster_domain),
    ];
    Names::is_of_a_mirror(service) && places.iter().any(|place| place == rest)
}

/// The folder with the credential, where it is there and may go to all of the endpoints.
fn credentials(
    upstream: &MirrorUpstream,
    endpoints: &[String],
    observed: &Observed,
    names: &Names,
    problems: &mut Vec<Problem>,
) -> Option<String> {
    let reference = upstream.credentials_secret_ref.as_ref()?;
    let secret = format!("Secret {} in {}", reference.name, names.namespace());
    let without = format!("{} is asked without a credential until then", upstream.host);
    let Some(fact) = observed.secrets.get(&reference.name) else {
        let message = format!("{secret}, which {} names, does not exist. Make it; {without}", upstream.host);
        problems.push(problem(reason::CREDENTIALS_MISSING, message));
        return None;
    };
    if let Some(lack) = fact.lacks_a_credential() {
        problems.push(problem(
            reason::CREDENTIALS_MISSING,
            format!(
                "{secret} {lack}. Make it of type kubernetes.io/basic-auth with username and password, or of type \
                 kubernetes.io/dockerconfigjson; {without}"
            ),
        ));
        return None;
    }
    let refused: Vec<&str> =
        endpoints.iter().filter(|endpoint| !may_go_to(endpoint, &upstream.host, fact)).map(String::as_str).collect();
    if refused.is_empty() {
        return Some(format!("{CREDENTIALS_FOLDER}/{}", reference.name));
    }
    problems.push(problem(
        reason::ENDPOINT_NOT_ALLOWED,
        format!(
            "{} of {} is another place than the registry's own, and {secret} does not say that its credential may go there. If \
             it may: kubectl annotate secret -n {} {} {ENDPOINTS}={}; {without}",
            refused.join(" and "),
            upstream.host,
            names.namespace(),
            reference.name,
            refused.join(","),
        ),
    ));
    None
}

/// Whether a credential may go to an endpoint: it is the registry's own place, or the Secret says so.
fn may_go_to(endpoint: &str, host: &str, fact: &SecretFact) -> bool {
    let own = host.parse::<RegistryHost>().map(|host| Place::own_of(&host)).unwrap_or_default();
    let named = fact.endpoints.iter().filter_map(|url| Place::of(url));
    let place = Place::of(endpoint);
    own.into_iter().chain(named).any(|open| place.as_ref() == Some(&open))
}

fn authorities(
    upstream: &MirrorUpstream,
    observed: &Observed,
    names: &Names,
    problems: &mut Vec<Problem>,
) -> Option<String> {
    let reference = upstream.ca_secret_ref.as_ref()?;
    if observed.secrets.get(&reference.name).is_some_and(|fact| fact.keys.contains(AUTHORITY_KEY)) {
        return Some(format!("{AUTHORITIES_FOLDER}/{}/{AUTHORITY_KEY}", reference.name));
    }
    problems.push(problem(
        reason::AUTHORITY_MISSING,
        format!(
            "Secret {} in {}, which {} names in caSecretRef, does not exist or has no key {AUTHORITY_KEY}. Make it; only public \
             certificates are believed until then",
            reference.name,
            names.namespace(),
            upstream.host
        ),
    ));
    None
}

fn problem(reason: &'static str, message: String) -> Problem {
    Problem { condition: condition::UPSTREAMS_REACHABLE, reason, message }
}

#[cfg(test)]
mod tests;
