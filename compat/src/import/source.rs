//! What a backup reads when a set is imported: entries that another thread takes out of the archive.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::Receiver;
use engine::entry::{EntrySource, SourceEntry};
use engine::error::{Error, Result};

use super::budget::Budget;

/// What comes out of the thread that reads the archive.
pub(super) enum Item {
    Entry(SourceEntry),
    /// All there is; without it the archive was not read to its end.
    End,
    Failed(Error),
}

/// The receiving end.
pub(super) struct ImportSource {
    items: Receiver<Item>,
    /// Received, and not yet asked for; the inner `None` is the end.
    next: Option<Result<Option<SourceEntry>>>,
    ended: bool,
    lost: Arc<AtomicU64>,
    budget: Arc<Budget>,
}

impl ImportSource {
    pub fn new(items: Receiver<Item>, lost: Arc<AtomicU64>, budget: Arc<Budget>) -> Self {
        Self { items, next: None, ended: false, lost, budget }
    }

    fn take_in(&mut self, item: Option<Item>) {
        self.next = Some(match item {
            Some(Item::Entry(entry)) => Ok(Some(entry)),
            Some(Item::End) => Ok(None),
            Some(Item::Failed(error)) => Err(error),
            None => Err(Error::Invalid("reading the archive broke off without a reason".into())),
        });
    }
}

impl EntrySource for ImportSource {
    fn next_entry(&mut self) -> Result<Option<SourceEntry>> {
        if self.ended {
            return Ok(None);
        }
        if self.next.is_none() {
            let item = self.items.recv().ok();
            self.take_in(item);
        }
        let next = self.next.take().unwrap_or(Ok(None));
        self.ended = !matches!(next, Ok(Some(_)));
        next
    }

    fn wait(&mut self, limit: Duration) -> bool {
        if self.next.is_none() && !self.ended {
            match self.items.recv_timeout(limit) {
                Ok(item) => self.take_in(Some(item)),
                Err(e) if e.is_disconnected() => self.take_in(None),
                Err(_) => return false,
            }
        }
        true
    }

    fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for ImportSource {
    fn drop(&mut self) {
        self.budget.close();
    }
}
