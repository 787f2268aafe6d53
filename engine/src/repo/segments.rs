//! Reading index segments, those that cannot be read among them.

use std::collections::HashSet;
use std::sync::Mutex;

use super::{Repository, View, names, parallel};
use crate::backend::ErrorKind;
use crate::error::{Error, Result};
use crate::format::pack::{PackRecord, SegmentName};
use crate::format::{object, segment};
use crate::index::Index;
use crate::monitor::{Collector, Monitor, Problem, lock};

/// Brings the index up to date. Segments that cannot be read are left out, and noted in the view.
pub(super) fn sync_readable(repo: &Repository, index: &Index, view: &mut View) -> Result<()> {
    loop {
        let failed = Mutex::new(Vec::new());
        let load = |name: &SegmentName| {
            let loaded = load_segment(repo, name);
            if loaded.as_ref().is_err_and(is_lost) {
                lock(&failed).push(*name);
            }
            loaded
        };
        let result = index.sync(&view.segments, &load);
        let failed = std::mem::take(&mut *lock(&failed));
        match &result {
            Err(error) if is_lost(error) && !failed.is_empty() => {}
            _ => return result,
        }
        if result.as_ref().is_err_and(is_gone) && repo.load_any_view(&Collector::default())?.0.head != view.head {
            // A newer seal has replaced it.
            return result;
        }
        view.segments.retain(|name| !failed.contains(name));
        view.unreadable.extend(failed);
    }
}

/// Leaves out segments that the index holds from earlier and that are not in the store any more as they were. What has the
/// right hash was opened when it was loaded. Reads all of them.
pub(super) fn verify_held(repo: &Repository, index: &Index, view: &mut View) -> Result<()> {
    let held: HashSet<SegmentName> = index.segments()?.into_iter().map(|(name, _)| name).collect();
    let held: Vec<SegmentName> = view.segments.iter().filter(|name| held.contains(name)).copied().collect();
    let read = parallel::map(repo.backend().concurrency(), &held, |name| {
        repo.read_named(&names::segment(name), &name.id, object::MAX_SIZE).map(drop)
    });
    let mut failed = HashSet::new();
    for (name, read) in held.into_iter().zip(read) {
        match read {
            // A newer seal has replaced it.
            Err(e) if is_gone(&e) && repo.load_any_view(&Collector::default())?.0.head != view.head => return Err(e),
            Err(e) if is_lost(&e) => drop(failed.insert(name)),
            read => read?,
        }
    }
    view.segments.retain(|name| !failed.contains(name));
    view.unreadable.extend(failed);
    Ok(())
}

/// Makes the index hold those of `segments` that can be read, and returns them.
///
/// # Errors
///
/// What the store returns, for a segment that is gone, too; [`Error::Cache`].
pub(crate) fn sync_those_that_open(repo: &Repository, index: &Index, mut segments: Vec<SegmentName>) -> Result<Vec<SegmentName>> {
    loop {
        let failed = Mutex::new(HashSet::new());
        let load = |name: &SegmentName| {
            let loaded = load_segment(repo, name);
            if loaded.as_ref().is_err_and(|e| is_lost(e) && !is_gone(e)) {
                lock(&failed).insert(*name);
            }
            loaded
        };
        let result = index.sync(&segments, &load);
        let failed = std::mem::take(&mut *lock(&failed));
        match result {
            Err(e) if is_lost(&e) && !is_gone(&e) && !failed.is_empty() => segments.retain(|name| !failed.contains(name)),
            result => return result.map(|()| segments),
        }
    }
}

fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Backend(e) if e.kind == ErrorKind::NotFound)
}

fn is_lost(error: &Error) -> bool {
    match error {
        Error::Damaged { .. } => true,
        Error::Backend(e) => matches!(e.kind, ErrorKind::NotFound | ErrorKind::Corrupt),
        _ => false,
    }
}

/// Packs in the store that may be referred to and that no segment of the index names.
pub(crate) fn count_unnamed(repo: &Repository, index: &Index, view: &View) -> Result<u64> {
    let (mut known, mut unknown) = (HashSet::new(), 0_u64);
    index.packs(|_, epoch, id, _| {
        known.insert((epoch, id));
    })?;
    repo.backend().list("packs/", &mut |meta| {
        let name = names::parse_epoch_id(&meta.key, "packs");
        unknown += u64::from(name.is_some_and(|name| !known.contains(&name) && !view.is_barred(&name)));
    })?;
    Ok(unknown)
}

/// An unreadable segment is a loss only if there are packs that no other one names.
pub(super) fn report_unreadable(repo: &Repository, index: &Index, view: &View, monitor: &dyn Monitor) -> Result<()> {
    let unknown = count_unnamed(repo, index, view)?;
    for name in &view.unreadable {
        let subject = names::segment(name).to_string();
        if unknown == 0 {
            monitor.note(format!("{subject}: cannot be read, but all packs are in other segments"));
        } else {
            let message =
                format!("cannot be read, and {unknown} packs are in no other segment; 'repair index' finds out what they hold");
            monitor.problem(Problem { subject, message });
        }
    }
    Ok(())
}

/// Reads one index segment.
pub fn load_segment(repo: &Repository, name: &SegmentName) -> Result<Vec<PackRecord>> {
    let object = names::segment(name);
    let bytes = repo.read_named(&object, &name.id, object::MAX_SIZE)?;
    segment::open(&repo.keys().index, repo.id(), name.epoch, &bytes).map_err(|e| Error::damaged(&object, e))
}
