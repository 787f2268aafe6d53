//! Blob lists of large files as trees: built in one pass, read in order, memory bounded by the height.

use super::NodeSink;
use crate::entry::Content;
use crate::error::{Error, Result};
use crate::format::list::{ListItem, encode_list, parse_list};
use crate::format::node::{MAX_HEIGHT, MAX_INLINE_BLOBS};
use crate::id::BlobId;
use crate::repo::Reader;

const MIN_ITEMS: usize = 64;
const MAX_ITEMS: usize = 1024;

/// Takes a file's blobs in order.
#[derive(Clone, Default)]
pub struct ListBuilder {
    /// Unfinished nodes; `levels[0]` lists data blobs.
    levels: Vec<Vec<ListItem>>,
    is_tree: bool,
}

impl ListBuilder {
    /// Adds the next blob.
    pub fn push(&mut self, id: BlobId, length: u32, sink: &mut dyn NodeSink) -> Result<()> {
        self.add(0, ListItem { id, length: u64::from(length) }, sink)
    }

    fn add(&mut self, level: usize, item: ListItem, sink: &mut dyn NodeSink) -> Result<()> {
        if level >= usize::from(MAX_HEIGHT) {
            return Err(Error::Invalid("a file has too many chunks".into()));
        }
        if self.levels.len() == level {
            self.levels.push(Vec::new());
        }
        let items = &mut self.levels[level];
        items.push(item);
        let ends = items.len() >= MIN_ITEMS && item.id.0[0] == 0;
        if ends || items.len() >= MAX_ITEMS {
            self.is_tree = true;
            let parent = self.end(level, sink)?;
            self.add(level + 1, parent, sink)?;
        }
        Ok(())
    }

    fn end(&mut self, level: usize, sink: &mut dyn NodeSink) -> Result<ListItem> {
        let items = std::mem::take(&mut self.levels[level]);
        let number = u8::try_from(level + 1).map_err(|_| Error::Invalid("a file has too many chunks".into()))?;
        let id = sink.store(encode_list(number, &items))?;
        Ok(ListItem { id, length: items.iter().map(|i| i.length).sum() })
    }

    /// Ends the list: inline if it is short, else the root of its tree.
    pub fn finish(mut self, sink: &mut dyn NodeSink) -> Result<Content> {
        let blobs = self.levels.first().map_or(0, Vec::len);
        if !self.is_tree && blobs <= MAX_INLINE_BLOBS {
            let ids: Vec<BlobId> = self.levels.into_iter().flatten().map(|i| i.id).collect();
            return Ok(if ids.is_empty() { Content::Empty } else { Content::Blobs(ids) });
        }
        let mut level = 0;
        loop {
            let is_top = level + 1 == self.levels.len();
            let items = self.levels.get(level).map_or(0, Vec::len);
            if is_top && level > 0 && items == 1 {
                let root = self.levels[level][0].id;
                return Ok(Content::Tree { root, height: u8::try_from(level).unwrap_or(MAX_HEIGHT) });
            }
            if items > 0 {
                let parent = self.end(level, sink)?;
                if self.levels.len() == level + 1 {
                    self.levels.push(Vec::new());
                }
                self.levels[level + 1].push(parent);
            }
            level += 1;
        }
    }
}

/// A file's blobs in order. Lengths are known only for files whose list is a tree.
pub struct ListReader<'r> {
    reader: &'r Reader,
    /// Nodes being read, from the top: items not yet visited in reverse order, and the level of the node.
    stack: Vec<(u8, Vec<ListItem>)>,
    with_nodes: bool,
    failed: bool,
}

impl<'r> ListReader<'r> {
    /// The blobs of `content`.
    #[must_use]
    pub fn new(reader: &'r Reader, content: &Content) -> Self {
        let stack = match content {
            Content::Empty => vec![],
            Content::Blobs(ids) => vec![(1, ids.iter().rev().map(|id| ListItem { id: *id, length: 0 }).collect())],
            Content::Tree { root, height } => vec![(height.saturating_add(1), vec![ListItem { id: *root, length: 0 }])],
        };
        Self { reader, stack, with_nodes: false, failed: false }
    }

    /// The blobs of `content`, and the nodes of its list too, each before what it lists.
    #[must_use]
    pub fn with_nodes(reader: &'r Reader, content: &Content) -> Self {
        Self { with_nodes: true, ..Self::new(reader, content) }
    }

    fn step(&mut self) -> Result<Option<BlobId>> {
        loop {
            let Some((level, items)) = self.stack.last_mut() else { return Ok(None) };
            let level = *level;
            match items.pop() {
                None => drop(self.stack.pop()),
                Some(item) if level == 1 => return Ok(Some(item.id)),
                Some(item) => {
                    let node = self.reader.node(&item.id)?;
                    let mut below = parse_list(&node, level - 1).map_err(|e| Error::damaged(format!("blob {}", item.id), e))?;
                    below.reverse();
                    self.stack.push((level - 1, below));
                    if self.with_nodes {
                        return Ok(Some(item.id));
                    }
                }
            }
        }
    }
}

impl Iterator for ListReader<'_> {
    type Item = Result<BlobId>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let step = self.step().transpose();
        self.failed = matches!(step, Some(Err(_)));
        step
    }
}
