//! Buffers for whole objects, used again and again: fresh memory costs more to touch than the bytes cost to copy.
//!
//! Their data starts at a page border, as direct I/O wants it.

use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::monitor::lock;

/// What the address of a buffer is a multiple of; what direct I/O wants of offsets and lengths as well.
pub const ALIGN: usize = 4096;
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
    /// Buffers for objects of up to about `capacity` bytes, and of 32 MiB in any case; larger ones work, but move while they grow.
    #[must_use]
    pub fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { capacity: (capacity + ALIGN).max(RETURNED_AT_ONCE), free: Mutex::default() })
    }

    /// Bytes that fit into a buffer without moving.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity - 2 * ALIGN
    }

    /// An empty buffer.
    pub(crate) fn take(self: &Arc<Self>) -> Buffer {
        let bytes = lock(&self.free).pop().unwrap_or_else(|| Vec::with_capacity(self.capacity));
        let start = bytes.as_ptr().align_offset(ALIGN).min(ALIGN);
        Buffer { bytes, start, end: start, pool: Arc::clone(self) }
    }
}

/// Bytes that start at a page border and go back to their pool when dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// As long as it was ever filled; what lies outside of `start..end` means nothing.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    pool: Arc<BufferPool>,
}

impl Buffer {
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(crate) fn extend(&mut self, more: &[u8]) {
        let end = self.end;
        self.grow(more.len());
        self.bytes[end..self.end].copy_from_slice(more);
    }

    pub(crate) fn extend_zeros(&mut self, count: usize) {
        let end = self.end;
        self.grow(count);
        self.bytes[end..self.end].fill(0);
    }

    /// Makes it longer by bytes of no meaning.
    pub(crate) fn grow(&mut self, count: usize) {
        self.end += count;
        if self.bytes.len() < self.end {
            self.bytes.resize(self.end, 0);
        }
    }

    pub(crate) fn truncate(&mut self, length: usize) {
        self.end = self.end.min(self.start + length);
    }

    pub(crate) fn tail_mut(&mut self, from: usize) -> &mut [u8] {
        &mut self.bytes[self.start + from..self.end]
    }

    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }
}

impl Drop for Buffer {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_buffer_held_before_does_not_show() {
        let pool = BufferPool::new(0);
        let mut first = pool.take();
        first.extend(&[7; 10_000]);
        let held = first.freeze();
        let at = held.as_ptr().addr();
        assert!(at.is_multiple_of(ALIGN) && held[..] == [7; 10_000]);
        drop(held);
        let mut second = pool.take();
        assert_eq!((second.len(), second.as_ref()), (0, &[][..]));
        second.extend(b"ab");
        second.extend_zeros(3);
        second.grow(2);
        second.truncate(6);
        assert_eq!((second.as_ref(), second.as_ref().as_ptr().addr()), (&b"ab\0\0\0\x07"[..], at));
        second.tail_mut(4).fill(1);
        assert_eq!(second.freeze()[..], *b"ab\0\0\x01\x01");
    }
}
