//! Fronts of every kind, each a TLS server of a few lines that answers as told.

use std::collections::BTreeSet;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;
use crate::oci::{Algorithm, Hasher};
use crate::operator::certificate::{KeyedCertificate, issue, make_authority};

const HOST: &str = "images.example.com";
const CREDENTIAL: &str = "Basic credential";
const LOOK: &str = "200 OK\r\nDocker-Distribution-Api-Version: registry/2.0";
const BEGUN: &str = "202 Accepted\r\nLocation: /v2/wharf-proof/blobs/uploads/1?_state=secret";

fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// A server that answers each request by its method.
struct Server {
    address: SocketAddr,
    /// `METHOD target bytes-of-body credential` of each request, whole or not.
    requests: Arc<Mutex<Vec<String>>>,
}

/// What the server does with a request, by its method.
type Answers = fn(&str) -> &'static str;

fn acceptor(leaf: &KeyedCertificate) -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    TlsAcceptor::from(Arc::new(builder.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap()))
}

async fn serve(leaf: &KeyedCertificate, answers: Answers) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, acceptor) = (listener.local_addr().unwrap(), acceptor(leaf));
    let requests = Arc::new(Mutex::new(Vec::new()));
    let log = requests.clone();
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            let (acceptor, log) = (acceptor.clone(), log.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                answer(stream, answers, &log).await;
            });
        }
    });
    Server { address, requests }
}

/// One request a connection. `drop` closes it in the middle; an answer that begins with `!` comes before the body is read.
async fn answer(mut stream: tokio_rustls::server::TlsStream<TcpStream>, answers: Answers, log: &Mutex<Vec<String>>) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_exact(&mut byte).await.is_err() {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let method = head.split(' ').next().unwrap().to_owned();
    let header = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
    };
    let size: usize = header("content-length").map_or(0, |text| text.parse().unwrap());
    let text = answers(&method);
    let early = text.starts_with('!');
    let read = if early || text == "drop" { size.min(1000) } else { size };
    let mut body = vec![0; read];
    stream.read_exact(&mut body).await.unwrap();
    let target = head.split(' ').nth(1).unwrap();
    log.lock().unwrap().push(format!("{method} {target} {read} {}", header("authorization").unwrap_or_default()));
    if text == "drop" {
        return;
    }
    let text = text.trim_start_matches('!');
    stream.write_all(format!("HTTP/1.1 {text}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await.unwrap();
    // As nginx does: what still comes is read for a while, so that the answer arrives.
    let mut rest = vec![0; 65536];
    while early && stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
    let _ = stream.shutdown().await;
}

fn good(method: &str) -> &'static str {
    match method {
        "HEAD" => LOOK,
        "POST" => BEGUN,
        "PATCH" => "202 Accepted\r\nLocation: /v2/wharf-proof/blobs/uploads/1?_state=newest",
        "PUT" => "201 Created",
        _ => "404 Not Found",
    }
}

/// The verdict on a front whose certificate is for `name`, and what reached the front.
async fn verdict_for(name: &str, answers: Answers) -> (Verdict, Vec<String>) {
    let authority = make_authority(now()).unwrap();
    let leaf = issue(&authority, &BTreeSet::from([name.to_owned()]), now()).unwrap();
    let server = serve(&leaf, answers).await;
    verdict_at(server.address, &authority.certificate, &server.requests).await
}

async fn verdict_at(address: SocketAddr, trusted: &str, log: &Mutex<Vec<String>>) -> (Verdict, Vec<String>) {
    let front = Front {
        way: Way::Ingress,
        host: HOST.into(),
        port: address.port(),
        addresses: vec![address.ip().to_string()],
        content: String::new(),
    };
    let trust = Trust::new(trusted, "");
    // Nobody answers inside: tidying up fails, and changes no verdict.
    let inside = Inside { address: "127.0.0.3:443".parse().unwrap(), name: "team.platform.svc".into() };
    let probe = Probe { front: &front, authorization: CREDENTIAL, inside: &inside, trust: &trust, unsettled: None };
    let verdict = probe.prove().await.verdict;
    (verdict, log.lock().unwrap().clone())
}

