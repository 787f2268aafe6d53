//! Reading stored files at random: what deltas are applied to.
//!
//! Frames are kept after use, in one bounded cache for all files: neighbouring files lie in the same frame, and copies out
//! of a large file mostly go forward.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex};

use crate::entry::{Content, Entry, Hole, LazyEntry, Metadata, OpenFile, StoredContent, Xattrs};
use crate::error::{Error, Result};
use crate::format::list::{ListItem, parse_list};
use crate::id::BlobId;
use crate::monitor::lock;
use crate::repo::Reader;

/// Decoded frames that are kept, in bytes, unless said otherwise.
const CACHE_BYTES: usize = 8 << 20;

/// Buffers that wait to be used again: fresh memory of this size costs as much as a quarter of decoding into it.
const SPARE: usize = 8;

type FrameKey = (u32, u32);

/// Buffers of frames that are not used any more.
type Spare = Arc<Mutex<Vec<Vec<u8>>>>;

/// A decoded frame, whose buffer is used again after it.
struct Frame {
    bytes: Vec<u8>,
    spare: Spare,
}

impl Drop for Frame {
    fn drop(&mut self) {
        let mut spare = lock(&self.spare);
        if spare.len() < SPARE {
            spare.push(std::mem::take(&mut self.bytes));
        }
    }
}

struct Frames {
    /// The one used last in front.
    frames: VecDeque<(FrameKey, Arc<Frame>)>,
    bytes: usize,
    limit: usize,
}

impl Frames {
    fn get(&mut self, key: FrameKey) -> Option<Arc<Frame>> {
        let at = self.frames.iter().position(|(k, _)| *k == key)?;
        let found = self.frames.remove(at)?;
        let frame = Arc::clone(&found.1);
        self.frames.push_front(found);
        Some(frame)
    }

    fn put(&mut self, key: FrameKey, frame: &Arc<Frame>) {
        self.bytes += frame.bytes.len();
        self.frames.push_front((key, Arc::clone(frame)));
        while self.bytes > self.limit && self.frames.len() > 1 {
            if let Some((_, old)) = self.frames.pop_back() {
                self.bytes -= old.bytes.len();
            }
        }
    }
}

/// The stored files of a repository, for reading at random from many threads. Memory: 8 MiB of frames unless said
/// otherwise, 16 MiB of spare buffers, and what each open file needs.
pub struct StoredFiles {
    reader: Arc<Reader>,
    frames: Mutex<Frames>,
    spare: Spare,
    /// The store itself failed.
    failure: Mutex<Option<Error>>,
}

impl StoredFiles {
    /// Reads through `reader`.
    #[must_use]
    pub fn new(reader: Arc<Reader>) -> Arc<Self> {
        Self::with_cache(reader, CACHE_BYTES)
    }

    /// As [`Self::new`], with so many bytes of frames: about one frame of 2 MiB for each file that is read at a time.
    #[must_use]
    pub fn with_cache(reader: Arc<Reader>, limit: usize) -> Arc<Self> {
        let frames = Mutex::new(Frames { frames: VecDeque::new(), bytes: 0, limit });
        Arc::new(Self { reader, frames, spare: Spare::default(), failure: Mutex::default() })
    }

    /// The first failure of a [`StoredContent::lazy`] that was not about the file: the store could not be reached.
    pub fn take_failure(&self) -> Option<Error> {
        lock(&self.failure).take()
    }

    /// Opens the content of a regular file.
    #[must_use]
    pub fn open(self: &Arc<Self>, entry: &Entry) -> StoredReader {
        StoredReader::new(Arc::clone(self), &entry.content, entry.size, entry.holes.clone())
    }

    /// The content of an entry of this repository as a source gives it, with `meta` as its metadata.
    #[must_use]
    pub fn stored(self: &Arc<Self>, entry: &Entry, meta: Metadata) -> StoredContent {
        let lazy = LazyStored { files: Arc::clone(self), entry: entry.clone(), meta };
        StoredContent {
            content: entry.content.clone(),
            size: entry.size,
            holes: entry.holes.clone(),
            xattrs: entry.xattrs.clone(),
            lazy: Box::new(lazy),
        }
    }

    fn frame(&self, key: FrameKey) -> Result<Arc<Frame>> {
        if let Some(frame) = lock(&self.frames).get(key) {
            return Ok(frame);
        }
        let bytes = lock(&self.spare).pop().unwrap_or_default();
        let mut frame = Frame { bytes, spare: Arc::clone(&self.spare) };
        self.reader.read_frame(key.0, key.1, &mut frame.bytes)?;
        let frame = Arc::new(frame);
        lock(&self.frames).put(key, &frame);
        Ok(frame)
    }

