//! Entries on their way into the catalog: results come back in any order, entries leave in theirs.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::read::{FileEnd, UnitFile};
use super::store::{Nodes, Store};
use crate::catalog::{CatalogBuilder, ListBuilder};
use crate::entry::{Content, Entry, Hole, Kind, LazyEntry, Metadata, Xattrs};
use crate::error::Result;
use crate::format::snapshot::Totals;
use crate::id::BlobId;
use crate::monitor::{Counter, Monitor, Problem};

/// Most hard-linked files remembered at a time; beyond that, a link is read again like any file.
const MAX_LINKS: usize = 100_000;

/// What became of a batch.
pub(super) struct BatchResult {
    pub(super) unit: u64,
    pub(super) sequence: u32,
    pub(super) last: bool,
    /// File, blob, length of the blob.
    pub(super) blobs: Vec<(u64, BlobId, u32)>,
    pub(super) ends: Vec<FileEnd>,
}

enum Slot {
    Ready(Box<Entry>),
    Reading(Box<Reading>),
    /// Another name of a file that comes before; what to read, and its weight, if that turns out not to be the same.
    Link(Box<Entry>, UnitFile, u64),
    /// Could not be read.
    Lost,
}

impl Slot {
    fn reading(entry: Entry, weight: u64) -> Self {
        Self::Reading(Box::new(Reading { entry, weight, list: ListBuilder::default(), done: false }))
    }
}

struct Reading {
    entry: Entry,
    /// Its share of [`Queue::waiting`].
    weight: u64,
    list: ListBuilder,
    done: bool,
}

struct Linked {
    meta: Metadata,
    content: Content,
    xattrs: Xattrs,
    holes: Vec<Hole>,
    size: u64,
    left: u64,
}

impl Linked {
    /// Whether a name that was seen with these is one of the same file, and of the same state: inode numbers are given out
    /// again, and a file may be written to between two of its names.
    fn is(&self, meta: &Metadata, size: u64) -> bool {
        (self.meta.ctime, self.meta.mtime, self.size) == (meta.ctime, meta.mtime, size)
    }
}

/// See the module.
pub(super) struct Queue {
    slots: VecDeque<Slot>,
    base: u64,
    reorder: BTreeMap<(u64, u32), BatchResult>,
    next: (u64, u32),
    /// Files with several names that have passed, by device and inode.
    links: HashMap<(u64, u64), Linked>,
    /// Those that are still being read.
    open_links: HashMap<(u64, u64), u64>,
    /// Bytes of files that wait to be read, or are being read.
    waiting: u64,
    pub(super) catalog: CatalogBuilder,
    pub(super) totals: Totals,
    pub(super) problems: u64,
}

impl Queue {
    pub(super) fn new(catalog: CatalogBuilder) -> Self {
        Self {
            slots: VecDeque::new(),
            base: 0,
            reorder: BTreeMap::new(),
            next: (0, 0),
            links: HashMap::new(),
            open_links: HashMap::new(),
            waiting: 0,
            catalog,
            totals: Totals::default(),
            problems: 0,
        }
    }

    /// Entries that have not reached the catalog.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The weights of the files that have not been read.
    pub(super) fn waiting(&self) -> u64 {
        self.waiting
    }

    /// An entry whose content is known.
    pub(super) fn push_ready(&mut self, entry: Entry) {
        self.slots.push_back(Slot::Ready(Box::new(entry)));
    }

    /// An entry whose content is being read; returns its number.
    pub(super) fn push_reading(&mut self, entry: Entry, weight: u64) -> u64 {
        self.waiting += weight;
        let number = self.base + self.slots.len() as u64;
        // Only as many as can be remembered once they have passed: each name that waits in vain holds everything up.
        if entry.meta.links > 1 && self.links.len() + self.open_links.len() < MAX_LINKS {
            self.open_links.insert((entry.meta.device, entry.meta.inode), number);
        }
        self.slots.push_back(Slot::reading(entry, weight));
        number
    }

    /// Whether it may be another name of a file that has been met before.
    pub(super) fn may_be_link(&self, entry: &Entry) -> bool {
        let key = (entry.meta.device, entry.meta.inode);
        entry.meta.links > 1 && (self.links.contains_key(&key) || self.open_links.contains_key(&key))
    }

    /// An entry that may be another name of a file that has been met before.
    pub(super) fn push_link(&mut self, entry: Entry, size: u64, lazy: Box<dyn LazyEntry>, weight: u64) {
        let slot = self.base + self.slots.len() as u64;
        self.slots.push_back(Slot::Link(Box::new(entry), UnitFile { slot, size, lazy }, weight));
    }

