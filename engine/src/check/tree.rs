//! Snapshots down to the places of their blobs: every node of every catalog and blob list once.
//!
//! Nodes wait on a stack and are taken off it in batches. A batch is read in the order in which it lies in the packs, on
//! several threads, a frame once; what its nodes refer to goes back onto the stack unless it has been seen. So snapshots
//! that share most nodes cost little, and memory is bounded by a batch times the height, and 40 bytes per distinct node.

use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::BytesMut;

use super::head::Seals;
use super::node::{Found, Pending, Role, Shape};
use super::structure::Packs;
use super::{Check, CheckReport};
use crate::error::{Error, Result};
use crate::format::pack::parse_header;
use crate::format::snapshot::Snapshot;
use crate::id::BlobId;
use crate::index::{Index, Location, PackSummary};
use crate::monitor::{Counter, Problem, lock};
use crate::pack;
use crate::repo::{SnapshotName, View, names};

/// Nodes that are read together.
const BATCH: usize = 1024;
/// Frames are fetched with one call if they lie within so many bytes.
const SPAN: u64 = 1 << 20;
/// Files of one snapshot that are named; the others are only counted.
const MAX_NAMED: u64 = 20;

/// First half of a node's id.
type Key = [u8; 16];

fn key_of(id: &BlobId) -> Key {
    let mut key = [0; 16];
    key.copy_from_slice(&id.0[..16]);
    key
}

/// A snapshot whose tree is walked.
struct Root {
    name: SnapshotName,
    snapshot: Snapshot,
    /// Files with missing blobs.
    lost_files: AtomicU64,
}

/// What the threads share.
pub(super) struct Walk<'a> {
    pub(super) check: &'a Check<'a>,
    index: &'a Index,
    missing: &'a HashSet<u32>,
    roots: Vec<Root>,
}

/// Reads all snapshots and walks their trees.
pub(super) fn check(
    check: &Check<'_>,
    view: &View,
    seals: &Seals,
    index: &Index,
    packs: &Packs,
    report: &mut CheckReport,
) -> Result<()> {
    check.monitor.stage("snapshots");
    let roots = read_snapshots(check, view)?;
    compare_heads(check, view, seals, &roots);
    report.snapshots = roots.len() as u64;
    let walk = Walk { check, index, missing: &packs.missing, roots };
    let mut trees = Trees { walk: &walk, stack: Vec::new(), seen: HashMap::new(), nodes: 0, entries: 0 };
    trees.all()?;
    report.nodes = trees.nodes;
    report.entries = trees.entries;
    for root in &walk.roots {
        let more = root.lost_files.load(Ordering::Relaxed).saturating_sub(MAX_NAMED);
        if more > 0 {
            let subject = names::snapshot(&root.name).to_string();
            check.monitor.problem(Problem { subject, message: format!("{more} more files have missing blobs") });
        }
    }
    Ok(())
}

/// Reads the snapshots, the newest first: damage is put down to the first one that has it.
fn read_snapshots(check: &Check<'_>, view: &View) -> Result<Vec<Root>> {
    let roots = Mutex::new(Vec::new());
    check.in_parallel(check.readers(), &view.snapshots, |(): &mut (), name| {
        match check.repo.read_snapshot(name) {
            Ok(snapshot) => lock(&roots).push(Root { name: *name, snapshot, lost_files: AtomicU64::new(0) }),
            Err(error) => check.absorb(names::snapshot(name), error)?,
        }
        Ok(())
    })?;
    let mut roots = std::mem::take(&mut *lock(&roots));
    roots.sort_by_key(|r| std::cmp::Reverse((r.snapshot.time, r.name)));
    Ok(roots)
}

/// Each snapshot names the latest seal that its writer knew: another one than is there shows that the history was replaced,
/// or that machines are shown different stores.
fn compare_heads(check: &Check<'_>, view: &View, seals: &Seals, roots: &[Root]) {
    // A seal that is missing or damaged below later ones is a finding already, and one may have come up since they were read.
    let latest = view.head.map(|(epoch, _)| epoch).max(seals.keys().next_back().copied());
    for root in roots {
        let Some((epoch, id)) = root.snapshot.head else { continue };
        if seals.get(&epoch).map_or(Some(epoch) > latest, |there| *there != id) {
            let seen = format!("its writer saw a seal of epoch {epoch} that is not there ({})", id.short());
            check.problem(names::snapshot(&root.name), format!("{seen}: the history was replaced or forked"));
        }
    }
}

