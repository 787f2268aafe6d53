//! The previous snapshot, read alongside: which entries have not changed.

use std::sync::Arc;

use super::ParentView;
use super::store::Store;
use crate::catalog::{CatalogAhead, ListReader};
use crate::entry::{Content, Entry, Kind, SourceEntry};
use crate::error::Result;
use crate::path::EntryPath;
use crate::repo::Reader;

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
        // A file that changed in the moment it was read may keep its times: do not believe those near the last run.
        let is_old = before.meta.ctime < self.view.started && before.meta.mtime < self.view.started;
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
