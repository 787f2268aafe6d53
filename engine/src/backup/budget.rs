//! The memory budget of a backup: bytes are taken before a buffer is filled, and given back when it is empty.

use std::sync::{Arc, Condvar, Mutex};

use crate::monitor::lock;

/// A number of bytes to share. Whoever asks for more than is left waits.
#[derive(Debug)]
pub(super) struct Budget {
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug)]
struct State {
    left: usize,
    closed: bool,
}

/// A share of the budget, given back when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { left: bytes, closed: false }), freed: Condvar::new() })
    }

    /// Waits for `bytes`; `None` once the budget is closed.
    pub(super) fn acquire(self: &Arc<Self>, bytes: usize) -> Option<Permit> {
        let mut state = lock(&self.state);
        while state.left < bytes && !state.closed {
            state = self.freed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        if state.closed {
            return None;
        }
        state.left -= bytes;
        Some(Permit { budget: Arc::clone(self), bytes })
    }

    /// Wakes and refuses everyone: the operation has failed.
    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.freed.notify_all();
    }
}

impl Permit {
    /// Moves up to `bytes` of this permit into one of their own.
    pub(super) fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { budget: Arc::clone(&self.budget), bytes }
    }

    /// Adds another permit of the same budget to this one.
    pub(super) fn join(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.bytes > 0 {
            lock(&self.budget.state).left += self.bytes;
            self.budget.freed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_splits_joins_and_closes() {
        let budget = Budget::new(10);
        let mut all = budget.acquire(10).expect("open");
        let part = all.split(4);
        let waiter = {
            let b = Arc::clone(&budget);
            std::thread::spawn(move || b.acquire(6).is_some())
        };
        drop(all);
        assert!(waiter.join().expect("no panic"));
        let mut rest = budget.acquire(2).expect("open");
        rest.join(part);
        drop(rest);
        let full = budget.acquire(10).expect("all came back");
        let waiter = {
            let b = Arc::clone(&budget);
            std::thread::spawn(move || b.acquire(1).is_none())
        };
        budget.close();
        assert!(waiter.join().expect("no panic"));
        drop(full);
    }
}
