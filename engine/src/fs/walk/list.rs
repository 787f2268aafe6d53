//! Lists one directory, and examines its names block by block.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{FileType, RawDir, readlinkat};
use rustix::io::Errno;

use super::PathFilter;
use super::ahead::{Ahead, Slot};
use crate::entry::{Kind, SourceContent, SourceEntry};
use crate::fs::dirs::Dir;
use crate::fs::local::LocalEntry;
use crate::fs::meta::Stat;
use crate::fs::owners::{Names, Owners};
use crate::monitor::{Monitor, Problem};
use crate::path::{EntryPath, MAX_DEPTH, display_bytes};

/// Names examined in one piece of work.
const BLOCK: usize = 1024;
/// Bytes of directory entries asked of the kernel at once.
const READ_SIZE: usize = 64 << 10;

/// The names in a directory: sorted, each ending in NUL, in one piece of memory.
pub struct Listing {
    pub dir: Arc<Dir>,
    arena: Vec<u8>,
    starts: Vec<usize>,
}

impl Listing {
    /// A listing of one name.
    pub fn single(dir: Arc<Dir>, name: &CStr) -> Arc<Self> {
        Arc::new(Self { dir, arena: name.to_bytes_with_nul().to_vec(), starts: vec![0] })
    }

    /// The name at `index`.
    pub fn name(&self, index: usize) -> &CStr {
        let rest = self.starts.get(index).and_then(|start| self.arena.get(*start..)).unwrap_or_default();
        CStr::from_bytes_until_nul(rest).unwrap_or_default()
    }

    fn push(&mut self, name: &CStr) {
        self.starts.push(self.arena.len());
        self.arena.extend_from_slice(name.to_bytes_with_nul());
    }

    fn sort(&mut self) {
        // Two different names differ at the NUL of the shorter one at the latest, so there is no need to find the ends.
        let arena = &self.arena;
        self.starts.sort_unstable_by(|a, b| arena[*a..].cmp(&arena[*b..]));
        // Some file systems list a name twice when the directory changes meanwhile.
        let name = |start: usize| CStr::from_bytes_until_nul(&arena[start..]);
        self.starts.dedup_by(|a, b| name(*a) == name(*b));
    }

    /// If one of `tags` is among the names, forgets all that are not.
    fn apply_tags(&mut self, tags: &[Vec<u8>]) {
        let found = |listing: &Self, tag: &Vec<u8>| {
            let at = listing.starts.binary_search_by(|start| {
                let name = CStr::from_bytes_until_nul(&listing.arena[*start..]).unwrap_or_default();
                name.to_bytes().cmp(tag)
            });
            at.ok().map(|index| listing.starts[index])
        };
        let kept: Vec<usize> = tags.iter().filter_map(|tag| found(self, tag)).collect();
        if !kept.is_empty() {
            self.starts.retain(|start| kept.contains(start));
        }
    }
}

/// An entry, and the contents to be delivered after it.
pub struct Item {
    pub entry: SourceEntry,
    pub contents: Option<Arc<Slot>>,
}

/// A result: entries, and slots with those that follow in the same directory.
#[derive(Default)]
pub struct Batch {
    pub items: Vec<Item>,
    pub more: Vec<Arc<Slot>>,
}

/// A piece of work.
pub enum Work {
    /// List a directory, and examine the first names.
    List(Arc<Dir>),
    /// Examine some names.
    Examine(Arc<Listing>, Range<usize>),
}

/// What all threads of a walk share.
pub struct Common {
    /// File systems to stay on; none: any.
    devices: Option<Vec<u64>>,
    tags: Vec<Vec<u8>>,
    filter: Option<Arc<dyn PathFilter>>,
    monitor: Arc<dyn Monitor>,
    names: Arc<Names>,
    user: u32,
}

impl Common {
    pub fn new(
        devices: Option<Vec<u64>>,
        tags: Vec<Vec<u8>>,
        filter: Option<Arc<dyn PathFilter>>,
        monitor: Arc<dyn Monitor>,
    ) -> Self {
        let user = rustix::process::geteuid().as_raw();
        Self { devices, tags, filter, monitor, names: Arc::new(Names::load()), user }
    }

    /// Reports trouble with an entry.
    pub fn problem(&self, path: &[u8], message: String) {
        self.monitor.problem(Problem { subject: display_absolute(path), message });
    }
}

fn display_absolute(path: &[u8]) -> String {
    format!("/{}", display_bytes(path))
}

fn join_bytes(dir: &EntryPath, name: &CStr) -> Vec<u8> {
    let mut path = dir.as_bytes().to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name.to_bytes());
    path
}

/// Does pieces of work. One per thread.
pub struct Lister {
    pub common: Arc<Common>,
    ahead: Arc<Ahead>,
    owners: Owners,
    buffer: Vec<MaybeUninit<u8>>,
    absolute: Vec<u8>,
}

impl Lister {
    pub fn new(common: Arc<Common>, ahead: Arc<Ahead>) -> Self {
        let owners = Owners::new(Arc::clone(&common.names));
        Self { common, ahead, owners, buffer: vec![MaybeUninit::uninit(); READ_SIZE], absolute: Vec::new() }
    }

    /// Does one piece of work. Trouble goes to the monitor.
    pub fn run(&mut self, work: Work) -> Batch {
        match work {
            Work::List(dir) => self.list(dir),
            Work::Examine(listing, range) => {
                self.ahead.names_examined(range.len());
                Batch { items: self.examine(&listing, range), more: Vec::new() }
            }
        }
    }

