//! What has to go when there is no room: a pure choice. It must never take a pin, nor anything at all where all that may go
//! would not be enough.
//!
//! The unit is the image: a manifest in a repository, with the tags that name it and the blobs there that no other manifest of
//! the repository names. A blob that no manifest names is a unit of its own; so is an index, whose images stay until it is
//! their turn. Content goes with the last link to it. Content without any link goes first of all.
//!
//! Units go in the order of their last use, but those that have proven themselves go last: a unit is warm once it was used a
//! minute or more after it came, for all requests of the pull that brought it are one use. One look at many images pushes
//! out only what is cold. What is warm may take four fifths of the size; beyond that, what was used longest ago counts as
//! cold again, and so does what was not used for a week: what is new always has room to be used a second time, and what is
//! not wanted any more does not stay for ever. What is in use goes after all of these.

use std::collections::{HashMap, HashSet};

use super::index::{Index, Link, Named, Names, Repository};
use super::{Protected, Scope};
use crate::oci::{Digest, Platform, Tag};

#[cfg(test)]
mod tests;

/// A use that comes later than this after what was used had come is another pull.
const SECOND_USE: u64 = 60_000;
/// What was not used for longer than this has to prove itself again.
const WEEK: u64 = 7 * 24 * 3_600_000;

/// How much has to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Bytes of content.
    pub bytes: u64,
    /// Contents, links and tags.
    pub entries: usize,
}

/// Something that has to go, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Victim {
    /// Content that no link names.
    Content(Digest),
    /// What a repository has under one manifest, or a blob that none names. The links in this order.
    Unit { scope: Scope, links: Vec<Named>, tags: Vec<Tag>, was_in_use: bool },
    /// Tags of manifests that are not here, and the repository itself where nothing else of it is.
    Rest { scope: Scope, tags: Vec<Tag> },
}

/// How much something is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Worth {
    /// It may go.
    Free,
    /// It goes when nothing else is left.
    InUse,
    /// It stays.
    Pinned,
}

/// What is in use or pinned, with all that manifests among it name.
#[derive(Debug, Default)]
pub struct Protection {
    in_use: HashSet<Digest>,
    pinned: HashSet<Digest>,
}

impl Protection {
    /// Of what is asked for, as far as it is here.
    pub fn of(index: &Index, protected: &Protected, size: u64) -> Self {
        let (pinned, _) = pins(index, protected, size);
        let mut in_use = HashSet::new();
        for digest in &protected.in_use {
            close(index, digest, &protected.platforms, &mut in_use);
        }
        Self { in_use, pinned }
    }

    /// How many bytes of it are here.
    pub fn bytes(&self, index: &Index) -> u64 {
        self.in_use.union(&self.pinned).map(|digest| length(index, digest)).sum()
    }

    fn worth(&self, digest: &Digest) -> Worth {
        if self.pinned.contains(digest) {
            Worth::Pinned
        } else if self.in_use.contains(digest) {
            Worth::InUse
        } else {
            Worth::Free
        }
    }
}

/// Of what is to be pinned, in that order, what is within the share, with all that it names here; and what is refused.
pub fn pins(index: &Index, wanted: &Protected, size: u64) -> (HashSet<Digest>, Vec<Digest>) {
    let (mut pinned, mut refused, mut bytes) = (HashSet::new(), Vec::new(), 0);
    for pin in &wanted.pinned {
        let mut more = HashSet::new();
        close(index, pin, &wanted.platforms, &mut more);
        more.retain(|digest| !pinned.contains(digest));
        let length: u64 = more.iter().map(|digest| length(index, digest)).sum();
        if bytes + length > four_fifths(size) {
            refused.push(pin.clone());
        } else {
            bytes += length;
            pinned.extend(more);
        }
    }
    (pinned, refused)
}

fn four_fifths(bytes: u64) -> u64 {
    bytes - bytes / 5
}

fn length(index: &Index, digest: &Digest) -> u64 {
    index.contents().get(digest).map_or(0, |content| content.length)
}

