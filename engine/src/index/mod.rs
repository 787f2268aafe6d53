//! The local index: answers where a blob lies. A disposable cache of the repository's index segments, in one redb file.
//!
//! It does not know the store, how segments are encrypted, which packs can be used, or which segments are valid: callers
//! say so. Nothing is ever only in here; a missing, damaged or foreign file is made anew.
//!
//! # Structure
//!
//! Ids are uniformly random, and a B-tree fed with random keys collapses. So segments are collected, sorted, and written as
//! *runs*: immutable sorted pages of 170 entries under ordered keys. A run has a binary fuse filter and a fence per page in
//! memory; a look-up asks the filters and reads about one page. Runs of similar size are merged, up to two million entries.
//! A segment is never divided between runs, so that a run whose segments are no longer all valid can be dropped whole.
//!
//! # Memory
//!
//! For `n` blobs: filters 1.13 n bytes, fences and page checksums 0.1 n bytes, page cache 24 MiB, redb 8 MiB, pack
//! summaries at most 6 MiB; 96 MiB at 50 million blobs. On top of it while segments are loaded: measured
//! 120 MiB, for collecting half a million entries, building the filter of a merged run, and five segments of 100,000 blobs
//! as the caller loads them. A segment of more blobs than that takes 72 bytes per blob for the time.
//!
//! # Speed
//!
//! A blob that is nowhere costs a filter per run, and in one of 256 cases for each run a page in vain: about every tenth
//! time with the 25 runs of 50 million blobs. Ids have no locality, so a blob that is there costs reading a page, from the
//! system's cache at best.
//!
//! # Damage
//!
//! Every record is checked when it is read into memory (`codec`). What fails the check is [`Error::Cache`], and the file is
//! taken away at once, so that the next [`Index::open`] begins anew. A file that another process holds is left alone.

mod batch;
mod cache;
mod codec;
mod entry;
mod frozen;
mod merge;
mod packs;
mod run;
mod store;
mod sync;
mod view;
mod write;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, Mutex};

pub use entry::Location;
pub use frozen::{Frozen, Numbered};
pub use packs::PackSummary;
pub use sync::Load;

use self::batch::Batch;
use self::cache::PageCache;
use self::codec::{Reader, Record, unseal};
use self::entry::{ENTRY, Entry, id_of, location, prefix};
use self::packs::PackCache;
use self::run::{PAGE_ENTRIES, Run};
use self::store::{Fault, PACKS, Store};
use self::view::{Current, View};
use self::write::{Writer, load};
use crate::error::{Error, Result};
use crate::format::pack::{PackRecord, SegmentName};
use crate::id::{BlobId, Epoch, ObjectId, RepoId};
use crate::monitor::lock;

/// Bytes of pages kept in memory.
const PAGE_CACHE: usize = 24 << 20;

/// Bytes of pack summaries kept in memory.
const PACK_CACHE: usize = 6 << 20;

/// The index. All of it can be used from many threads; changes wait for each other, look-ups wait for nobody.
pub struct Index {
    // Before the store: the database closes when the last user of its pages is gone.
    current: Current,
    pages: PageCache,
    packs: PackCache,
    writer: Mutex<Writer>,
    repo: RepoId,
    store: Store,
}

impl Index {
    /// Opens the index of a repository in `dir`, which must exist and be private to the user.
    ///
    /// A file that is missing, damaged, of another version or of another repository is made anew. Where that cannot be, or
    /// another process holds the file, the index is in memory (see [`Self::is_persistent`]); so it is without `dir`.
    ///
    /// # Errors
    ///
    /// [`Error::Cache`] if not even an index in memory can be made.
    pub fn open(dir: Option<&Path>, repo: RepoId) -> Result<Self> {
        if let Some(dir) = dir {
            for _ in 0..2 {
                match Store::in_dir(dir).and_then(|store| Self::with_store(store, repo)) {
                    Ok(index) => return Ok(index),
                    Err(Fault::Damaged(_)) => Self::discard(dir).unwrap_or_default(),
                    Err(_) => break,
                }
            }
        }
        Store::in_memory().and_then(|store| Self::with_store(store, repo)).map_err(to_error)
    }

