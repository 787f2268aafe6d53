//! Damaged packs: what can be read of them is stored again, and nothing new refers to them any more.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use super::{PackName, RepairOptions, SegmentWriter, go_on, list_packs, open, report, rounds};
use crate::buffer::BufferPool;
use crate::codec;
use crate::error::{Error, Result};
use crate::format::pack::{BlobEntry, BlobKind, Compression, PackRecord, parse_header};
use crate::format::snapshot;
use crate::id::{BlobId, ObjectId};
use crate::monitor::{Counter, Monitor, lock};
use crate::pack::{self, OpenPack};
use crate::repo::{Reader, Repository, load_segment, names, parallel};

/// Bytes of packs that are read at a time.
const READ_BYTES: u64 = 64 << 20;
/// Damaged packs whose directories are in memory at a time.
const SALVAGE_AT_ONCE: usize = 256;

/// Which packs to look at. Those that are missing or have another size than the index says are found in any case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// No others.
    Listed,
    /// Reads all packs.
    All,
    /// Reads those with these names or beginnings of names.
    Named(Vec<String>),
}

/// What was done about packs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PacksRepair {
    /// Packs that were read.
    pub packs_read: u64,
    /// Packs whose bytes are not what they should be.
    pub damaged_packs: u64,
    /// Packs that are not in the store.
    pub missing_packs: u64,
    /// Blobs stored again (or that would be).
    pub blobs_saved: u64,
    /// Blobs that were in these packs only, and cannot be read.
    pub blobs_lost: u64,
    /// New packs.
    pub packs_written: u64,
}

/// Finds damaged and missing packs, stores again what can be read of them, and marks them as damaged.
///
/// # Errors
///
/// As [`super::index`]; [`Error::Invalid`] if a name in [`Which::Named`] fits no pack.
pub fn packs(repo: &Arc<Repository>, which: &Which, options: &RepairOptions, monitor: &Arc<dyn Monitor>) -> Result<PacksRepair> {
    rounds(|| round(repo, which, options, &**monitor))
}

/// What is wrong with a pack.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    Missing,
    Damaged,
}

fn round(repo: &Arc<Repository>, which: &Which, options: &RepairOptions, monitor: &dyn Monitor) -> Result<Option<PacksRepair>> {
    let reader = open(repo, options, monitor)?;
    let mut done = PacksRepair::default();
    let bad = find(&reader, which, monitor, &mut done)?;
    if bad.is_empty() {
        return Ok(Some(done));
    }
    let faults = |fault| bad.values().filter(|f| **f == fault).count() as u64;
    (done.damaged_packs, done.missing_packs) = (faults(Fault::Damaged), faults(Fault::Missing));
    let mut salvage = Salvage::new(&reader, &bad, options)?;
    let all: Vec<PackName> = bad.keys().copied().collect();
    for some in all.chunks(SALVAGE_AT_ONCE) {
        salvage.some(some, monitor)?;
    }
    (done.blobs_saved, done.blobs_lost) = (salvage.saved.len() as u64, salvage.lost.len() as u64);
    done.packs_written = salvage.finish()?;
    if salvage.segments.commit(monitor)?.is_none() {
        return Ok(None);
    }
    if !options.dry_run {
        mark(repo, reader.view(), &all)?;
    }
    Ok(Some(done))
}

/// From now on nothing new refers to these packs.
fn mark(repo: &Repository, view: &crate::repo::View, packs: &[PackName]) -> Result<()> {
    let new: Vec<PackName> = packs.iter().filter(|name| !view.damaged.contains(*name)).copied().collect();
    if new.is_empty() {
        return Ok(());
    }
    let sealed = snapshot::seal_damage(&repo.keys().meta, repo.id(), &new).map_err(|e| Error::damaged("a new mark", e))?;
    repo.backend().create(&names::damage(&ObjectId::of(&sealed)), sealed.into())?;
    Ok(repo.backend().barrier()?)
}

