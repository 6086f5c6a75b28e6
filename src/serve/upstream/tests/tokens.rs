//! Challenges and tokens.

use super::server::{Reply, Request, Server};
use super::{
    TOKEN, blob, content, has_a_credential, is_away, is_wrong, manifest, person, repository, settings, tag, upstream,
    upstream_of,
};
use crate::serve::upstream::{Basic, Failure, Identity, Object, Settings};

fn bearer(realm: &str) -> Reply {
    let challenge = format!("Bearer realm=\"{realm}/token\",service=\"it\",scope=\"repository:a/b:pull,push\"");
    Reply::new(401, &[("www-authenticate", &challenge)], b"{\"errors\":[]}")
}

fn granted() -> Reply {
    Reply::new(200, &[], format!("{{\"token\":\"{TOKEN}\"}}").as_bytes())
}

/// A registry that wants a token for everything, and grants it to whoever `may`.
fn guarded(may: impl Fn(&Request) -> bool) -> impl Fn(&Request) -> Reply {
    move |request| {
        if request.target.starts_with("/token") {
            return if may(request) { granted() } else { Reply::new(401, &[], b"") };
        }
        if request.header("authorization") == Some(&format!("Bearer {TOKEN}")) {
            return content(request);
        }
        bearer(&format!("http://{}", request.header("host").unwrap()))
    }
}

#[tokio::test]
async fn a_token_is_fetched_once_for_a_repository_and_an_identity() {
    let server = Server::new(guarded(|_| true)).await;
    let upstream = upstream(&server);
    assert_eq!(tag(&upstream, &Identity::Anonymous).await, Ok(manifest()));
    assert_eq!(tag(&upstream, &Identity::Own).await, Ok(manifest()));
    let first = ["GET /v2/a/b/manifests/latest", "GET /token?service=it&scope=repository%3Aa%2Fb%3Apull"];
    assert_eq!(server.lines(), [first[0], first[1], first[0], first[0]]);
    // Others get their own, and are not challenged first.
    let me = Identity::Client(person());
    assert_eq!(tag(&upstream, &me).await, Ok(manifest()));
    let object = Object::Blob("other".parse().unwrap(), blob());
    assert!(matches!(upstream.head(&object, &me).await, Err(Failure::NotFound(_))));
    let (asked, lines) = (server.asked(), server.lines());
    assert_eq!(lines[4..6], [first[1], first[0]]);
    assert_eq!(lines[6], "GET /token?service=it&scope=repository%3Aother%3Apull");
    assert!(!has_a_credential(&asked[1]) && has_a_credential(&asked[4]) && has_a_credential(&asked[6]));
    assert!(asked.iter().all(|request| request.target.starts_with("/token") || !has_a_credential(request)));
    assert_eq!(upstream.health().endpoints[0].figures.tokens, 3);
}

#[tokio::test]
async fn who_gets_no_token_is_told_whose_credential_it_was() {
    let server = Server::new(guarded(|_| false)).await;
    let host = "registry.example".parse().unwrap();
    let denied = Err(Failure::Denied(host));
    let upstream = upstream(&server);
    for identity in [Identity::Anonymous, Identity::Own, Identity::Client(person())] {
        assert_eq!(tag(&upstream, &identity).await, denied);
    }
    let own = upstream_of(Settings { credential: Some(person()), ..settings(&[server.url()]) });
    assert!(matches!(tag(&own, &Identity::Own).await, Err(Failure::CredentialsRejected(_))));
    assert_eq!(own.health().endpoints[0].figures.credentials_rejected, 1);
    assert_eq!(tag(&own, &Identity::Anonymous).await, denied);
    assert!(!own.is_away());
}

#[tokio::test]
async fn the_anonymous_get_what_needs_no_token_where_none_is_granted() {
    let guard = guarded(|_| false);
    let server = Server::new(move |request| match &*request.target {
        "/v2/a/b/manifests/public" => content(request),
        _ => guard(request),
    });
    let server = server.await;
    let upstream = upstream(&server);
    assert!(tag(&upstream, &Identity::Anonymous).await.is_err());
    let public = upstream.manifest(&repository(), &"public".parse().unwrap(), &Identity::Anonymous).await;
    assert!(public.is_ok());
    // Asked by its token server's word, and without a token; not a second time.
    assert!(tag(&upstream, &Identity::Anonymous).await.is_err());
    assert_eq!(server.lines().len(), 2 + 2 + 2);
}

