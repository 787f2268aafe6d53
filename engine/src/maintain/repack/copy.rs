//! From frames of old packs to frames of new ones.

use std::sync::Arc;

use crossbeam_channel::Sender;
use rayon::prelude::*;

use super::Stored;
use crate::codec;
use crate::crypto::frames::PackCipher;
use crate::error::{Error, Result};
use crate::format::pack::{BlobEntry, BlobKind, Compression, Directory, FrameEntry, parse_header};
use crate::index::PackSummary;
use crate::maintain::plan::Plan;
use crate::monitor::lock;
use crate::pack::{BufferPool, OpenPack, SealedPack, open_directory};
use crate::repo::{Reader, names};

/// Plaintext of a new frame in bytes, for data and for nodes.
const FRAME_TARGET: [usize; 2] = [2 << 20, 256 << 10];
/// Plaintext of frames that are worked on at a time, in bytes; a frame that is larger is alone.
pub(super) const BATCH: u64 = 32 << 20;

/// Blobs that wait for others to share a frame with, and the pack that is being filled.
#[derive(Default)]
struct Lane {
    pack: Option<OpenPack>,
    plain: Vec<u8>,
    blobs: Vec<BlobEntry>,
}

/// A frame that is to be copied from.
struct Source<'p> {
    number: usize,
    frame: &'p FrameEntry,
    blobs: &'p [BlobEntry],
}

/// What is to stay of a frame.
enum Kept {
    Nothing,
    /// The frame as it is compressed.
    Whole(Vec<u8>),
    Pieces(Vec<(BlobEntry, Vec<u8>)>),
}

/// A frame for a new pack.
struct NewFrame {
    kind: BlobKind,
    raw: u32,
    compression: Compression,
    /// Compressed as said.
    stored: Vec<u8>,
    blobs: Vec<BlobEntry>,
}

/// A frame for a new pack, or what will be one.
enum Next {
    Ready(NewFrame),
    Plain(BlobKind, Vec<u8>, Vec<BlobEntry>),
}

/// Takes what is to stay of packs, and makes packs of it.
pub(super) struct Sink<'a> {
    pub(super) reader: &'a Reader,
    plan: &'a Plan<'a>,
    workers: rayon::ThreadPool,
    pool: Arc<BufferPool>,
    uploads: Sender<SealedPack>,
    /// For data and for nodes.
    lanes: [Lane; 2],
    pub(super) stored: &'a Stored,
}

impl<'a> Sink<'a> {
    pub(super) fn new(reader: &'a Reader, plan: &'a Plan<'a>, uploads: Sender<SealedPack>, stored: &'a Stored) -> Result<Self> {
        let target = reader.repo().config().pack_target as usize;
        let pool = BufferPool::new(target + target / 4 + (4 << 20));
        let workers = rayon::ThreadPoolBuilder::new().build().map_err(|e| Error::Invalid(e.to_string()))?;
        Ok(Self { reader, plan, workers, pool, uploads, lanes: Default::default(), stored })
    }

    /// Copies what is to stay of a pack.
    pub(super) fn copy(&mut self, ordinal: u32, summary: &PackSummary, bytes: &[u8]) -> Result<()> {
        let repo = self.reader.repo();
        let damaged = |e: &dyn std::fmt::Display| Error::damaged(names::pack(summary.epoch, &summary.id), e);
        let (_, cipher) = parse_header(&repo.keys().data, &repo.id(), bytes).map_err(|e| damaged(&e))?;
        let directory = open_directory(&cipher, bytes).map_err(|e| damaged(&e))?;
        for batch in batches(&directory) {
            let (reader, plan) = (self.reader, self.plan);
            let unpack = |source: &Source<'_>| unpack(reader, plan, ordinal, &cipher, source, bytes);
            let kept: Vec<_> = self.workers.install(|| batch.par_iter().map(unpack).collect());
            let (mut next, mut failure) = (Vec::new(), None);
            for (source, kept) in batch.iter().zip(kept) {
                match kept {
                    Ok(kept) => self.take(source, kept, &mut next),
                    Err(error) => failure = failure.or(Some((source.number, error))),
                }
            }
            // Blobs of other packs are among them.
            self.add_all(next)?;
            match failure {
                None => {}
                Some((_, FrameError::Other(error))) => return Err(error),
                Some((number, FrameError::Damaged(why))) => {
                    return Err(damaged(&format!("frame {number}: {why}; the pack is left where it is")));
                }
            }
        }
        agree(&directory, summary).map_err(|e| damaged(&e))
    }

    /// Makes frames of what stays of one; what is not enough for a frame waits.
    fn take(&mut self, source: &Source<'_>, kept: Kept, next: &mut Vec<Next>) {
        let FrameEntry { kind, raw, compression, .. } = *source.frame;
        match kept {
            Kept::Nothing => {}
            Kept::Whole(stored) => {
                next.push(Next::Ready(NewFrame { kind, raw, compression, stored, blobs: source.blobs.to_vec() }));
            }
            Kept::Pieces(pieces) => {
                let lane = &mut self.lanes[kind as usize];
                for (blob, piece) in pieces {
                    lane.plain.extend_from_slice(&piece);
                    lane.blobs.push(blob);
                    if lane.plain.len() >= FRAME_TARGET[kind as usize] {
                        next.push(Next::Plain(kind, std::mem::take(&mut lane.plain), std::mem::take(&mut lane.blobs)));
                    }
                }
            }
        }
    }

