//! Copy: snapshots of another repository become snapshots of this one.
//!
//! Ids of blobs, chunk borders and keys hang on secrets that repositories do not share, so what is copied is read, cut and stored as by
//! a backup. What need not be read: files that an earlier snapshot of the same machine and paths has with the very same blobs,
//! if that was copied, too; the copy's blobs are taken then. So the second copy of a series costs what changed.
//!
//! A copy keeps the time, host, user, paths and tags of its snapshot, and says in `origin` what it is a copy of. What is
//! there already under that origin is not copied again.

pub(crate) mod source;
#[cfg(test)]
pub(crate) mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use source::CopySource;

use crate::backup::{self, BackupOptions, BackupOutcome};
use crate::codec::Level;
use crate::entry::EntrySource;
use crate::error::{Error, Result};
use crate::format::snapshot::SnapshotKind;
use crate::id::RepoId;
use crate::monitor::Monitor;
use crate::repo::{Reader, Repository, SnapshotName};
use crate::snapshot::{self, SnapshotRecord};

/// Tag of a copy that lacks something its snapshot has.
pub const INCOMPLETE_TAG: &str = "partial";

/// How to copy.
#[derive(Clone, Debug)]
pub struct CopyOptions {
    /// Name and version of the program.
    pub program: String,
    /// Compression.
    pub level: Level,
    /// Only tell what would be copied.
    pub dry_run: bool,
    /// Where the index cache of the repository that is written to lives; in memory without one.
    pub cache_dir: Option<PathBuf>,
}

/// What became of a snapshot.
#[derive(Clone, Debug)]
pub enum Copied {
    /// It was copied.
    New(Box<BackupOutcome>),
    /// It had been copied before.
    Present(SnapshotName),
    /// It would be copied.
    Planned,
}

/// What a copy of a snapshot says of where it is from. A copy of a copy, or of an import, says the same as that.
#[must_use]
pub fn origin(repo: RepoId, record: &SnapshotRecord) -> String {
    record.snapshot.origin.clone().unwrap_or_else(|| format!("snapshot {} of {repo}", record.name.id))
}

/// Copies `wanted` snapshots of `from`, oldest first, into `to`; `done` is told what became of each. `monitor` hears of
/// files that cannot be read: they are left out, and the copy gets [`INCOMPLETE_TAG`].
///
/// # Errors
///
/// [`Error::Interrupted`] if the monitor says so; if either store fails. What has been stored by then is not stored again.
pub fn run(
    to: &Arc<Repository>,
    from: &Arc<Reader>,
    wanted: &[SnapshotRecord],
    options: &CopyOptions,
    monitor: &Arc<dyn Monitor>,
    done: &mut dyn FnMut(&SnapshotRecord, &Copied) -> Result<()>,
) -> Result<()> {
    if to.id() == from.repo().id() {
        return Err(Error::Invalid("both repositories are the same one".into()));
    }
    to.check_writable()?;
    let view = to.load_view(&**monitor)?;
    let theirs = snapshot::list(from.repo(), from.view(), &**monitor)?;
    let ours = snapshot::list(to, &view, &**monitor)?;
    let mut pairs = Pairs { from: from.repo().id(), to: to.id(), theirs, ours };
    let mut wanted: Vec<&SnapshotRecord> = wanted.iter().collect();
    wanted.sort_by_key(|record| (record.snapshot.time, record.name.id));
    for record in wanted {
        let result = match pairs.copy_of(record) {
            Some(copy) => Copied::Present(copy.name),
            None if options.dry_run => Copied::Planned,
            None => {
                let outcome = one(to, from, record, &pairs, options, monitor)?;
                if let Some(name) = outcome.snapshot {
                    let snapshot = to.read_snapshot(&name)?;
                    pairs.ours.push(SnapshotRecord { name, snapshot, sealed: false });
                }
                Copied::New(Box::new(outcome))
            }
        };
        done(record, &result)?;
    }
    Ok(())
}

fn one(
    to: &Arc<Repository>,
    from: &Arc<Reader>,
    record: &SnapshotRecord,
    pairs: &Pairs,
    options: &CopyOptions,
    monitor: &Arc<dyn Monitor>,
) -> Result<BackupOutcome> {
    let snapshot = &record.snapshot;
    let options = BackupOptions {
        time: snapshot.time,
        host: snapshot.host.clone(),
        user: snapshot.user.clone(),
        paths: snapshot.paths.clone(),
        tags: snapshot.tags.clone(),
        incomplete_tag: Some(INCOMPLETE_TAG.to_owned()),
        origin: Some(origin(from.repo().id(), record)),
        program: options.program.clone(),
        level: options.level,
        parent: None,
        dry_run: false,
        cache_dir: options.cache_dir.clone(),
    };
    let base = pairs.base_for(record);
    let mut open = |reader: &Arc<Reader>| -> Result<Box<dyn EntrySource>> {
        let base = base.map(|(theirs, ours)| (theirs.snapshot.root, ours.snapshot.root));
        Ok(Box::new(CopySource::new(from, snapshot.root, base, reader, Arc::clone(monitor))?))
    };
    backup::run(to, &mut open, &options, monitor)
}

/// The snapshots of both repositories, and which are copies of which.
struct Pairs {
    from: RepoId,
    to: RepoId,
    theirs: Vec<SnapshotRecord>,
    ours: Vec<SnapshotRecord>,
}

impl Pairs {
    fn copies<'a>(&'a self, record: &SnapshotRecord, kind: SnapshotKind) -> impl Iterator<Item = &'a SnapshotRecord> {
        let origin = origin(self.from, record);
        // What was copied from here and comes back is the same, too.
        self.ours.iter().filter(move |r| r.snapshot.kind == kind && self::origin(self.to, r) == origin)
    }

    fn copy_of(&self, record: &SnapshotRecord) -> Option<&SnapshotRecord> {
        // An unfinished backup is copied as what it is: a complete copy of it.
        self.copies(record, SnapshotKind::Complete).next()
    }

    /// A snapshot that has most in common with this one and has been copied, and its copy: what an interrupted copy of the
    /// same one has saved; else the latest one before of the same machine and paths, or the first one after.
    fn base_for(&self, record: &SnapshotRecord) -> Option<(&SnapshotRecord, &SnapshotRecord)> {
        let same = self.theirs.iter().find(|r| r.name == record.name);
        let partial = self.copies(record, SnapshotKind::Partial).max_by_key(|r| r.snapshot.totals.entries);
        if let (Some(same), Some(partial)) = (same, partial) {
            return Some((same, partial));
        }
        let wanted = &record.snapshot;
        let related = self.theirs.iter().filter(|r| {
            let s = &r.snapshot;
            r.name != record.name && s.host == wanted.host && s.paths == wanted.paths
        });
        let copied = related.filter_map(|r| Some((r, self.copy_of(r)?)));
        let before = |(r, _): &(&SnapshotRecord, &SnapshotRecord)| r.snapshot.time <= wanted.time;
        let (earlier, later): (Vec<_>, Vec<_>) = copied.partition(before);
        let latest = earlier.into_iter().max_by_key(|(r, _)| r.snapshot.time);
        latest.or_else(|| later.into_iter().min_by_key(|(r, _)| r.snapshot.time))
    }
}
