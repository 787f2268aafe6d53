//! Content and deltas as members: whole if short, else in pieces of 64 KiB.

use engine::entry::Entry;
use engine::error::Result;

use super::header::{self, Place};
use super::set::{PIECE, SetWriter};
use crate::tar::Header;

/// What the members of a path hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    Content,
    Delta,
}

impl Holds {
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Content => ("snapshot", "multivol_snapshot"),
            Self::Delta => ("diff", "multivol_diff"),
        }
    }
}

/// Takes the bytes of one path. Memory: one piece.
pub(crate) struct Pieces<'s, 'a> {
    set: &'s mut SetWriter<'a>,
    entry: &'s Entry,
    holds: Holds,
    buffer: Vec<u8>,
    /// Pieces written so far.
    number: u64,
}

impl<'s, 'a> Pieces<'s, 'a> {
    pub fn new(set: &'s mut SetWriter<'a>, entry: &'s Entry, holds: Holds) -> Self {
        Self { set, entry, holds, buffer: Vec::new(), number: 0 }
    }

    pub fn push(&mut self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let (now, rest) = data.split_at(data.len().min(PIECE - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            data = rest;
            if self.buffer.len() == PIECE {
                self.piece(false)?;
            }
        }
        Ok(())
    }

    /// Writes the rest; a last piece may be empty.
    pub fn finish(mut self) -> Result<()> {
        if self.number > 0 {
            return self.piece(true);
        }
        let name = header::name(self.holds.words().0, self.entry, Place::Volume);
        let header = Header { name, size: self.buffer.len() as u64, ..header::of(self.entry) };
        self.set.member(&header, &self.buffer, &self.entry.path, None)
    }

    fn piece(&mut self, is_last: bool) -> Result<()> {
        self.number += 1;
        let name = header::piece_name(self.holds.words().1, &self.entry.path, self.number);
        let header = Header { name, size: self.buffer.len() as u64, ..header::of(self.entry) };
        let block = (!is_last).then_some(self.number);
        self.set.member(&header, &self.buffer, &self.entry.path, block)?;
        self.buffer.clear();
        Ok(())
    }
}
