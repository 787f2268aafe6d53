//! A stored file's content as a stream.

use std::io::Write;

use crate::catalog::ListReader;
use crate::entry::{Entry, Hole};
use crate::error::{Error, Result};
use crate::repo::Reader;

/// Zeros written at a time for a hole.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Writes the content of a regular file, holes as zeros.
pub fn copy_to(reader: &Reader, entry: &Entry, out: &mut dyn Write) -> Result<()> {
    let mut file = Laid { out, holes: &entry.holes, at: 0 };
    let (mut plain, mut current) = (Vec::new(), None);
    for id in ListReader::new(reader, &entry.content) {
        let id = id?;
        let place = reader.locate(&id)?;
        if current != Some((place.pack, place.frame)) {
            reader.read_frame(place.pack, place.frame, &mut plain)?;
            current = Some((place.pack, place.frame));
        }
        let data = plain.get(place.offset as usize..).and_then(|p| p.get(..place.length as usize));
        match data.filter(|data| reader.verify(&id, data)) {
            Some(data) => file.data(data)?,
            None => return Err(Error::damaged(format!("blob {id}"), "its bytes do not have its hash")),
        }
    }
    file.holes()?;
    if file.at == entry.size {
        return Ok(());
    }
    Err(Error::damaged(entry.path.display(), format!("has {} bytes instead of {}", file.at, entry.size)))
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
