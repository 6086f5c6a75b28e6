//! What clients should not send, byte by byte: each is answered with the protocol's error, stores nothing, and leaves the
//! server as it was.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};

use super::client::{Client, IMAGE, digest, image};
use super::process::Process;

/// Sends bytes as they are, and reads until the server closes, or rests after it has answered.
fn raw(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.peek(&mut [0]).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        answer.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// All files under a folder, but for those that each start makes.
pub fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(files(&entry));
        } else if !entry.ends_with("lock") && !entry.ends_with("served") {
            found.push(entry);
        }
    }
    found
}

#[tokio::test]
async fn path_tricks_and_malformed_requests_are_refused_and_store_nothing() {
    let root = tempfile::tempdir().unwrap();
    let process = Process::serve(root.path());
    let none = digest(b"none");
    for (request, status, code) in [
        ("GET /v2/../../etc/passwd HTTP/1.1", 404, "NAME_UNKNOWN"),
        ("GET /v2/%2e%2e/%2e%2e/manifests/latest HTTP/1.1", 400, "NAME_INVALID"),
        ("PUT /v2/a/manifests/..%2f..%2fx HTTP/1.1\r\nContent-Length: 0", 404, "NAME_UNKNOWN"),
        ("PUT /v2/A/manifests/latest HTTP/1.1\r\nContent-Length: 0", 400, "NAME_INVALID"),
        ("GET /v2/a/manifests/sha256:../../../x HTTP/1.1", 404, "NAME_UNKNOWN"),
        ("GET /v2/a/blobs/sha256:00 HTTP/1.1", 400, "DIGEST_INVALID"),
        (&format!("GET /v2/a/blobs/{none} HTTP/1.1"), 404, "BLOB_UNKNOWN"),
        ("GET /v2/a/tags/list?n=x HTTP/1.1", 400, "UNSUPPORTED"),
        ("GET /v2/a/tags/list HTTP/1.1", 404, "NAME_UNKNOWN"),
        ("POST /v2/a/manifests/latest HTTP/1.1\r\nContent-Length: 0", 405, "UNSUPPORTED"),
        ("PATCH /v2/a/blobs/uploads/..%2f..%2fx HTTP/1.1\r\nContent-Length: 0", 404, "NAME_UNKNOWN"),
        ("PATCH /v2/a/blobs/uploads/x HTTP/1.1\r\nContent-Length: 0", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("GET /v2/a/manifests/latest HTTP/1.1\r\nRange: bytes=0-1\r\nRange: bytes=2-3", 400, "UNSUPPORTED"),
        ("PUT /v2/a/manifests/latest HTTP/1.1\r\nContent-Length: 0", 400, "MANIFEST_INVALID"),
        ("PUT /v2/a/manifests/latest HTTP/1.1\r\nContent-Length: 99999999", 413, "SIZE_INVALID"),
    ] {
        let text = raw(process.address, &format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n"));
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {text}");
        assert!(text.contains(code), "{request}: {text}");
        assert!(!text.contains("root:"), "{request}");
    }
    assert_eq!(files(root.path()), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn a_request_cannot_hide_another_one() {
    let root = tempfile::tempdir().unwrap();
    let process = Process::serve(root.path());
    let hidden = "GET /v2/hidden/tags/list HTTP/1.1\r\nHost: x\r\n\r\n";
    for head in [
        format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}", hidden.len() + 5),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {}\r\n\r\n0\r\n\r\n{hidden}", hidden.len() + 5),
        format!("Content-Length: 0\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len()),
        format!("Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}"),
        format!("Transfer-Encoding: xchunked\r\nContent-Length: 0\r\n\r\n{hidden}"),
        format!("Content-Length: +0\r\n\r\n{hidden}"),
    ] {
        let text = raw(process.address, &format!("POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\n{head}"));
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{head}: {text}");
        assert!(!text.contains("NAME_UNKNOWN"), "{head}: {text}");
    }
}

#[tokio::test]
async fn heads_that_are_too_large_and_lengths_that_lie_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let process = Process::serve(root.path());
    let client = process.client();
    let large = "x".repeat(100_000);
    let text = raw(process.address, &format!("GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Large: {large}\r\n\r\n"));
    assert!(text.starts_with("HTTP/1.1 431"), "{text}");
    let text = raw(process.address, &format!("GET /v2/{large} HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert!(text.starts_with("HTTP/1.1 414") || text.starts_with("HTTP/1.1 4"), "{text}");

    // The client announces ten bytes, sends four and goes: what came is kept for a resume, and is no blob.
    let begun = client.send(Method::POST, "/v2/a/blobs/uploads/", &[], Bytes::new()).await.unwrap();
    let location = begun.header("location").to_owned();
    let mut stream = TcpStream::connect(process.address).unwrap();
    write!(stream, "PUT {location}?digest={} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nfour", digest(b"four"))
        .unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(!text.contains("201"), "{text}");
    assert_eq!(client.get(&format!("/v2/a/blobs/{}", digest(b"four"))).await.status, StatusCode::NOT_FOUND);
    assert_eq!(client.get(&location).await.header("range"), "0-3");
    let target = format!("{location}?digest={}", digest(b"four"));
    assert_eq!(client.send(Method::PUT, &target, &[], Bytes::new()).await.unwrap().status, StatusCode::CREATED);
    let found = client.get(&format!("/v2/a/blobs/{}", digest(b"four"))).await;
    assert_eq!(found.body, "four");
}

/// Begins an upload; where it is.
pub async fn begin(client: &Client, repository: &str) -> String {
    let begun =
        client.send(Method::POST, &format!("/v2/{repository}/blobs/uploads/"), &[], Bytes::new()).await.unwrap();
    assert_eq!(begun.status, StatusCode::ACCEPTED);
    begun.header("location").to_owned()
}

#[tokio::test]
async fn uploads_that_contradict_themselves_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let process = Process::serve(root.path());
    let client = process.client();
    let location = begin(&client, "a").await;
    let patch = async |range: &str, body: &'static str| {
        let headers = [("content-range", range)];
        client.send(Method::PATCH, &location, &headers[..usize::from(!range.is_empty())], body.into()).await.unwrap()
    };
    assert_eq!(patch("0-3", "0123").await.header("range"), "0-3");
    let answer = patch("8-11", "89ab").await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (416, "BLOB_UPLOAD_INVALID"));
    assert_eq!((answer.header("range"), answer.header("location")), ("0-3", location.as_str()));
    for (range, body) in [("4-9", "4567"), ("x", "4567"), ("7-4", "4567")] {
        let answer = patch(range, body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{range}");
    }
    assert_eq!(patch("", "4567").await.header("range"), "0-7");
    // Of another repository, or with another digest, it is no upload.
    let stolen = location.replace("/v2/a/", "/v2/b/");
    assert_eq!(client.get(&stolen).await.code(), "BLOB_UPLOAD_UNKNOWN");
    let wrong = format!("{location}?digest={}", digest(b"other"));
    let answer = client.send(Method::PUT, &wrong, &[], Bytes::new()).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "DIGEST_INVALID"));
    assert_eq!(client.get(&location).await.status, StatusCode::NOT_FOUND);
    assert_eq!(files(root.path()), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn manifests_that_are_not_what_they_say_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let process = Process::serve(root.path());
    let client = process.client();
    assert_eq!(client.push_blob("a", b"{}").await.unwrap().status, StatusCode::CREATED);
    let good = image(&[b"{}"]);
    for (content_type, by, body, status, code) in [
        ("application/json", "x", good.clone(), 400, "MANIFEST_INVALID"),
        (IMAGE, "x", "[]".into(), 400, "MANIFEST_INVALID"),
        (IMAGE, "x", image(&[b"{}", b"not here"]), 404, "MANIFEST_BLOB_UNKNOWN"),
        (IMAGE, &digest(b"other"), good.clone(), 400, "DIGEST_INVALID"),
        (IMAGE, "x", vec![b' '; 4 * 1024 * 1024 + 1].into(), 413, "SIZE_INVALID"),
    ] {
        let target = format!("/v2/a/manifests/{by}");
        let answer = client.send(Method::PUT, &target, &[("content-type", content_type)], body).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code), "{content_type} {by}");
        assert_eq!(client.get(&target).await.status, StatusCode::NOT_FOUND);
    }
    // A client that sends all before it reads gets the answer too.
    let mut stream = TcpStream::connect(process.address).unwrap();
    let size = 64 * 1024 * 1024;
    write!(stream, "PUT /v2/a/manifests/x HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n").unwrap();
    stream.write_all(&vec![b' '; size]).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 413 ") && text.contains("SIZE_INVALID"), "{text}");
    // Elsewhere the blob exists, but this repository has no link to it.
    let answer = client.put_manifest("b", "x", &good).await.unwrap();
    assert_eq!(answer.code(), "MANIFEST_BLOB_UNKNOWN");
    let mut padded = good.to_vec();
    padded.resize(4 * 1024 * 1024, b' ');
    let answer = client.put_manifest("a", "largest", &padded.clone().into()).await.unwrap();
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    assert_eq!(client.get("/v2/a/manifests/largest").await.body, padded);
}