#[tokio::test]
async fn a_token_that_no_longer_helps_is_replaced_once() {
    for status in [401, 403] {
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let server = Server::new(move |request| {
            if request.target.starts_with("/token") {
                let number = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                return Reply::new(200, &[], format!("{{\"token\":\"{number}\"}}").as_bytes());
            }
            match request.header("authorization") {
                Some("Bearer 1") => content(request),
                Some(_) if status == 403 => Reply::new(403, &[], b""),
                _ => bearer(&format!("http://{}", request.header("host").unwrap())),
            }
        });
        let server = server.await;
        let upstream = upstream(&server);
        // The first token is fresh, and does not help; neither would another.
        assert!(matches!(tag(&upstream, &Identity::Own).await, Err(Failure::Denied(_))), "{status}");
        assert_eq!(server.lines().len(), 3, "{status}");
        assert_eq!(tag(&upstream, &Identity::Own).await, Ok(manifest()), "{status}");
        assert_eq!(server.lines().len(), 6, "{status}");
    }
}

#[tokio::test]
async fn a_registry_can_want_the_credential_itself() {
    let server = Server::new(|request| {
        if has_a_credential(request) {
            return content(request);
        }
        Reply::new(401, &[("www-authenticate", "Negotiate"), ("www-authenticate", "Basic realm=\"x\"")], b"")
    });
    let server = server.await;
    let wrong = Basic { password: "wrong".into(), ..person() };
    let own = |credential| upstream_of(Settings { credential: Some(credential), ..settings(&[server.url()]) });
    let upstream = own(person());
    for _ in 0..2 {
        assert_eq!(tag(&upstream, &Identity::Own).await, Ok(manifest()));
    }
    // It was asked for once.
    assert_eq!(server.lines().len(), 3);
    assert!(matches!(tag(&upstream, &Identity::Anonymous).await, Err(Failure::Denied(_))));
    assert!(matches!(tag(&upstream, &Identity::Client(wrong.clone())).await, Err(Failure::Denied(_))));
    let upstream = own(wrong);
    for _ in 0..2 {
        assert!(matches!(tag(&upstream, &Identity::Own).await, Err(Failure::CredentialsRejected(_))));
    }
}

#[tokio::test]
async fn a_token_server_that_is_down_is_no_refusal() {
    for reply in [
        || Reply::new(500, &[], b""),
        || Reply::new(404, &[], b""),
        || Reply::new(200, &[], b"<html>"),
        || Reply::new(302, &[("location", "/elsewhere")], b""),
        || Reply::new(200, &[], b"").then_close(),
    ] {
        let server = Server::new(move |request| match request.target.strip_prefix("/token") {
            Some(_) => reply(),
            None => bearer(&format!("http://{}", request.header("host").unwrap())),
        });
        let server = server.await;
        assert!(is_away(&tag(&upstream(&server), &Identity::Own).await));
        assert!(!server.lines().contains(&"GET /elsewhere".to_owned()));
    }
}

#[tokio::test]
async fn a_credential_goes_to_no_realm_that_was_not_named() {
    let realm = Server::new(|_| granted()).await;
    let elsewhere = realm.url();
    let server = Server::new(move |request| match request.header("authorization") {
        Some(_) => content(request),
        None => bearer(&elsewhere),
    });
    let server = server.await;
    let settings = Settings { credential: Some(person()), ..settings(&[server.url()]) };
    assert!(is_wrong(&tag(&upstream_of(settings.clone()), &Identity::Own).await, "tokenRealms"));
    assert_eq!(realm.lines(), [""; 0]);
    let named = Settings { token_realms: vec![format!("127.0.0.1:{}", realm.port)], ..settings };
    assert_eq!(tag(&upstream_of(named), &Identity::Own).await, Ok(manifest()));
    assert!(has_a_credential(&realm.asked()[0]));
}
