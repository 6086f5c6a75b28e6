//! What lies on the disk, and the index of it, changed together. Every change goes through [`Changing`], of which there is one
//! at a time; it must never be waited for on a thread that serves requests.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use jiff::Timestamp;

use super::clock::{self, Clock};
use super::eviction::Victim;
use super::figures::Counts;
use super::index::{Index, Link, Named, Names};
use super::records::{self, Checkpoint, LinkRecord};
use super::room::Reservation;
use super::settling::Generations;
use super::{CachedTag, Scope, layout};
use crate::oci::{Digest, ManifestType, Tag, manifest};
use crate::serve::store::StoreError;
use crate::serve::store::filesystem::disk::Disk;

/// The cache's folder and the index of it.
pub struct Tree {
    pub disk: Disk,
    pub clock: Clock,
    pub counts: Counts,
    /// Only whoever changes the tree may hold it while waiting for the disk; the index is taken while it is held, never the
    /// other way round.
    turn: Mutex<Generations>,
    index: Mutex<Index>,
}

/// The right to change the tree.
pub struct Changing<'a> {
    pub tree: &'a Tree,
    pub generations: MutexGuard<'a, Generations>,
}

impl Tree {
    /// Takes what a folder says of itself; sweeps what was not finished.
    pub fn open(disk: Disk, now: SystemTime) -> Result<Self, StoreError> {
        disk.create_folders(Path::new(layout::PARTIAL))?;
        for name in disk.names(Path::new(layout::PARTIAL))?.unwrap_or_default() {
            disk.remove(&Path::new(layout::PARTIAL).join(name))?;
        }
        let written = disk.read(Path::new(layout::CHECKPOINT))?;
        let checkpoint = written.and_then(|bytes| Checkpoint::read(&bytes));
        let is_new = disk.names(Path::new(layout::CONTENT))?.is_none();
        let was_cut_short = !is_new && (checkpoint.is_none() || disk.length(Path::new(layout::UNSETTLED))?.is_some());
        let mut index = Index::new(checkpoint.map(|checkpoint| checkpoint.bytes).filter(|_| !was_cut_short));
        if is_new {
            index.complete();
        }
        let checkpoint = checkpoint.unwrap_or_default();
        let generations = Generations::new(checkpoint.generation, was_cut_short);
        let clock = Clock::new(now, checkpoint.latest);
        let counts = Counts::default();
        let tree = Self { disk, clock, counts, turn: Mutex::new(generations), index: Mutex::new(index) };
        tree.change().mark()?;
        Ok(tree)
    }

    /// The index. Nothing may wait for the disk while it is held.
    pub fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the turn to change something.
    pub fn change(&self) -> Changing<'_> {
        Changing { tree: self, generations: self.turn.lock().unwrap_or_else(PoisonError::into_inner) }
    }
}

