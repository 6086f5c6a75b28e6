//! What is kept of other registries: a store of its own, bounded, evictable, beside the acknowledged content and never in it.
//! Everything lies below `wharf/cache`, which is the root of all that its types can name. It must never hold a path of the
//! other store, show an object in a repository without a link there, or exceed its size.
//!
//! The tree is the truth:
//!
//! | Path | What |
//! |---|---|
//! | `content/<algorithm>/<2 digits>/<digest>` | bytes whose digest was proven; stamped with the generation in which they came |
//! | `registries/<host>/<repository>/_blobs/<algorithm>/<digest>` | a link: this repository has it as a blob; stamped with its last use |
//! | `registries/<host>/<repository>/_manifests/<algorithm>/<digest>` | the same, as a manifest, with its type |
//! | `registries/<host>/<repository>/_tags/<tag>` | which manifest a tag named, and when the upstream said so |
//! | `registries/<host>/<repository>/_public` | when anybody could last read there |
//!
//! | Leftover | How it came | Who moves it | What a restart does |
//! |---|---|---|---|
//! | anything in `partial` | a crash during a fill, or before a rename | nobody | removes it |
//! | `unsettled` | a start, or something that came after an orderly end | the orderly end of `maintain` | hashes content younger than `checkpoint` before it is used |
//! | content without a link | a crash between content and link, or between link and content of an eviction | an eviction, first of all; a link that is made to it | keeps it |
//! | a link without its content, of another length, torn or empty | a loss of power | nobody; it counts as absent | removes it |
//! | a torn or empty tag | a loss of power | the next write of it; it counts as absent | removes it |
//!
//! Locks, in the order in which they may be taken:
//! 1. the turn to change the tree ([`tree::Changing`]), on threads that may wait for the disk, for as long as a change lasts:
//!    the disk and its entry in the index. So an eviction, a commit and a link that is made never see each other halfway.
//! 2. the index, anywhere, for a look or an entry in memory; nobody waits for anything while holding it.
//!
//! Who only reads takes no turn: a link is looked up in the index, then the file is opened. If an eviction comes between,
//! the content is gone, which is told as such, or open, and stays readable.

mod clock;
mod eviction;
mod figures;
mod index;
mod layout;
mod looking;
mod maintain;
mod names;
mod partial;
mod proving;
mod putting;
mod records;
mod room;
mod settling;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use jiff::Timestamp;

pub use self::figures::Figures;
pub use self::partial::{Partial, PartialReader};
pub use self::room::Reservation;
use self::tree::Tree;
use crate::oci::{Digest, ManifestType, Platform, RegistryHost, RepositoryName};
use crate::serve::repository::locks::Locks;
use crate::serve::store::StoreError;
use crate::serve::store::filesystem::Hook;
use crate::serve::store::filesystem::disk::Disk;
use crate::serve::store::filesystem::reading::Readers;

/// A repository of an upstream. Objects are visible in one only through a link of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope {
    /// Which registry.
    pub upstream: RegistryHost,
    /// Which repository of it.
    pub repository: RepositoryName,
}

/// A manifest that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedManifest {
    /// Its type, as it came.
    pub media_type: ManifestType,
    /// Its bytes, as they came.
    pub bytes: Bytes,
}

/// What a tag was when the upstream was last asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedTag {
    /// The manifest it named.
    pub digest: Digest,
    /// When the upstream said so.
    pub checked: Timestamp,
}

/// How much may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of content, with what is reserved for content on its way.
    pub size: u64,
    /// Contents, links, tags and repositories, because each takes memory.
    pub entries: usize,
}

impl Bounds {
    /// The usual number of entries: with all of them, the index takes about 50 MB.
    pub const ENTRIES: usize = 250_000;

    /// So many bytes.
    #[must_use]
    pub const fn of(size: u64) -> Self {
        Self { size, entries: Self::ENTRIES }
    }
}

/// What is to be evicted late or never, with all that it names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protected {
    /// Goes only when nothing else is left.
    pub in_use: HashSet<Digest>,
    /// Never goes. The first come first: what would take the pins above their share of the size is refused.
    pub pinned: Vec<Digest>,
    /// Of an index, only the images for these platforms are meant; all where there are none.
    pub platforms: Vec<Platform>,
}

/// What is kept of other registries. Cloning shares it.
#[derive(Clone)]
pub struct CacheStore(Arc<Shared>);

struct Shared {
    tree: Tree,
    demands: Mutex<(Bounds, Arc<Protected>)>,
    readers: Readers,
    /// Those who change something, apart from those who read.
    writers: Readers,
    /// Held for content while it is hashed, so that it is hashed once.
    proving: Locks<Digest>,
}

impl Shared {
    fn demands(&self) -> (Bounds, Arc<Protected>) {
        let demands = self.demands.lock().unwrap_or_else(PoisonError::into_inner);
        (demands.0, demands.1.clone())
    }
}

impl CacheStore {
    /// Takes the cache below a root, which this process has locked, and makes it if need be. It reads nothing of what is
    /// kept, however much that is: [`CacheStore::maintain`] does, later.
    ///
    /// # Errors
    /// When it cannot be written to.
    pub fn open(root: &Path, bounds: Bounds) -> Result<Self, StoreError> {
        Self::open_with(root, bounds, SystemTime::now(), None)
    }

    /// As [`CacheStore::open`], at this time, with a hook that is asked before each operation.
    ///
    /// # Errors
    /// As [`CacheStore::open`].
    pub fn open_with(root: &Path, bounds: Bounds, now: SystemTime, hook: Option<Hook>) -> Result<Self, StoreError> {
        let folder = root.join(layout::FOLDER);
        std::fs::create_dir_all(&folder).map_err(|source| StoreError {
            doing: "make the folder",
            what: layout::FOLDER.to_owned(),
            source,
        })?;
        let tree = Tree::open(Disk::new(folder, layout::PARTIAL, hook), now)?;
        let (readers, writers) = (Readers::default(), Readers::default());
        let (demands, proving) = (Mutex::new((bounds, Arc::default())), Locks::default());
        Ok(Self(Arc::new(Shared { tree, demands, readers, writers, proving })))
    }

    /// Takes up other bounds. What is too much goes within seconds.
    pub fn change(&self, bounds: Bounds) {
        self.0.demands.lock().unwrap_or_else(PoisonError::into_inner).0 = bounds;
    }

    /// Says anew what is to be evicted late or never.
    pub fn protect(&self, protected: Protected) {
        self.0.demands.lock().unwrap_or_else(PoisonError::into_inner).1 = Arc::new(protected);
    }
}
