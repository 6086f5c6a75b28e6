//! Reading without keeping others waiting: whatever may have to wait for the disk runs on a bounded number of threads of its
//! own, so that a volume that hangs holds those who want something of it and nobody else. It must never wait on a thread
//! that serves requests.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use tokio::sync::Semaphore;

use super::disk::{self, Disk};
use super::unfinished;
use crate::serve::store::{Answer, Content, StoreError};

/// How many reads may wait for the disk. Threads are left for pushes and passwords when all of them hang.
pub const AT_ONCE: usize = 128;
/// Content up to this length is read when it is opened.
const SMALL: u64 = 64 * 1024;
/// What is read of large content at once: two such buffers stay in a processor's cache.
const PIECE: u64 = 256 * 1024;

/// Those who wait for the disk to read. Cloning shares the bound.
#[derive(Clone)]
pub struct Readers(Arc<Semaphore>);

impl Default for Readers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Readers {
    /// Runs something on another thread when it is its turn. The turn lasts until the disk has answered, also when nobody
    /// wants the answer any more.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = self.0.clone().acquire_owned().await;
        let task = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(turn);
            result
        });
        task.await.unwrap_or_else(|error| Err(unfinished(error)))
    }
}

/// Opens content, if it is there. Small content is read at once.
pub fn open(disk: &Disk, path: &Path, readers: Readers) -> Result<Option<Box<dyn Content>>, StoreError> {
    let Some(file) = disk.open(path)? else { return Ok(None) };
    let fail = |doing| move |source| StoreError { doing, what: path.display().to_string(), source };
    let length = file.metadata().map_err(fail("look at"))?.len();
    if length > SMALL {
        return Ok(Some(Box::new(OpenContent { file: OpenFile::new(file, readers), length })));
    }
    let mut bytes = BytesMut::new();
    while (bytes.len() as u64) < length {
        let next = part(&file, &(bytes.len() as u64..length), BytesMut::new()).map_err(fail("read"))?;
        if next.is_empty() {
            return Err(fail("read")(io::ErrorKind::UnexpectedEof.into()));
        }
        bytes.extend_from_slice(&next);
    }
    Ok(Some(Box::new(bytes.freeze())))
}

/// Reads some of a range from its start on, into the memory of `buffer`.
pub fn part(file: &File, range: &Range<u64>, buffer: BytesMut) -> io::Result<Bytes> {
    disk::read_at(file, range.start, sized(buffer, range))
}

/// As long as one read of the range. Memory that was used for as much before is not cleared again.
fn sized(mut buffer: BytesMut, range: &Range<u64>) -> BytesMut {
    let length = range.end.saturating_sub(range.start).min(PIECE);
    buffer.resize(usize::try_from(length).unwrap_or_default(), 0);
    buffer
}

/// A file that is open; it stays readable when it is renamed or removed meanwhile. Cloning shares it.
#[derive(Clone)]
pub struct OpenFile {
    file: Arc<File>,
    readers: Readers,
}

impl OpenFile {
    pub fn new(file: File, readers: Readers) -> Self {
        Self { file: Arc::new(file), readers }
    }

    /// Reads some of the bytes of the range from its start on; at least one, unless the range is empty. What the system has
    /// in memory is taken from there at once: another thread would cost as much as the read.
    pub fn read<'a>(&self, range: Range<u64>, buffer: BytesMut) -> Answer<'a, Bytes> {
        let buffer = match disk::read_cached(&self.file, range.start, sized(buffer, &range)) {
            Ok(bytes) => return std::future::ready(Ok(bytes)).boxed(),
            Err(buffer) => buffer,
        };
        let (file, readers) = (self.file.clone(), self.readers.clone());
        let read = move || match part(&file, &range, buffer) {
            Ok(bytes) if bytes.is_empty() && !range.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            read => read,
        };
        let failed = |source| StoreError { doing: "read", what: "content".to_owned(), source };
        async move { readers.run(move || read().map_err(failed)).await }.boxed()
    }
}

/// Large content that is open.
struct OpenContent {
    file: OpenFile,
    length: u64,
}

impl Content for OpenContent {
    fn length(&self) -> u64 {
        self.length
    }

    fn read(&self, range: Range<u64>, buffer: BytesMut) -> Answer<'_, Bytes> {
        self.file.read(range, buffer)
    }
}
