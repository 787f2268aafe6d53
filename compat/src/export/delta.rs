//! Deltas between two stored contents, from what the repository knows of them.
//!
//! Blobs that both contents have are copies without being read. What lies between is compared byte by byte with what lies
//! between the same blobs of the older content: at the same distance from both ends, or, where both are of one length, all along.

use std::collections::HashMap;
use std::sync::Arc;

use engine::catalog::ListReader;
use engine::content::{StoredFiles, StoredReader};
use engine::entry::{Entry, Hole};
use engine::error::{Error, Result};
use engine::id::BlobId;
use engine::repo::Reader;

use crate::librsync::DeltaWriter;

/// Blobs of the older content that are remembered: 64 MiB. Those beyond are not found again.
const MAX_BLOBS: usize = 1 << 20;
/// Bytes that are read at a time.
const WINDOW: usize = 64 << 10;
/// Bytes that are compared at once in contents of one length.
const GRAIN: usize = 64;
/// Shorter copies are not worth their command.
const MIN_COPY: u64 = 24;

/// Where the bytes of a delta go.
pub(super) type Sink<'s> = &'s mut dyn FnMut(&[u8]) -> Result<()>;

/// Writes the delta that copies all.
pub(super) fn write_copy(size: u64, sink: Sink<'_>) -> Result<()> {
    let mut out = Out::new(sink)?;
    out.delta.copy(0, size).map_err(in_memory)?;
    out.finish()
}

/// Writes the delta that makes `new` of `old`.
pub(super) fn write(reader: &Reader, files: &Arc<StoredFiles>, old: &Entry, new: &Entry, sink: Sink<'_>) -> Result<()> {
    let known = old_blobs(reader, old)?;
    let mut ops = Ops { out: Out::new(sink)?, old: files.open(old), new: files.open(new), pending: None };
    let mut layout = Layout { holes: &new.holes, at: 0 };
    let (mut new_at, mut old_at) = (0, 0);
    for id in ListReader::new(reader, &new.content) {
        let id = id?;
        let place = layout.place(u64::from(reader.locate(&id)?.length));
        let Some(found) = known.get(&id).filter(|_| !place.is_cut) else { continue };
        ops.gap(new_at..place.start, old_at..*found)?;
        ops.copy(*found, place.end - place.start)?;
        (new_at, old_at) = (place.end, *found + (place.end - place.start));
    }
    ops.gap(new_at..new.size, old_at..old.size)?;
    ops.finish()
}

/// Where the blobs of a content begin, but those with a hole inside.
fn old_blobs(reader: &Reader, old: &Entry) -> Result<HashMap<BlobId, u64>> {
    let (mut known, mut layout) = (HashMap::new(), Layout { holes: &old.holes, at: 0 });
    for id in ListReader::new(reader, &old.content).take(MAX_BLOBS) {
        let id = id?;
        let place = layout.place(u64::from(reader.locate(&id)?.length));
        if !place.is_cut {
            known.entry(id).or_insert(place.start);
        }
    }
    Ok(known)
}

/// Lays data around the holes of a file.
struct Layout<'h> {
    holes: &'h [Hole],
    at: u64,
}

struct Placed {
    start: u64,
    end: u64,
    /// A hole lies within.
    is_cut: bool,
}

impl Layout<'_> {
    fn place(&mut self, length: u64) -> Placed {
        self.skip_holes();
        let (start, mut left, mut is_cut) = (self.at, length, false);
        loop {
            let room = self.holes.first().map_or(u64::MAX, |hole| hole.offset.saturating_sub(self.at));
            if left <= room {
                self.at = self.at.saturating_add(left);
                return Placed { start, end: self.at, is_cut };
            }
            (self.at, left, is_cut) = (self.at.saturating_add(room), left - room, true);
            self.skip_holes();
        }
    }

    fn skip_holes(&mut self) {
        while let Some((hole, rest)) = self.holes.split_first().filter(|(hole, _)| hole.offset <= self.at) {
            self.at = self.at.max(hole.offset.saturating_add(hole.length));
            self.holes = rest;
        }
    }
}

/// Encodes commands and hands their bytes on.
struct Out<'s> {
    delta: DeltaWriter<Vec<u8>>,
    sink: Sink<'s>,
}

impl<'s> Out<'s> {
    fn new(sink: Sink<'s>) -> Result<Self> {
        Ok(Self { delta: DeltaWriter::new(Vec::new()).map_err(in_memory)?, sink })
    }

    fn drain(&mut self) -> Result<()> {
        let bytes = self.delta.get_mut();
        (self.sink)(bytes)?;
        bytes.clear();
        Ok(())
    }

