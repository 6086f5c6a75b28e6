//! How one image is found and fetched: through the cache, as a pull would, with the configured credential.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::BytesMut;
use futures::FutureExt as _;
use futures::stream::{self, StreamExt as _};

use super::{Pins, Platform};
use crate::oci::{Digest, Image, Manifest, Reference};
use crate::serve::cache::fill::Body;
use crate::serve::cache::store::Scope;
use crate::serve::cache::{Ask, Blob, Caller, Refused};

/// Blobs that are fetched at the same time.
const AT_ONCE: usize = 3;
/// More manifests than this are not one image.
const MOST_MANIFESTS: usize = 256;
/// What is said of an image for which there is no room.
pub const TOO_MUCH: &str = "with the pinned images before it, it would take more than four fifths of the cache's size: make the cache larger, or pin less";

/// Why an image is not here as it should be: in words that stay the same while nothing changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortfall(pub String);

/// An image, or all images of an index that are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The manifest that the reference names.
    pub root: Digest,
    /// The manifests of images, each with its blobs.
    pub images: BTreeMap<Digest, Vec<Digest>>,
    /// How long all of it is.
    pub lengths: BTreeMap<Digest, u64>,
}

/// What the images before have taken.
#[derive(Debug, Default)]
pub struct Taken(BTreeMap<Digest, u64>);

impl Taken {
    /// Takes what an image needs besides, if that is within the share.
    pub fn take(&mut self, found: &Found, share: u64) -> Result<(), Shortfall> {
        let more = found.lengths.iter().filter(|(digest, _)| !self.0.contains_key(*digest));
        let bytes = self
            .0
            .values()
            .chain(more.map(|(_, length)| length))
            .fold(0, |sum: u64, length| sum.saturating_add(*length));
        if bytes > share {
            return Err(Shortfall(TOO_MUCH.to_owned()));
        }
        self.0.extend(found.lengths.clone());
        Ok(())
    }
}

fn ask(image: &Image) -> Ask {
    let scope = scope(image);
    Ask { scope, caller: Caller::Mirror, head: false, via: String::new() }
}

fn scope(image: &Image) -> Scope {
    Scope { upstream: image.host.clone(), repository: image.repository.clone() }
}

/// What it means that something is not given, without what differs from one attempt to the next.
fn shortfall(refused: &Refused) -> Shortfall {
    Shortfall(match refused {
        Refused::Away { .. } | Refused::Unverified(_) | Refused::Loop(_) => {
            "its registry cannot be asked for it now; what was here of it stays".to_owned()
        }
        Refused::Unauthorized(host) | Refused::Denied(host) => {
            format!("{host} does not give it to this mirror: configure a credential that may have it")
        }
        Refused::Unknown(host) => format!("{host} does not have it, or is not mirrored here"),
        Refused::Store(error) => format!("the disk refuses it: {}", error.source),
    })
}

impl Pins {
    /// Which manifest a tag named when that was last asked, however long ago.
    pub(super) async fn known(&self, image: &Image) -> Option<Digest> {
        match &image.reference {
            Reference::Digest(digest) => Some(digest.clone()),
            Reference::Tag(tag) => Some(self.store.tag(&scope(image), tag).await.ok()??.digest),
        }
    }

