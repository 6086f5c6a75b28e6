//! What is passed on, to whom, and what is not.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use super::scripted::{HOST, Node, RUNTIME, Server, Step, alive, answer, head_of, header, plan};
use crate::agent::endpoint::metrics::Metrics;
use crate::agent::endpoint::{BindError, Endpoint, Settings};
use crate::oci::canary;
use crate::plan::OwnerKind;

const MANIFEST: &str = "/v2/library/x/manifests/1?ns=docker.io";

#[tokio::test]
async fn an_answer_passes_as_it_is_and_a_request_without_what_only_wharf_may_say() {
    let server = Server::start(|head| {
        alive(head).unwrap_or_else(|| {
            answer(200, &[("etag", "\"x\""), ("docker-content-digest", "sha256:1"), ("oci-namespace", HOST)], b"hello")
        })
    })
    .await;
    let node = Node::before(&[&server]).await;
    let sent = [("authorization", "Basic Zg=="), ("wharf-agent-token", "forged"), ("accept", "a/b"), ("x-hop", "1")];
    let found = node.get("/v2/docker.io/library/x/manifests/1?a=%20b", &sent).await;
    assert_eq!(found.status(), 200);
    assert_eq!(found.headers()["etag"], "\"x\"");
    assert_eq!(found.headers()["oci-namespace"], HOST);
    assert_eq!(found.text().await.unwrap(), "hello");
    let [head] = &server.asked()[..] else { panic!("{:?}", server.asked()) };
    assert!(head.starts_with("GET /v2/library/x/manifests/1?a=%20b&ns=docker.io http/1.1"), "{head}");
    assert_eq!((header(head, "authorization"), header(head, "accept")), (Some("basic zg=="), Some("a/b")));
    assert_eq!(header(head, "user-agent"), Some(RUNTIME));
    assert_eq!(header(head, "host"), Some(server.address.to_string().as_str()));
    // Not over plain HTTP, where others can listen.
    assert!(!head.contains("wharf-agent-token"), "{head}");
}

#[tokio::test]
async fn the_endpoint_is_a_registry_for_pulling_what_is_planned_and_for_nothing_else() {
    let server = Server::start(|_| answer(200, &[], b"")).await;
    let node = Node::before(&[&server]).await;
    for (path, status) in [
        ("/v2/", 200),
        ("/v2/a/manifests/1?ns=quay.io", 404),
        ("/v2/a/manifests/1", 404),
        ("/v2/a/manifests/1?ns=docker.io&ns=docker.io", 400),
        ("/v2/a/blobs/uploads/?ns=docker.io", 405),
        ("/metrics", 404),
    ] {
        assert_eq!(node.get(path, &[]).await.status(), status, "{path}");
    }
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    assert_eq!(client.delete(node.url(MANIFEST)).send().await.unwrap().status(), 405);
    assert_eq!(server.asked(), [""; 0]);
    // A plan without the host: at once.
    let mut empty = plan(OwnerKind::Mirror, &[server.url()], "");
    empty.hosts.clear();
    node.endpoint.route(&empty);
    assert_eq!(node.get(MANIFEST, &[]).await.status(), 404);
}

#[tokio::test]
async fn a_runtime_that_asks_makes_a_registry_used() {
    let server = Server::start(|_| answer(404, &[], b"")).await;
    let node = Node::before(&[&server]).await;
    node.endpoint.note_written(HOST);
    let _ = node.endpoint.verify(HOST).await;
    assert!(!node.endpoint.used(HOST));
    let changed = node.endpoint.clone();
    let changed = tokio::spawn(async move { changed.changed().await });
    node.get(MANIFEST, &[]).await;
    tokio::time::timeout(Duration::from_secs(5), changed).await.unwrap().unwrap();
    assert!(node.endpoint.used(HOST));
    node.endpoint.note_written(HOST);
    assert!(!node.endpoint.used(HOST));
}

