//! Where everything of a run lies.

use std::path::{Path, PathBuf};

/// A folder of its own below `target/bench`; it goes with the run.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn make(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench").join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
