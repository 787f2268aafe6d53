//! Keeping runs few: which to merge, and merging them.
//!
//! Size-tiered: runs of similar size are merged once there are [`FAN_IN`] of them, so an entry is rewritten about once per
//! tier. A run of more than half of [`MAX_RUN`] is left alone, which bounds what building its filter takes.

use std::sync::Arc;

use redb::ReadOnlyTable;

use super::entry::{ENTRY, Entry};
use super::run::{Run, RunBuilder};
use super::store::Fault;
use crate::id::RepoId;

/// The most entries that a merge puts into a run. Building the filter of such a run takes about 70 MiB for a moment.
pub(super) const MAX_RUN: u64 = 1 << 21;

/// So many runs of a tier are merged.
const FAN_IN: usize = 4;

/// Tier of a run that may still grow; each is four times the one below.
fn tier(entries: u64) -> u32 {
    (entries.max(1 << 8).ilog2() - 8) / 2
}

/// Numbers of the runs to merge next; empty when there are few enough.
pub(super) fn pick(runs: &[Arc<Run>]) -> Vec<Arc<Run>> {
    let mut small: Vec<_> = runs.iter().filter(|run| run.entries <= MAX_RUN / 2).collect();
    small.sort_by_key(|run| run.entries);
    for same in small.chunk_by(|a, b| tier(a.entries) == tier(b.entries)) {
        if same.len() >= FAN_IN {
            let mut total = 0;
            let fits = same.iter().take_while(|run| {
                total += run.entries;
                total <= MAX_RUN
            });
            return fits.map(|run| Arc::clone(run)).collect();
        }
    }
    Vec::new()
}

/// Streams runs, in order of entries, into a builder.
pub(super) fn merge(
    runs: &[Arc<Run>],
    pages: &ReadOnlyTable<u64, &'static [u8]>,
    repo: &RepoId,
    builder: &mut RunBuilder<'_, '_>,
) -> Result<(), Fault> {
    let mut cursors = Vec::with_capacity(runs.len());
    for run in runs {
        let mut cursor = Cursor::new(run);
        if cursor.load(pages, repo)? {
            cursors.push(cursor);
        }
    }
    // Few runs are merged at a time, so a scan beats a heap.
    while let Some((least, entry)) =
        cursors.iter().enumerate().filter_map(|(i, c)| Some((i, c.entry()?))).min_by(|a, b| a.1.cmp(b.1))
    {
        builder.push(entry)?;
        if !cursors[least].advance(pages, repo)? {
            cursors.swap_remove(least);
        }
    }
    Ok(())
}

/// A place in a run.
pub(super) struct Cursor<'a> {
    run: &'a Run,
    /// Number of the page after this one.
    pub(super) page: usize,
    bytes: Vec<u8>,
    /// Where in the page the entry begins.
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    /// Before the first page.
    pub(super) fn new(run: &'a Run) -> Self {
        Self { run, page: 0, bytes: Vec::new(), at: 0 }
    }

    /// The entry; none at the end.
    pub(super) fn entry(&self) -> Option<&Entry> {
        self.bytes.get(self.at..)?.first_chunk()
    }

    /// Goes to the next entry; false at the end.
    pub(super) fn advance(&mut self, pages: &ReadOnlyTable<u64, &'static [u8]>, repo: &RepoId) -> Result<bool, Fault> {
        self.at += ENTRY;
        if self.at < self.bytes.len() { Ok(true) } else { self.load(pages, repo) }
    }

    /// Goes to the next page; false at the end.
    pub(super) fn load(&mut self, pages: &ReadOnlyTable<u64, &'static [u8]>, repo: &RepoId) -> Result<bool, Fault> {
        self.bytes.clear();
        if self.page == self.run.pages() {
            return Ok(false);
        }
        self.bytes.extend_from_slice(&self.run.fetch(pages, repo, self.page)?);
        self.page += 1;
        self.at = 0;
        Ok(true)
    }
}