    /// Compresses what is not yet, and puts all into the open packs.
    fn add_all(&mut self, next: Vec<Next>) -> Result<()> {
        let frames: Vec<Result<NewFrame>> = self.workers.install(|| next.into_par_iter().map(Next::compress).collect());
        for frame in frames {
            let NewFrame { kind, raw, compression, stored, blobs } = frame?;
            let repo = self.reader.repo();
            let lane = &mut self.lanes[kind as usize];
            let pack = lane.pack.get_or_insert_with(|| OpenPack::new(&repo.keys().data, repo.suite(), &repo.id(), &self.pool));
            pack.add(kind, raw, compression, &stored, &blobs)?;
            if pack.is_full(repo.config().pack_target as usize) {
                self.finish_pack(kind)?;
            }
        }
        Ok(())
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
    pub(super) fn finish(mut self) -> Result<()> {
        for kind in [BlobKind::Data, BlobKind::Node] {
            let lane = &mut self.lanes[kind as usize];
            let (plain, blobs) = (std::mem::take(&mut lane.plain), std::mem::take(&mut lane.blobs));
            if !blobs.is_empty() {
                self.add_all(vec![Next::Plain(kind, plain, blobs)])?;
            }
            self.finish_pack(kind)?;
        }
        Ok(())
    }
}

impl Next {
    fn compress(self) -> Result<NewFrame> {
        let (kind, plain, blobs) = match self {
            Self::Ready(frame) => return Ok(frame),
            Self::Plain(kind, plain, blobs) => (kind, plain, blobs),
        };
        let (mut packed, mut scratch) = (Vec::new(), Vec::new());
        let compression = codec::compress(&plain, codec::DEFAULT_LEVEL, &mut packed, &mut scratch)
            .map_err(|e| Error::damaged("a new frame", e))?;
        let raw = u32::try_from(plain.len()).map_err(|_| Error::Invalid("a frame is too large".into()))?;
        let stored = if compression == Compression::None { plain } else { packed };
        Ok(NewFrame { kind, raw, compression, stored, blobs })
    }
}

/// The frames of a pack, in groups that fit into memory.
fn batches(directory: &Directory) -> Vec<Vec<Source<'_>>> {
    let (mut batches, mut first, mut raw) = (Vec::<Vec<Source<'_>>>::new(), 0, 0);
    for (number, frame) in directory.frames.iter().enumerate() {
        let blobs = directory.blobs.get(first..first + frame.blobs as usize).unwrap_or_default();
        first += frame.blobs as usize;
        let source = Source { number, frame, blobs };
        raw += u64::from(frame.raw);
        match batches.last_mut() {
            Some(batch) if raw <= BATCH => batch.push(source),
            _ => {
                raw = frame.raw.into();
                batches.push(vec![source]);
            }
        }
    }
    batches
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

/// Opens a frame and checks the blobs that are to stay.
fn unpack(
    reader: &Reader,
    plan: &Plan<'_>,
    ordinal: u32,
    cipher: &PackCipher,
    source: &Source<'_>,
    bytes: &[u8],
) -> Result<Kept, FrameError> {
    let Source { number, frame, blobs } = *source;
    let keep = which(plan, ordinal, number, blobs)?;
    if !keep.contains(&true) {
        return Ok(Kept::Nothing);
    }
    let bad = |why: &str| FrameError::Damaged(why.to_owned());
    let range = frame.offset as usize..(frame.offset as usize).saturating_add(frame.sealed as usize);
    let mut text = bytes.get(range).ok_or_else(|| bad("lies outside of the pack"))?.to_vec();
    let length = cipher.open(number as u64, frame.kind as u8, &mut text).map_err(|_| bad("does not authenticate"))?.len();
    text.truncate(length);
    let mut unpacked = Vec::new();
    let plain = match frame.compression {
        Compression::None => text.as_slice(),
        Compression::Zstd => {
            codec::decompress(&text, frame.raw as usize, &mut unpacked).map_err(|e| FrameError::Damaged(e.to_string()))?;
            unpacked.as_slice()
        }
    };
    let whole = !keep.contains(&false);
    let (mut pieces, mut rest) = (Vec::new(), plain);
    for (blob, keep) in blobs.iter().zip(keep) {
        let (piece, after) = rest.split_at_checked(blob.length as usize).ok_or_else(|| bad("is too short for its blobs"))?;
        rest = after;
        if keep && !reader.verify(&blob.id, piece) {
            return Err(bad("holds a blob that is not what its id says"));
        }
        if keep && !whole {
            pieces.push((*blob, piece.to_vec()));
        }
    }
    Ok(if whole { Kept::Whole(text) } else { Kept::Pieces(pieces) })
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
