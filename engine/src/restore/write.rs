//! The workers: fetch, open, verify, and write, frame by frame.

use std::collections::HashMap;

use bytes::Bytes;
use crossbeam_channel::Receiver;

use super::file::{Files, Part};
use super::source::{Rescue, is_missing};
use super::window::{Piece, Task, Window, same_frame};
use crate::error::{Error, Result};
use crate::id::BlobId;
use crate::index::PackSummary;
use crate::monitor::Counter;
use crate::repo::names;

/// One thread's buffers.
pub(super) struct Worker<'a> {
    files: &'a Files<'a>,
    rescue: Rescue<'a>,
    /// A frame as it is stored,
    sealed: Vec<u8>,
    /// and its content.
    plain: Vec<u8>,
    /// Blobs of the current frame and whether their hashes are right.
    checked: HashMap<(u32, BlobId), bool>,
}

/// Why pieces were not found where they were expected.
struct Failure {
    message: String,
    missing: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { missing: is_missing(&error), message: error.to_string() }
    }
}

impl<'a> Worker<'a> {
    pub fn new(files: &'a Files<'a>) -> Self {
        let rescue = Rescue::new(&files.context.source);
        Self { files, rescue, sealed: Vec::new(), plain: Vec::new(), checked: HashMap::new() }
    }

    /// Works until there is nothing left. Once the run is stopped, only cleans up.
    pub fn run(&mut self, queue: &Receiver<Task>) {
        for task in queue {
            self.task(&task);
        }
    }

    /// Reads what a task needs, in one call if that works, and writes it frame by frame.
    fn task(&mut self, task: &Task) {
        let context = self.files.context;
        let pieces = task.window.pieces.get(task.pieces.clone()).unwrap_or_default();
        let mut all = None;
        if let Some(pack) = task.pack.as_ref().filter(|_| !context.stopped()) {
            // If it fails, each frame is read for itself, so that only those that cannot be read are lost.
            all = self.read(pack, task.range.start, task.range.end).ok();
        }
        for frame in pieces.chunk_by(|a, b| same_frame(&a.place, &b.place)) {
            let opened = if context.stopped() { Ok(()) } else { self.open(task, frame, all.as_deref()) };
            let failure = match opened {
                Ok(()) => None,
                Err(e) if e.is_local() || matches!(e, Error::Cache(_)) => Some(Failure::from(e)),
                Err(e) => {
                    context.stop(e);
                    None
                }
            };
            if context.stopped() {
                for piece in frame {
                    file(&task.window, piece).work.abandon(self.files);
                }
            } else {
                let bytes = self.frame(&task.window, frame, failure.as_ref());
                context.monitor.count(Counter::Bytes, bytes);
            }
        }
    }

    /// Bytes of a pack.
    fn read(&self, pack: &PackSummary, start: u64, end: u64) -> Result<Bytes> {
        let object = names::pack(pack.epoch, &pack.id);
        let length = usize::try_from(end - start).unwrap_or(usize::MAX);
        Ok(self.files.context.source.reader.repo().backend().read_range(&object, start, length)?)
    }

    /// Opens a frame, from what was read already or from the store.
    fn open(&mut self, task: &Task, pieces: &[Piece], all: Option<&[u8]>) -> Result<()> {
        let reader = self.files.context.source.reader;
        let number = pieces.first().map_or(0, |p| p.place.frame);
        let gone = || Error::MissingBlob { id: "of a pack".to_owned(), needed_by: "this restore".to_owned() };
        let pack = task.pack.as_ref().ok_or_else(gone)?;
        let frame = pack.frames.get(number as usize).ok_or_else(gone)?;
        let (offset, length) = (u64::from(frame.offset), frame.sealed as usize);
        let at = usize::try_from(offset - task.range.start).unwrap_or(usize::MAX);
        // Copied into memory that is in use already: opening works in place, and fresh memory costs more than the copy.
        self.sealed.clear();
        match all.and_then(|all| all.get(at..)?.get(..length)) {
            Some(sealed) => self.sealed.extend_from_slice(sealed),
            None => self.sealed.extend_from_slice(&self.read(pack, offset, offset + length as u64)?),
        }
        reader.open_frame(pack, number, &mut self.sealed, &mut self.plain)
    }

    /// Writes the pieces that lie in a frame. Returns their bytes.
    fn frame(&mut self, window: &Window, pieces: &[Piece], failure: Option<&Failure>) -> u64 {
        self.checked.clear();
        let mut bytes = 0;
        for run in pieces.chunk_by(|a, b| a.file == b.file) {
            let good = failure.is_none() && run.iter().all(|piece| self.check(piece));
            let Some(first) = run.first() else { continue };
            let file = file(window, first);
            if good && file.whole == run.len() {
                file.work.write_whole(parts(run, &self.plain), self.files);
            } else if good {
                parts(run, &self.plain).for_each(|part| file.work.write(&part, self.files));
            } else {
                run.iter().for_each(|piece| self.write_rescued(window, piece, failure));
            }
            file.work.release(run.len() as u64, self.files);
            bytes += run.iter().map(|p| u64::from(p.place.length)).sum::<u64>();
        }
        bytes
    }

    /// Whether the bytes of a piece in the current frame have its hash.
    fn check(&mut self, piece: &Piece) -> bool {
        let (reader, plain) = (self.files.context.source.reader, &self.plain);
        let check = || slice(piece, plain).is_some_and(|data| reader.verify(&piece.id, data));
        *self.checked.entry((piece.place.offset, piece.id)).or_insert_with(check)
    }

    /// Writes a piece, from its frame if that is good, or from wherever else the blob can be found.
    fn write_rescued(&mut self, window: &Window, piece: &Piece, failure: Option<&Failure>) {
        let work = &file(window, piece).work;
        if failure.is_none() && self.check(piece) {
            parts(std::slice::from_ref(piece), &self.plain).for_each(|part| work.write(&part, self.files));
            return;
        }
        let missing = failure.is_some_and(|f| f.missing);
        let found = self.rescue.blob(&piece.id, piece.place.pack, missing);
        match (found.filter(|data| data.len() == piece.place.length as usize), failure) {
            (Some(data), _) => work.write(&Part { offset: piece.offset, data }, self.files),
            (None, Some(failure)) => work.fail(format!("cannot read blob {}: {}", piece.id, failure.message), self.files),
            (None, None) => work.fail(format!("blob {} is damaged: its bytes do not have its hash", piece.id), self.files),
        }
    }
}

fn file<'w>(window: &'w Window, piece: &Piece) -> &'w super::window::WindowFile {
    &window.files[piece.file as usize]
}

fn slice<'p>(piece: &Piece, plain: &'p [u8]) -> Option<&'p [u8]> {
    plain.get(piece.place.offset as usize..)?.get(..piece.place.length as usize)
}

/// What to write of pieces of one file, all verified: those that touch on both sides together.
fn parts<'p>(run: &'p [Piece], plain: &'p [u8]) -> impl Iterator<Item = Part<'p>> {
    let touch = |a: &Piece, b: &Piece| {
        let length = a.place.length;
        a.place.offset.checked_add(length) == Some(b.place.offset) && a.offset + u64::from(length) == b.offset
    };
    run.chunk_by(touch).filter_map(|pieces| {
        let first = pieces.first()?;
        let length: usize = pieces.iter().map(|p| p.place.length as usize).sum();
        let data = plain.get(first.place.offset as usize..)?.get(..length)?;
        Some(Part { offset: first.offset, data })
    })
}