#[tokio::test]
async fn connections_are_used_again_and_one_that_went_is_no_trouble() {
    let server = Server::start(|head| {
        let mut steps = answer(200, &[], b"x");
        if head.contains("/last") {
            steps.push(Step::Cut);
        }
        steps
    })
    .await;
    let node = Node::before(&[&server]).await;
    for path in [MANIFEST, "/v2/library/x/manifests/last?ns=docker.io", MANIFEST, MANIFEST] {
        let found = node.get(path, &[]).await;
        assert_eq!((found.status().as_u16(), found.text().await.unwrap().as_str()), (200, "x"), "{path}");
    }
    assert_eq!(server.asked().len(), 4);
    // The second request ended the first one.
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_port_that_somebody_has_is_told_with_what_to_do() {
    let squatter = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = squatter.local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        port,
        plain_http: false,
        state_folder: folder.path().into(),
        token_file: folder.path().join("token"),
        longest_stall: Duration::from_secs(60),
    };
    let error = Endpoint::start(settings, Metrics::default()).await.err().unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    assert!(matches!(error, BindError::InUse { address: found, .. } if found == address), "{error}");
    let text = error.to_string();
    assert!(
        text.contains(&format!("({})", std::process::id()))
            && text.contains(&address.to_string())
            && text.contains("agent.localPort"),
        "{text}"
    );
}

#[tokio::test]
async fn the_proof_is_the_image_that_every_server_of_wharf_has() {
    let right = Server::start(|_| answer(200, &[], canary::MANIFEST)).await;
    let wrong = Server::start(|_| answer(200, &[], b"{}")).await;
    let refusing = Server::start(|_| answer(403, &[("wharf-refused", "agent-token")], b"")).await;
    let asking = Server::start(|_| answer(401, &[("www-authenticate", "Basic")], b"")).await;
    let node = Node::start(false).await;
    for (server, expected) in
        [(&right, ""), (&wrong, "something else"), (&refusing, "does not accept the token"), (&asking, "401")]
    {
        node.endpoint.route(&plan(OwnerKind::Mirror, &[server.url()], ""));
        let problem = node.endpoint.verify(HOST).await.err().unwrap_or_default();
        assert_eq!(problem.is_empty(), expected.is_empty(), "{problem}");
        assert!(problem.contains(expected), "{problem}");
    }
    right.stop();
    node.endpoint.route(&plan(OwnerKind::Mirror, &["http://127.0.0.1:1".into()], ""));
    assert!(node.endpoint.verify(HOST).await.unwrap_err().contains("503"));
    assert!(node.endpoint.verify("quay.io").await.unwrap_err().contains("not in the plan"));
}

#[tokio::test]
async fn while_it_stops_new_connections_are_refused_and_what_runs_goes_on() {
    let server = Server::start(|head| {
        alive(head).unwrap_or_else(|| {
            vec![
                Step::Send(head_of(200, &[], 10)),
                Step::Send(b"01234".to_vec()),
                Step::Wait(800),
                Step::Send(b"56789".to_vec()),
            ]
        })
    })
    .await;
    let node = Node::before(&[&server]).await;
    let running = node.get(MANIFEST, &[]).await;
    let began = Instant::now();
    let draining = node.endpoint.clone();
    let draining = tokio::spawn(async move { draining.drain().await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    assert!(client.get(node.url(MANIFEST)).send().await.unwrap_err().is_connect());
    assert_eq!(running.text().await.unwrap(), "0123456789");
    draining.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn who_takes_the_port_over_is_told_nothing() {
    let node = Node::start(false).await;
    let (address, certificate) = (node.endpoint.url(), node.endpoint.certificate().unwrap().to_owned());
    let port = node.endpoint.port();
    let pinned = reqwest::Certificate::from_pem(certificate.as_bytes()).unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([pinned]).build().unwrap();
    let ask = async || client.get(format!("{address}{MANIFEST}")).header("authorization", "Basic secret").send().await;
    assert_eq!(ask().await.unwrap().status(), 404);
    node.endpoint.drain().await;

    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![own.cert.der().clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let squatter = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let accepted = async { acceptor.accept(squatter.accept().await.unwrap().0).await };
    let (asked, accepted) = tokio::join!(ask(), accepted);
    assert!(asked.unwrap_err().is_connect());
    assert!(accepted.is_err(), "the handshake is where it ends");
}
