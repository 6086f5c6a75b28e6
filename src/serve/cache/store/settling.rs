//! How what has come becomes durable: by generations. A checkpoint says that all content of a generation and of those before
//! is on the disk; nothing waits for it. It must never say so of content that was not proven since it may have been spoiled.
//!
//! Content is stamped with the generation in which it came, instead of a time: a generation knows no clock, so that no
//! clock that jumps makes anything look older than it is.

use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::index::Named;
use super::records::Checkpoint;
use super::tree::{Changing, Tree};
use super::{Scope, clock, layout};
use crate::oci::Digest;
use crate::serve::store::StoreError;

/// How often an orderly end is tried while things come.
const ENDS: usize = 3;

/// Which content is durable.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is true or not whatever the others are")]
pub struct Generations {
    /// Content of this generation and of those before is.
    pub durable: u64,
    /// The one of what comes now.
    pub current: u64,
    /// Whether content of later generations than the durable one may be spoiled, because the last life of the process did not
    /// end in order.
    pub was_cut_short: bool,
    /// Whether the disk says that there may be content which is not durable.
    pub is_marked: bool,
    /// Whether something has come in the current generation.
    pub has_changed: bool,
    /// Whether the disk has failed to make something durable. It says so once, and of what is not known.
    pub has_failed: bool,
}

impl Generations {
    /// After this checkpoint.
    pub fn new(durable: u64, was_cut_short: bool) -> Self {
        let (is_marked, has_changed, has_failed) = (false, false, false);
        Self { durable, current: durable + 1, was_cut_short, is_marked, has_changed, has_failed }
    }

    /// Whether content with this stamp may be spoiled.
    pub fn is_suspect(&self, stamp: SystemTime) -> bool {
        self.was_cut_short && generation_of(stamp) > self.durable
    }
}

/// The stamp of a generation, as a file's time: a second each, counted from 1970.
fn stamp_of(generation: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(generation)).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// The generation of a stamp. A file that was never stamped, or was copied, has the time of a clock, which is of a generation
/// later than any.
fn generation_of(stamp: SystemTime) -> u64 {
    stamp.duration_since(SystemTime::UNIX_EPOCH).map_or(u64::MAX, |since| since.as_secs())
}

impl Changing<'_> {
    /// Says on the disk, durably, that there may be content which is not durable.
    pub fn mark(&mut self) -> Result<(), StoreError> {
        if self.generations.is_marked {
            return Ok(());
        }
        let mark = Path::new(layout::UNSETTLED);
        match self.tree.disk.length(mark)? {
            // A crash has left it; it need not have been durable.
            Some(_) => self.tree.disk.settle_one(Path::new(""))?,
            None => self.tree.write_durable(layout::UNSETTLED, Bytes::new())?,
        }
        self.generations.is_marked = true;
        Ok(())
    }

    /// Says of a file that its content came, or was proven, in this generation.
    pub fn stamp(&mut self, path: &Path) -> Result<(), StoreError> {
        self.mark()?;
        self.generations.has_changed = true;
        self.tree.disk.stamp(path, stamp_of(self.generations.current))
    }

    /// What has to be hashed before there can be a checkpoint, as far as it is known.
    pub fn suspects(&self) -> Vec<Digest> {
        if !self.generations.was_cut_short {
            return Vec::new();
        }
        let index = self.tree.index();
        let suspects = index.contents().iter().filter(|(_, content)| content.is_suspect);
        suspects.map(|(digest, _)| digest.clone()).collect()
    }

    /// Says that nothing is suspect any more, if that is so.
    pub fn all_are_proven(&mut self) {
        if self.tree.index().is_complete() && self.suspects().is_empty() {
            self.generations.was_cut_short = false;
        }
    }

    /// Begins the next generation. Returns the one that ends, if there may be a checkpoint for it.
    fn next_generation(&mut self) -> Option<u64> {
        if self.generations.was_cut_short || self.generations.has_failed {
            return None;
        }
        let ended = self.generations.current;
        self.generations.current += 1;
        self.generations.has_changed = false;
        Some(ended)
    }
}

impl Tree {
    /// Writes a file of the cache's own folder, and waits until it is durable.
    pub fn write_durable(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        let temporary = self.disk.temporary();
        let written = self
            .disk
            .create(&temporary, bytes)
            .and_then(|()| self.disk.rename(&temporary, Path::new(name)))
            .and_then(|()| self.disk.settle_one(Path::new("")));
        if written.is_err() {
            // What it left is of no use; that it cannot be removed either, the next start takes care of.
            let _ = self.disk.remove(&temporary);
        }
        written
    }

    /// Makes durable what has come, if anything has.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        let ended = {
            let mut changing = self.change();
            if changing.generations.has_changed { changing.next_generation() } else { None }
        };
        ended.map_or(Ok(()), |generation| self.settle(generation))
    }

    /// Makes a generation durable that has ended. Nobody has to wait meanwhile.
    fn settle(&self, generation: u64) -> Result<(), StoreError> {
        if let Err(error) = self.disk.sync_volume() {
            self.change().generations.has_failed = true;
            tracing::error!(%error, "the cache's volume lost something; what has come lately is hashed after the next start");
            return Err(error);
        }
        let (bytes, latest) = (self.index().total().unwrap_or_default(), self.clock.now());
        self.write_durable(layout::CHECKPOINT, Checkpoint { generation, bytes, latest }.write())?;
        self.change().generations.durable = generation;
        Ok(())
    }

    /// Makes all durable that has come, and says so. Where things go on coming, it says nothing.
    pub fn end(&self) -> Result<(), StoreError> {
        for _ in 0..ENDS {
            let Some(generation) = self.change().next_generation() else { return Ok(()) };
            self.settle(generation)?;
            let mut changing = self.change();
            if changing.generations.has_changed {
                continue;
            }
            // Without the sum of what is there, the next start would know no room before it has looked through all.
            if self.index().total().is_some() {
                self.disk.remove(Path::new(layout::UNSETTLED))?;
                changing.generations.is_marked = false;
                self.disk.settle_one(Path::new(""))?;
            }
            return Ok(());
        }
        Ok(())
    }

    /// Writes down when a link was last used. Where it has gone meanwhile, nothing is lost.
    pub fn write_use(&self, scope: &Scope, named: &Named, used: u64) -> Result<(), StoreError> {
        self.disk.stamp(&layout::link(scope, named), clock::to_file(used))
    }
}
