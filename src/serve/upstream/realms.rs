//! Where tokens may be fetched, for credentials go there. It must never be the upstream alone that decides this.
//!
//! "The same site" by the public suffix of a name would be no bound: all services of a cluster are one site.

use url::Url;

use super::authority::{Authority, NamedHost, shown};
use super::transport::Reach;

/// Registries whose tokens come from a host of another name. Those of all others that are known come from their own.
const KNOWN: [(&str, &str); 7] = [
    ("docker.elastic.co", "docker-auth.elastic.co"),
    ("index.docker.io", "auth.docker.io"),
    ("lscr.io", "ghcr.io"),
    ("registry-1.docker.io", "auth.docker.io"),
    ("registry.digitalocean.com", "api.digitalocean.com"),
    ("registry.gitlab.com", "gitlab.com"),
    ("registry.hub.docker.com", "auth.docker.io"),
];

/// How a realm that an endpoint names may be reached.
///
/// # Errors
/// When it may not, with the reason.
pub fn judge(endpoint: &Authority, realm: &Url, named: &[NamedHost]) -> Result<Reach, String> {
    let Some(at) = Authority::of(realm) else {
        return Err(format!("tokens are said to come from {}, which is no place for that", shown(realm)));
    };
    if endpoint.secure && !at.secure {
        return Err(format!("tokens are said to come from {}, without TLS", shown(realm)));
    }
    if at == *endpoint || named.iter().any(|host| host.is(&at)) {
        return Ok(Reach::Anywhere);
    }
    if at.secure && at.port == 443 && is_known(endpoint, &at) {
        return Ok(Reach::Public);
    }
    Err(format!("tokens are said to come from {}; where that is right, name its host in tokenRealms", shown(realm)))
}

fn is_known(endpoint: &Authority, at: &Authority) -> bool {
    let names = (endpoint.host.to_string(), at.host.to_string());
    endpoint.secure && endpoint.port == 443 && KNOWN.iter().any(|(one, other)| names.0 == *one && names.1 == *other)
}

#[cfg(test)]
mod tests {
    use super::super::authority::{Authority, NamedHost};
    use super::super::transport::Reach;
    use super::judge;

    #[test]
    fn credentials_go_to_the_endpoint_to_known_pairs_and_to_named_hosts() {
        let named = [NamedHost::parse("auth.example").unwrap(), NamedHost::parse("10.0.0.7:5001").unwrap()];
        for (endpoint, realm, expected) in [
            ("https://ghcr.io", "https://ghcr.io/token", Some(Reach::Anywhere)),
            ("https://ghcr.io", "https://GHCR.io:443/token?a=b", Some(Reach::Anywhere)),
            ("https://ghcr.io", "https://ghcr.io:444/token", None),
            ("https://ghcr.io", "http://ghcr.io/token", None),
            ("https://ghcr.io", "http://ghcr.io:443/token", None),
            ("https://ghcr.io", "https://auth.ghcr.io/token", None),
            ("https://ghcr.io", "https://user:password@ghcr.io/token", None),
            ("https://ghcr.io", "ftp://ghcr.io/token", None),
            ("https://registry-1.docker.io", "https://auth.docker.io/token", Some(Reach::Public)),
            ("https://registry-1.docker.io", "https://auth.docker.io:8443/token", None),
            ("https://registry-1.docker.io:8443", "https://auth.docker.io/token", None),
            ("http://registry-1.docker.io", "https://auth.docker.io/token", None),
            ("https://registry-1.docker.io", "https://gitlab.com/jwt/auth", None),
            ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth", Some(Reach::Public)),
            ("https://gitlab.com", "https://registry.gitlab.com/jwt/auth", None),
            ("https://a.example", "https://auth.example/token", Some(Reach::Anywhere)),
            ("https://a.example", "http://auth.example/token", None),
            ("https://a.example", "https://10.0.0.7:5001/token", Some(Reach::Anywhere)),
            ("https://a.example", "https://10.0.0.7/token", None),
            ("http://a.platform.svc:5000", "http://b.platform.svc:5000/token", None),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5000/token", Some(Reach::Anywhere)),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5001/token", None),
        ] {
            let at = Authority::of(&endpoint.parse().unwrap()).unwrap();
            let found = judge(&at, &realm.parse().unwrap(), &named);
            assert_eq!(found.clone().ok(), expected, "{endpoint} {realm}");
            assert!(!found.is_err_and(|reason| reason.contains("password")), "{realm}");
        }
    }
}