/// A digest with all that it names here, and what that names.
fn close(index: &Index, digest: &Digest, platforms: &[Platform], into: &mut HashSet<Digest>) {
    let mut rest = vec![digest];
    while let Some(digest) = rest.pop() {
        let content = index.contents().get(digest);
        if into.insert(digest.clone())
            && let Some(names) = content.and_then(|content| content.names.as_deref())
        {
            rest.extend(names.for_platforms(platforms));
        }
    }
}

/// A unit that may go.
struct Unit<'a> {
    scope: &'a Scope,
    repository: &'a Repository,
    named: &'a Named,
    link: &'a Link,
}

impl<'a> Unit<'a> {
    fn blobs(&self, index: &'a Index) -> &'a [Digest] {
        let content = match self.named {
            Named::Manifest(digest) => index.contents().get(digest),
            Named::Blob(_) => None,
        };
        match content.and_then(|content| content.names.as_deref()) {
            Some(Names::Blobs(blobs)) => blobs,
            _ => &[],
        }
    }

    fn is_warm(&self, now: u64) -> bool {
        self.link.used.saturating_sub(self.link.came) >= SECOND_USE && now.saturating_sub(self.link.used) < WEEK
    }
}

/// What goes, as far as it is chosen.
struct Choice<'a> {
    index: &'a Index,
    protection: &'a Protection,
    need: Need,
    /// Links that go.
    links: HashSet<(&'a Scope, &'a Named)>,
    /// How many links of content go.
    of_content: HashMap<&'a Digest, u32>,
    /// How many manifests of a repository go that name a blob.
    of_names: HashMap<(&'a Scope, &'a Digest), u32>,
    victims: Vec<Victim>,
}

/// Chooses what goes so that there is as much room as is needed. None where there would not be, whatever went.
pub fn choose(index: &Index, need: Need, protection: &Protection, size: u64, now: u64) -> Option<Vec<Victim>> {
    let (links, of_content, of_names, victims) = Default::default();
    let mut choice = Choice { index, protection, need, links, of_content, of_names, victims };
    choice.take_unlinked();
    choice.take_rest();
    for worth in [Worth::Free, Worth::InUse] {
        if choice.is_enough() {
            break;
        }
        for unit in choice.in_order(worth, size, now) {
            if choice.is_enough() {
                break;
            }
            choice.take(&unit, worth);
        }
    }
    choice.is_enough().then_some(choice.victims)
}

impl<'a> Choice<'a> {
    fn is_enough(&self) -> bool {
        self.need == Need::default()
    }

    fn gone(&mut self, bytes: u64, entries: usize) {
        self.need.bytes = self.need.bytes.saturating_sub(bytes);
        self.need.entries = self.need.entries.saturating_sub(entries);
    }

    fn take_unlinked(&mut self) {
        let unlinked = self.index.contents().iter().filter(|(_, content)| content.links == 0);
        let mut unlinked: Vec<_> = unlinked.map(|(digest, content)| (digest, content.length)).collect();
        unlinked.retain(|(digest, _)| self.protection.worth(digest) < Worth::Pinned);
        unlinked.sort_unstable();
        for (digest, length) in unlinked {
            if self.is_enough() {
                return;
            }
            self.victims.push(Victim::Content(digest.clone()));
            self.gone(length, 1);
        }
    }

    /// Takes what gives no bytes, where entries are what is needed.
    fn take_rest(&mut self) {
        if self.need.entries == 0 {
            return;
        }
        let mut rest: Vec<_> = self
            .index
            .scopes()
            .iter()
            .filter_map(|(scope, repository)| {
                let is_here = |digest: &Digest| repository.links.contains_key(&Named::Manifest(digest.clone()));
                let tags = repository.tags.iter().filter(|(_, tag)| !is_here(&tag.digest));
                let tags: Vec<Tag> = tags.map(|(tag, _)| tag.clone()).collect();
                let is_bare = repository.links.is_empty() && tags.len() == repository.tags.len();
                (is_bare || !tags.is_empty()).then_some((scope, tags, is_bare))
            })
            .collect();
        rest.sort_unstable();
        for (scope, mut tags, is_bare) in rest {
            if self.need.entries == 0 {
                return;
            }
            tags.sort_unstable();
            self.gone(0, tags.len() + usize::from(is_bare));
            self.victims.push(Victim::Rest { scope: scope.clone(), tags });
        }
    }

