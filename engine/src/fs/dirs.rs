//! Directories of a walk, by descriptor, with a bound on how many are open.
//!
//! A [`Dir`] knows its parent and its name there, and opens itself relative to the parent's descriptor when asked.
//! Descriptors of the least recently used directories are closed; a later use opens them again, from the nearest
//! ancestor that is still open. What lies at a path may have been replaced by then: callers compare inode numbers.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use rustix::fs::{Mode, OFlags, openat};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::monitor::lock;
use crate::path::EntryPath;

/// Most directories that one walk keeps open.
const MOST_OPEN: u64 = 4096;
/// Most files that one reader keeps open: more of them bring little (`benches/README.md`, "Cold files").
const MOST_FILES: usize = 64;

const TRAVERSE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Closes directories beyond a number.
pub(super) struct OpenDirs {
    capacity: usize,
    queue: Mutex<VecDeque<Weak<Dir>>>,
}

impl OpenDirs {
    /// A quarter of the descriptors that the process may have, after raising its soft limit to the hard one.
    pub fn new() -> Arc<Self> {
        let limit = raise_limit();
        Self::with_capacity(usize::try_from((limit / 4).clamp(16, MOST_OPEN)).unwrap_or(16))
    }

    pub fn with_capacity(capacity: usize) -> Arc<Self> {
        Arc::new(Self { capacity, queue: Mutex::new(VecDeque::new()) })
    }

    fn opened(&self, dir: &Arc<Dir>) {
        let mut queue = lock(&self.queue);
        queue.push_back(Arc::downgrade(dir));
        // One more chance for each that was used since; after one round the oldest goes all the same.
        let mut chances = queue.len();
        while queue.len() > self.capacity {
            let Some(weak) = queue.pop_front() else { break };
            let Some(oldest) = weak.upgrade() else { continue };
            if chances > 0 && oldest.used.swap(false, Ordering::Relaxed) {
                queue.push_back(weak);
            } else {
                lock(&oldest.fd).take();
            }
            chances = chances.saturating_sub(1);
        }
    }
}

fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(1 << 20);
    let soft = limit.current.unwrap_or(most);
    let raised = Rlimit { current: Some(most), maximum: limit.maximum };
    if soft < most && setrlimit(Resource::Nofile, raised).is_ok() { most } else { soft }
}

/// A directory.
pub(super) struct Dir {
    /// Where it is, from the root of the file system.
    pub path: EntryPath,
    parent: Option<Arc<Dir>>,
    name: CString,
    /// Whether a symlink may lead here: the user named the path.
    follow: bool,
    fd: Mutex<Option<Arc<OwnedFd>>>,
    used: AtomicBool,
    open: Arc<OpenDirs>,
}

impl Dir {
    /// The root of the file system.
    pub fn top(open: Arc<OpenDirs>) -> std::io::Result<Arc<Self>> {
        let dir = Self::make(open, EntryPath::root(), None, c"/".into(), false);
        dir.fd()?;
        Ok(dir)
    }

    /// `name` in `parent`, which is a directory as far as known.
    pub fn child(parent: &Arc<Self>, name: &CStr, path: EntryPath) -> Arc<Self> {
        Self::make(Arc::clone(&parent.open), path, Some(Arc::clone(parent)), name.into(), false)
    }

    /// Like [`Dir::child`], for a directory above what is walked: a symlink to a directory will do.
    pub fn ancestor(parent: &Arc<Self>, name: &CStr, path: EntryPath) -> Arc<Self> {
        Self::make(Arc::clone(&parent.open), path, Some(Arc::clone(parent)), name.into(), true)
    }

    fn make(open: Arc<OpenDirs>, path: EntryPath, parent: Option<Arc<Self>>, name: CString, follow: bool) -> Arc<Self> {
        let (fd, used) = (Mutex::new(None), AtomicBool::new(false));
        Arc::new(Self { path, parent, name, follow, fd, used, open })
    }

    /// How many of the files in it a reader may have open, beside those of other readers: one in 32 of the descriptors that
    /// the process may have.
    pub fn files_at_once(&self) -> usize {
        (self.open.capacity / 8).clamp(1, MOST_FILES)
    }

    /// A descriptor for opening what is in the directory.
    pub fn fd(self: &Arc<Self>) -> std::io::Result<Arc<OwnedFd>> {
        // Upwards to the nearest open ancestor, then down again; a loop, for trees deeper than a stack.
        let mut closed = Vec::new();
        let mut at = self;
        let mut fd = loop {
            if let Some(fd) = at.opened() {
                break Some(fd);
            }
            closed.push(at);
            match &at.parent {
                Some(parent) => at = parent,
                None => break None,
            }
        };
        for dir in closed.into_iter().rev() {
            let opened = dir.open_below(fd.as_deref(), TRAVERSE)?;
            fd = Some(dir.keep(opened));
        }
        fd.ok_or_else(|| rustix::io::Errno::BADF.into())
    }

    /// Opens the directory for listing, and keeps that descriptor for [`Dir::fd`].
    pub fn open_listing(self: &Arc<Self>) -> std::io::Result<Arc<OwnedFd>> {
        let parent = self.parent.as_ref().map(Dir::fd).transpose()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = self.open_below(parent.as_deref(), flags)?;
        Ok(self.keep(fd))
    }

    fn open_below(&self, parent: Option<&OwnedFd>, flags: OFlags) -> std::io::Result<OwnedFd> {
        let flags = if self.follow { flags } else { flags | OFlags::NOFOLLOW };
        Ok(match parent {
            Some(parent) => openat(parent, &self.name, flags, Mode::empty())?,
            None => openat(rustix::fs::CWD, &self.name, flags, Mode::empty())?,
        })
    }

    fn opened(&self) -> Option<Arc<OwnedFd>> {
        let fd = lock(&self.fd).clone();
        if fd.is_some() {
            self.used.store(true, Ordering::Relaxed);
        }
        fd
    }

    /// Whether a descriptor is held right now.
    #[cfg(test)]
    pub fn is_open(&self) -> bool {
        lock(&self.fd).is_some()
    }

    fn keep(self: &Arc<Self>, fd: OwnedFd) -> Arc<OwnedFd> {
        let fd = Arc::new(fd);
        self.used.store(true, Ordering::Relaxed);
        // The lock is not held while the other directories are looked at, which takes theirs.
        let before = lock(&self.fd).replace(Arc::clone(&fd));
        if before.is_none() {
            self.open.opened(self);
        }
        fd
    }
}

impl Drop for Dir {
    /// Frees a chain of parents in a loop: by default each would free the next one a level deeper in the stack.
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(parent) = next {
            next = Arc::into_inner(parent).and_then(|mut dir| dir.parent.take());
        }
    }
}
