//! How the bytes of one file are read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{DIRECT_FROM, LocalBackend};
use crate::backend::{BackendError, ErrorKind, ObjectKey};
use crate::buffer::ALIGN;

/// A read this long is worth a buffer of the pool; smaller ones come from memory that the allocator keeps.
const POOLED_FROM: usize = 256 << 10;

impl LocalBackend {
    /// Opens an object; its size with it.
    pub(super) fn open(&self, key: &ObjectKey) -> Result<(File, u64), BackendError> {
        // NONBLOCK: a FIFO in the object's place must not hang the program.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let opened = rustix::fs::open(self.path(key), flags, Mode::empty());
        let file = File::from(opened.map_err(|e| self.io_error(key.as_str(), "open", &e.into()))?);
        let metadata = file.metadata().map_err(|e| self.io_error(key.as_str(), "look at the file", &e))?;
        if metadata.is_dir() {
            return Err(self.missing(key.as_str()));
        }
        if !metadata.is_file() {
            return Err(self.error(ErrorKind::Corrupt, key.as_str(), "not a regular file"));
        }
        Ok((file, metadata.len()))
    }

    /// Reads a large object past the page cache, into memory that was used before; `None` where that cannot be done.
    pub(super) fn read_direct(&self, key: &ObjectKey, file: &File, length: usize) -> Result<Option<Bytes>, BackendError> {
        if length < DIRECT_FROM || length > self.pool.capacity() || self.no_direct.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let set = |direct| {
            let mut flags = rustix::fs::fcntl_getfl(file)?;
            flags.set(OFlags::DIRECT, direct);
            rustix::fs::fcntl_setfl(file, flags)
        };
        if set(true).is_err() {
            return Ok(None);
        }
        let mut buffer = self.pool.take();
        buffer.grow(length.next_multiple_of(ALIGN));
        let mut filled = 0;
        while filled < length {
            match rustix::io::pread(file, buffer.tail_mut(filled), filled as u64) {
                Ok(0) => return Err(self.error(ErrorKind::Corrupt, key.as_str(), "file became shorter while read")),
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                // Another alignment than this file system wants, or an odd remainder.
                Err(Errno::INVAL) => {
                    set(false).map_err(|e| self.io_error(key.as_str(), "read", &e.into()))?;
                    return Ok(None);
                }
                Err(e) => return Err(self.io_error(key.as_str(), "read", &e.into())),
            }
        }
        buffer.truncate(length);
        Ok(Some(buffer.freeze()))
    }

    /// Reads a part of a file; a large one into memory that was used before.
    pub(super) fn read_exact_at(&self, key: &ObjectKey, file: &File, offset: u64, length: usize) -> Result<Bytes, BackendError> {
        if length < POOLED_FROM || length > self.pool.capacity() {
            let mut bytes = vec![0; length];
            self.fill(key, file, offset, &mut bytes)?;
            return Ok(bytes.into());
        }
        let mut buffer = self.pool.take();
        buffer.grow(length);
        self.fill(key, file, offset, buffer.tail_mut(0))?;
        Ok(buffer.freeze())
    }

    fn fill(&self, key: &ObjectKey, file: &File, offset: u64, room: &mut [u8]) -> Result<(), BackendError> {
        match file.read_exact_at(room, offset) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.error(ErrorKind::Corrupt, key.as_str(), "file became shorter while read"))
            }
            Err(e) => Err(self.io_error(key.as_str(), "read", &e)),
        }
    }
}
