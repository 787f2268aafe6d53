//! Making the index hold exactly the valid segments.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crossbeam_channel::bounded;

use super::Index;
use super::batch::Batch;
use super::merge::MAX_RUN;
use super::store::Fault;
use super::write::Writer;
use crate::error::Result;
use crate::format::pack::{PackRecord, SegmentName};

/// Loads a segment from the repository.
pub type Load<'a> = dyn Fn(&SegmentName) -> Result<Vec<PackRecord>> + Sync + 'a;

/// Segments that are fetched at a time.
const LOADERS: usize = 4;

/// Entries that are collected for a run, at 48 bytes each. Four such runs merge into a full one.
const MAX_BATCH: u64 = MAX_RUN / 4;

impl Index {
    pub(super) fn sync_with(&self, writer: &mut Writer, valid: &[SegmentName], load: &Load<'_>) -> Result<(), Fault> {
        let wanted: HashSet<_> = valid.iter().collect();
        let stale: Vec<_> = {
            let view = self.current.get();
            view.runs.iter().filter(|run| run.segments.iter().any(|name| !wanted.contains(name))).cloned().collect()
        };
        if !stale.is_empty() {
            self.drop_runs(&stale)?;
        }
        let missing: Vec<_> = {
            let view = self.current.get();
            let held: HashSet<_> = view.runs.iter().flat_map(|run| &run.segments).collect();
            let mut missing: Vec<_> = wanted.into_iter().filter(|name| !held.contains(name)).copied().collect();
            missing.sort_unstable();
            missing
        };
        let mut batch = Batch::new(writer.next_pack);
        load_all(&missing, load, |name, packs| {
            let blobs: usize = packs.iter().map(|pack| pack.directory.blobs.len()).sum();
            if to_u64(batch.entries.len()) + to_u64(blobs) > MAX_BATCH {
                self.write_batch(writer, std::mem::take(&mut batch))?;
                batch = Batch::new(writer.next_pack);
            }
            batch.add(&self.store, &self.repo, name, packs)
        })?;
        self.write_batch(writer, batch)?;
        self.forget_packs()
    }
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Loads segments on a few threads and hands each to `take` on this one, in any order. Stops at the first error.
fn load_all(
    missing: &[SegmentName],
    load: &Load<'_>,
    mut take: impl FnMut(SegmentName, &[PackRecord]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (sender, receiver) = bounded(1);
        for _ in 0..LOADERS.min(missing.len()) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while let Some(name) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let loaded = load(name);
                    let failed = loaded.is_err();
                    // The other end is gone when something else failed.
                    if sender.send((*name, loaded)).is_err() || failed {
                        return;
                    }
                }
            });
        }
        drop(sender);
        // Leaving early drops the receiver, which ends the loaders.
        for (name, loaded) in receiver {
            take(name, &loaded?)?;
        }
        Ok(())
    })
}
