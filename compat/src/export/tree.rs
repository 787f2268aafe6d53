//! A snapshot as the tree that an archive holds: what lies below one path, every directory before its contents.

use std::collections::VecDeque;
use std::sync::Arc;

use engine::catalog::CatalogReader;
use engine::entry::{Content, Entry, Kind, Metadata};
use engine::error::{Error, Result};
use engine::id::BlobId;
use engine::path::EntryPath;
use engine::repo::Reader;

use super::header;

/// Mode of directories that the snapshot has contents of, but not themselves.
const UNKNOWN_MODE: u32 = 0o755;

/// The entries of a snapshot below a path in order; their paths are relative to it.
pub(super) struct Tree<'r> {
    catalog: CatalogReader<'r>,
    root: EntryPath,
    /// The directory that the next entry lies in, and those above it, the root first.
    above: Vec<EntryPath>,
    ready: VecDeque<Entry>,
    next: Option<Entry>,
    /// Directories that had to be made up.
    pub made_up: Vec<EntryPath>,
    /// What no archive can hold.
    pub left_out: Vec<EntryPath>,
}

impl<'r> Tree<'r> {
    /// Fails if there is nothing at `root`.
    pub fn new(reader: &'r Arc<Reader>, catalog: Option<BlobId>, root: &EntryPath) -> Result<Self> {
        let catalog = CatalogReader::at(reader, catalog, root)?;
        let (above, ready) = (Vec::new(), VecDeque::new());
        let mut this = Self { catalog, root: root.clone(), above, ready, next: None, made_up: Vec::new(), left_out: Vec::new() };
        this.advance()?;
        match this.next {
            Some(_) => Ok(this),
            None => Err(Error::Snapshot(format!("there is no '{}' in the snapshot", root.display()))),
        }
    }

    /// The next entry, left where it is.
    pub fn peek(&self) -> Option<&Entry> {
        self.next.as_ref()
    }

    /// Takes the next entry.
    pub fn take(&mut self) -> Result<Option<Entry>> {
        let taken = self.next.take();
        self.advance()?;
        Ok(taken)
    }

    fn advance(&mut self) -> Result<()> {
        while self.ready.is_empty()
            && let Some(mut entry) = self.catalog.next_entry()?
            && let Some(path) = entry.path.strip(&self.root)
        {
            entry.path = path;
            if !header::fits(&entry) {
                self.left_out.push(entry.path);
                continue;
            }
            self.make_up_parents(&entry)?;
            self.ready.push_back(entry);
        }
        self.next = self.ready.pop_front();
        Ok(())
    }

    /// Stock loses what lies in directories that the archive does not name.
    fn make_up_parents(&mut self, entry: &Entry) -> Result<()> {
        while self.above.last().is_some_and(|dir| !entry.path.is_within(dir)) {
            self.above.pop();
        }
        let mut missing = Vec::new();
        let mut parent = entry.path.parent();
        while let Some(dir) = parent.filter(|dir| self.above.last() != Some(dir)) {
            parent = dir.parent();
            missing.push(dir);
        }
        for path in missing.into_iter().rev() {
            self.made_up.push(path.clone());
            self.above.push(path.clone());
            let meta = Metadata { mode: UNKNOWN_MODE, ..Metadata::default() };
            let (kind, xattrs, content, holes) = (Kind::Directory, Vec::new(), Content::Empty, Vec::new());
            self.ready.push_back(Entry { path, kind, meta, xattrs, size: 0, content, holes });
        }
        if entry.is_directory() {
            self.above.push(entry.path.clone());
        } else if self.above.is_empty() && !entry.path.is_root() {
            return Err(Error::damaged("catalog", "an entry outside of every directory"));
        }
        Ok(())
    }
}
