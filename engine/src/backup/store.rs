//! Storing new blobs: claims, frames, packs, uploads, segments. Shared by all threads of a backup.
//!
//! CPU work ([`Store::put`]) never waits for I/O: finished packs go to the uploaders through a channel whose content is
//! bounded by the memory budget.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crossbeam_channel::Sender;

use super::budget::{Budget, Permit};
use crate::backend::ErrorKind;
use crate::buffer::BufferPool;
use crate::catalog::NodeSink;
use crate::codec::{self, Level};
use crate::crypto::random_bytes;
use crate::error::{Error, Result};
use crate::format::pack::{BlobEntry, BlobKind, Compression, PackRecord, SegmentName};
use crate::format::segment;
use crate::id::{BlobId, Epoch, ObjectId};
use crate::monitor::{Counter, Monitor, lock};
use crate::pack::{OpenPack, SealedPack};
use crate::repo::{Reader, names};

/// Plaintext of a frame in bytes: a whole batch. Small files compress together (2 MiB give 2 % more than 1 MiB), and one of
/// them still costs only one small read.
const FRAME_TARGET: usize = 2 << 20;
/// Nodes are read more often and one by one: smaller frames.
const NODE_FRAME_TARGET: usize = 256 << 10;
/// New blobs of a batch are sealed at once if there are this many bytes of them; fewer wait for others.
const FRAME_MIN: usize = FRAME_TARGET / 2;
/// A segment is written after this many blobs, so that memory for claims and what a crash can cost stay bounded.
const SEGMENT_BLOBS: usize = 128 * 1024;
/// And after so many full packs (512 MiB by default): a backup that is killed, or whose epoch is ended by maintenance, has to
/// store at most this much again.
const SEGMENT_PACKS: u64 = 32;
const CLAIM_SHARDS: usize = 64;

/// A finished pack on its way to the store.
pub(super) struct Upload {
    pack: SealedPack,
    _permits: Vec<Permit>,
}

#[derive(Default)]
struct Lane {
    pack: Option<OpenPack>,
    permits: Vec<Permit>,
}

/// Blobs that wait for others to share a frame with.
#[derive(Default)]
struct Loose {
    plain: Vec<u8>,
    blobs: Vec<BlobEntry>,
    permit: Option<Permit>,
}

#[derive(Default)]
struct Stored {
    /// Packs in the store that no segment of ours names yet.
    unindexed: Vec<PackRecord>,
    /// Names and sizes of all packs of this session.
    packs: Vec<(ObjectId, u64)>,
}

/// The first failure, until somebody takes it. Later ones follow from it.
#[derive(Default)]
struct Failure {
    happened: bool,
    error: Option<Error>,
}

/// Figures of a session.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// New data blobs.
    pub(super) data_blobs: AtomicU64,
    /// Bytes of new blobs, data and nodes.
    pub(super) added: AtomicU64,
    /// Bytes they take in frames.
    pub(super) stored: AtomicU64,
}

/// See the module.
pub(super) struct Store {
    pub(super) reader: Arc<Reader>,
    pub(super) budget: Arc<Budget>,
    pub(super) figures: Figures,
    monitor: Arc<dyn Monitor>,
    level: Level,
    dry_run: bool,
    claims: Vec<Mutex<HashMap<BlobId, u32>>>,
    /// Packs that snapshots of this session refer to, by ordinal; W6 looks whether they are all there.
    used: Vec<AtomicU64>,
    lanes: Vec<Mutex<Lane>>,
    node_lane: Mutex<Lane>,
    loose: Mutex<Loose>,
    loose_nodes: Mutex<Loose>,
    pool: Arc<BufferPool>,
    uploads: Mutex<Option<Sender<Upload>>>,
    stored: Mutex<Stored>,
    failure: Mutex<Failure>,
    packs_in_flight: AtomicU64,
}

