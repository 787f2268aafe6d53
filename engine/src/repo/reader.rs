//! Reading blobs: a repository, what counts in it, and the index of it.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::segments::{load_segment, report_unreadable, sync_readable, verify_held};
use super::{Repository, View, names};
use crate::backend::ErrorKind;
use crate::error::{Error, Result};
use crate::format::pack::{BlobKind, FrameEntry, SegmentName, parse_header};
use crate::id::{BlobId, Epoch, ObjectId};
use crate::index::{Index, Location, PackSummary};
use crate::monitor::{Collector, Monitor, lock};
use crate::pack;

/// Decoded frames of nodes that are kept: neighbouring nodes lie in the same frame.
const FRAME_CACHE_BYTES: usize = 8 << 20;

/// Reads blobs of a repository. Everything can be called from many threads.
pub struct Reader {
    repo: Arc<Repository>,
    view: View,
    index: Index,
    /// Ordinals of packs that nothing new may refer to.
    condemned: HashSet<u32>,
    frames: Mutex<FrameCache>,
    reload: Mutex<Reload>,
}

/// Whether the index may be brought up to date on the way.
struct Reload {
    /// Not for writers: what counts for them is decided when they begin.
    allowed: bool,
    /// What the index holds.
    segments: Vec<SegmentName>,
    last: Option<Instant>,
}

/// How often a reader is opened anew because maintenance replaces segments that it was about to read.
const MAX_ROUNDS: usize = 5;
/// The index is brought up to date at most this often: where blobs are really missing, asking for each would take long.
const RELOAD_AFTER: Duration = Duration::from_secs(30);

/// Most sealed bytes of node frames that are fetched at once.
const AHEAD_BYTES: u64 = 1 << 20;
/// Most frames that are fetched at once.
const AHEAD_FRAMES: u32 = 16;

#[derive(Default)]
struct FrameCache {
    frames: VecDeque<((u32, u32), Bytes)>,
    bytes: usize,
    ahead: Ahead,
}

/// Node frames fetched along with one that was asked for. Catalogs are written in order and mostly read in order: as long as
/// one frame is asked for after the other, each read fetches twice as many as the one before.
#[derive(Default)]
struct Ahead {
    pack: u32,
    /// The frames in `sealed`; the next one that is not there continues the sequence.
    frames: Range<u32>,
    sealed: Bytes,
    /// Where `sealed` begins in the pack.
    offset: u64,
    /// Frames to fetch next time.
    window: u32,
}

impl Ahead {
    fn get(&self, pack: u32, frame: u32, entry: &FrameEntry) -> Option<Bytes> {
        if pack != self.pack || !self.frames.contains(&frame) {
            return None;
        }
        let start = usize::try_from(u64::from(entry.offset).checked_sub(self.offset)?).ok()?;
        let range = start..start.checked_add(entry.sealed as usize)?;
        (range.end <= self.sealed.len()).then(|| self.sealed.slice(range))
    }

    /// The frames to fetch when `frame` is asked for and not there.
    fn plan(&self, pack: u32, frame: u32, summary: &PackSummary) -> Range<u32> {
        let in_sequence = pack == self.pack && frame == self.frames.end && frame > 0;
        let window = if in_sequence { (self.window * 2).clamp(1, AHEAD_FRAMES) } else { 1 };
        let first = summary.frames.get(frame as usize).map_or(0, |f| u64::from(f.offset));
        let near = |f: &&FrameEntry| u64::from(f.offset) + u64::from(f.sealed) - first <= AHEAD_BYTES && f.kind == BlobKind::Node;
        let more = summary.frames.iter().skip(frame as usize + 1).take(window as usize - 1).take_while(near).count();
        frame..frame + 1 + u32::try_from(more).unwrap_or(0)
    }
}

