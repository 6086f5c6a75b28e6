//! How the server is run: configuration, users, certificates, limits, stopping.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::{Method, StatusCode};
use rustls::pki_types::pem::PemObject as _;

use super::client::{Client, digest, image};
use super::process::{Process, free_address};

fn wharf(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_wharf")).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text.into_owned())
}

/// Writes a configuration and serves it.
pub fn serve(folder: &Path, rest: &str) -> Process {
    serve_at(folder, free_address(), rest, &[])
}

/// At an address, with this in its environment.
pub fn serve_at(folder: &Path, address: SocketAddr, rest: &str, environment: &[(&str, String)]) -> Process {
    let file = folder.join("serve.yaml");
    std::fs::write(&file, format!("root: {}/root\nlisten: {address}\n{rest}", folder.display())).unwrap();
    let (good, text) = wharf(&["config", "check", file.to_str().unwrap()]);
    assert!(good, "{text}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
    command.args(["--log", "warn", "serve", "--config"]).arg(file).envs(environment.iter().cloned());
    Process::start(command.stderr(std::fs::File::create(folder.join("log")).unwrap()), address)
}

pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

/// Waits until the server behaves as it should after a file has changed.
pub async fn eventually(mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..300 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("it did not happen");
}

#[test]
fn a_configuration_is_checked_whole_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("serve.yaml");
    std::fs::write(&file, "root: /data\nlisten: 127.0.0.1:5000\nlimitz: {}\n").unwrap();
    let (good, text) = wharf(&["config", "check", file.to_str().unwrap()]);
    assert!(!good && text.contains("limitz") && text.contains('3'), "{text}");
    let (good, text) = wharf(&["serve", "--config", file.to_str().unwrap()]);
    assert!(!good && text.contains("limitz"), "{text}");
    let (good, text) = wharf(&["config", "schema"]);
    let schema: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(good && schema["properties"]["missingContent"]["description"].is_string(), "{text}");
    let (good, text) = wharf(&["serve"]);
    assert!(!good && text.contains("--root"), "{text}");
}

#[tokio::test]
async fn users_read_or_write_and_are_taken_up_when_they_change() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    let hash = bcrypt::hash("secret", 4).unwrap();
    write("users", format!("reader:{hash}\nwriter:{hash}\n"));
    write("writers", "writer\n".to_owned());
    let users = format!("{}/users, writers: {0}/writers", folder.path().display());
    let process = serve(folder.path(), &format!("access: {{users: {users}}}\n"));
    let anonymous = process.client();
    let [reader, writer, wrong] = [("reader", "secret"), ("writer", "secret"), ("writer", "guess")]
        .map(|(user, password)| Client { authorization: Some(basic(user, password)), ..anonymous.clone() });
    for (client, read, write) in [(&anonymous, 401, 401), (&wrong, 401, 401), (&reader, 404, 403), (&writer, 404, 202)]
    {
        assert_eq!(client.get("/v2/a/tags/list").await.status, read);
        let begun = client.send(Method::POST, "/v2/a/blobs/uploads/", &[], Bytes::new()).await.unwrap();
        assert_eq!(begun.status, write);
        assert_eq!(begun.headers.contains_key("www-authenticate"), write == 401);
    }
    assert_eq!((anonymous.get("/v2/").await.status.as_u16(), reader.get("/v2/").await.status.as_u16()), (401, 200));
    // What is malformed is not taken up; what is not, is.
    write("users", "reader".to_owned());
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(reader.get("/v2/").await.status, StatusCode::OK);
    write("users", format!("writer:{hash}\n"));
    eventually(async || reader.get("/v2/").await.status == StatusCode::UNAUTHORIZED).await;
    assert_eq!(writer.get("/v2/").await.status, StatusCode::OK);
}

