//! Fills of the store that is used, on a disk.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::{StreamExt, future, stream};

use super::world::{digest, scope};
use super::{Told, content, read_all};
use crate::serve::cache::fill::{Bounds, Fills};
use crate::serve::cache::store::{self, CacheStore};
use crate::serve::store::filesystem::Operation;
use crate::serve::upstream::Arriving;

const MEBIBYTE: u64 = 1024 * 1024;

/// One that gives a blob in pieces that are as large as those of a connection.
fn upstream(blob: &Bytes) -> Told {
    let blob = blob.clone();
    Told::to(move |offset| {
        let rest = blob.slice(usize::try_from(offset).unwrap()..);
        let pieces: Vec<_> = rest.chunks(16 * 1024).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        Ok(Arriving { length: Some(blob.len() as u64), bytes: stream::iter(pieces).boxed() })
    })
}

#[tokio::test]
async fn all_bytes_come_whether_the_disk_takes_them_or_not() {
    let blob: Bytes = (0..3 * MEBIBYTE).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let (here, there, digest) = (scope("a.example", "public"), scope("b.example", "private"), digest(&blob));
    for room in [u64::MAX, MEBIBYTE, 0] {
        let root = tempfile::tempdir().unwrap();
        let hook = move |operation: &Operation| match operation {
            Operation::Write(_, offset, bytes)
                if offset + bytes.iter().map(|part| part.len() as u64).sum::<u64>() > room =>
            {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        };
        let bounds = store::Bounds::of(100 * MEBIBYTE);
        let store = CacheStore::open_with(root.path(), bounds, SystemTime::now(), Some(Arc::new(hook))).unwrap();
        let fills = Fills::new(Arc::new(store.clone()), Bounds::default());
        let told = upstream(&blob);
        let first = fills.get(&here, &digest, 1, told.sources()).await.unwrap();
        let allowed = fills.running(&digest).is_some_and(|fill| fill.allow(&there));
        let second = fills.get(&there, &digest, 2, told.sources()).await;
        assert!(second.is_ok() || !allowed);
        let readers = [Some(first), second.ok()].into_iter().flatten().map(content);
        let received = future::join_all(readers.map(|reader| async move { read_all(&*reader).await.unwrap() })).await;
        assert!(received.iter().all(|bytes| *bytes == blob));
        // What is removed, or has just been renamed, is so on another thread.
        let partial = root.path().join("wharf/cache/partial");
        while fills.running(&digest).is_some() || std::fs::read_dir(&partial).unwrap().next().is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let kept = store.blob(&here, &digest).await.unwrap();
        assert_eq!(kept.is_some(), room == u64::MAX);
        if let Some(kept) = kept {
            assert_eq!(told.asked(), [0]);
            assert_eq!(read_all(&*kept).await.unwrap(), blob);
            assert_eq!(store.blob(&there, &digest).await.unwrap().is_some(), allowed);
        }
    }
}