impl Changing<'_> {
    fn disk(&self) -> &Disk {
        &self.tree.disk
    }

    /// Writes a small file at its place, with a time of its last change. A loss of power may take it.
    fn write(&self, place: &Path, bytes: Bytes, time: u64) -> Result<(), StoreError> {
        let temporary = self.disk().temporary();
        let written = self
            .disk()
            .create_unsynced(&temporary, bytes)
            .and_then(|()| self.disk().stamp(&temporary, clock::to_file(time)))
            .and_then(|()| self.place_file(&temporary, place));
        self.cleared(&temporary, written)
    }

    fn place_file(&self, temporary: &Path, place: &Path) -> Result<(), StoreError> {
        self.disk().create_folders(place.parent().unwrap_or(place))?;
        self.disk().rename(temporary, place)
    }

    /// What a step that failed has left is of no use; that it cannot be removed either, the next start takes care of.
    fn cleared<T>(&self, temporary: &Path, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if result.is_err() {
            let _ = self.disk().remove(temporary);
        }
        result
    }

    /// Takes content up in the index, if it is there. Returns whether it is.
    pub fn find_content(&self, digest: &Digest) -> Result<bool, StoreError> {
        {
            let index = self.tree.index();
            if index.is_complete() || index.contents().contains_key(digest) {
                return Ok(index.contents().contains_key(digest));
            }
        }
        let Some((length, stamp)) = self.disk().facts(&layout::content(digest))? else { return Ok(false) };
        self.tree.index().found_content(digest, length, self.generations.is_suspect(stamp));
        Ok(true)
    }

    /// Takes a link up in the index, if it is there, whole, and its content too. Returns whether it is.
    pub fn find_link(&self, scope: &Scope, named: &Named) -> Result<bool, StoreError> {
        {
            let index = self.tree.index();
            if index.is_complete() || index.link(scope, named).is_some() {
                return Ok(index.link(scope, named).is_some());
            }
        }
        let place = layout::link(scope, named);
        let record = self.disk().read(&place)?.and_then(|bytes| LinkRecord::read(&bytes));
        let is_manifest = matches!(named, Named::Manifest(_));
        let Some(record) = record.filter(|record| record.media_type.is_some() == is_manifest) else { return Ok(false) };
        let used = self.disk().modified(&place)?.map_or(0, clock::of);
        if !self.find_content(named.digest())? {
            return Ok(false);
        }
        let length = self.tree.index().contents().get(named.digest()).map(|content| content.length);
        if length != Some(record.length) {
            return Ok(false);
        }
        if is_manifest {
            self.find_names(named.digest())?;
        }
        let link = Link { media_type: record.media_type, came: record.came, used, named: 0, is_unwritten: false };
        self.tree.index().put_link(scope, named, link);
        Ok(true)
    }

    /// As [`Changing::find_link`]; what counts as absent is removed.
    pub fn find_or_sweep_link(&self, scope: &Scope, named: &Named) -> Result<(), StoreError> {
        if self.find_link(scope, named)? { Ok(()) } else { self.disk().remove(&layout::link(scope, named)) }
    }

    /// Reads what a manifest names, unless that is known.
    fn find_names(&self, digest: &Digest) -> Result<(), StoreError> {
        let is_known = self.tree.index().contents().get(digest).is_none_or(|content| content.names.is_some());
        if is_known { Ok(()) } else { self.read_names(digest) }
    }

    fn read_names(&self, digest: &Digest) -> Result<(), StoreError> {
        let length = self.tree.index().contents().get(digest).map(|content| content.length);
        if length.is_some_and(|length| length <= manifest::LARGEST as u64)
            && let Some(bytes) = self.disk().read(&layout::content(digest))?
        {
            self.tree.index().set_names(digest, Names::of(&bytes));
        }
        Ok(())
    }

    /// Puts content at its place whose digest was proven, and settles what was reserved for it. What is there in its full
    /// length is kept: readers may be in it.
    pub fn put_content(
        &mut self,
        temporary: &Path,
        digest: &Digest,
        length: u64,
        reservation: &mut Reservation,
    ) -> Result<(), StoreError> {
        let place = layout::content(digest);
        if self.find_content(digest)? && self.disk().length(&place)? == Some(length) {
            let known = self.tree.index().contents().get(digest).map(|content| (content.length, content.is_suspect));
            if known == Some((length, false)) {
                return self.disk().remove(temporary);
            }
        }
        self.stamp(temporary)?;
        self.place_file(temporary, &place)?;
        let is_manifest = {
            let mut index = self.tree.index();
            // In one go, so that the sum of both never exceeds the size.
            index.release(reservation.take());
            index.put_content(digest, length);
            index.links_to(digest).iter().any(|(_, named)| matches!(named, Named::Manifest(_)))
        };
        // What was there in its place may have been spoiled, and have named something else.
        if is_manifest { self.read_names(digest) } else { Ok(()) }
    }

    /// Links content in a repository. Returns whether it is there.
    pub fn put_link(
        &mut self,
        scope: &Scope,
        named: &Named,
        media_type: Option<ManifestType>,
    ) -> Result<bool, StoreError> {
        if !self.find_content(named.digest())? {
            return Ok(false);
        }
        if self.find_link(scope, named)?
            && self.tree.index().link(scope, named).is_some_and(|link| link.media_type == media_type)
        {
            return Ok(true);
        }
        if media_type.is_some() {
            self.find_names(named.digest())?;
        }
        let length = self.tree.index().contents().get(named.digest()).map_or(0, |content| content.length);
        let came = self.tree.clock.now();
        self.write(&layout::link(scope, named), LinkRecord { media_type, length, came }.write(), came)?;
        self.tree.index().put_link(scope, named, Link { media_type, came, used: came, named: 0, is_unwritten: false });
        Ok(true)
    }

    /// Evicts a link. Its content goes too, where no other names it.
    fn remove_link(&mut self, scope: &Scope, named: &Named) -> Result<(), StoreError> {
        self.disk().remove(&layout::link(scope, named))?;
        let is_last = self.tree.index().remove_link(scope, named);
        if is_last {
            self.tree.counts.evicted(self.remove_content(named.digest())?);
        }
        Ok(())
    }

    /// Removes what was chosen to go.
    pub fn evict(&mut self, victim: Victim) -> Result<(), StoreError> {
        let tree = self.tree;
        match victim {
            Victim::Content(digest) => tree.counts.evicted(self.remove_content(&digest)?),
            Victim::Rest { scope, tags } => {
                tags.iter().try_for_each(|tag| self.remove_tag(&scope, tag))?;
                self.remove_empty(&scope)?;
            }
            Victim::Unit { scope, links, tags, was_in_use } => {
                let mut blobs = links.iter();
                let image = blobs.next();
                image.map_or(Ok(()), |image| self.remove_link(&scope, image))?;
                tags.iter().try_for_each(|tag| self.remove_tag(&scope, tag))?;
                blobs.try_for_each(|blob| self.remove_link(&scope, blob))?;
                self.remove_empty(&scope)?;
                tree.counts.evicted_image(was_in_use);
            }
        }
        Ok(())
    }

    /// Removes content that no link names. Returns how long it was.
    pub fn remove_content(&mut self, digest: &Digest) -> Result<u64, StoreError> {
        self.disk().remove(&layout::content(digest))?;
        Ok(self.tree.index().remove_content(digest))
    }

    /// Removes content that turned out not to be of its digest, with all that name it.
    pub fn remove_damaged(&mut self, digest: &Digest) -> Result<(), StoreError> {
        let links = self.tree.index().links_to(digest);
        for (scope, named) in links {
            self.disk().remove(&layout::link(&scope, &named))?;
            self.tree.index().remove_link(&scope, &named);
            self.remove_empty(&scope)?;
        }
        self.remove_content(digest).map(drop)
    }

    /// Takes away what the index says of content that somebody else has removed or cut.
    pub fn check(&mut self, digest: &Digest) -> Result<(), StoreError> {
        let known = self.tree.index().contents().get(digest).map(|content| content.length);
        let found = self.disk().facts(&layout::content(digest))?.map(|(length, _)| length);
        if known.is_none() || known == found {
            return Ok(());
        }
        tracing::warn!(%digest, ?known, ?found, "content of the cache was changed by somebody else, and is removed");
        self.tree.counts.damaged();
        self.remove_damaged(digest)
    }

    /// Removes what is left of a repository of which nothing is kept any more.
    fn remove_empty(&mut self, scope: &Scope) -> Result<(), StoreError> {
        if !self.tree.index().is_complete() || !self.tree.index().remove_empty(scope) {
            return Ok(());
        }
        let folder = layout::scope(scope);
        for part in [layout::BLOBS, layout::MANIFESTS, layout::TAGS, layout::PUBLIC] {
            self.disk().remove(&folder.join(part))?;
        }
        // Another repository may lie below it.
        let above = Path::new(layout::REGISTRIES);
        for folder in folder.ancestors().take_while(|folder| *folder != above) {
            if !self.disk().remove_empty(folder)? {
                break;
            }
        }
        Ok(())
    }

    pub fn find_tag(&self, scope: &Scope, tag: &Tag) -> Result<(), StoreError> {
        let is_known = {
            let index = self.tree.index();
            index.is_complete() || index.scopes().get(scope).is_some_and(|repository| repository.tags.contains_key(tag))
        };
        if !is_known
            && let Some(cached) =
                self.disk().read(&layout::tag(scope, tag))?.and_then(|bytes| records::read_tag(&bytes))
        {
            self.tree.index().put_tag(scope, tag, cached);
        }
        Ok(())
    }

    /// As [`Changing::find_tag`]; one that is torn, or whose manifest is not here, is removed. One that is known already stays: it
    /// may have just been put, and its manifest still be on its way.
    pub fn find_or_sweep_tag(&self, scope: &Scope, tag: &Tag) -> Result<(), StoreError> {
        let named = || {
            let index = self.tree.index();
            let cached = index.scopes().get(scope)?.tags.get(tag)?;
            Some(index.link(scope, &Named::Manifest(cached.digest.clone())).is_some())
        };
        if named().is_some() {
            return Ok(());
        }
        self.find_tag(scope, tag)?;
        if named() == Some(true) {
            return Ok(());
        }
        self.disk().remove(&layout::tag(scope, tag))?;
        self.tree.index().remove_tag(scope, tag);
        Ok(())
    }

    pub fn put_tag(&mut self, scope: &Scope, tag: &Tag, cached: CachedTag) -> Result<(), StoreError> {
        self.write(&layout::tag(scope, tag), records::write_tag(&cached), self.tree.clock.now())?;
        self.tree.index().put_tag(scope, tag, cached);
        Ok(())
    }

    pub fn remove_tag(&mut self, scope: &Scope, tag: &Tag) -> Result<(), StoreError> {
        self.disk().remove(&layout::tag(scope, tag))?;
        self.tree.index().remove_tag(scope, tag);
        Ok(())
    }

    pub fn find_public(&self, scope: &Scope) -> Result<(), StoreError> {
        let is_known = {
            let index = self.tree.index();
            index.is_complete() || index.scopes().get(scope).is_some_and(|repository| repository.public.is_some())
        };
        if !is_known
            && let Some(public) = self.disk().read(&layout::public(scope))?.and_then(|bytes| records::read_time(&bytes))
        {
            self.tree.index().set_public(scope, Some(public));
        }
        Ok(())
    }

    /// As [`Changing::find_public`]; what cannot be read is removed.
    pub fn find_or_sweep_public(&self, scope: &Scope) -> Result<(), StoreError> {
        self.find_public(scope)?;
        let index = self.tree.index();
        let is_known = index.scopes().get(scope).is_some_and(|repository| repository.public.is_some());
        drop(index);
        if is_known { Ok(()) } else { self.disk().remove(&layout::public(scope)) }
    }

    pub fn put_public(&mut self, scope: &Scope, public: Option<Timestamp>) -> Result<(), StoreError> {
        match public {
            Some(time) => self.write(&layout::public(scope), records::write_time(time), self.tree.clock.now())?,
            None => self.disk().remove(&layout::public(scope))?,
        }
        self.tree.index().set_public(scope, public);
        Ok(())
    }
}