/// How full the disk of this test is does not matter: a reserve of 100 % is always touched.
#[tokio::test]
async fn pushes_are_refused_before_the_volume_is_full_and_pulls_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let process = serve(folder.path(), "limits: {reservePercent: 0}\n");
    let manifest = process.client().push_image("a", "1", &[b"{}", b"layer"]).await;
    drop(process);
    let process = serve(folder.path(), "limits: {reservePercent: 100}\n");
    let client = process.client();
    let refused = client.push_blob("a", b"more").await.unwrap();
    assert_eq!((refused.status, refused.header("retry-after")), (StatusCode::INSUFFICIENT_STORAGE, "5"));
    assert_eq!(client.get(&format!("/v2/a/blobs/{}", digest(b"layer"))).await.body, "layer");
    assert_eq!(client.get("/v2/a/manifests/1").await.body, manifest);
    let target = format!("/v2/a/manifests/{}", digest(&manifest));
    let gone = client.send(Method::DELETE, &target, &[], Bytes::new()).await.unwrap();
    assert_eq!(gone.status, StatusCode::ACCEPTED, "{gone:?}");
}

#[tokio::test]
async fn a_changed_configuration_is_taken_up_whole_but_for_what_is_bound_to_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let process = serve(folder.path(), "limits: {openUploads: 1}\n");
    let anonymous = process.client();
    let hash = bcrypt::hash("secret", 4).unwrap();
    let writer = Client { authorization: Some(basic("writer", "secret")), ..anonymous.clone() };
    let begin = async |client: &Client| {
        client.send(Method::POST, "/v2/a/blobs/uploads/", &[], Bytes::new()).await.unwrap().status.as_u16()
    };
    let image = image(&[b"not here"]);
    assert_eq!((begin(&anonymous).await, begin(&anonymous).await), (202, 429));
    assert_eq!(anonymous.put_manifest("a", "latest", &image).await.unwrap().status, 404);

    // The root and the address are other ones, and the users are not there yet.
    let place = |name: &str| folder.path().join(name).display().to_string();
    let text = format!(
        "root: {}\nlisten: {}\nmissingContent: Allow\naccess: {{users: {}}}\nlimits: {{openUploads: 2, connections: 50}}\n",
        place("other"),
        free_address(),
        place("users")
    );
    std::fs::write(place("new"), &text).unwrap();
    std::fs::rename(place("new"), place("serve.yaml")).unwrap();
    let log = || std::fs::read_to_string(place("log")).unwrap();
    eventually(async || log().contains("changed files are not taken up")).await;
    assert!(log().contains("/users"), "{}", log());
    assert_eq!(begin(&anonymous).await, 429);

    std::fs::write(place("new"), format!("writer:{hash}\n")).unwrap();
    std::fs::rename(place("new"), place("users")).unwrap();
    eventually(async || anonymous.get("/v2/").await.status == StatusCode::UNAUTHORIZED).await;
    assert_eq!((begin(&anonymous).await, begin(&writer).await, begin(&writer).await), (401, 202, 429));
    assert_eq!(writer.put_manifest("a", "latest", &image).await.unwrap().status, StatusCode::CREATED);
    assert!(log().contains("\"root\", \"listen\""), "{}", log());
    assert!(!folder.path().join("other").exists());
}

/// A GET over TLS; the certificate that the server shows, and its answer.
async fn secure_get(process: &Process, authority: &[u8], protocol: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(authority).unwrap()).unwrap();
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = tokio::net::TcpStream::connect(process.address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
    let spoken = stream.get_ref().1.alpn_protocol().unwrap_or_default().to_vec();
    if protocol == b"h2" {
        return Some((spoken, Vec::new()));
    }
    stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    Some((spoken, answer))
}

