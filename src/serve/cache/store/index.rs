//! What is kept, in memory: lengths, links, what manifests name, when things were last used, and how much room there is.
//! Pure. It must never say that something is there before it is on the disk, nor after it began to be removed.
//!
//! An object that one repository links takes about 400 bytes here: 40 MB for 100,000 of them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use jiff::Timestamp;

pub use super::names::Names;
use super::{CachedTag, Scope};
use crate::oci::{Child, Digest, ManifestType, Tag};

/// What a link in a repository is for: a blob's link does not make it a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Named {
    /// As a blob.
    Blob(Digest),
    /// As a manifest.
    Manifest(Digest),
}

impl Named {
    pub fn digest(&self) -> &Digest {
        match self {
            Self::Blob(digest) | Self::Manifest(digest) => digest,
        }
    }
}

/// Content that is on the disk.
#[derive(Debug)]
pub struct Content {
    pub length: u64,
    /// How many links name it, in all repositories.
    pub links: u32,
    /// Whether it has to be hashed before it is used, because a crash may have spoiled it.
    pub is_suspect: bool,
    /// What it names, where it is linked as a manifest and is one.
    pub names: Option<Box<Names>>,
}

/// A link that is on the disk. Times are those of [`super::clock::Clock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// None of a blob.
    pub media_type: Option<ManifestType>,
    /// When it was made.
    pub came: u64,
    /// When it was last used.
    pub used: u64,
    /// By how many manifests of its repository a blob is named.
    pub named: u32,
    /// Whether the disk does not know yet when it was last used.
    pub is_unwritten: bool,
}

/// What is kept of one repository.
#[derive(Debug, Default)]
pub struct Repository {
    pub links: HashMap<Named, Link>,
    pub tags: HashMap<Tag, CachedTag>,
    pub public: Option<Timestamp>,
    /// By how many of its manifests blobs are named, whether they are here or not.
    pub named: HashMap<Digest, u32>,
}

impl Repository {
    fn count(&mut self, names: Option<&Names>) {
        for blob in blobs_of(names) {
            let count = self.named.entry(blob.clone()).or_default();
            *count += 1;
            if let Some(link) = self.links.get_mut(&Named::Blob(blob.clone())) {
                link.named = *count;
            }
        }
    }

    fn uncount(&mut self, names: Option<&Names>) {
        for blob in blobs_of(names) {
            let count = self.named.get(blob).map_or(0, |count| count.saturating_sub(1));
            if count == 0 {
                self.named.remove(blob);
            } else {
                self.named.insert(blob.clone(), count);
            }
            if let Some(link) = self.links.get_mut(&Named::Blob(blob.clone())) {
                link.named = count;
            }
        }
    }
}

fn blobs_of(names: Option<&Names>) -> &[Digest] {
    match names {
        Some(Names::Blobs(blobs)) => blobs,
        _ => &[],
    }
}

/// All that is kept.
#[derive(Debug, Default)]
pub struct Index {
    contents: HashMap<Digest, Content>,
    scopes: HashMap<Scope, Repository>,
    /// Bytes of what is in `contents`.
    listed: u64,
    /// Bytes of all content; none while nobody knows.
    total: Option<u64>,
    reserved: u64,
    /// Links and tags.
    entries: usize,
    /// Whether all that is on the disk is in here.
    is_complete: bool,
    /// Links whose last use the disk does not know.
    unwritten: Vec<(Scope, Named)>,
}

impl Index {
    /// One of a store in which there are so many bytes, as far as that is known.
    pub fn new(total: Option<u64>) -> Self {
        Self { total, ..Self::default() }
    }

    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Bytes of all content, where they are known.
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    /// How many contents, links, tags and repositories there are: what bounds the memory of this.
    pub fn entries(&self) -> usize {
        self.contents.len() + self.scopes.len() + self.entries
    }

    pub fn contents(&self) -> &HashMap<Digest, Content> {
        &self.contents
    }

    pub fn scopes(&self) -> &HashMap<Scope, Repository> {
        &self.scopes
    }

    pub fn link(&self, scope: &Scope, named: &Named) -> Option<&Link> {
        self.scopes.get(scope)?.links.get(named)
    }

    /// All content has been listed.
    pub fn contents_are_listed(&mut self) {
        self.total = Some(self.listed);
    }

    /// All that is on the disk has been listed.
    pub fn complete(&mut self) {
        self.contents_are_listed();
        self.is_complete = true;
    }