    fn finish(self) -> Result<()> {
        let bytes = self.delta.finish().map_err(in_memory)?;
        (self.sink)(&bytes)
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn in_memory(error: std::io::Error) -> Error {
    Error::Invalid(format!("cannot write a delta: {error}"))
}

#[derive(Clone, Copy)]
enum Op {
    /// Bytes of the old content: where, how many.
    Copy(u64, u64),
    /// Bytes of the new content: from, to.
    Literal(u64, u64),
}

/// Joins commands that go on where the last one ended.
struct Ops<'s> {
    out: Out<'s>,
    old: StoredReader,
    new: StoredReader,
    pending: Option<Op>,
}

type Span = std::ops::Range<u64>;

impl Ops<'_> {
    fn copy(&mut self, from: u64, length: u64) -> Result<()> {
        match &mut self.pending {
            _ if length == 0 => return Ok(()),
            Some(Op::Copy(start, had)) if *start + *had == from => *had += length,
            _ => {
                self.flush()?;
                self.pending = Some(Op::Copy(from, length));
            }
        }
        Ok(())
    }

    fn literal(&mut self, from: u64, to: u64) -> Result<()> {
        match &mut self.pending {
            _ if from == to => return Ok(()),
            Some(Op::Literal(_, end)) if *end == from => *end = to,
            _ => {
                self.flush()?;
                self.pending = Some(Op::Literal(from, to));
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        match self.pending.take() {
            None => Ok(()),
            Some(Op::Copy(from, length)) => {
                self.out.delta.copy(from, length).map_err(in_memory)?;
                self.out.drain()
            }
            Some(Op::Literal(from, to)) => self.write_literal(from, to),
        }
    }

    fn write_literal(&mut self, mut from: u64, to: u64) -> Result<()> {
        let mut buffer = vec![0; WINDOW];
        while from < to {
            let n = read(&mut self.new, from, to - from, &mut buffer)?;
            self.out.delta.literal(&buffer[..n]).map_err(in_memory)?;
            self.out.drain()?;
            from += n as u64;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.flush()?;
        self.out.finish()
    }

    /// New bytes between two copies, and the old ones that were in their place.
    fn gap(&mut self, new: Span, old: Span) -> Result<()> {
        let (length, had) = (new.end - new.start, old.end.saturating_sub(old.start));
        if length == 0 || had == 0 {
            return self.literal(new.start, new.end);
        }
        if length == had {
            return self.same_length(new, old.start);
        }
        let worth = |n: u64| if n < MIN_COPY { 0 } else { n };
        let before = worth(self.common_start(&new, &old)?);
        let rest = (new.start + before..new.end, old.start + before..old.end);
        let after = worth(self.common_end(&rest.0, &rest.1)?);
        self.copy(old.start, before)?;
        self.literal(new.start + before, new.end - after)?;
        self.copy(old.end - after, after)
    }

    fn same_length(&mut self, new: Span, old: u64) -> Result<()> {
        let (mut a, mut b) = (vec![0; WINDOW], vec![0; WINDOW]);
        let mut at = 0;
        while at < new.end - new.start {
            let left = new.end - new.start - at;
            let n = read(&mut self.new, new.start + at, left, &mut a)?;
            read(&mut self.old, old + at, left, &mut b)?;
            for (x, y) in a[..n].chunks(GRAIN).zip(b[..n].chunks(GRAIN)) {
                let length = x.len() as u64;
                if x == y {
                    self.copy(old + at, length)?;
                } else {
                    self.literal(new.start + at, new.start + at + length)?;
                }
                at += length;
            }
        }
        Ok(())
    }

    fn common_start(&mut self, new: &Span, old: &Span) -> Result<u64> {
        let (mut a, mut b) = (vec![0; WINDOW], vec![0; WINDOW]);
        let most = (new.end - new.start).min(old.end - old.start);
        let mut same = 0;
        while same < most {
            let n = read(&mut self.new, new.start + same, most - same, &mut a)?;
            read(&mut self.old, old.start + same, most - same, &mut b)?;
            let equal = a[..n].iter().zip(&b[..n]).take_while(|(x, y)| x == y).count();
            same += equal as u64;
            if equal < n {
                break;
            }
        }
        Ok(same)
    }

    fn common_end(&mut self, new: &Span, old: &Span) -> Result<u64> {
        let (mut a, mut b) = (vec![0; WINDOW], vec![0; WINDOW]);
        let most = (new.end - new.start).min(old.end - old.start);
        let mut same = 0;
        while same < most {
            let window = (most - same).min(WINDOW as u64);
            let n = read(&mut self.new, new.end - same - window, window, &mut a)?;
            read(&mut self.old, old.end - same - window, window, &mut b)?;
            let equal = a[..n].iter().rev().zip(b[..n].iter().rev()).take_while(|(x, y)| x == y).count();
            same += equal as u64;
            if equal < n {
                break;
            }
        }
        Ok(same)
    }
}

/// Reads a window, all of it unless `left` is less.
fn read(from: &mut StoredReader, at: u64, left: u64, buffer: &mut [u8]) -> Result<usize> {
    let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
    let n = from.read_at(at, &mut buffer[..wanted])?;
    if n == wanted { Ok(n) } else { Err(Error::damaged("a file", "is shorter than its entry says")) }
}
