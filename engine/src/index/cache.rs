//! The cache of pages: a fixed number of slots, each with its own lock.
//!
//! A page has exactly one slot it may lie in, so a look-up takes one read lock that it shares only with those who want the
//! same page, and nothing has to keep account of use. Pages of a run have consecutive slots: as long as all pages fit, none
//! pushes out another.

use std::sync::{PoisonError, RwLock};

/// Pages in memory.
pub(super) struct PageCache {
    slots: Box<[RwLock<Option<Slot>>]>,
}

struct Slot {
    run: u32,
    page: usize,
    bytes: Box<[u8]>,
}

impl PageCache {
    /// A cache of `count` pages, at least one.
    pub(super) fn new(count: usize) -> Self {
        Self { slots: (0..count.max(1)).map(|_| RwLock::new(None)).collect() }
    }

    /// Calls `with` on a page, which `load` provides when it is not here.
    ///
    /// `place` is the same at every call for this page. `with` runs under the slot's lock.
    pub(super) fn with<T, E>(
        &self,
        place: usize,
        (run, page): (u32, usize),
        load: impl FnOnce() -> Result<Box<[u8]>, E>,
        with: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, E> {
        let slot = &self.slots[place % self.slots.len()];
        if let Some(held) = slot.read().unwrap_or_else(PoisonError::into_inner).as_ref()
            && held.run == run
            && held.page == page
        {
            return Ok(with(&held.bytes));
        }
        let bytes = load()?;
        let answer = with(&bytes);
        *slot.write().unwrap_or_else(PoisonError::into_inner) = Some(Slot { run, page, bytes });
        Ok(answer)
    }

    /// Bytes held now.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let held = |slot: &RwLock<Option<Slot>>| {
            slot.read().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(0, |held| held.bytes.len())
        };
        self.slots.iter().map(held).sum()
    }
}
