//! Opens directories beneath the target, and keeps some open.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

use rustix::fs::{Mode, OFlags, ResolveFlags, fgetxattr, openat, openat2};
use rustix::io::Errno;

use crate::monitor::lock;
use crate::path::EntryPath;

/// Parts of the cache, so that threads seldom wait for each other.
const SHARDS: usize = 8;
/// Directories kept open in each.
const KEPT: usize = 16;

/// An open directory.
pub struct Parent {
    pub fd: OwnedFd,
    /// Whether what is created in it may inherit an ACL.
    pub gives_acl: bool,
}

type Shard = Mutex<Vec<(EntryPath, Arc<Parent>)>>;

/// The directories of a destination.
pub struct Parents {
    root: OwnedFd,
    /// Whether the system has `openat2`.
    resolves: bool,
    /// Most recently used last.
    shards: [Shard; SHARDS],
}

impl Parents {
    pub fn new(root: OwnedFd) -> Self {
        let probe = openat2(&root, c".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), BENEATH);
        // Some sandboxes answer EPERM to calls they do not know.
        let resolves = !matches!(probe, Err(Errno::NOSYS | Errno::PERM));
        Self { root, resolves, shards: Default::default() }
    }

    #[cfg(test)]
    pub fn without_openat2(mut self) -> Self {
        self.resolves = false;
        self
    }

    pub fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// The directory at `path`, from the cache or opened.
    pub fn get(&self, path: &EntryPath) -> rustix::io::Result<Arc<Parent>> {
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % SHARDS as u64).unwrap_or(0);
        let mut shard = lock(&self.shards[index]);
        if let Some(at) = shard.iter().rposition(|(known, _)| known == path) {
            shard[at..].rotate_left(1);
            return Ok(Arc::clone(&shard[shard.len() - 1].1));
        }
        drop(shard);
        let parent = Arc::new(self.open_parent(path)?);
        let mut shard = lock(&self.shards[index]);
        if shard.len() >= KEPT {
            shard.remove(0);
        }
        shard.push((path.clone(), Arc::clone(&parent)));
        Ok(parent)
    }

    fn open_parent(&self, path: &EntryPath) -> rustix::io::Result<Parent> {
        match self.open_fresh(path) {
            Ok(fd) => {
                let acl = fgetxattr(&fd, c"system.posix_acl_default", &mut [0_u8; 0]);
                let gives_acl = !matches!(acl, Err(Errno::NODATA | Errno::OPNOTSUPP));
                Ok(Parent { fd, gives_acl })
            }
            // Enough to create files in it.
            Err(Errno::ACCESS) => {
                let fd = self.open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC)?;
                Ok(Parent { fd, gives_acl: true })
            }
            Err(error) => Err(error),
        }
    }

    /// Opens the directory at `path` for reading, past the cache.
    pub fn open_fresh(&self, path: &EntryPath) -> rustix::io::Result<OwnedFd> {
        self.open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC)
    }

    fn open(&self, path: &EntryPath, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        if path.is_root() {
            return openat(&self.root, c".", flags, Mode::empty());
        }
        if !self.resolves {
            return self.open_by_components(path, flags);
        }
        loop {
            match openat2(&self.root, path.as_bytes(), flags, Mode::empty(), BENEATH) {
                // Something was renamed meanwhile, so the kernel could not be sure. Someone who keeps renaming keeps
                // us here, which is better than a wrong answer.
                Err(Errno::AGAIN | Errno::INTR) => std::thread::yield_now(),
                // Only a symlink leads out of the target.
                Err(Errno::XDEV) => return Err(Errno::LOOP),
                result => return result,
            }
        }
    }

    fn open_by_components(&self, path: &EntryPath, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let traverse = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut at: Option<OwnedFd> = None;
        let mut components = path.components().peekable();
        while let Some(name) = components.next() {
            let flags = if components.peek().is_some() { traverse } else { flags | OFlags::NOFOLLOW };
            let parent = at.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            at = Some(openat(parent, name, flags, Mode::empty())?);
        }
        at.ok_or(Errno::INVAL)
    }
}

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
