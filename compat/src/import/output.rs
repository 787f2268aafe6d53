//! Where the thread that reads an archive puts what it finds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::Sender;
use engine::entry::{Kind, Metadata, SourceContent, SourceEntry};
use engine::error::Error;
use engine::monitor::{Monitor, Problem};
use engine::path::EntryPath;

use super::budget::{Budget, Permit};
use super::source::Item;

/// Why the thread ends early.
pub(super) enum Stop {
    /// The backup is over: nobody wants the rest.
    Gone,
    /// The import cannot go on.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The sending end.
pub(super) struct Output {
    pub items: Sender<Item>,
    pub budget: Arc<Budget>,
    pub lost: Arc<AtomicU64>,
    pub monitor: Arc<dyn Monitor>,
}

impl Output {
    pub fn entry(&self, path: EntryPath, kind: Kind, meta: Metadata, size: u64, content: SourceContent) -> Result<(), Stop> {
        self.items.send(Item::Entry(SourceEntry { path, kind, meta, size, content })).map_err(|_| Stop::Gone)
    }

    /// Room for a file that waits in memory.
    pub fn room(&self, bytes: usize) -> Result<Permit, Stop> {
        // What an entry takes besides its bytes.
        self.budget.take(bytes.saturating_add(512)).ok_or(Stop::Gone)
    }

    /// Something of the archive that is not in the snapshot.
    pub fn lost(&self, subject: impl Into<String>, why: impl Into<String>) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        self.monitor.problem(Problem { subject: subject.into(), message: why.into() });
    }
}