    /// Units of one worth, in the order in which they go.
    fn in_order(&self, worth: Worth, size: u64, now: u64) -> Vec<Unit<'a>> {
        let units = self.index.scopes().iter().flat_map(|(scope, repository)| {
            repository.links.iter().map(move |(named, link)| Unit { scope, repository, named, link })
        });
        let mut units: Vec<Unit<'a>> =
            units.filter(|unit| self.is_unit(unit) && self.protection.worth(unit.named.digest()) == worth).collect();
        units.sort_unstable_by_key(|unit| (unit.link.used, unit.scope, unit.named));
        let warm = self.warm(&units, four_fifths(size), now);
        // The sort keeps the order among those of a kind.
        units.sort_by_key(|unit| warm.contains(&(unit.scope, unit.named)));
        units
    }

    fn is_unit(&self, unit: &Unit<'a>) -> bool {
        match unit.named {
            Named::Manifest(_) if self.links.is_empty() => true,
            Named::Blob(_) if self.links.is_empty() => unit.link.named == 0,
            _ if self.links.contains(&(unit.scope, unit.named)) => false,
            Named::Manifest(_) => true,
            Named::Blob(digest) => {
                unit.link.named == self.of_names.get(&(unit.scope, digest)).copied().unwrap_or_default()
            }
        }
    }

    /// Of units in the order of their use, those that are warm, as far as they have a share.
    fn warm(&self, units: &[Unit<'a>], share: u64, now: u64) -> HashSet<(&'a Scope, &'a Named)> {
        let (mut counted, mut bytes, mut warm) = (HashSet::new(), 0, HashSet::new());
        for unit in units.iter().rev().filter(|unit| unit.is_warm(now)) {
            for digest in unit.blobs(self.index).iter().chain([unit.named.digest()]) {
                if counted.insert(digest) {
                    bytes += length(self.index, digest);
                }
            }
            if bytes > share {
                break;
            }
            warm.insert((unit.scope, unit.named));
        }
        warm
    }

    fn take(&mut self, unit: &Unit<'a>, worth: Worth) {
        let mut links = vec![unit.named.clone()];
        self.take_link(unit.scope, unit.named);
        for digest in unit.blobs(self.index) {
            *self.of_names.entry((unit.scope, digest)).or_default() += 1;
        }
        for digest in unit.blobs(self.index) {
            let found = unit.repository.links.get_key_value(&Named::Blob(digest.clone()));
            let Some((named, link)) = found else { continue };
            let blob = Unit { named, link, ..*unit };
            // A blob that is worth more than its image stays behind, on its own.
            if self.protection.worth(digest) <= worth && self.is_unit(&blob) {
                self.take_link(unit.scope, named);
                links.push(named.clone());
            }
        }
        let mut tags: Vec<Tag> = match unit.named {
            Named::Manifest(digest) => {
                let tags = unit.repository.tags.iter().filter(|(_, cached)| cached.digest == *digest);
                tags.map(|(tag, _)| tag.clone()).collect()
            }
            Named::Blob(_) => Vec::new(),
        };
        tags.sort_unstable();
        self.gone(0, tags.len());
        let (scope, was_in_use) = (unit.scope.clone(), worth == Worth::InUse);
        self.victims.push(Victim::Unit { scope, links, tags, was_in_use });
    }

    fn take_link(&mut self, scope: &'a Scope, named: &'a Named) {
        self.links.insert((scope, named));
        self.gone(0, 1);
        let gone = self.of_content.entry(named.digest()).or_default();
        *gone += 1;
        let content = self.index.contents().get(named.digest());
        if let Some(content) = content.filter(|content| content.links == *gone) {
            self.gone(content.length, 1);
        }
    }
}
