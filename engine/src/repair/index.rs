//! Packs that no segment names find their way back into the index, by the directories at their ends.

use std::collections::HashSet;
use std::sync::Arc;

use super::{PackName, RepairOptions, SegmentWriter, go_on, list_packs, open_verified, report, rounds};
use crate::error::Result;
use crate::format::pack::PackRecord;
use crate::monitor::{Counter, Monitor};
use crate::pack;
use crate::repo::{Reader, Repository, names, parallel};

/// Directories that are read before they are put into segments; each takes 36 bytes for each of its blobs.
const BATCH: usize = 64;

/// What was done to the index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexRepair {
    /// Segments that cannot be read.
    pub unreadable_segments: u64,
    /// Packs that no segment named, and that the index has now (or would have).
    pub packs_added: u64,
    /// Blobs in them.
    pub blobs_added: u64,
    /// Packs whose own directory cannot be read: without it, nobody can tell what they hold.
    pub unreadable_packs: u64,
    /// Segments written.
    pub segments_written: u64,
}

/// Names all packs in the index that are in the store: those of segments that are damaged or missing, and those that
/// interrupted backups left. Packs that maintenance is about to delete, and those marked as damaged, stay out.
///
/// # Errors
///
/// [`crate::error::Error::Interrupted`] if the monitor says so; if the store fails, or must not be written to. Packs that cannot be read
/// are problems for the monitor.
pub fn index(repo: &Arc<Repository>, options: &RepairOptions, monitor: &Arc<dyn Monitor>) -> Result<IndexRepair> {
    rounds(|| round(repo, options, &**monitor))
}

fn round(repo: &Arc<Repository>, options: &RepairOptions, monitor: &dyn Monitor) -> Result<Option<IndexRepair>> {
    let reader = open_verified(repo, options, monitor)?;
    let mut done = IndexRepair { unreadable_segments: reader.view().unreadable.len() as u64, ..IndexRepair::default() };
    let unknown = unknown(&reader)?;
    monitor.expect(Counter::Packs, unknown.len() as u64);
    let mut segments = SegmentWriter::new(&reader);
    for batch in unknown.chunks(BATCH) {
        go_on(monitor)?;
        let read = parallel::map(repo.backend().concurrency(), batch, |(name, size)| read_record(repo, *name, *size));
        for ((name, _), record) in batch.iter().zip(read) {
            monitor.count(Counter::Packs, 1);
            let record = match record {
                Ok(record) => record,
                Err(error) if error.is_local() => {
                    done.unreadable_packs += 1;
                    let message = format!("its directory cannot be read, so nobody can tell what it holds: {error}");
                    report(monitor, names::pack(name.0, &name.1).to_string(), message);
                    continue;
                }
                Err(error) => return Err(error),
            };
            done.packs_added += 1;
            done.blobs_added += record.directory.blobs.len() as u64;
            if !options.dry_run {
                segments.add(record)?;
            }
        }
    }
    let committed = segments.commit(monitor)?;
    Ok(committed.map(|written| IndexRepair { segments_written: written, ..done }))
}

/// Packs in the store that the index does not know, in order.
fn unknown(reader: &Reader) -> Result<Vec<(PackName, u64)>> {
    let listed = list_packs(reader.repo())?;
    let mut known = HashSet::new();
    reader.index().packs(|_, epoch, id, _| {
        known.insert((epoch, id));
    })?;
    let view = reader.view();
    let mut unknown: Vec<_> = listed.into_iter().filter(|(name, _)| !known.contains(name) && !view.is_barred(name)).collect();
    unknown.sort_unstable();
    Ok(unknown)
}

/// What the index should say of a pack, by the pack itself.
fn read_record(repo: &Repository, (epoch, id): PackName, size: u64) -> Result<PackRecord> {
    let object = names::pack(epoch, &id);
    let fetch = |offset: u64, length: usize| Ok(repo.backend().read_range(&object, offset, length)?);
    let (header, directory) = pack::read_directory(&repo.keys().data, &repo.id(), &object.to_string(), size, &fetch)?;
    Ok(PackRecord { epoch, id, size, header, directory })
}