#[tokio::test]
async fn a_certificate_is_taken_up_when_it_changes() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let make = || {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(folder.path().join("tls.key"), made.signing_key.serialize_pem()).unwrap();
        std::fs::write(folder.path().join("tls.crt"), made.cert.pem()).unwrap();
        made.cert.pem().into_bytes()
    };
    let first = make();
    let files = format!("tls: {{certificate: {0}/tls.crt, key: {0}/tls.key}}\n", folder.path().display());
    let process = serve(folder.path(), &files);
    let (spoken, answer) = secure_get(&process, &first, b"http/1.1").await.unwrap();
    assert!(spoken == b"http/1.1" && answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(secure_get(&process, &first, b"h2").await.unwrap().0, b"h2");
    let second = make();
    eventually(async || secure_get(&process, &second, b"http/1.1").await.is_some()).await;
    assert!(secure_get(&process, &first, b"http/1.1").await.is_none());
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_so_and_idle_ones_end() {
    let folder = tempfile::tempdir().unwrap();
    let process = serve(folder.path(), "limits: {connections: 2, idleClientSeconds: 1}\n");
    let ended = |mut stream: TcpStream| {
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    // Nobody says anything: those that have a place lose it by themselves, the others are told.
    let silent: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect(process.address).unwrap()).collect();
    let texts: Vec<String> = silent.into_iter().map(ended).collect();
    let told = texts.iter().filter(|text| text.starts_with("HTTP/1.1 503") && text.contains("Retry-After")).count();
    assert!(told >= 1 && texts.iter().any(String::is_empty), "{texts:?}");
    // Half a head, or half of what begins HTTP/2, and no more.
    for start in ["GET /v2/ HTTP/1.1\r\nHost: x\r\n", "PRI * HTTP/2.0"] {
        let mut stream = TcpStream::connect(process.address).unwrap();
        stream.write_all(start.as_bytes()).unwrap();
        assert!(!ended(stream).contains("HTTP/1.1 200"));
    }
    let client = process.client();
    eventually(async || {
        let answer = client.send(Method::GET, "/v2/", &[], Bytes::new()).await;
        answer.is_some_and(|answer| answer.status == StatusCode::OK)
    })
    .await;
}

#[tokio::test]
async fn a_body_that_stops_coming_ends_its_request_and_not_its_upload() {
    let folder = tempfile::tempdir().unwrap();
    let process = serve(folder.path(), "limits: {idleClientSeconds: 1}\n");
    let client = process.client();
    let begun = client.send(Method::POST, "/v2/a/blobs/uploads/", &[], Bytes::new()).await.unwrap();
    let location = begun.header("location").to_owned();
    let mut stream = TcpStream::connect(process.address).unwrap();
    let request = format!("PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nfour");
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 400") && text.contains("BLOB_UPLOAD_INVALID"), "{text}");
    // The first connection has rested too long as well.
    assert_eq!(process.client().get(&location).await.header("range"), "0-3");
}

#[tokio::test]
async fn a_stop_lets_running_requests_end_and_keeps_uploads() {
    let folder = tempfile::tempdir().unwrap();
    let operations = free_address();
    let process = serve(folder.path(), &format!("operations: {operations}\n"));
    let (client, watch) = (process.client(), Client::new(&operations.to_string()));
    // It listens before it has opened its root.
    eventually(async || watch.get("/readyz").await.body == "ok\n").await;
    client.push_image("a", "latest", &[b"{}", b"layer"]).await;
    let metrics = String::from_utf8(watch.get("/metrics").await.body.to_vec()).unwrap();
    assert!(metrics.contains("wharf_serve_requests_total{method=\"PUT\",status=\"201\"} 3"), "{metrics}");
    let begun = client.send(Method::POST, "/v2/a/blobs/uploads/", &[], Bytes::new()).await.unwrap();
    let location = begun.header("location").to_owned();
    let mut stream = TcpStream::connect(process.address).unwrap();
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 8\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    // It says so when it begins to read what is sent.
    let mut begun = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
    stream.read_exact(&mut begun).unwrap();
    assert!(begun.starts_with(b"HTTP/1.1 100"), "{}", String::from_utf8_lossy(&begun));
    stream.write_all(b"four").unwrap();
    let address = process.address;
    let stopping = tokio::task::spawn_blocking(move || process.stop());
    eventually(async || TcpStream::connect(address).is_err()).await;
    stream.write_all(b"more").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 202"), "{text}");
    assert!(stopping.await.unwrap().success());
    let process = Process::serve(&folder.path().join("root"));
    let target = format!("{location}?digest={}", digest(b"fourmore"));
    let finished = process.client().send(Method::PUT, &target, &[], Bytes::new()).await.unwrap();
    assert_eq!(finished.status, StatusCode::CREATED, "{finished:?}");
}
