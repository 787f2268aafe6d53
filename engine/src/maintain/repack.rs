//! Copying what is needed out of packs that hold little else.
//!
//! A frame that is needed whole is copied as it is compressed; of others, the needed blobs are put into new frames. Every blob
//! is checked against its id before it is copied: a damaged copy must not take the place of a good one.
//!
//! One thread fetches, this one works, a few store. In memory: two packs on their way in, two open ones, up to five on their
//! way out.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::plan::{Plan, Tally};
use crate::backend::ErrorKind;
use crate::codec;
use crate::crypto::frames::PackCipher;
use crate::error::{Error, Result};
use crate::format::pack::{BlobEntry, BlobKind, Compression, Directory, FrameEntry, PackRecord, SegmentName, parse_header};
use crate::format::segment;
use crate::id::{Epoch, ObjectId};
use crate::index::PackSummary;
use crate::monitor::{Counter, Monitor, Problem, lock};
use crate::pack::{BufferPool, OpenPack, SealedPack, open_directory};
use crate::protocol::Name;
use crate::repo::{Reader, names};

/// Plaintext of a new frame in bytes, for data and for nodes.
const FRAME_TARGET: [usize; 2] = [2 << 20, 256 << 10];
/// A segment is written after this many blobs.
const SEGMENT_BLOBS: usize = 128 * 1024;
/// Threads that store packs.
const UPLOADERS: usize = 4;

/// What repacking came to.
#[derive(Debug, Default)]
pub(super) struct Repacked {
    /// New segments.
    pub(super) segments: Vec<SegmentName>,
    /// Packs of which every needed blob is copied.
    pub(super) emptied: Vec<Name>,
    /// New packs.
    pub(super) written: Tally,
}

type Fetched = (u32, Arc<PackSummary>, Result<bytes::Bytes>);

/// Copies what the plan wants copied, into packs and segments of the reader's epoch.
pub(super) fn repack(reader: &Reader, plan: &Plan<'_>, monitor: &dyn Monitor) -> Result<Repacked> {
    if plan.repack.is_empty() {
        return Ok(Repacked::default());
    }
    monitor.stage("repacking");
    monitor.expect(Counter::Packs, plan.repack.len() as u64);
    let (fetched_tx, fetched) = bounded::<Fetched>(1);
    let (uploads_tx, uploads) = bounded::<SealedPack>(1);
    let stored: Stored = Mutex::new(Ok(Vec::new()));
    let copied = std::thread::scope(|scope| {
        scope.spawn(move || fetch(reader, &plan.repack, &fetched_tx));
        for _ in 0..reader.repo().backend().concurrency().clamp(1, UPLOADERS) {
            let (uploads, stored) = (uploads.clone(), &stored);
            scope.spawn(move || upload(reader, &uploads, stored, monitor));
        }
        drop(uploads);
        let target = reader.repo().config().pack_target as usize;
        let pool = BufferPool::new(target + target / 4 + (4 << 20));
        let sink = Sink { reader, pool, uploads: uploads_tx, lanes: Default::default(), stored: &stored };
        // Ends with the receiver of the one thread and the sender of the others, so that all of them end, too.
        copy_all(plan, fetched, sink, monitor)
    });
    let mut result = copied?;
    write_segments(reader, &stored, &mut result, true)?;
    Ok(result)
}

fn fetch(reader: &Reader, ordinals: &[u32], out: &Sender<Fetched>) {
    for ordinal in ordinals {
        let Ok(summary) = reader.index().pack(*ordinal) else { continue };
        let object = names::pack(summary.epoch, &summary.id);
        let bytes = reader.repo().read_named(&object, &summary.id, summary.size);
        // Nobody listens any more after a failure.
        if out.send((*ordinal, summary, bytes)).is_err() {
            return;
        }
    }
}

