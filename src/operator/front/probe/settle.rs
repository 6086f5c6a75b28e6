//! Ends the upload of a proof by way of the inner Service, however the front behaved, so that a registry that is proven for years
//! is none the larger for it. It must never touch anything but the proof's own upload and blob.
//!
//! An upload that did not get to its end is brought there and its blob deleted: of one that is given up, CNCF distribution
//! keeps a file in a folder of its own.

use std::net::SocketAddr;
use std::time::Duration;

use hyper::header::{LOCATION, RANGE};
use hyper::http::response::Parts;
use hyper::{Method, Uri};
use tokio::time::timeout;

use super::wire::{exchange, request, secured, text};
use super::{Probe, REPOSITORY, UPLOAD, blob, with_digest};

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The address of a registry inside the cluster.
#[derive(Clone, Debug)]
pub struct Inside {
    /// The cluster address of its Service, and the port.
    pub address: SocketAddr,
    /// The name that its certificate has.
    pub name: String,
}

impl Probe<'_> {
    /// Ends an upload that began at this path; what stood in the way if that failed.
    pub(super) async fn settle(&self, upload: &str) -> Result<(), String> {
        // What came of it is known to the registry alone: the front may have lost the answer.
        let Some(begun) = self.state_of(upload).await? else { return Ok(()) };
        if self.finish(&begun).await.is_ok() {
            return Ok(());
        }
        // The registry cannot store it. Giving it up needs no room.
        let Some(begun) = self.state_of(upload).await? else { return Ok(()) };
        let answer = self.send_inside(Method::DELETE, &begun.path, None).await?;
        expect(&answer, &[202, 204, 404], "giving the upload up")
    }

    /// Takes the blob away again. A proof of another front may have done it.
    pub(super) async fn delete_blob(&self) -> Result<(), String> {
        let path = format!("/v2/{REPOSITORY}/blobs/{}", blob());
        let answer = self.send_inside(Method::DELETE, &path, None).await?;
        expect(&answer, &[202, 404], "deleting the blob")
    }

    /// Where an upload goes on and how much of it is there; `None` if there is no such upload.
    async fn state_of(&self, upload: &str) -> Result<Option<Begun>, String> {
        let answer = self.send_inside(Method::GET, upload, None).await?;
        if answer.status.as_u16() == 404 {
            return Ok(None);
        }
        expect(&answer, &[200, 204], "looking at the upload")?;
        let path = text(&answer.headers, LOCATION).and_then(|location| path_of(&location));
        let received = text(&answer.headers, RANGE).and_then(|range| received(&range));
        path.zip(received)
            .map(|(path, received)| Some(Begun { path, received }))
            .ok_or_else(|| "looking at the upload: the answer does not say where it stands".to_owned())
    }

    async fn finish(&self, begun: &Begun) -> Result<(), String> {
        let rest = UPLOAD.saturating_sub(begun.received);
        let answer = self.send_inside(Method::PUT, &with_digest(&begun.path), Some(rest)).await?;
        expect(&answer, &[201], "finishing the upload")
    }

    async fn send_inside(&self, method: Method, path: &str, size: Option<usize>) -> Result<Parts, String> {
        let request = request(&method, path, &self.inside.name, self.authorization, size)
            .ok_or_else(|| format!("{method}: the request cannot be written"))?;
        let sent = async {
            let stream = secured(self.inside.address, &self.inside.name, &self.trust.own)
                .await
                .map_err(|cause| format!("{method}: {cause:?}"))?;
            exchange(stream, request).await.map_err(|cause| format!("{method}: {cause}"))
        };
        timeout(PATIENCE, sent)
            .await
            .unwrap_or_else(|_| Err(format!("{method}: no answer in {} s", PATIENCE.as_secs())))
    }
}

/// An upload that is under way.
struct Begun {
    path: String,
    received: usize,
}

fn expect(answer: &Parts, codes: &[u16], what: &str) -> Result<(), String> {
    if codes.contains(&answer.status.as_u16()) { Ok(()) } else { Err(format!("{what}: {}", answer.status)) }
}

pub(super) fn path_of(location: &str) -> Option<String> {
    location.parse::<Uri>().ok()?.path_and_query().map(ToString::to_string)
}

/// How many bytes are there. Nothing is written `0-0`, like one byte; a front never passes on a single one.
fn received(range: &str) -> Option<usize> {
    let (_, last) = range.trim_start_matches("bytes=").split_once('-')?;
    let last: usize = last.parse().ok()?;
    Some(if last == 0 { 0 } else { last + 1 })
}