/// The packs of the index that are not as they should be. Those that maintenance is about to delete do not matter.
fn find(reader: &Reader, which: &Which, monitor: &dyn Monitor, done: &mut PacksRepair) -> Result<BTreeMap<PackName, Fault>> {
    let listed = list_packs(reader.repo())?;
    let (mut known, mut bad) = (Vec::new(), BTreeMap::new());
    reader.index().packs(|_, epoch, id, size| known.push(((epoch, id), size)))?;
    known.sort_unstable();
    known.dedup();
    let view = reader.view();
    known.retain(|(name, _)| !view.condemned.contains(name));
    let mut read = Vec::new();
    for (name, size) in &known {
        match listed.get(name) {
            None => drop(bad.insert(*name, Fault::Missing)),
            Some(found) if found != size || view.damaged.contains(name) => drop(bad.insert(*name, Fault::Damaged)),
            Some(_) if is_wanted(name, which) => read.push((*name, *size)),
            Some(_) => {}
        }
    }
    if let Which::Named(wanted) = which {
        for text in wanted {
            let fits = known.iter().any(|(name, _)| is_wanted(name, &Which::Named(vec![text.clone()])));
            if !fits {
                return Err(Error::Invalid(format!("no pack in the index has a name that starts with '{text}'")));
            }
        }
    }
    let largest = read.iter().map(|(_, size)| *size).max().unwrap_or(1).max(1);
    let threads = usize::try_from(READ_BYTES / largest).unwrap_or(1).clamp(1, reader.repo().backend().concurrency());
    monitor.expect(Counter::Packs, read.len() as u64);
    let found = parallel::map(threads, &read, |(name, size)| {
        go_on(monitor)?;
        let intact = is_intact(reader.repo(), name, *size);
        monitor.count(Counter::Packs, 1);
        intact
    });
    for ((name, _), intact) in read.iter().zip(found) {
        if !intact? {
            bad.insert(*name, Fault::Damaged);
        }
    }
    done.packs_read = read.len() as u64;
    Ok(bad)
}

fn is_wanted(name: &PackName, which: &Which) -> bool {
    match which {
        Which::Listed => false,
        Which::All => true,
        Which::Named(some) => {
            let (full, id) = (names::pack(name.0, &name.1).to_string(), name.1.to_string());
            some.iter().any(|text| !text.is_empty() && (id.starts_with(text.as_str()) || full == *text))
        }
    }
}

/// Whether the pack's bytes are those that its name says.
fn is_intact(repo: &Repository, name: &PackName, size: u64) -> Result<bool> {
    match repo.backend().read(&names::pack(name.0, &name.1), size).map_err(Error::from) {
        Ok(bytes) => Ok(ObjectId::of(&bytes) == name.1),
        Err(error) if error.is_local() => Ok(false),
        Err(error) => Err(error),
    }
}

/// A pack that takes what was saved.
struct Lane {
    kind: BlobKind,
    pack: OpenPack,
}

/// Stores again what can be read of bad packs and is nowhere else.
struct Salvage<'a> {
    reader: &'a Reader,
    bad: &'a BTreeMap<PackName, Fault>,
    /// Their numbers in the index.
    ordinals: HashSet<u32>,
    options: &'a RepairOptions,
    pool: Arc<BufferPool>,
    lanes: Vec<Lane>,
    segments: SegmentWriter<'a>,
    /// 32 bytes for each blob of the bad packs.
    saved: HashSet<BlobId>,
    lost: HashSet<BlobId>,
    written: u64,
}

impl<'a> Salvage<'a> {
    fn new(reader: &'a Reader, bad: &'a BTreeMap<PackName, Fault>, options: &'a RepairOptions) -> Result<Self> {
        let mut ordinals = HashSet::new();
        reader.index().packs(|ordinal, epoch, id, _| {
            if bad.contains_key(&(epoch, id)) || reader.view().condemned.contains(&(epoch, id)) {
                ordinals.insert(ordinal);
            }
        })?;
        let target = reader.repo().config().pack_target as usize;
        let pool = BufferPool::new(target + target / 4 + (4 << 20));
        let segments = SegmentWriter::new(reader);
        let (saved, lost) = (HashSet::new(), HashSet::new());
        Ok(Self { reader, bad, ordinals, options, pool, lanes: Vec::new(), segments, saved, lost, written: 0 })
    }

    /// Goes through some of the packs. What they hold the index's segments say: the packs' own directories may be damaged.
    fn some(&mut self, packs: &[PackName], monitor: &dyn Monitor) -> Result<()> {
        let wanted: HashSet<PackName> = packs.iter().copied().collect();
        let records = Mutex::new(HashMap::new());
        let repo = self.reader.repo();
        let read = parallel::map(repo.backend().concurrency(), &self.reader.view().segments, |name| -> Result<()> {
            for record in load_segment(repo, name)? {
                if wanted.contains(&(record.epoch, record.id)) {
                    lock(&records).insert((record.epoch, record.id), record);
                }
            }
            Ok(())
        });
        for result in read {
            match result {
                Err(error) if !error.is_local() => return Err(error),
                _ => {}
            }
        }
        let mut records = std::mem::take(&mut *lock(&records));
        for name in packs {
            go_on(monitor)?;
            let Some(record) = records.remove(name) else { continue };
            let (saved, lost) = self.one(&record)?;
            let state = match self.bad.get(name) {
                Some(Fault::Missing) => "is not in the store",
                _ => "is damaged",
            };
            if saved + lost > 0 || !self.reader.view().damaged.contains(name) {
                let of = record.directory.blobs.len();
                let word = if self.options.dry_run { "could be" } else { "were" };
                let message = format!("{state}; of its {of} blobs, {saved} {word} stored again and {lost} are lost");
                report(monitor, names::pack(name.0, &name.1).to_string(), message);
            }
        }
        Ok(())
    }