impl Reader {
    /// Loads the view and brings the index up to date. The index lives in `cache_dir`, or in memory without one.
    ///
    /// Maintenance may move blobs to new packs while this is read from; where something is gone, the index is brought up to
    /// date again.
    #[allow(clippy::needless_pass_by_value, reason = "the reader keeps it")]
    pub fn open(repo: Arc<Repository>, cache_dir: Option<&Path>, monitor: &dyn Monitor) -> Result<Self> {
        settled(|| Self::with_view(Arc::clone(&repo), repo.load_view(monitor)?, cache_dir, (true, false), monitor))
    }

    /// As [`Self::open`], for a writer: without what it must not refer to. `lost` packs are known to be gone and count as
    /// condemned.
    #[allow(clippy::needless_pass_by_value, reason = "the reader keeps it")]
    pub fn open_for_writing(
        repo: Arc<Repository>,
        cache_dir: Option<&Path>,
        lost: &[(Epoch, ObjectId)],
        monitor: &dyn Monitor,
    ) -> Result<Self> {
        repo.check_writable()?;
        settled(|| {
            let mut view = repo.load_view(monitor)?;
            if let Some(damage) = view.damage {
                return Err(Error::damaged("epochs", format!("{damage}; nothing is written until this is mended")));
            }
            view.condemned.extend(lost);
            view.for_writing();
            Self::with_view(Arc::clone(&repo), view, cache_dir, (false, false), monitor)
        })
    }

    /// As [`Self::open_for_writing`], for what must not rely on what a local cache remembers of segments: reads all segments
    /// that the cache holds. With `fenced`, segments of a fenced epoch are not left out.
    #[allow(clippy::needless_pass_by_value, reason = "the reader keeps it")]
    pub(crate) fn open_verified(
        repo: Arc<Repository>,
        cache_dir: Option<&Path>,
        fenced: bool,
        monitor: &dyn Monitor,
    ) -> Result<Self> {
        repo.check_writable()?;
        settled(|| {
            let mut view = repo.load_view(monitor)?;
            if !fenced {
                if let Some(damage) = view.damage {
                    return Err(Error::damaged("epochs", format!("{damage}; nothing is written until this is mended")));
                }
                view.for_writing();
            }
            Self::with_view(Arc::clone(&repo), view, cache_dir, (fenced, true), monitor)
        })
    }

    /// Brings the index up to date, if other segments count by now: what was missing may be somewhere else. `false` if there
    /// is nothing new.
    ///
    /// # Errors
    ///
    /// What the store returns.
    pub fn reload(&self) -> Result<bool> {
        let mut reload = lock(&self.reload);
        if !reload.allowed || reload.last.is_some_and(|last| last.elapsed() < RELOAD_AFTER) {
            return Ok(false);
        }
        reload.last = Some(Instant::now());
        let view = self.repo.load_view(&Collector::default())?;
        if view.segments == reload.segments {
            return Ok(false);
        }
        self.index.sync(&view.segments, &|name| load_segment(&self.repo, name))?;
        reload.segments = view.segments;
        Ok(true)
    }

    /// Does `read` again if something was missing and the index was out of date.
    pub(crate) fn again<T>(&self, mut read: impl FnMut() -> Result<T>) -> Result<T> {
        match read() {
            Err(error) if is_missing(&error) && self.reload()? => read(),
            result => result,
        }
    }

    fn with_view(
        repo: Arc<Repository>,
        mut view: View,
        cache_dir: Option<&Path>,
        (reload, verify): (bool, bool),
        monitor: &dyn Monitor,
    ) -> Result<Self> {
        let mut open = || -> Result<Index> {
            let index = Index::open(cache_dir, repo.id())?;
            if verify {
                verify_held(&repo, &index, &mut view)?;
            }
            sync_readable(&repo, &index, &mut view)?;
            Ok(index)
        };
        let index = match (open(), cache_dir) {
            (Err(Error::Cache(_)), Some(dir)) => {
                Index::discard(dir)?;
                open()?
            }
            (result, _) => result?,
        };
        if !view.unreadable.is_empty() {
            report_unreadable(&repo, &index, &view, monitor)?;
        }
        let mut condemned = HashSet::new();
        if !view.condemned.is_empty() || !view.damaged.is_empty() {
            index.packs(|ordinal, epoch, id, _| {
                if view.is_barred(&(epoch, id)) {
                    condemned.insert(ordinal);
                }
            })?;
        }
        let reload = Mutex::new(Reload { allowed: reload, segments: view.segments.clone(), last: None });
        Ok(Self { repo, view, index, condemned, frames: Mutex::default(), reload })
    }

