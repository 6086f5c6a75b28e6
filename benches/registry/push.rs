//! A client that pushes as runtimes' clients do: HEAD, POST, PATCH, PUT for each blob, four at a time, on connections that
//! stay. It must never go on after an answer that a client would not take for success.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::engines::Server;
use crate::support::client::{Answer, Client};
use crate::support::content::{Blob, Image, MANIFEST_TYPE};

/// How many blobs of an image are pushed at once.
const AT_ONCE: usize = 4;
const BYTES: &str = "application/octet-stream";

/// A client of one server.
pub struct Pusher {
    connections: Vec<Client>,
    repository: &'static str,
}

impl Pusher {
    pub fn new(server: &Server, repository: &'static str) -> Self {
        Self { connections: (0..AT_ONCE).map(|_| Client::new(server.address)).collect(), repository }
    }

    pub fn blob(&mut self, blob: &Blob) {
        push(&mut self.connections[0], self.repository, blob);
    }

    /// Pushes an image and gives it a second tag; tells how many seconds that took.
    pub fn image(&mut self, image: &Image, tags: [&str; 2]) -> f64 {
        let (started, next, repository) = (Instant::now(), AtomicUsize::new(0), self.repository);
        std::thread::scope(|scope| {
            for client in &mut self.connections {
                scope.spawn(|| {
                    while let Some(blob) = image.blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        push(client, repository, blob);
                    }
                });
            }
        });
        for tag in tags {
            let path = format!("/v2/{repository}/manifests/{tag}");
            must(&mut self.connections[0], "PUT", &path, MANIFEST_TYPE, &image.manifest.bytes);
        }
        started.elapsed().as_secs_f64()
    }
}

fn push(client: &mut Client, repository: &str, blob: &Blob) {
    let blobs = format!("/v2/{repository}/blobs");
    let known = client.send("HEAD", &format!("{blobs}/{}", blob.digest), BYTES, &[]).unwrap();
    assert_eq!(known.status, 404, "the blob is new");
    let place = place(&must(client, "POST", &format!("{blobs}/uploads/"), BYTES, &[]));
    let sent = must(client, "PATCH", &place, BYTES, &blob.bytes);
    let place = self::place(&sent);
    let separator = if place.contains('?') { '&' } else { '?' };
    must(client, "PUT", &format!("{place}{separator}digest={}", blob.digest), BYTES, &[]);
}

/// Sends what must be taken.
fn must(client: &mut Client, method: &str, path: &str, kind: &str, body: &[u8]) -> Answer {
    let answer = client.send(method, path, kind, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    assert!((200..300).contains(&answer.status), "{method} {path}: {}", answer.status);
    answer
}

/// Where an answer points, on the same server.
fn place(answer: &Answer) -> String {
    let location = &answer.location;
    location.find("/v2/").map_or_else(|| panic!("no location: {location}"), |at| location[at..].to_owned())
}
