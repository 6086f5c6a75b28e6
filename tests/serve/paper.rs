//! A disk on paper: everything that reaches the disk is recorded, and for each moment the disk is built anew with nothing but
//! what a crash leaves.

use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::time::SystemTime;

use wharf::serve::store::filesystem::Operation;

/// Files of this length may be on the disk although longer ones that were written before are not.
const SHORT: usize = 128;

/// What a crash leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// A loss of power: what was synced.
    Synced,
    /// The same, and names and times that were not synced: file systems may keep them.
    SyncedAndNames,
    /// The same, and lengths, with zeros where bytes were not synced; but what is short has reached the disk by itself.
    SyncedNamesAndLengths,
    /// The end of the process: all that was written.
    All,
}

/// A file or folder, as processes see it, and as it is after a loss of power.
enum Node {
    File { live: Vec<u8>, durable: Vec<u8>, time: Option<SystemTime> },
    Folder { live: BTreeMap<String, usize>, durable: BTreeMap<String, usize> },
}

/// The disk.
pub struct Paper(Vec<Node>);

impl Paper {
    /// A disk with these folders.
    pub fn new(folders: &[&str]) -> Self {
        let mut paper = Self(vec![Node::folder()]);
        for path in folders {
            paper.apply(&Operation::CreateFolder(path.into()));
        }
        paper.apply(&Operation::SyncVolume);
        paper
    }

    fn find(&self, path: &Path) -> usize {
        path.components().fold(0, |at, part| match (&self.0[at], part) {
            (Node::Folder { live, .. }, Component::Normal(name)) => live[name.to_str().unwrap()],
            _ => panic!("{} leads through a file", path.display()),
        })
    }

    fn entries(&mut self, path: &Path) -> (&mut BTreeMap<String, usize>, String) {
        let parent = self.find(path.parent().unwrap());
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        match &mut self.0[parent] {
            Node::Folder { live, .. } => (live, name),
            Node::File { .. } => panic!("{} is in a file", path.display()),
        }
    }

    fn add(&mut self, path: &Path, node: Node) {
        self.0.push(node);
        let number = self.0.len() - 1;
        let (entries, name) = self.entries(path);
        entries.insert(name, number);
    }

    fn file(&mut self, path: &Path) -> (&mut Vec<u8>, &mut Option<SystemTime>) {
        let at = self.find(path);
        match &mut self.0[at] {
            Node::File { live, time, .. } => (live, time),
            Node::Folder { .. } => panic!("{} is not a file", path.display()),
        }
    }

    pub fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::CreateFolder(path) => self.add(path, Node::folder()),
            Operation::CreateFile(path) => {
                self.add(path, Node::File { live: Vec::new(), durable: Vec::new(), time: None });
            }
            Operation::Write(path, offset, bytes) => {
                let (live, _) = self.file(path);
                live.truncate(usize::try_from(*offset).unwrap());
                for part in bytes {
                    live.extend_from_slice(part);
                }
            }
            Operation::Truncate(path, length) => self.file(path).0.truncate(usize::try_from(*length).unwrap()),
            Operation::Stamp(path, time) => *self.file(path).1 = Some(*time),
            Operation::SyncFile(path) | Operation::SyncFolder(path) => {
                let at = self.find(path);
                self.0[at].sync();
            }
            Operation::SyncVolume => self.0.iter_mut().for_each(Node::sync),
            Operation::Rename(from, to) => {
                let (entries, name) = self.entries(from);
                let moved = entries.remove(&name).unwrap();
                let (entries, name) = self.entries(to);
                entries.insert(name, moved);
            }
            Operation::Remove(path) => {
                let (entries, name) = self.entries(path);
                entries.remove(&name);
            }
        }
    }

    /// Writes what is left.
    pub fn build(&self, to: &Path, left: Left) {
        self.build_node(0, to, left);
    }

    fn build_node(&self, at: usize, to: &Path, left: Left) {
        match &self.0[at] {
            Node::File { live, durable, time } => {
                let is_short = left == Left::SyncedNamesAndLengths && live.len() <= SHORT;
                let mut bytes = if left == Left::All || is_short { live } else { durable }.clone();
                if left == Left::SyncedNamesAndLengths {
                    bytes.resize(live.len(), 0);
                }
                std::fs::write(to, bytes).unwrap();
                if let Some(time) = time {
                    std::fs::File::options().write(true).open(to).unwrap().set_modified(*time).unwrap();
                }
            }
            Node::Folder { live, durable } => {
                std::fs::create_dir_all(to).unwrap();
                for (name, number) in if left == Left::Synced { durable } else { live } {
                    self.build_node(*number, &to.join(name), left);
                }
            }
        }
    }
}

impl Node {
    fn folder() -> Self {
        Self::Folder { live: BTreeMap::new(), durable: BTreeMap::new() }
    }

    fn sync(&mut self) {
        match self {
            Self::File { live, durable, .. } => durable.clone_from(live),
            Self::Folder { live, durable } => durable.clone_from(live),
        }
    }
}
