//! A model of a file system with a page cache: what is there, and what of it a power failure spares.
//!
//! Content of a file is safe once the file is synced, a name once its directory is. Of everything else any part may survive,
//! in any order: each page of 4096 bytes by itself, and each change of a directory by itself. (Real file systems promise
//! more. None promises less.)

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::backend::local::Change;
use crate::id::ObjectId;

const PAGE: usize = 4096;

#[derive(Clone, Copy)]
enum Node {
    File(usize),
    Directory(usize),
}

#[derive(Default)]
struct File {
    bytes: Vec<u8>,
    /// So many of them are safe.
    synced: usize,
}

/// A change of a directory that is not safe yet.
enum Pending {
    Add(OsString, Node),
    Remove(OsString),
    /// From, to.
    Move(OsString, OsString, Node),
}

#[derive(Default)]
struct Directory {
    safe: BTreeMap<OsString, Node>,
    pending: Vec<Pending>,
}

/// Says what survives: a number below the one given.
pub(super) type Dice<'a> = dyn FnMut(usize) -> usize + 'a;

/// A file system from a directory on.
pub(super) struct Cache {
    root: PathBuf,
    files: Vec<File>,
    directories: Vec<Directory>,
    /// What the running system sees.
    live: BTreeMap<PathBuf, Node>,
}

impl Cache {
    /// Empty, below a directory that is safe.
    pub(super) fn new(root: &Path) -> Self {
        let live = BTreeMap::from([(root.to_owned(), Node::Directory(0))]);
        Self { root: root.to_owned(), files: Vec::new(), directories: vec![Directory::default()], live }
    }

    fn node(&self, path: &Path) -> Node {
        *self.live.get(path).unwrap_or_else(|| panic!("{}: not there", path.display()))
    }

    fn file(&mut self, path: &Path) -> &mut File {
        match self.node(path) {
            Node::File(number) => &mut self.files[number],
            Node::Directory(_) => panic!("{}: a directory", path.display()),
        }
    }

    fn directory(&mut self, path: &Path) -> &mut Directory {
        match self.node(path) {
            Node::Directory(number) => &mut self.directories[number],
            Node::File(_) => panic!("{}: a file", path.display()),
        }
    }

    fn later(&mut self, path: &Path, pending: impl FnOnce(OsString) -> Pending) {
        let name = path.file_name().unwrap().to_owned();
        self.directory(path.parent().unwrap()).pending.push(pending(name));
    }

    fn add(&mut self, path: &Path, node: Node) {
        self.later(path, |name| Pending::Add(name, node));
        self.live.insert(path.to_owned(), node);
    }

    /// What the system does when this call is made. Changes above the root are none of ours.
    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::MakeDirectory(path) => {
                self.directories.push(Directory::default());
                self.add(path, Node::Directory(self.directories.len() - 1));
            }
            Change::Create(path) => {
                self.files.push(File::default());
                self.add(path, Node::File(self.files.len() - 1));
            }
            Change::Write(path, bytes) => self.file(path).bytes.extend_from_slice(bytes),
            Change::SyncFile(path) => {
                let file = self.file(path);
                file.synced = file.bytes.len();
            }
            Change::Rename(from, to) => {
                let (node, old) = (self.node(from), from.file_name().unwrap().to_owned());
                assert_eq!(from.parent(), to.parent());
                self.later(to, |new| Pending::Move(old, new, node));
                self.live.remove(from);
                self.live.insert(to.clone(), node);
            }
            Change::Link(from, to) => self.add(to, self.node(from)),
            Change::RemoveFile(path) | Change::RemoveDirectory(path) => {
                self.later(path, Pending::Remove);
                self.live.remove(path);
            }
            Change::SyncDirectory(path) => {
                if path.starts_with(&self.root) {
                    let directory = self.directory(path);
                    for pending in std::mem::take(&mut directory.pending) {
                        carry_out(&mut directory.safe, &pending, true);
                    }
                }
            }
        }
    }

    /// What is found after a crash. Dice that only ever say 0 spare what is safe and nothing else; those that say the most
    /// they can spare everything, as if only the program had been killed.
    pub(super) fn crash(&self, dice: &mut Dice<'_>) -> Image {
        let mut image = Image::default();
        self.collect(0, "", dice, &mut image);
        image
    }

    fn collect(&self, directory: usize, prefix: &str, dice: &mut Dice<'_>, image: &mut Image) {
        let directory = &self.directories[directory];
        let mut names = directory.safe.clone();
        for pending in &directory.pending {
            // A renamed file may keep its old name as well.
            match dice(3) {
                0 => {}
                1 => carry_out(&mut names, pending, false),
                _ => carry_out(&mut names, pending, true),
            }
        }
        for (name, node) in names {
            let path = format!("{prefix}{}", name.display());
            match node {
                Node::Directory(number) => self.collect(number, &format!("{path}/"), dice, image),
                Node::File(number) => {
                    let bytes = self.files[number].survivor(dice);
                    // Names with a dot are never objects.
                    if !name.display().to_string().starts_with('.') {
                        image.0.insert(path, bytes);
                    }
                }
            }
        }
    }
}

fn carry_out(names: &mut BTreeMap<OsString, Node>, pending: &Pending, whole: bool) {
    match pending {
        Pending::Add(name, node) => drop(names.insert(name.clone(), *node)),
        Pending::Remove(name) => drop(names.remove(name)),
        Pending::Move(from, to, node) => {
            if whole {
                names.remove(from);
            }
            names.insert(to.clone(), *node);
        }
    }
}

impl File {
    /// The content as it may be after a crash: pages that never came to the disk are zeros, or beyond the end.
    fn survivor(&self, dice: &mut Dice<'_>) -> Bytes {
        let pages = (self.bytes.len() - self.synced).div_ceil(PAGE);
        let end = (self.synced + dice(pages + 1) * PAGE).min(self.bytes.len());
        let mut bytes = self.bytes[..end].to_vec();
        for page in bytes[self.synced..].chunks_mut(PAGE) {
            if dice(2) == 0 {
                page.fill(0);
            }
        }
        bytes.into()
    }
}

/// Objects by name.
#[derive(Clone, Default)]
pub(super) struct Image(pub(super) BTreeMap<String, Bytes>);

impl Image {
    /// Equal for equal images.
    pub(super) fn hash(&self) -> ObjectId {
        let mut all = Vec::new();
        for (name, bytes) in &self.0 {
            all.extend_from_slice(name.as_bytes());
            all.extend_from_slice(&ObjectId::of(bytes).0);
        }
        ObjectId::of(&all)
    }
}
