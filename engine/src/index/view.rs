//! What look-ups see: a consistent set of runs, handed to many threads without a lock or counter that all of them touch.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use redb::ReadOnlyTable;

use super::run::Run;

/// Runs, and the pages as they were when the set was published.
///
/// The table is a snapshot: pages of runs that were merged away since stay readable until the last view of them is gone.
#[derive(Clone)]
pub(super) struct View {
    /// Larger runs first, since they are likelier to hold what is looked for.
    pub(super) runs: Vec<Arc<Run>>,
    pub(super) pages: Arc<ReadOnlyTable<u64, &'static [u8]>>,
}

/// Copies of the current view, more than threads are likely to run at a time.
const SHARDS: usize = 16;

/// The current view. Each thread reads its own copy, on cache lines of its own.
pub(super) struct Current {
    shards: [Shard; SHARDS],
}

#[repr(align(128))]
struct Shard(RwLock<Arc<View>>);

impl Current {
    /// Begins with a view.
    pub(super) fn new(view: &View) -> Self {
        Self { shards: std::array::from_fn(|_| Shard(RwLock::new(Arc::new(view.clone())))) }
    }

    /// The view now.
    pub(super) fn get(&self) -> Arc<View> {
        Arc::clone(&self.shards[shard()].0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the view. Look-ups that run meanwhile see the old one or the new one.
    pub(super) fn set(&self, view: &View) {
        for shard in &self.shards {
            // A copy each: one shared count of references would be touched by all threads.
            *shard.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view.clone());
        }
    }
}

/// This thread's copy.
fn shard() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: Cell<usize> = Cell::new(THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS);
    }
    SHARD.get()
}
