//! Contents of files on their way from an archive into the repository.

use std::io::{self, Cursor, Read};
use std::sync::{Arc, Mutex, PoisonError};

use engine::content::{StoredFiles, StoredReader};
use engine::entry::{Entry, Hole, LazyEntry, Metadata, OpenFile, UNKNOWN_SIZE, Xattrs};

use super::budget::Permit;
use crate::librsync::{Basis, DeltaReader};

/// Largest file there can be. A delta may repeat what it refers to, so its own length bounds nothing.
pub(super) const MAX_CONTENT: u64 = i64::MAX as u64;

/// A stored file that deltas refer to.
pub(super) struct StoredBasis(StoredReader);

impl StoredBasis {
    pub fn new(files: &Arc<StoredFiles>, entry: &Entry) -> Self {
        Self(files.open(entry))
    }
}

impl Basis for StoredBasis {
    fn len(&self) -> u64 {
        self.0.size()
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buffer).map_err(io::Error::other)
    }
}

/// Content that waits in memory: a file, or the delta to one.
pub(super) struct InMemory {
    bytes: Arc<[u8]>,
    delta_to: Option<(Arc<StoredFiles>, Box<Entry>)>,
    meta: Metadata,
    _permit: Permit,
}

impl InMemory {
    pub fn new(bytes: Vec<u8>, meta: Metadata, permit: Permit) -> Self {
        Self { bytes: bytes.into(), delta_to: None, meta, _permit: permit }
    }

    pub fn delta(bytes: Vec<u8>, files: &Arc<StoredFiles>, basis: Entry, meta: Metadata, permit: Permit) -> Self {
        Self { delta_to: Some((Arc::clone(files), Box::new(basis))), ..Self::new(bytes, meta, permit) }
    }
}

impl LazyEntry for InMemory {
    fn xattrs(&self) -> io::Result<Xattrs> {
        Ok(Vec::new())
    }

    fn open(&self) -> io::Result<Box<dyn OpenFile>> {
        let bytes = Cursor::new(Arc::clone(&self.bytes));
        let reader: Box<dyn Read + Send> = match &self.delta_to {
            None => Box::new(bytes),
            Some((files, basis)) => Box::new(DeltaReader::new(bytes, StoredBasis::new(files, basis), MAX_CONTENT)),
        };
        Ok(Box::new(OpenContent::new(reader, self.meta.clone())))
    }
}

/// Content that comes once.
pub(super) struct Streamed {
    reader: Mutex<Option<Box<dyn Read + Send>>>,
    meta: Metadata,
}

impl Streamed {
    pub fn new(reader: Box<dyn Read + Send>, meta: Metadata) -> Self {
        Self { reader: Mutex::new(Some(reader)), meta }
    }
}

impl LazyEntry for Streamed {
    fn xattrs(&self) -> io::Result<Xattrs> {
        Ok(Vec::new())
    }

    fn open(&self) -> io::Result<Box<dyn OpenFile>> {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        let reader = reader.ok_or_else(|| io::Error::other("a stream can be read only once"))?;
        Ok(Box::new(OpenContent::new(reader, self.meta.clone())))
    }
}

struct OpenContent {
    reader: Box<dyn Read + Send>,
    meta: Metadata,
    length: u64,
    ended: bool,
}

impl OpenContent {
    fn new(reader: Box<dyn Read + Send>, meta: Metadata) -> Self {
        Self { reader, meta, length: 0, ended: false }
    }
}

impl OpenFile for OpenContent {
    fn xattrs(&self) -> io::Result<Xattrs> {
        Ok(Vec::new())
    }

    fn stat(&self) -> io::Result<(Metadata, u64)> {
        Ok((self.meta.clone(), if self.ended { self.length } else { UNKNOWN_SIZE }))
    }

    fn holes(&mut self, _: u64, _: usize) -> io::Result<Vec<Hole>> {
        Ok(Vec::new())
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
            match self.reader.read(room) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.length += filled as u64;
        Ok(filled)
    }
}
