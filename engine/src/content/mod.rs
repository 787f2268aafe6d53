//! A stored file's content: as a stream, and at random.

mod random;

pub use random::{StoredFiles, StoredReader};

use std::collections::HashSet;
use std::io::Write;
use std::ops::Range;

use crate::catalog::ListReader;
use crate::entry::{Entry, Hole};
use crate::error::{Error, Result};
use crate::id::BlobId;
use crate::index::Location;
use crate::repo::Reader;

/// Zeros written at a time for a hole.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Writes the content of a regular file, holes as zeros.
pub fn copy_to(reader: &Reader, entry: &Entry, out: &mut dyn Write) -> Result<()> {
    let mut file = Laid { out, holes: &entry.holes, at: 0 };
    let mut frame = Frame { reader, place: None, plain: Vec::new() };
    for id in ListReader::new(reader, &entry.content) {
        file.data(frame.blob(&id?)?)?;
    }
    file.holes()?;
    if file.at == entry.size {
        return Ok(());
    }
    Err(Error::damaged(entry.path.display(), format!("has {} bytes instead of {}", file.at, entry.size)))
}

/// The frame read last: neighbouring blobs mostly lie in the same one.
struct Frame<'r> {
    reader: &'r Reader,
    place: Option<(u32, u32)>,
    plain: Vec<u8>,
}

impl Frame<'_> {
    /// A blob, verified. Where one copy is missing or damaged, the others are tried.
    fn blob(&mut self, id: &BlobId) -> Result<&[u8]> {
        let reader = self.reader;
        let range = reader.again(|| self.find(id))?;
        Ok(self.plain.get(range).unwrap_or_default())
    }

    fn find(&mut self, id: &BlobId) -> Result<Range<usize>> {
        let (mut tried, mut failure) = (HashSet::new(), None);
        while let Some(place) = self.reader.locate_other(id, &tried)? {
            match self.load(id, place) {
                Ok(range) => return Ok(range),
                Err(e) => drop(failure.get_or_insert(e)),
            }
            tried.insert(place.pack);
        }
        Err(failure.unwrap_or_else(|| Error::MissingBlob { id: id.to_string(), needed_by: "a file".into() }))
    }

    fn load(&mut self, id: &BlobId, at: Location) -> Result<Range<usize>> {
        if self.place != Some((at.pack, at.frame)) {
            self.place = None;
            self.reader.read_frame(at.pack, at.frame, &mut self.plain)?;
            self.place = Some((at.pack, at.frame));
        }
        let range = at.offset as usize..at.offset as usize + at.length as usize;
        let is_right = self.plain.get(range.clone()).is_some_and(|data| self.reader.verify(id, data));
        if is_right { Ok(range) } else { Err(Error::damaged(format!("blob {id}"), "its bytes do not have its hash")) }
    }
}

/// Data laid around the holes of a file.
struct Laid<'a> {
    out: &'a mut dyn Write,
    holes: &'a [Hole],
    at: u64,
}

impl Laid<'_> {
    fn data(&mut self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            self.holes()?;
            let room = self.holes.first().map_or(u64::MAX, |h| h.offset - self.at);
            let (now, rest) = data.split_at(usize::try_from(room).unwrap_or(usize::MAX).min(data.len()));
            self.write(now)?;
            data = rest;
        }
        Ok(())
    }

    /// Writes the holes that begin here.
    fn holes(&mut self) -> Result<()> {
        while let Some((hole, rest)) = self.holes.split_first().filter(|(h, _)| h.offset == self.at) {
            let mut left = hole.length;
            while left > 0 {
                let n = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len());
                self.write(&ZEROS[..n])?;
                left -= n as u64;
            }
            self.holes = rest;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|source| Error::Io { path: "output".into(), action: "cannot write", source })?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}
