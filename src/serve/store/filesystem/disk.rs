//! The only place that touches the files of a root, one operation at a time. Each is told to a hook first, which may
//! refuse it: tests see and spoil everything that reaches the disk. It must never leave the root.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use rustix::io::{ReadWriteFlags, preadv2};

use super::syncing::Syncs;
use super::usage::Counts;
use crate::serve::store::StoreError;
use crate::volume;

/// How many folders are remembered as durable; beyond that, all are forgotten and synced once more.
const REMEMBERED_FOLDERS: usize = 65_536;

/// Something that is about to happen to the disk. Paths are relative to the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A folder is made.
    CreateFolder(PathBuf),
    /// A file is made, empty.
    CreateFile(PathBuf),
    /// Bytes are written to a file.
    Write(PathBuf, u64, Vec<Bytes>),
    /// A file loses what is beyond a length.
    Truncate(PathBuf, u64),
    /// A file's bytes are made durable.
    SyncFile(PathBuf),
    /// A folder's entries are made durable.
    SyncFolder(PathBuf),
    /// All that was written to the volume is made durable.
    SyncVolume,
    /// A file gets another time of its last change.
    Stamp(PathBuf, SystemTime),
    /// A file or folder gets another name, in place of a file that had it.
    Rename(PathBuf, PathBuf),
    /// A file, or a folder with all that is in it, is removed.
    Remove(PathBuf),
}

/// Is asked before each operation; what it returns as an error is what the operation comes to.
pub type Hook = Arc<dyn Fn(&Operation) -> io::Result<()> + Send + Sync>;

/// The files under the root.
pub struct Disk {
    root: PathBuf,
    /// In it lies what is not at its place yet.
    unfinished: &'static str,
    hook: Option<Hook>,
    temporary: AtomicU64,
    syncs: Syncs,
    /// Folders whose entry in their parent is durable, and whose parent is in here too. None of them is ever removed.
    durable: Mutex<HashSet<PathBuf>>,
    /// What is there, in numbers.
    pub counts: Counts,
}

impl Disk {
    /// The files under `root`. In its folder `unfinished` lies what is not at its place yet.
    pub fn new(root: PathBuf, unfinished: &'static str, hook: Option<Hook>) -> Self {
        let (temporary, syncs, durable, counts) = Default::default();
        Self { root, unfinished, hook, temporary, syncs, durable, counts }
    }

    fn fail(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
        let what = path.display().to_string();
        move |source| StoreError { doing, what, source }
    }

    fn announce(
        &self,
        doing: &'static str,
        path: &Path,
        operation: impl FnOnce() -> Operation,
    ) -> Result<(), StoreError> {
        let Some(hook) = &self.hook else { return Ok(()) };
        hook(&operation()).map_err(Self::fail(doing, path))
    }

    /// How much of the volume is taken, in percent.
    pub fn used_percent(&self) -> Result<i32, StoreError> {
        let measured = volume::measure(&self.root).map_err(Self::fail("measure the volume of", &self.root))?;
        Ok(measured.used_percent())
    }

