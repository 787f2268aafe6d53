//! Buffers for whole packs, used again and again: fresh memory costs more to touch than the bytes cost to copy.
//!
//! Their data starts at a page border, as direct I/O wants it.

use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::monitor::lock;

const ALIGN: usize = 4096;
/// Free buffers that are kept: about as many as change hands in a steady flow. What a stall makes beyond that goes back to
/// the system.
const KEEP: usize = 2;
/// From this size on, the C library gives memory back to the system as soon as it is freed (`DEFAULT_MMAP_THRESHOLD_MAX`
/// of glibc is 32 MiB). Room that is never touched costs nothing.
const RETURNED_AT_ONCE: usize = 33 << 20;

/// Hands out buffers and takes them back.
#[derive(Debug)]
pub struct BufferPool {
    capacity: usize,
    free: Mutex<Vec<Vec<u8>>>,
}

impl BufferPool {
    /// Buffers for objects of up to about `capacity` bytes; larger ones work, but move while they grow.
    #[must_use]
    pub fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { capacity: (capacity + ALIGN).max(RETURNED_AT_ONCE), free: Mutex::default() })
    }

    /// An empty buffer.
    pub(super) fn take(self: &Arc<Self>) -> PackBuffer {
        let mut bytes = lock(&self.free).pop().unwrap_or_else(|| Vec::with_capacity(self.capacity));
        bytes.clear();
        let start = bytes.as_ptr().align_offset(ALIGN).min(ALIGN);
        bytes.resize(start, 0);
        PackBuffer { bytes, start, pool: Arc::clone(self) }
    }
}

/// Bytes that start at a page border and go back to their pool when dropped.
#[derive(Debug)]
pub(super) struct PackBuffer {
    bytes: Vec<u8>,
    start: usize,
    pool: Arc<BufferPool>,
}

impl PackBuffer {
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(super) fn extend(&mut self, more: &[u8]) {
        self.bytes.extend_from_slice(more);
    }

    pub(super) fn extend_zeros(&mut self, count: usize) {
        self.bytes.resize(self.bytes.len() + count, 0);
    }

    pub(super) fn tail_mut(&mut self, from: usize) -> &mut [u8] {
        let at = self.start + from;
        &mut self.bytes[at..]
    }

    pub(super) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for PackBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl Drop for PackBuffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes.capacity() == self.pool.capacity {
            let mut free = lock(&self.pool.free);
            if free.len() < KEEP {
                free.push(bytes);
            }
        }
    }
}
