//! Runs: sorted entries in pages, with fences and a filter in memory.
//!
//! The filter is a binary fuse filter (Graf and Lemire, 2022, <https://arxiv.org/abs/2201.01174>) over the first eight bytes
//! of the ids, which are uniformly distributed because ids are keyed hashes.

use redb::{OwnedAccessGuard, ReadOnlyTable, Table};
use xorf::{BinaryFuse8, Descriptor, Filter};

use super::codec::{Reader, Record, checksum, put_count};
use super::entry::{ENTRY, Entry, id_of, prefix};
use super::store::{Fault, guarded};
use crate::format::pack::SegmentName;
use crate::id::{ObjectId, RepoId};

/// Entries in a full page: with key and header, a leaf of the database of just under 8 KiB.
///
/// Ids have no locality, so a page is read for one entry; smaller pages cost less to read and more memory for fences.
pub(super) const PAGE_ENTRIES: usize = 170;

/// Below this many distinct prefixes a filter is not worth having.
const MIN_FILTERED: usize = 64;

/// A segment that a run was built from, with the ordinals of its packs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) name: SegmentName,
    pub(super) packs: Vec<u32>,
}

/// A page as the database holds it, verified.
pub(super) struct Page(OwnedAccessGuard<&'static [u8]>);

impl std::ops::Deref for Page {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.value()
    }
}

/// What is in memory of a run.
pub(super) struct Run {
    pub(super) number: u32,
    pub(super) entries: u64,
    pub(super) segments: Vec<SegmentName>,
    /// Prefix of the first id of each page.
    fences: Vec<u64>,
    /// Checksum of each page.
    sums: Vec<u64>,
    filter: Option<BinaryFuse8>,
    /// Where in the page cache its pages begin.
    pub(super) place: usize,
}

impl Run {
    /// How many pages it has.
    pub(super) fn pages(&self) -> usize {
        self.fences.len()
    }

    /// Whether an id with this prefix may be in here. Wrongly yes for one in 256.
    pub(super) fn may_hold(&self, key: u64) -> bool {
        match &self.filter {
            Some(filter) => filter.contains(&key),
            None => !self.fences.is_empty(),
        }
    }

    /// The pages that ids with this prefix can lie in: nearly always one.
    pub(super) fn pages_of(&self, key: u64) -> std::ops::Range<usize> {
        // Ids with the prefix of a page's first id may begin on the page before.
        let end = self.fences.partition_point(|fence| *fence <= key);
        let start = self.fences[..end].iter().rposition(|fence| *fence < key);
        start.unwrap_or(0)..end
    }

    /// Reads a page and verifies it.
    pub(super) fn fetch(&self, pages: &ReadOnlyTable<u64, &'static [u8]>, repo: &RepoId, page: usize) -> Result<Page, Fault> {
        let damaged = || Fault::Damaged(format!("page {page} of run {}", self.number));
        let key = page_key(self.number, page).ok_or_else(damaged)?;
        let sum = self.sums.get(page).ok_or_else(damaged)?;
        guarded(|| {
            let page = Page(pages.get_owned(key)?.ok_or_else(damaged)?);
            let sound = !page.is_empty() && page.len().is_multiple_of(ENTRY) && checksum(repo, Record::Page, key, &page) == *sum;
            if sound { Ok(page) } else { Err(damaged()) }
        })
    }

    /// The run's record; its pages are stored apart.
    pub(super) fn encode(&self, held: &[Held]) -> Vec<u8> {
        let filter = self.filter.as_ref().map_or(0, |filter| filter.fingerprints.len());
        let mut out = Vec::with_capacity(64 + held.len() * 48 + self.fences.len() * 16 + filter);
        out.extend_from_slice(&self.entries.to_le_bytes());
        put_count(&mut out, held.len());
        for Held { name, packs } in held {
            out.extend_from_slice(&name.epoch.to_le_bytes());
            out.extend_from_slice(&name.id.0);
            put_count(&mut out, packs.len());
            packs.iter().for_each(|pack| out.extend_from_slice(&pack.to_le_bytes()));
        }
        put_count(&mut out, self.fences.len());
        for (fence, sum) in self.fences.iter().zip(&self.sums) {
            out.extend_from_slice(&fence.to_le_bytes());
            out.extend_from_slice(&sum.to_le_bytes());
        }
        if let Some(BinaryFuse8 { descriptor, fingerprints }) = &self.filter {
            out.extend_from_slice(&descriptor.seed.to_le_bytes());
            for number in [descriptor.segment_length, descriptor.segment_length_mask, descriptor.segment_count_length] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            out.extend_from_slice(fingerprints);
        }
        out
    }

