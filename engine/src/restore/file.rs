//! A regular file on its way: created when its first piece is written, finished with its last one, on whatever threads.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard};

use super::context::Context;
use crate::entry::{Entry, Hole, Metadata, Xattrs};
use crate::fs::{DestError, DestFile, Destination, FileHandle};
use crate::monitor::lock;
use crate::path::EntryPath;

/// Files kept open between two pieces. A process may have 1024 by default, and directories need some as well.
const MOST_OPEN: usize = 256;

/// What writing a file needs to know of the restore.
pub(super) struct Files<'a> {
    pub context: &'a Context<'a>,
    pub dest: &'a Destination,
    /// In the order they were opened; those finished meanwhile are passed over.
    open: Mutex<VecDeque<Arc<FileWork>>>,
    most_open: usize,
}

impl<'a> Files<'a> {
    pub fn new(context: &'a Context<'a>, dest: &'a Destination, most_open: Option<usize>) -> Self {
        Self { context, dest, open: Mutex::default(), most_open: most_open.unwrap_or(MOST_OPEN) }
    }

    /// Remembers an open file and closes the oldest beyond the limit.
    fn opened(&self, file: &Arc<FileWork>) {
        let oldest = {
            let mut open = lock(&self.open);
            open.push_back(Arc::clone(file));
            if open.len() > self.most_open { open.pop_front() } else { None }
        };
        if let Some(oldest) = oldest {
            oldest.close();
        }
    }
}

/// A file being restored.
pub(super) struct FileWork {
    pub number: u64,
    pub path: EntryPath,
    pub size: u64,
    pub holes: Vec<Hole>,
    data: u64,
    meta: Metadata,
    xattrs: Xattrs,
    /// Pieces not yet dealt with, and one more while the file is being planned.
    left: AtomicU64,
    /// Shared by those who write to the open file.
    state: RwLock<State>,
}

enum State {
    New,
    Open(DestFile),
    Closed(FileHandle),
    /// Complete or given up.
    Done,
}

/// So many bytes of `plain` from a place in it belong at an offset of the file.
pub(super) struct Part<'a> {
    pub offset: u64,
    pub data: &'a [u8],
}

impl FileWork {
    /// Nothing is done yet. Whoever plans the file calls [`Self::release`] once more than there are pieces.
    pub fn new(number: u64, entry: Entry, data: u64) -> Arc<Self> {
        Arc::new(Self {
            number,
            path: entry.path,
            size: entry.size,
            holes: entry.holes,
            data,
            meta: entry.meta,
            xattrs: entry.xattrs,
            left: AtomicU64::new(1),
            state: RwLock::new(State::New),
        })
    }

    /// About the bytes that this takes in memory.
    pub fn weight(&self) -> usize {
        let xattrs: usize = self.xattrs.iter().map(|(name, value)| 64 + name.len() + value.len()).sum();
        size_of::<Self>() + self.path.as_bytes().len() + self.holes.len() * size_of::<Hole>() + xattrs
    }

    /// One more piece is planned.
    pub fn expect(&self) {
        self.left.fetch_add(1, Ordering::Relaxed);
    }

    /// So many pieces are dealt with. After the last one the file is complete.
    pub fn release(&self, pieces: u64, files: &Files) {
        if self.left.fetch_sub(pieces, Ordering::AcqRel) == pieces {
            let result = self.finish(files);
            self.settle(result, files);
        }
    }