    fn with_store(store: Store, repo: RepoId) -> Result<Self, Fault> {
        let (writer, view) = load(&store, &repo)?;
        Ok(Self {
            current: Current::new(&view),
            pages: PageCache::new(PAGE_CACHE / (PAGE_ENTRIES * ENTRY)),
            packs: PackCache::new(PACK_CACHE),
            writer: Mutex::new(writer),
            repo,
            store,
        })
    }

    /// Removes the index in `dir`, if there is one. Who has it open can go on.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be removed.
    pub fn discard(dir: &Path) -> Result<()> {
        store::remove(dir)
    }

    /// Whether the index will be there next time.
    pub fn is_persistent(&self) -> bool {
        self.store.is_file()
    }

    /// Makes the index hold exactly the segments `valid`.
    ///
    /// Runs with a segment that is not valid are dropped, and what is missing is loaded through `load`, on several threads
    /// and in any order. What was loaded before an error stays. Waits for other changes; look-ups go on meanwhile.
    ///
    /// # Errors
    ///
    /// What `load` returns; [`Error::Damaged`] for a pack whose directory contradicts itself; [`Error::Cache`].
    pub fn sync(&self, valid: &[SegmentName], load: &Load<'_>) -> Result<()> {
        self.answer(self.sync_with(&mut lock(&self.writer), valid, load))
    }

    /// Adds a segment, unless the index holds it already.
    ///
    /// # Errors
    ///
    /// As [`Self::sync`].
    pub fn add(&self, name: SegmentName, packs: &[PackRecord]) -> Result<()> {
        let writer = &mut *lock(&self.writer);
        if self.current.get().runs.iter().any(|run| run.segments.contains(&name)) {
            return Ok(());
        }
        let mut batch = Batch::new(writer.next_pack);
        let added = batch.add(&self.store, &self.repo, name, packs);
        self.answer(added.and_then(|()| self.write_batch(writer, batch)))
    }