    /// Takes in what became of a batch.
    pub(super) fn accept(&mut self, result: BatchResult, store: &Store, monitor: &dyn Monitor) -> Result<()> {
        self.reorder.insert((result.unit, result.sequence), result);
        while let Some(result) = self.reorder.remove(&self.next) {
            self.next = if result.last { (result.unit + 1, 0) } else { (result.unit, result.sequence + 1) };
            for (slot, id, length) in result.blobs {
                if let Some(Slot::Reading(reading)) = self.slot(slot) {
                    reading.list.push(id, length, &mut Nodes(store))?;
                }
                monitor.count(Counter::Bytes, u64::from(length));
            }
            for end in result.ends {
                self.end_file(end, monitor);
            }
        }
        Ok(())
    }

    fn slot(&mut self, number: u64) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(number.checked_sub(self.base)?).ok()?)
    }

    fn end_file(&mut self, end: FileEnd, monitor: &dyn Monitor) {
        let Some(slot) = self.slot(end.slot) else { return };
        let Slot::Reading(reading) = slot else { return };
        let weight = std::mem::take(&mut reading.weight);
        let subject = format!("/{}", reading.entry.path.display());
        let problem = match end.result {
            Ok(file) => {
                let owner = std::sync::Arc::clone(&reading.entry.meta.owner);
                let same_owner = (owner.uid, owner.gid) == (file.meta.owner.uid, file.meta.owner.gid);
                reading.entry.meta = file.meta;
                if same_owner {
                    reading.entry.meta.owner = owner;
                }
                (reading.entry.size, reading.entry.xattrs, reading.entry.holes) = (file.size, file.xattrs, file.holes);
                reading.done = true;
                file.trouble
            }
            Err(message) => {
                let key = (reading.entry.meta.device, reading.entry.meta.inode);
                *slot = Slot::Lost;
                self.open_links.remove(&key);
                Some(message)
            }
        };
        self.waiting = self.waiting.saturating_sub(weight);
        if let Some(message) = problem {
            self.problems += 1;
            monitor.problem(Problem { subject, message });
        }
    }

    /// Moves finished entries from the front of the queue into the catalog. Returns what has to be read for it to go on, beyond
    /// what is being read already.
    pub(super) fn drain(&mut self, store: &Store, monitor: &dyn Monitor) -> Result<Option<UnitFile>> {
        loop {
            match self.slots.front() {
                None => return Ok(None),
                Some(Slot::Reading(reading)) if !reading.done => return Ok(None),
                Some(_) => {}
            }
            self.base += 1;
            let entry = match self.slots.pop_front() {
                Some(Slot::Ready(entry)) => *entry,
                Some(Slot::Reading(reading)) => {
                    let mut entry = reading.entry;
                    entry.content = reading.list.finish(&mut Nodes(store))?;
                    entry
                }
                Some(Slot::Link(entry, file, weight)) => match self.linked(*entry, file.size) {
                    Ok(entry) => entry,
                    Err(entry) => {
                        self.base -= 1;
                        self.waiting += weight;
                        self.slots.push_front(Slot::reading(*entry, weight));
                        return Ok(Some(file));
                    }
                },
                Some(Slot::Lost) | None => continue,
            };
            self.remember_link(&entry);
            self.count(&entry, monitor);
            self.catalog.push(&entry, &mut Nodes(store))?;
        }
    }

    /// The entry with the content of the name before; given back if that was another file, or not remembered.
    fn linked(&mut self, mut entry: Entry, size: u64) -> Result<Entry, Box<Entry>> {
        let key = (entry.meta.device, entry.meta.inode);
        let Some(linked) = self.links.get(&key).filter(|linked| linked.is(&entry.meta, size)) else {
            return Err(Box::new(entry));
        };
        (entry.content, entry.xattrs) = (linked.content.clone(), linked.xattrs.clone());
        (entry.holes, entry.size) = (linked.holes.clone(), linked.size);
        Ok(entry)
    }

    fn remember_link(&mut self, entry: &Entry) {
        if entry.meta.links < 2 || entry.kind != Kind::File {
            return;
        }
        let key = (entry.meta.device, entry.meta.inode);
        self.open_links.remove(&key);
        let known = self.links.get_mut(&key);
        if let Some(linked) = known.filter(|linked| linked.is(&entry.meta, entry.size)) {
            linked.left = linked.left.saturating_sub(1);
            if linked.left == 0 {
                self.links.remove(&key);
            }
        } else if self.links.len() < MAX_LINKS || self.links.contains_key(&key) {
            let (content, xattrs, holes) = (entry.content.clone(), entry.xattrs.clone(), entry.holes.clone());
            let (meta, left) = (entry.meta.clone(), entry.meta.links - 1);
            self.links.insert(key, Linked { meta, content, xattrs, holes, size: entry.size, left });
        }
    }

    fn count(&mut self, entry: &Entry, monitor: &dyn Monitor) {
        self.totals.entries += 1;
        match entry.kind {
            Kind::File => self.totals.files += 1,
            Kind::Directory => self.totals.directories += 1,
            _ => {}
        }
        self.totals.bytes = self.totals.bytes.saturating_add(entry.size);
        monitor.count(Counter::Entries, 1);
    }
}
