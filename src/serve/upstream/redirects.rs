//! Where a redirect may lead. It must never lead from TLS to none, nor carry a credential to another place.

use url::Url;

use super::authority::{Authority, NamedHost, shown};
use super::transport::Reach;

/// Redirects that are followed in a row.
pub const MOST: usize = 5;

/// A place that a redirect leads to.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    pub url: Url,
    pub at: Authority,
    pub reach: Reach,
}

/// Where `location` leads from a URL, for a request that began at an endpoint.
///
/// # Errors
/// When it may not be followed, with the reason.
pub fn judge(endpoint: &Authority, from: &Url, location: &[u8], named: &[NamedHost]) -> Result<Target, String> {
    let location = std::str::from_utf8(location).ok().and_then(|text| from.join(text).ok());
    let Some(mut url) = location else {
        return Err(format!("{} redirects to something that is no URL", shown(from)));
    };
    url.set_fragment(None);
    let refused = |reason: &str| format!("{} redirects to {}, {reason}", shown(from), shown(&url));
    let Some(at) = Authority::of(&url) else { return Err(refused("which is not a plain URL of HTTP")) };
    if endpoint.secure && !at.secure {
        return Err(refused("without TLS"));
    }
    let reach = if at == *endpoint || named.iter().any(|host| host.is(&at)) { Reach::Anywhere } else { Reach::Public };
    Ok(Target { url, at, reach })
}

#[cfg(test)]
mod tests {
    use super::super::authority::{Authority, NamedHost};
    use super::super::transport::Reach;
    use super::judge;

    #[test]
    fn a_redirect_is_followed_where_it_may_lead() {
        let named = [NamedHost::parse("10.0.0.7").unwrap()];
        for (endpoint, location, expected) in [
            ("https://a.example", "/other", Some(("https://a.example/other", Reach::Anywhere))),
            ("https://a.example", "other?x=y#z", Some(("https://a.example/v2/other?x=y", Reach::Anywhere))),
            ("https://a.example", "//cdn.example/b", Some(("https://cdn.example/b", Reach::Public))),
            ("https://a.example", "https://cdn.example:8443/b", Some(("https://cdn.example:8443/b", Reach::Public))),
            ("https://a.example", "https://10.0.0.7:9000/b", Some(("https://10.0.0.7:9000/b", Reach::Anywhere))),
            ("https://a.example", "https://10.0.0.8/b", Some(("https://10.0.0.8/b", Reach::Public))),
            ("https://a.example", "https://a.example:444/b", Some(("https://a.example:444/b", Reach::Public))),
            ("https://a.example", "http://a.example/b", None),
            ("https://a.example", "http://10.0.0.7/b", None),
            ("https://a.example", "https://user:secret@cdn.example/b", None),
            ("https://a.example", "ftp://cdn.example/b", None),
            ("https://a.example", "file:///etc/passwd", None),
            ("https://a.example", "https://", None),
            ("http://a.example", "http://cdn.example/b", Some(("http://cdn.example/b", Reach::Public))),
            ("http://a.example", "https://cdn.example/b", Some(("https://cdn.example/b", Reach::Public))),
        ] {
            let from = format!("{endpoint}/v2/blob").parse().unwrap();
            let at = Authority::of(&from).unwrap();
            let found = judge(&at, &from, location.as_bytes(), &named);
            let target = found.as_ref().ok().map(|target| (target.url.as_str(), target.reach));
            assert_eq!(target, expected, "{endpoint} {location}");
            assert!(!found.is_err_and(|reason| reason.contains("secret")), "{location}");
        }
        let from = "https://a.example/".parse().unwrap();
        let wrong = judge(&Authority::of(&from).unwrap(), &from, b"\xff", &[]);
        assert_eq!(wrong, Err("https://a.example/ redirects to something that is no URL".to_owned()));
    }
}