impl Store {
    pub(super) fn new(
        reader: Arc<Reader>,
        monitor: Arc<dyn Monitor>,
        level: Level,
        dry_run: bool,
        budget: Arc<Budget>,
        uploads: Sender<Upload>,
    ) -> Result<Self> {
        let mut packs = 0_u32;
        reader.index().packs(|ordinal, _, _, _| packs = packs.max(ordinal + 1))?;
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let target = reader.repo().config().pack_target as usize;
        Ok(Self {
            budget,
            figures: Figures::default(),
            monitor,
            level,
            dry_run,
            claims: (0..CLAIM_SHARDS).map(|_| Mutex::default()).collect(),
            used: (0..packs.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            // At least two, chosen by chance, so that the order of chunks in a pack says little (security.md 3.4).
            lanes: (0..(threads / 2).clamp(2, 4)).map(|_| Mutex::default()).collect(),
            node_lane: Mutex::default(),
            loose: Mutex::default(),
            loose_nodes: Mutex::default(),
            pool: BufferPool::new(target + target / 4 + (4 << 20)),
            uploads: Mutex::new(Some(uploads)),
            stored: Mutex::default(),
            failure: Mutex::default(),
            packs_in_flight: AtomicU64::new(0),
            reader,
        })
    }

    fn epoch(&self) -> Epoch {
        self.reader.view().epoch
    }

    /// Remembers the first failure and stops everyone.
    pub(super) fn fail(&self, error: Error) {
        let mut failure = lock(&self.failure);
        if !std::mem::replace(&mut failure.happened, true) {
            failure.error = Some(error);
        }
        drop(failure);
        self.budget.close();
    }

    /// The first failure, if there was one.
    pub(super) fn check(&self) -> Result<()> {
        lock(&self.failure).error.take().map_or(Ok(()), Err)
    }

    /// Whether something failed.
    pub(super) fn has_failed(&self) -> bool {
        lock(&self.failure).happened
    }

    fn shard(&self, id: &BlobId) -> &Mutex<HashMap<BlobId, u32>> {
        &self.claims[usize::from(id.0[31]) % CLAIM_SHARDS]
    }

    /// Whether the blob is stored, or being stored by this session; if so, its pack counts as used.
    pub(super) fn is_known(&self, id: &BlobId) -> Result<bool> {
        if lock(self.shard(id)).contains_key(id) {
            return Ok(true);
        }
        let Some(place) = self.reader.locate_usable(id)? else { return Ok(false) };
        if let Some(word) = self.used.get(place.pack as usize / 64) {
            word.fetch_or(1 << (place.pack % 64), Ordering::Relaxed);
        }
        Ok(true)
    }

    /// Claims a blob: `true` = the caller stores it, `false` = it is known or somebody else is storing it.
    fn claim(&self, id: &BlobId, length: u32) -> Result<bool> {
        if self.is_known(id)? {
            return Ok(false);
        }
        Ok(lock(self.shard(id)).insert(*id, length).is_none())
    }

    /// Hashes the pieces of `plain`, stores those that are new, and returns all ids. `permit` covers `plain`.
    pub(super) fn put(&self, plain: &mut [u8], pieces: &[std::ops::Range<usize>], permit: &mut Permit) -> Result<Vec<BlobId>> {
        let keys = self.reader.repo().keys();
        let ids: Vec<BlobId> = pieces.iter().map(|p| keys.blob_id(&plain[p.clone()])).collect();
        let mut new = Vec::new();
        let mut end = 0;
        for (piece, id) in pieces.iter().zip(&ids) {
            let length = u32::try_from(piece.len()).map_err(|_| Error::Invalid("a chunk is too large".into()))?;
            if self.claim(id, length)? {
                new.push(BlobEntry { id: *id, length });
                plain.copy_within(piece.clone(), end);
                end += piece.len();
            }
        }
        if new.is_empty() {
            return Ok(ids);
        }
        self.figures.data_blobs.fetch_add(new.len() as u64, Ordering::Relaxed);
        self.figures.added.fetch_add(end as u64, Ordering::Relaxed);
        if self.dry_run {
            return Ok(ids);
        }
        let fresh = &plain[..end];
        if end >= FRAME_MIN {
            self.seal_in_frames(fresh, &new, permit)?;
        } else if let Some(full) = self.add_loose(fresh, &new, permit) {
            self.seal_loose(BlobKind::Data, full)?;
        }
        Ok(ids)
    }

    /// Cuts a run of blobs into frames of about the same size near the target.
    fn seal_in_frames(&self, plain: &[u8], blobs: &[BlobEntry], permit: &mut Permit) -> Result<()> {
        let frames = ((plain.len() + FRAME_TARGET / 2) / FRAME_TARGET).max(1);
        let target = plain.len().div_ceil(frames);
        let (mut from, mut first, mut end) = (0, 0, 0);
        for (i, blob) in blobs.iter().enumerate() {
            end += blob.length as usize;
            if end - from >= target || i + 1 == blobs.len() {
                self.seal_frame(BlobKind::Data, &plain[from..end], &blobs[first..=i], permit)?;
                (from, first) = (end, i + 1);
            }
        }
        Ok(())
    }

    fn add_loose(&self, plain: &[u8], blobs: &[BlobEntry], permit: &mut Permit) -> Option<Loose> {
        let mut loose = lock(&self.loose);
        loose.plain.extend_from_slice(plain);
        loose.blobs.extend_from_slice(blobs);
        let share = permit.split(plain.len());
        match &mut loose.permit {
            Some(have) => have.join(share),
            none => *none = Some(share),
        }
        (loose.plain.len() >= FRAME_TARGET).then(|| std::mem::take(&mut *loose))
    }

    fn seal_loose(&self, kind: BlobKind, mut loose: Loose) -> Result<()> {
        match loose.permit.take() {
            Some(mut permit) if !loose.blobs.is_empty() => self.seal_frame(kind, &loose.plain, &loose.blobs, &mut permit),
            _ => Ok(()),
        }
    }

    /// Compresses one frame and adds it to an open pack.
    fn seal_frame(&self, kind: BlobKind, plain: &[u8], blobs: &[BlobEntry], permit: &mut Permit) -> Result<()> {
        thread_local! {
            static SCRATCH: std::cell::RefCell<(Vec<u8>, Vec<u8>)> = const { std::cell::RefCell::new((Vec::new(), Vec::new())) };
        }
        SCRATCH.with_borrow_mut(|(packed, scratch)| {
            let compression =
                codec::compress(plain, self.level, packed, scratch).map_err(|e| Error::damaged("a new frame", e))?;
            let stored = if compression == Compression::None { plain } else { packed };
            self.figures.stored.fetch_add(stored.len() as u64, Ordering::Relaxed);
            let raw = u32::try_from(plain.len()).map_err(|_| Error::Invalid("a frame is too large".into()))?;
            let lane = match kind {
                BlobKind::Node => &self.node_lane,
                BlobKind::Data => {
                    let [chance] = random_bytes::<1>();
                    &self.lanes[usize::from(chance) % self.lanes.len()]
                }
            };
            let full = self.add_to_lane(lane, kind, raw, compression, stored, blobs, permit.split(stored.len()))?;
            if let Some(full) = full { self.finish_pack(full) } else { Ok(()) }
        })
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of a frame, passed on once")]
    fn add_to_lane(
        &self,
        lane: &Mutex<Lane>,
        kind: BlobKind,
        raw: u32,
        compression: Compression,
        stored: &[u8],
        blobs: &[BlobEntry],
        permit: Permit,
    ) -> Result<Option<Lane>> {
        let repo = self.reader.repo();
        let mut lane = lock(lane);
        let pack = lane.pack.get_or_insert_with(|| OpenPack::new(&repo.keys().data, repo.suite(), &repo.id(), &self.pool));
        pack.add(kind, raw, compression, stored, blobs)?;
        let full = pack.is_full(repo.config().pack_target as usize);
        lane.permits.push(permit);
        Ok(full.then(|| std::mem::take(&mut *lane)))
    }

    fn finish_pack(&self, lane: Lane) -> Result<()> {
        let Some(open) = lane.pack.filter(|p| !p.is_empty()) else { return Ok(()) };
        let pack = open.finish()?;
        self.packs_in_flight.fetch_add(1, Ordering::SeqCst);
        let upload = Upload { pack, _permits: lane.permits };
        let sent = lock(&self.uploads).as_ref().is_some_and(|tx| tx.send(upload).is_ok());
        if sent { Ok(()) } else { Err(Error::Invalid("the uploaders are gone".into())) }
    }

    /// Stores a finished pack; runs on an uploader's thread.
    pub(super) fn upload(&self, upload: Upload) {
        let Upload { pack, _permits } = upload;
        let result = self.create_pack(pack);
        if let Err(e) = result {
            self.fail(e);
        }
        self.packs_in_flight.fetch_sub(1, Ordering::SeqCst);
    }

    fn create_pack(&self, pack: SealedPack) -> Result<()> {
        if self.has_failed() {
            return Ok(());
        }
        let name = names::pack(self.epoch(), &pack.id);
        let size = pack.bytes.len() as u64;
        match self.reader.repo().backend().create(&name, pack.bytes.clone()) {
            // The name is the hash of the bytes: whatever lies there under it is this pack, or check will find it.
            Err(e) if e.kind != ErrorKind::AlreadyExists => return Err(e.into()),
            _ => {}
        }
        self.monitor.count(Counter::StoredBytes, size);
        self.monitor.count(Counter::Packs, 1);
        let mut stored = lock(&self.stored);
        stored.packs.push((pack.id, size));
        stored.unindexed.push(pack.into_record(self.epoch()));
        Ok(())
    }

    /// Packs that are finished and not yet in the store.
    pub(super) fn packs_in_flight(&self) -> u64 {
        self.packs_in_flight.load(Ordering::SeqCst)
    }

    /// Finishes all frames and packs that are open. The uploads go on.
    pub(super) fn finish_open(&self) -> Result<()> {
        let (loose, nodes) = (std::mem::take(&mut *lock(&self.loose)), std::mem::take(&mut *lock(&self.loose_nodes)));
        self.seal_loose(BlobKind::Data, loose)?;
        self.seal_loose(BlobKind::Node, nodes)?;
        for lane in self.lanes.iter().chain([&self.node_lane]) {
            let lane = std::mem::take(&mut *lock(lane));
            self.finish_pack(lane)?;
        }
        Ok(())
    }

    /// Whether enough packs wait to be named by a segment.
    pub(super) fn segment_is_due(&self) -> bool {
        let stored = lock(&self.stored);
        let blobs: usize = stored.unindexed.iter().map(|p| p.directory.blobs.len()).sum();
        let bytes = stored.unindexed.iter().map(|p| p.size).sum::<u64>();
        blobs >= SEGMENT_BLOBS || bytes >= SEGMENT_PACKS * u64::from(self.reader.repo().config().pack_target)
    }

    /// Writes a segment that names the packs stored so far; from then on a later run finds their blobs, whatever happens
    /// to this one.
    pub(super) fn write_segment(&self) -> Result<()> {
        let packs = std::mem::take(&mut lock(&self.stored).unindexed);
        if packs.is_empty() {
            return Ok(());
        }
        let repo = self.reader.repo();
        repo.backend().barrier()?;
        let bytes = segment::seal(&repo.keys().index, repo.id(), self.epoch(), &packs)
            .map_err(|e| Error::damaged("a new index segment", e))?;
        let name = SegmentName { epoch: self.epoch(), id: ObjectId::of(&bytes) };
        repo.backend().create(&names::segment(&name), bytes.into())?;
        self.reader.index().add(name, &packs)?;
        for blob in packs.iter().flat_map(|p| &p.directory.blobs) {
            lock(self.shard(&blob.id)).remove(&blob.id);
        }
        Ok(())
    }

    /// No further packs: lets the uploaders end.
    pub(super) fn close_uploads(&self) {
        lock(&self.uploads).take();
    }

    /// W6: lists the packs once and returns those that are referred to but not there with their size.
    pub(super) fn missing_packs(&self) -> Result<Vec<(Epoch, ObjectId)>> {
        let repo = self.reader.repo();
        let mut there = HashMap::new();
        repo.backend().list("packs/", &mut |meta| {
            if let Some(name) = names::parse_epoch_id(&meta.key, "packs") {
                there.insert(name, meta.size);
            }
        })?;
        let mut missing = Vec::new();
        let mut look = |epoch, id, size| {
            if there.get(&(epoch, id)) != Some(&size) {
                missing.push((epoch, id));
            }
        };
        for (id, size) in &lock(&self.stored).packs {
            look(self.epoch(), *id, *size);
        }
        self.reader.index().packs(|ordinal, epoch, id, size| {
            let used = self.used.get(ordinal as usize / 64).is_some_and(|w| w.load(Ordering::Relaxed) >> (ordinal % 64) & 1 == 1);
            if used {
                look(epoch, id, size);
            }
        })?;
        Ok(missing)
    }
}

/// Nodes of the catalog and of blob lists; called on the coordinator's thread only.
pub(super) struct Nodes<'a>(pub(super) &'a Store);

impl NodeSink for Nodes<'_> {
    fn store(&mut self, node: Vec<u8>) -> Result<BlobId> {
        let store = self.0;
        let id = store.reader.repo().keys().blob_id(&node);
        let length = u32::try_from(node.len()).map_err(|_| Error::Invalid("a node is too large".into()))?;
        if !store.claim(&id, length)? {
            return Ok(id);
        }
        store.figures.added.fetch_add(node.len() as u64, Ordering::Relaxed);
        if store.dry_run {
            return Ok(id);
        }
        let Some(permit) = store.budget.acquire(node.len()) else { return Err(Error::Interrupted) };
        let full = {
            let mut loose = lock(&store.loose_nodes);
            loose.plain.extend_from_slice(&node);
            loose.blobs.push(BlobEntry { id, length });
            match &mut loose.permit {
                Some(have) => have.join(permit),
                none => *none = Some(permit),
            }
            (loose.plain.len() >= NODE_FRAME_TARGET).then(|| std::mem::take(&mut *loose))
        };
        if let Some(full) = full {
            store.seal_loose(BlobKind::Node, full)?;
        }
        Ok(id)
    }
}