    /// What an image consists of.
    pub(super) async fn find(&self, image: &Image, platforms: &[Platform]) -> Result<Found, Shortfall> {
        let ask = ask(image);
        let root = self.cache.manifest(&ask, &image.reference).await.map_err(|refused| shortfall(&refused))?;
        let mut found = Found { root: root.digest.clone(), images: BTreeMap::new(), lengths: BTreeMap::new() };
        let mut waiting = vec![root.digest];
        while let Some(digest) = waiting.pop() {
            if found.lengths.contains_key(&digest) {
                continue;
            }
            let manifest = self.cache.manifest(&ask, &Reference::Digest(digest.clone())).await;
            let manifest = manifest.map_err(|refused| shortfall(&refused))?;
            found.lengths.insert(digest.clone(), manifest.length);
            let bytes = manifest.bytes.unwrap_or_default();
            let parsed = Manifest::parse(&bytes).map_err(|error| Shortfall(format!("{digest}: {error}")))?;
            if parsed.kind.is_index() {
                let wanted = parsed.children.into_iter().filter(|child| child.is_for(platforms));
                waiting.extend(wanted.map(|child| child.digest));
            } else {
                found.lengths.extend(parsed.blobs.iter().cloned().zip(parsed.lengths));
                found.images.insert(digest, parsed.blobs);
            }
            if found.images.len() + waiting.len() > MOST_MANIFESTS {
                return Err(Shortfall(format!("it has more than {MOST_MANIFESTS} manifests")));
            }
        }
        if found.images.is_empty() {
            let platforms: Vec<String> = platforms.iter().map(ToString::to_string).collect();
            return Err(Shortfall(format!("it has no image for {}", platforms.join(", "))));
        }
        Ok(found)
    }

    /// Has it proven that everybody may have an image, if that is so: without anybody who pulled it before, nobody would get it
    /// while its registry is away.
    pub(super) async fn prove_public(&self, image: &Image, root: &Digest) {
        let ask = Ask { caller: Caller::Client(None), head: true, ..ask(image) };
        let _ = self.cache.manifest(&ask, &Reference::Digest(root.clone())).await;
    }

    /// Fetches what is missing of an image.
    pub(super) async fn bring(&self, image: &Image, found: &Found) -> Result<(), Shortfall> {
        let (ask, scope) = (&ask(image), scope(image));
        for (manifest, blobs) in &found.images {
            if self.is_whole(&scope, manifest).await? {
                continue;
            }
            let fetching: Vec<_> = blobs.iter().map(|blob| self.fetch(ask, blob).boxed()).collect();
            let outcomes: Vec<Result<(), Shortfall>> = stream::iter(fetching).buffer_unordered(AT_ONCE).collect().await;
            outcomes.into_iter().collect::<Result<(), _>>()?;
            self.is_whole_soon(&scope, manifest).await?;
        }
        Ok(())
    }

    /// Waits for the last of the blobs, which may be on its way to its place.
    async fn is_whole_soon(&self, scope: &Scope, manifest: &Digest) -> Result<(), Shortfall> {
        for _ in 0..40 {
            if self.is_whole(scope, manifest).await? {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(Shortfall("not all of it is kept: there is no room for it, or the disk refuses it".to_owned()))
    }

    async fn is_whole(&self, scope: &Scope, manifest: &Digest) -> Result<bool, Shortfall> {
        let whole = self.store.is_complete(scope, manifest).await;
        whole.map_err(|error| shortfall(&Refused::Store(error)))
    }

    /// Waits for a blob until it is here.
    async fn fetch(&self, ask: &Ask, digest: &Digest) -> Result<(), Shortfall> {
        let given = match self.cache.blob(ask, digest, 0).await.map_err(|refused| shortfall(&refused))? {
            Blob::Kept(_) | Blob::Head(_) => return Ok(()),
            Blob::Growing(given) => given,
        };
        if given.fill.is_none() {
            return Err(Shortfall("there is no room for it in the cache now".to_owned()));
        }
        let cut = || Shortfall("its registry broke off, or gave wrong bytes; it is tried again".to_owned());
        match given.body {
            // The last byte comes when the digest of all is proven.
            Body::Measured(content) if content.length() > 0 => {
                let last = content.length() - 1..content.length();
                content.read(last, BytesMut::new()).await.map(drop).map_err(|_| cut())
            }
            Body::Measured(_) => Ok(()),
            Body::Unmeasured(mut bytes) => {
                while let Some(piece) = bytes.next().await {
                    piece.map_err(|_| cut())?;
                }
                Ok(())
            }
        }
    }
}
