//! From frames of old packs to frames of new ones.

use std::sync::{Arc, Mutex};

use crossbeam_channel::Sender;

use super::Stored;
use crate::buffer::BufferPool;
use crate::codec;
use crate::crypto::frames::PackCipher;
use crate::error::{Error, Result};
use crate::format::pack::{BlobEntry, BlobKind, Compression, Directory, FrameEntry, parse_header};
use crate::index::PackSummary;
use crate::maintain::plan::Plan;
use crate::monitor::lock;
use crate::pack::{OpenPack, SealedPack, open_directory};
use crate::repo::{Reader, names};

/// Plaintext of a new frame in bytes, for data and for nodes.
const FRAME_TARGET: [usize; 2] = [2 << 20, 256 << 10];

/// Blobs that wait for others to share a frame with.
#[derive(Default)]
struct Loose {
    plain: Vec<u8>,
    blobs: Vec<BlobEntry>,
}

/// Data or nodes: each has frames and packs of its own.
#[derive(Default)]
struct Lane {
    loose: Mutex<Loose>,
    /// The pack that is being filled.
    pack: Mutex<Option<OpenPack>>,
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
    /// The frame as it is compressed, in [`Buffers::text`].
    Whole,
    /// These blobs, end to end in [`Buffers::plain`].
    Some(Vec<BlobEntry>),
}

/// What a worker uses again for each frame.
#[derive(Default)]
pub(super) struct Buffers {
    text: Vec<u8>,
    plain: Vec<u8>,
    packed: Vec<u8>,
    scratch: Vec<u8>,
}

/// Takes what is to stay of packs, and makes packs of it. Any number of threads may do so at a time.
pub(super) struct Sink<'a> {
    pub(super) reader: &'a Reader,
    plan: &'a Plan<'a>,
    pool: Arc<BufferPool>,
    uploads: Sender<SealedPack>,
    /// For data and for nodes.
    lanes: [Lane; 2],
    pub(super) stored: &'a Stored,
}

impl<'a> Sink<'a> {
    pub(super) fn new(reader: &'a Reader, plan: &'a Plan<'a>, uploads: Sender<SealedPack>, stored: &'a Stored) -> Self {
        let target = reader.repo().config().pack_target as usize;
        let pool = BufferPool::new(target + target / 4 + (4 << 20));
        Self { reader, plan, pool, uploads, lanes: Default::default(), stored }
    }

    /// Copies what is to stay of a pack.
    pub(super) fn copy(&self, ordinal: u32, summary: &PackSummary, bytes: &[u8], buffers: &mut Buffers) -> Result<()> {
        let repo = self.reader.repo();
        let damaged = |e: &dyn std::fmt::Display| Error::damaged(names::pack(summary.epoch, &summary.id), e);
        let (_, cipher) = parse_header(&repo.keys().data, &repo.id(), bytes).map_err(|e| damaged(&e))?;
        let directory = open_directory(&cipher, bytes).map_err(|e| damaged(&e))?;
        let mut first = 0;
        for (number, frame) in directory.frames.iter().enumerate() {
            let blobs = directory.blobs.get(first..first + frame.blobs as usize).unwrap_or_default();
            first += frame.blobs as usize;
            let source = Source { number, frame, blobs };
            let kept = unpack(self.reader, self.plan, ordinal, &cipher, &source, bytes, buffers).map_err(|e| match e {
                FrameError::Damaged(why) => damaged(&format!("frame {number}: {why}; the pack is left where it is")),
                FrameError::Other(e) => e,
            })?;
            match kept {
                Kept::Nothing => {}
                Kept::Whole => self.add(frame.kind, frame.raw, frame.compression, &buffers.text, blobs)?,
                Kept::Some(blobs) => self.gather(frame.kind, blobs, buffers)?,
            }
        }
        agree(&directory, summary).map_err(|e| damaged(&e))
    }

    /// Puts blobs to those that wait, and makes frames of what is enough for one.
    fn gather(&self, kind: BlobKind, blobs: Vec<BlobEntry>, buffers: &mut Buffers) -> Result<()> {
        let (mut rest, mut full) = (buffers.plain.as_slice(), Vec::new());
        {
            let mut loose = lock(&self.lanes[kind as usize].loose);
            for blob in blobs {
                if loose.plain.is_empty() {
                    loose.plain.reserve(FRAME_TARGET[kind as usize] + blob.length as usize);
                }
                let Some((piece, after)) = rest.split_at_checked(blob.length as usize) else { break };
                rest = after;
                loose.plain.extend_from_slice(piece);
                loose.blobs.push(blob);
                if loose.plain.len() >= FRAME_TARGET[kind as usize] {
                    full.push(std::mem::take(&mut *loose));
                }
            }
        }
        full.into_iter().try_for_each(|loose| self.add_loose(kind, &loose, buffers))
    }