impl Walk<'_> {
    /// Where a blob lies, in a pack that is there.
    pub(super) fn locate(&self, id: &BlobId) -> Result<Option<Location>> {
        if self.missing.is_empty() {
            return self.index.locate(id, &|_| true);
        }
        self.index.locate(id, &|pack| !self.missing.contains(&pack))
    }

    /// Short id of a snapshot.
    pub(super) fn snapshot(&self, number: usize) -> String {
        self.roots.get(number).map_or_else(String::new, |r| r.name.id.short())
    }

    /// Some blobs of a file are in no pack that is there.
    pub(super) fn lost_blobs(&self, snapshot: usize, file: &str, blobs: usize, of: usize) {
        let Some(root) = self.roots.get(snapshot) else { return };
        if root.lost_files.fetch_add(1, Ordering::Relaxed) < MAX_NAMED {
            let id = root.name.id.short();
            self.check.problem(file, format_args!("in snapshot {id}: {blobs} of {of} blobs are in no pack that is there"));
        } else {
            self.check.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reads frames that lie close together, and checks the nodes in them.
    fn read(&self, buffer: &mut Vec<u8>, unit: &Unit<'_>) -> Result<Found> {
        let (summary, mut found) = (&unit.summary, Found::default());
        let object = names::pack(summary.epoch, &summary.id);
        let range = &unit.bytes;
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let bytes = match self.check.repo.backend().read_range(&object, range.start, length) {
            Ok(bytes) => bytes,
            Err(error) => {
                let needed = unit.items.first().map_or_else(String::new, |(_, node)| self.needed_by(node));
                self.check.absorb(format_args!("{object} ({} nodes, {needed})", unit.items.len()), error.into())?;
                for (at, node) in unit.items {
                    self.other_copy(at.pack, node, &mut found)?;
                }
                return Ok(found);
            }
        };
        let mut bytes = bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        for items in unit.items.chunk_by(|a, b| a.0.frame == b.0.frame) {
            let Some((at, first)) = items.first() else { continue };
            if let Err(error) = self.open(summary, at.frame, range.start, &mut bytes, buffer) {
                let mut lost = 0;
                for (_, node) in items {
                    lost += usize::from(!self.other_copy(at.pack, node, &mut found)?);
                }
                let (count, needed) = (items.len(), self.needed_by(first));
                let message = format!("frame {}: {error}; {lost} of {count} nodes in it are nowhere else ({needed})", at.frame);
                self.check.problem(&object, message);
                continue;
            }
            for (at, node) in items {
                let plain = buffer.get(at.offset as usize..).and_then(|p| p.get(..at.length as usize));
                match plain.filter(|plain| self.check.repo.keys().blob_id(plain) == node.id) {
                    Some(plain) => self.node(node, plain, &mut found)?,
                    None => {
                        let message = format!("frame {}: a node is not what its id says ({})", at.frame, self.needed_by(node));
                        self.check.problem(&object, message);
                        self.other_copy(at.pack, node, &mut found)?;
                    }
                }
            }
        }
        Ok(found)
    }

    /// Checks a node by another copy than the one in the pack `bad`; whether there is one that can be read.
    fn other_copy(&self, bad: u32, node: &Pending, found: &mut Found) -> Result<bool> {
        let mut tried = HashSet::from([bad]);
        let mut plain = Vec::new();
        while let Some(at) = self.index.locate(&node.id, &|pack| !self.missing.contains(&pack) && !tried.contains(&pack))? {
            tried.insert(at.pack);
            let summary = self.index.pack(at.pack)?;
            let Some(frame) = summary.frames.get(at.frame as usize) else { continue };
            let (object, start) = (names::pack(summary.epoch, &summary.id), u64::from(frame.offset));
            let Ok(bytes) = self.check.repo.backend().read_range(&object, start, frame.sealed as usize) else { continue };
            if self.open(&summary, at.frame, start, &mut Vec::from(bytes), &mut plain).is_err() {
                continue;
            }
            let data = plain.get(at.offset as usize..).and_then(|p| p.get(..at.length as usize));
            if let Some(data) = data.filter(|data| self.check.repo.keys().blob_id(data) == node.id) {
                self.node(node, data, found)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn open(&self, summary: &PackSummary, number: u32, start: u64, bytes: &mut [u8], plain: &mut Vec<u8>) -> Result<(), String> {
        let frame = summary.frames.get(number as usize).ok_or("no such frame")?;
        let from = usize::try_from(u64::from(frame.offset) - start).map_err(|_| "no such frame")?;
        let sealed = bytes.get_mut(from..).and_then(|b| b.get_mut(..frame.sealed as usize)).ok_or("no such frame")?;
        let header = parse_header(&self.check.repo.keys().data, &self.check.repo.id(), &summary.header);
        let (_, cipher) = header.map_err(|e| e.to_string())?;
        pack::open_frame(&cipher, u64::from(number), frame, sealed, plain).map_err(|e| e.to_string())
    }
}

/// Nodes in frames of one pack that lie close together.
struct Unit<'a> {
    summary: Arc<PackSummary>,
    bytes: Range<u64>,
    items: &'a [(Location, Pending)],
}

/// The walk itself: what is still to be read, and what has been.
struct Trees<'a> {
    walk: &'a Walk<'a>,
    stack: Vec<Pending>,
    /// What is known of each node. Unknown only of roots that have not been read.
    seen: HashMap<Key, Option<Shape>>,
    nodes: u64,
    entries: u64,
}

impl Trees<'_> {
    fn all(&mut self) -> Result<()> {
        let walk = self.walk;
        for (snapshot, root) in walk.roots.iter().enumerate().rev() {
            if let Some(id) = root.snapshot.root {
                self.admit(Pending { id, snapshot, role: Role::Root });
            }
        }
        while !self.stack.is_empty() {
            walk.check.go_on()?;
            self.batch()?;
        }
        for root in &walk.roots {
            let found = match root.snapshot.root {
                Some(id) => self.seen.get(&key_of(&id)).copied().flatten().map(|shape| shape.sum),
                None => Some(0),
            };
            let said = root.snapshot.totals.entries;
            if let Some(found) = found.filter(|found| *found != said) {
                walk.check.problem(names::snapshot(&root.name), format_args!("has {found} entries instead of {said}"));
            }
        }
        Ok(())
    }

    /// Puts a node on the stack unless it has been seen; everyone who refers to it must say the same of it.
    fn admit(&mut self, node: Pending) {
        let expected = node.role.shape();
        match self.seen.entry(key_of(&node.id)) {
            Slot::Vacant(slot) => {
                slot.insert(expected);
                self.stack.push(node);
            }
            Slot::Occupied(mut slot) => match (*slot.get(), expected) {
                (Some(known), Some(expected)) if known != expected => self.walk.disagree(&node),
                (None, Some(_)) => drop(slot.insert(expected)),
                _ => {}
            },
        }
    }

    /// What a node turned out to be.
    fn learn(&mut self, id: &BlobId, snapshot: usize, shape: Shape) {
        let known = self.seen.insert(key_of(id), Some(shape)).flatten();
        if known.is_some_and(|known| known != shape) {
            self.walk.disagree(&Pending { id: *id, snapshot, role: Role::Root });
        }
    }

    fn batch(&mut self) -> Result<()> {
        let batch = self.stack.split_off(self.stack.len().saturating_sub(BATCH));
        let mut items = Vec::with_capacity(batch.len());
        for node in batch {
            match self.walk.locate(&node.id)? {
                Some(place) => items.push((place, node)),
                None => self.walk.lost_node(&node),
            }
        }
        items.sort_unstable_by_key(|(at, _)| (at.pack, at.frame, at.offset));
        let (units, results) = (units(self.walk.index, &items)?, Mutex::new(Vec::new()));
        let walk = self.walk;
        walk.check.in_parallel(walk.check.readers(), &units, |buffer: &mut Vec<u8>, unit| {
            let found = walk.read(buffer, unit)?;
            lock(&results).push(found);
            Ok(())
        })?;
        for found in std::mem::take(&mut *lock(&results)) {
            self.nodes += found.shapes.len() as u64;
            self.entries += found.entries;
            walk.check.monitor.count(Counter::Entries, found.entries);
            for (id, snapshot, shape) in found.shapes {
                self.learn(&id, snapshot, shape);
            }
            for node in found.below {
                self.admit(node);
            }
        }
        Ok(())
    }
}

/// Divides sorted items into what is fetched with one call each.
fn units<'a>(index: &Index, items: &'a [(Location, Pending)]) -> Result<Vec<Unit<'a>>> {
    let mut units: Vec<Unit<'a>> = Vec::new();
    for pack in items.chunk_by(|a, b| a.0.pack == b.0.pack) {
        let Some((at, _)) = pack.first() else { continue };
        let summary = index.pack(at.pack)?;
        let frame = |item: &(Location, Pending)| {
            let frame = summary.frames.get(item.0.frame as usize);
            let frame = frame.ok_or_else(|| Error::Cache("a frame number out of range".into()))?;
            Ok::<_, Error>(u64::from(frame.offset)..u64::from(frame.offset) + u64::from(frame.sealed))
        };
        let mut from = 0;
        let mut bytes = frame(&pack[0])?;
        for (i, item) in pack.iter().enumerate() {
            let next = frame(item)?;
            if next.end - bytes.start > SPAN && next.start >= bytes.end {
                units.push(Unit { summary: Arc::clone(&summary), bytes, items: &pack[from..i] });
                (from, bytes) = (i, next);
            } else {
                bytes.end = bytes.end.max(next.end);
            }
        }
        units.push(Unit { summary: Arc::clone(&summary), bytes, items: &pack[from..] });
    }
    Ok(units)
}
