//! The cache of pages: a fixed number of sets of a few slots, each set with its own lock.
//!
//! A page has one set it may lie in, so a look-up takes one read lock that it shares with few others, and nothing has to keep
//! account of use: the slots of a set are overwritten in turn. Pages of a run have consecutive sets: as long as all pages fit,
//! hardly any pushes out another.

use std::ops::Deref;
use std::sync::{PoisonError, RwLock};

/// Slots in a set.
const WAYS: usize = 4;

/// Pages in memory.
pub(super) struct PageCache {
    sets: Box<[RwLock<Set>]>,
}

#[derive(Default)]
struct Set {
    /// Run and number of the pages.
    names: [Option<(u32, usize)>; WAYS],
    /// Their bytes. Buffers are kept: exchanging them between threads makes the allocator hoard memory.
    pages: [Vec<u8>; WAYS],
    /// The slot to overwrite next.
    next: usize,
}

impl PageCache {
    /// A cache of `count` pages, at least of one set.
    pub(super) fn new(count: usize) -> Self {
        Self { sets: (0..(count / WAYS).max(1)).map(|_| RwLock::default()).collect() }
    }

    /// Calls `with` on a page, which `load` provides when it is not here.
    ///
    /// `place` is the same at every call for this page. `with` runs under the set's lock.
    pub(super) fn with<T, E, P: Deref<Target = [u8]>>(
        &self,
        place: usize,
        name: (u32, usize),
        load: impl FnOnce() -> Result<P, E>,
        with: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, E> {
        let set = &self.sets[place % self.sets.len()];
        {
            let set = set.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(slot) = set.names.iter().position(|held| *held == Some(name)) {
                return Ok(with(&set.pages[slot]));
            }
        }
        let bytes = load()?;
        let answer = with(&bytes);
        let mut set = set.write().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have loaded it meanwhile.
        if !set.names.contains(&Some(name)) {
            let slot = set.next;
            set.names[slot] = Some(name);
            set.pages[slot].clear();
            set.pages[slot].reserve_exact(bytes.len());
            set.pages[slot].extend_from_slice(&bytes);
            set.next = (slot + 1) % WAYS;
        }
        Ok(answer)
    }

    /// Bytes held now.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let held =
            |set: &RwLock<Set>| set.read().unwrap_or_else(PoisonError::into_inner).pages.iter().map(Vec::capacity).sum::<usize>();
        self.sets.iter().map(held).sum()
    }
}