    /// Creates, writes and finishes a file whose parts are all at hand.
    pub fn write_whole<'p>(&self, parts: impl Iterator<Item = Part<'p>>, files: &Files) {
        let state = std::mem::replace(&mut *self.lock(), State::Done);
        if !matches!(state, State::New) {
            return;
        }
        let result = files.dest.create_file(&self.path, &self.meta).and_then(|file| {
            for part in parts {
                if let Err(e) = self.put(&file, &part) {
                    file.discard();
                    return Err(e);
                }
            }
            self.complete(file, files)
        });
        self.settle(result, files);
    }

    /// Writes a part. Does nothing once the file was given up.
    pub fn write(self: &Arc<Self>, part: &Part, files: &Files) {
        let result = loop {
            match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
                State::Open(file) => break self.put(file, part),
                State::Done => return,
                State::New | State::Closed(_) => {}
            }
            if let Err(e) = self.open(files) {
                break Err(e);
            }
        };
        if let Err(e) = result {
            self.abandon(files);
            files.context.refused(files.dest, self.number, e);
        }
    }

    /// Gives up because the content cannot be had. Only the first reason is reported.
    pub fn fail(&self, message: String, files: &Files) {
        if self.abandon(files) {
            files.context.fail(self.number, &self.path, message);
        }
    }

    /// Removes what there is of the file. Returns whether it was still being restored.
    pub fn abandon(&self, files: &Files) -> bool {
        match std::mem::replace(&mut *self.lock(), State::Done) {
            State::Done => return false,
            State::New => {}
            State::Open(file) => file.discard(),
            State::Closed(handle) => {
                // If something else has taken its place, there is nothing of ours to remove.
                if let Ok(file) = files.dest.open_again(&handle) {
                    file.discard();
                }
            }
        }
        true
    }

    fn open(self: &Arc<Self>, files: &Files) -> Result<(), DestError> {
        {
            let mut state = self.lock();
            let file = match &*state {
                State::New => files.dest.create_file(&self.path, &self.meta)?,
                State::Closed(handle) => files.dest.open_again(handle)?,
                State::Open(_) | State::Done => return Ok(()),
            };
            *state = State::Open(file);
        }
        files.opened(self);
        Ok(())
    }

    fn close(&self) {
        let mut state = self.lock();
        if let State::Open(file) = &*state
            && let Ok(handle) = file.handle()
        {
            *state = State::Closed(handle);
        }
    }

    /// Writes around the holes.
    fn put(&self, file: &DestFile, part: &Part) -> Result<(), DestError> {
        if self.holes.is_empty() {
            return file.write_at(part.offset, part.data);
        }
        let Part { mut offset, mut data } = *part;
        let mut holes = &self.holes[self.holes.partition_point(|hole| hole.offset < offset)..];
        while !data.is_empty() {
            while let Some((hole, rest)) = holes.split_first().filter(|(hole, _)| hole.offset == offset) {
                offset += hole.length;
                holes = rest;
            }
            let room = holes.first().map_or(u64::MAX, |hole| hole.offset - offset);
            let (now, rest) = data.split_at(usize::try_from(room).unwrap_or(usize::MAX).min(data.len()));
            file.write_at(offset, now)?;
            offset += now.len() as u64;
            data = rest;
        }
        Ok(())
    }

    fn finish(&self, files: &Files) -> Result<(), DestError> {
        let file = match std::mem::replace(&mut *self.lock(), State::Done) {
            State::New => files.dest.create_file(&self.path, &self.meta)?,
            State::Open(file) => file,
            State::Closed(handle) => files.dest.open_again(&handle)?,
            State::Done => return Ok(()),
        };
        self.complete(file, files)
    }

    fn complete(&self, file: DestFile, files: &Files) -> Result<(), DestError> {
        let warnings = files.dest.finish_file(file, self.size, &self.meta, &self.xattrs)?;
        files.context.warn(&self.path, warnings);
        files.context.restored_file(self.data);
        Ok(())
    }

    fn settle(&self, result: Result<(), DestError>, files: &Files) {
        if let Err(e) = result {
            files.context.refused(files.dest, self.number, e);
        }
    }

    fn lock(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lays the data of a file around its holes.
#[derive(Default)]
pub(super) struct Layout {
    at: u64,
    hole: usize,
}

impl Layout {
    /// Where the next `length` bytes of data begin; `None` if they do not fit into the file.
    pub fn place(&mut self, file: &FileWork, length: u32) -> Option<u64> {
        self.pass_holes(file);
        let (start, mut left) = (self.at, u64::from(length));
        while left > 0 {
            self.pass_holes(file);
            let end = file.holes.get(self.hole).map_or(file.size, |hole| hole.offset);
            let now = left.min(end.saturating_sub(self.at));
            if now == 0 {
                return None;
            }
            self.at += now;
            left -= now;
        }
        Some(start)
    }

    /// Whether what was placed is all of the file.
    pub fn is_full(&mut self, file: &FileWork) -> bool {
        self.pass_holes(file);
        self.at == file.size
    }

    fn pass_holes(&mut self, file: &FileWork) {
        while let Some(hole) = file.holes.get(self.hole).filter(|hole| hole.offset == self.at) {
            self.at += hole.length;
            self.hole += 1;
        }
    }
}