    /// Sets room aside, if so much is free of `size` bytes.
    pub fn reserve(&mut self, bytes: u64, size: u64) -> bool {
        let wanted = self.total.and_then(|total| total.checked_add(self.reserved)?.checked_add(bytes));
        let fits = wanted.is_some_and(|wanted| wanted <= size);
        if fits {
            self.reserved += bytes;
        }
        fits
    }

    pub fn release(&mut self, bytes: u64) {
        self.reserved = self.reserved.saturating_sub(bytes);
    }

    /// How many bytes there are too many of, to set so many aside.
    pub fn excess(&self, bytes: u64, size: u64) -> u64 {
        let wanted = self.total.unwrap_or_default().saturating_add(self.reserved).saturating_add(bytes);
        wanted.saturating_sub(size)
    }

    /// When something was last used.
    pub fn latest(&self) -> u64 {
        let links = self.scopes.values().flat_map(|repository| repository.links.values());
        links.map(|link| link.used).max().unwrap_or_default()
    }

    /// Content was found on the disk that had been there before.
    pub fn found_content(&mut self, digest: &Digest, length: u64, is_suspect: bool) {
        if let Entry::Vacant(entry) = self.contents.entry(digest.clone()) {
            entry.insert(Content { length, links: 0, is_suspect, names: None });
            self.listed += length;
        }
    }

    /// Content that is right was put on the disk, in place of what was there.
    pub fn put_content(&mut self, digest: &Digest, length: u64) {
        let content = self.contents.entry(digest.clone()).or_insert(Content {
            length: 0,
            links: 0,
            is_suspect: false,
            names: None,
        });
        let before = std::mem::replace(&mut content.length, length);
        content.is_suspect = false;
        self.listed = self.listed - before + length;
        self.total = self.total.map(|total| total.saturating_sub(before) + length);
    }

    /// Content has been removed, or begins to be. No link names it any more.
    pub fn remove_content(&mut self, digest: &Digest) -> u64 {
        let length = self.contents.remove(digest).map_or(0, |content| content.length);
        self.listed -= length;
        self.total = self.total.map(|total| total.saturating_sub(length));
        length
    }

    /// Content has been hashed, and is right.
    pub fn is_proven(&mut self, digest: &Digest) {
        if let Some(content) = self.contents.get_mut(digest) {
            content.is_suspect = false;
        }
    }

    /// Says what content names, before it is linked as a manifest, or when other bytes have come in its place.
    pub fn set_names(&mut self, digest: &Digest, names: Option<Names>) {
        // One text for each digest, where there is one already.
        let shared = |digest: &Digest| self.contents.get_key_value(digest).map_or(digest, |(known, _)| known).clone();
        let names = names.map(|names| match names {
            Names::Blobs(digests) => Names::Blobs(digests.iter().map(shared).collect()),
            Names::Manifests(children) => {
                let shared = |child: &Child| Child { digest: shared(&child.digest), platform: child.platform.clone() };
                Names::Manifests(children.iter().map(shared).collect())
            }
        });
        let Some(content) = self.contents.get_mut(digest) else { return };
        if content.names.as_deref() == names.as_ref() {
            return;
        }
        let before = std::mem::replace(&mut content.names, names.map(Box::new));
        let manifest = Named::Manifest(digest.clone());
        for repository in self.scopes.values_mut().filter(|repository| repository.links.contains_key(&manifest)) {
            repository.uncount(before.as_deref());
            repository.count(content.names.as_deref());
        }
    }

    /// A link is on the disk. Without its content it does not count.
    pub fn put_link(&mut self, scope: &Scope, named: &Named, mut link: Link) {
        let Some((digest, _)) = self.contents.get_key_value(named.digest()) else { return };
        let named = match named {
            Named::Blob(_) => Named::Blob(digest.clone()),
            Named::Manifest(_) => Named::Manifest(digest.clone()),
        };
        let repository = self.scopes.entry(scope.clone()).or_default();
        if let Named::Blob(digest) = &named {
            link.named = repository.named.get(digest).copied().unwrap_or_default();
        }
        if repository.links.insert(named.clone(), link).is_some() {
            return;
        }
        self.entries += 1;
        let Some(content) = self.contents.get_mut(named.digest()) else { return };
        content.links += 1;
        if let Named::Manifest(_) = named {
            repository.count(content.names.as_deref());
        }
    }