    /// The repository.
    #[must_use]
    pub fn repo(&self) -> &Arc<Repository> {
        &self.repo
    }

    /// What counted when this was opened.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The index.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Where a blob lies, condemned packs included: they can be read as long as they are there.
    pub fn locate(&self, id: &BlobId) -> Result<Location> {
        let found = match self.locate_usable(id)? {
            None if !self.condemned.is_empty() => self.index.locate(id, &|_| true)?,
            found => found,
        };
        found.ok_or_else(|| Error::MissingBlob { id: id.to_string(), needed_by: "a snapshot".into() })
    }

    /// Where else a blob lies than in the packs that were `tried`; condemned packs come last.
    pub fn locate_other(&self, id: &BlobId, tried: &HashSet<u32>) -> Result<Option<Location>> {
        if !self.condemned.is_empty() {
            let good = self.index.locate(id, &|pack| !tried.contains(&pack) && !self.condemned.contains(&pack))?;
            if good.is_some() {
                return Ok(good);
            }
        }
        self.index.locate(id, &|pack| !tried.contains(&pack))
    }

    /// Where a blob lies that a new snapshot may refer to (W4).
    pub fn locate_usable(&self, id: &BlobId) -> Result<Option<Location>> {
        if self.condemned.is_empty() {
            return self.index.locate(id, &|_| true);
        }
        self.index.locate(id, &|pack| !self.condemned.contains(&pack))
    }

    /// Fetches, decrypts and decompresses one frame into `plain`; `sealed` is working space.
    pub fn read_frame(&self, pack: u32, frame: u32, plain: &mut Vec<u8>) -> Result<()> {
        let summary = self.index.pack(pack)?;
        let object = names::pack(summary.epoch, &summary.id);
        let entry = summary.frames.get(frame as usize).ok_or_else(|| Error::Cache("a frame number out of range".into()))?;
        let bytes = self.repo.backend().read_range(&object, u64::from(entry.offset), entry.sealed as usize)?;
        let mut sealed = Vec::from(bytes);
        self.open_frame(&summary, frame, &mut sealed, plain)
    }

    /// Decrypts and decompresses a frame whose sealed bytes have been fetched; they are used as working space.
    pub fn open_frame(&self, summary: &PackSummary, frame: u32, sealed: &mut [u8], plain: &mut Vec<u8>) -> Result<()> {
        let damaged = |detail: &dyn std::fmt::Display| {
            Error::damaged(names::pack(summary.epoch, &summary.id), format!("frame {frame}: {detail}"))
        };
        let (_, cipher) = parse_header(&self.repo.keys().data, &self.repo.id(), &summary.header).map_err(|e| damaged(&e))?;
        let entry = summary.frames.get(frame as usize).ok_or_else(|| damaged(&"no such frame"))?;
        pack::open_frame(&cipher, u64::from(frame), entry, sealed, plain).map_err(|e| damaged(&e))
    }

    /// Whether `plain` is the blob of this id.
    #[must_use]
    pub fn verify(&self, id: &BlobId, plain: &[u8]) -> bool {
        self.repo.keys().blob_id(plain) == *id
    }

    /// A node of a catalog or of a blob list, verified.
    pub fn node(&self, id: &BlobId) -> Result<Bytes> {
        self.again(|| self.find_node(id))
    }