    fn add_loose(&self, kind: BlobKind, loose: &Loose, buffers: &mut Buffers) -> Result<()> {
        let Buffers { packed, scratch, .. } = buffers;
        let compression =
            codec::compress(&loose.plain, codec::DEFAULT_LEVEL, packed, scratch).map_err(|e| Error::damaged("a new frame", e))?;
        let raw = u32::try_from(loose.plain.len()).map_err(|_| Error::Invalid("a frame is too large".into()))?;
        let stored = if compression == Compression::None { &loose.plain } else { &*packed };
        self.add(kind, raw, compression, stored, &loose.blobs)
    }

    /// Puts a frame into the open pack.
    fn add(&self, kind: BlobKind, raw: u32, compression: Compression, stored: &[u8], blobs: &[BlobEntry]) -> Result<()> {
        let repo = self.reader.repo();
        let full = {
            let mut open = lock(&self.lanes[kind as usize].pack);
            let pack = open.get_or_insert_with(|| OpenPack::new(&repo.keys().data, repo.suite(), &repo.id(), &self.pool));
            pack.add(kind, raw, compression, stored, blobs)?;
            if pack.is_full(repo.config().pack_target as usize) { open.take() } else { None }
        };
        full.map_or(Ok(()), |pack| self.hand_on(pack))
    }

    fn hand_on(&self, pack: OpenPack) -> Result<()> {
        if pack.is_empty() || self.uploads.send(pack.finish()?).is_ok() {
            return Ok(());
        }
        // The uploaders end early only after a failure.
        std::mem::replace(&mut *lock(self.stored), Ok(Vec::new())).map(drop)?;
        Err(Error::Invalid("the uploaders are gone".into()))
    }

    /// Hands on all that is open.
    pub(super) fn finish(self) -> Result<()> {
        for kind in [BlobKind::Data, BlobKind::Node] {
            let loose = std::mem::take(&mut *lock(&self.lanes[kind as usize].loose));
            if !loose.blobs.is_empty() {
                self.add_loose(kind, &loose, &mut Buffers::default())?;
            }
            let open = lock(&self.lanes[kind as usize].pack).take();
            open.map_or(Ok(()), |pack| self.hand_on(pack))?;
        }
        Ok(())
    }
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
    buffers: &mut Buffers,
) -> Result<Kept, FrameError> {
    let Source { number, frame, blobs } = *source;
    let keep = which(plan, ordinal, number, blobs)?;
    if !keep.contains(&true) {
        return Ok(Kept::Nothing);
    }
    let bad = |why: &str| FrameError::Damaged(why.to_owned());
    let range = frame.offset as usize..(frame.offset as usize).saturating_add(frame.sealed as usize);
    let Buffers { text, plain, .. } = buffers;
    text.clear();
    text.extend_from_slice(bytes.get(range).ok_or_else(|| bad("lies outside of the pack"))?);
    let length = cipher.open(number as u64, frame.kind as u8, text).map_err(|_| bad("does not authenticate"))?.len();
    text.truncate(length);
    match frame.compression {
        Compression::None => plain.clone_from(text),
        Compression::Zstd => {
            codec::decompress(text, frame.raw as usize, plain).map_err(|e| FrameError::Damaged(e.to_string()))?;
        }
    }
    let whole = !keep.contains(&false);
    let (mut from, mut to, mut kept) = (0, 0, Vec::new());
    for (blob, keep) in blobs.iter().zip(keep) {
        let end = from + blob.length as usize;
        let piece = plain.get(from..end).ok_or_else(|| bad("is too short for its blobs"))?;
        if keep && !reader.verify(&blob.id, piece) {
            return Err(bad("holds a blob that is not what its id says"));
        }
        if keep && !whole {
            plain.copy_within(from..end, to);
            to += blob.length as usize;
            kept.push(*blob);
        }
        from = end;
    }
    plain.truncate(to);
    Ok(if whole { Kept::Whole } else { Kept::Some(kept) })
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