    /// A link has been removed, or begins to be. Returns whether no other link names its content.
    pub fn remove_link(&mut self, scope: &Scope, named: &Named) -> bool {
        let Some(repository) = self.scopes.get_mut(scope) else { return false };
        if repository.links.remove(named).is_none() {
            return false;
        }
        self.entries -= 1;
        let Some(content) = self.contents.get_mut(named.digest()) else { return false };
        content.links -= 1;
        if let Named::Manifest(_) = named {
            repository.uncount(content.names.as_deref());
        }
        content.links == 0
    }

    /// The repositories that link this, and as what.
    pub fn links_to(&self, digest: &Digest) -> Vec<(Scope, Named)> {
        let both = [Named::Blob(digest.clone()), Named::Manifest(digest.clone())];
        let of = |(scope, repository): (&Scope, &Repository)| {
            both.clone()
                .into_iter()
                .filter(|named| repository.links.contains_key(named))
                .map(|named| (scope.clone(), named))
                .collect::<Vec<_>>()
        };
        self.scopes.iter().flat_map(of).collect()
    }

    /// A link was used.
    pub fn use_link(&mut self, scope: &Scope, named: &Named, now: u64) {
        let Some(link) = self.scopes.get_mut(scope).and_then(|repository| repository.links.get_mut(named)) else {
            return;
        };
        link.used = link.used.max(now);
        if !std::mem::replace(&mut link.is_unwritten, true) {
            self.unwritten.push((scope.clone(), named.clone()));
        }
    }

    /// Some of the links whose last use the disk does not know, with it. They count as known from here on.
    pub fn take_unwritten(&mut self, limit: usize) -> Vec<(Scope, Named, u64)> {
        let some = self.unwritten.split_off(self.unwritten.len().saturating_sub(limit));
        let mut uses = Vec::with_capacity(some.len());
        for (scope, named) in some {
            let link = self.scopes.get_mut(&scope).and_then(|repository| repository.links.get_mut(&named));
            if let Some(link) = link.filter(|link| link.is_unwritten) {
                link.is_unwritten = false;
                uses.push((scope, named, link.used));
            }
        }
        uses
    }

    /// A tag is on the disk.
    pub fn put_tag(&mut self, scope: &Scope, tag: &Tag, cached: CachedTag) {
        let tags = &mut self.scopes.entry(scope.clone()).or_default().tags;
        if tags.insert(tag.clone(), cached).is_none() {
            self.entries += 1;
        }
    }

    pub fn remove_tag(&mut self, scope: &Scope, tag: &Tag) {
        let removed = self.scopes.get_mut(scope).and_then(|repository| repository.tags.remove(tag));
        self.entries -= usize::from(removed.is_some());
    }

    pub fn set_public(&mut self, scope: &Scope, public: Option<Timestamp>) {
        match public {
            Some(_) => self.scopes.entry(scope.clone()).or_default().public = public,
            None => {
                if let Some(repository) = self.scopes.get_mut(scope) {
                    repository.public = None;
                }
            }
        }
    }

    /// Forgets a repository of which nothing else is kept than that it was public.
    pub fn remove_empty(&mut self, scope: &Scope) -> bool {
        let is_empty = |repository: &Repository| repository.links.is_empty() && repository.tags.is_empty();
        let is_empty = self.scopes.get(scope).is_some_and(is_empty);
        if is_empty {
            self.scopes.remove(scope);
        }
        is_empty
    }

    /// Whether an image has all that it names, or an index one image that has. What is suspect counts as there: it is
    /// hashed when it is asked for.
    pub fn has_all(&self, scope: &Scope, manifest: &Digest) -> bool {
        let Some(repository) = self.scopes.get(scope) else { return false };
        let names = |digest: &Digest| {
            repository.links.get(&Named::Manifest(digest.clone()))?;
            self.contents.get(digest)?.names.as_deref()
        };
        let has_blob = |blob: &Digest| repository.links.contains_key(&Named::Blob(blob.clone()));
        let is_image = |digest: &Digest| match names(digest) {
            Some(Names::Blobs(blobs)) => blobs.iter().all(has_blob),
            _ => false,
        };
        match names(manifest) {
            Some(Names::Manifests(children)) => children.iter().any(|child| is_image(&child.digest)),
            _ => is_image(manifest),
        }
    }
}
