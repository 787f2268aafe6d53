//! Where blobs come from: the index, brought up to date once if something is gone; and other copies of what is damaged.

use std::collections::HashSet;
use std::ops::Range;

use crate::error::Result;
use crate::id::BlobId;
use crate::index::Location;
use crate::repo::Reader;

pub(super) use crate::repo::is_missing;

/// A reader whose index may be brought up to date on the way: maintenance may move blobs to new packs at any time.
pub(super) struct Source<'a> {
    pub reader: &'a Reader,
}

impl<'a> Source<'a> {
    pub fn new(reader: &'a Reader) -> Self {
        Self { reader }
    }

    /// Brings the index up to date: what was missing may be somewhere else by now.
    ///
    /// Ordinals of packs that were planned with may become invalid by that. That shows as a failure or a wrong hash, and the
    /// blob is then looked up again.
    pub fn reload(&self) -> Result<()> {
        self.reader.reload().map(drop)
    }

    /// Where a blob lies.
    pub fn locate(&self, id: &BlobId) -> Result<Location> {
        self.reader.again(|| self.reader.locate(id))
    }
}

/// Finds blobs that could not be read where they were expected.
pub(super) struct Rescue<'a> {
    source: &'a Source<'a>,
    plain: Vec<u8>,
    /// The frame that was tried last, and whether it could be read.
    last: Option<((u32, u32), bool)>,
}

impl<'a> Rescue<'a> {
    pub fn new(source: &'a Source<'a>) -> Self {
        Self { source, plain: Vec::new(), last: None }
    }

    /// The blob from any other pack than `bad`; after that, if something was `missing`, from where a newer index says.
    pub fn blob(&mut self, id: &BlobId, bad: u32, missing: bool) -> Option<&[u8]> {
        let mut found = self.elsewhere(id, HashSet::from([bad]));
        if found.is_none() && missing {
            self.source.reload().ok()?;
            // Ordinals may stand for other packs now.
            self.last = None;
            found = self.elsewhere(id, HashSet::new());
        }
        self.plain.get(found?)
    }

    fn elsewhere(&mut self, id: &BlobId, mut tried: HashSet<u32>) -> Option<Range<usize>> {
        while let Some(place) = self.source.reader.locate_other(id, &tried).ok()? {
            if let Some(found) = self.fetch(id, place) {
                return Some(found);
            }
            tried.insert(place.pack);
        }
        None
    }

    fn fetch(&mut self, id: &BlobId, place: Location) -> Option<Range<usize>> {
        let frame = (place.pack, place.frame);
        if self.last.is_none_or(|(last, _)| last != frame) {
            let read = self.source.reader.read_frame(place.pack, place.frame, &mut self.plain);
            self.last = Some((frame, read.is_ok()));
        }
        let range = place.offset as usize..(place.offset as usize).checked_add(place.length as usize)?;
        let readable = self.last.is_some_and(|(_, readable)| readable);
        let data = self.plain.get(range.clone()).filter(|_| readable)?;
        self.source.reader.verify(id, data).then_some(range)
    }
}