    /// Reads a run's record.
    pub(super) fn decode(number: u32, bytes: &[u8]) -> Option<(Self, Vec<Held>)> {
        let mut reader = Reader(bytes);
        let entries = reader.u64()?;
        let count = reader.count(44)?;
        let held = (0..count).map(|_| decode_held(&mut reader)).collect::<Option<Vec<_>>>()?;
        let pages = reader.count(16)?;
        let mut fences = Vec::with_capacity(pages);
        let mut sums = Vec::with_capacity(pages);
        for _ in 0..pages {
            fences.push(reader.u64()?);
            sums.push(reader.u64()?);
        }
        let filter = if reader.0.is_empty() { None } else { Some(decode_filter(&mut reader)?) };
        let segments = held.iter().map(|held| held.name).collect();
        Some((Self { number, entries, segments, fences, sums, filter, place: 0 }, held))
    }
}

fn decode_held(reader: &mut Reader<'_>) -> Option<Held> {
    let name = SegmentName { epoch: reader.u64()?, id: ObjectId(reader.array()?) };
    let count = reader.count(4)?;
    Some(Held { name, packs: (0..count).map(|_| reader.u32()).collect::<Option<_>>()? })
}

fn decode_filter(reader: &mut Reader<'_>) -> Option<BinaryFuse8> {
    let descriptor = Descriptor {
        seed: reader.u64()?,
        segment_length: reader.u32()?,
        segment_length_mask: reader.u32()?,
        segment_count_length: reader.u32()?,
    };
    // A look-up touches three consecutive segments, the first of which begins below segment_count_length.
    let reach = u64::from(descriptor.segment_count_length) + 2 * u64::from(descriptor.segment_length);
    let sound = descriptor.segment_length.is_power_of_two()
        && descriptor.segment_length_mask == descriptor.segment_length - 1
        && descriptor.segment_count_length.is_multiple_of(descriptor.segment_length)
        && reach <= u64::try_from(reader.0.len()).ok()?;
    sound.then(|| BinaryFuse8 { descriptor, fingerprints: std::mem::take(&mut reader.0).into() })
}

/// Key of a page; `None` past the four-thousand-millionth.
pub(super) fn page_key(run: u32, page: usize) -> Option<u64> {
    Some((u64::from(run) << 32) | u64::from(u32::try_from(page).ok()?))
}

/// Writes a run's pages from entries in order.
pub(super) struct RunBuilder<'a, 'txn> {
    repo: &'a RepoId,
    pages: &'a mut Table<'txn, u64, &'static [u8]>,
    run: Run,
    page: Vec<u8>,
    last: Option<Entry>,
    keys: Vec<u64>,
}

impl<'a, 'txn> RunBuilder<'a, 'txn> {
    /// Begins a run of at most about `expected` entries.
    pub(super) fn new(repo: &'a RepoId, pages: &'a mut Table<'txn, u64, &'static [u8]>, number: u32, expected: usize) -> Self {
        let run = Run { number, entries: 0, segments: Vec::new(), fences: Vec::new(), sums: Vec::new(), filter: None, place: 0 };
        let page = Vec::with_capacity(PAGE_ENTRIES * ENTRY);
        Self { repo, pages, run, page, last: None, keys: Vec::with_capacity(expected) }
    }

    /// Adds an entry, not less than the one before; the same one again is passed over.
    pub(super) fn push(&mut self, entry: &Entry) -> Result<(), Fault> {
        if self.last.as_ref() == Some(entry) {
            return Ok(());
        }
        let key = prefix(id_of(entry));
        // Building a filter fails on keys that occur twice.
        if self.keys.last() != Some(&key) {
            self.keys.push(key);
        }
        if self.page.is_empty() {
            self.run.fences.push(key);
        }
        self.page.extend_from_slice(entry);
        self.run.entries += 1;
        self.last = Some(*entry);
        if self.page.len() == PAGE_ENTRIES * ENTRY { self.flush() } else { Ok(()) }
    }

    /// Writes the last page and builds the filter.
    pub(super) fn finish(mut self) -> Result<Run, Fault> {
        if !self.page.is_empty() {
            self.flush()?;
        }
        if self.keys.len() >= MIN_FILTERED {
            // Without a filter (the chance is negligible) look-ups are slower, not wrong.
            self.run.filter = BinaryFuse8::try_from(&self.keys).ok();
        }
        self.run.fences.shrink_to_fit();
        self.run.sums.shrink_to_fit();
        Ok(self.run)
    }

    fn flush(&mut self) -> Result<(), Fault> {
        let key =
            page_key(self.run.number, self.run.sums.len()).ok_or_else(|| Fault::Failed("a run has too many pages".into()))?;
        self.run.sums.push(checksum(self.repo, Record::Page, key, &self.page));
        self.pages.insert(key, self.page.as_slice())?;
        self.page.clear();
        Ok(())
    }
}
