//! Copying what is needed out of packs that hold little else.
//!
//! A frame that is needed whole is copied as it is compressed; of others, the needed blobs are put into new frames. Every blob
//! is checked against its id before it is copied: a damaged copy must not take the place of a good one.
//!
//! One thread fetches, up to four copy, each a pack of its own, a few store. In memory: a pack in each of these hands and between
//! them, two open ones, and three frames for each copying thread.

mod copy;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};

use self::copy::{Buffers, Sink};
use super::plan::{Plan, Tally};
use crate::backend::ErrorKind;
use crate::error::{Error, Result};
use crate::format::pack::{PackRecord, SegmentName};
use crate::format::segment;
use crate::id::{Epoch, ObjectId};
use crate::index::PackSummary;
use crate::monitor::{Counter, Monitor, Problem, lock};
use crate::pack::SealedPack;
use crate::protocol::Name;
use crate::repo::{Reader, names, parallel};

/// A segment is written after this many blobs.
const SEGMENT_BLOBS: usize = 128 * 1024;
/// Most threads that copy.
const COPIERS: usize = 4;
/// Threads that store packs.
const UPLOADERS: usize = 4;

/// What repacking came to.
#[derive(Debug, Default)]
pub(super) struct Repacked {
    /// New segments.
    pub(super) segments: Vec<SegmentName>,
    /// Packs of which every needed blob is copied.
    pub(super) emptied: Vec<Name>,
    /// New packs.
    pub(super) written: Tally,
}

type Fetched = (u32, Arc<PackSummary>, Result<bytes::Bytes>);

/// Copies what the plan wants copied, into packs and segments of the reader's epoch.
pub(super) fn repack(reader: &Reader, plan: &Plan<'_>, monitor: &dyn Monitor) -> Result<Repacked> {
    if plan.repack.is_empty() {
        return Ok(Repacked::default());
    }
    monitor.stage("repacking");
    monitor.expect(Counter::Packs, plan.repack.len() as u64);
    let (fetched_tx, fetched) = bounded::<Fetched>(1);
    let (uploads_tx, uploads) = bounded::<SealedPack>(1);
    let stored: Stored = Mutex::new(Ok(Vec::new()));
    let copied = std::thread::scope(|scope| {
        scope.spawn(move || fetch(reader, &plan.repack, &fetched_tx));
        for _ in 0..reader.repo().backend().concurrency().clamp(1, UPLOADERS) {
            let (uploads, stored) = (uploads.clone(), &stored);
            scope.spawn(move || upload(reader, &uploads, stored, monitor));
        }
        drop(uploads);
        let sink = Sink::new(reader, plan, uploads_tx, &stored);
        // Ends with the receiver of the one thread and the sender of the others, so that all of them end, too.
        copy_all(fetched, sink, monitor)
    });
    let mut result = copied?;
    write_segments(reader, &stored, &mut result, true)?;
    Ok(result)
}

fn fetch(reader: &Reader, ordinals: &[u32], out: &Sender<Fetched>) {
    for ordinal in ordinals {
        let Ok(summary) = reader.index().pack(*ordinal) else { continue };
        let object = names::pack(summary.epoch, &summary.id);
        let bytes = reader.repo().read_named(&object, &summary.id, summary.size);
        // Nobody listens any more after a failure.
        if out.send((*ordinal, summary, bytes)).is_err() {
            return;
        }
    }
}

fn upload(reader: &Reader, packs: &Receiver<SealedPack>, stored: &Stored, monitor: &dyn Monitor) {
    let epoch = reader.view().epoch;
    for pack in packs {
        let size = pack.bytes.len() as u64;
        let created = reader.repo().backend().create(&names::pack(epoch, &pack.id), pack.bytes.clone());
        let mut stored = lock(stored);
        match created {
            Err(e) if e.kind != ErrorKind::AlreadyExists => *stored = Err(e.into()),
            _ => {
                monitor.count(Counter::StoredBytes, size);
                if let Ok(records) = &mut *stored {
                    records.push(pack.into_record(epoch));
                }
            }
        }
        if stored.is_err() {
            return;
        }
    }
}

