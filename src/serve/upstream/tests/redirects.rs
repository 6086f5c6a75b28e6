//! Redirects: where they may lead, and what they take with them.

use std::sync::{Arc, Mutex};

use super::server::{Reply, Request, Server};
use super::{BLOB, blob, content, has_a_credential, person, read, repository, settings, upstream_of};
use crate::serve::upstream::{Failure, Identity, Settings};

/// A registry that wants the credential, and sends its blobs' readers elsewhere.
async fn redirecting(location: String) -> Server {
    Server::new(move |request| match (has_a_credential(request), request.target.contains("/blobs/")) {
        (false, _) => Reply::new(401, &[("www-authenticate", "Basic")], b""),
        (true, true) => Reply::new(307, &[("location", &location), ("set-cookie", "a=b")], b"elsewhere"),
        (true, false) => content(request),
    })
    .await
}

#[tokio::test]
async fn a_redirect_is_followed_without_the_credential_to_where_it_may_lead() {
    let store = Server::new(|_| Reply::new(200, &[], BLOB)).await;
    let location = format!("{}/blob?signature=secret", store.url());
    let server = redirecting(location).await;
    let closed = Settings { credential: Some(person()), ..settings(&[server.url()]) };
    let mut source = upstream_of(closed.clone()).blob(&repository(), &blob(), &Identity::Own);
    let failure = source.open(0).await.err().unwrap().to_string();
    assert!(failure.contains("redirectHosts") && !failure.contains("secret"), "{failure}");
    assert_eq!(store.lines(), [""; 0]);
    let open = Settings { redirect_hosts: vec!["127.0.0.1".into()], ..closed };
    let mut source = upstream_of(open).blob(&repository(), &blob(), &Identity::Own);
    assert_eq!(read(&mut *source, 0).await.unwrap().1, BLOB);
    let asked = &store.asked()[0];
    assert_eq!((&*asked.target, asked.header("authorization")), ("/blob?signature=secret", None));
    assert_eq!(asked.header("cookie"), None);
}

#[tokio::test]
async fn a_name_that_stands_for_a_closed_address_is_not_dialled() {
    let store = Server::new(|_| Reply::new(200, &[], BLOB)).await;
    let server = redirecting(format!("http://localhost:{}/blob", store.port)).await;
    let settings = Settings { credential: Some(person()), ..settings(&[server.url()]) };
    let mut source = upstream_of(settings).blob(&repository(), &blob(), &Identity::Own);
    assert!(matches!(source.open(0).await, Err(Failure::Wrong { problem, .. }) if problem.contains("redirectHosts")));
    assert_eq!(store.lines(), [""; 0]);
}

#[tokio::test]
async fn redirects_come_to_an_end_and_the_credential_does_not_come_back() {
    let server = redirecting("/v2/a/b/blobs/again".into()).await;
    let settings = Settings { credential: Some(person()), ..settings(&[server.url()]) };
    let mut source = upstream_of(settings).blob(&repository(), &blob(), &Identity::Own);
    assert!(matches!(source.open(0).await, Err(Failure::Wrong { problem, .. }) if problem.contains("redirects")));
    // Without the credential, and then with it.
    assert_eq!(server.lines().len(), 1 + 6);
    assert!(server.asked()[1..].iter().all(has_a_credential));

    let ports = Arc::<Mutex<Vec<u16>>>::default();
    let known = ports.clone();
    let back = move |_: &Request| {
        let location = format!("http://127.0.0.1:{}/v2/a/b/blobs/private", known.lock().unwrap()[0]);
        Reply::new(307, &[("location", &location)], b"")
    };
    let store = Server::new(back).await;
    let store_url = store.url();
    let server = Server::new(move |request| match (has_a_credential(request), request.target.ends_with("private")) {
        (true, false) => Reply::new(307, &[("location", &format!("{store_url}/blob"))], b""),
        (true, true) => Reply::new(200, &[], BLOB),
        (false, _) => Reply::new(401, &[("www-authenticate", "Basic")], b""),
    })
    .await;
    ports.lock().unwrap().push(server.port);
    let redirect_hosts = vec!["127.0.0.1".into()];
    let settings = Settings { credential: Some(person()), redirect_hosts, ..super::settings(&[server.url()]) };
    let mut source = upstream_of(settings).blob(&repository(), &blob(), &Identity::Own);
    assert!(source.open(0).await.is_err());
    let last = server.asked().pop().unwrap();
    assert!(last.target.ends_with("private") && !has_a_credential(&last));
}