#[tokio::test]
async fn a_blob_goes_through_and_the_whole_of_it_arrives() {
    let (verdict, requests) = verdict_for(HOST, good).await;
    assert_eq!(verdict, Verdict::proven());
    assert_eq!(
        requests,
        [
            "HEAD /v2/ 0 Basic credential",
            "POST /v2/wharf-proof/blobs/uploads/ 0 Basic credential",
            "PATCH /v2/wharf-proof/blobs/uploads/1?_state=secret 2097152 Basic credential",
            &format!("PUT /v2/wharf-proof/blobs/uploads/1?_state=newest&digest=sha256:{HASH} 0 Basic credential"),
        ]
    );
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(&vec![0; UPLOAD]);
    assert_eq!(hasher.finish().as_str(), blob());
}

#[tokio::test]
async fn the_credential_goes_to_nobody_who_is_not_verified() {
    let (verdict, requests) = verdict_for("other.example.com", good).await;
    assert_eq!((verdict.reason, requests), ("CertificateNotTrusted", vec![]));
    assert!(
        verdict.message.contains("it is for other names") && !verdict.message.contains("other.example"),
        "{verdict:?}"
    );

    let authority = make_authority(now()).unwrap();
    let leaf = issue(&authority, &BTreeSet::from([HOST.to_owned()]), now()).unwrap();
    let server = serve(&leaf, good).await;
    let (verdict, requests) = verdict_at(server.address, "", &server.requests).await;
    assert_eq!((verdict.reason, requests), ("CertificateNotTrusted", vec![]));
    assert!(verdict.message.contains("nobody who is trusted signed it"), "{verdict:?}");
}

#[tokio::test]
async fn what_a_front_answers_is_told_apart() {
    let cases: [(Answers, &str, &str); 9] = [
        (|_| "404 Not Found\r\nServer: nginx", "NotRouted", "404 from nginx"),
        (|_| "502 Bad Gateway\r\nServer: nginx", "BackendUnreachable", "502 from nginx"),
        (|_| "401 Unauthorized\r\nDocker-Distribution-Api-Version: registry/2.0", "NotRouted", "Authorization"),
        (
            |_| "308 Permanent Redirect\r\nLocation: https://login.example.com/?token=x",
            "NotRouted",
            "login.example.com",
        ),
        (|_| "drop", "FrontUnreachable", "no answer"),
        (
            |method| if method == "POST" { "202 Accepted\r\nLocation: http://inner/v2/1" } else { good(method) },
            "UploadRefused",
            "http://inner/v2/1",
        ),
        (
            |method| if method == "PATCH" { "!413 Request Entity Too Large\r\nServer: nginx" } else { good(method) },
            "UploadRefused",
            "413 from nginx",
        ),
        (|method| if method == "PATCH" { "drop" } else { good(method) }, "UploadRefused", "broke off"),
        (|method| if method == "PUT" { "405 Method Not Allowed" } else { good(method) }, "UploadRefused", "405"),
    ];
    for (answers, reason, words) in cases {
        let (verdict, _) = verdict_for(HOST, answers).await;
        assert_eq!(verdict.reason, reason, "{verdict:?}");
        assert!(verdict.message.contains(words), "{verdict:?}");
        assert!(!verdict.message.contains("token"), "{verdict:?}");
    }
}

#[tokio::test]
async fn who_does_not_answer_or_speaks_no_tls_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let plain = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    });
    let log = Mutex::default();
    let (verdict, _) = verdict_at(address, "", &log).await;
    assert_eq!(verdict.reason, "FrontUnreachable", "{verdict:?}");
    assert!(verdict.message.contains("TLS"), "{verdict:?}");
    plain.await.unwrap();
    let (verdict, _) = verdict_at(address, "", &log).await;
    assert_eq!(verdict.reason, "FrontUnreachable", "{verdict:?}");
    assert!(verdict.message.contains("nothing answers"), "{verdict:?}");
}

#[test]
fn an_upload_goes_on_only_where_it_began() {
    for (location, path) in [
        ("/v2/a/1?_state=x", Some("/v2/a/1?_state=x")),
        ("https://images.example.com/v2/a/1?_state=x", Some("/v2/a/1?_state=x")),
        ("https://images.example.com:443/v2/a/1", Some("/v2/a/1")),
        ("http://images.example.com/v2/a/1", None),
        ("https://inner:5000/v2/a/1", None),
    ] {
        assert_eq!(place(location, HOST).as_deref(), path, "{location}");
    }
    assert_eq!(shown("https://a/b?_state=secret\n"), "https://a/b");
}

