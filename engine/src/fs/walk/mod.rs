//! The walk: everything below some roots, as a stream of entries in order.
//!
//! Threads list and examine directories ahead of the consumer, nearest in order first; the consumer takes the results
//! in order and does itself whatever no thread has begun, so it never waits for work to be picked up. What is examined
//! but not delivered is bounded, whatever the tree: see [`ahead`].
//!
//! Knows no patterns: what to leave out is asked of a [`PathFilter`].

mod ahead;
mod list;
mod roots;
#[cfg(test)]
mod tests;

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

pub(super) use self::list::Listing;
#[cfg(test)]
pub(super) use self::tests::remove_deep;

use self::ahead::{Ahead, Slot};
use self::list::{Batch, Common, Item, Lister};
use crate::entry::{EntrySource, SourceEntry};
use crate::error::{Error, Result};
use crate::fs::meta::Stat;
use crate::monitor::Monitor;

/// Entries between two looks at whether the user wants to stop.
const CANCEL_INTERVAL: u32 = 1024;

/// Decides what a walk leaves out. Called from many threads.
pub trait PathFilter: Send + Sync {
    /// Whether the entry at this absolute path is left out, a directory with all that is in it. Not asked about the
    /// roots of a walk and the directories above them.
    fn excluded(&self, absolute_path: &[u8], is_dir: bool) -> bool;
}

/// What to walk.
#[derive(Clone, Default)]
pub struct WalkOptions {
    /// Absolute paths without `..`, in any order. One that lies within another is part of it. A symlink is stored as
    /// one, not followed; symlinks above a root are followed and stored as the directories they lead to.
    pub roots: Vec<PathBuf>,
    /// Stay on the file systems of the roots: mount points are stored empty.
    pub one_file_system: bool,
    /// Names that mark a directory as not worth storing: of a directory with such a name in it, only that name and the
    /// directory itself are stored.
    pub exclude_if_present: Vec<OsString>,
    /// What else is left out.
    pub filter: Option<Arc<dyn PathFilter>>,
}

/// The entries of local files.
///
/// Entry paths are absolute paths without the leading slash; the directories above the roots are included, without
/// their other contents. Sockets are left out with a note. What cannot be listed or examined becomes a problem on the
/// monitor, in no particular order, and the walk goes on; a directory that fails halfway is delivered as far as it was
/// read.
pub struct WalkSource {
    ahead: Arc<Ahead>,
    lister: Lister,
    monitor: Arc<dyn Monitor>,
    threads: Vec<JoinHandle<()>>,
    /// Batches being delivered, the innermost directory last.
    stack: Vec<Open>,
    /// Contents of the directory that was delivered last.
    entering: Option<Arc<Slot>>,
    until_check: u32,
}

/// A directory being delivered.
struct Open {
    items: std::vec::IntoIter<Item>,
    more: std::vec::IntoIter<Arc<Slot>>,
}

impl From<Batch> for Open {
    fn from(batch: Batch) -> Self {
        Self { items: batch.items.into_iter(), more: batch.more.into_iter() }
    }
}

/// The file system that a path is on; one that cannot be looked at is told of elsewhere.
fn device(path: &Path) -> Option<u64> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    Stat::at(rustix::fs::CWD, &path).ok().map(|stat| stat.device())
}

impl WalkSource {
    /// Looks at the roots and starts reading ahead. Roots that cannot be used are problems; fails if none can be used,
    /// or if one is no absolute path.
    pub fn new(options: WalkOptions, monitor: Arc<dyn Monitor>) -> Result<Self> {
        // More than processors: on a cold cache they mostly wait for the disk.
        let threads = std::thread::available_parallelism().map_or(4, usize::from).clamp(4, 8);
        Self::with_threads(options, monitor, threads)
    }

    fn with_threads(options: WalkOptions, monitor: Arc<dyn Monitor>, threads: usize) -> Result<Self> {
        let tags = options.exclude_if_present.iter().map(|tag| tag.as_bytes().to_vec()).collect();
        // Those of all roots: one may lie within another, on a file system of its own.
        let devices = options.one_file_system.then(|| options.roots.iter().filter_map(|root| device(root)).collect());
        let common = Arc::new(Common::new(devices, tags, options.filter, Arc::clone(&monitor)));
        let ahead = Arc::new(Ahead::default());
        let mut lister = Lister::new(Arc::clone(&common), Arc::clone(&ahead));
        let first = roots::examine(&options.roots, &mut lister)?;
        let mut source = Self {
            ahead,
            lister,
            monitor,
            threads: Vec::new(),
            stack: vec![first.into()],
            entering: None,
            until_check: CANCEL_INTERVAL,
        };
        for _ in 0..threads {
            let (common, ahead) = (Arc::clone(&common), Arc::clone(&source.ahead));
            let work = move || {
                let mut lister = Lister::new(common, Arc::clone(&ahead));
                ahead.work(|work| lister.run(work));
            };
            // Without threads the consumer does it all.
            if let Ok(thread) = std::thread::Builder::new().name("walk".to_owned()).spawn(work) {
                source.threads.push(thread);
            }
        }
        Ok(source)
    }

    fn resolve(&mut self, slot: &Arc<Slot>) -> Result<Batch> {
        let lister = &mut self.lister;
        self.ahead
            .resolve(slot, |work| lister.run(work))
            .ok_or_else(|| Error::Invalid("a thread that lists directories failed".to_owned()))
    }
}

impl EntrySource for WalkSource {
    fn next_entry(&mut self) -> Result<Option<SourceEntry>> {
        self.until_check -= 1;
        if self.until_check == 0 {
            self.until_check = CANCEL_INTERVAL;
            if self.monitor.cancelled() {
                return Err(Error::Interrupted);
            }
        }
        if let Some(slot) = self.entering.take() {
            let batch = self.resolve(&slot)?;
            self.stack.push(batch.into());
        }
        while let Some(top) = self.stack.last_mut() {
            if let Some(item) = top.items.next() {
                self.entering = item.contents;
                self.ahead.delivered();
                return Ok(Some(item.entry));
            }
            match top.more.next() {
                Some(slot) => {
                    let batch = self.resolve(&slot)?;
                    if let Some(top) = self.stack.last_mut() {
                        top.items = batch.items.into_iter();
                    }
                }
                None => {
                    self.stack.pop();
                }
            }
        }
        Ok(None)
    }
}

impl Drop for WalkSource {
    fn drop(&mut self) {
        self.ahead.stop();
        for thread in self.threads.drain(..) {
            // A panic there has shown itself already.
            let _ = thread.join();
        }
        // In a loop: results that hold results would free each other as deep in the stack as the tree is.
        let mut slots: Vec<Arc<Slot>> = self.entering.take().into_iter().collect();
        for open in self.stack.drain(..) {
            slots.extend(open.more.chain(open.items.filter_map(|item| item.contents)));
        }
        while let Some(slot) = slots.pop() {
            if let Some(batch) = slot.abandon() {
                slots.extend(batch.more.into_iter().chain(batch.items.into_iter().filter_map(|item| item.contents)));
            }
        }
    }
}
