//! Work done ahead of the consumer, in the order in which the consumer will want it.
//!
//! A [`Slot`] is a piece of work with a place for its result, claimed by whoever comes first: a thread, or the consumer
//! once it needs the result. Threads take the slot that is nearest in order, as long as less is undelivered than the
//! limits below. Where they find work that comes before something they already did, they may go to twice the limits, so
//! that a big directory found late is still read in parallel. The consumer is never limited, so nothing can get stuck.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::list::{Batch, Work};
use crate::monitor::lock;
use crate::path::EntryPath;

/// Entries examined but not delivered.
const MOST_ENTRIES: usize = 1 << 16;
/// Names listed but not examined.
const MOST_NAMES: usize = 1 << 18;
/// Deliveries between two looks at whether threads wait for room.
const WAKE_INTERVAL: usize = 256;

/// A piece of work and its result.
pub struct Slot {
    /// Path of the directory to list, or of the first entry to examine.
    key: EntryPath,
    lists: bool,
    state: Mutex<State>,
    ready: Condvar,
}

enum State {
    Waiting(Work),
    Running,
    /// The consumer sleeps until it is done.
    Awaited,
    Done(Batch),
    /// Taken, or lost with the thread that ran it.
    Gone,
}

impl Slot {
    /// Work whose results start at `key`.
    pub fn new(key: EntryPath, work: Work) -> Arc<Self> {
        let lists = matches!(work, Work::List(_));
        Arc::new(Self { key, lists, state: Mutex::new(State::Waiting(work)), ready: Condvar::new() })
    }

    fn claim(&self) -> Option<Work> {
        let mut state = lock(&self.state);
        match std::mem::replace(&mut *state, State::Running) {
            State::Waiting(work) => Some(work),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Takes the result, if there is one, and leaves nothing to do.
    pub fn abandon(&self) -> Option<Batch> {
        match std::mem::replace(&mut *lock(&self.state), State::Gone) {
            State::Done(batch) => Some(batch),
            _ => None,
        }
    }

    fn finish(&self, result: State) {
        let before = std::mem::replace(&mut *lock(&self.state), result);
        if matches!(before, State::Awaited) {
            self.ready.notify_one();
        }
    }

    fn wait(&self) -> Option<Batch> {
        let mut state = lock(&self.state);
        loop {
            match std::mem::replace(&mut *state, State::Gone) {
                State::Done(batch) => return Some(batch),
                State::Running | State::Awaited => *state = State::Awaited,
                State::Waiting(_) | State::Gone => return None,
            }
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Marks the slot as lost if the thread panics.
struct Finish<'a>(&'a Slot, Option<Batch>);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.finish(self.1.take().map_or(State::Gone, State::Done));
    }
}

/// In a heap, the earliest in order on top.
struct Job(Arc<Slot>);

impl Ord for Job {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.key.cmp(&self.0.key)
    }
}
impl PartialOrd for Job {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Job {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Job {}

#[derive(Default)]
struct Queue {
    jobs: BinaryHeap<Job>,
    /// Latest in order that a thread has taken.
    frontier: EntryPath,
    stop: bool,
}

/// The queue of work, and the measure of what is undelivered.
#[derive(Default)]
pub struct Ahead {
    queue: Mutex<Queue>,
    wake: Condvar,
    idle: AtomicUsize,
    entries: AtomicUsize,
    names: AtomicUsize,
}

impl Ahead {
    /// Adds work.
    pub fn push(&self, slots: impl IntoIterator<Item = Arc<Slot>>) {
        let mut queue = lock(&self.queue);
        let before = queue.jobs.len();
        queue.jobs.extend(slots.into_iter().map(Job));
        let added = queue.jobs.len() - before;
        drop(queue);
        for _ in 0..added.min(self.idle.load(Relaxed)) {
            self.wake.notify_one();
        }
    }

    /// `count` names were listed that are not examined yet.
    pub fn names_listed(&self, count: usize) {
        self.names.fetch_add(count, Relaxed);
    }

    /// `count` of them are being examined.
    pub fn names_examined(&self, count: usize) {
        self.names.fetch_sub(count, Relaxed);
    }

    /// `count` entries were examined.
    pub fn examined(&self, count: usize) {
        self.entries.fetch_add(count, Relaxed);
    }

    /// The consumer has handed on one entry.
    pub fn delivered(&self) {
        let left = self.entries.fetch_sub(1, Relaxed);
        if left.is_multiple_of(WAKE_INTERVAL) && self.idle.load(Relaxed) > 0 {
            let _queue = lock(&self.queue);
            self.wake.notify_all();
        }
    }

    /// Does work until told to stop: what every thread runs.
    pub fn work(&self, mut run: impl FnMut(Work) -> Batch) {
        while let Some(slot) = self.next_job() {
            if let Some(work) = slot.claim() {
                let mut finish = Finish(&slot, None);
                finish.1 = Some(run(work));
            }
        }
    }

    fn next_job(&self) -> Option<Arc<Slot>> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.stop {
                return None;
            }
            if queue.jobs.peek().is_some_and(|job| self.has_room(&job.0, &queue.frontier))
                && let Some(Job(slot)) = queue.jobs.pop()
            {
                if slot.key > queue.frontier {
                    queue.frontier = slot.key.clone();
                }
                return Some(slot);
            }
            self.idle.fetch_add(1, Relaxed);
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            self.idle.fetch_sub(1, Relaxed);
        }
    }

    fn has_room(&self, slot: &Slot, frontier: &EntryPath) -> bool {
        let factor = if slot.key < *frontier { 2 } else { 1 };
        self.entries.load(Relaxed) < factor * MOST_ENTRIES && (!slot.lists || self.names.load(Relaxed) < factor * MOST_NAMES)
    }

    /// The result of a slot, by `run` if no thread has begun it. `None` if the thread that ran it panicked.
    pub fn resolve(&self, slot: &Arc<Slot>, run: impl FnOnce(Work) -> Batch) -> Option<Batch> {
        let Some(work) = slot.claim() else { return slot.wait() };
        // What the consumer needs comes before all other work, so that is where it lies; left there, such slots
        // would pile up while the threads are out of room.
        let mut queue = lock(&self.queue);
        if queue.jobs.peek().is_some_and(|job| Arc::ptr_eq(&job.0, slot)) {
            queue.jobs.pop();
        }
        drop(queue);
        Some(run(work))
    }

    /// Ends [`Ahead::work`] on all threads.
    pub fn stop(&self) {
        let mut queue = lock(&self.queue);
        queue.stop = true;
        // Each job may hold the end of a long chain of directories and results.
        queue.jobs.clear();
        self.wake.notify_all();
    }
}
