//! Uploads: a folder each, with the data that has come and the repository that it is for. What was acknowledged of one must
//! never be lost but with the whole upload.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;

use super::disk::Disk;
use super::layout;
use crate::oci::{Digest, RepositoryName};
use crate::serve::store::{StoreError, Upload};

/// An upload's folder; ids are made by the repository, of letters and digits alone.
pub(super) fn upload_folder(id: &str) -> Option<PathBuf> {
    let plain = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    plain.then(|| Path::new(layout::UPLOADS).join(id))
}

pub(super) fn no_upload(id: &str) -> StoreError {
    StoreError { doing: "find the upload", what: id.to_owned(), source: io::ErrorKind::NotFound.into() }
}

impl Disk {
    pub(super) fn begin(&self, id: &str, repository: &RepositoryName) -> Result<(), StoreError> {
        let folder = upload_folder(id).ok_or_else(|| no_upload(id))?;
        let temporary = self.temporary();
        self.create_folders(&temporary)?;
        self.create_empty(&temporary.join(layout::UPLOAD_DATA))?;
        let name = temporary.join(layout::UPLOAD_REPOSITORY);
        self.create_empty(&name)?;
        self.write(&name, 0, &[Bytes::copy_from_slice(repository.as_str().as_bytes())])?;
        self.rename(&temporary, &folder)
    }

    pub(super) fn upload(&self, id: &str) -> Result<Option<Upload>, StoreError> {
        let Some(folder) = upload_folder(id) else { return Ok(None) };
        let Some(length) = self.length(&folder.join(layout::UPLOAD_DATA))? else { return Ok(None) };
        let name = self.read(&folder.join(layout::UPLOAD_REPOSITORY))?.unwrap_or_default();
        let repository = std::str::from_utf8(&name).ok().and_then(|name| name.parse().ok());
        let note = self.read(&folder.join(layout::UPLOAD_NOTE))?;
        Ok(repository.map(|repository| Upload { repository, length, note }))
    }

    pub(super) fn suspend(&self, id: &str, note: Vec<u8>) -> Result<(), StoreError> {
        let folder = upload_folder(id).ok_or_else(|| no_upload(id))?;
        self.sync_file(&folder.join(layout::UPLOAD_DATA))?;
        let temporary = self.temporary();
        self.create(&temporary, note.into())?;
        self.rename(&temporary, &folder.join(layout::UPLOAD_NOTE))?;
        self.settle_one(&folder)
    }

    pub(super) fn finish(&self, id: &str, length: u64, digest: &Digest) -> Result<(), StoreError> {
        let folder = upload_folder(id).ok_or_else(|| no_upload(id))?;
        let data = folder.join(layout::UPLOAD_DATA);
        let found = self.length(&data)?.ok_or_else(|| no_upload(id))?;
        if found != length {
            // A part that failed has left some of its bytes behind.
            self.truncate(&data, length)?;
        }
        self.sync_file(&data)?;
        self.place_content(&data, length, digest)?;
        self.remove(&folder)
    }

    pub(super) fn abandon(&self, id: &str) -> Result<(), StoreError> {
        upload_folder(id).map_or(Ok(()), |folder| {
            let temporary = self.temporary();
            match self.rename(&folder, &temporary) {
                Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(()),
                renamed => renamed.and_then(|()| self.remove(&temporary)),
            }
        })
    }

    pub(super) fn abandon_idle(&self, seconds: u64, now: SystemTime) -> Result<usize, StoreError> {
        let mut count = 0;
        for id in self.names(Path::new(layout::UPLOADS))?.unwrap_or_default() {
            let folder = Path::new(layout::UPLOADS).join(&id);
            let data = self.modified(&folder.join(layout::UPLOAD_DATA))?;
            let used = data.or(self.modified(&folder)?).unwrap_or(now);
            if now.duration_since(used).is_ok_and(|idle| idle.as_secs() >= seconds) {
                self.remove(&folder)?;
                count += 1;
            }
        }
        Ok(count)
    }
}
