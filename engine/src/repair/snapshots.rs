//! Snapshots that have lost something: copies of them without that.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use super::{PackName, REPAIR_ORIGIN, REPAIRED_TAG, RepairOptions, Which, list_packs, open, packs, report};
use crate::backup::{self, BackupOptions, BackupOutcome};
use crate::copy::source::CopySource;
use crate::entry::EntrySource;
use crate::error::Result;
use crate::format::snapshot::SnapshotKind;
use crate::id::ObjectId;
use crate::monitor::{Counter, Monitor, Problem, lock};
use crate::repo::{Reader, Repository, SnapshotName};
use crate::snapshot::{self, SnapshotRecord};

/// Problems with one snapshot that are named; the others are only counted.
const MAX_NAMED: usize = 10_000;

/// What became of a snapshot that has lost something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRepair {
    /// Its name.
    pub damaged: SnapshotName,
    /// The copy of it without what is lost; none in a dry run.
    pub repaired: Option<SnapshotName>,
    /// Entries that are lost.
    pub lost: u64,
}

/// What was done about snapshots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotsRepair {
    /// Snapshots looked at.
    pub snapshots: u64,
    /// Those that have lost something, but had been repaired before.
    pub repaired_before: u64,
    /// The others that have lost something.
    pub repairs: Vec<SnapshotRepair>,
}

/// What the copy says of where it is from.
fn origin(damaged: &ObjectId) -> String {
    format!("{REPAIR_ORIGIN}{damaged}")
}

/// Looks at all snapshots; for each that has lost files or parts of its catalog, writes a copy that leaves them out, with
/// [`REPAIRED_TAG`]. The snapshot itself stays. What is lost is reported to the monitor, entry by entry.
///
/// A blob counts as lost if no pack has it that is there, with its size, and not marked as damaged: [`super::packs`] finds
/// out which are.
///
/// # Errors
///
/// As [`super::index`]; [`crate::error::Error::Invalid`] while maintenance of an epoch is unfinished.
pub fn snapshots(repo: &Arc<Repository>, options: &RepairOptions, monitor: &Arc<dyn Monitor>) -> Result<SnapshotsRepair> {
    repo.load_view(&**monitor)?.check_settled()?;
    packs(repo, &Which::Listed, options, monitor)?;
    let reader = open(repo, options, &**monitor)?;
    reader.view().check_settled()?;
    let lost = lost_packs(&reader)?;
    let all = snapshot::list(repo, reader.view(), &**monitor)?;
    drop(reader);
    let mut done = SnapshotsRepair { snapshots: all.len() as u64, ..SnapshotsRepair::default() };
    let mut whole = HashSet::new();
    for record in &all {
        if whole.contains(&record.snapshot.root) {
            continue;
        }
        let quiet = Arc::new(Quiet::new(monitor));
        let looked = attempt(repo, record, options, true, &lost, &(Arc::clone(&quiet) as _))?;
        if looked.problems == 0 {
            whole.insert(record.snapshot.root);
            continue;
        }
        let wanted = origin(&record.name.id);
        let before =
            |r: &SnapshotRecord| r.snapshot.kind == SnapshotKind::Complete && r.snapshot.origin.as_ref() == Some(&wanted);
        if all.iter().any(before) {
            done.repaired_before += 1;
            continue;
        }
        let subject = format!("snapshot {}", record.name.id.short());
        report(&**monitor, subject, format!("has lost {} of its {} entries", looked.problems, record.snapshot.totals.entries));
        let (named, heard) = quiet.heard();
        for problem in named {
            monitor.problem(problem);
        }
        if heard > MAX_NAMED as u64 {
            monitor.note(format!("{} more problems with this snapshot are not named", heard - MAX_NAMED as u64));
        }
        let repaired = if options.dry_run {
            None
        } else {
            // Maintenance may have begun meanwhile.
            repo.load_view(&**monitor)?.check_settled()?;
            let quiet = Arc::new(Quiet::new(monitor));
            attempt(repo, record, options, false, &lost, &(quiet as _))?.snapshot
        };
        done.repairs.push(SnapshotRepair { damaged: record.name, repaired, lost: looked.problems });
    }
    Ok(done)
}

/// Packs that the index knows and that are not in the store with their size.
fn lost_packs(reader: &Reader) -> Result<Vec<PackName>> {
    let listed = list_packs(reader.repo())?;
    let mut lost = Vec::new();
    reader.index().packs(|_, epoch, id, size| {
        if listed.get(&(epoch, id)) != Some(&size) {
            lost.push((epoch, id));
        }
    })?;
    Ok(lost)
}

/// Makes a snapshot of what is left of one, or only finds out what that would be.
fn attempt(
    repo: &Arc<Repository>,
    record: &SnapshotRecord,
    options: &RepairOptions,
    dry_run: bool,
    lost: &[PackName],
    monitor: &Arc<dyn Monitor>,
) -> Result<BackupOutcome> {
    let s = &record.snapshot;
    let mut tags = s.tags.clone();
    if !tags.iter().any(|tag| tag == REPAIRED_TAG) {
        tags.push(REPAIRED_TAG.to_owned());
    }
    let backup_options = BackupOptions {
        time: s.time,
        host: s.host.clone(),
        user: s.user.clone(),
        paths: s.paths.clone(),
        tags,
        incomplete_tag: None,
        origin: Some(origin(&record.name.id)),
        program: options.program.clone(),
        level: options.level,
        parent: None,
        dry_run,
        cache_dir: options.cache_dir.clone(),
    };
    let mut source = |reader: &Arc<Reader>| -> Result<Box<dyn EntrySource>> {
        Ok(Box::new(CopySource::own(reader, s.root, Arc::clone(monitor))?))
    };
    backup::run_without(repo, &mut source, &backup_options, lost, monitor)
}

/// Keeps what it hears of problems to itself.
struct Quiet {
    monitor: Arc<dyn Monitor>,
    /// The first ones, and how many there were in all.
    heard: Mutex<(Vec<Problem>, u64)>,
}

impl Quiet {
    fn new(monitor: &Arc<dyn Monitor>) -> Self {
        Self { monitor: Arc::clone(monitor), heard: Mutex::default() }
    }

    fn heard(&self) -> (Vec<Problem>, u64) {
        std::mem::take(&mut *lock(&self.heard))
    }
}

impl Monitor for Quiet {
    fn count(&self, counter: Counter, amount: u64) {
        self.monitor.count(counter, amount);
    }
    fn expect(&self, _: Counter, _: u64) {}
    fn stage(&self, _: &'static str) {}
    fn problem(&self, problem: Problem) {
        let (named, count) = &mut *lock(&self.heard);
        *count += 1;
        if named.len() < MAX_NAMED {
            named.push(problem);
        }
    }
    fn note(&self, text: String) {
        self.monitor.note(text);
    }
    fn cancelled(&self) -> bool {
        self.monitor.cancelled()
    }
}