    /// A place where the blob lies, in a pack that `usable` accepts; `None` if there is none.
    ///
    /// `usable` must not call the index.
    ///
    /// # Errors
    ///
    /// [`Error::Cache`] if the file is damaged or cannot be read.
    pub fn locate(&self, id: &BlobId, usable: &dyn Fn(u32) -> bool) -> Result<Option<Location>> {
        let view = self.current.get();
        let key = prefix(&id.0);
        for run in &view.runs {
            if run.may_hold(key)
                && let Some(found) = self.answer(self.search(&view, run, id, usable))?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn search(&self, view: &View, run: &Run, id: &BlobId, usable: &dyn Fn(u32) -> bool) -> Result<Option<Location>, Fault> {
        for page in run.pages_of(prefix(&id.0)) {
            let place = run.place.wrapping_add(page);
            let load = || run.fetch(&view.pages, &self.repo, page);
            let found = self.pages.with(place, (run.number, page), load, |bytes| search_page(bytes, id, usable))?;
            if let Some((_, at)) = found {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// What is known of a pack.
    ///
    /// # Errors
    ///
    /// [`Error::Cache`] for an ordinal that is not in use, and if the file is damaged or cannot be read.
    pub fn pack(&self, ordinal: u32) -> Result<Arc<PackSummary>> {
        if let Some(summary) = self.packs.get(ordinal) {
            return Ok(summary);
        }
        let summary = self.store.read(|transaction| {
            let record = transaction.open_table(PACKS)?.get(ordinal)?;
            let record = record.ok_or_else(|| Fault::Failed(format!("pack number {ordinal} is not known")))?;
            let body = unseal(&self.repo, Record::Pack, u64::from(ordinal), record.value());
            body.and_then(packs::decode).ok_or_else(|| Fault::Damaged(format!("summary of pack {ordinal}")))
        });
        let summary = Arc::new(self.answer(summary)?);
        self.packs.put(ordinal, &summary);
        Ok(summary)
    }

    /// Calls `each` with ordinal, epoch, name and size of every pack, by ordinal.
    ///
    /// # Errors
    ///
    /// [`Error::Cache`] if the file is damaged or cannot be read.
    pub fn packs(&self, mut each: impl FnMut(u32, Epoch, ObjectId, u64)) -> Result<()> {
        /// So many at a time, because `each` must run outside of the database.
        const CHUNK: usize = 4096;
        let mut from = Some(0);
        while let Some(first) = from {
            let chunk = self.store.read(|transaction| {
                let mut chunk = Vec::new();
                for item in transaction.open_table(PACKS)?.range(first..)?.take(CHUNK) {
                    let (ordinal, record) = item?;
                    let ordinal = ordinal.value();
                    let body = unseal(&self.repo, Record::Pack, u64::from(ordinal), record.value());
                    let head = body.and_then(|body| packs::head(&mut Reader(body)));
                    chunk.push((ordinal, head.ok_or_else(|| Fault::Damaged(format!("summary of pack {ordinal}")))?));
                }
                Ok(chunk)
            });
            let chunk = self.answer(chunk)?;
            from = chunk.last().and_then(|(ordinal, _)| ordinal.checked_add(1));
            for (ordinal, (epoch, id, size)) in chunk {
                each(ordinal, epoch, id, size);
            }
        }
        Ok(())
    }

    /// How many entries there are: blobs, one that lies in two packs counted twice.
    pub fn len(&self) -> u64 {
        self.current.get().runs.iter().map(|run| run.entries).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Passes an answer on; a damaged file is taken away.
    fn answer<T>(&self, answer: Result<T, Fault>) -> Result<T> {
        answer.map_err(|fault| {
            if matches!(fault, Fault::Damaged(_)) {
                self.store.unlink();
            }
            to_error(fault)
        })
    }
}

fn to_error(fault: Fault) -> Error {
    match fault {
        Fault::Damaged(what) => Error::Cache(format!("damaged ({what}); it will be made anew")),
        Fault::Busy => Error::Cache("another process uses it".into()),
        Fault::Failed(why) => Error::Cache(why),
        Fault::Other(error) => error,
    }
}

/// The first of `count` sorted numbers that is not below `key`. Ids are uniform, so its place is guessed and corrected by the
/// few steps that are left; halving would touch more cache lines.
fn lower_bound(count: usize, key: u64, at: impl Fn(usize) -> u64) -> usize {
    let Some(last) = count.checked_sub(1) else { return 0 };
    let (low, high) = (at(0), at(last));
    if key <= low || key > high {
        return if key <= low { 0 } else { count };
    }
    let guess = u128::from(key - low) * last as u128 / u128::from(high - low);
    let mut place = usize::try_from(guess).unwrap_or(last);
    while at(place) < key {
        place += 1;
    }
    while place > 0 && at(place - 1) >= key {
        place -= 1;
    }
    place
}

/// First usable location of a blob in a page, and the place of its entry in there.
fn search_page(page: &[u8], id: &BlobId, usable: &dyn Fn(u32) -> bool) -> Option<(usize, Location)> {
    let key = prefix(&id.0);
    let (entries, _) = page.as_chunks::<ENTRY>();
    let front = |entry: &Entry| prefix(id_of(entry));
    let first = lower_bound(entries.len(), key, |i| front(&entries[i]));
    let same = entries[first..].iter().enumerate().take_while(|(_, entry)| front(entry) == key);
    let own = same.filter(|(_, entry)| id_of(entry) == &id.0).map(|(i, entry)| (first + i, location(entry)));
    own.into_iter().find(|(_, at)| usable(at.pack))
}
