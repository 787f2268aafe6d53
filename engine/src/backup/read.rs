//! Reading files and cutting them into batches: what the reader threads do.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use super::budget::{Budget, Permit};
use crate::chunker::Chunker;
use crate::entry::{Hole, LazyEntry, Metadata, OpenFile, UNKNOWN_SIZE, Xattrs};
use crate::format::node::MAX_HOLES;
use crate::monitor::lock;

/// Room of a batch's buffer in bytes.
pub(super) const BATCH: usize = 2 << 20;

/// A run of small files, or one large one.
pub(super) struct ReadUnit {
    pub(super) number: u64,
    pub(super) files: Vec<UnitFile>,
}

/// A file to be read.
pub(super) struct UnitFile {
    pub(super) slot: u64,
    pub(super) size: u64,
    pub(super) lazy: Box<dyn LazyEntry>,
}

/// Data of one or more files in order, cut into pieces.
pub(super) struct Batch {
    pub(super) unit: u64,
    pub(super) sequence: u32,
    pub(super) last: bool,
    pub(super) buffer: Vec<u8>,
    /// For the buffer itself.
    pub(super) room: Permit,
    /// For what of it may have to wait in packs.
    pub(super) permit: Permit,
    pub(super) pieces: Vec<Range<usize>>,
    /// The file of each piece.
    pub(super) slots: Vec<u64>,
    /// Files that end in or before this batch.
    pub(super) ends: Vec<FileEnd>,
}

/// How reading a file ended.
pub(super) struct FileEnd {
    pub(super) slot: u64,
    pub(super) result: Result<ReadFile, String>,
}

/// A file that was read.
pub(super) struct ReadFile {
    pub(super) meta: Metadata,
    pub(super) size: u64,
    pub(super) xattrs: Xattrs,
    pub(super) holes: Vec<Hole>,
    /// It changed meanwhile, so that what was read may never have existed; or something of it is missing.
    pub(super) trouble: Option<String>,
}

/// Buffers used again and again.
#[derive(Default)]
pub(super) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    fn take(&self) -> Vec<u8> {
        lock(&self.0).pop().unwrap_or_else(|| vec![0; BATCH])
    }

    pub(super) fn give(&self, buffer: Vec<u8>) {
        lock(&self.0).push(buffer);
    }
}

/// What readers share.
pub(super) struct ReadContext {
    pub(super) chunker: Chunker,
    /// Bounds the buffers being filled or worked on.
    pub(super) rooms: Arc<Budget>,
    /// Bounds what waits in packs.
    pub(super) budget: Arc<Budget>,
    pub(super) buffers: Arc<Buffers>,
}

/// The backup is over before its end.
pub(super) struct Stopped;

/// Reads a unit and hands on its batches; the last one is marked.
pub(super) fn read_unit(unit: ReadUnit, context: &ReadContext, emit: &mut dyn FnMut(Batch)) -> Result<(), Stopped> {
    let mut cutter = Cutter { context, emit, unit: unit.number, sequence: 0, batch: None, filled: 0, pending: 0 };
    let mut files = unit.files.into_iter().peekable();
    while let Some(first) = files.next() {
        let more = first.lazy.open_at_once().saturating_sub(1);
        let next = std::iter::from_fn(|| files.next_if(|file| file.lazy.open_at_once() > 1));
        let group: Vec<_> = std::iter::once(first).chain(next.take(more)).map(|file| (file.lazy.open(), file)).collect();
        for (open, file) in group {
            cutter.make_room_for(file.size)?;
            let result = cutter.read_file(file.slot, open)?;
            let end = FileEnd { slot: file.slot, result };
            cutter.batch()?.ends.push(end);
        }
    }
    cutter.flush(true)
}

struct Cutter<'a> {
    context: &'a ReadContext,
    emit: &'a mut dyn FnMut(Batch),
    unit: u64,
    sequence: u32,
    batch: Option<Batch>,
    /// Bytes in the buffer.
    filled: usize,
    /// Where the bytes begin that no piece covers yet.
    pending: usize,
}

