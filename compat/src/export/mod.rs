//! Export: snapshots become backup sets that stock duplicity takes for its own.
//!
//! The first snapshot of a chain becomes a full set, each later one an increment with what differs from the one before. What
//! both have is known from the repository without reading it ([`delta`]). Memory: 16 MiB of decoded data, 8 MiB of content that
//! waits, 22 MiB of compression, the signature and the list of blobs of one file at a time, and the names of changed files for the manifest, 32 MiB of them at most.
//!
//! A file appears at its [`Target`] when it is complete, the manifest after everything else; what was written of a set that
//! fails is taken back.

mod base;
mod delta;
pub(crate) mod file;
pub(crate) mod header;
mod losses;
mod merge;
pub(crate) mod pieces;
mod plan;
pub(crate) mod set;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::BTreeSet;
use std::sync::Arc;

use engine::content::StoredFiles;
use engine::error::{Error, Result};
use engine::monitor::Monitor;
use engine::path::EntryPath;
use engine::repo::Reader;
use engine::snapshot::{self, SnapshotRecord};

pub use self::losses::{Loss, Losses};
use self::merge::Merge;
use self::plan::{Part, Step};
use self::set::SetWriter;
use self::tree::Tree;
use crate::collection::{BackupSet, Collection};
use crate::import::Archive;
use crate::name::{Prefixes, SetTimes};
use crate::pgp::Encryption;
use crate::store::StoreError;
pub use crate::store::{Folder, Target, Upload};

/// Size of volumes that duplicity takes by default, in bytes.
pub const VOLUME_SIZE: u64 = 200 << 20;

/// How the files of an archive are wrapped.
#[derive(Clone, Debug)]
pub enum Sealing {
    /// Not at all.
    Plain,
    /// gzip, but for the manifest.
    Gzip,
    /// OpenPGP; compressed within.
    OpenPgp(Box<Encryption>),
}

/// Where the first set goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// On the archive's last chain, if it has any.
    Auto,
    /// It starts a chain.
    Full,
    /// On the archive's last chain; that there is none is an error.
    Incremental,
}

/// How to export.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// Where the first set goes.
    pub mode: Mode,
    /// How files are wrapped.
    pub sealing: Sealing,
    /// Size of a volume's file in bytes, after which the next one begins. Exceeded by less than 200 KiB.
    pub volume_size: u64,
    /// How names begin.
    pub prefixes: Prefixes,
    /// Host name for the manifest. duplicity goes on with the archive only on that host; without one, on any.
    pub host: Option<String>,
    /// Source directory for the manifest. duplicity goes on with the archive only for that directory; without one, for any.
    pub source: Option<Vec<u8>>,
    /// Only tell what would be done.
    pub dry_run: bool,
}

/// A snapshot to export.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Which.
    pub record: SnapshotRecord,
    /// What in it becomes the archive's root; its source path without.
    pub path: Option<EntryPath>,
}

/// What a set holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetTotals {
    /// Volumes.
    pub volumes: u64,
    /// Sizes of all files of the set, in bytes.
    pub stored_bytes: u64,
    /// Sizes of the volumes, in bytes.
    pub volume_bytes: u64,
    /// Bytes of content and deltas.
    pub raw_bytes: u64,
    /// Paths that are stored whole.
    pub new: u64,
    /// Regular files that are stored as deltas.
    pub changed: u64,
    /// Paths that are no more.
    pub deleted: u64,
}

/// What became of a snapshot.
#[derive(Clone, Debug)]
pub enum SetResult {
    /// It is in the archive now; and what the archive cannot hold of it.
    Exported(SetTotals, Box<Losses>),
    /// It was in the archive already.
    Present,
    /// It would be exported.
    Planned,
}

/// A snapshot and what became of it.
#[derive(Clone, Debug)]
pub struct SetOutcome {
    /// The snapshot.
    pub record: SnapshotRecord,
    /// The set's times.
    pub times: SetTimes,
    /// What became of it.
    pub result: SetResult,
}

