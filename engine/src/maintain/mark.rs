//! Walking the trees of snapshots: every blob that they need, each node read once.
//!
//! Nodes wait on a stack and are taken off it in batches, which are read in the order in which they lie in the packs. Memory
//! is bounded by a batch times the height of the trees.

use crate::entry::Content;
use crate::error::{Error, Result};
use crate::format::list::parse_list;
use crate::format::node::Node;
use crate::id::BlobId;
use crate::index::Location;
use crate::monitor::{Counter, Monitor};
use crate::repo::{Reader, SnapshotName, names, parallel};

/// Nodes that are read together.
const BATCH: usize = 256;

/// A snapshot to walk: its name and the root of its catalog.
pub(super) type Root = (SnapshotName, BlobId);

/// What a snapshot refers to.
#[derive(Clone, Copy)]
pub(super) struct Reference<'a> {
    pub(super) id: &'a BlobId,
    pub(super) is_node: bool,
    /// The snapshot by which it was found.
    pub(super) snapshot: &'a SnapshotName,
}

#[derive(Clone, Copy)]
enum Role {
    /// A node of a catalog; its level, where that is known.
    Catalog(Option<u8>),
    /// A node of a blob list.
    List(u8),
}

#[derive(Clone, Copy)]
struct Pending {
    id: BlobId,
    role: Role,
    root: usize,
}

/// What a node refers to.
#[derive(Default)]
struct Below {
    root: usize,
    data: Vec<BlobId>,
    nodes: Vec<Pending>,
}

/// Calls `visit` for everything that the snapshots refer to, some of it more than once; it says for a node whether to go on
/// below it.
///
/// # Errors
///
/// What `visit` returns; [`Error::Damaged`] with the snapshot's name if a node cannot be read; [`Error::Interrupted`].
pub(super) fn walk(
    reader: &Reader,
    roots: &[Root],
    monitor: &dyn Monitor,
    visit: &mut dyn FnMut(Reference<'_>) -> Result<bool>,
) -> Result<()> {
    let mut stack = Vec::new();
    for (number, (name, root)) in roots.iter().enumerate() {
        admit(Pending { id: *root, role: Role::Catalog(None), root: number }, name, visit, &mut stack)?;
        while !stack.is_empty() {
            if monitor.cancelled() {
                return Err(Error::Interrupted);
            }
            let batch = stack.split_off(stack.len().saturating_sub(BATCH));
            monitor.count(Counter::Entries, batch.len() as u64);
            for below in read(reader, batch, roots)? {
                let snapshot = &roots[below.root].0;
                for id in &below.data {
                    visit(Reference { id, is_node: false, snapshot })?;
                }
                for node in below.nodes {
                    admit(node, snapshot, visit, &mut stack)?;
                }
            }
        }
    }
    Ok(())
}

fn admit(
    node: Pending,
    snapshot: &SnapshotName,
    visit: &mut dyn FnMut(Reference<'_>) -> Result<bool>,
    stack: &mut Vec<Pending>,
) -> Result<()> {
    if visit(Reference { id: &node.id, is_node: true, snapshot })? {
        stack.push(node);
    }
    Ok(())
}

/// Reads a batch of nodes, a frame once.
fn read(reader: &Reader, batch: Vec<Pending>, roots: &[Root]) -> Result<Vec<Below>> {
    let mut items: Vec<(Location, Pending)> = Vec::with_capacity(batch.len());
    for node in batch {
        items.push((reader.locate(&node.id).map_err(|e| lost(&node, roots, &e))?, node));
    }
    items.sort_unstable_by_key(|(at, _)| (at.pack, at.frame, at.offset));
    let frames: Vec<&[(Location, Pending)]> = items.chunk_by(|a, b| (a.0.pack, a.0.frame) == (b.0.pack, b.0.frame)).collect();
    let threads = reader.repo().backend().concurrency();
    let results = parallel::map(threads, &frames, |items| read_frame(reader, items, roots));
    let mut all = Vec::with_capacity(items.len());
    for below in results {
        all.extend(below?);
    }
    Ok(all)
}

fn read_frame(reader: &Reader, items: &[(Location, Pending)], roots: &[Root]) -> Result<Vec<Below>> {
    let mut plain = Vec::new();
    let readable = items.first().is_some_and(|(at, _)| reader.read_frame(at.pack, at.frame, &mut plain).is_ok());
    let mut all = Vec::with_capacity(items.len());
    for (at, node) in items {
        let bytes = plain.get(at.offset as usize..).and_then(|rest| rest.get(..at.length as usize));
        let below = match bytes.filter(|bytes| readable && reader.verify(&node.id, bytes)) {
            Some(bytes) => parse(node, bytes),
            // From wherever else it lies.
            None => reader.node(&node.id).and_then(|bytes| parse(node, &bytes)),
        };
        all.push(below.map_err(|e| lost(node, roots, &e))?);
    }
    Ok(all)
}

fn lost(node: &Pending, roots: &[Root], error: &Error) -> Error {
    match roots.get(node.root) {
        Some((name, _)) => Error::damaged(
            names::snapshot(name),
            format!("{error}; nothing is deleted: run 'check', and forget the snapshot if it cannot be mended"),
        ),
        None => Error::Invalid(error.to_string()),
    }
}

fn parse(node: &Pending, bytes: &[u8]) -> Result<Below> {
    let damaged = |e: &dyn std::fmt::Display| Error::damaged(format!("node {}", node.id), e);
    let mut below = Below { root: node.root, ..Below::default() };
    let mut add = |id, role| below.nodes.push(Pending { id, role, root: node.root });
    match node.role {
        Role::List(level) => {
            let items = parse_list(bytes, level).map_err(|e| damaged(&e))?;
            match level.checked_sub(1).filter(|level| *level > 0) {
                Some(level) => items.iter().for_each(|item| add(item.id, Role::List(level))),
                None => below.data.extend(items.iter().map(|item| item.id)),
            }
        }
        Role::Catalog(expected) => match Node::parse(bytes).map_err(|e| damaged(&e))? {
            Node::Leaf(_) if expected.is_some_and(|level| level != 0) => {
                return Err(damaged(&"a leaf where an inner node belongs"));
            }
            Node::Leaf(entries) => {
                for entry in entries {
                    match entry.content {
                        Content::Empty => {}
                        Content::Blobs(ids) => below.data.extend(ids),
                        Content::Tree { root, height } => add(root, Role::List(height)),
                    }
                }
            }
            Node::Inner { level, children } => {
                if level == 0 || expected.is_some_and(|expected| expected != level) {
                    return Err(damaged(&"a node of another level belongs here"));
                }
                children.iter().for_each(|child| add(child.id, Role::Catalog(Some(level - 1))));
            }
        },
    }
    Ok(below)
}
