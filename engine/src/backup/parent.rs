//! The previous snapshot, read alongside: which entries have not changed.

use std::sync::Arc;

use super::ParentView;
use super::store::Store;
use crate::catalog::{CatalogAhead, ListReader};
use crate::entry::{Content, Entry, Kind, Metadata, SourceEntry, Timestamp};
use crate::error::Result;
use crate::path::EntryPath;
use crate::repo::Reader;

/// Seconds between two times of the file system with the coarsest ones (FAT). Those that know no more than seconds show by times
/// without a fraction.
const COARSEST: i64 = 2;

/// How an entry compares with the previous snapshot's.
pub(super) enum Compared {
    /// There was none.
    New,
    /// There was another one.
    Changed,
    /// The same inode with the same times: content and attributes are as before.
    Same(Box<Entry>),
}

/// A snapshot to compare with.
pub(super) struct Parent<'r> {
    view: &'r ParentView,
    catalog: CatalogAhead,
    next: Option<Entry>,
}

impl<'r> Parent<'r> {
    pub(super) fn new(view: &'r ParentView) -> Result<Self> {
        let mut catalog = CatalogAhead::new(Arc::clone(&view.reader), view.root)?;
        let next = catalog.next_entry()?;
        Ok(Self { view, catalog, next })
    }

    /// Finds the entry of `path`; paths must be asked for in order.
    fn seek(&mut self, path: &EntryPath) -> Result<Option<Entry>> {
        loop {
            while let Some(entry) = self.next.take_if(|e| e.path <= *path) {
                self.next = self.catalog.next_entry()?;
                if entry.path == *path {
                    return Ok(Some(entry));
                }
            }
            match &self.view.rest {
                Some(rest) if self.next.is_none() => *self = Self::new(rest)?,
                _ => return Ok(None),
            }
        }
    }

    /// Compares. A file counts as the same only if every blob of it can still be referred to.
    pub(super) fn compare(&mut self, entry: &SourceEntry, store: &Store) -> Result<Compared> {
        let Some(before) = self.seek(&entry.path)? else { return Ok(Compared::New) };
        let is_old = precedes(&before.meta, self.view.started);
        let same = before.kind == entry.kind
            && before.size == entry.size
            && before.meta.inode == entry.meta.inode
            && before.meta.mtime == entry.meta.mtime
            && before.meta.ctime == entry.meta.ctime
            && (is_old || entry.kind == Kind::Directory);
        if !same || !usable(&before.content, &self.view.reader, store)? {
            return Ok(Compared::Changed);
        }
        let mut entry_now = before;
        entry_now.meta = entry.meta.clone();
        Ok(Compared::Same(Box::new(entry_now)))
    }
}

/// Whether a file cannot have been written to after the last run `started` without its times showing it. One that changed in the
/// moment it was read may keep them.
fn precedes(meta: &Metadata, started: Timestamp) -> bool {
    let step = if meta.ctime.nanos == 0 { COARSEST } else { 0 };
    let started = Timestamp { seconds: started.seconds.saturating_sub(step), ..started };
    meta.ctime < started && meta.mtime < started
}

/// Whether every blob of a content can still be referred to. A list that cannot be read says no.
pub(super) fn usable(content: &Content, reader: &Reader, store: &Store) -> Result<bool> {
    match content {
        Content::Empty => Ok(true),
        Content::Blobs(ids) => {
            for id in ids {
                if !store.is_known(id)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Content::Tree { .. } => {
            for step in ListReader::with_nodes(reader, content) {
                match step {
                    Ok(id) if store.is_known(&id)? => {}
                    _ => return Ok(false),
                }
            }
            Ok(true)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_near_the_last_run_are_not_believed() {
        let is_old = |seconds, nanos| {
            let stamp = Timestamp { seconds, nanos };
            let meta = Metadata { mtime: stamp, ctime: stamp, ..Metadata::default() };
            precedes(&meta, Timestamp { seconds: 100, nanos: 500 })
        };
        assert!(is_old(100, 499) && is_old(99, 999_999_999));
        assert!(!is_old(100, 500) && !is_old(101, 0));
        // Of a file system that knows no fractions, or even seconds only.
        assert!(!is_old(100, 0) && !is_old(99, 0) && is_old(97, 0));
    }
}
