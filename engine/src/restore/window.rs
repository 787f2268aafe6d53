//! Windows: a bounded number of files and pieces, turned into tasks of one ranged read each.

use std::ops::Range;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use super::file::FileWork;
use crate::id::BlobId;
use crate::index::{Index, Location, PackSummary};

/// How much is planned and read at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Files of a window.
    pub files: usize,
    /// Pieces of a window.
    pub pieces: usize,
    /// Bytes of memory that the files of a window take.
    pub memory: usize,
    /// Bytes of content that a window stands for.
    pub content: u64,
    /// Bytes of one ranged read, if it is more than one frame.
    pub read: u64,
    /// Bytes of content that one task writes, if it is more than one frame.
    pub write: u64,
    /// Bytes between two frames that are read along with them.
    pub gap: u64,
    /// Files kept open; a default that suits the process without it.
    pub open: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            files: 16 << 10,
            pieces: 32 << 10,
            memory: 16 << 20,
            content: 1 << 30,
            read: 3 << 20,
            write: 32 << 20,
            gap: 256 << 10,
            open: None,
        }
    }
}

impl Limits {
    /// Those of the first windows are smaller, so that the workers have something to do soon.
    pub fn of_window(&self, number: u32) -> Self {
        let shift = 4_u32.saturating_sub(number);
        Self { files: (self.files >> shift).max(1), pieces: (self.pieces >> shift).max(1), ..*self }
    }
}

/// A blob at a place in a file.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub place: Location,
    pub id: BlobId,
    /// Number of the file in its window.
    pub file: u32,
    /// Where its first byte belongs in the file.
    pub offset: u64,
}

/// A file in a window.
pub(super) struct WindowFile {
    pub work: Arc<FileWork>,
    /// How many pieces it has, if it lies within this window from its first to its last one; else 0.
    pub whole: usize,
}

/// A window being filled.
#[derive(Default)]
pub(super) struct Draft {
    pub files: Vec<WindowFile>,
    pub pieces: Vec<Piece>,
    pub memory: usize,
    pub content: u64,
}

impl Draft {
    /// Whether it has reached a limit.
    pub fn is_full(&self, limits: &Limits) -> bool {
        self.files.len() >= limits.files
            || self.pieces.len() >= limits.pieces
            || self.memory >= limits.memory
            || self.content >= limits.content
    }
}

/// One of the windows that may be under way at a time; given back when dropped.
pub(super) struct Slot(Receiver<()>);

impl Slot {
    /// Waits for one. `None` if nobody works any more.
    pub fn take(slots: &(Sender<()>, Receiver<()>)) -> Option<Self> {
        slots.0.send(()).ok()?;
        Some(Self(slots.1.clone()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Never empty: taking this slot has put something in.
        let _ = self.0.try_recv();
    }
}

/// A window under way.
pub(super) struct Window {
    pub files: Vec<WindowFile>,
    /// By pack, frame, file, and offset.
    pub pieces: Vec<Piece>,
    _slot: Slot,
}

/// What is read at once.
pub(super) struct Task {
    pub window: Arc<Window>,
    /// Its pieces.
    pub pieces: Range<usize>,
    /// None if the index does not know the pack or the frame any more.
    pub pack: Option<Arc<PackSummary>>,
    /// What to read of the pack.
    pub range: Range<u64>,
}

impl Window {
    /// Takes a draft and sorts its pieces.
    pub fn new(mut draft: Draft, slot: Slot) -> Arc<Self> {
        draft.pieces.sort_unstable_by_key(|p| (p.place.pack, p.place.frame, p.file, p.offset));
        Arc::new(Self { files: draft.files, pieces: draft.pieces, _slot: slot })
    }
}

/// Cuts a window into tasks: neighbouring frames of a pack together, as far as the limits allow.
pub(super) fn cut(window: &Arc<Window>, index: &Index, limits: &Limits, mut each: impl FnMut(Task)) {
    let (mut current, mut written) = (None::<Task>, 0_u64);
    let mut start = 0;
    for frame in window.pieces.chunk_by(|a, b| same_frame(&a.place, &b.place)) {
        let pieces = start..start + frame.len();
        start = pieces.end;
        let place = frame.first().map_or(Location { pack: 0, frame: 0, offset: 0, length: 0 }, |p| p.place);
        let content: u64 = frame.iter().map(|p| u64::from(p.place.length)).sum();
        let next = task(window, index, place, pieces);
        let (read, gap) = (limits.read, limits.gap);
        let joins = |task: &Task| written + content <= limits.write && follows(task, &next, read, gap);
        if let Some(task) = current.as_mut().filter(|task| joins(task)) {
            task.pieces.end = next.pieces.end;
            task.range.end = next.range.end;
            written += content;
        } else {
            current.replace(next).into_iter().for_each(&mut each);
            written = content;
        }
    }
    current.into_iter().for_each(each);
}

fn task(window: &Arc<Window>, index: &Index, place: Location, pieces: Range<usize>) -> Task {
    let pack = index.pack(place.pack).ok();
    let frame = pack.as_ref().and_then(|pack| pack.frames.get(place.frame as usize));
    let range = frame.map(|f| u64::from(f.offset)..u64::from(f.offset) + u64::from(f.sealed));
    Task { window: Arc::clone(window), pieces, pack: pack.filter(|_| range.is_some()), range: range.unwrap_or(0..0) }
}

fn follows(task: &Task, next: &Task, read: u64, gap: u64) -> bool {
    let (Some(pack), Some(other)) = (&task.pack, &next.pack) else { return false };
    let distance = next.range.start.checked_sub(task.range.end);
    Arc::ptr_eq(pack, other) && distance.is_some_and(|d| d <= gap) && next.range.end - task.range.start <= read
}

/// Whether two places lie in the same frame.
pub(super) fn same_frame(a: &Location, b: &Location) -> bool {
    (a.pack, a.frame) == (b.pack, b.frame)
}
