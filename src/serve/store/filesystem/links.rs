//! Links and what lists them: small files with a digest, and the folders that stand for tags. Each appears whole or not at all,
//! by a rename, and goes away whole; none must ever be written in place.

use std::path::Path;

use bytes::Bytes;

use super::disk::Disk;
use super::layout::{self, Place};
use crate::oci::{Digest, RepositoryName, Tag};
use crate::serve::store::{Condition, Link, Listing, StoreError};

impl Disk {
    pub(super) fn read_link(&self, path: &Path) -> Result<Option<Digest>, StoreError> {
        let Some(bytes) = self.read(path)? else { return Ok(None) };
        let digest = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse().ok());
        if digest.is_none() {
            tracing::debug!(link = %path.display(), "a link without a digest counts as absent");
        }
        Ok(digest)
    }

    pub(super) fn write_link(&self, link: &Link, target: &Digest, condition: Condition) -> Result<bool, StoreError> {
        let place = layout::link(link);
        if condition == Condition::IfAbsent && self.read_link(&place.file)?.is_some() {
            // Whoever wrote it may not have come to the end yet.
            self.settle(place.file.parent().unwrap_or(&place.permanent), &place.permanent)?;
            return Ok(false);
        }
        let arriving = self.counts.repositories.arriving(link.repository());
        let is_known = self.has_repository(link.repository())?;
        match link {
            Link::Tag(_, tag) => self.write_tag(&place, tag, target)?,
            Link::Layer(..) | Link::Revision(..) => self.write_file(&place, text_of(target))?,
        }
        if !is_known {
            arriving.arrived(1);
        }
        Ok(true)
    }

    /// A tag is two files. A new one appears with both at once; in one that is there, the entry comes first.
    fn write_tag(&self, place: &Place, tag: &Tag, target: &Digest) -> Result<(), StoreError> {
        let folder = place.permanent.join(tag.as_str());
        let entry = layout::tag_entry(target);
        if self.names(&folder)?.is_some() {
            self.write_file(&Place { file: folder.join(&entry), permanent: place.permanent.clone() }, text_of(target))?;
            return self.write_file(place, text_of(target));
        }
        let temporary = self.temporary();
        let assemble = || {
            for file in [Path::new("current/link"), &entry] {
                let file = temporary.join(file);
                let parent = file.parent().unwrap_or(&temporary);
                self.create_folders(parent)?;
                self.create(&file, text_of(target))?;
                for folder in parent.ancestors().take_while(|ancestor| ancestor.starts_with(&temporary)) {
                    self.settle_one(folder)?;
                }
            }
            self.create_folders(&place.permanent)?;
            self.rename(&temporary, &folder)?;
            self.settle(&place.permanent, &place.permanent)
        };
        let built = assemble();
        if built.is_err() {
            let _ = self.remove(&temporary);
        }
        built
    }

    /// What is removed goes away whole, by a rename, before its parts are removed.
    pub(super) fn remove_link(&self, link: &Link) -> Result<bool, StoreError> {
        let place = layout::link(link);
        let Some(folder) = place.file.strip_prefix(&place.permanent).ok().and_then(|path| path.iter().next()) else {
            return Ok(false);
        };
        let folder = place.permanent.join(folder);
        let was_there = self.read_link(&place.file)?.is_some();
        if self.names(&folder)?.is_none() {
            return Ok(false);
        }
        let temporary = self.temporary();
        self.rename(&folder, &temporary)?;
        self.settle(&place.permanent, &place.permanent)?;
        self.remove(&temporary)?;
        Ok(was_there)
    }

    pub(super) fn list(
        &self,
        listing: &Listing,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Option<Vec<String>>, StoreError> {
        let mut names = Vec::new();
        match listing {
            Listing::Repositories => names = self.repositories()?,
            Listing::Tags(repository) | Listing::Revisions(repository) if !self.has_repository(repository)? => {
                return Ok(None);
            }
            Listing::Tags(_) | Listing::Revisions(_) => {}
        }
        for (folder, start) in layout::listing(listing) {
            let found = self.names(&folder)?.unwrap_or_default();
            names.extend(found.into_iter().map(|name| format!("{start}{name}")));
        }
        names.retain(|name| after.is_none_or(|after| name.as_str() > after));
        names.sort_unstable();
        names.truncate(limit);
        Ok(Some(names))
    }

    /// All repositories that have manifests, in no order. What the layout has within one begins with `_`, which no part of
    /// a name does.
    fn repositories(&self) -> Result<Vec<String>, StoreError> {
        let (mut found, mut rest) = (Vec::new(), vec![String::new()]);
        while let Some(parent) = rest.pop() {
            for name in self.names(&Path::new(layout::REPOSITORIES).join(&parent))?.unwrap_or_default() {
                if name == layout::MANIFESTS {
                    found.push(parent.clone());
                } else if !name.starts_with('_') {
                    rest.push(if parent.is_empty() { name } else { format!("{parent}/{name}") });
                }
            }
        }
        Ok(found)
    }

    /// A folder of a repository's name may also be that of another's parent.
    fn has_repository(&self, name: &RepositoryName) -> Result<bool, StoreError> {
        let folder = layout::repository(name);
        for part in layout::PARTS {
            if self.modified(&folder.join(part))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn text_of(digest: &Digest) -> Bytes {
    Bytes::copy_from_slice(digest.as_str().as_bytes())
}
