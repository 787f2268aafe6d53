//! A fixed set of entries, numbered: what maintenance needs to mark blobs in bitmaps.

use std::sync::Arc;

use super::entry::{ENTRY, id_of, location};
use super::merge::Cursor;
use super::run::PAGE_ENTRIES;
use super::store::{Fault, RUNS};
use super::view::View;
use super::write::decode_run;
use super::{Index, Location, prefix, search_page};
use crate::error::Result;
use crate::format::pack::SegmentName;
use crate::id::BlobId;

/// The entries of an index as they were at one moment. Each has a number below [`Self::len`]; a blob that lies in two packs
/// has two entries. Later changes of the index do not show.
pub struct Frozen<'a> {
    index: &'a Index,
    view: Arc<View>,
    /// Number of the first entry of each run.
    bases: Vec<u64>,
}

/// An entry: its number and where the blob lies.
pub type Numbered = (u64, Location);

impl Index {
    /// The entries as they are now.
    pub fn freeze(&self) -> Frozen<'_> {
        let view = self.current.get();
        let mut next = 0;
        let mut bases = Vec::with_capacity(view.runs.len());
        for run in &view.runs {
            bases.push(next);
            next += run.entries;
        }
        Frozen { index: self, view, bases }
    }

    /// The segments that are held, with the ordinals of their packs.
    ///
    /// # Errors
    ///
    /// [`crate::error::Error::Cache`] if the file is damaged or cannot be read.
    pub fn segments(&self) -> Result<Vec<(SegmentName, Vec<u32>)>> {
        let runs: Vec<u32> = self.current.get().runs.iter().map(|run| run.number).collect();
        let held = self.store.read(|transaction| {
            let (table, mut all) = (transaction.open_table(RUNS)?, Vec::new());
            for number in runs {
                let record = table.get(number)?;
                let (_, held) = decode_run(&self.repo, number, record.as_ref().map_or(&[][..], |r| r.value()))?;
                all.extend(held.into_iter().map(|held| (held.name, held.packs)));
            }
            Ok(all)
        });
        self.answer(held)
    }
}

impl Frozen<'_> {
    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.view.runs.iter().map(|run| run.entries).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first entry of a blob in a pack that `usable` accepts. `usable` must not call the index.
    ///
    /// # Errors
    ///
    /// [`crate::error::Error::Cache`] if the file is damaged or cannot be read.
    pub fn find(&self, id: &BlobId, usable: &dyn Fn(u32) -> bool) -> Result<Option<Numbered>> {
        let key = prefix(&id.0);
        for (run, base) in self.view.runs.iter().zip(&self.bases).filter(|(run, _)| run.may_hold(key)) {
            for page in run.pages_of(key) {
                let load = || run.fetch(&self.view.pages, &self.index.repo, page);
                let place = run.place.wrapping_add(page);
                let search = |bytes: &[u8]| search_page(bytes, id, usable);
                let found = self.index.pages.with(place, (run.number, page), load, search);
                if let Some((slot, at)) = self.index.answer(found)? {
                    return Ok(Some((number(*base, page, slot), at)));
                }
            }
        }
        Ok(None)
    }

    /// Calls `each` for every blob in the order of ids, with all its entries: of several in the same pack the one that
    /// [`Self::find`] finds, in the order of their numbers.
    ///
    /// # Errors
    ///
    /// What `each` returns; [`crate::error::Error::Cache`] if the file is damaged or cannot be read.
    pub fn blobs(&self, mut each: impl FnMut(&BlobId, &[Numbered]) -> Result<()>) -> Result<()> {
        self.index.answer(self.try_blobs(&mut each))
    }

    fn try_blobs(&self, each: &mut dyn FnMut(&BlobId, &[Numbered]) -> Result<()>) -> Result<(), Fault> {
        let (pages, repo) = (&self.view.pages, &self.index.repo);
        let mut cursors = Vec::with_capacity(self.bases.len());
        for (run, base) in self.view.runs.iter().zip(&self.bases) {
            let mut cursor = Cursor::new(run);
            if cursor.load(pages, repo)? {
                cursors.push((*base, cursor));
            }
        }
        let mut copies: Vec<Numbered> = Vec::new();
        loop {
            let least = cursors.iter().filter_map(|(_, cursor)| cursor.entry().map(id_of)).min();
            let Some(id) = least.map(|id| BlobId(*id)) else { return Ok(()) };
            let mut ended = false;
            for (base, cursor) in &mut cursors {
                while let Some(entry) = cursor.entry().filter(|entry| id_of(entry) == &id.0) {
                    let at = location(entry);
                    if copies.iter().all(|(_, known)| known.pack != at.pack) {
                        copies.push((number(*base, cursor.page - 1, cursor.at / ENTRY), at));
                    }
                    ended |= !cursor.advance(pages, repo)?;
                }
            }
            if ended {
                cursors.retain(|(_, cursor)| cursor.entry().is_some());
            }
            each(&id, &copies)?;
            copies.clear();
        }
    }
}

fn number(base: u64, page: usize, slot: usize) -> u64 {
    base + page as u64 * PAGE_ENTRIES as u64 + slot as u64
}