    fn find_node(&self, id: &BlobId) -> Result<Bytes> {
        let mut tried = HashSet::new();
        let mut failure = None;
        // Another pack may hold a copy where one is damaged.
        while let Some(place) = self.locate_other(id, &tried)? {
            match self.node_at(id, place) {
                Ok(node) => return Ok(node),
                Err(e) => drop(failure.get_or_insert(e)),
            }
            tried.insert(place.pack);
        }
        Err(failure.unwrap_or_else(|| Error::MissingBlob { id: id.to_string(), needed_by: "a snapshot".into() }))
    }

    fn node_at(&self, id: &BlobId, place: Location) -> Result<Bytes> {
        let frame = self.cached_frame(place.pack, place.frame)?;
        let range = place.offset as usize..place.offset as usize + place.length as usize;
        let node = (range.end <= frame.len()).then(|| frame.slice(range)).filter(|node| self.verify(id, node));
        node.ok_or_else(|| Error::damaged(format!("blob {id}"), "the index points to other bytes"))
    }

    fn cached_frame(&self, pack: u32, frame: u32) -> Result<Bytes> {
        let key = (pack, frame);
        if let Some((_, bytes)) = lock(&self.frames).frames.iter().find(|(k, _)| *k == key) {
            return Ok(bytes.clone());
        }
        let summary = self.index.pack(pack)?;
        let entry = summary.frames.get(frame as usize).ok_or_else(|| Error::Cache("a frame number out of range".into()))?;
        let ahead = lock(&self.frames).ahead.get(pack, frame, entry);
        let mut sealed = match ahead {
            Some(sealed) => Vec::from(sealed),
            None => self.fetch_ahead(pack, frame, &summary, entry)?,
        };
        let mut plain = Vec::new();
        self.open_frame(&summary, frame, &mut sealed, &mut plain)?;
        let bytes = Bytes::from(plain);
        let mut cache = lock(&self.frames);
        cache.bytes += bytes.len();
        cache.frames.push_front((key, bytes.clone()));
        while cache.bytes > FRAME_CACHE_BYTES && cache.frames.len() > 1 {
            if let Some((_, old)) = cache.frames.pop_back() {
                cache.bytes -= old.len();
            }
        }
        Ok(bytes)
    }
}

impl Reader {
    /// Fetches a frame of nodes, and those after it if that looks worth it.
    fn fetch_ahead(&self, pack: u32, frame: u32, summary: &PackSummary, entry: &FrameEntry) -> Result<Vec<u8>> {
        let object = names::pack(summary.epoch, &summary.id);
        let offset = u64::from(entry.offset);
        let frames = lock(&self.frames).ahead.plan(pack, frame, summary);
        let last = summary.frames.get(frames.end as usize - 1).unwrap_or(entry);
        let end = u64::from(last.offset) + u64::from(last.sealed);
        let length = usize::try_from(end - offset).unwrap_or(usize::MAX);
        let Ok(sealed) = self.repo.backend().read_range(&object, offset, length) else {
            // The frame itself may be readable where those after it are not.
            return Ok(Vec::from(self.repo.backend().read_range(&object, offset, entry.sealed as usize)?));
        };
        let own = sealed.get(..entry.sealed as usize).unwrap_or_default().to_vec();
        let window = frames.end - frames.start;
        lock(&self.frames).ahead = Ahead { pack, frames, sealed, offset, window };
        Ok(own)
    }
}

/// Whether something that was looked for is not there.
pub(crate) fn is_missing(error: &Error) -> bool {
    match error {
        Error::MissingBlob { .. } => true,
        Error::Backend(e) => e.kind == ErrorKind::NotFound,
        _ => false,
    }
}

/// Opens, again if a segment is gone: a newer seal has replaced it then.
fn settled(mut open: impl FnMut() -> Result<Reader>) -> Result<Reader> {
    for _ in 1..MAX_ROUNDS {
        match open() {
            Err(Error::Backend(e)) if e.kind == ErrorKind::NotFound => {}
            result => return result,
        }
    }
    open()
}