    /// A blob, verified. Where one copy is missing or damaged, the others are tried.
    fn blob(&self, id: &BlobId) -> Result<Blob> {
        self.reader.again(|| self.find_blob(id))
    }

    fn find_blob(&self, id: &BlobId) -> Result<Blob> {
        let (mut tried, mut failure) = (HashSet::new(), None);
        while let Some(at) = self.reader.locate_other(id, &tried)? {
            let (from, to) = (at.offset as usize, at.offset as usize + at.length as usize);
            match self.frame((at.pack, at.frame)) {
                Ok(frame) if frame.bytes.get(from..to).is_some_and(|data| self.reader.verify(id, data)) => {
                    return Ok(Blob { frame, from, to });
                }
                Ok(_) => drop(failure.get_or_insert(Error::damaged(format!("blob {id}"), "its bytes do not have its hash"))),
                Err(e) => drop(failure.get_or_insert(e)),
            }
            tried.insert(at.pack);
        }
        Err(failure.unwrap_or_else(|| Error::MissingBlob { id: id.to_string(), needed_by: "a file".into() }))
    }
}

/// A blob within its frame.
struct Blob {
    frame: Arc<Frame>,
    from: usize,
    to: usize,
}

impl Blob {
    fn bytes(&self) -> &[u8] {
        self.frame.bytes.get(self.from..self.to).unwrap_or_default()
    }
}

/// A run of a file's blobs: their ids, and where each begins in the data. One more start than ids.
struct Run {
    ids: Vec<BlobId>,
    starts: Vec<u64>,
}

impl Run {
    fn new(items: Vec<ListItem>, from: u64) -> Result<Self> {
        let (mut ids, mut starts, mut at) = (Vec::with_capacity(items.len()), vec![from], from);
        for item in items {
            at = at.checked_add(item.length).ok_or_else(|| Error::damaged("a list of blobs", "lengths out of range"))?;
            ids.push(item.id);
            starts.push(at);
        }
        Ok(Self { ids, starts })
    }

    /// The blob that `data` lies in, and where that begins and ends.
    fn find(&self, data: u64) -> Option<(BlobId, u64, u64)> {
        let at = self.starts.partition_point(|start| *start <= data).checked_sub(1)?;
        Some((*self.ids.get(at)?, *self.starts.get(at)?, *self.starts.get(at + 1)?))
    }
}

/// The content of one stored file at random.
pub struct StoredReader {
    files: Arc<StoredFiles>,
    /// Root node of the list and the level of what it lists; none for short lists.
    root: Option<(BlobId, u8)>,
    size: u64,
    holes: Vec<Hole>,
    /// Bytes of holes before each hole.
    before: Vec<u64>,
    /// The part of the list in use.
    run: Option<Run>,
    inline: Vec<BlobId>,
    /// The blob in use, and where it begins in the data.
    blob: Option<(u64, Blob)>,
}

impl StoredReader {
    fn new(files: Arc<StoredFiles>, content: &Content, size: u64, holes: Vec<Hole>) -> Self {
        let (inline, root) = match content {
            Content::Empty => (Vec::new(), None),
            Content::Blobs(ids) => (ids.clone(), None),
            Content::Tree { root, height } => (Vec::new(), Some((*root, *height))),
        };
        let before = holes
            .iter()
            .scan(0_u64, |sum, hole| {
                let before = *sum;
                *sum = sum.saturating_add(hole.length);
                Some(before)
            })
            .collect();
        Self { files, root, size, holes, before, run: None, inline, blob: None }
    }