    /// A path for something that is not at its place yet; nothing is there.
    pub fn temporary(&self) -> PathBuf {
        Path::new(self.unfinished).join(self.temporary.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// Makes a folder and its parents.
    pub fn create_folders(&self, path: &Path) -> Result<(), StoreError> {
        let mut missing = Vec::new();
        for folder in path.ancestors() {
            if folder.as_os_str().is_empty() || self.root.join(folder).is_dir() {
                break;
            }
            missing.push(folder);
        }
        for folder in missing.into_iter().rev() {
            self.announce("make the folder", folder, || Operation::CreateFolder(folder.to_owned()))?;
            match fs::create_dir(self.root.join(folder)) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(Self::fail("make the folder", folder)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes a file that is not there yet, with these bytes, durable but for its name.
    pub fn create(&self, path: &Path, bytes: Bytes) -> Result<(), StoreError> {
        self.create_unsynced(path, bytes)?;
        self.sync_file(path)
    }

    /// As [`Disk::create`], for what a loss of power may take.
    pub fn create_unsynced(&self, path: &Path, bytes: Bytes) -> Result<(), StoreError> {
        self.create_empty(path)?;
        self.write(path, 0, &[bytes])
    }

    pub fn create_empty(&self, path: &Path) -> Result<(), StoreError> {
        self.announce("make", path, || Operation::CreateFile(path.to_owned()))?;
        let made = OpenOptions::new().write(true).create_new(true).open(self.root.join(path));
        made.map(drop).map_err(Self::fail("make", path))
    }

    /// Writes bytes into a file that is there.
    pub fn write(&self, path: &Path, offset: u64, bytes: &[Bytes]) -> Result<(), StoreError> {
        self.announce("write", path, || Operation::Write(path.to_owned(), offset, bytes.to_vec()))?;
        let write = || {
            let mut file = OpenOptions::new().write(true).open(self.root.join(path))?;
            io::Seek::seek(&mut file, io::SeekFrom::Start(offset))?;
            let mut slices: Vec<IoSlice> = bytes.iter().map(|part| IoSlice::new(part)).collect();
            write_all_vectored(&mut file, &mut slices)
        };
        write().map_err(Self::fail("write", path))
    }

    pub fn truncate(&self, path: &Path, length: u64) -> Result<(), StoreError> {
        self.announce("cut", path, || Operation::Truncate(path.to_owned(), length))?;
        let file = OpenOptions::new().write(true).open(self.root.join(path));
        file.and_then(|file| file.set_len(length)).map_err(Self::fail("cut", path))
    }

    pub fn sync_file(&self, path: &Path) -> Result<(), StoreError> {
        self.announce("sync", path, || Operation::SyncFile(path.to_owned()))?;
        File::open(self.root.join(path)).and_then(|file| file.sync_all()).map_err(Self::fail("sync", path))
    }

    /// Makes durable all that was written to the volume, whoever wrote it.
    pub fn sync_volume(&self) -> Result<(), StoreError> {
        self.announce("sync the volume of", &self.root, || Operation::SyncVolume)?;
        let synced = File::open(&self.root).and_then(|root| Ok(rustix::fs::syncfs(root)?));
        synced.map_err(Self::fail("sync the volume of", &self.root))
    }

    /// Makes the entries of one folder durable, in one go with others who want the same.
    pub fn settle_one(&self, path: &Path) -> Result<(), StoreError> {
        let sync = || {
            if let Some(hook) = &self.hook {
                hook(&Operation::SyncFolder(path.to_owned()))?;
            }
            File::open(self.root.join(path))?.sync_all()
        };
        self.syncs.share(path, sync).map_err(Self::fail("sync the folder", path))
    }

    pub fn rename(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        self.announce("rename to", to, || Operation::Rename(from.to_owned(), to.to_owned()))?;
        fs::rename(self.root.join(from), self.root.join(to)).map_err(Self::fail("rename to", to))
    }

    /// Removes a file or a folder with all that is in it, if it is there.
    pub fn remove(&self, path: &Path) -> Result<(), StoreError> {
        self.announce("remove", path, || Operation::Remove(path.to_owned()))?;
        let whole = self.root.join(path);
        let removed = match fs::symlink_metadata(&whole) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&whole),
            Ok(_) => fs::remove_file(&whole),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Self::fail("remove", path)(error)),
            _ => Ok(()),
        }
    }

    /// Removes a folder if nothing is in it.
    pub fn remove_empty(&self, path: &Path) -> Result<bool, StoreError> {
        if self.names(path)?.is_none_or(|names| !names.is_empty()) {
            return Ok(false);
        }
        self.announce("remove", path, || Operation::Remove(path.to_owned()))?;
        match fs::remove_dir(self.root.join(path)) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::NotFound) => Ok(false),
            Err(error) => Err(Self::fail("remove", path)(error)),
        }
    }