const UNDER_WAY: &str = "204 No Content\r\nLocation: /v2/wharf-proof/blobs/uploads/1?_state=inside\r\nRange: 0-999999";

/// What a proof comes to with a front and a registry that answer so, and what reached the registry inside.
async fn outcome_of(
    front_answers: Answers,
    inside_answers: Answers,
    unsettled: Option<&str>,
) -> (Outcome, Vec<String>) {
    let authority = make_authority(now()).unwrap();
    let leaf = |name: &str| issue(&authority, &BTreeSet::from([name.to_owned()]), now()).unwrap();
    let server = serve(&leaf(HOST), front_answers).await;
    let registry = serve(&leaf("team.platform.svc"), inside_answers).await;
    let trust = Trust::new(&authority.certificate, &authority.certificate);
    let front = Front {
        way: Way::Ingress,
        host: HOST.into(),
        port: server.address.port(),
        addresses: vec![server.address.ip().to_string()],
        content: String::new(),
    };
    let inside = Inside { address: registry.address, name: "team.platform.svc".into() };
    let unsettled = unsettled.map(str::to_owned);
    let probe = Probe { front: &front, authorization: CREDENTIAL, inside: &inside, trust: &trust, unsettled };
    let outcome = probe.prove().await;
    let requests = registry.requests.lock().unwrap().clone();
    (outcome, requests.iter().map(|line| line.replace(HASH, "HASH").replace(" Basic credential", "")).collect())
}

const LOOKED: &str = "GET /v2/wharf-proof/blobs/uploads/1?_state=secret 0";
const FINISHED: &str = "PUT /v2/wharf-proof/blobs/uploads/1?_state=inside&digest=sha256:HASH 1097152";
const GIVEN_UP: &str = "DELETE /v2/wharf-proof/blobs/uploads/1?_state=inside 0";
const DELETED: &str = "DELETE /v2/wharf-proof/blobs/sha256:HASH 0";

#[tokio::test]
async fn what_went_through_is_deleted_inside_and_what_did_not_is_ended_first() {
    let cut: Answers = |method| if method == "PATCH" { "drop" } else { good(method) };
    let lost: Answers = |method| if method == "PUT" { "drop" } else { good(method) };
    let begun: Answers = |method| if method == "GET" { UNDER_WAY } else { good(method) };
    let full: Answers = |method| match method {
        "GET" => UNDER_WAY,
        "PUT" => "507 Insufficient Storage",
        _ => "204 No Content",
    };
    let broken: Answers = |_| "500 Internal Server Error";
    let upload = Some("/v2/wharf-proof/blobs/uploads/1?_state=secret".to_owned());
    let cases: [(Answers, Answers, Option<String>, &[&str]); 5] = [
        (good, good, None, &[DELETED]),
        (cut, begun, None, &[LOOKED, FINISHED, DELETED]),
        // The end of the upload arrived, and the answer did not.
        (lost, good, None, &[LOOKED, DELETED]),
        (cut, full, None, &[LOOKED, FINISHED, LOOKED, GIVEN_UP, DELETED]),
        (cut, broken, upload, &[LOOKED]),
    ];
    for (front, inside, unsettled, expected) in cases {
        let (outcome, requests) = outcome_of(front, inside, None).await;
        assert_eq!((outcome.unsettled, requests), (unsettled, expected.iter().map(ToString::to_string).collect()));
    }
}

#[tokio::test]
async fn no_upload_is_begun_before_the_last_one_is_ended() {
    let broken: Answers = |_| "500 Internal Server Error";
    let (outcome, requests) = outcome_of(good, broken, Some("/v2/wharf-proof/blobs/uploads/0")).await;
    assert_eq!((outcome.verdict.reason, requests.len()), ("UploadRefused", 1), "{outcome:?}");
    assert!(outcome.verdict.message.contains("500"), "{outcome:?}");
    assert_eq!(outcome.unsettled.as_deref(), Some("/v2/wharf-proof/blobs/uploads/0"));
    let (outcome, requests) = outcome_of(good, good, Some("/v2/wharf-proof/blobs/uploads/0")).await;
    assert_eq!(outcome, Outcome { verdict: Verdict::proven(), unsettled: None });
    assert_eq!(requests, ["GET /v2/wharf-proof/blobs/uploads/0 0", DELETED]);
}