    /// Stores the blobs of one pack that can be read and are nowhere else; how many these are, and how many are lost.
    fn one(&mut self, record: &PackRecord) -> Result<(usize, usize)> {
        let (mut saved, mut lost, mut next) = (0_usize, 0_usize, 0);
        for number in 0..record.directory.frames.len() {
            let Some(frame) = record.directory.frames.get(number) else { break };
            let range = next..next + frame.blobs as usize;
            next = range.end;
            let blobs = record.directory.blobs.get(range).unwrap_or_default();
            let needed = self.needed(blobs)?;
            if needed.is_empty() {
                continue;
            }
            let plain = self.read_frame(record, number)?.unwrap_or_default();
            let (mut at, mut kept, mut bytes) = (0, Vec::new(), Vec::new());
            for blob in blobs {
                let data = plain.get(at..at + blob.length as usize);
                at += blob.length as usize;
                if !needed.contains(&blob.id) || self.saved.contains(&blob.id) {
                    continue;
                }
                match data.filter(|data| self.reader.verify(&blob.id, data)) {
                    Some(data) => {
                        bytes.extend_from_slice(data);
                        kept.push(*blob);
                        self.saved.insert(blob.id);
                        if self.lost.remove(&blob.id) {
                            lost = lost.saturating_sub(1);
                        }
                        saved += 1;
                    }
                    None if self.lost.insert(blob.id) => lost += 1,
                    None => {}
                }
            }
            self.store(frame.kind, &bytes, &kept)?;
        }
        Ok((saved, lost))
    }

    /// The blobs that no good pack has.
    fn needed(&self, blobs: &[BlobEntry]) -> Result<HashSet<BlobId>> {
        let mut needed = HashSet::new();
        for blob in blobs {
            let elsewhere = self.reader.index().locate(&blob.id, &|pack| !self.ordinals.contains(&pack))?;
            if elsewhere.is_none() && !self.saved.contains(&blob.id) {
                needed.insert(blob.id);
            }
        }
        Ok(needed)
    }

    /// A frame's plaintext, if it can be read.
    fn read_frame(&self, record: &PackRecord, number: usize) -> Result<Option<Vec<u8>>> {
        let Some(frame) = record.directory.frames.get(number) else { return Ok(None) };
        let repo = self.reader.repo();
        let Ok((_, cipher)) = parse_header(&repo.keys().data, &repo.id(), &record.header) else { return Ok(None) };
        let object = names::pack(record.epoch, &record.id);
        let read = repo.backend().read_range(&object, u64::from(frame.offset), frame.sealed as usize).map_err(Error::from);
        let mut sealed = match read {
            Ok(bytes) => Vec::from(bytes),
            Err(error) if error.is_local() => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut plain = Vec::new();
        Ok(pack::open_frame(&cipher, number as u64, frame, &mut sealed, &mut plain).is_ok().then_some(plain))
    }

    fn store(&mut self, kind: BlobKind, plain: &[u8], blobs: &[BlobEntry]) -> Result<()> {
        if blobs.is_empty() || self.options.dry_run {
            return Ok(());
        }
        let (mut packed, mut scratch) = (Vec::new(), Vec::new());
        let compression = codec::compress(plain, self.options.level, &mut packed, &mut scratch)
            .map_err(|e| Error::damaged("a new frame", e))?;
        let stored = if compression == Compression::None { plain } else { &packed };
        let raw = u32::try_from(plain.len()).map_err(|_| Error::Invalid("a frame is too large".into()))?;
        let repo = self.reader.repo();
        let at = match self.lanes.iter().position(|lane| lane.kind == kind) {
            Some(at) => at,
            None => {
                let pack = OpenPack::new(&repo.keys().data, repo.suite(), &repo.id(), &self.pool);
                self.lanes.push(Lane { kind, pack });
                self.lanes.len() - 1
            }
        };
        let Some(lane) = self.lanes.get_mut(at) else { return Ok(()) };
        lane.pack.add(kind, raw, compression, stored, blobs)?;
        if lane.pack.is_full(repo.config().pack_target as usize) {
            let lane = self.lanes.swap_remove(at);
            self.finish_pack(lane)?;
        }
        Ok(())
    }

    fn finish_pack(&mut self, lane: Lane) -> Result<()> {
        let pack = lane.pack.finish()?;
        let (repo, epoch) = (self.reader.repo(), self.reader.view().epoch);
        repo.backend().create(&names::pack(epoch, &pack.id), pack.bytes.clone())?;
        self.written += 1;
        self.segments.add(pack.into_record(epoch))
    }

    /// Stores the packs that are open; how many there were in all.
    fn finish(&mut self) -> Result<u64> {
        while let Some(lane) = self.lanes.pop() {
            self.finish_pack(lane)?;
        }
        Ok(self.written)
    }
}
