//! Backup: a source of entries becomes a snapshot.
//!
//! The caller's thread drives the source, compares with the previous snapshot and builds the catalog; reader threads read
//! and cut; rayon hashes, compresses and seals; uploader threads store packs. Memory is bounded by [`budget`]: a byte is
//! paid for before it is read, and paid back when it is known to be stored already or has reached the store.

mod budget;
mod parent;
mod pipeline;
mod queue;
mod read;
mod session;
mod store;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::codec::Level;
use crate::crypto::random_bytes;
use crate::entry::{EntrySource, Timestamp};
use crate::error::{Error, Result};
use crate::format::snapshot::Totals;
use crate::id::{BlobId, Epoch, ObjectId};
use crate::monitor::Monitor;
use crate::repo::{Reader, Repository, SnapshotName};
use crate::snapshot::SnapshotRecord;

/// Gives a source for each round of a backup. The reader is the backup's own.
pub type Sources<'a> = dyn FnMut(&Arc<Reader>) -> Result<Box<dyn EntrySource>> + 'a;

/// A long backup saves what it has this often (W5). One that maintenance has overtaken does so four times as often as that came,
/// so that it gets on however often it comes.
const PARTIAL_AFTER: Duration = Duration::from_secs(30 * 60);
/// How often in a row a backup moves on to a newer epoch within a minute before it gives up.
const MAX_SHORT_ROUNDS: usize = 100;
const SHORT_ROUND: Duration = Duration::from_secs(60);

/// What to write into the snapshot, and how.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    /// Time of the snapshot.
    pub time: Timestamp,
    /// Name of the machine.
    pub host: String,
    /// Name of the user.
    pub user: String,
    /// What is backed up.
    pub paths: Vec<Vec<u8>>,
    /// Tags.
    pub tags: Vec<String>,
    /// One more tag, if anything had to be left out.
    pub incomplete_tag: Option<String>,
    /// What the snapshot is made from, where that is no file system: see [`crate::format::snapshot::Snapshot::origin`].
    pub origin: Option<String>,
    /// Name and version of the program.
    pub program: String,
    /// Compression.
    pub level: Level,
    /// The snapshot to compare with; without one, every file is read.
    pub parent: Option<SnapshotRecord>,
    /// Only find out what would be stored.
    pub dry_run: bool,
    /// Where the index cache lives; in memory without one.
    pub cache_dir: Option<PathBuf>,
}

/// What a backup did.
#[derive(Clone, Debug, Default)]
pub struct BackupOutcome {
    /// The snapshot; none for a dry run.
    pub snapshot: Option<SnapshotName>,
    /// Sums over the snapshot.
    pub totals: Totals,
    /// Files that the parent does not have.
    pub files_new: u64,
    /// Files that differ from the parent's.
    pub files_changed: u64,
    /// Files that were not opened because nothing about them changed.
    pub files_unmodified: u64,
    /// Directories that the parent does not have.
    pub dirs_new: u64,
    /// Directories that differ from the parent's.
    pub dirs_changed: u64,
    /// Directories as before.
    pub dirs_unmodified: u64,
    /// New blobs of file content.
    pub data_blobs: u64,
    /// Bytes of new blobs.
    pub added_bytes: u64,
    /// Bytes they take, compressed.
    pub stored_bytes: u64,
    /// Files that could not be read, or changed while they were.
    pub problems: u64,
    /// The latest seal seen.
    pub head: Option<(Epoch, ObjectId)>,
}

/// What to compare with, and the index through which it can be read.
#[derive(Clone)]
struct ParentView {
    reader: Arc<Reader>,
    id: Option<ObjectId>,
    root: Option<BlobId>,
    started: Timestamp,
    /// Where the catalog is that of a round that did not come to its end: what to compare with from there on.
    rest: Option<Box<ParentView>>,
}

/// A round of a backup.
#[derive(Clone, Copy)]
struct Attempt {
    /// The same in all rounds: partial snapshots of earlier ones are superseded by the complete one.
    session: [u8; 16],
    partial_after: Duration,
}

/// How one round ended.
enum Round {
    Done(Box<BackupOutcome>),
    /// Maintenance moved on, or a pack has disappeared: again, comparing with what this round has made.
    Again {
        parent: Option<ParentView>,
        lost: Vec<(Epoch, ObjectId)>,
    },
}

/// Backs up. `source` is called once, and again whenever maintenance has closed the epoch under which the backup was
/// written, or packs it relied on turn out to be missing: nothing is lost then, and what is stored is not stored again. What
/// a source takes from the repository itself it reads through the reader it is given.
///
/// # Errors
///
/// [`Error::Interrupted`] if the monitor says so; what has been stored by then is indexed, and the next run builds on it.
pub fn run(
    repo: &Arc<Repository>,
    source: &mut Sources<'_>,
    options: &BackupOptions,
    monitor: &Arc<dyn Monitor>,
) -> Result<BackupOutcome> {
    run_without(repo, source, options, &[], monitor)
}

/// As [`run`], where these packs are known to be gone.
pub(crate) fn run_without(
    repo: &Arc<Repository>,
    source: &mut Sources<'_>,
    options: &BackupOptions,
    lost: &[(Epoch, ObjectId)],
    monitor: &Arc<dyn Monitor>,
) -> Result<BackupOutcome> {
    let mut lost = lost.to_vec();
    let mut reader = Arc::new(Reader::open_for_writing(Arc::clone(repo), options.cache_dir.as_deref(), &lost, &**monitor)?);
    let given = |reader: &Arc<Reader>| {
        options.parent.as_ref().map(|p| ParentView {
            reader: Arc::clone(reader),
            id: Some(p.name.id),
            root: p.snapshot.root,
            started: p.snapshot.started,
            rest: None,
        })
    };
    let mut attempt = Attempt { session: random_bytes(), partial_after: PARTIAL_AFTER };
    let (mut newer, mut short_rounds) = (None, 0);
    while short_rounds < MAX_SHORT_ROUNDS {
        let (began, parent) = (Instant::now(), newer.or_else(|| given(&reader)));
        match pipeline::round(&reader, &mut *source(&reader)?, options, parent.as_ref(), attempt, monitor)? {
            Round::Done(outcome) => return Ok(*outcome),
            Round::Again { parent, lost: more } => {
                lost.extend(more);
                newer = parent;
            }
        }
        let took = began.elapsed();
        attempt.partial_after = PARTIAL_AFTER.min(took / 4);
        short_rounds = if took < SHORT_ROUND { short_rounds + 1 } else { 0 };
        reader = Arc::new(Reader::open_for_writing(Arc::clone(repo), options.cache_dir.as_deref(), &lost, &**monitor)?);
    }
    Err(Error::Invalid("maintenance has overtaken this backup again and again; run it again later".into()))
}
