//! A bound on the bytes that wait in memory to be read.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// So many bytes may be taken at a time.
#[derive(Debug)]
pub(super) struct Budget {
    left: Mutex<Left>,
    freed: Condvar,
    all: usize,
}

#[derive(Debug)]
struct Left {
    bytes: usize,
    closed: bool,
}

impl Budget {
    pub fn new(all: usize) -> Arc<Self> {
        Arc::new(Self { left: Mutex::new(Left { bytes: all, closed: false }), freed: Condvar::new(), all })
    }

    /// Waits until there is room; `None` once nobody reads any more. More than there is in all waits for all of it.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Option<Permit> {
        let bytes = bytes.min(self.all);
        let mut left = self.lock();
        while left.bytes < bytes && !left.closed {
            left = self.freed.wait(left).unwrap_or_else(PoisonError::into_inner);
        }
        if left.closed {
            return None;
        }
        left.bytes -= bytes;
        Some(Permit { budget: Arc::clone(self), bytes })
    }

    /// Nobody will read any more: those who wait are told so.
    pub fn close(&self) {
        self.lock().closed = true;
        self.freed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes taken; given back when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.lock().bytes += self.bytes;
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn waits_for_room() {
        let budget = Budget::new(10);
        let first = budget.take(7).expect("open");
        let (tx, rx) = crossbeam_channel::bounded(1);
        let other = Arc::clone(&budget);
        let waiting = std::thread::spawn(move || tx.send(other.take(100).map(|permit| permit.bytes)).expect("received"));
        assert!(rx.recv_timeout(Duration::from_millis(20)).is_err(), "there is no room yet");
        drop(first);
        assert_eq!(rx.recv().expect("sent"), Some(10), "all of it is enough for anything");
        waiting.join().expect("no panic");
    }

    #[test]
    fn nobody_waits_for_a_reader_that_is_gone() {
        let budget = Budget::new(10);
        let _first = budget.take(7).expect("open");
        let other = Arc::clone(&budget);
        let waiting = std::thread::spawn(move || other.take(4).is_none());
        budget.close();
        assert!(waiting.join().expect("no panic"));
        assert!(budget.take(1).is_none());
    }
}