fn upload(reader: &Reader, packs: &Receiver<SealedPack>, stored: &Stored, monitor: &dyn Monitor) {
    let epoch = reader.view().epoch;
    for pack in packs {
        let size = pack.bytes.len() as u64;
        let created = reader.repo().backend().create(&names::pack(epoch, &pack.id), pack.bytes.clone());
        let mut stored = lock(stored);
        match created {
            Err(e) if e.kind != ErrorKind::AlreadyExists => *stored = Err(e.into()),
            _ => {
                monitor.count(Counter::StoredBytes, size);
                if let Ok(records) = &mut *stored {
                    records.push(pack.into_record(epoch));
                }
            }
        }
        if stored.is_err() {
            return;
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the receiver has to be gone when this returns")]
fn copy_all(plan: &Plan<'_>, fetched: Receiver<Fetched>, mut sink: Sink<'_>, monitor: &dyn Monitor) -> Result<Repacked> {
    let mut result = Repacked::default();
    for (ordinal, summary, bytes) in &fetched {
        if monitor.cancelled() {
            return Err(Error::Interrupted);
        }
        match bytes.and_then(|bytes| sink.copy(plan, ordinal, &summary, &bytes)) {
            Ok(()) => result.emptied.push((summary.epoch, summary.id)),
            // It stays where it is.
            Err(Error::Damaged { object, detail }) => monitor.problem(Problem { subject: object, message: detail }),
            Err(e) => return Err(e),
        }
        monitor.count(Counter::Packs, 1);
        write_segments(sink.reader, sink.stored, &mut result, false)?;
    }
    sink.finish()?;
    Ok(result)
}

/// Blobs that wait for others to share a frame with, and the pack that is being filled.
#[derive(Default)]
struct Lane {
    pack: Option<OpenPack>,
    plain: Vec<u8>,
    blobs: Vec<BlobEntry>,
}

/// Takes blobs and frames, and makes packs and segments of them.
struct Sink<'a> {
    reader: &'a Reader,
    pool: Arc<BufferPool>,
    uploads: Sender<SealedPack>,
    /// For data and for nodes.
    lanes: [Lane; 2],
    stored: &'a Stored,
}

impl Sink<'_> {
    /// Copies what is to stay of a pack.
    fn copy(&mut self, plan: &Plan<'_>, ordinal: u32, summary: &PackSummary, bytes: &[u8]) -> Result<()> {
        let repo = self.reader.repo();
        let damaged = |e: &dyn std::fmt::Display| Error::damaged(names::pack(summary.epoch, &summary.id), e);
        let (_, cipher) = parse_header(&repo.keys().data, &repo.id(), bytes).map_err(|e| damaged(&e))?;
        let directory = open_directory(&cipher, bytes).map_err(|e| damaged(&e))?;
        let mut next = 0;
        for (number, frame) in directory.frames.iter().enumerate() {
            let blobs = directory.blobs.get(next..next + frame.blobs as usize).unwrap_or_default();
            next += frame.blobs as usize;
            let keep = which(plan, ordinal, number, blobs)?;
            if keep.contains(&true) {
                self.copy_frame(&cipher, (number, frame, blobs), &keep, bytes).map_err(|e| match e {
                    FrameError::Damaged(why) => damaged(&format!("frame {number}: {why}; the pack is left where it is")),
                    FrameError::Other(e) => e,
                })?;
            }
        }
        agree(&directory, summary).map_err(|e| damaged(&e))
    }

    fn copy_frame(
        &mut self,
        cipher: &PackCipher,
        (number, frame, blobs): (usize, &FrameEntry, &[BlobEntry]),
        keep: &[bool],
        bytes: &[u8],
    ) -> Result<(), FrameError> {
        let bad = |why: &str| FrameError::Damaged(why.to_owned());
        let range = frame.offset as usize..(frame.offset as usize).saturating_add(frame.sealed as usize);
        let mut sealed = bytes.get(range).ok_or_else(|| bad("lies outside of the pack"))?.to_vec();
        let text = cipher.open(number as u64, frame.kind as u8, &mut sealed).map_err(|_| bad("does not authenticate"))?;
        let mut unpacked = Vec::new();
        let plain = match frame.compression {
            Compression::None => &text[..],
            Compression::Zstd => {
                codec::decompress(text, frame.raw as usize, &mut unpacked).map_err(|e| FrameError::Damaged(e.to_string()))?;
                unpacked.as_slice()
            }
        };
        let mut pieces = Vec::new();
        let mut rest = plain;
        for (blob, keep) in blobs.iter().zip(keep) {
            let (piece, after) = rest.split_at_checked(blob.length as usize).ok_or_else(|| bad("is too short for its blobs"))?;
            rest = after;
            if *keep && !self.reader.verify(&blob.id, piece) {
                return Err(bad("holds a blob that is not what its id says"));
            }
            pieces.extend(keep.then_some((*blob, piece)));
        }
        if !keep.contains(&false) {
            return Ok(self.add(frame.kind, frame.raw, frame.compression, text, blobs)?);
        }
        for (blob, piece) in pieces {
            let lane = &mut self.lanes[frame.kind as usize];
            lane.plain.extend_from_slice(piece);
            lane.blobs.push(blob);
            if lane.plain.len() >= FRAME_TARGET[frame.kind as usize] {
                self.seal_loose(frame.kind)?;
            }
        }
        Ok(())
    }

    /// Puts a frame into the open pack.
    fn add(&mut self, kind: BlobKind, raw: u32, compression: Compression, stored: &[u8], blobs: &[BlobEntry]) -> Result<()> {
        let repo = self.reader.repo();
        let lane = &mut self.lanes[kind as usize];
        let pack = lane.pack.get_or_insert_with(|| OpenPack::new(&repo.keys().data, repo.suite(), &repo.id(), &self.pool));
        pack.add(kind, raw, compression, stored, blobs)?;
        if pack.is_full(repo.config().pack_target as usize) { self.finish_pack(kind) } else { Ok(()) }
    }

    fn seal_loose(&mut self, kind: BlobKind) -> Result<()> {
        let lane = &mut self.lanes[kind as usize];
        let (plain, blobs) = (std::mem::take(&mut lane.plain), std::mem::take(&mut lane.blobs));
        if blobs.is_empty() {
            return Ok(());
        }
        let (mut packed, mut scratch) = (Vec::new(), Vec::new());
        let compression = codec::compress(&plain, codec::DEFAULT_LEVEL, &mut packed, &mut scratch)
            .map_err(|e| Error::damaged("a new frame", e))?;
        let raw = u32::try_from(plain.len()).map_err(|_| Error::Invalid("a frame is too large".into()))?;
        let stored = if compression == Compression::None { &plain } else { &packed };
        self.add(kind, raw, compression, stored, &blobs)
    }

    fn finish_pack(&mut self, kind: BlobKind) -> Result<()> {
        let Some(pack) = self.lanes[kind as usize].pack.take().filter(|pack| !pack.is_empty()) else { return Ok(()) };
        if self.uploads.send(pack.finish()?).is_ok() {
            return Ok(());
        }
        // The uploaders end early only after a failure.
        std::mem::replace(&mut *lock(self.stored), Ok(Vec::new())).map(drop)?;
        Err(Error::Invalid("the uploaders are gone".into()))
    }

    /// Hands on all that is open.
    fn finish(mut self) -> Result<()> {
        for kind in [BlobKind::Data, BlobKind::Node] {
            self.seal_loose(kind)?;
            self.finish_pack(kind)?;
        }
        Ok(())
    }
}

type Stored = Mutex<Result<Vec<PackRecord>>>;

/// Names stored packs in a segment, once there are enough, or all of them.
fn write_segments(reader: &Reader, stored: &Stored, result: &mut Repacked, all: bool) -> Result<()> {
    let records = {
        let mut stored = lock(stored);
        let taken = std::mem::replace(&mut *stored, Ok(Vec::new()))?;
        let blobs: usize = taken.iter().map(|pack| pack.directory.blobs.len()).sum();
        if taken.is_empty() || !all && blobs < SEGMENT_BLOBS {
            *stored = Ok(taken);
            return Ok(());
        }
        taken
    };
    for pack in &records {
        result.written.packs += 1;
        result.written.bytes += pack.size;
    }
    result.segments.push(write_segment(reader, reader.view().epoch, &records)?);
    Ok(())
}

enum FrameError {
    Damaged(String),
    Other(Error),
}

impl From<Error> for FrameError {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// Which blobs of a frame are the copies that stay.
fn which(plan: &Plan<'_>, ordinal: u32, frame: usize, blobs: &[BlobEntry]) -> Result<Vec<bool>> {
    let mut offset = 0_u64;
    let mut keep = Vec::with_capacity(blobs.len());
    for blob in blobs {
        let found = plan.frozen.find(&blob.id, &|pack| pack == ordinal)?;
        keep.push(
            found.is_some_and(|(number, at)| {
                at.frame as usize == frame && u64::from(at.offset) == offset && plan.kept.get(number)
            }),
        );
        offset += u64::from(blob.length);
    }
    Ok(keep)
}

/// The index must know the frames that the pack has: else it may have promised blobs that were not copied.
fn agree(directory: &Directory, summary: &PackSummary) -> Result<(), String> {
    if directory.frames == summary.frames {
        Ok(())
    } else {
        Err("the index describes it differently; it is left where it is".into())
    }
}

/// Stores a segment that names these packs, and adds it to the local index.
pub(super) fn write_segment(reader: &Reader, epoch: Epoch, packs: &[PackRecord]) -> Result<SegmentName> {
    let repo = reader.repo();
    // The packs first.
    repo.backend().barrier()?;
    let bytes =
        segment::seal(&repo.keys().index, repo.id(), epoch, packs).map_err(|e| Error::damaged("a new index segment", e))?;
    let name = SegmentName { epoch, id: ObjectId::of(&bytes) };
    repo.backend().create(&names::segment(&name), bytes.into())?;
    reader.index().add(name, packs)?;
    Ok(name)
}

/// Fails unless every needed blob lies in a pack that is there and not condemned.
pub(super) fn verify(reader: &Reader, plan: &Plan<'_>, condemned: &HashSet<Name>) -> Result<()> {
    let mut bad = HashSet::new();
    reader.index().packs(|ordinal, epoch, id, _| {
        if condemned.contains(&(epoch, id)) || plan.missing.contains(&ordinal) {
            bad.insert(ordinal);
        }
    })?;
    plan.frozen.blobs(|id, copies| {
        let needed = copies.iter().any(|(number, _)| plan.needed.get(*number));
        let safe = !needed
            || copies.iter().any(|(_, at)| !bad.contains(&at.pack))
            || reader.index().locate(id, &|pack| !bad.contains(&pack))?.is_some();
        if safe { Ok(()) } else { Err(Error::Invalid(format!("blob {id} would be lost; nothing is deleted (this is a bug)"))) }
    })
}
