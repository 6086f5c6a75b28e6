//! Requests that go through a proxy, and those that do not.

use hyper_util::client::proxy::matcher::Matcher;

use super::server::{Reply, Server};
use super::{PATIENT, content, manifest, settings, tag};
use crate::serve::upstream::transport::Proxies;
use crate::serve::upstream::{Identity, InvalidSettings, Settings, Upstream};

#[tokio::test]
async fn all_goes_through_the_proxy_of_the_settings() {
    let proxy = Server::new(|request| match &*request.method {
        "CONNECT" => Reply::new(502, &[], b""),
        _ => {
            assert!(request.target.starts_with("http://plain.example/v2/a/b/"), "{}", request.target);
            let mut request = request.clone();
            request.target = request.target.replace("http://plain.example", "");
            content(&request)
        }
    });
    let proxy = proxy.await;
    let settings = |endpoint: &str| Settings { proxy: Some(proxy.url()), ..settings(&[endpoint.to_owned()]) };
    let upstream = |endpoint: &str| Upstream::new(settings(endpoint), "wharf-test").unwrap();
    assert_eq!(tag(&upstream("http://plain.example"), &Identity::Own).await, Ok(manifest()));
    assert!(super::is_away(&tag(&upstream("https://secure.example"), &Identity::Own).await));
    assert_eq!(proxy.lines()[1], "CONNECT secure.example:443");
}

#[test]
fn the_environment_says_what_goes_through_its_proxy() {
    let matcher = Matcher::builder().all("http://proxy.example:3128").no("registry.example,10.0.0.0/8").build();
    let proxies = Proxies::Environment(Box::new(matcher));
    for (url, expected) in [
        ("https://registry-1.docker.io/v2/", true),
        ("http://other.example/", true),
        ("https://registry.example/v2/", false),
        ("https://a.registry.example/v2/", false),
        ("http://10.1.2.3:5000/", false),
        ("http://localhost:5000/", false),
        ("http://127.0.0.1:5000/", false),
        ("http://[::1]:5000/", false),
    ] {
        assert_eq!(proxies.take(&url.parse().unwrap()), expected, "{url}");
    }
}

#[test]
fn what_cannot_be_used_is_said_at_once() {
    let of = |change: fn(&mut Settings)| {
        let mut settings = settings(&["http://127.0.0.1:1".to_owned()]);
        change(&mut settings);
        Upstream::with(settings, "wharf-test", Proxies::None, PATIENT).err()
    };
    assert!(matches!(of(|settings| settings.endpoints.clear()), Some(InvalidSettings::NoEndpoint(_))));
    assert!(matches!(of(|settings| settings.token_realms = vec!["https://a".into()]), Some(InvalidSettings::Host(_))));
    assert!(matches!(of(|settings| settings.redirect_hosts = vec!["*".into()]), Some(InvalidSettings::Host(_))));
    for pem in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let mut settings = settings(&["http://127.0.0.1:1".to_owned()]);
        settings.authorities = Some(pem.into());
        let refused = Upstream::with(settings, "wharf-test", Proxies::None, PATIENT).err();
        assert!(matches!(refused, Some(InvalidSettings::Authorities { .. })), "{pem}");
    }
    for proxy in ["proxy:3128", "socks5://proxy", "http://user:secret@proxy", "http://proxy/path", ""] {
        let settings = Settings { proxy: Some(proxy.into()), ..settings(&["http://127.0.0.1:1".to_owned()]) };
        let refused = Upstream::new(settings, "wharf-test").err().unwrap();
        assert_eq!(refused, InvalidSettings::Proxy, "{proxy}");
    }
    let settings = settings(&["http://127.0.0.1:1".to_owned()]);
    assert!(matches!(Upstream::new(settings, "a b").err(), Some(InvalidSettings::Instance(_))));
}
