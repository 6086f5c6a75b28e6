//! Which servers have the content of which registry, as the plan says. A server that stays in the plan keeps its connections and
//! what is known of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

use super::backend::Backend;
use crate::oci::RegistryHost;
use crate::plan::{OwnerKind, Plan};

/// Where a registry's content is.
#[derive(Clone)]
pub struct Route {
    /// What serves it.
    pub kind: OwnerKind,
    /// The servers, each of which may be asked for everything.
    pub backends: Vec<Arc<Backend>>,
}

/// All routes.
#[derive(Default)]
pub struct Routes {
    hosts: BTreeMap<RegistryHost, Route>,
    authority: String,
}

impl Routes {
    /// The routes of a plan; servers that `before` knows under the same authorities are taken over.
    #[must_use]
    pub fn of(plan: &Plan, before: &Self) -> Self {
        let tls = trusting(&plan.authority);
        let known: BTreeMap<(&str, OwnerKind), &Arc<Backend>> = if before.authority == plan.authority {
            let routes = before.hosts.values();
            routes.flat_map(|route| route.backends.iter().map(|found| ((found.url(), route.kind), found))).collect()
        } else {
            BTreeMap::new()
        };
        let mut made: BTreeMap<(&str, OwnerKind), Arc<Backend>> = BTreeMap::new();
        let mut hosts = BTreeMap::new();
        for (host, entry) in &plan.hosts {
            let Ok(host) = host.parse::<RegistryHost>() else { continue };
            let kind = entry.owner.kind;
            let mut backends = Vec::new();
            for url in &entry.backends {
                let key = (url.as_str(), kind);
                let found = made.get(&key).or_else(|| known.get(&key).copied()).cloned();
                match found.map_or_else(|| Backend::new(url, kind, &tls).map(Arc::new), Ok) {
                    Ok(backend) => {
                        made.insert(key, backend.clone());
                        backends.push(backend);
                    }
                    Err(trouble) => tracing::warn!(%host, %trouble, "a server of the plan cannot be asked"),
                }
            }
            hosts.insert(host, Route { kind, backends });
        }
        Self { hosts, authority: plan.authority.clone() }
    }

    /// The route of a registry.
    #[must_use]
    pub fn get(&self, host: &RegistryHost) -> Option<&Route> {
        self.hosts.get(host)
    }
}

impl Route {
    /// The servers in the order in which they are asked for what has this key: each key has a first one of its own, which stays the
    /// same when others come and go. Source: Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998.
    #[must_use]
    pub fn ranked(&self, key: &str) -> Vec<Arc<Backend>> {
        let mut ranked: Vec<_> = self.backends.iter().map(|backend| (weight(key, backend.url()), backend)).collect();
        ranked.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
        ranked.into_iter().map(|(_, backend)| backend.clone()).collect()
    }
}

fn weight(key: &str, url: &str) -> u64 {
    let digest = Sha256::new().chain_update(key).chain_update([0]).chain_update(url).finalize();
    digest.iter().take(8).fold(0, |weight, byte| weight << 8 | u64::from(*byte))
}

/// Connections that believe these authorities and no others.
fn trusting(authority: &str) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(authority.as_bytes()).filter_map(Result::ok));
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Entry, Owner};

    fn plan(backends: &[&str], authority: &str) -> Plan {
        let owner = Owner { kind: OwnerKind::Mirror, namespace: String::new(), name: "m".into(), uid: "u".into() };
        let backends = backends.iter().map(|url| (*url).to_owned()).collect();
        let entry = Entry { backends, owner, nodes: None, since: 1 };
        let hosts = BTreeMap::from([("docker.io".to_owned(), entry.clone()), ("ghcr.io".to_owned(), entry)]);
        Plan { revision: 1, authority: authority.into(), authority_since: 1, hosts }
    }

    fn urls(routes: &Routes, key: &str) -> Vec<String> {
        let route = routes.get(&"docker.io".parse().unwrap()).unwrap();
        route.ranked(key).iter().map(|backend| backend.url().to_owned()).collect()
    }

    #[tokio::test]
    async fn each_object_has_a_first_server_which_stays_when_another_goes() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let all = ["https://10.0.0.1", "https://10.0.0.2", "https://10.0.0.3"];
        let three = Routes::of(&plan(&all, ""), &Routes::default());
        let two = Routes::of(&plan(&all[..2], ""), &three);
        let mut firsts = BTreeMap::new();
        for number in 0..300 {
            let key = format!("sha256:{number}");
            let ranked = urls(&three, &key);
            *firsts.entry(ranked[0].clone()).or_insert(0) += 1;
            let without: Vec<String> = ranked.into_iter().filter(|url| url != all[2]).collect();
            assert_eq!(urls(&two, &key), without);
        }
        assert!(firsts.len() == 3 && firsts.values().all(|count| *count > 60), "{firsts:?}");
    }

    #[tokio::test]
    async fn a_server_that_stays_is_the_same_one_and_belongs_to_all_its_hosts() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let first = Routes::of(&plan(&["https://10.0.0.1", "nonsense", "https://a.b.svc"], ""), &Routes::default());
        let of = |routes: &Routes, host: &str| routes.get(&host.parse().unwrap()).unwrap().backends.clone();
        let (hub, other) = (of(&first, "docker.io"), of(&first, "ghcr.io"));
        assert_eq!(hub.len(), 1);
        assert!(Arc::ptr_eq(&hub[0], &other[0]));
        let next = Routes::of(&plan(&["https://10.0.0.1"], ""), &first);
        assert!(Arc::ptr_eq(&of(&next, "docker.io")[0], &hub[0]));
        // Other authorities: what was believed under the old ones is not.
        let changed = Routes::of(&plan(&["https://10.0.0.1"], "x"), &next);
        assert!(!Arc::ptr_eq(&of(&changed, "docker.io")[0], &hub[0]));
        assert!(next.get(&"quay.io".parse().unwrap()).is_none());
    }
}
