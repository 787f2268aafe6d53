//! How operations report: progress counters, and problems with single files.
//!
//! Knows nothing of terminals; a front end implements [`Monitor`].

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Trouble with one file or object that did not end the operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file or object.
    pub subject: String,
    /// What happened, e.g. "cannot open: permission denied".
    pub message: String,
}

/// A number that an operation counts up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Entries dealt with.
    Entries,
    /// Bytes of file content dealt with.
    Bytes,
    /// Bytes sent to the store.
    StoredBytes,
    /// Packs dealt with.
    Packs,
}

/// Receives progress and problems; asked now and then whether to stop. Called from any thread, so keep it short.
pub trait Monitor: Send + Sync {
    /// `amount` more of `counter`.
    fn count(&self, counter: Counter, amount: u64);
    /// How much there will be in all, once known.
    fn expect(&self, counter: Counter, total: u64);
    /// A new stage of the operation begins.
    fn stage(&self, name: &'static str);
    /// A file or object had to be left out or is not as it should be.
    fn problem(&self, problem: Problem);
    /// Something worth saying that is no problem.
    fn note(&self, text: String);
    /// Whether the user asked to stop.
    fn cancelled(&self) -> bool;
}

/// A monitor that collects, for tests and for callers without a terminal.
#[derive(Debug, Default)]
pub struct Collector {
    problems: Mutex<Vec<Problem>>,
    notes: Mutex<Vec<String>>,
    counters: [AtomicU64; 4],
    cancelled: AtomicBool,
}

impl Collector {
    /// Problems so far.
    pub fn problems(&self) -> Vec<Problem> {
        lock(&self.problems).clone()
    }

    /// Notes so far.
    pub fn notes(&self) -> Vec<String> {
        lock(&self.notes).clone()
    }

    /// Value of a counter.
    pub fn counted(&self, counter: Counter) -> u64 {
        self.counters[counter as usize].load(Ordering::Relaxed)
    }

    /// Asks the operation to stop.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

impl Monitor for Collector {
    fn count(&self, counter: Counter, amount: u64) {
        self.counters[counter as usize].fetch_add(amount, Ordering::Relaxed);
    }
    fn expect(&self, _: Counter, _: u64) {}
    fn stage(&self, _: &'static str) {}
    fn problem(&self, problem: Problem) {
        lock(&self.problems).push(problem);
    }
    fn note(&self, text: String) {
        lock(&self.notes).push(text);
    }
    fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// Locks a mutex whose data stays consistent even if a holder panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
