//! Reading a catalog in order, from any path on.

use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::format::node::{Child, MAX_HEIGHT, Node};
use crate::id::BlobId;
use crate::path::EntryPath;
use crate::repo::Reader;

/// The entries of a catalog in order. After an error with one node, the next call goes on behind what lies below it.
pub struct CatalogReader<'r> {
    reader: &'r Reader,
    /// The root, as long as it has not been read.
    root: Option<BlobId>,
    /// Inner nodes on the way down: their level and the children not yet visited, in reverse order.
    inner: Vec<(u8, Vec<Child>)>,
    /// Entries of the current leaf in reverse order.
    leaf: Vec<Entry>,
    /// Last path of the leaf before: within a leaf order was checked when it was parsed, and it holds across leaves too.
    last: Option<EntryPath>,
    /// What the node that failed last stands for.
    failed: Option<Span>,
}

/// What a node stands for, as its parent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Path of the last entry below it.
    pub last: EntryPath,
    /// Entries below it.
    pub entries: u64,
}

impl<'r> CatalogReader<'r> {
    /// All entries.
    pub fn new(reader: &'r Reader, root: Option<BlobId>) -> Result<Self> {
        Self::at(reader, root, &EntryPath::root())
    }

    /// As [`Self::new`], but an error in the nodes above the first entry shows with the first entry.
    #[must_use]
    pub fn lazy(reader: &'r Reader, root: Option<BlobId>) -> Self {
        Self { reader, root, inner: Vec::new(), leaf: Vec::new(), last: None, failed: None }
    }

    /// The entries from the first one that is not below `start` in order.
    pub fn at(reader: &'r Reader, root: Option<BlobId>, start: &EntryPath) -> Result<Self> {
        let mut this = Self::lazy(reader, None);
        if let Some(root) = root {
            this.descend(&root, None, None, start)?;
        }
        Ok(this)
    }

    /// Loads the node and goes down to the leaf where `start` belongs.
    fn descend(&mut self, node: &BlobId, expected: Option<u8>, span: Option<Span>, start: &EntryPath) -> Result<()> {
        let (mut id, mut expected) = (*node, expected);
        self.failed = span;
        loop {
            let damaged = |e: &dyn std::fmt::Display| Error::damaged(format!("catalog node {id}"), e);
            let bytes = self.reader.node(&id)?;
            match Node::parse(&bytes).map_err(|e| damaged(&e))? {
                Node::Leaf(mut entries) => {
                    if expected.is_some_and(|level| level != 0) {
                        return Err(damaged(&"a leaf where an inner node belongs"));
                    }
                    let skip = entries.partition_point(|e| e.path < *start);
                    entries.reverse();
                    entries.truncate(entries.len() - skip);
                    self.leaf = entries;
                    return Ok(());
                }
                Node::Inner { level, mut children } => {
                    if expected.is_some_and(|e| e != level) || level > MAX_HEIGHT {
                        return Err(damaged(&"a node of another level belongs here"));
                    }
                    let skip = children.partition_point(|c| c.last < *start);
                    children.reverse();
                    children.truncate(children.len() - skip);
                    let Some(next) = children.pop() else { return Ok(()) };
                    self.inner.push((level, children));
                    (id, expected) = (next.id, Some(level - 1));
                    self.failed = Some(Span { last: next.last, entries: next.entries });
                }
            }
        }
    }

    /// The next entry; `None` at the end.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        loop {
            if let Some(entry) = self.leaf.pop() {
                if self.last.take().is_some_and(|last| last >= entry.path) {
                    return Err(Error::damaged("catalog", format!("entries out of order at {:?}", entry.path)));
                }
                if self.leaf.is_empty() {
                    self.last = Some(entry.path.clone());
                }
                return Ok(Some(entry));
            }
            if let Some(root) = self.root.take() {
                self.descend(&root, None, None, &EntryPath::root())?;
                continue;
            }
            let Some((level, children)) = self.inner.last_mut() else { return Ok(None) };
            let level = *level;
            match children.pop() {
                Some(child) => {
                    let span = Span { last: child.last, entries: child.entries };
                    self.descend(&child.id, Some(level - 1), Some(span), &EntryPath::root())?;
                }
                None => drop(self.inner.pop()),
            }
        }
    }

    /// What is lost after an error: what lies below the node that could not be read. `None` if nobody knows.
    #[must_use]
    pub fn failed(&self) -> Option<&Span> {
        self.failed.as_ref()
    }

    /// The next entry and all that come after it in its leaf; empty at the end.
    pub fn next_leaf(&mut self) -> Result<Vec<Entry>> {
        let Some(first) = self.next_entry()? else { return Ok(Vec::new()) };
        let mut entries = Vec::with_capacity(self.leaf.len() + 1);
        entries.push(first);
        while !self.leaf.is_empty() {
            entries.extend(self.next_entry()?);
        }
        Ok(entries)
    }
}

/// The entry of a path.
pub fn lookup(reader: &Reader, root: Option<BlobId>, path: &EntryPath) -> Result<Option<Entry>> {
    let found = CatalogReader::at(reader, root, path)?.next_entry()?;
    Ok(found.filter(|e| e.path == *path))
}