    /// Makes the entries of a folder durable, and those of its ancestors that lead to it. Up to `permanent` they are synced
    /// each time, because they come and go; beyond, once in the life of the process.
    pub fn settle(&self, folder: &Path, permanent: &Path) -> Result<(), StoreError> {
        for below in folder.ancestors().take_while(|ancestor| ancestor.starts_with(permanent)) {
            self.settle_one(below)?;
        }
        let mut settled = Vec::new();
        for above in permanent.ancestors().skip(1) {
            let child = permanent.ancestors().nth(settled.len()).unwrap_or(permanent);
            if self.durable(|known| known.contains(child)) {
                break;
            }
            self.settle_one(above)?;
            settled.push(child.to_owned());
        }
        self.durable(|known| {
            if known.len() > REMEMBERED_FOLDERS {
                known.clear();
            }
            known.extend(settled);
        });
        Ok(())
    }

    fn durable<T>(&self, act: impl FnOnce(&mut HashSet<PathBuf>) -> T) -> T {
        act(&mut self.durable.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The bytes of a small file, if it is there.
    pub fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
        found(fs::read(self.root.join(path))).map_err(Self::fail("read", path))
    }

    /// Opens a file for reading, if it is there.
    pub fn open(&self, path: &Path) -> Result<Option<File>, StoreError> {
        found(File::open(self.root.join(path))).map_err(Self::fail("open", path))
    }

    /// The length of a file, if it is there.
    pub fn length(&self, path: &Path) -> Result<Option<u64>, StoreError> {
        let metadata = found(fs::metadata(self.root.join(path))).map_err(Self::fail("look at", path))?;
        Ok(metadata.filter(fs::Metadata::is_file).map(|metadata| metadata.len()))
    }

    /// When a file was last written or renewed, if it is there.
    pub fn modified(&self, path: &Path) -> Result<Option<SystemTime>, StoreError> {
        let modified = fs::metadata(self.root.join(path)).and_then(|metadata| metadata.modified());
        found(modified).map_err(Self::fail("look at", path))
    }

    /// The length of a file, and when it was last written or stamped, if it is there.
    pub fn facts(&self, path: &Path) -> Result<Option<(u64, SystemTime)>, StoreError> {
        let facts = fs::metadata(self.root.join(path))
            .and_then(|metadata| Ok(metadata.is_file().then_some((metadata.len(), metadata.modified()?))));
        Ok(found(facts).map_err(Self::fail("look at", path))?.flatten())
    }

    /// Gives a file that is there another time of its last change, such as that of a new one.
    pub fn stamp(&self, path: &Path, now: SystemTime) -> Result<(), StoreError> {
        self.announce("stamp", path, || Operation::Stamp(path.to_owned(), now))?;
        let file = OpenOptions::new().write(true).open(self.root.join(path));
        found(file.and_then(|file| file.set_modified(now))).map(drop).map_err(Self::fail("stamp", path))
    }

    /// The names in a folder, if it is there.
    pub fn names(&self, path: &Path) -> Result<Option<Vec<String>>, StoreError> {
        let list = || {
            let entries = fs::read_dir(self.root.join(path))?;
            let names: io::Result<Vec<_>> = entries.map(|entry| Ok(entry?.file_name().into_string().ok())).collect();
            // Names that are not UTF-8 are nobody's.
            Ok(names?.into_iter().flatten().collect())
        };
        found(list()).map_err(Self::fail("list", path))
    }
}

/// Absence is an answer, and so is a file where a folder was looked for.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

fn write_all_vectored(file: &mut File, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => IoSlice::advance_slices(&mut slices, count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fills a buffer from a file at an offset as far as one read goes; nothing only at its end.
pub fn read_at(file: &File, offset: u64, mut buffer: BytesMut) -> io::Result<Bytes> {
    let count = loop {
        match file.read_at(&mut buffer, offset) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => break read?,
        }
    };
    buffer.truncate(count);
    Ok(buffer.freeze())
}

/// As [`read_at`], but never waits for the disk: gives the buffer back where the system does not have the bytes in memory
/// or cannot tell.
pub fn read_cached(file: &File, offset: u64, mut buffer: BytesMut) -> Result<Bytes, BytesMut> {
    let read = preadv2(file, &mut [IoSliceMut::new(&mut buffer)], offset, ReadWriteFlags::NOWAIT);
    match read {
        Ok(count) if count > 0 => {
            buffer.truncate(count);
            Ok(buffer.freeze())
        }
        _ => Err(buffer),
    }
}