    /// Length of the file in bytes, holes included.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Fills `buffer` from `offset` on, as far as the file reaches; returns how many bytes that were. Holes are zeros.
    ///
    /// # Errors
    ///
    /// If a blob is missing or damaged.
    pub fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let left = self.size.saturating_sub(offset);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let (mut filled, mut at) = (0, offset);
        while let Some(room) = buffer.get_mut(filled..wanted).filter(|room| !room.is_empty()) {
            let done = self.read_some(at, room)?;
            filled += done;
            at += done as u64;
        }
        Ok(filled)
    }

    /// Reads at least one byte within the file.
    fn read_some(&mut self, at: u64, room: &mut [u8]) -> Result<usize> {
        let next = self.holes.partition_point(|hole| hole.offset <= at);
        let mut skipped = 0;
        if let Some((hole, before)) = next.checked_sub(1).and_then(|i| Some((self.holes.get(i)?, self.before.get(i)?))) {
            let end = hole.offset.saturating_add(hole.length);
            if at < end {
                let n = usize::try_from(end - at).unwrap_or(usize::MAX).min(room.len());
                room.iter_mut().take(n).for_each(|b| *b = 0);
                return Ok(n);
            }
            skipped = before + hole.length;
        }
        let until = self.holes.get(next).map_or(u64::MAX, |hole| hole.offset - at);
        let n = usize::try_from(until).unwrap_or(usize::MAX).min(room.len());
        self.read_data(at - skipped, room.get_mut(..n).unwrap_or_default())
    }

    fn read_data(&mut self, at: u64, room: &mut [u8]) -> Result<usize> {
        let in_use = self.blob.as_ref().is_some_and(|(start, b)| (*start..*start + b.bytes().len() as u64).contains(&at));
        if !in_use {
            self.blob = None;
            let (id, start, end) = self.find(at)?;
            let blob = self.files.blob(&id)?;
            if blob.bytes().len() as u64 != end - start {
                return Err(Error::damaged(format!("blob {id}"), "has another length than its list says"));
            }
            self.blob = Some((start, blob));
        }
        let Some((start, blob)) = &self.blob else { return Err(short()) };
        let from = usize::try_from(at - start).map_err(|_| short())?;
        let data = blob.bytes().get(from..).unwrap_or_default();
        let n = data.len().min(room.len());
        let (Some(to), Some(from)) = (room.get_mut(..n), data.get(..n)) else { return Err(short()) };
        to.copy_from_slice(from);
        if n == 0 { Err(short()) } else { Ok(n) }
    }

    fn find(&mut self, at: u64) -> Result<(BlobId, u64, u64)> {
        if let Some(found) = self.run.as_ref().and_then(|run| run.find(at)) {
            return Ok(found);
        }
        let run = match self.root {
            None => self.inline_run()?,
            Some(root) => self.descend(root, at)?,
        };
        let found = run.find(at);
        self.run = Some(run);
        found.ok_or_else(short)
    }

    /// Lengths of blobs of a short list stand in the index only.
    fn inline_run(&self) -> Result<Run> {
        let item = |id: &BlobId| Ok(ListItem { id: *id, length: u64::from(self.files.reader.locate(id)?.length) });
        Run::new(self.inline.iter().map(item).collect::<Result<_>>()?, 0)
    }

    fn descend(&self, (mut id, mut level): (BlobId, u8), at: u64) -> Result<Run> {
        let mut from = 0;
        loop {
            let node = self.files.reader.node(&id)?;
            let items = parse_list(&node, level).map_err(|e| Error::damaged(format!("blob {id}"), e))?;
            let run = Run::new(items, from)?;
            if level <= 1 {
                return Ok(run);
            }
            (id, from, _) = run.find(at).ok_or_else(short)?;
            level -= 1;
        }
    }
}

fn short() -> Error {
    Error::damaged("a file", "is shorter than its entry says")
}

/// A stored file as something to be read again.
struct LazyStored {
    files: Arc<StoredFiles>,
    entry: Entry,
    meta: Metadata,
}

impl LazyEntry for LazyStored {
    fn xattrs(&self) -> io::Result<Xattrs> {
        Ok(self.entry.xattrs.clone())
    }

    fn open(&self) -> io::Result<Box<dyn OpenFile>> {
        let data = self.entry.data_size();
        let reader = StoredReader::new(Arc::clone(&self.files), &self.entry.content, data, Vec::new());
        let (meta, xattrs, holes) = (self.meta.clone(), self.entry.xattrs.clone(), self.entry.holes.clone());
        Ok(Box::new(OpenStored { reader, meta, xattrs, holes, size: self.entry.size, at: 0 }))
    }
}

struct OpenStored {
    /// Of the data without the holes.
    reader: StoredReader,
    meta: Metadata,
    xattrs: Xattrs,
    holes: Vec<Hole>,
    size: u64,
    at: u64,
}

impl OpenFile for OpenStored {
    fn xattrs(&self) -> io::Result<Xattrs> {
        Ok(self.xattrs.clone())
    }

    fn stat(&self) -> io::Result<(Metadata, u64)> {
        Ok((self.meta.clone(), self.size))
    }

    fn holes(&mut self, _: u64, _: usize) -> io::Result<Vec<Hole>> {
        Ok(self.holes.clone())
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read_at(self.at, buffer).map_err(|error| {
            let message = error.to_string();
            if !error.is_local() {
                lock(&self.reader.files.failure).get_or_insert(error);
            }
            io::Error::other(message)
        })?;
        self.at += n as u64;
        Ok(n)
    }
}
