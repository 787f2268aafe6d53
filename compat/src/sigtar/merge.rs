//! Several signature files as one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Read};

use engine::path::EntryPath;

use super::{SigtarEntry, SigtarError, SigtarKind, SigtarReader};

/// Trouble with one of several signature files.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct MergeError {
    /// Which one, counted from 0 in the order they were given.
    pub index: usize,
    /// What is wrong.
    #[source]
    pub error: SigtarError,
}

/// The first entry of a file that is not taken yet. Ordered by path, the newest file first.
type Head = Reverse<(EntryPath, Reverse<usize>)>;

/// The current listing of a chain: of each path the newest entry, without what was deleted, in order. Memory: one entry per
/// signature file and what its reader holds.
///
/// The signature of the current entry is read through [`Read`].
pub struct Merged<R> {
    readers: Vec<SigtarReader<R>>,
    entries: Vec<Option<SigtarEntry>>,
    heads: BinaryHeap<Head>,
    /// Files whose next entry has to be fetched.
    to_fetch: Vec<usize>,
    current: Option<usize>,
}

impl<R: Read> Merged<R> {
    /// Takes the signature files of a chain, the oldest first. Nothing is read yet.
    #[must_use]
    pub fn new(readers: Vec<SigtarReader<R>>) -> Self {
        let entries = readers.iter().map(|_| None).collect();
        let to_fetch = (0..readers.len()).collect();
        Self { readers, entries, heads: BinaryHeap::new(), to_fetch, current: None }
    }

    /// The next path of the listing; `None` at the end. An error does not end it, but paths of that file may be missing, or
    /// older states of them may come instead.
    #[allow(clippy::should_implement_trait, reason = "an iterator could not be read from between two items")]
    pub fn next(&mut self) -> Result<Option<SigtarEntry>, MergeError> {
        loop {
            self.current = None;
            self.fetch()?;
            let Some(Reverse((path, Reverse(newest)))) = self.heads.pop() else { return Ok(None) };
            self.to_fetch.push(newest);
            let entry = self.entries[newest].take();
            // Older entries of the same path.
            while let Some(Reverse((other, Reverse(index)))) = self.heads.peek()
                && *other == path
            {
                self.to_fetch.push(*index);
                self.heads.pop();
            }
            if let Some(entry) = entry.filter(|e| e.kind != SigtarKind::Deleted) {
                self.current = Some(newest);
                return Ok(Some(entry));
            }
        }
    }

    fn fetch(&mut self) -> Result<(), MergeError> {
        while let Some(index) = self.to_fetch.pop() {
            match self.readers[index].next() {
                Ok(Some(entry)) => {
                    self.heads.push(Reverse((entry.path.clone(), Reverse(index))));
                    self.entries[index] = Some(entry);
                }
                Ok(None) => {}
                Err(error) => {
                    if !error.is_fatal() {
                        self.to_fetch.push(index);
                    }
                    return Err(MergeError { index, error });
                }
            }
        }
        Ok(())
    }

    /// Which file the current entry is from, counted from 0.
    #[must_use]
    pub fn current(&self) -> Option<usize> {
        self.current
    }
}

/// The signature of the current entry.
impl<R: Read> Read for Merged<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.current.map_or(Ok(0), |index| self.readers[index].read(buffer))
    }
}
