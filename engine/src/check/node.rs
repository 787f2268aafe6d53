//! One node of a catalog or of a blob list: does it parse, is it what its parent says, and where are the blobs it names.

use std::sync::Arc;

use super::tree::Walk;
use crate::entry::{Content, Entry};
use crate::error::Result;
use crate::format::list::parse_list;
use crate::format::node::{Child, Node};
use crate::id::BlobId;
use crate::path::EntryPath;

/// What a node is, as its parent says or as it turns out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// A node of a blob list, not of a catalog.
    list: bool,
    level: u8,
    /// Entries below it, or bytes of the file.
    pub(super) sum: u64,
}

/// Where a node belongs.
pub(super) enum Role {
    /// The root of a catalog.
    Root,
    /// The child of this number of an inner node.
    Child { parent: Arc<Inner>, number: usize },
    /// A node of a file's blob list, with the bytes it stands for.
    List { level: u8, length: u64, file: Arc<EntryPath> },
}

/// An inner node with children to be read.
pub(super) struct Inner {
    level: u8,
    children: Vec<Child>,
    /// Path of the last entry that comes before all of this.
    after: Option<EntryPath>,
}

/// A node to be read.
pub(super) struct Pending {
    pub(super) id: BlobId,
    /// Number of the snapshot by which it was found.
    pub(super) snapshot: usize,
    pub(super) role: Role,
}

/// What was found in some nodes.
#[derive(Default)]
pub(super) struct Found {
    /// Nodes that were read: id, snapshot, what they are.
    pub(super) shapes: Vec<(BlobId, usize, Shape)>,
    /// Nodes that they refer to.
    pub(super) below: Vec<Pending>,
    pub(super) entries: u64,
}

impl Role {
    /// What the parent says.
    pub(super) fn shape(&self) -> Option<Shape> {
        match self {
            Self::Root => None,
            Self::Child { parent, number } => {
                let sum = parent.children.get(*number)?.entries;
                Some(Shape { list: false, level: parent.level - 1, sum })
            }
            Self::List { level, length, .. } => Some(Shape { list: true, level: *level, sum: *length }),
        }
    }

    /// Last path before the node, and its own last one.
    fn bounds(&self) -> (Option<&EntryPath>, Option<&EntryPath>) {
        let Self::Child { parent, number } = self else { return (None, None) };
        let before = number.checked_sub(1).and_then(|n| parent.children.get(n)).map(|c| &c.last);
        (before.or(parent.after.as_ref()), parent.children.get(*number).map(|c| &c.last))
    }
}