/// Exports snapshots, oldest first. Those that the archive's last chain has already, by their time, are passed over; the others
/// have to be newer than all that the archive has. `done` is called after each. `archive` reads what is at the target: what
/// increments are to build on is compared with its signatures first.
///
/// # Errors
///
/// If the target fails, a catalog cannot be read, or the snapshots do not go together with each other or with the archive. Sets
/// that were complete by then stay. A file that cannot be read to its last byte is a problem: the archive does not have it.
pub fn run(
    reader: &Arc<Reader>,
    target: &dyn Target,
    archive: &Archive,
    choices: &[Choice],
    options: &ExportOptions,
    monitor: &dyn Monitor,
    done: &mut dyn FnMut(&SetOutcome) -> Result<()>,
) -> Result<()> {
    let collection = Collection::new(target.list_or_nothing().map_err(failed)?, &options.prefixes);
    let all = snapshot::list(reader.repo(), reader.view(), monitor)?;
    let steps = plan::plan(choices, options.mode, &collection, &all)?;
    clear(target, &collection, &steps, options)?;
    check_base(reader, archive, &collection, &steps)?;
    let (files, mut unreadable) = (StoredFiles::new(Arc::clone(reader)), BTreeSet::new());
    monitor.stage("exporting");
    for step in steps {
        let (part, times, base) = match step {
            Step::Present(part, times) => {
                done(&SetOutcome { record: part.record, times, result: SetResult::Present })?;
                continue;
            }
            Step::Write { part, times, base } => (part, times, base),
        };
        let new = tree(reader, &part)?;
        let old = base.as_ref().map(|base| tree(reader, base)).transpose()?;
        let result = if options.dry_run {
            SetResult::Planned
        } else {
            let (mut losses, set) = (Losses::default(), SetWriter::new(target, options, times)?);
            let merge = Merge { reader, files: &files, monitor, losses: &mut losses, unreadable: &mut unreadable };
            let totals = merge.write(old, new, set)?;
            SetResult::Exported(totals, Box::new(losses))
        };
        done(&SetOutcome { record: part.record, times, result })?;
    }
    Ok(())
}

/// Compares what the first set builds on with the archive.
fn check_base(reader: &Arc<Reader>, archive: &Archive, collection: &Collection, steps: &[Step]) -> Result<()> {
    let base = steps.iter().find_map(|step| match step {
        Step::Write { base, .. } => Some(base.as_ref()),
        Step::Present(..) => None,
    });
    let Some(base) = base.flatten() else { return Ok(()) };
    let chain = collection.chains().iter().max_by_key(|chain| chain.end_time());
    let sets = chain.map(|chain| chain.sets_at(base.time)).unwrap_or_default();
    base::check(archive, sets, tree(reader, base)?)
}

fn tree<'r>(reader: &'r Arc<Reader>, part: &Part) -> Result<Tree<'r>> {
    Tree::new(reader, part.record.snapshot.root, &part.root)
}

/// Removes what an earlier export of the same sets has left when it was killed. Other sets that are incomplete are in the way:
/// newer versions of duplicity restore nothing where there is one at the end.
fn clear(target: &dyn Target, collection: &Collection, steps: &[Step], options: &ExportOptions) -> Result<()> {
    let is_ours = |set: &BackupSet| steps.iter().any(|step| matches!(step, Step::Write { times, .. } if *times == set.times()));
    let unfinished = collection.sets().iter().filter(|set| set.manifest().is_none());
    for set in unfinished.filter(|_| steps.iter().any(|step| matches!(step, Step::Write { .. }))) {
        if !is_ours(set) {
            return Err(Error::Invalid(format!(
                "{} has an incomplete backup ({}): remove it first, with 'duplicity cleanup --force'",
                target.location(),
                set.times()
            )));
        }
        let files = set.volumes().values().chain(set.signature());
        for file in files.filter(|_| !options.dry_run) {
            target.remove(&file.file.name).map_err(failed)?;
        }
    }
    Ok(())
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(error: StoreError) -> Error {
    Error::Invalid(error.to_string())
}
