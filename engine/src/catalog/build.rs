//! Building a catalog in one pass; memory grows with the height of the tree only.

use super::NodeSink;
use crate::crypto::Key;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::format::node::{Child, LeafBuilder, MAX_HEIGHT, encode_inner};
use crate::id::BlobId;
use crate::path::EntryPath;

/// Entries before a leaf may end; with one border in 256 after that, leaves hold about 320 entries, 16 to 64 KiB.
const LEAF_MIN: u64 = 64;
const LEAF_MAX: u64 = 1024;
const LEAF_MAX_BYTES: usize = 128 << 10;
const LEAF_MASK: u64 = 0xff;
const INNER_MIN: usize = 4;
const INNER_MAX: usize = 256;
const INNER_BITS: u32 = 6;
const LEAF_BITS: u32 = 8;

/// Takes entries in order and makes the tree.
#[derive(Clone)]
pub struct CatalogBuilder {
    borders: Key,
    leaf: LeafBuilder,
    last: Option<EntryPath>,
    /// Unfinished inner nodes; `levels[0]` stands right above the leaves.
    levels: Vec<Vec<Child>>,
}

impl CatalogBuilder {
    /// An empty catalog; `borders` is the repository's key for node borders.
    #[must_use]
    pub fn new(borders: Key) -> Self {
        Self { borders, leaf: LeafBuilder::default(), last: None, levels: Vec::new() }
    }

    /// Adds an entry, which must sort after all before.
    pub fn push(&mut self, entry: &Entry, sink: &mut dyn NodeSink) -> Result<()> {
        if self.last.as_ref().is_some_and(|last| *last >= entry.path) {
            return Err(Error::Invalid(format!("entries out of order at {:?}", entry.path)));
        }
        self.leaf.push(entry);
        self.last.get_or_insert_default().clone_from(&entry.path);
        let (entries, border) = (self.leaf.entries(), self.border(&entry.path));
        let ends = entries >= LEAF_MIN && border & LEAF_MASK == 0;
        if ends || entries >= LEAF_MAX || self.leaf.size() >= LEAF_MAX_BYTES {
            self.end_leaf(border, sink)?;
        }
        Ok(())
    }

    fn border(&self, path: &EntryPath) -> u64 {
        let hash = self.borders.prf(&[path.as_bytes()]).finalize();
        u64::from_le_bytes(*hash.as_bytes().first_chunk().unwrap_or(&[0; 8]))
    }

    fn end_leaf(&mut self, border: u64, sink: &mut dyn NodeSink) -> Result<()> {
        let (entries, last) = (self.leaf.entries(), self.last.clone().unwrap_or_default());
        let id = sink.store(self.leaf.take())?;
        self.add_child(0, Child { last, id, entries }, border, sink)
    }

    fn add_child(&mut self, level: usize, child: Child, border: u64, sink: &mut dyn NodeSink) -> Result<()> {
        if level >= usize::from(MAX_HEIGHT) {
            return Err(Error::Invalid("the catalog grows too high".into()));
        }
        if self.levels.len() == level {
            self.levels.push(Vec::new());
        }
        let children = &mut self.levels[level];
        children.push(child);
        let shift = (LEAF_BITS + INNER_BITS * u32::try_from(level).unwrap_or(u32::MAX)).min(63);
        let ends = children.len() >= INNER_MIN && (border >> shift) & ((1 << INNER_BITS) - 1) == 0;
        if ends || children.len() >= INNER_MAX {
            self.end_inner(level, border, sink)?;
        }
        Ok(())
    }

    fn end_inner(&mut self, level: usize, border: u64, sink: &mut dyn NodeSink) -> Result<()> {
        let children = std::mem::take(&mut self.levels[level]);
        let Some(child) = store_inner(level, &children, sink)? else { return Ok(()) };
        self.add_child(level + 1, child, border, sink)
    }

    /// Ends all nodes and returns the root; `None` for an empty catalog.
    pub fn finish(mut self, sink: &mut dyn NodeSink) -> Result<Option<BlobId>> {
        if self.leaf.entries() > 0 {
            let (entries, last) = (self.leaf.entries(), self.last.take().unwrap_or_default());
            let id = sink.store(self.leaf.take())?;
            self.push_last(0, Child { last, id, entries });
        }
        let mut level = 0;
        while level < self.levels.len() {
            let children = std::mem::take(&mut self.levels[level]);
            let is_top = level + 1 == self.levels.len();
            match children.as_slice() {
                [only] if is_top => return Ok(Some(only.id)),
                [] => {}
                _ => {
                    if let Some(child) = store_inner(level, &children, sink)? {
                        self.push_last(level + 1, child);
                    }
                }
            }
            level += 1;
        }
        Ok(None)
    }

    fn push_last(&mut self, level: usize, child: Child) {
        if self.levels.len() == level {
            self.levels.push(Vec::new());
        }
        self.levels[level].push(child);
    }
}

fn store_inner(level: usize, children: &[Child], sink: &mut dyn NodeSink) -> Result<Option<Child>> {
    let Some(last) = children.last() else { return Ok(None) };
    let number = u8::try_from(level + 1).map_err(|_| Error::Invalid("the catalog grows too high".into()))?;
    let id = sink.store(encode_inner(number, children))?;
    let entries = children.iter().map(|c| c.entries).sum();
    Ok(Some(Child { last: last.last.clone(), id, entries }))
}