impl Walk<'_> {
    /// Says which snapshot or file needs a node.
    pub(super) fn needed_by(&self, node: &Pending) -> String {
        let snapshot = self.snapshot(node.snapshot);
        match &node.role {
            Role::List { file, .. } => format!("needed by {} in snapshot {snapshot}", file.display()),
            _ => format!("needed by snapshot {snapshot}"),
        }
    }

    /// A node is in no pack that is there.
    pub(super) fn lost_node(&self, node: &Pending) {
        let (id, needed) = (self.snapshot(node.snapshot), self.needed_by(node));
        let message = match node.role.bounds().1 {
            Some(last) => format!("a catalog node is in no pack that is there; it ends at {}", last.display()),
            None => format!("node {} is in no pack that is there; {needed}", node.id),
        };
        self.check.problem(format_args!("snapshot {id}"), message);
    }

    /// Two nodes say different things of a third one.
    pub(super) fn disagree(&self, node: &Pending) {
        self.malformed(node, "is not what all nodes above it say");
    }

    fn malformed(&self, node: &Pending, message: impl std::fmt::Display) {
        let needed = self.needed_by(node);
        self.check.problem(format_args!("node {}", node.id), format_args!("{message} ({needed})"));
    }

    /// Checks the bytes of a node, which are known to be those that its id stands for.
    pub(super) fn node(&self, node: &Pending, bytes: &[u8], found: &mut Found) -> Result<()> {
        let shape = match &node.role {
            Role::List { level, file, .. } => self.list(node, *level, file, bytes, found)?,
            _ => self.catalog(node, bytes, found)?,
        };
        if let Some(shape) = shape {
            if node.role.shape().is_some_and(|expected| expected != shape) {
                self.malformed(node, "is not what the node above it says");
            }
            found.shapes.push((node.id, node.snapshot, shape));
        }
        Ok(())
    }

    fn catalog(&self, node: &Pending, bytes: &[u8], found: &mut Found) -> Result<Option<Shape>> {
        let parsed = match Node::parse(bytes) {
            Ok(parsed) => parsed,
            Err(error) => {
                self.malformed(node, error);
                return Ok(None);
            }
        };
        match parsed {
            Node::Leaf(entries) => {
                self.order(node, entries.first().map(|e| &e.path), entries.last().map(|e| &e.path));
                found.entries += entries.len() as u64;
                for entry in &entries {
                    self.entry(node.snapshot, entry, found)?;
                }
                Ok(Some(Shape { list: false, level: 0, sum: entries.len() as u64 }))
            }
            Node::Inner { level, children } => {
                self.order(node, children.first().map(|c| &c.last), children.last().map(|c| &c.last));
                let sum = children.iter().fold(0_u64, |sum, c| sum.saturating_add(c.entries));
                let parent = Arc::new(Inner { level, children, after: node.role.bounds().0.cloned() });
                let expected = node.role.shape();
                if expected.is_some_and(|e| e.level != level) {
                    // Not walked: a level above the expected one might lead round in circles.
                    return Ok(Some(Shape { list: false, level, sum }));
                }
                found.below.extend(parent.children.iter().enumerate().map(|(number, child)| Pending {
                    id: child.id,
                    snapshot: node.snapshot,
                    role: Role::Child { parent: Arc::clone(&parent), number },
                }));
                Ok(Some(Shape { list: false, level, sum }))
            }
        }
    }

    /// Order holds across nodes too.
    fn order(&self, node: &Pending, first: Option<&EntryPath>, last: Option<&EntryPath>) {
        let (after, expected) = node.role.bounds();
        if after.is_some() && after >= first || expected.is_some() && expected != last {
            self.malformed(node, "its paths are not those that belong there");
        }
    }

    fn entry(&self, snapshot: usize, entry: &Entry, found: &mut Found) -> Result<()> {
        let size = entry.data_size();
        match &entry.content {
            Content::Empty => self.size(snapshot, &entry.path, 0, size),
            Content::Blobs(ids) => {
                let (mut sum, mut lost) = (0_u64, 0);
                for id in ids {
                    match self.locate(id)? {
                        Some(place) => sum += u64::from(place.length),
                        None => lost += 1,
                    }
                }
                if lost > 0 {
                    self.lost_blobs(snapshot, &entry.path.display(), lost, ids.len());
                } else {
                    self.size(snapshot, &entry.path, sum, size);
                }
            }
            Content::Tree { root, height } => found.below.push(Pending {
                id: *root,
                snapshot,
                role: Role::List { level: *height, length: size, file: Arc::new(entry.path.clone()) },
            }),
        }
        Ok(())
    }

    fn size(&self, snapshot: usize, path: &EntryPath, found: u64, said: u64) {
        if found != said {
            let id = self.snapshot(snapshot);
            self.check.problem(path.display(), format_args!("in snapshot {id}: has {found} bytes of data instead of {said}"));
        }
    }

    fn list(&self, node: &Pending, level: u8, file: &Arc<EntryPath>, bytes: &[u8], found: &mut Found) -> Result<Option<Shape>> {
        let items = match parse_list(bytes, level) {
            Ok(items) => items,
            Err(error) => {
                self.malformed(node, error);
                return Ok(None);
            }
        };
        let sum = items.iter().fold(0_u64, |sum, item| sum.saturating_add(item.length));
        if level > 1 {
            found.below.extend(items.iter().map(|item| Pending {
                id: item.id,
                snapshot: node.snapshot,
                role: Role::List { level: level - 1, length: item.length, file: Arc::clone(file) },
            }));
            return Ok(Some(Shape { list: true, level, sum }));
        }
        let (mut lost, mut wrong) = (0, 0);
        for item in &items {
            match self.locate(&item.id)? {
                Some(place) if u64::from(place.length) == item.length => {}
                Some(_) => wrong += 1,
                None => lost += 1,
            }
        }
        if lost > 0 {
            self.lost_blobs(node.snapshot, &file.display(), lost, items.len());
        }
        if wrong > 0 {
            self.malformed(node, format_args!("gives {wrong} blobs another length than they have"));
        }
        Ok(Some(Shape { list: true, level, sum }))
    }
}