/// The first failure ends all threads.
#[expect(clippy::needless_pass_by_value, reason = "the receiver has to be gone when this returns")]
fn copy_all(fetched: Receiver<Fetched>, sink: Sink<'_>, monitor: &dyn Monitor) -> Result<Repacked> {
    let (result, failed) = (Mutex::new(Repacked::default()), AtomicBool::new(false));
    let work = || {
        let mut buffers = Buffers::default();
        let done = fetched.iter().try_for_each(|(ordinal, summary, bytes)| {
            if monitor.cancelled() || failed.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            let copied = bytes.and_then(|bytes| sink.copy(ordinal, &summary, &bytes, &mut buffers));
            monitor.count(Counter::Packs, 1);
            let mut result = lock(&result);
            match copied {
                Ok(()) => result.emptied.push((summary.epoch, summary.id)),
                // It stays where it is.
                Err(Error::Damaged { object, detail }) => monitor.problem(Problem { subject: object, message: detail }),
                Err(e) => return Err(e),
            }
            write_segments(sink.reader, sink.stored, &mut result, false)
        });
        failed.fetch_or(done.is_err(), Ordering::Relaxed);
        done
    };
    let workers = std::thread::available_parallelism().map_or(2, usize::from).min(COPIERS);
    let done = parallel::map(workers, &vec![(); workers], |()| work());
    let failures = done.into_iter().filter_map(Result::err);
    // Those that were interrupted may be so because of another one.
    if let Some(error) = failures.min_by_key(|error| matches!(error, Error::Interrupted)) {
        return Err(error);
    }
    sink.finish()?;
    Ok(result.into_inner().unwrap_or_else(PoisonError::into_inner))
}

type Stored = Mutex<Result<Vec<PackRecord>>>;

/// Names stored packs in a segment, once there are enough, or all of them.
fn write_segments(reader: &Reader, stored: &Stored, result: &mut Repacked, all: bool) -> Result<()> {
    let records = {
        let mut stored = lock(stored);
        let taken = std::mem::replace(&mut *stored, Ok(Vec::new()))?;
        let blobs: usize = taken.iter().map(|pack| pack.directory.blobs.len()).sum();
        if taken.is_empty() || !all && blobs < SEGMENT_BLOBS {
            *stored = Ok(taken);
            return Ok(());
        }
        taken
    };
    for pack in &records {
        result.written.packs += 1;
        result.written.bytes += pack.size;
    }
    result.segments.push(write_segment(reader, reader.view().epoch, &records)?);
    Ok(())
}

/// Stores a segment that names these packs, and adds it to the local index.
pub(super) fn write_segment(reader: &Reader, epoch: Epoch, packs: &[PackRecord]) -> Result<SegmentName> {
    let repo = reader.repo();
    // The packs first.
    repo.backend().barrier()?;
    let bytes =
        segment::seal(&repo.keys().index, repo.id(), epoch, packs).map_err(|e| Error::damaged("a new index segment", e))?;
    let name = SegmentName { epoch, id: ObjectId::of(&bytes) };
    repo.backend().create(&names::segment(&name), bytes.into())?;
    reader.index().add(name, packs)?;
    Ok(name)
}

/// Fails unless every needed blob lies in a pack that is there and not condemned.
pub(super) fn verify(reader: &Reader, plan: &Plan<'_>, condemned: &HashSet<Name>) -> Result<()> {
    let mut bad = HashSet::new();
    reader.index().packs(|ordinal, epoch, id, _| {
        if condemned.contains(&(epoch, id)) || plan.missing.contains(&ordinal) {
            bad.insert(ordinal);
        }
    })?;
    plan.frozen.blobs(|id, copies| {
        let needed = copies.iter().any(|(number, _)| plan.needed.get(*number));
        let safe = !needed
            || copies.iter().any(|(_, at)| !bad.contains(&at.pack))
            || reader.index().locate(id, &|pack| !bad.contains(&pack))?.is_some();
        if safe { Ok(()) } else { Err(Error::Invalid(format!("blob {id} would be lost; nothing is deleted (this is a bug)"))) }
    })
}
