//! Making a folder's entries durable for several at once: whoever comes while a sync runs waits for the next one, and that
//! one serves all who wait. It must never count a sync that began before the change that it is asked for.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};

/// The syncs of a folder that somebody needs.
#[derive(Default)]
struct Folder {
    /// How many have begun.
    begun: u64,
    running: bool,
    /// The last one that came to its end, and how.
    ended: u64,
    failed: Option<io::ErrorKind>,
    wanted_by: usize,
}

/// Syncs that are shared. Threads wait in it.
#[derive(Default)]
pub struct Syncs {
    folders: Mutex<HashMap<PathBuf, Folder>>,
    ended: Condvar,
}

impl Syncs {
    /// Returns when a sync of the folder is over that began after this call. `sync` does it, if nobody else does.
    pub fn share(&self, path: &Path, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = folders.entry(path.to_owned()).or_default();
        let wanted = folder.begun + 1;
        folder.wanted_by += 1;
        while folders.get(path).is_some_and(|folder| folder.running) {
            folders = self.ended.wait(folders).unwrap_or_else(PoisonError::into_inner);
        }
        let folder = folders.entry(path.to_owned()).or_default();
        let result = if folder.ended >= wanted {
            // A failure is everybody's: the system tells it once, and the next sync would look as if all were well.
            folder.failed.map_or(Ok(()), |kind| Err(kind.into()))
        } else {
            folder.begun += 1;
            folder.running = true;
            drop(folders);
            let result = sync();
            folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
            let folder = folders.entry(path.to_owned()).or_default();
            folder.running = false;
            folder.ended = folder.begun;
            folder.failed = result.as_ref().err().map(io::Error::kind);
            self.ended.notify_all();
            result
        };
        if let Some(folder) = folders.get_mut(path) {
            folder.wanted_by -= 1;
            if folder.wanted_by == 0 {
                folders.remove(path);
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Barrier, mpsc};

    use super::Syncs;

    /// Ten come while a sync runs, which does not count for them.
    fn ten_during_one(outcome: impl Fn() -> io::Result<()> + Sync) -> (usize, Vec<io::Result<()>>) {
        let (syncs, path, count) = (Syncs::default(), Path::new("a"), AtomicUsize::new(0));
        let (begun, go_on) = (Barrier::new(2), mpsc::channel::<()>());
        let results = std::thread::scope(|scope| {
            let first = scope.spawn(|| {
                syncs.share(path, || {
                    begun.wait();
                    go_on.1.into_iter().next();
                    Ok(())
                })
            });
            begun.wait();
            let others: Vec<_> = (0..10)
                .map(|_| {
                    scope.spawn(|| {
                        syncs.share(path, || {
                            count.fetch_add(1, Ordering::SeqCst);
                            outcome()
                        })
                    })
                })
                .collect();
            while syncs.folders.lock().unwrap().get(path).is_none_or(|folder| folder.wanted_by < 11) {
                std::thread::yield_now();
            }
            go_on.0.send(()).unwrap();
            first.join().unwrap().unwrap();
            others.into_iter().map(|other| other.join().unwrap()).collect()
        });
        assert!(syncs.folders.lock().unwrap().is_empty());
        (count.into_inner(), results)
    }

    #[test]
    fn who_comes_during_a_sync_gets_the_next_one_together_with_all_others() {
        let (count, results) = ten_during_one(|| Ok(()));
        assert_eq!(count, 1);
        assert!(results.iter().all(Result::is_ok));
    }

    #[test]
    fn a_sync_that_fails_fails_for_all_who_shared_it() {
        let (count, results) = ten_during_one(|| Err(io::ErrorKind::StorageFull.into()));
        assert_eq!(count, 1);
        assert!(results.iter().all(|result| result.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::StorageFull)));
    }
}