impl Cutter<'_> {
    fn batch(&mut self) -> Result<&mut Batch, Stopped> {
        if self.batch.is_none() {
            let room = self.context.rooms.acquire(BATCH).ok_or(Stopped)?;
            let permit = self.context.budget.acquire(BATCH).ok_or(Stopped)?;
            self.batch = Some(Batch {
                unit: self.unit,
                sequence: self.sequence,
                last: false,
                buffer: self.context.buffers.take(),
                room,
                permit,
                pieces: Vec::new(),
                slots: Vec::new(),
                ends: Vec::new(),
            });
            self.sequence += 1;
        }
        self.batch.as_mut().ok_or(Stopped)
    }

    /// A file that fits into a buffer but not into the rest of this one begins a new one.
    fn make_room_for(&mut self, size: u64) -> Result<(), Stopped> {
        let left = (BATCH - self.filled) as u64;
        if size >= left && self.filled > 0 { self.flush(false) } else { Ok(()) }
    }

    /// The outer error ends the backup, the inner one is the file's.
    fn read_file(&mut self, slot: u64, open: io::Result<Box<dyn OpenFile>>) -> Result<Result<ReadFile, String>, Stopped> {
        let mut open = match open {
            Ok(open) => open,
            Err(e) => return Ok(Err(format!("cannot open: {e}"))),
        };
        match self.read_open(slot, &mut *open) {
            Ok(done) => done.map(Ok),
            Err(e) => {
                // What was read of it stays in the batch as blobs that nothing refers to.
                self.cut(slot, true)?;
                Ok(Err(format!("cannot read: {e}")))
            }
        }
    }

    fn read_open(&mut self, slot: u64, open: &mut dyn OpenFile) -> io::Result<Result<ReadFile, Stopped>> {
        let (meta, size) = open.stat()?;
        let (xattrs, mut trouble) = match open.xattrs() {
            Ok(xattrs) => (xattrs, None),
            Err(e) => (Vec::new(), Some(format!("cannot read extended attributes: {e}; saved without"))),
        };
        let holes = open.holes(size, MAX_HOLES)?;
        let data = match self.read_data(slot, open, holes.is_empty())? {
            Ok(data) => data,
            Err(stopped) => return Ok(Err(stopped)),
        };
        let (after, size_after) = open.stat()?;
        let size = if size == UNKNOWN_SIZE { data } else { size };
        let total = data + holes.iter().map(|h| h.length).sum::<u64>();
        let changed = total != size || size_after != size || after.mtime != meta.mtime || after.ctime != meta.ctime;
        // A file that shrank below its last hole has no hole there any more.
        let (holes, size) = if total == size { (holes, size) } else { settle(holes, data) };
        if changed {
            trouble.get_or_insert_with(|| "changed while it was read; saved as it was found".to_owned());
        }
        Ok(Ok(ReadFile { meta, size, xattrs, holes, trouble }))
    }

    fn read_data(&mut self, slot: u64, open: &mut dyn OpenFile, short_is_end: bool) -> io::Result<Result<u64, Stopped>> {
        let mut total = 0;
        loop {
            let filled = self.filled;
            let batch = match self.batch() {
                Ok(batch) => batch,
                Err(stopped) => return Ok(Err(stopped)),
            };
            let room = batch.buffer.get_mut(filled..).unwrap_or_default();
            let wanted = room.len();
            let n = open.read(room)?;
            self.filled += n;
            total += n as u64;
            let end = n == 0 && wanted > 0 || short_is_end && n < wanted;
            if let Err(stopped) = self.cut(slot, end) {
                return Ok(Err(stopped));
            }
            if end {
                return Ok(Ok(total));
            }
        }
    }

    /// Cuts pieces off the pending bytes; when the buffer is full, hands it on and keeps what is still open.
    fn cut(&mut self, slot: u64, end: bool) -> Result<(), Stopped> {
        let max = self.context.chunker.sizes().max as usize;
        let (filled, mut pending) = (self.filled, self.pending);
        let chunker = &self.context.chunker;
        let Some(batch) = self.batch.as_mut() else { return Ok(()) };
        while pending < filled {
            let window = batch.buffer.get(pending..filled).unwrap_or_default();
            let length = chunker.cut(window);
            if length == window.len() && length < max && !end {
                break;
            }
            batch.pieces.push(pending..pending + length);
            batch.slots.push(slot);
            pending += length;
        }
        self.pending = pending;
        if filled == BATCH { self.flush(false) } else { Ok(()) }
    }

    fn flush(&mut self, last: bool) -> Result<(), Stopped> {
        if last {
            self.batch()?;
        }
        let Some(mut batch) = self.batch.take() else { return Ok(()) };
        batch.last = last;
        let (pending, filled) = (std::mem::take(&mut self.pending), std::mem::take(&mut self.filled));
        if pending < filled {
            let tail = filled - pending;
            let next = self.batch()?;
            let (to, from) = (next.buffer.get_mut(..tail), batch.buffer.get(pending..filled));
            if let (Some(to), Some(from)) = (to, from) {
                to.copy_from_slice(from);
            }
            self.filled = tail;
        }
        (self.emit)(batch);
        Ok(())
    }
}

/// The holes and the size of a file whose length changed while it was read: only holes that lie within what was read stay.
fn settle(holes: Vec<Hole>, data: u64) -> (Vec<Hole>, u64) {
    let (mut kept, mut at, mut left) = (Vec::new(), 0, data);
    for hole in holes {
        let before = hole.offset - at;
        if before > left {
            break;
        }
        left -= before;
        at = hole.offset + hole.length;
        kept.push(hole);
    }
    (kept, at + left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settling_keeps_data_and_holes_consistent() {
        let holes = vec![Hole { offset: 10, length: 5 }, Hole { offset: 100, length: 50 }];
        assert_eq!(settle(holes.clone(), 20), (holes[..1].to_vec(), 25));
        assert_eq!(settle(holes.clone(), 5), (vec![], 5));
        assert_eq!(settle(holes.clone(), 95), (holes, 150));
    }
}