    fn list(&mut self, dir: Arc<Dir>) -> Batch {
        let mut listing = Listing { dir, arena: Vec::new(), starts: Vec::new() };
        if let Err(error) = self.read_names(&mut listing) {
            self.common.problem(listing.dir.path.as_bytes(), format!("cannot list: {error}"));
        }
        listing.sort();
        listing.apply_tags(&self.common.tags);
        if !listing.starts.is_empty() && listing.dir.path.components().count() >= MAX_DEPTH {
            self.common.problem(listing.dir.path.as_bytes(), format!("contents left out: deeper than {MAX_DEPTH}"));
            return Batch::default();
        }
        let total = listing.starts.len();
        let listing = Arc::new(listing);
        let mut more = Vec::new();
        for start in (BLOCK..total).step_by(BLOCK) {
            let range = start..(start + BLOCK).min(total);
            // A key that is no path (too long) leads to a wrong place in the queue at worst.
            let key = listing.dir.path.join(listing.name(start).to_bytes()).unwrap_or_else(|_| listing.dir.path.clone());
            more.push(Slot::new(key, Work::Examine(Arc::clone(&listing), range)));
        }
        if !more.is_empty() {
            self.ahead.names_listed(total - BLOCK);
            self.ahead.push(more.iter().cloned());
        }
        Batch { items: self.examine(&listing, 0..total.min(BLOCK)), more }
    }

    fn read_names(&mut self, listing: &mut Listing) -> std::io::Result<()> {
        let fd = listing.dir.open_listing()?;
        let mut entries = RawDir::new(&*fd, &mut self.buffer);
        while let Some(entry) = entries.next() {
            match entry {
                Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
                Ok(entry) => listing.push(entry.file_name()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn examine(&mut self, listing: &Arc<Listing>, range: Range<usize>) -> Vec<Item> {
        if range.is_empty() {
            return Vec::new();
        }
        let fd = match listing.dir.fd() {
            Ok(fd) => fd,
            Err(error) => {
                self.common.problem(listing.dir.path.as_bytes(), format!("cannot open: {error}"));
                return Vec::new();
            }
        };
        let mut items = Vec::with_capacity(range.len());
        items.extend(range.filter_map(|index| self.examine_one(&fd, listing, index)));
        self.announce(items.iter());
        items
    }

    /// Counts entries as undelivered and lets threads begin with their contents.
    pub fn announce<'a>(&self, items: impl ExactSizeIterator<Item = &'a Item>) {
        self.ahead.examined(items.len());
        let contents: Vec<_> = items.filter_map(|item| item.contents.clone()).collect();
        if !contents.is_empty() {
            self.ahead.push(contents);
        }
    }

    fn examine_one(&mut self, fd: &OwnedFd, listing: &Arc<Listing>, index: usize) -> Option<Item> {
        let (dir, name) = (&listing.dir, listing.name(index));
        let path = match dir.path.join(name.to_bytes()) {
            Ok(path) => path,
            Err(error) => {
                self.common.problem(&join_bytes(&dir.path, name), format!("left out: {error}"));
                return None;
            }
        };
        let stat = match Stat::at(fd, name) {
            Ok(stat) => stat,
            Err(error) => {
                self.common.problem(path.as_bytes(), format!("cannot examine: {}", std::io::Error::from(error)));
                return None;
            }
        };
        let is_dir = stat.file_type() == FileType::Directory;
        if self.is_excluded(&path, is_dir) {
            return None;
        }
        let inside = is_dir && self.common.devices.as_ref().is_none_or(|devices| devices.contains(&stat.device()));
        let contents = inside.then(|| {
            let child = Dir::child(dir, name, path.clone());
            Slot::new(path.clone(), Work::List(child))
        });
        let entry = self.entry(fd, listing, index, path, &stat)?;
        Some(Item { entry, contents })
    }

    fn is_excluded(&mut self, path: &EntryPath, is_dir: bool) -> bool {
        let Some(filter) = &self.common.filter else { return false };
        self.absolute.clear();
        self.absolute.push(b'/');
        self.absolute.extend_from_slice(path.as_bytes());
        filter.excluded(&self.absolute, is_dir)
    }

    /// The entry of a name, `None` (with a word to the monitor) if it is of a kind that is not stored.
    pub fn entry(
        &mut self,
        fd: &OwnedFd,
        listing: &Arc<Listing>,
        index: usize,
        path: EntryPath,
        stat: &Stat,
    ) -> Option<SourceEntry> {
        let kind = match kind_of(fd, listing.name(index), stat) {
            Ok(Some(kind)) => kind,
            Ok(None) => {
                self.common.monitor.note(format!("{}: socket left out", display_absolute(path.as_bytes())));
                return None;
            }
            Err(error) => {
                self.common.problem(path.as_bytes(), format!("cannot read symlink: {}", std::io::Error::from(error)));
                return None;
            }
        };
        let owner = self.owners.get(stat.uid(), stat.gid());
        let meta = stat.metadata(Arc::clone(&owner));
        let size = if kind == Kind::File { stat.size() } else { 0 };
        let lazy = Box::new(LocalEntry {
            listing: Arc::clone(listing),
            index,
            device: stat.device(),
            owner,
            no_atime: self.common.user == 0 || self.common.user == stat.uid(),
        });
        Some(SourceEntry { path, kind, meta, size, content: SourceContent::Lazy(lazy) })
    }
}

fn kind_of(dir: &OwnedFd, name: &CStr, stat: &Stat) -> rustix::io::Result<Option<Kind>> {
    let (major, minor) = stat.special();
    Ok(Some(match stat.file_type() {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink(readlinkat(dir, name, Vec::with_capacity(256))?.into_bytes()),
        FileType::Fifo => Kind::Fifo,
        FileType::CharacterDevice => Kind::CharDevice(major, minor),
        FileType::BlockDevice => Kind::BlockDevice(major, minor),
        _ => return Ok(None),
    }))
}
