//! The list of bad input: each is told once in the answer and once in the log, and leaves nothing behind.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::Value;

use super::bad_input::{begin, files};
use super::client::{Answer, IMAGE, digest, image};
use super::operation::eventually;
use super::process::Process;

/// Sends bytes; what the server answers until it closes.
fn send(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// The lines of the log about requests.
fn lines(log: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap();
    // The last line may be on its way.
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| ["answered", "refused", "failed"].contains(&line["message"].as_str().unwrap())).collect()
}

fn put_manifest(kind: &str, body: &str) -> String {
    let length = body.len();
    format!("PUT /v2/a/manifests/x HTTP/1.1\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}")
}

struct Bad {
    what: &'static str,
    request: String,
    status: u16,
    /// Empty where no request came of it, which HTTP itself answers.
    code: &'static str,
}

/// `upload` and `other` are two uploads in the repository `a`.
fn all(upload: &str, other: &str) -> Vec<Bad> {
    let stolen = upload.replace("/a/", "/b/");
    let wrong = digest(b"nothing");
    let large = "x".repeat(100_000);
    let good = String::from_utf8(image(&[b"{}"]).to_vec()).unwrap();
    let absent = String::from_utf8(image(&[b"{}", b"absent"]).to_vec()).unwrap();
    let both = good.replace("\"layers\"", "\"manifests\":[],\"layers\"");
    let with = |head: &str, headers: &str, body: &str| format!("{head} HTTP/1.1\r\n{headers}\r\n{body}");
    let patch = |to: &str, headers: &str, body: &str| with(&format!("PATCH {to}"), headers, body);
    let put = |headers: &str| with("PUT /v2/a/manifests/x", headers, "");
    let table = [
        ("path in a name", with("GET /v2/../../etc/passwd", "", ""), 404, "NAME_UNKNOWN"),
        ("case of a name", with("GET /v2/A/manifests/x", "", ""), 400, "NAME_INVALID"),
        ("path in a digest", with("GET /v2/a/blobs/sha256:../../x", "", ""), 404, "NAME_UNKNOWN"),
        ("short digest", with("GET /v2/a/blobs/sha256:00", "", ""), 400, "DIGEST_INVALID"),
        ("large body", put("Content-Length: 99999999\r\n"), 413, "SIZE_INVALID"),
        ("large header", with("GET /v2/", &format!("X-Large: {large}\r\n"), ""), 431, ""),
        ("half chunk", patch(upload, "Content-Range: 0-9\r\nContent-Length: 3\r\n", "abc"), 400, "UNSUPPORTED"),
        (
            "chunk out of order",
            patch(upload, "Content-Range: 8-9\r\nContent-Length: 2\r\n", "89"),
            416,
            "BLOB_UPLOAD_INVALID",
        ),
        ("upload of another", patch(&stolen, "Content-Length: 0\r\n", ""), 404, "BLOB_UPLOAD_UNKNOWN"),
        (
            "wrong digest",
            with(&format!("PUT {other}?digest={wrong}"), "Content-Length: 4\r\n", "four"),
            400,
            "DIGEST_INVALID",
        ),
        ("two ranges", with("GET /v2/a/tags/list", "Range: bytes=0-1\r\nRange: bytes=2-3\r\n", ""), 400, "UNSUPPORTED"),
        ("no JSON", put_manifest(IMAGE, "{"), 400, "MANIFEST_INVALID"),
        ("no manifest", put_manifest(IMAGE, "{\"schemaVersion\":2}"), 400, "MANIFEST_INVALID"),
        ("another type", put_manifest("application/vnd.oci.image.index.v1+json", &good), 400, "MANIFEST_INVALID"),
        ("two types in one", put_manifest(IMAGE, &both), 400, "MANIFEST_INVALID"),
        ("absent blob", put_manifest(IMAGE, &absent), 404, "MANIFEST_BLOB_UNKNOWN"),
        ("two lengths", put("Content-Length: 0\r\nContent-Length: 9\r\n"), 400, ""),
        ("unknown encoding", put("Transfer-Encoding: xchunked\r\n"), 400, ""),
    ];
    table.map(|(what, request, status, code)| Bad { what, request, status, code }).into()
}

#[tokio::test]
async fn each_refusal_is_one_answer_and_one_log_line_and_stores_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (root, log) = (folder.path().join("root"), folder.path().join("log"));
    let process = Process::serve_logged(&root, &log);
    let client = process.client();
    assert_eq!(client.push_blob("a", b"{}").await.unwrap().status, StatusCode::CREATED);
    let (upload, other) = (begin(&client, "a").await, begin(&client, "a").await);
    let before = files(&root);
    for Bad { what, request, status, code } in all(&upload, &other) {
        let count = lines(&log).len();
        let text = send(process.address, &request.replacen("\r\n", "\r\nHost: x\r\nConnection: close\r\n", 1));
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")) && text.contains(code), "{what}: {text}");
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{what}: {text}");
        assert!(!text.contains(root.to_str().unwrap()), "{what}: {text}");
        // What never became a request is told when its connection ends.
        eventually(async || lines(&log).len() > count).await;
        let told = lines(&log).split_off(count);
        assert_eq!(told.len(), 1, "{what}: {told:?}");
        assert_eq!(told[0]["message"], "refused", "{what}: {told:?}");
        assert!(told[0]["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{what}: {told:?}");
    }
    // The upload with the wrong digest has ended.
    let id = other.rsplit('/').next().unwrap();
    let left = before.into_iter().filter(|file| !file.iter().any(|part| part == id));
    assert_eq!(files(&root).into_iter().collect::<BTreeSet<_>>(), left.collect::<BTreeSet<_>>());
}

#[tokio::test]
async fn a_mount_of_what_nobody_may_read_looks_like_one_of_what_never_was() {
    let root = tempfile::tempdir().unwrap();
    let process = Process::serve(root.path());
    let client = process.client();
    assert_eq!(client.push_blob("a", b"content").await.unwrap().status, StatusCode::CREATED);
    let deleted = format!("/v2/a/blobs/{}", digest(b"content"));
    assert_eq!(client.send(Method::DELETE, &deleted, &[], Bytes::new()).await.unwrap().status, StatusCode::ACCEPTED);
    let mount = async |digest: String, from: &str| {
        let target = format!("/v2/b/blobs/uploads/?mount={digest}{from}");
        client.send(Method::POST, &target, &[], Bytes::new()).await.unwrap()
    };
    let shape = |answer: &Answer| {
        let names: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
        (answer.status, names, answer.body.clone())
    };
    for from in ["&from=a", "&from=never", ""] {
        // The bytes of the first are still on the disk, without a link.
        let [there, absent] = [mount(digest(b"content"), from).await, mount(digest(b"never"), from).await];
        assert_eq!(there.status, StatusCode::ACCEPTED);
        assert_eq!(shape(&there), shape(&absent), "{from}");
    }
    assert_eq!(client.get(&format!("/v2/b/blobs/{}", digest(b"content"))).await.status, StatusCode::NOT_FOUND);
}
