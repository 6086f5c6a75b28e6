//! No secret is in anything that is shown.

use std::fmt::Write as _;

use super::server::{Reply, Server};
use super::{PASSWORD, TOKEN, blob, content, has_a_credential, person, repository, settings, upstream_of};
use crate::serve::upstream::{Failure, Identity, Object, Settings};

const SIGNATURE: &str = "a-signature-nobody-may-see";

/// Answers in one way, once it has seen all secrets.
async fn failing(reply: fn() -> Reply) -> Server {
    Server::new(move |request| {
        if request.target.starts_with("/token") {
            assert!(has_a_credential(request));
            return Reply::new(200, &[], format!("{{\"token\":\"{TOKEN}\"}}").as_bytes());
        }
        match request.header("authorization") {
            Some(_) => reply(),
            None => {
                let realm = format!("Bearer realm=\"http://{}/token\"", request.header("host").unwrap());
                Reply::new(401, &[("www-authenticate", &realm)], b"")
            }
        }
    })
    .await
}

#[tokio::test]
async fn no_failure_and_nothing_that_is_shown_has_a_secret_in_it() {
    let signed = || {
        let location = format!("http://user:{PASSWORD}@127.0.0.1:1/blob?signature={SIGNATURE}");
        Reply::new(307, &[("location", &location)], b"")
    };
    let refused = || Reply::new(307, &[("location", &format!("http://localhost:1/b?signature={SIGNATURE}"))], b"");
    let said = || Reply::new(500, &[], format!("{TOKEN} {PASSWORD} {SIGNATURE}").as_bytes());
    let replies: [fn() -> Reply; 9] = [
        signed,
        refused,
        said,
        || Reply::new(401, &[], TOKEN.as_bytes()),
        || Reply::new(403, &[], TOKEN.as_bytes()),
        || Reply::new(429, &[("retry-after", "1")], TOKEN.as_bytes()),
        || Reply::new(200, &[("content-length", "99")], TOKEN.as_bytes()).then_close(),
        || Reply::new(200, &[("content-type", TOKEN)], TOKEN.as_bytes()),
        || Reply::new(200, &[("docker-content-digest", TOKEN)], TOKEN.as_bytes()).then_close(),
    ];
    let mut shown = String::new();
    let mut show = |failure: Failure| writeln!(shown, "{failure} {failure:?}").unwrap();
    for reply in replies {
        let server = failing(reply).await;
        let settings = Settings { credential: Some(person()), ..settings(&[server.url()]) };
        for identity in [Identity::Own, Identity::Client(person())] {
            let upstream = upstream_of(settings.clone());
            show(super::tag(&upstream, &identity).await.unwrap_err());
            let mut source = upstream.blob(&repository(), &blob(), &identity);
            if let Err(failure) = super::read(&mut *source, 0).await {
                show(failure);
            }
            let _ = upstream.head(&Object::Blob(repository(), blob()), &identity).await.map_err(&mut show);
            let health = upstream.health();
            show(Failure::Wrong {
                host: upstream.host().clone(),
                problem: format!("{health:?} {settings:?} {identity:?}"),
            });
        }
    }
    // A closed port behind a signed place.
    let gone = Server::new(content).await.port;
    let server = Server::new(move |_| {
        Reply::new(307, &[("location", &format!("http://127.0.0.1:{gone}/b?signature={SIGNATURE}"))], b"")
    });
    let server = server.await;
    let open = Settings { redirect_hosts: vec!["127.0.0.1".into()], ..settings(&[server.url()]) };
    show(super::tag(&upstream_of(open), &Identity::Own).await.unwrap_err());
    assert!(shown.contains("127.0.0.1"));
    for secret in [PASSWORD, TOKEN, SIGNATURE, "cGVyc29u"] {
        let line = shown.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
}
