//! Makes a server's volume slow, by a limit on what its control group reads of the disk; a file that is not in memory then
//! arrives at that pace. Needs root. Or makes one blob of it hang whoever opens it, as a volume does that has gone away.
//! It must never limit another process, and leaves no group behind.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Advice, CWD, FileType, Mode, fadvise, mknodat};

use crate::engines::Server;
use crate::support::content::Blob;

/// Bytes a second.
const LIMIT: u32 = 1 << 20;

/// A control group that reads slowly. It is made before the server and dropped after it, since only an empty one can go.
pub struct Slow {
    group: PathBuf,
}

impl Slow {
    /// Limits what is read of the disk that `root` lies on; None where this machine cannot do so.
    pub fn make(root: &Path) -> Option<Self> {
        let disk = disk(root)?;
        let (hierarchy, file, limit) = if Path::new("/sys/fs/cgroup/blkio").exists() {
            ("/sys/fs/cgroup/blkio", "blkio.throttle.read_bps_device", format!("{disk} {LIMIT}"))
        } else {
            ("/sys/fs/cgroup", "io.max", format!("{disk} rbps={LIMIT}"))
        };
        let group = Path::new(hierarchy).join(format!("wharf-bench-{}", std::process::id()));
        std::fs::create_dir(&group).ok()?;
        let slow = Self { group };
        std::fs::write(slow.group.join(file), limit).ok()?;
        Some(slow)
    }

    pub fn hold(&self, server: &Server) {
        for process in server.processes() {
            std::fs::write(self.group.join("cgroup.procs"), process.pid.to_string()).unwrap();
        }
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        // A process that has ended leaves its group a moment later.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.group).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        eprintln!("could not remove {}", self.group.display());
    }
}

/// A blob in distribution's layout that hangs its readers: a FIFO that nobody writes to. Dropping it lets them go.
pub struct Stuck(PathBuf);

impl Stuck {
    pub fn make(root: &Path, repository: &str, blob: &Blob) -> Self {
        let (content, hex) = (root.join("docker/registry/v2"), blob.hex());
        let link = content.join("repositories").join(repository).join("_layers/sha256").join(hex).join("link");
        let data = content.join("blobs/sha256").join(&hex[..2]).join(hex).join("data");
        for file in [&link, &data] {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        }
        std::fs::write(link, &blob.digest).unwrap();
        mknodat(CWD, &data, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        Self(data)
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        // Open for both it waits for nobody, and those who wait go on.
        let released = File::options().read(true).write(true).open(&self.0);
        std::fs::remove_file(&self.0).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        drop(released);
    }
}

/// `MAJOR:MINOR` of the whole disk that holds a file.
fn disk(path: &Path) -> Option<String> {
    let device = rustix::fs::stat(path).ok()?.st_dev;
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let known = std::fs::canonicalize(Path::new("/sys/dev/block").join(&number)).ok()?;
    if !known.join("partition").exists() {
        return Some(number);
    }
    Some(std::fs::read_to_string(known.parent()?.join("dev")).ok()?.trim().to_owned())
}

/// Takes a file out of memory, so that the next read comes from the disk.
pub fn forget(path: &Path) {
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    file.sync_all().unwrap();
    fadvise(&file, 0, None, Advice::DontNeed).unwrap();
}
