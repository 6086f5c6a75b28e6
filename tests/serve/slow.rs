//! Thousands of clients that are slow, silent or gone: what they hold is bounded, and the others are served all the while.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use bytes::Bytes;
use http::{Method, StatusCode};
use rustix::process::{Resource, getrlimit, setrlimit};

use super::bad_input::begin;
use super::client::digest;
use super::operation::{eventually, serve};

const SILENT: usize = 900;
const HALF_HEADS: usize = 800;
const STALLED_READERS: usize = 200;
const HALF_BODIES: usize = 100;
/// What the server may hold for all of them, in KiB. Of that, each stalled reader may have 512.
const BOUND: u64 = 256 * 1024;

fn open(address: SocketAddr, start: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(start.as_bytes()).unwrap();
    stream
}

/// A line of /proc/PID/status, in KiB.
fn memory(process: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn two_thousand_slow_clients_hold_little_and_hold_up_nobody() {
    // Each connection is a descriptor here, and one of the server's.
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let process = serve(folder.path(), "limits: {idleClientSeconds: 10, connections: 3000}\n");
    let (client, address) = (process.client(), process.address);
    let large: Vec<u8> = (0..16 * 1024 * 1024_u32).map(|number| number.to_le_bytes()[1]).collect();
    assert_eq!(client.push_blob("a", &large).await.unwrap().status, StatusCode::CREATED);
    let idle = memory(process.id(), "VmRSS:");

    let get = format!("GET /v2/a/blobs/{} HTTP/1.1\r\nHost: x\r\n\r\n", digest(&large));
    let mut slow = Vec::new();
    let mut readers: Vec<TcpStream> = (0..STALLED_READERS).map(|_| open(address, &get)).collect();
    for _ in 0..HALF_BODIES {
        let upload = begin(&client, "a").await;
        slow.push(open(address, &format!("PATCH {upload} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")));
    }
    slow.extend((0..HALF_HEADS).map(|_| open(address, "GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Slow: ")));
    slow.extend((0..SILENT).map(|_| open(address, "")));
    // Some say a little more from time to time, which makes them no more welcome.
    for round in 0..5 {
        for stream in slow.iter_mut().skip(HALF_BODIES).step_by(7) {
            let _ = stream.write_all(b"x");
        }
        for reader in readers.iter_mut().step_by(7) {
            let _ = reader.read_exact(&mut [0; 1024]);
        }
        client.push_image("others", &format!("t{round}"), &[b"{}", format!("layer {round}").as_bytes()]).await;
        let answer = client.get(&format!("/v2/a/blobs/{}", digest(&large))).await;
        assert!(answer.body == large, "{}", answer.status);
    }
    let most = memory(process.id(), "VmHWM:");
    println!("{idle} KiB before, at most {most} KiB with {} slow clients", slow.len() + readers.len());
    assert!(most < idle + BOUND, "{idle} KiB before, {most} KiB with slow clients");

    // They go by themselves, and what they began stays to be resumed.
    eventually(async || std::fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap().count() < 100).await;
    let uploads = std::fs::read_dir(folder.path().join("root/wharf/uploads")).unwrap().count();
    assert_eq!(uploads, HALF_BODIES);
    let answer = process.client().send(Method::GET, "/v2/others/tags/list", &[], Bytes::new()).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
}
